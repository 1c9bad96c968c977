"""Vehicle-1M, VeRi-776 and VehicleID, and what all readers of lists have in common."""

from pathlib import Path

import layouts
import pytest

from fvrid_tools import sources
from fvrid_tools.records import FvridError, Listing


def read(root: Path, src: str, tree: layouts.Tree) -> Listing:
    return sources.read_source(src, layouts.write(root, tree))


def told(listing: Listing) -> list[tuple[str, str, str | None, str | None]]:
    return [(r.source_path, r.vehicle_id, r.camera_id, r.source_split) for r in listing.records]


VEHICLE_1M = [v for v in layouts.VARIANTS if v.startswith("Vehicle-1M")]


def test_vehicle_1m_has_the_second_column_as_vehicle_and_no_camera(tmp_path: Path) -> None:
    listing = read(tmp_path, "vehicle-1m", layouts.VEHICLE_1M | layouts.VEHICLE_1M_LISTS)
    assert told(listing) == [
        ("image/000007/000001.jpg", "40", None, "train"),
        ("image/000007/000002.jpg", "40", None, "train"),
        ("image/000008/000003.jpg", "41", None, "test"),
    ]
    assert listing.records[0].image_id == "vehicle-1m/000007/000001"
    assert listing.rejects == []
    assert listing.summary == (
        "vehicle-1m: test_1000, test_full, train_list, 3 images of 2 vehicles, no cameras known, 0 listed but not on"
        " disk, 0 on disk but not listed, 0 other files"
    )
    assert listing.options == "--src vehicle-1m"


@pytest.mark.parametrize("variant", VEHICLE_1M)
def test_vehicle_1m_is_the_same_in_every_variant(tmp_path: Path, variant: str) -> None:
    _, tree = layouts.VARIANTS[variant]
    listing = read(tmp_path, "vehicle-1m", tree)
    assert [len(listing.records), listing.rejects] == [3, []]
    assert all(record.path.is_file() and record.camera_id is None for record in listing.records)
    assert len({record.vehicle_id for record in listing.records}) == 2


def test_vehicle_1m_never_uses_the_model(tmp_path: Path) -> None:
    one = read(tmp_path / "a", "vehicle-1m", layouts.VEHICLE_1M | layouts.VEHICLE_1M_LISTS)
    other = {path: text.replace(" 399", " 5").replace(" 12", "") for path, text in layouts.VEHICLE_1M_LISTS.items()}
    assert told(read(tmp_path / "b", "vehicle-1m", layouts.VEHICLE_1M | other)) == told(one)


@pytest.mark.parametrize(("src", "stray"), [("vehicle-1m", "image/stray.jpg"), ("veri-wild", "images/stray.jpg")])
def test_a_stray_image_beside_the_folders_is_passed_over(tmp_path: Path, src: str, stray: str) -> None:
    listing = read(tmp_path, src, LISTED[src][0] | {stray: ""})
    assert len(listing.records) == 3
    assert [reject.source_path for reject in listing.rejects] == [stray]
    assert "1 other files" in listing.summary


def test_vehicle_1m_without_lists_takes_the_folder_for_the_vehicle(tmp_path: Path) -> None:
    listing = read(tmp_path, "vehicle-1m", layouts.VEHICLE_1M)
    assert [(r.vehicle_id, r.source_split) for r in listing.records] == [("000007", None)] * 2 + [("000008", None)]
    assert "vehicle-1m: no lists, 3 images of 2 vehicles" in listing.summary


def test_vehicles_that_training_and_test_both_count_from_0_are_not_mixed_up(tmp_path: Path) -> None:
    lists = {
        "train-test-split/train_list.txt": "000007/000001.jpg 0 3\n000007/000002.jpg 1 3\n",
        "train-test-split/test_full.txt": "000008/000003.jpg 0 3\n",
    }
    listing = read(tmp_path, "vehicle-1m", layouts.VEHICLE_1M | lists)
    assert [record.vehicle_id for record in listing.records] == ["train-0", "train-1", "test-0"]


@pytest.mark.parametrize(
    ("name", "line"), [("test_1000", "000008/000003.jpg 7 12"), ("train_list_2", "000008/000003.jpg 41 12")]
)
def test_lists_that_contradict_each_other_are_an_error(tmp_path: Path, name: str, line: str) -> None:
    lists = {**layouts.VEHICLE_1M_LISTS, f"train-test-split/{name}.txt": line}
    with pytest.raises(FvridError, match=r"line 1: 000008/000003\.jpg is of vehicle .* keep only one of the two"):
        read(tmp_path, "vehicle-1m", layouts.VEHICLE_1M | lists)


def test_a_list_with_another_suffix_than_the_files_finds_them(tmp_path: Path) -> None:
    lists = {path: text.replace(".jpg", ".BMP") for path, text in layouts.VEHICLE_1M_LISTS.items()}
    assert len(read(tmp_path, "vehicle-1m", layouts.VEHICLE_1M | lists).records) == 3


def test_veri_reads_names_and_folders(tmp_path: Path) -> None:
    listing = read(tmp_path, "veri", layouts.VERI | {"image_test/Thumbs.png": ""})
    assert told(listing) == [
        ("image_query/0002_c002_00030600_0.jpg", "0002", "2", "query"),
        ("image_test/0002_c002_00030600_0.jpg", "0002", "2", "gallery"),
        ("image_test/0002_c016_00030610_1.jpg", "0002", "16", "gallery"),
        ("image_train/0001_c001_00016450_0.jpg", "0001", "1", "train"),
    ]
    assert len({record.image_id for record in listing.records}) == 4
    assert listing.records[0].image_id == "veri/image_query/0002_c002_00030600_0"
    assert [reject.source_path for reject in listing.rejects] == ["image_test/Thumbs.png"]
    assert listing.summary == (
        "veri: no lists, 4 images of 2 vehicles, 3 cameras known, 0 listed but not on disk, 0 on disk but not listed,"
        " 1 other files"
    )


def test_veris_lists_tell_what_is_missing_and_each_is_of_its_own_folder(tmp_path: Path) -> None:
    lists = {"name_test.txt": "0002_c002_00030600_0.jpg\n0009_c003_00000001_0.jpg\n", "name_query.txt": "\n"}
    listing = read(tmp_path, "veri", layouts.VERI | lists)
    assert [record.source_path for record in listing.records] == [
        "image_query/0002_c002_00030600_0.jpg",
        "image_test/0002_c002_00030600_0.jpg",
        "image_train/0001_c001_00016450_0.jpg",
    ]
    assert [(r.source_path, r.reason) for r in listing.rejects] == [
        ("image_test/0009_c003_00000001_0", "listed, but not on disk")
    ]
    assert "veri: name_test, 3 images" in listing.summary
    assert "1 listed but not on disk, 1 on disk but not listed" in listing.summary


def test_vehicleid_knows_vehicles_from_its_lists_alone(tmp_path: Path) -> None:
    tree = layouts.VEHICLEID | layouts.VEHICLEID_LISTS | {"image/0000009.jpg": ""}
    listing = read(tmp_path, "vehicleid", tree)
    assert told(listing) == [
        ("image/0000001.jpg", "17", None, "train"),
        ("image/0000002.jpg", "17", None, "train"),
        ("image/0000003.jpg", "18", None, "test"),
    ]
    assert listing.records[0].image_id == "vehicleid/0000001"
    assert listing.summary == (
        "vehicleid: test_list_13164, test_list_800, train_list, 3 images of 2 vehicles, no cameras known, 0 listed but"
        " not on disk, 1 on disk but not listed, 0 other files"
    )


def test_vehicleid_without_lists_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FvridError, match="which alone tell the vehicles"):
        read(tmp_path, "vehicleid", layouts.VEHICLEID)


LISTED = {
    "veri-wild": (layouts.VERI_WILD, "train_test_split/train_list.txt", "{} 0 23"),
    "vehicle-1m": (layouts.VEHICLE_1M, "train-test-split/train_list.txt", "{} 40 399"),
    "veri": (layouts.VERI, "name_train.txt", "{}"),
    "vehicleid": (layouts.VEHICLEID, "train_test_split/train_list.txt", "{} 17"),
}
FIRST = {
    "veri-wild": "00001/000001.jpg",
    "vehicle-1m": "000007/000001.jpg",
    "veri": "0001_c001_00016450_0.jpg",
    "vehicleid": "0000001",
}


@pytest.mark.parametrize("src", LISTED)
@pytest.mark.parametrize(
    "place", ["../../etc/passwd", "/etc/passwd", "..", "../x.jpg", "x/..", "a\0/b.jpg", "\x1b[2J/b"]
)
def test_a_hostile_line_is_named_and_leads_nowhere(tmp_path: Path, src: str, place: str) -> None:
    tree, name, form = LISTED[src]
    layouts.write(tmp_path / "outside", layouts.images("x.jpg", "0001_c001_00016450_0.jpg"))
    with pytest.raises(FvridError) as error:
        read(tmp_path / "root", src, tree | {name: f"{form.format(FIRST[src])}\n{form.format(place)}\n"})
    assert f"{Path(name).name}, line 2: " in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("src", LISTED)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_odd_encodings_cost_nothing(tmp_path: Path, src: str, encoding: str, line_end: str) -> None:
    tree, name, form = LISTED[src]
    line = form.format(FIRST[src])
    plain = read(tmp_path / "plain", src, {**tree, name: line})
    path = layouts.write(tmp_path / "odd", {**tree, name: ""}) / name
    path.write_bytes(f"{line}{line_end}{line_end}".encode(encoding))
    assert told(sources.read_source(src, tmp_path / "odd")) == told(plain)
    assert "train" in {record.source_split for record in plain.records}


@pytest.mark.parametrize("src", ["veri-wild", "vehicle-1m", "veri"])
def test_an_empty_list_is_as_none(tmp_path: Path, src: str) -> None:
    tree, name, _ = LISTED[src]
    bare = read(tmp_path / "bare", src, tree)
    empty = read(tmp_path / "empty", src, {**tree, name: "\r\n"})
    assert told(empty) == told(bare)


@pytest.mark.parametrize("src", LISTED)
def test_what_is_listed_but_missing_becomes_a_reject(tmp_path: Path, src: str) -> None:
    tree, name, form = LISTED[src]
    missing = FIRST[src].replace("1", "9")
    listing = read(tmp_path, src, tree | {name: "\n".join(form.format(each) for each in (FIRST[src], missing))})
    (reject,) = listing.rejects
    assert reject.reason == "listed, but not on disk"
    assert reject.source_path == f"{next(iter(tree)).partition('/')[0]}/{missing.removesuffix('.jpg')}"
    assert "1 listed but not on disk" in listing.summary


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root = layouts.write(tmp_path / "root", layouts.VEHICLE_1M | layouts.VEHICLE_1M_LISTS)
    (root / "image/000008").rename(tmp_path / "elsewhere")
    (root / "image/000008").symlink_to(tmp_path / "elsewhere")
    (root / "image/image").symlink_to(root / "image")
    listing = sources.read_source("vehicle-1m", root)
    assert (len(listing.records), listing.rejects) == (3, [])
