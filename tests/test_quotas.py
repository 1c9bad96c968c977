from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvrid_tools import quotas
from fvrid_tools.manifest import read_manifest
from fvrid_tools.quotas import Quota, draw
from fvrid_tools.records import FvridError, ImageRecord, OptionError
from fvrid_tools.split import write_split
from fvrid_tools.stats import as_published

Drawn = dict[str, str]


def images_of(sizes: list[int], source: str = "veri-wild", listed: str | None = None) -> list[ImageRecord]:
    """`sizes[v]` images of vehicle v."""
    return [
        ImageRecord(f"{source}/{v:05d}/{i:06d}", source, f"images/{v}/{i}.jpg", f"{v:05d}", None, listed, Path("r"))
        for v, size in enumerate(sizes)
        for i in range(size)
    ]


def asked(train: tuple[int, int], query: int, gallery: int, source: str = "veri-wild") -> quotas.Quotas:
    return {source: {"train": Quota(*train), "query": Quota(query, query), "gallery": Quota(query, gallery)}}


def counts(split: Drawn) -> dict[str, tuple[int, int]]:
    vehicles: dict[str, set[str]] = {}
    for image_id, place in split.items():
        vehicles.setdefault(place, set()).add(image_id.rpartition("/")[0])
    images = Counter(split.values())
    return {place: (len(names), images[place]) for place, names in vehicles.items()}


def test_published_counts_are_those_of_the_paper() -> None:
    table = as_published("synthetic")
    assert table["veri-wild"] == {
        "train": (1167, 19532),
        "query": (389, 389),
        "gallery": (389, 6125),
        "all": (1556, 26046),
    }
    assert table["all"] == {
        "train": (3000, 42558),
        "query": (1000, 1000),
        "gallery": (1000, 13218),
        "all": (4000, 56776),
    }
    real = as_published("real")
    assert (real["all"]["train"], real["all"]["query"], real["all"]["gallery"]) == (
        (403, 5051),
        (1000, 1000),
        (1000, 12227),
    )


@given(
    st.lists(st.integers(1, 12), min_size=6, max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_what_is_drawn_is_exact_or_said_to_be_too_little(
    sizes: list[int], train: int, query: int, seed: int, more: int, further: int
) -> None:
    recipe = asked((train, train + more), query, query + further)
    images = images_of(sizes)
    try:
        split = draw(images, recipe, seed)
    except FvridError as error:
        assert "too little" in str(error)  # noqa: PT017
        largest = sorted(sizes)[-train - query :]
        scarce = sum(size > 1 for size in sizes) < query or len(sizes) < train + query
        tight = sum(largest) < train + more + 2 * query + further + max(sizes)
        lean = sum(sorted(sizes)[-query:]) < 2 * query + further + max(sizes)
        assert scarce or tight or lean or sum(sorted(sizes)[-train:]) < train + more + max(sizes)
        return
    assert counts(split) == {
        "train": (train, train + more),
        "query": (query, query),
        "gallery": (query, query + further),
    }
    places: dict[str, set[str]] = {}
    for image_id, place in split.items():
        places.setdefault(image_id.rpartition("/")[0], set()).add(place)
    assert all(found in ({"train"}, {"query", "gallery"}) for found in places.values())


def test_a_source_that_holds_just_enough_is_parted_exactly() -> None:
    sizes = [3] * 5 + [4] * 7 + [9] * 4
    split = draw(images_of(sizes), asked((11, 11 * 4 + 6), 5, sum(sizes) - 50 - 5), seed=1)
    assert len(split) == sum(sizes)
    assert counts(split)["train"] == (11, 50)


def test_the_full_tables_are_drawn_from_sources_of_full_size() -> None:
    recipe = quotas.published("synthetic")
    sizes = [2 + (v * 7919) % 29 for v in range(5000)]
    split = draw(images_of(sizes) + images_of(sizes, "vehicle-1m"), recipe, seed=0)
    for source, quota in recipe.items():
        assert counts({k: v for k, v in split.items() if k.startswith(source + "/")}) == quota


def test_the_draw_depends_on_names_and_seed_alone() -> None:
    images = images_of([5] * 30)
    recipe = asked((6, 20), 3, 9)
    assert draw(images, recipe, 0) == draw(images[::-1], recipe, 0)
    assert draw(images, recipe, 0) != draw(images, recipe, 1)


def test_lists_are_kept_where_they_hold_enough() -> None:
    images = images_of([4] * 20, listed="train")[:40] + images_of([4] * 20, listed="test")[40:]
    split = draw(images, asked((8, 30), 4, 10), seed=0)
    assert {int(name.split("/")[1]) < 10 for name, place in split.items() if place == "train"} == {True}
    assert {int(name.split("/")[1]) < 10 for name, place in split.items() if place != "train"} == {False}
    beyond = draw(images, asked((14, 40), 4, 10), seed=0)  # ten of the lists are not enough
    assert counts(beyond)["train"] == (14, 40)


def test_too_little_is_one_sentence_with_numbers() -> None:
    with pytest.raises(FvridError, match=r"veri-wild holds too little.*9 vehicles of 1 images or more.*8 are there"):
        draw(images_of([3] * 8), asked((6, 12), 3, 6), seed=0)
    with pytest.raises(FvridError, match="25 images of 8 vehicles are asked for, and the largest have 24"):
        draw(images_of([3] * 8), asked((5, 16), 3, 6), seed=0)
    with pytest.raises(FvridError, match="the recipe is for veri-wild, and there are images of folder"):
        draw(images_of([3] * 8, "folder"), asked((5, 16), 3, 6), seed=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "domain = 1",
        'domain = "synthetic"',
        'domain = "synthetic"\n[a]\ntrain = 1',
        'domain = "synthetic"\n[a]\ntrain = {vehicles = 1, images = 1}',
        'domain = "synthetic"\nveri = 3',
        'domain = "synthetic"\n[a]\ntrain = {vehicles = 9, images = 1}\nquery = {vehicles = 1, images = 1}\n'
        "gallery = {vehicles = 1, images = 1}",
        'domain = "synthetic"\n[a]\ntrain = {vehicles = 1, images = 1}\nquery = {vehicles = 1, images = 2}\n'
        "gallery = {vehicles = 1, images = 1}",
    ],
)
def test_a_recipe_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(FvridError, match=r"r\.toml"):
        quotas.read_recipe(str(path), "synthetic")


def test_a_recipe_of_the_other_domain_or_that_is_missing_is_a_wrong_option() -> None:
    with pytest.raises(OptionError, match="real domain"):
        quotas.read_recipe("fvrid_real", "synthetic")
    with pytest.raises(OptionError, match="no such file"):
        quotas.read_recipe("nowhere", "synthetic")


def test_a_dataset_is_split_by_a_recipe(copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        'domain = "synthetic"\n[veri-wild]\ntrain = {vehicles = 5, images = 17}\n'
        "query = {vehicles = 3, images = 3}\ngallery = {vehicles = 3, images = 7}\n"
    )
    write_split(copy, seed=0, recipe=str(path))
    places = Counter(row.split for row in read_manifest(copy))
    assert places == {"train": 17, "query": 3, "gallery": 7, None: 21}
