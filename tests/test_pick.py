"""Picking foggy images: the ranking, and the page in a real browser."""

import csv
import html
import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import mini_layouts
import pytest
from click.testing import CliRunner

import fvrid_tools
from fvrid_tools import density, images
from fvrid_tools.cli import cli
from fvrid_tools.pick import Picked, pick
from fvrid_tools.records import FvridError
from fvrid_tools.sources import read_source

PATTERN = r"(?P<vehicle_id>[^/]+)/(?P<camera_id>c\d+)"
HOSTILE = '=1+1,"><img src=x onerror=alert(1)>&'
CLEAR, FOGGY = 5, 3  # vehicles
VIEWS = 2


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clear and foggy vehicles, one of which has a name that is HTML and a formula; one file is broken."""
    root = tmp_path_factory.mktemp("mixed")
    for part, count, names in (("clear", CLEAR, "clear{}"), ("real", FOGGY, "fog{}")):
        for vehicle in range(count):
            folder = root / (HOSTILE if (part, vehicle) == ("real", 0) else names.format(vehicle))
            folder.mkdir()
            for view in range(VIEWS):
                content = mini_layouts.jpeg(mini_layouts.picture(vehicle, view, part))  # type: ignore[arg-type]
                (folder / f"c{view + 1}_{view}.jpg").write_bytes(content)
    (root / "clear0/c9_broken.jpg").write_bytes(b"\xff\xd8\xff")
    return root


@pytest.fixture(scope="module")
def picked(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written of it."""
    out = tmp_path_factory.mktemp("picked") / "out"
    done = pick([read_source("folder", mixed, PATTERN)], out, top=12)
    assert done == Picked(ranked=16, foggy=6, shown=12, rejects=1)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_is_ranked_and_foggy_ones_come_first(picked: Path, mixed: Path) -> None:
    rows = rows_of(picked / "density.csv")
    found = [float(row["density"]) for row in rows]
    assert len(rows) == VIEWS * (CLEAR + FOGGY)
    assert found == sorted(found, reverse=True)
    assert {row["vehicle_id"] for row in rows[: VIEWS * FOGGY]} == {HOSTILE, "fog1", "fog2"}
    assert found[VIEWS * FOGGY - 1] > density.FOGGY > found[VIEWS * FOGGY]
    for row in rows[::5]:
        content = (mixed / row["ORI_NAME"]).read_bytes()
        assert row["density"] == f"{density.fog_density(images.decode(content)):.4f}"
        assert row["camera_id"] == row["ORI_NAME"].rpartition("/")[2][:2]
    assert [row["source_path"] for row in rows_of(picked / "rejects.csv")] == ["clear0/c9_broken.jpg"]


def test_images_that_look_alike_are_in_order_of_their_ids(mixed: Path, tmp_path: Path) -> None:
    contents = [(mixed / name).read_bytes() for name in ("clear1/c1_0.jpg", "fog1/c1_0.jpg")]
    names = [f"{number:02d}" for number in range(60)]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "c1.jpg").write_bytes(contents[number % 2])
    listing = read_source("folder", tmp_path / "in", PATTERN)
    pick([replace(listing, records=listing.records[::-1])], tmp_path / "out", top=1)
    assert [row["vehicle_id"] for row in rows_of(tmp_path / "out/density.csv")] == [*names[1::2], *names[::2]]


def test_workers_change_nothing(picked: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fvrid_tools.pick._TASK", 5)
    out, counts = tmp_path / "out", []
    pick([read_source("folder", mixed, PATTERN)], out, top=12, workers=2, progress=counts.append)
    assert sum(counts) == 17
    for name in ("density.csv", "rejects.csv", "pick.html"):
        assert (out / name).read_bytes() == (picked / name).read_bytes()


def test_the_command(mixed: Path, tmp_path: Path) -> None:
    command = ["pick", "--src", "folder", "--root", str(mixed), "--pattern", PATTERN, "--workers", "1"]
    done = CliRunner().invoke(cli, [*command, "--out", str(tmp_path), "--min-density", "0.25", "--top", "100"])
    assert done.exit_code == 0, done.output
    assert "16 images ranked, 6 above a density of 0.25, 1 refused" in done.output
    assert (tmp_path / "pick.html").read_text().count("<li ") == 6
    done = CliRunner().invoke(cli, [*command, "--out", str(tmp_path), "--min-density", "1", "--top", "100"])
    assert done.exit_code == 0
    assert "<li " not in (tmp_path / "pick.html").read_text()
    assert CliRunner().invoke(cli, [*command, "--out", str(tmp_path), "--top", "0"]).exit_code == 2


def test_a_dataset_keeps_its_rejects(mixed: Path, copy: Path) -> None:
    before = (copy / "rejects.csv").read_bytes()
    with pytest.raises(FvridError, match="holds a dataset"):
        pick([read_source("folder", mixed, PATTERN)], copy)
    assert (copy / "rejects.csv").read_bytes() == before


def test_names_are_escaped(picked: Path) -> None:
    text = (picked / "pick.html").read_text()
    assert HOSTILE not in text
    assert f'data-vehicle="{html.escape(HOSTILE).replace("&quot;", "&#34;")}"' in text
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:|//)""", text)


def done_on(page: Path, act: str, chromium: str, folder: Path) -> tuple[object, str]:
    """What `act`, JavaScript that ends with a call of tell_test(value), told, and the document then.

    The page must log no error and ask for nothing.
    """
    script = f"<script>const tell_test = value => {{ document.title = JSON.stringify(value); }};\n{act}</script></body>"
    changed = folder / "page.html"
    changed.write_text(page.read_text().replace("</body>", script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    log = folder / "net.json"
    command = [chromium, *options, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", f"file://{changed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    events = json.loads(log.read_text())["events"]
    urls = [e["params"]["url"] for e in events if isinstance(e.get("params"), dict) and "url" in e["params"]]
    browsers_own = r"https?://[\w.]*(google|googleapis|gvt1)\.com/"
    assert [url for url in urls if url.startswith("http") and not re.match(browsers_own, url)] == []
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    return json.loads(html.unescape(title[1])), done.stdout


SAVED = """
const links = [];
HTMLAnchorElement.prototype.click = function () { links.push(this); };
const ticked = () => cards.filter(card => box(card).checked).length;
const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
"""


def test_what_is_ticked_is_saved_and_read_back(picked: Path, chromium: str, tmp_path: Path) -> None:
    act = """
    form.save.click();
    const last = cards.at(-1);
    box(last).click();  // a clear one, by hand
    form.threshold.value = 1;
    form.threshold.dispatchEvent(new Event("input", {bubbles: true}));
    const alone = ticked();
    form.threshold.value = 0.25;
    form.threshold.dispatchEvent(new Event("input", {bubbles: true}));
    form.save.click();
    const again = ticked();
    Promise.all(links.map(async link => [link.download, await (await fetch(link.href)).text()]))
      .then(saved => tell_test({alone, again, saved}));
    """
    told, _ = done_on(picked / "pick.html", SAVED + act, chromium, tmp_path)
    assert isinstance(told, dict)
    assert (told["alone"], told["again"]) == (1, 7)
    ranked = rows_of(picked / "density.csv")
    for (name, text), wanted in zip(told["saved"], (ranked[:6], [*ranked[:6], ranked[11]]), strict=True):
        assert name == "picked.csv"
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert list(rows[0]) == ["IMG", "NAME", "SOURCE", "SAVE", "ORI_NAME", "density"]
        assert rows == [
            {
                "IMG": row["ORI_NAME"].rpartition("/")[2],
                "NAME": row["vehicle_id"],
                "SOURCE": "folder",
                "SAVE": "FVRID_real",
                "ORI_NAME": row["ORI_NAME"],
                "density": row["density"],
            }
            for row in wanted
        ]


def test_a_build_takes_what_is_picked(picked: Path, mixed: Path, tmp_path: Path) -> None:
    """As the page saves it, without a browser; names that are odd too."""
    rows = rows_of(picked / "density.csv")[:5]
    with (tmp_path / "picked.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("IMG", "NAME", "SOURCE", "SAVE", "ORI_NAME", "density"))
        for row in rows:
            name, path = row["ORI_NAME"].rpartition("/")[2], row["ORI_NAME"]
            lines.writerow((name, row["vehicle_id"], "folder", "FVRID_real", path, row["density"]))
    command = ["build-real", "--src", "folder", "--root", str(mixed), "--pattern", PATTERN, "--labels"]
    done = CliRunner().invoke(cli, [*command, str(tmp_path / "picked.csv"), "--out", str(tmp_path / "real")])
    assert done.exit_code == 0, done.output
    built = fvrid_tools.open_dataset(tmp_path / "real").rows
    assert {row.source_path for row in built} == {row["ORI_NAME"] for row in rows}


def test_filters_keys_vehicles_and_a_reload(picked: Path, chromium: str, tmp_path: Path) -> None:
    act = """
    const told = [ticked()];
    form.camera.value = "c1"; form.camera.dispatchEvent(new Event("input", {bubbles: true}));
    told.push(shown().length);
    form.none.click(); told.push(ticked());  // only those of camera 2 stay
    form.camera.value = ""; form.camera.dispatchEvent(new Event("input", {bubbles: true}));
    box(cards[0]).focus(); press("ArrowRight"); press("ArrowRight"); press("ArrowLeft");
    told.push(cards.findIndex(card => box(card) === document.activeElement));
    press("ArrowDown"); press("ArrowUp");
    told.push(cards.findIndex(card => box(card) === document.activeElement));
    press("v"); told.push(fellows(cards[1]).every(card => box(card).checked));
    cards[1].querySelector("button").click(); told.push(fellows(cards[1]).some(card => box(card).checked));
    const before = marks.size;
    marks = new Map(); recall(); told.push(marks.size === before);  // as after a reload
    form.querySelector("[type=reset]").click();
    setTimeout(() => { told.push(ticked()); tell_test(told); }, 50);
    """
    told, document = done_on(picked / "pick.html", SAVED + act, chromium, tmp_path)
    rows = rows_of(picked / "density.csv")
    first = sum(row["camera_id"] == "c1" for row in rows[:12])
    kept = sum(row["camera_id"] == "c2" for row in rows[:6])
    assert told == [6, first, kept, 1, 1, True, False, True, 6]
    assert "onerror=alert(1)>" not in re.sub(r'"[^"]*"', "", document)
    # a second visit, with the same profile: what was done by hand is still there
    once = SAVED + "box(cards[11]).click(); tell_test(ticked());"
    assert done_on(picked / "pick.html", once, chromium, tmp_path)[0] == 7
    assert done_on(picked / "pick.html", SAVED + "tell_test(ticked());", chromium, tmp_path)[0] == 7
