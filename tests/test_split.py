import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fvrid_tools import manifest, open_dataset
from fvrid_tools.cli import cli
from fvrid_tools.records import FvridError, Row
from fvrid_tools.split import _only_listed, assign_splits, write_split
from fvrid_tools.testsets import listed_test
from fvrid_tools.verify import find_problems
from sjdl_model.evaluate import TestSet


def rows_of(vehicles: list[int], source_split: str | None = None, source: str = "s") -> list[Row]:
    """`vehicles[i]` images of vehicle i."""
    blank = Row("", "synthetic", source, "", "", "", None, None, source_split, "", 0, 1, 1, "", 0.0, 0.0)
    return [
        blank._replace(image_id=f"{source}/{v}/{i}", vehicle_id=str(v))
        for v, n in enumerate(vehicles)
        for i in range(n)
    ]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(0, 9), st.floats(0.05, 1))
def test_every_image_has_one_place_and_no_vehicle_two(vehicles: list[int], seed: int, share: float) -> None:
    rows = rows_of(vehicles)
    split = assign_splits(rows, seed, share)
    assert split.keys() == {row.image_id for row in rows}
    train = {row.identity for row in rows if split[row.image_id] == "train"}
    test = {row.identity for row in rows if split[row.image_id] != "train"}
    assert not train & test
    queries = Counter(row.identity for row in rows if split[row.image_id] == "query")
    assert queries == Counter(test)  # one a test vehicle
    assert len(test) == round(share * sum(n > 1 for n in vehicles))


def test_order_changes_nothing_and_the_seed_does() -> None:
    rows = rows_of([3] * 40)
    mixed = random.Random(0).sample(rows, len(rows))
    assert assign_splits(rows, 0) == assign_splits(mixed, 0)
    assert assign_splits(rows, 0) != assign_splits(rows, 1)


def test_any_image_can_be_the_query() -> None:
    queries = set()
    for seed in range(40):
        queries |= {name for name, place in assign_splits(rows_of([4]), seed, 1).items() if place == "query"}
    assert len(queries) == 4


def test_the_sources_own_lists_are_followed_unless_told_otherwise() -> None:
    rows = rows_of([2] * 20, "test", "a") + rows_of([2] * 20, "train", "b")
    split = assign_splits(rows, 0)
    assert all((place == "train") == name.startswith("b/") for name, place in split.items())
    drawn = assign_splits(rows, 0, use_lists=False)
    assert Counter(name[0] for name, place in drawn.items() if place == "query") == {"a": 5, "b": 5}


def test_one_of_the_sources_own_test_sets_is_tested_alone(copy: Path, tmp_path: Path) -> None:
    write_split(copy, 0)
    before = {row.image_id: row for row in manifest.read_manifest(copy)}
    tested = defaultdict(list)
    for row in before.values():
        if row.split != "train":
            tested[row.vehicle_id].append(row.image_id.removeprefix("veri-wild/"))
    first, second, third = tested.values()
    (tmp_path / "test_7.txt").write_text("".join(f"{name}.jpg 0 1\n" for name in [*first[1:], *second[1:], "9/9"]))
    (tmp_path / "test_7_query.txt").write_text(f"{first[0]}\n{second[0]}\n{second[1]}\n")
    result = CliRunner().invoke(cli, ["split", str(copy), "--test-list", str(tmp_path / "test_7.txt")])
    assert result.exit_code == 0, result.output
    assert "3 queries, named by test_7_query.txt, 5 gallery images; 1 that it names are not" in result.stderr
    split = {row.image_id.removeprefix("veri-wild/"): row.split for row in manifest.read_manifest(copy)}
    assert {name for name, place in split.items() if place == "query"} == {first[0], second[0], second[1]}
    assert {name for name, place in split.items() if place == "gallery"} == {*first[1:], *second[2:]}
    assert [split[name] for name in third] == [None] * len(third)
    train = {name for name, row in before.items() if row.split == "train"}
    assert train == {f"veri-wild/{name}" for name, place in split.items() if place == "train"}
    assert not find_problems(copy)
    test = TestSet(open_dataset(copy))
    rows = np.eye(len(test.data), dtype=np.float32)
    assert (
        "the 3 images of test_7_query.txt are the queries, the rest gallery"
        in test.result(test.score(rows, rows), "foggy").protocol
    )

    (tmp_path / "test_7_query.txt").unlink()
    said = write_split(copy, 0, test_list=tmp_path / "test_7.txt")
    assert "2 queries, drawn, one a vehicle" in said
    test = TestSet(open_dataset(copy))
    rows = np.eye(len(test.data), dtype=np.float32)
    drawn = "a random image of each test vehicle of test_7.txt is the query"
    assert drawn in test.result(test.score(rows, rows), "foggy").protocol
    with pytest.raises(FvridError, match=r"names queries alone; name test_7\.txt"):
        write_split(copy, 0, test_list=tmp_path / "test_7_query.txt")
    (tmp_path / "other.txt").write_text("1.jpg\n")
    with pytest.raises(FvridError, match="names no image of this dataset"):
        write_split(copy, 0, test_list=tmp_path / "other.txt")
    assert CliRunner().invoke(cli, ["split", str(copy), "--test-list", "x", "--ignore-lists"]).exit_code == 2


def test_test_lists_of_veri_wild_2_and_names_with_folders_are_understood(tmp_path: Path) -> None:
    names = ["gallery/gallery_final/x", "gallery/gallery_final/y", "query/query_final/x", "00001/000001"]
    blank = rows_of([1], "test", "veri-wild")[0]
    rows = [blank._replace(image_id=f"veri-wild/{name}", vehicle_id=name[-1]) for name in names]
    rows += [row._replace(source_split=None) for row in rows_of([2, 2], source="folder")]
    (tmp_path / "A_gallery.txt").write_text("gallery_final/x.jpg 7\ngallery/gallery_final/y.jpg 8\n")
    (tmp_path / "A_query.txt").write_text("query_final/x.jpg 7\n")
    listed = listed_test(rows, tmp_path / "A_gallery.txt", 0)
    assert listed.split == {f"veri-wild/{names[i]}": place for i, place in enumerate(("gallery", "gallery", "query"))}
    assert listed.queries == tmp_path / "A_query.txt"
    split, _ = _only_listed(rows, assign_splits(rows, 0), tmp_path / "A_gallery.txt", 0)
    others = {row.image_id: "train" for row in rows if row.source == "folder"}  # of which one vehicle had been drawn
    assert split == listed.split | others
    with pytest.raises(FvridError, match=r"name A_gallery\.txt, beside it"):
        listed_test(rows, tmp_path / "A_query.txt", 0)
    (tmp_path / "test_9.txt").write_text("images/00001/000001.jpg\n")
    with pytest.raises(FvridError, match="names no query of this dataset"):  # of a vehicle with one image
        listed_test(rows, tmp_path / "test_9.txt", 0)
    (tmp_path / "test_9_query.txt").write_text("00001/000001.jpg\n")
    with pytest.raises(FvridError, match="names no gallery image of this dataset"):
        listed_test(rows, tmp_path / "test_9.txt", 0)


def test_the_same_name_in_two_sources_is_two_vehicles() -> None:
    rows = rows_of([2] * 8, "test", "a") + rows_of([2] * 8, "train", "b")
    split = assign_splits(rows, 0)
    assert sum(place == "query" for place in split.values()) == 8


def test_a_listed_test_vehicle_with_one_image_is_a_distractor() -> None:
    split = assign_splits(rows_of([1, 2], "test"), 0)
    assert sorted(split.values()) == ["gallery", "gallery", "query"]
    assert split["s/0/0"] == "gallery"


def test_writing_a_split_keeps_the_shards_and_verifies(copy: Path) -> None:
    shards = {path: path.read_bytes() for path in copy.glob("*.h5")}
    write_split(copy, seed=5, use_lists=False)
    assert {path: path.read_bytes() for path in copy.glob("*.h5")} == shards
    assert not find_problems(copy)
    assert manifest.read_dataset(copy)["split"] == {"seed": 5, "test_share": 0.25, "use_lists": False}


def test_a_share_that_the_lists_leave_no_say_is_said(copy: Path) -> None:
    assert write_split(copy, seed=0) == ""
    said = write_split(copy, seed=0, test_share=0.9)
    rows = manifest.read_manifest(copy)
    assert all(row.source_split is not None for row in rows)
    assert said == "--test-share changes nothing: the source's own lists decide; add --ignore-lists to draw"
    assert write_split(copy, seed=0, test_share=0.9, use_lists=False) == ""
    set_lists(copy, {rows[0].image_id: None})
    assert write_split(copy, seed=0, test_share=0.9) == (
        "veri-wild: its lists do not place every image; test vehicles are drawn"
    )


def set_lists(folder: Path, changed: dict[str, str | None]) -> None:
    """Write another source_split for some images."""
    rows = [r._replace(source_split=changed.get(r.image_id, r.source_split)) for r in manifest.read_manifest(folder)]
    info = manifest.read_dataset(folder)
    manifest.write_dataset(folder, info | {"manifest_sha256": manifest.write_manifest(folder, rows)})


def test_a_vehicle_that_a_list_trains_and_tests_is_named(copy: Path) -> None:
    rows = manifest.read_manifest(copy)
    set_lists(copy, {row.image_id: ("train", "query", "gallery")[i % 3] for i, row in enumerate(rows)})
    assert write_split(copy, seed=0).startswith("12 vehicles are both trained on and tested")


def test_lists_that_leave_no_test_vehicle_are_named(copy: Path) -> None:
    set_lists(copy, {row.image_id: "train" for row in manifest.read_manifest(copy)})
    with pytest.raises(FvridError, match="the source's lists leave it none: add --ignore-lists"):
        write_split(copy, seed=0)


def test_nothing_to_test_is_an_error_and_changes_nothing(copy: Path) -> None:
    before = (copy / manifest.MANIFEST).read_bytes()
    with pytest.raises(FvridError, match="no vehicle with two images"):
        write_split(copy, seed=0, test_share=0.001, use_lists=False)
    assert (copy / manifest.MANIFEST).read_bytes() == before


def test_a_dataset_is_split_as_another_of_its_vehicles(copy: Path, built: Path) -> None:
    def tested(folder: Path) -> set[str]:
        return {row.vehicle_id for row in manifest.read_manifest(folder) if row.split != "train"}

    write_split(copy, seed=7, use_lists=False)
    assert tested(copy) != tested(built)
    write_split(copy, seed=7, use_lists=False, like=built)
    assert tested(copy) == tested(built)
    told = manifest.read_dataset(copy)["split"]
    assert told["like"] == manifest.read_dataset(built)["manifest_sha256"]


def test_like_decides_for_single_images_too_and_leaves_the_others_to_the_draw() -> None:
    rows = rows_of([1, 1, 3, 3, 3, 3])
    split = assign_splits(rows, 0, 0.5, like={("s", "0"): True, ("s", "1"): False, ("s", "2"): True, ("s", "3"): False})
    assert (split["s/0/0"], split["s/1/0"], split["s/3/0"]) == ("gallery", "train", "train")
    assert sorted(split[f"s/2/{i}"] for i in range(3)) == ["gallery", "gallery", "query"]
    assert sum(split[f"s/{v}/0"] == "train" for v in (4, 5)) == 1


def test_vehicles_of_one_image_each_are_said(copy: Path) -> None:
    rows = [row._replace(vehicle_id=str(i), source_split=None) for i, row in enumerate(manifest.read_manifest(copy))]
    info = manifest.read_dataset(copy)
    manifest.write_dataset(copy, info | {"manifest_sha256": manifest.write_manifest(copy, rows)})
    with pytest.raises(FvridError, match="every vehicle has a single image"):
        write_split(copy, seed=0)


def test_like_goes_before_lists_and_says_what_it_cannot_test(copy: Path, built: Path) -> None:
    rows = manifest.read_manifest(built)
    trained = {row.identity for row in rows if row.split == "train"}
    split = assign_splits(rows, 0, like={row.identity: row.identity in trained for row in rows})
    assert {row.identity for row in rows if split[row.image_id] != "train"} == trained
    set_lists(copy, {row.image_id: "train" for row in rows})
    write_split(copy, seed=0, like=built)
    info, kept = manifest.read_dataset(copy), [row for row in manifest.read_manifest(copy) if row.split == "train"]
    manifest.write_dataset(copy, info | {"manifest_sha256": manifest.write_manifest(copy, kept)})
    with pytest.raises(
        FvridError, match=r"of the vehicles that .* tests none has two here: add images, or leave --like"
    ):
        write_split(copy, seed=0, like=built)
    with pytest.raises(FvridError, match="nowhere holds no finished dataset"):
        write_split(copy, seed=0, like=copy / "nowhere")
