import csv
import json
import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import fvrid_tools
from fvrid_tools import build, images, manifest, pictures, sources
from fvrid_tools.cli import cli
from fvrid_tools.dataset import Sample
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS, add_fog
from fvrid_tools.records import FvridError, ImageRecord, ImageRefused, OptionError, Part
from fvrid_tools.report import dataset_report
from fvrid_tools.sources import mini, mini_pack
from fvrid_tools.split import write_split
from fvrid_tools.verify import find_problems

VEHICLES, VIEWS = 4, 3
CLEAR, PAIRS = (
    build.Recipe(depth=open_estimator("source"), fog=PRESETS["paper"]),
    build.Recipe(depth=open_estimator("source")),
)


def render(root: Path, foggy: bool) -> Path:
    """A folder of noise in the form that `fvrid render` writes; in the foggy one every second view is a pair."""
    rng = np.random.default_rng(foggy)
    lines = []
    for vehicle in range(VEHICLES):
        for view in range(VIEWS):
            height, width = (int(side) for side in rng.integers(40, 60, 2))
            vehicle_id, image_id = f"{vehicle:04d}", f"{vehicle:04d}_c{view % 2:02d}_{view}"
            pair = foggy and view % 2 == 0
            lines.append(
                {
                    "image_id": image_id,
                    "vehicle_id": vehicle_id,
                    "camera_id": f"{view % 2:02d}",
                    "split": "test" if vehicle < 2 else "train",
                    "fog": ("patchy" if view else "homogeneous") if foggy else "",
                    "pair": int(pair),
                    "kind": "van, tall",
                    **({"visibility_m": 40} if foggy else {}),
                }
            )
            write(root / f"images/{vehicle_id}/{image_id}.jpg", images.encode(noise(rng, height, width)))
            if pair:
                write(root / f"clear/{vehicle_id}/{image_id}.jpg", images.encode(noise(rng, height, width)))
            if pair or not foggy:
                ramp = np.linspace(0.2, 1, height)[:, None] + np.zeros(width)
                depth = np.where(ramp >= 1, 65535, np.rint(ramp * 4095) * 16).astype(np.uint16)
                depth[: height // 4] ^= 1  # the last bit counts too
                write(root / f"depth/{vehicle_id}/{image_id}.png", images.encode_depth(depth))
    with (root / "views.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    write(root / "render.json", json.dumps({"seed": int(foggy)}).encode())
    return root


def noise(rng: np.random.Generator, height: int, width: int) -> images.Uint8Image:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass(frozen=True)
class Rendered:
    """The same images twice: as two rendered folders, and packed."""

    clear: Path
    real: Path
    packed: Path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("rendered")
    clear, real = render(root / "clear", foggy=False), render(root / "real", foggy=True)
    mini_pack.pack(clear, real, root / "packed")
    return Rendered(clear, real, root / "packed")


@pytest.fixture
def copy(rendered: Rendered, tmp_path: Path) -> Rendered:
    """A copy to injure."""
    root = Path(shutil.copytree(rendered.clear.parent, tmp_path / "copy"))
    return Rendered(root / "clear", root / "real", root / "packed")


@pytest.fixture(scope="module")
def pairs(rendered: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the pairs. Not to be changed."""
    out = tmp_path_factory.mktemp("pairs") / "pairs"
    build.build([sources.read_source("mini", rendered.packed, part="pairs")], out, PAIRS)
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def of_record(root: Path, kind: str, sample: Sample) -> bytes:
    suffix = ".png" if kind == "depth" else ".jpg"
    return (root / kind / f"{sample.image_id.removeprefix('mini/')}{suffix}").read_bytes()


PARTS: list[tuple[Part, str, build.Recipe]] = [
    ("clear", "clear", CLEAR),
    ("real", "real", build.Recipe()),
    ("pairs", "real", PAIRS),
]


@pytest.mark.parametrize(("part", "folder", "recipe"), PARTS)
def test_folders_and_shards_give_the_same_records_and_bytes(
    rendered: Rendered,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: Part,
    folder: str,
    recipe: build.Recipe,
) -> None:
    monkeypatch.setattr(build, "IMAGES_PER_SHARD", 5)
    loose = sources.read_source("mini", getattr(rendered, folder), part=part)
    packed = sources.read_source("mini", rendered.packed, part=part)
    assert [replace(record, root=rendered.packed) for record in loose.records] == packed.records
    assert loose.summary == packed.summary
    build.build([loose], tmp_path / "loose", recipe)
    build.build([packed], tmp_path / "packed", recipe, workers=2)
    assert content(tmp_path / "loose") == content(tmp_path / "packed")
    assert find_problems(tmp_path / "packed") == []


def test_records_say_what_views_csv_says(rendered: Rendered) -> None:
    listing = sources.read_source("mini", rendered.clear)
    assert len(listing.records) == VEHICLES * VIEWS
    record = listing.records[2]
    assert (record.image_id, record.source_path) == ("mini/0000/0000_c01_1", "images/0000/0000_c01_1.jpg")
    assert (record.source, record.vehicle_id, record.camera_id, record.source_split) == ("mini", "0000", "01", "test")
    assert "12 images of 4 vehicles, 2 cameras known" in listing.summary
    assert len(sources.read_source("mini", rendered.real, part="real").records) == VEHICLES * VIEWS
    assert len(sources.read_source("mini", rendered.real, part="pairs").records) == VEHICLES * 2


def test_the_clear_part_gets_fog_from_its_own_exact_depth(rendered: Rendered, tmp_path: Path) -> None:
    build.build([sources.read_source("mini", rendered.packed)], tmp_path / "syn", replace(CLEAR, codec="png"))
    for sample in fvrid_tools.open_dataset(tmp_path / "syn"):
        assert sample.encoded("clear") == of_record(rendered.clear, "images", sample)
        assert sample.depth is not None
        assert np.array_equal(sample.depth, images.decode_depth(of_record(rendered.clear, "depth", sample)))
        assert sample.clear is not None
        again = add_fog(sample.clear / 255, sample.depth, sample.beta, sample.airlight)
        assert np.abs(again - sample.foggy / 255).max() <= 1 / 255
        assert sample.row.depth == "source"


def test_real_fog_has_no_clear_counterpart_even_where_there_is_one(rendered: Rendered, tmp_path: Path) -> None:
    build.build([sources.read_source("mini", rendered.packed, part="real")], tmp_path / "real", build.Recipe())
    data = fvrid_tools.open_dataset(tmp_path / "real")
    assert len(data) == VEHICLES * VIEWS
    for sample in data:
        assert sample.encoded("foggy") == of_record(rendered.real, "images", sample)
        assert (sample.domain, sample.clear, sample.depth) == ("real", None, None)


def test_pairs_have_all_three_and_no_parameters_of_fog(rendered: Rendered, pairs: Path) -> None:
    data = fvrid_tools.open_dataset(pairs)
    assert len(data) == VEHICLES * 2
    for sample in data:
        assert sample.domain == "real"
        assert sample.encoded("foggy") == of_record(rendered.real, "images", sample)
        assert sample.encoded("clear") == of_record(rendered.real, "clear", sample)
        assert np.array_equal(sample.depth, images.decode_depth(of_record(rendered.real, "depth", sample)))
        assert np.isnan([sample.beta, sample.airlight]).all()
    assert data.info["pairs"] is True
    assert data.info["command"] == "fvrid build-real --src mini --pairs --seed 0"


def test_pairs_can_be_shown_and_exported(pairs: Path, tmp_path: Path) -> None:
    html = dataset_report(fvrid_tools.open_dataset(pairs), pictures=2)
    assert html.count("<img") == 2 * 3  # clear, depth, foggy
    assert "<svg" not in html
    assert "β =" not in html
    assert run("export", pairs, "--format", "webdataset", "--out", tmp_path / "out").exit_code == 0


def test_the_split_is_the_sources_with_one_query_a_vehicle(rendered: Rendered, tmp_path: Path) -> None:
    for part, folder, recipe in PARTS[:2]:
        out = tmp_path / part
        build.build([sources.read_source("mini", getattr(rendered, folder), part=part)], out, recipe)
        write_split(out, seed=0)
        data = fvrid_tools.open_dataset(out)
        assert {row.vehicle_id for row in data.select(split="train").rows} == {"0002", "0003"}
        assert sorted(row.vehicle_id for row in data.select(split="query").rows) == ["0000", "0001"]
        assert len(data.select(split="gallery")) == 2 * (VIEWS - 1)


def test_an_unfinished_render_is_built_without_what_is_missing_and_is_not_packed(copy: Rendered) -> None:
    (copy.real / "images/0001/0001_c01_1.jpg").unlink()
    listing = sources.read_source("mini", copy.real, part="real")
    assert len(listing.records) == VEHICLES * VIEWS - 1
    assert [reject.source_path for reject in listing.rejects] == ["images/0001/0001_c01_1.jpg"]
    assert "not finished" in listing.rejects[0].reason
    before = content(copy.packed)
    with pytest.raises(FvridError, match=r"not finished, 1 images are missing, such as images/0001/0001_c01_1\.jpg"):
        mini_pack.pack(copy.clear, copy.real, copy.packed)
    assert content(copy.packed) == before


@pytest.mark.parametrize("kind", ["depth", "clear"])
@pytest.mark.parametrize("harm", ["missing", "broken", "of another size"])
def test_a_bad_depth_or_counterpart_refuses_the_image(copy: Rendered, tmp_path: Path, kind: str, harm: str) -> None:
    path = copy.real / kind / f"0002/0002_c00_2.{'png' if kind == 'depth' else 'jpg'}"
    path.unlink()
    if harm == "broken":
        path.write_bytes(b"no picture")
    elif harm == "of another size":
        depth = images.encode_depth(np.zeros((20, 30), np.uint16))
        path.write_bytes(depth if kind == "depth" else images.encode(np.zeros((20, 30, 3), np.uint8)))
    listing = sources.read_source("mini", copy.real, part="pairs")
    if harm == "missing":  # it may come back; what is wrong with the other two will stay
        with pytest.raises(FvridError, match=r"0002_c00_2.*cannot be read"):
            build.build([listing], tmp_path / "out", PAIRS)
    else:
        summary = build.build([listing], tmp_path / "out", PAIRS)
        assert (summary.images, summary.rejects) == (VEHICLES * 2 - 1, 1)
        words = {"broken": "image" if kind == "clear" else "unreadable"}
        assert words.get(harm, "30 x 20 pixels, but") in (tmp_path / "out" / manifest.REJECTS).read_text()
    with pytest.raises(FvridError, match="0002_c00_2"):
        mini_pack.pack(copy.clear, copy.real, tmp_path / "packed")
    assert not (tmp_path / "packed" / mini.INDEX).exists()


def test_packing_again_gives_the_same_bytes_and_leaves_nothing_old(
    copy: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(copy.packed)
    (copy.packed / "real-00007.h5").write_bytes(b"old")
    mini_pack.main([str(copy.clear), str(copy.real), str(copy.packed)])
    assert content(copy.packed) == before
    assert sorted(before) == ["clear-00000.h5", "mini.json", "pairs-00000.h5", "real-00000.h5", "views.csv"]
    monkeypatch.setattr(mini_pack, "IMAGES_PER_SHARD", 5)
    mini_pack.pack(copy.clear, copy.real, tmp_path / "small")
    assert len(list((tmp_path / "small").glob("*.h5"))) == 3 + 3 + 2
    records = sources.read_source("mini", tmp_path / "small").records
    assert [pictures.read_image(record) for record in records] == [
        pictures.read_image(record) for record in sources.read_source("mini", copy.clear).records
    ]


def test_a_folder_is_not_packed_into_itself(copy: Rendered) -> None:
    before = content(copy.packed)
    with pytest.raises(FvridError, match="name another OUT"):
        mini_pack.pack(copy.packed, copy.real, copy.packed)
    assert content(copy.packed) == before


def test_mini_json_says_what_was_packed(rendered: Rendered) -> None:
    index = json.loads((rendered.packed / mini.INDEX).read_text())
    assert index["recipe"] == {"clear": {"seed": 0}, "real": {"seed": 1}}
    assert {entry["name"]: entry["images"] for entry in index["files"]} == {
        "views.csv": 24,
        "clear-00000.h5": 12,
        "real-00000.h5": 12,
        "pairs-00000.h5": 8,
    }
    with (rendered.packed / mini.VIEWS).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["part"] for line in lines] == ["clear"] * 12 + ["real"] * 12
    assert {(line["kind"], line["visibility_m"]) for line in lines} == {("van, tall", ""), ("van, tall", "40")}


def test_folders_without_pairs_are_packed_too(copy: Rendered, tmp_path: Path) -> None:
    views = copy.real / mini.VIEWS
    views.write_text(views.read_text().replace(",1,", ",0,"))
    mini_pack.pack(copy.clear, copy.real, tmp_path / "packed")
    assert not list((tmp_path / "packed").glob("pairs*"))
    with pytest.raises(FvridError, match="holds no pair"):
        sources.read_source("mini", tmp_path / "packed", part="pairs")


@pytest.mark.parametrize(
    ("name", "harm"),
    [  # without mini.json it is taken for a rendered folder
        ("clear-00000.h5", "missing"),
        ("clear-00000.h5", "damaged"),
        ("views.csv", "missing"),
        ("views.csv", "damaged"),
        ("mini.json", "damaged"),
    ],
)
def test_a_damaged_pack_is_one_sentence(copy: Rendered, name: str, harm: str) -> None:
    path = copy.packed / name
    before = path.read_bytes()
    path.unlink()
    if harm == "damaged":
        path.write_bytes(before[:-2] + b"\n\n")
    with pytest.raises(FvridError, match=rf"incomplete or damaged \({name}.*install fvrid again"):
        sources.read_source("mini", copy.packed)


def test_without_the_embedded_data_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mini, "EMBEDDED", tmp_path / "mini")
    result = run("build-syn", "--src", "mini", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "the dataset inside the package is incomplete or damaged (mini.json is missing)" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_id,", "name,", "column image_id is missing"),
        ("0001_c00_0,", "../x,", "line 5: '../x' cannot be a image_id"),
        (",test,", ",query,", "'query' cannot be a split"),
        ("0001_c00_0,", "0001_c01_1,", "0001_c01_1 is in it 2 times"),
        ("homogeneous", "", "clear and foggy views in one folder"),
        (",40\r\n", ",40,41\r\n", "line 2: more cells"),
    ],
)
def test_a_bad_views_csv_is_one_sentence(copy: Rendered, old: str, new: str, message: str) -> None:
    path = copy.real / mini.VIEWS
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(FvridError, match=message):
        sources.read_source("mini", copy.real, part="real")


def test_another_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FvridError, match=r"views\.csv is missing"):
        sources.read_source("mini", tmp_path)
    with pytest.raises(FvridError, match="no such folder"):
        sources.read_source("mini", tmp_path / "nowhere")


def test_records_in_shards_reach_other_processes(rendered: Rendered) -> None:
    (record, *_) = sources.read_source("mini", rendered.packed, part="pairs").records
    assert pictures.read_clear(pickle.loads(pickle.dumps(record)), *image_size(record)) == pictures.read_clear(
        record, *image_size(record)
    )


def image_size(record: ImageRecord) -> tuple[int, int]:
    height, width = images.decode(pictures.read_image(record)).shape[:2]
    return height, width


def test_depth_of_the_source_refuses_what_carries_none() -> None:
    record = ImageRecord("folder/a", "folder", "a.jpg", "a", None, None, Path())
    with pytest.raises(ImageRefused, match="folder carries no depth"):
        open_estimator("source").predict(np.zeros((20, 20, 3), np.uint8), record)
    with pytest.raises(OptionError, match="takes no argument"):
        open_estimator("source:1")


def test_the_commands(rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FVRID_MINI", str(rendered.packed))
    for out, arguments in (
        ("syn", ("build-syn",)),
        ("real", ("build-real",)),
        ("pairs", ("build-real", "--pairs")),
        ("planar", ("build-syn", "--depth", "planar")),
    ):
        result = run(*arguments, "--src", "mini", "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
    info = {name: manifest.read_dataset(tmp_path / name) for name in ("syn", "real", "pairs", "planar")}
    assert (info["syn"]["depth"], info["planar"]["depth"]) == ("source", "planar")
    assert [(i["domain"], i["images"]) for i in info.values()] == [
        ("synthetic", 12),
        ("real", 12),
        ("real", 8),
        ("synthetic", 12),
    ]


def test_joined_with_a_source_without_depth_the_default_is_dcnf(
    rendered: Rendered, laid_out: Path, tmp_path: Path
) -> None:
    joined = ("--src", "mini", "--root", rendered.packed, "--src", "veri-wild", "--root", laid_out / "clear")
    assert run("build-syn", *joined, "--out", tmp_path / "out").exit_code == 0
    assert manifest.read_dataset(tmp_path / "out")["depth"] == "dcnf"
    result = run("build-syn", *joined, "--out", tmp_path / "out", "--depth", "source")
    assert result.exit_code == 2
    assert "veri-wild carries no depth" in result.stderr


def test_the_wrong_command_names_the_right_one(rendered: Rendered, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    for arguments, code, words in (
        (("build-real", "--src", "mini", "--root", rendered.clear, *out), 1, "fvrid build-syn takes them"),
        (("build-real", "--pairs", "--src", "mini", "--root", rendered.clear, *out), 1, "fvrid build-syn takes them"),
        (("build-syn", "--src", "mini", "--root", rendered.real, *out), 1, "fvrid build-real takes them"),
        (("build-real", "--pairs", "--src", "folder", "--root", rendered.real, *out), 2, "folder has no clear"),
    ):
        result = run(*arguments)
        assert result.exit_code == code, result.output
        assert words in result.stderr
        assert not (tmp_path / "out").exists()


def test_the_embedded_data_is_whole() -> None:
    index = json.loads((mini.EMBEDDED / mini.INDEX).read_text())
    counts: dict[str, int] = {}
    for entry in index["files"]:
        part = entry["name"].partition("-")[0]
        counts[part] = counts.get(part, 0) + entry["images"]
    parts: tuple[Part, ...] = ("clear", "real", "pairs")
    for part in parts:
        records = sources.read_source("mini", part=part).records
        assert len(records) == counts[part]
        for record in records[:: max(1, len(records) // 10)]:
            height, width = image_size(record)
            if part != "real":
                levels = images.levels_of_depth(pictures.read_depth(record, height, width))
                assert np.isin(levels % 16, (0, 15)).all()
                assert (levels[levels % 16 == 15] == 65535).all()
            if part == "pairs":
                assert pictures.read_clear(record, height, width)
