import errno
import os
from pathlib import Path

import layouts
import mini_layouts
import pytest

from fvrid_tools import sources
from fvrid_tools.records import FvridError, OptionError
from fvrid_tools.sources import folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    mini_layouts.write_clear(tmp_path, vehicles=4, views=2)
    return tmp_path


def write_list(root: Path, name: str, *lines: str) -> None:
    (root / "train_test_split" / name).write_text("\n".join(lines) + "\n")


def test_first_era_has_cameras_from_vehicle_info(tree: Path) -> None:
    listing = sources.read_source("veri-wild", tree)
    assert [record.image_id for record in listing.records] == sorted(record.image_id for record in listing.records)
    first = listing.records[0]
    assert (first.image_id, first.vehicle_id, first.camera_id) == ("veri-wild/00000/000001", "00000", "1")
    assert {record.source_split for record in listing.records if record.vehicle_id == "00000"} == {"test"}
    assert {record.source_split for record in listing.records if record.vehicle_id == "00001"} == {"train"}
    assert not listing.rejects


@pytest.mark.parametrize("name", ["train_list.txt", "train_list_start0.txt"])  # told apart by content, not by name
def test_later_eras_never_take_the_relabelled_identity(tree: Path, name: str) -> None:
    for path in (tree / "train_test_split").iterdir():
        path.unlink()
    write_list(tree, name, "00002/000005.jpg 0 23", "00003/000007.jpg 1 7")
    write_list(tree, "test_3000_id.txt", "00000/000001.jpg 0 61")
    records = sources.read_source("veri-wild", tree).records
    assert [(r.vehicle_id, r.camera_id, r.source_split) for r in records] == [
        ("00000", "61", "test"),
        ("00002", "23", "train"),
        ("00003", "7", "train"),
    ]


def test_second_version_lists_tell_no_camera(tree: Path) -> None:
    for path in (tree / "train_test_split").iterdir():
        path.unlink()
    (tree / "test_split_V2").mkdir()
    (tree / "test_split_V2/A_query.txt").write_text("00001/000003.jpg 1\n")
    (record,) = sources.read_source("veri-wild", tree).records
    assert (record.vehicle_id, record.camera_id, record.source_split) == ("00001", None, "test")


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("gallery/gallery_final/x.jpg", "gallery/gallery_final/x.jpg"),  # from the root
        ("gallery/gallery/gallery_final/x.jpg", "gallery/gallery_final/x.jpg"),  # from the gallery's folder
        ("gallery/gallery/gallery_final/x.jpg", "gallery_final/x.jpg"),
    ],
)
@pytest.mark.parametrize("folder", ["test_split_V2", "test_split"])
def test_second_version_images_lie_in_folders_of_their_own(tree: Path, place: str, line: str, folder: str) -> None:
    first = sources.read_source("veri-wild", tree)
    (tree / folder).mkdir()
    (tree / folder / "All_gallery.txt").write_text(f"{line} 17 2\n{line.replace('x.', 'gone.')} 18 3\n")
    assert sources.read_source("veri-wild", tree).records == first.records  # lists without their images
    (tree / place).parent.mkdir(parents=True)
    (tree / place).touch()
    listing = sources.read_source("veri-wild", tree)
    (own,) = (record for record in listing.records if record not in first.records)
    assert (own.source_path, own.vehicle_id, own.camera_id, own.source_split) == (place, "v2-17", None, "test")
    assert [reject.reason for reject in listing.rejects] == ["listed, but not on disk"]
    assert "All_gallery.txt" in listing.summary


def test_second_version_lists_that_contradict_are_named(tree: Path) -> None:
    (tree / "test_split_V2").mkdir()
    for name, vehicle in (("A_gallery", 1), ("All_gallery", 9)):
        (tree / f"test_split_V2/{name}.txt").write_text(f"gallery_final/x.jpg {vehicle}\n")
    (tree / "gallery/gallery_final").mkdir(parents=True)
    (tree / "gallery/gallery_final/x.jpg").touch()
    with pytest.raises(
        FvridError, match=r"All_gallery\.txt, line 1: gallery_final/x\.jpg is of vehicle 9 here, but of 1"
    ):
        sources.read_source("veri-wild", tree)
    (tree / "test_split_V2/A_gallery.txt").unlink()
    (tree / "test_split_V2/A_query.txt").write_text("0001.jpg 5\n")  # other images of one name, which are not there
    (tree / "test_split_V2/A_gallery.txt").write_text("0001.jpg 9\n")
    (tree / "gallery/gallery_final/y.jpg").touch()
    assert "1 on disk but not listed" in sources.read_source("veri-wild", tree).summary


def test_parts_that_were_unpacked_one_by_one_are_read(tree: Path) -> None:
    before = sources.read_source("veri-wild", tree)
    (tree / "images.part02/images").mkdir(parents=True)
    (tree / "images/00003").rename(tree / "images.part02/images/00003")
    assert [r.image_id for r in sources.read_source("veri-wild", tree).records] == [r.image_id for r in before.records]
    (tree / "images").rename(tree / "images.part01")
    listing = sources.read_source("veri-wild", tree)
    assert [r.image_id for r in listing.records] == [r.image_id for r in before.records]
    assert not listing.rejects


@pytest.mark.parametrize("kept", ["train_list.txt", "vehicle_info.txt"])
def test_images_without_folders_are_found_by_their_names(tree: Path, kept: str) -> None:
    """As the authors' scripts have them, in images_all."""
    vehicles = {path.stem: path.parent.name for path in tree.glob("images/*/*.jpg")}
    (tree / "images_all").mkdir()
    for path in tree.glob("images/*/*.jpg"):
        path.rename(tree / "images_all" / path.name)
    for path in tree.glob("images/*"):
        path.rmdir()
    (tree / "images").rmdir()
    listing = sources.read_source("veri-wild", tree)
    assert {record.path.stem: record.vehicle_id for record in listing.records} == vehicles
    assert all(record.path.is_file() for record in listing.records)
    assert not listing.rejects
    for path in (tree / "train_test_split").iterdir():
        if path.name != kept:
            path.unlink()
    assert {vehicles[r.path.stem] == r.vehicle_id for r in sources.read_source("veri-wild", tree).records} == {True}
    (tree / "train_test_split" / kept).unlink()
    with pytest.raises(FvridError, match="no image can be used"):
        sources.read_source("veri-wild", tree)


def test_vehicle_info_with_and_without_header_says_the_same(tree: Path) -> None:
    with_header = sources.read_source("veri-wild", tree).records
    path = tree / "train_test_split/vehicle_info.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert sources.read_source("veri-wild", tree).records == with_header


def test_a_byte_order_mark_and_windows_line_ends_cost_nothing(tree: Path) -> None:
    before = sources.read_source("veri-wild", tree)
    for path in (tree / "train_test_split").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert sources.read_source("veri-wild", tree) == before


def test_files_that_are_passed_over_are_listed(tree: Path) -> None:
    (tree / "images/00001/000003.png").write_bytes(b"")
    (tree / "images/00001/further").mkdir()
    (tree / "images/00001/further/000099.jpg").write_bytes(b"")
    rejects = {r.source_path: r.reason for r in sources.read_source("veri-wild", tree).rejects}
    assert "duplicate id veri-wild/00001/000003" in rejects["images/00001/000003.png"]
    assert "not <vehicle>/<image>" in rejects["images/00001/further/000099.jpg"]


def test_a_left_over_nested_folder_hides_nothing(tree: Path) -> None:
    (tree / "images/images").mkdir()
    (tree / "images/00003").rename(tree / "images/images/00003")
    listing = sources.read_source("veri-wild", tree)
    assert (len(listing.records), listing.rejects) == (8, [])


def test_links_to_folders_are_followed_and_loops_are_not(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "00003"
    (tree / "images/00003").rename(elsewhere)
    (tree / "images/00003").symlink_to(elsewhere)
    (tree / "images/loop").symlink_to(tree / "images")
    assert len(sources.read_source("veri-wild", tree).records) == 8


def test_a_name_that_no_manifest_can_hold_is_said(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with Path(os.fsdecode(os.fsencode(tmp_path / "v") + b"/\xff\xfe.jpg")).open("wb"):
        pass
    with pytest.raises(FvridError, match="rename it"):
        sources.read_source("folder", tmp_path)


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("/v"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FvridError, match=r"/v: the folder cannot be read \(Permission denied\)"):
        sources.read_source("folder", tmp_path)


def test_any_other_name_is_taken(tmp_path: Path) -> None:
    names = ["\u7ea2\u8272\u3000\u8f7f\u8f66.jpg", "Screenshot at 1.00.00\u202fPM.jpg", "a\u00a0b.png"]
    (tmp_path / "v").mkdir()
    for name in names:
        (tmp_path / "v" / name).touch()
    assert [record.source_path for record in sources.read_source("folder", tmp_path).records] == sorted(
        f"v/{name}" for name in names
    )
    (tmp_path / "v/a\nb.jpg").touch()
    with pytest.raises(FvridError, match="control characters"):
        sources.read_source("folder", tmp_path)


def test_without_lists_everything_on_disk_is_taken_and_nesting_is_seen_through(tree: Path) -> None:
    for path in (tree / "train_test_split").glob("t*_*.txt"):
        path.unlink()
    (tree / "images").rename(tree / "inner")
    (tree / "images").mkdir()
    (tree / "inner").rename(tree / "images/images")
    listing = sources.read_source("veri-wild", tree)
    assert len(listing.records) == 8
    assert all(record.path.is_file() and record.source_split is None for record in listing.records)


def test_missing_images_are_listed_and_counted_and_not_fatal(tree: Path) -> None:
    (tree / "images/00002/000005.jpg").unlink()
    listing = sources.read_source("veri-wild", tree)
    assert [(r.source_path, r.reason) for r in listing.rejects] == [("images/00002/000005", "listed, but not on disk")]
    assert len(listing.records) == 7
    assert "1 listed but not on disk" in listing.summary


def test_all_images_missing_is_an_error(tree: Path) -> None:
    for path in tree.glob("images/*/*.jpg"):
        path.unlink()
    with pytest.raises(FvridError, match="unrar"):
        sources.read_source("veri-wild", tree)


def test_a_line_that_is_no_image_is_named(tree: Path) -> None:
    write_list(tree, "train_list.txt", "00001/000003", "what is this")
    with pytest.raises(FvridError, match=r"train_list\.txt, line 2"):
        sources.read_source("veri-wild", tree)


def test_an_empty_folder_of_another_datasets_name_is_no_reason_to_refuse(tree: Path) -> None:
    (tree / "image").mkdir()
    assert len(sources.read_source("veri-wild", tree).records) == 8


def test_no_such_folder_says_where_the_data_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FvridError, match="no such folder") as error:
        sources.read_source("veri-wild", tmp_path / "nowhere")
    assert "--root" in str(error.value)


def test_folder_reads_vehicle_and_camera_from_the_path(tmp_path: Path) -> None:
    for name in ("b/7_c002_1.jpg", "a/8_c001_1.png", "a/readme.txt", "a/odd.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listing = sources.read_source("folder", tmp_path, r"(?P<vehicle_id>\d+)_c(?P<camera_id>\d+)")
    assert [(r.image_id, r.vehicle_id, r.camera_id) for r in listing.records] == [
        ("folder/a/8_c001_1", "8", "001"),
        ("folder/b/7_c002_1", "7", "002"),
    ]
    assert [reject.source_path for reject in listing.rejects] == ["a/odd.jpg"]


def test_folder_takes_the_folder_as_the_vehicle(tmp_path: Path) -> None:
    (tmp_path / "x/truck").mkdir(parents=True)
    (tmp_path / "x/truck/1.jpg").write_bytes(b"")
    (record,) = sources.read_source("folder", tmp_path).records
    assert (record.vehicle_id, record.camera_id) == ("truck", None)


@pytest.mark.parametrize("pattern", ["(", r"(?P<vehicle>\d+)"])
def test_a_bad_pattern_is_an_option_error(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(OptionError, match="--pattern"):
        sources.read_source("folder", tmp_path, pattern)


def test_folders_of_one_name_are_asked_about(tmp_path: Path) -> None:
    """One vehicle seen at two sites, or two with the same number there: nobody can know."""
    root = layouts.write(tmp_path, layouts.images("north/0001/a.jpg", "south/0001/b.jpg", "south/0002/c.jpg"))
    with pytest.raises(FvridError, match=r"north/0001 and south/0001 could be one vehicle or two; say --pattern '"):
        sources.read_source("folder", root)
    for pattern, vehicles in (
        (folder.LAST_FOLDER, ["0001", "0001", "0002"]),
        (folder._WHOLE_FOLDER, ["north/0001", "south/0001", "south/0002"]),
    ):
        assert [r.vehicle_id for r in sources.read_source("folder", root, pattern).records] == vehicles


def test_folders_of_the_system_are_no_vehicles(tmp_path: Path) -> None:
    names = ["0001/a.jpg", "0001/@eaDir/a.jpg/thumb.jpg", "lost+found/x.jpg", "0002/b.JFIF"]
    root = layouts.write(tmp_path, layouts.images(*names))
    assert [r.source_path for r in sources.read_source("folder", root).records] == ["0001/a.jpg", "0002/b.JFIF"]
