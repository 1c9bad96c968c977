from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fvrid_tools import labels, sources
from fvrid_tools.labels import Label
from fvrid_tools.manifest import read_manifest
from fvrid_tools.records import FvridError, ImageRecord, Listing, Row
from fvrid_tools.split import assign_splits, write_split

HEAD = "IMG,NAME,SOURCE,SAVE,ORI_NAME\n"


def write(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.write_text(head + "\n".join(rows) + "\n")
    return path


def image(path: str, source: str = "veri-wild") -> ImageRecord:
    return ImageRecord(f"{source}/{path.rpartition('.')[0]}", source, path, "v", None, None, Path("r"))


def label(original: str, source: str = "veri-wild", split: str | None = "train") -> Label:
    return Label(source, "synthetic", split, original)


def test_rows_say_source_domain_and_split(tmp_path: Path) -> None:
    path = write(
        tmp_path / "l.csv",
        "00000_c001_000001_0.jpg,x,Veriwild,FVRID_syn/train_clear,00001/000001.jpg",
        "05000_c001_000002_0.jpg,x,VeriWild,./FVRID_syn/query_clear".replace("./", "") + ",000002.jpg",
        "15000_c001_000003_0.jpg,x,Vehicle1M,FVRID_syn\\gallery_clear,7\\3.jpg",
        "20000_c001_000004_0.jpg,x,Veriwild,FVRID_real/gallery_foggy,00004/000004.jpg",
        "30000_c001_000004_0.jpg,x,anything,FVRID_clear/train_clear,00005/000004.jpg",
        "30001_c001_000004_0.jpg,x,folder,FVRID_real,=1+1.jpg",
    )
    assert labels.read_labels(path, "synthetic") == [
        ("veri-wild", "synthetic", "train", "00001/000001.jpg"),
        ("veri-wild", "synthetic", "query", "000002.jpg"),
        ("vehicle-1m", "synthetic", "gallery", "7/3.jpg"),
    ]
    assert labels.read_labels(path, "real") == [
        ("veri-wild", "real", "gallery", "00004/000004.jpg"),
        ("folder", "real", None, "=1+1.jpg"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2\n", "SOURCE is missing"),
        (HEAD.encode(), "none of its 0 rows"),
        (HEAD.encode() + b"i,n,Veriwild,somewhere/else,1.jpg\n", "line 2: SAVE is 'somewhere/else'"),
        (HEAD.encode() + b"i,n,Veriwild,FVRID_syn/train_clear,\n", "line 2: ORI_NAME is empty"),
        (HEAD.encode() + b"i,n,Veriwild,FVRID_syn/train_clear,\xff\xfe\n", "UTF-8"),
        (b"", "SOURCE is missing"),
    ],
)
def test_what_is_no_list_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(FvridError, match=words):
        labels.read_labels(tmp_path / "l.csv", "synthetic")
    with pytest.raises(FvridError, match="cannot be read"):
        labels.read_labels(tmp_path / "missing.csv", "synthetic")


def test_images_are_found_by_path_and_else_by_name() -> None:
    images = [image("images/00001/000001.jpg"), image("images/00001/000002.jpg"), image("images/00002/000003.png")]
    matching = labels.match(
        [label("00001/000001.jpg"), label("images_all/000002.jpg"), label("a/b/images/00002/000003.jpg")], images
    )
    assert list(matching.found) == [record.image_id for record in images]
    assert not matching.unmatched + matching.ambiguous + matching.repeated


def test_another_vehicles_image_of_that_name_is_never_taken() -> None:
    images = [image("image/a/1.jpg"), image("image/b/2.jpg")]
    matching = labels.match([label("b/1.jpg")], images)
    assert (matching.found, matching.unmatched) == ({}, [label("b/1.jpg")])


def test_names_that_repeat_are_not_taken_from_other_folders() -> None:
    """Vehicle v3 is not there, and another has an image of its name."""
    images = [image("v4/1.jpg", "folder"), image("v5/7.jpg", "folder")]
    rows = [label("v4/1.jpg", "folder"), label("v3/7.jpg", "folder")]
    assert list(labels.match(rows, images).found) == [images[0].image_id]
    assert list(labels.match([label("elsewhere/7.jpg", "folder")], images).found) == [images[1].image_id]


def test_a_bare_name_that_two_images_have_is_ambiguous() -> None:
    images = [image("image/a/1.jpg"), image("image/b/1.jpg"), image("image/b/2.jpg")]
    matching = labels.match(
        [label("1.jpg"), label("a/1.jpg"), label("2.jpg"), label("b/2.jpg"), label("9.jpg")], images
    )
    assert matching.ambiguous == [label("1.jpg")]
    assert list(matching.found.values()) == [label("a/1.jpg"), label("2.jpg")]
    assert matching.repeated == [label("b/2.jpg")]
    assert matching.unmatched == [label("9.jpg")]


def test_the_very_path_comes_before_others() -> None:
    """As fvrid pick saves it."""
    images = [image("v/a.jpg"), image("old/v/a.jpg"), image("v/a.png"), image("top.jpg"), image("v/top.jpg")]
    matching = labels.match([label("v/a.jpg"), label("top.jpg"), label("old/v/a.jpg")], images)
    assert list(matching.found) == [images[0].image_id, images[3].image_id, images[1].image_id]
    again = labels.match([label("v/a.bmp")], images)
    assert again.ambiguous == [label("v/a.bmp")]


def test_of_two_files_with_one_id_the_named_one_is_taken(tmp_path: Path) -> None:
    listing = Listing([image("v/a.jpg"), image("v/a.png")], [], "", source="veri-wild")
    path = write(tmp_path / "one.csv", "i,n,Veriwild,FVRID_real,v/a.png")
    (taken,), _ = labels.take_labelled([listing], path, "real")
    assert [record.source_path for record in taken.records] == ["v/a.png"]


def test_a_label_finds_nothing_in_another_source() -> None:
    assert not labels.match([label("a/1.jpg")], [image("image/a/1.jpg", "vehicle-1m")]).found


def test_a_build_takes_what_is_named_and_the_split_is_as_said(laid_out: Path, tmp_path: Path) -> None:
    listing = sources.read_source("veri-wild", laid_out / "clear")
    rows = [
        f"i,n,Veriwild,FVRID_syn/{split}_clear,{record.source_path.removeprefix('images/')}"
        for record, split in zip(listing.records, ["train"] * 6 + ["query", "gallery", "gallery"], strict=False)
    ]
    path = write(
        tmp_path / "l.csv",
        *rows,
        "i,n,Veriwild,FVRID_syn/train_clear,gone.jpg",
        "i,n,V1M,FVRID_syn/train_clear,x/1.jpg",
    )
    (taken,), table = labels.take_labelled([listing], path, "synthetic")
    assert [record.image_id for record in taken.records] == [record.image_id for record in listing.records[:9]]
    assert Counter(record.source_split for record in taken.records) == {"train": 6, "query": 1, "gallery": 2}
    assert [(reject.source_path, reject.reason) for reject in taken.rejects] == [
        ("gone.jpg", "named in l.csv, but not found")
    ]
    lines = [line.split() for line in table.splitlines()]
    assert lines[1:] == [["veri-wild", "10", "9", "1", "0", "0"], ["vehicle-1m", "1", "no", "--src"]]


def test_a_list_without_splits_leaves_the_sources_own(laid_out: Path, tmp_path: Path) -> None:
    """So that vehicles of FVRID_Real that fvrid pick found are not trained on in FVRID_Syn."""
    listing = sources.read_source("veri-wild", laid_out / "clear")
    records = [replace(r, source_split=s) for r, s in zip(listing.records, ("train", "test", None), strict=False)]
    rows = [f"i,n,Veriwild,FVRID_real{'/train_foggy' * (i == 2)},{r.source_path}" for i, r in enumerate(records)]
    path = write(tmp_path / "l.csv", *rows)
    (taken,), _ = labels.take_labelled([replace(listing, records=records)], path, "real")
    assert [record.source_split for record in taken.records] == ["train", "test", "train"]


def test_what_the_list_says_of_query_and_gallery_is_kept_to_the_image(laid_out: Path) -> None:
    records = sources.read_source("veri-wild", laid_out / "clear").records
    wanted = {record.image_id: ("train", "query", "gallery")[i % 3] for i, record in enumerate(records)}
    rows = [
        Row.of(record, domain="synthetic", sha256="", place=("s", 0), size=(1, 1))._replace(
            source_split=wanted[record.image_id]
        )
        for record in records
    ]
    assert assign_splits(rows, seed=0) == wanted


def test_a_dataset_is_split_by_labels(copy: Path, tmp_path: Path) -> None:
    rows = read_manifest(copy)
    path = write(
        tmp_path / "l.csv",
        *(
            f"i,n,Veriwild,FVRID_syn/{place}_clear,{row.source_path}"
            for row, place in zip(rows, ["train", "query", "gallery"], strict=False)
        ),
    )
    table = write_split(copy, seed=0, labels=path)
    assert [row.split for row in read_manifest(copy)][:4] == ["train", "query", "gallery", None]
    assert table.splitlines()[1].split() == ["veri-wild", "3", "3", "0", "0", "0"]
