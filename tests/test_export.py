import csv
import re
import shutil
import tarfile
from pathlib import Path

import mini_layouts
import numpy as np
import pytest
from PIL import Image

import fvrid_tools
from fvrid_tools import build, images, sources
from fvrid_tools.depth import open_estimator
from fvrid_tools.export import Format, export
from fvrid_tools.fog import PRESETS
from fvrid_tools.pictures import AUTHORS_NAME, UNFINISHED_EXPORT
from fvrid_tools.records import FvridError


def test_folders_are_the_authors(built: Path, tmp_path: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    assert export(data, "folder", tmp_path / "out") == 48
    with (tmp_path / "out/index.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 48
    for line, sample in zip(lines, data, strict=True):
        name, split = line["name"], line["split"]
        assert re.fullmatch(r"\d{5}_c\d{3}_\d{6}_0", name)
        assert len(name) == 19
        assert (tmp_path / f"out/{split}_foggy/{name}.jpg").read_bytes() == sample.encoded("foggy")
        assert (tmp_path / f"out/{split}_clear/{name}.jpg").read_bytes() == sample.encoded("clear")
        stored = images.decode_depth((tmp_path / f"out/Depth/{split}_clear/{name}/{AUTHORS_NAME}").read_bytes())
        assert np.array_equal(stored, sample.depth)


@pytest.mark.parametrize(
    ("cameras", "numbers"),
    [
        (["7", "12"], [7, 12]),
        (["0", "1"], [1, 2]),
        (["1", "1042"], [1, 2]),
        (["1", "01"], [2, 1]),
        (["7", None], [7, 0]),
    ],
)
def test_cameras_of_exported_names_are_as_many_as_there_were(
    built: Path, tmp_path: Path, cameras: list[str | None], numbers: list[int]
) -> None:
    data = fvrid_tools.open_dataset(built)
    rows = [row._replace(camera_id=camera) for row, camera in zip(data.rows, cameras, strict=False)]
    export(data.take(rows), "folder", tmp_path / "out")
    names = [line["name"] for line in csv.DictReader((tmp_path / "out/index.csv").read_text().splitlines())]
    assert [int(name.split("_c")[1][:3]) for name in names] == numbers


def test_exported_depth_can_be_built_from_again(built: Path, tmp_path: Path, recipe: object) -> None:
    from fvrid_tools.build import Recipe, build
    from fvrid_tools.depth import open_estimator
    from fvrid_tools.fog import PRESETS
    from fvrid_tools.sources import read_source

    export(fvrid_tools.open_dataset(built), "folder", tmp_path / "out")
    listing = read_source("folder", tmp_path / "out/train_clear", r"(?P<vehicle_id>\d{5})_c(?P<camera_id>\d{3})")
    again = Recipe(depth=open_estimator(f"files:{tmp_path / 'out/Depth'}"), fog=PRESETS["paper"])
    assert build([listing], tmp_path / "again", again).rejects == 0
    original = {sample.encoded("clear"): sample.depth for sample in fvrid_tools.open_dataset(built)}
    for sample in fvrid_tools.open_dataset(tmp_path / "again"):
        assert np.array_equal(sample.depth, original[sample.encoded("clear")])


def test_tars_hold_every_sample_and_are_reproducible(built: Path, tmp_path: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    for name in ("a", "b"):
        export(data, "webdataset", tmp_path / name)
    tars = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert tars == ["gallery-00000.tar", "query-00000.tar", "train-00000.tar"]
    for name in tars:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a/query-00000.tar") as tar:
        names = tar.getnames()
    assert len(names) == 4 * 3  # three test vehicles
    assert {name.partition(".")[2] for name in names} == {"clear.jpg", "foggy.jpg", "depth.png", "json"}


def test_real_datasets_have_foggy_images_only(built_real: Path, tmp_path: Path) -> None:
    export(fvrid_tools.open_dataset(built_real), "folder", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "train_foggy",
        "query_foggy",
        "gallery_foggy",
        "index.csv",
    }


def test_an_occupied_folder_is_refused(built: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(FvridError, match="is not empty"):
        export(fvrid_tools.open_dataset(built), "folder", tmp_path)


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_an_export_that_was_stopped_is_not_taken_for_whole(built: Path, tmp_path: Path, form: Format) -> None:
    data, out = fvrid_tools.open_dataset(built), tmp_path / "out"
    out.mkdir()
    (out / ".DS_Store").touch()  # which a file manager leaves where it looks

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(data, form, out, stop)
    assert (out / UNFINISHED_EXPORT).exists()
    if form == "folder":
        (tmp_path / "above").mkdir()
        (tmp_path / "above/FVRID_syn").symlink_to(out)
        for root in (out, tmp_path / "above"):
            with pytest.raises(FvridError, match="export was stopped while it wrote this"):
                sources.read_source("fvrid", root)
    shutil.rmtree(out)
    assert export(data, form, out) == 48
    assert not (out / UNFINISHED_EXPORT).exists()


def test_pictures_that_are_to_be_turned_are_turned(tmp_path: Path) -> None:
    """A phone's file has its pixels lying, fog and depth are upright: sizes would differ."""
    picture = mini_layouts.picture(0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in/v").mkdir(parents=True)
    picture.save(tmp_path / "in/v/a.jpg", quality=95, exif=exif.tobytes())
    recipe = build.Recipe(depth=open_estimator("planar"), fog=PRESETS["paper"])
    build.build([sources.read_source("folder", tmp_path / "in")], tmp_path / "out", recipe)
    data = fvrid_tools.open_dataset(tmp_path / "out")
    assert data[0].encoded("clear") == (tmp_path / "in/v/a.jpg").read_bytes()
    export(data, "folder", tmp_path / "folders")
    shown = {}
    for path in (tmp_path / "folders").rglob("*.*g"):
        with Image.open(path) as image:  # which heeds no EXIF
            shown[path.relative_to(tmp_path / "folders").parts[0]] = np.asarray(image).astype(float)
    assert {kind: image.shape[:2] for kind, image in shown.items()} == dict.fromkeys(
        ("all_clear", "all_foggy", "Depth"), picture.size
    )
    assert np.abs(shown["all_clear"] - data[0].clear).mean() < 2
