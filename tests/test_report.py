import re
from html.parser import HTMLParser
from pathlib import Path

import fvrid_tools
from fvrid_tools import page
from fvrid_tools.build import Recipe, build
from fvrid_tools.depth import open_estimator
from fvrid_tools.export import export
from fvrid_tools.fog import FogRange, GivenFog
from fvrid_tools.report import dataset_report
from fvrid_tools.sources import read_source


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_report_is_one_file_with_its_pictures_inside(built: Path) -> None:
    html = dataset_report(fvrid_tools.open_dataset(built), pictures=5)
    tags = Tags(html).found
    sources = [attrs["src"] or "" for tag, attrs in tags if tag == "img"]
    assert len(sources) == 5 * 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:|//)""", html)
    assert all((attrs.get("href") or "").startswith("data:") for tag, attrs in tags if tag == "link")
    assert not [attrs for tag, attrs in tags if tag == "script" and "src" in attrs]
    assert html.count("<svg") == 3


def test_real_datasets_show_foggy_images_and_no_histogram(built_real: Path) -> None:
    html = dataset_report(fvrid_tools.open_dataset(built_real), pictures=3)
    assert html.count("<img") == 3
    assert "<svg" not in html


def test_no_fog_at_all_can_be_shown(tmp_path: Path, laid_out: Path) -> None:
    recipe = Recipe(depth=open_estimator("constant"), fog=FogRange(beta=(0, 0), airlight=(0, 0)))
    build([read_source("veri-wild", laid_out / "clear")], tmp_path / "out", recipe)
    assert dataset_report(fvrid_tools.open_dataset(tmp_path / "out"), pictures=1).count("<svg") == 3


def test_fog_that_a_source_brought_is_shown_without_what_is_not_known_of_it(tmp_path: Path, built: Path) -> None:
    export(fvrid_tools.open_dataset(built), "folder", tmp_path / "theirs")
    recipe = Recipe(depth=open_estimator("source"), fog=GivenFog())
    build([read_source("fvrid", tmp_path / "theirs")], tmp_path / "out", recipe)
    html = dataset_report(fvrid_tools.open_dataset(tmp_path / "out"), pictures=2)
    assert html.count("<img") == 2 * 3  # clear, depth, foggy
    assert "<svg" not in html


def test_names_are_escaped(copy: Path) -> None:
    data = fvrid_tools.open_dataset(copy)
    evil = [row._replace(vehicle_id="<script>alert(1)</script>", source='"><img src=x>') for row in data.rows]
    html = dataset_report(data.take(evil), pictures=2)
    assert "<script>" not in html
    assert "<img src=x>" not in html
    assert "<b>" not in str(page.lines({"<b>": [(0, 1)], "c": [(1, 2)]}, "<b>"))


def test_the_names_of_lines_stand_above_them_where_there_are_several() -> None:
    chart = str(page.lines({"first": [(0, 1), (1, 2)], "second": [(0, 2)]}, "x"))
    above, _, drawn = chart.partition("<svg")
    assert re.findall(r">\W*(\w+)</span>", above) == ["first", "second"]
    assert "first" not in drawn
    assert "<span" not in str(page.lines({"first": [(0, 1)]}, "x"))


def test_a_histogram_has_a_bar_a_bin_and_heights_in_proportion() -> None:
    chart = str(page.histogram([0.1, 0.1, 0.9], "x", 0, 1, bins=2))
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', chart)]
    assert len(heights) == 2
    assert abs(heights[0] / heights[1] - 2) < 0.01
