import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
from click.testing import CliRunner
from mini_layouts import jpeg, picture
from PIL import Image

import fvrid_tools
from fvrid_tools import build, images, pictures, sources
from fvrid_tools.cli import cli
from fvrid_tools.depth import open_estimator
from fvrid_tools.export import export
from fvrid_tools.fog import GivenFog
from fvrid_tools.pictures import AUTHORS_NAME
from fvrid_tools.records import FvridError, ImageRecord, ImageRefused, OptionError, Part

STEM = "00000_c001_000001_0"


@pytest.fixture
def syn(tmp_path: Path) -> Path:
    """A folder with FVRID_syn and FVRID_real."""
    return layouts.write(tmp_path, layouts.FVRID)


def test_clear_images_come_with_fog_and_depth(syn: Path) -> None:
    listing = sources.read_source("fvrid", syn)
    assert [(r.image_id, r.vehicle_id, r.camera_id, r.source_split) for r in listing.records] == [
        ("fvrid/FVRID_syn/gallery_clear/05000_c174_000003_0", "05000", "174", "gallery"),
        ("fvrid/FVRID_syn/query_clear/05000_c000_000002_0", "05000", None, "query"),
        ("fvrid/FVRID_syn/train_clear/00000_c001_000001_0", "00000", None, "train"),
    ]
    *without, last = listing.records
    assert last.foggy == syn / f"FVRID_syn/train_foggy/{STEM}.jpg"
    assert last.depth == syn / f"FVRID_syn/Depth/train_clear/{STEM}/{AUTHORS_NAME}"
    assert [record.depth for record in without] == [None, None]
    assert listing.summary == (
        "fvrid: FVRID_syn, 3 images of 2 vehicles, 1 cameras known, 1 with depth, 0 clear without fog,"
        " 0 foggy without clear, 0 other files"
    )


def test_real_images_have_ids_of_their_own(syn: Path) -> None:
    listing = sources.read_source("fvrid", syn, part="real")
    assert [(r.image_id, r.vehicle_id, r.camera_id, r.source_split) for r in listing.records] == [
        ("fvrid/FVRID_real/query_foggy/20156_c000_000005_0", "20156", None, "query"),
        ("fvrid/FVRID_real/train_foggy/20000_c012_000004_0", "20000", "12", "train"),
    ]
    assert all(record.path.is_file() and record.foggy is None for record in listing.records)
    assert listing.summary == "fvrid: FVRID_real, 2 images of 2 vehicles, 1 cameras known, 0 other files"


def test_root_may_be_either_folder_itself_with_the_same_ids(syn: Path) -> None:
    parts: list[tuple[Part, str]] = [("clear", "FVRID_syn"), ("real", "FVRID_real")]
    for part, folder in parts:
        outer = sources.read_source("fvrid", syn, part=part).records
        inner = sources.read_source("fvrid", syn / folder, part=part).records
        assert [r.image_id for r in inner] == [r.image_id for r in outer]
        assert [r.path for r in inner] == [r.path for r in outer]
        assert [r.depth for r in inner] == [r.depth for r in outer]


def test_made_fog_is_never_taken_for_real_fog(syn: Path) -> None:
    with pytest.raises(FvridError, match="has no FVRID_real"):
        sources.read_source("fvrid", syn / "FVRID_syn", part="real")
    with pytest.raises(FvridError, match="has no FVRID_syn"):
        sources.read_source("fvrid", syn / "FVRID_real")
    with pytest.raises(OptionError, match="--pairs"):
        sources.read_source("fvrid", syn, part="pairs")


def test_an_image_without_its_counterpart_is_a_reject_that_names_it(syn: Path) -> None:
    (syn / f"FVRID_syn/train_foggy/{STEM}.jpg").unlink()
    (syn / "FVRID_syn/query_clear/05000_c000_000002_0.jpg").unlink()
    listing = sources.read_source("fvrid", syn)
    assert [(record.source_split, record.foggy is None) for record in listing.records] == [
        ("gallery", False),
        ("train", True),  # fog can be made for it
    ]
    assert [(r.source_path, r.reason) for r in listing.rejects] == [
        ("FVRID_syn/query_foggy/05000_c000_000002_0.jpg", "its clear counterpart is not there"),
    ]
    assert "1 clear without fog, 1 foggy without clear" in listing.summary


def test_a_clear_image_without_the_authors_fog_is_left_out_only_where_theirs_is_taken(syn: Path) -> None:
    foggy, depth = syn / "FVRID_syn/train_foggy", syn / "FVRID_syn/Depth"
    for i in range(4):
        name = f"00007_c{i + 1:03d}_{i:06d}_0.jpg"
        (syn / "FVRID_syn/train_clear" / name).write_bytes(jpeg(picture(i, 0)))
        if i:
            shutil.copy(syn / "FVRID_syn/train_clear" / name, foggy / name)
    shutil.rmtree(depth)
    for fog, images_ in (("source", 3), ("paper", 4)):
        out = syn.parent / fog
        arguments = ["--src", "fvrid", "--root", str(syn), "--out", str(out), "--depth", "planar", "--fog", fog]
        done = CliRunner().invoke(cli, ["build-syn", *arguments, "--workers", "1"])
        assert done.exit_code == 0, done.output
        data = fvrid_tools.open_dataset(out)
        assert sum(row.vehicle_id == "00007" for row in data.rows) == images_
        refused = (out / "rejects.csv").read_text()
        assert ("fvrid has no foggy counterpart of this image" in refused) == (fog == "source")


def test_the_dummy_camera_of_vehicle_1m_is_none(tmp_path: Path) -> None:
    names = ["00000_c001_000001_0", "00000_c001_000002_0", "00001_c001_000003_0", "00001_c002_000004_0"]
    tree = layouts.images(*(f"FVRID_syn/train_{kind}/{name}.jpg" for kind in ("clear", "foggy") for name in names))
    tree |= layouts.images(*(f"FVRID_real/{split}_foggy/{name}.jpg" for split in ("query",) for name in names))
    parts: list[Part] = ["clear", "real"]
    for part in parts:
        records = sources.read_source("fvrid", layouts.write(tmp_path, tree), part=part).records
        assert [record.camera_id for record in records] == [None, None, "1", "2"]


def test_a_counterpart_of_another_split_is_none(syn: Path) -> None:
    (syn / f"FVRID_syn/train_foggy/{STEM}.jpg").rename(syn / f"FVRID_syn/query_foggy/{STEM}.jpg")
    records = sources.read_source("fvrid", syn).records
    assert [(r.source_split, r.foggy is None) for r in records] == [
        ("gallery", False),
        ("query", False),
        ("train", True),
    ]


def test_clear_images_alone_get_fog_and_depth_of_ours(laid_out: Path, tmp_path: Path) -> None:
    """As the authors' Split.py leaves them, and as RVSL's FVRID_clear is."""
    pictures_ = sorted((laid_out / "clear").glob("images/*/*.jpg"))[:8]
    for place in ("FVRID_syn", "FVRID_clear"):
        folder = tmp_path / place / "train_clear"
        folder.mkdir(parents=True)
        for i, path in enumerate(pictures_):
            shutil.copy(path, folder / f"{i // 2:05d}_c001_{i:06d}_0.jpg")
    for root, name in ((tmp_path, "syn"), (tmp_path / "FVRID_clear", "clear")):
        arguments = ["--src", "fvrid", "--root", str(root), "--out", str(tmp_path / name), "--workers", "1"]
        done = CliRunner().invoke(cli, ["build-syn", *arguments])
        assert done.exit_code == 0, done.output
        assert "8 of 8 images come without a foggy image; paper makes it." in done.output
        assert "8 of 8 images come without depth; dcnf makes it." in done.output
        data = fvrid_tools.open_dataset(tmp_path / name)
        assert len(data) == 8
        assert all(0.4 <= sample.beta <= 1.6 for sample in data)
        assert {row.depth for row in data.rows} == {"dcnf"}


@pytest.mark.parametrize(
    "place",
    [
        f"FVRID_syn/Depth/train_clear/{STEM}",
        f"FVRID_syn/Depth/train_clear/train_clear/{STEM}",
        f"Depth/train_clear/{STEM}",
        f"Depth/train_clear/train_clear/{STEM}",
    ],
)
@pytest.mark.parametrize("tail", ["", "_further"])  # 19 characters are kept
def test_depth_is_found_where_the_authors_scripts_put_it(tmp_path: Path, place: str, tail: str) -> None:
    tree = layouts.images(
        *(f"FVRID_syn/train_{kind}/{STEM}{tail}.jpg" for kind in ("clear", "foggy")),
        f"{place}/{AUTHORS_NAME}",
        f"{place}/predict_depth.png",
        f"FVRID_syn/Depth/query_clear/{STEM}/{AUTHORS_NAME}",  # of another split: never taken
    )
    (record,) = sources.read_source("fvrid", layouts.write(tmp_path, tree)).records
    assert record.depth == tmp_path / place / AUTHORS_NAME


def test_folders_within_folders_of_the_same_name_are_seen_through(tmp_path: Path) -> None:
    tree = layouts.renamed(layouts.FVRID_SYN, "train_clear/", "train_clear/train_clear/")
    tree |= layouts.images("train_clear/query_clear/05001_c001_000009_0.jpg", "train_clear/readme.png")
    listing = sources.read_source("fvrid", layouts.write(tmp_path, tree))
    assert listing.records[-1].image_id == f"fvrid/FVRID_syn/train_clear/{STEM}"
    assert listing.records[-1].path == tmp_path / f"train_clear/train_clear/{STEM}.jpg"
    assert [r.source_path for r in listing.rejects] == [
        "train_clear/query_clear/05001_c001_000009_0.jpg",
        "train_clear/readme.png",
    ]


def test_rvsls_clear_images_are_left_out(tmp_path: Path) -> None:
    clear = layouts.images("FVRID_clear/train_clear/30000_c001_000009_0.jpg")
    listing = sources.read_source("fvrid", layouts.write(tmp_path, layouts.FVRID | clear))
    assert len(listing.records) == 3
    assert not listing.rejects


def test_what_fvrid_exports_is_read_again(built: Path, tmp_path: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    export(data, "folder", tmp_path / "out")
    listing = sources.read_source("fvrid", tmp_path / "out")
    assert (len(listing.records), listing.rejects) == (len(data), [])
    splits = [record.source_split for record in listing.records]
    assert {split: splits.count(split) for split in ("train", "query", "gallery")} == {
        split: len(data.select(split=split)) for split in ("train", "query", "gallery")
    }
    by_number = {int(record.image_id.split("_")[-2]): record for record in listing.records}
    sample, record = data[5], by_number[5]
    assert sample.depth is not None
    assert pictures.read_image(record) == sample.encoded("clear")
    assert pictures.read_foggy(record, *sample.foggy.shape[:2]) == sample.encoded("foggy")
    assert np.array_equal(pictures.read_depth(record, *sample.foggy.shape[:2]), sample.depth)


def record_of(folder: Path) -> ImageRecord:
    return ImageRecord("a", "fvrid", "a.jpg", "a", None, None, folder, depth=folder / "d.png", foggy=folder / "f.jpg")


def test_foggy_files_that_changed_are_noticed(tmp_path: Path) -> None:
    """As when the authors' fog, which draws anew, is made again."""
    root = tmp_path / "fvrid"
    for kind, level in (("clear", 90), ("foggy", 160)):
        (root / f"train_{kind}").mkdir(parents=True)
        for i in range(2):
            picture = images.encode(np.full((40, 50, 3), level + i, np.uint8))
            (root / f"train_{kind}/00000_c001_{i:06d}_0.jpg").write_bytes(picture)
    recipe = build.Recipe(depth=open_estimator("planar"), fog=GivenFog())

    def run() -> build.BuildSummary:
        return build.build([sources.read_source("fvrid", root)], tmp_path / "out", recipe)

    run()
    assert run().reused == 2
    other = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    (root / "train_foggy/00000_c001_000001_0.jpg").write_bytes(images.encode(other))
    with pytest.raises(FvridError, match=r"train_foggy/00000_c001_000001_0\.jpg: not the file that"):
        run()


def test_eight_bit_depth_of_another_size_is_resized_and_of_the_images_size_exact(tmp_path: Path) -> None:
    record = record_of(tmp_path)
    ramp = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (45, 1))
    Image.fromarray(ramp).save(tmp_path / "d.png")
    depth = pictures.read_depth(record, 90, 120)
    assert depth.shape == (90, 120)
    assert np.abs(depth[40] - np.linspace(0, 1, 120)).max() < 0.02  # far is white
    assert pictures.read_depth(record, 91, 120).shape == (91, 120)  # half of 91 is 45.5
    assert np.array_equal(pictures.read_depth(record, 45, 60), ramp.astype(np.float32) / np.float32(255))
    with pytest.raises(ImageRefused, match="its depth: 60 x 45 pixels, but the image has 60 x 90"):
        pictures.read_depth(record, 90, 60)


def test_sixteen_bit_depth_stays_exact(tmp_path: Path) -> None:
    levels = np.arange(45 * 60, dtype=np.uint16).reshape(45, 60) * 24 + 1
    (tmp_path / "d.png").write_bytes(images.encode_depth(levels))
    assert np.array_equal(images.levels_of_depth(pictures.read_depth(record_of(tmp_path), 45, 60)), levels)


def test_a_foggy_counterpart_is_read_as_it_is_or_refused(tmp_path: Path) -> None:
    record = record_of(tmp_path)
    with pytest.raises((ImageRefused, FvridError), match="cannot be read"):
        pictures.read_foggy(record, 40, 50)
    content = images.encode(np.zeros((40, 50, 3), np.uint8))
    (tmp_path / "f.jpg").write_bytes(content)
    assert pictures.read_foggy(record, 40, 50) == content
    with pytest.raises(ImageRefused, match="its foggy counterpart: 50 x 40 pixels, but the image has 80 x 64"):
        pictures.read_foggy(record, 64, 80)
    (tmp_path / "f.jpg").write_bytes(content[:-20])
    with pytest.raises(ImageRefused, match="its foggy counterpart: unreadable"):
        pictures.read_foggy(record, 40, 50)
    bare = ImageRecord("a", "folder", "a.jpg", "a", None, None, tmp_path)
    with pytest.raises(ImageRefused, match="folder has no foggy counterpart"):
        pictures.read_foggy(bare, 40, 50)
