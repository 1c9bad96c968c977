"""Identity-disjoint train / query / gallery, by the paper's protocol ("Evaluation Protocols").

A vehicle is in training or in the test. Of a test vehicle one random image is the query, the rest are the
gallery. Every draw is a hash of (seed, name), so the order of rows changes nothing.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from . import files, manifest
from .labels import split_as_labelled
from .quotas import draw, lot, read_recipe
from .records import SPLITS, FvridError, Row
from .testsets import ListedTest, listed_test

Identity = tuple[str, str]
TEST_SHARE = 0.25  # of the vehicles, where the source's lists do not say; the paper has 1000 of 4000


def assign_splits(
    rows: list[Row],
    seed: int,
    test_share: float = TEST_SHARE,
    use_lists: bool = True,
    like: Mapping[Identity, bool] = MappingProxyType({}),
) -> dict[str, str]:
    """image_id -> "train", "query" or "gallery".

    Sources whose own lists name train, query and gallery keep just that, and those whose lists tell train from test
    keep that (unless use_lists is False); of the others `test_share` of the vehicles with two images or more is drawn
    for the test. A test vehicle with a single image has nothing to be found by: its image joins the gallery, as a
    distractor.
    like: whether another dataset tests a vehicle: here it is the same, whatever lists say.
    """
    vehicles: dict[Identity, list[Row]] = defaultdict(list)
    for row in rows:
        vehicles[row.identity].append(row)
    listed = _as_listed(rows) if use_lists else {}
    split = {row.image_id: listed[row.image_id] for row in rows if row.image_id in listed and row.identity not in like}
    settled = {row.source for row in rows if row.image_id in listed}
    vehicles = {name: images for name, images in vehicles.items() if name in like or name[0] not in settled}
    for identity in vehicles.keys() - (test := _test_vehicles(vehicles, seed, test_share, use_lists, like)):
        split.update({row.image_id: "train" for row in vehicles[identity]})
    for identity in test:
        images = sorted((row.image_id for row in vehicles[identity]), key=lambda name: lot(seed, "query", name))
        split.update(dict.fromkeys(images, "gallery"))
        if len(images) > 1:
            split[images[0]] = "query"
    return split


def _as_listed(rows: list[Row]) -> dict[str, str]:
    """What the lists of sources say that have a query, and a place for every image."""
    said: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        said[row.source].add(row.source_split)
    whole = {source for source, names in said.items() if "query" in names and names <= set(SPLITS)}
    return {row.image_id: row.source_split for row in rows if row.source in whole and row.source_split}


def _test_vehicles(
    vehicles: dict[Identity, list[Row]], seed: int, test_share: float, use_lists: bool, like: Mapping[Identity, bool]
) -> set[Identity]:
    test = set()
    drawn: dict[str, list[Identity]] = defaultdict(list)
    listed = {source for source, _ in vehicles}
    for (source, _), images in vehicles.items():
        if not use_lists or any(row.source_split is None for row in images):
            listed.discard(source)
    for identity, images in vehicles.items():
        if identity in like:
            if like[identity]:
                test.add(identity)
        elif identity[0] in listed:
            if all(row.source_split != "train" for row in images):
                test.add(identity)
        elif len(images) > 1:
            drawn[identity[0]].append(identity)
    for identities in drawn.values():
        identities.sort(key=lambda identity: lot(seed, "test", *identity))
        test.update(identities[: round(test_share * len(identities))])
    return test


def write_split(
    folder: Path,
    seed: int,
    test_share: float = TEST_SHARE,
    use_lists: bool = True,
    labels: Path | None = None,
    recipe: str | None = None,
    like: Path | None = None,
    test_list: Path | None = None,
) -> str:
    """Split the dataset in `folder`: rewrites manifest.csv and dataset.json, never a shard. Returns what to tell.

    By `labels`, an FVRID_Label.csv, or by `recipe`, counts to draw, images that these do not take are in no split.
    like: another dataset, of the same vehicles, that is split already.
    test_list: one of a source's own, which names what is tested; its other test images are in no split, and other
    sources train.
    Raises FvridError where there is no dataset, no vehicle can be tested, or the list names none of its images.
    """
    manifest.read_dataset(folder)  # there is one
    with files.alone_in(folder):
        info = manifest.read_dataset(folder)
        rows = manifest.read_manifest(folder)
        said = ""
        if labels is not None:
            split, said = split_as_labelled(rows, labels, info["domain"])
            info["split"] = {"labels": files.sha256_file(labels)}
        elif recipe is not None:
            split = draw(rows, read_recipe(recipe, info["domain"]), seed)
            info["split"] = {"seed": seed, "recipe": recipe}
        else:
            tested = {} if like is None else _tested(like)
            split = assign_splits(rows, seed, test_share, use_lists, tested)
            if use_lists and like is None:
                said = _of_lists(rows, test_share)
            info["split"] = {"seed": seed, "test_share": test_share, "use_lists": use_lists}
            if like is not None:
                info["split"]["like"] = manifest.read_dataset(like)["manifest_sha256"]
            if test_list is not None:
                split, listed = _only_listed(rows, split, test_list, seed)
                said = "\n".join(filter(None, (said, listed.said)))
                lists = {"name": test_list} | ({} if listed.queries is None else {"queries": listed.queries})
                info["split"]["test_list"] = {key: path.name for key, path in lists.items()}
                info["split"]["test_list"] |= {f"{key}_sha256": files.sha256_file(path) for key, path in lists.items()}
        if "query" not in split.values():
            if labels is not None or recipe is not None:
                raise FvridError(f"{folder}: {labels or recipe} names no query image of this dataset; name another.")
            raise FvridError(
                f"{folder}: no vehicle with two images is left for the test; {_mend(rows, use_lists, like)}."
            )
        said = "\n".join(filter(None, (said, _shared_vehicles(rows, split))))
        placed = (row._replace(split=split.get(row.image_id)) for row in rows)
        info["manifest_sha256"] = manifest.write_manifest(folder, placed)
        manifest.write_dataset(folder, info)
    return said


def _only_listed(
    rows: list[Row], split: dict[str, str], test_list: Path, seed: int
) -> tuple[dict[str, str], ListedTest]:
    """The split with the images that a list names tested, and no others of its source; other sources train."""
    listed = listed_test(rows, test_list, seed)
    kept = {row.image_id: "train" for row in rows if split.get(row.image_id) == "train"}
    kept |= {
        row.image_id: "train" for row in rows if row.source != listed.source and row.source_split in (None, "train")
    }
    return kept | listed.split, listed


def _mend(rows: list[Row], use_lists: bool, like: Path | None) -> str:
    if len({row.identity for row in rows}) == len(rows):
        return "every vehicle has a single image: name vehicles otherwise, or add images"
    if like is not None:
        return f"of the vehicles that {like} tests none has two here: add images, or leave --like out"
    mend = "raise --test-share or add images"
    if use_lists and any(row.source_split is not None for row in rows):
        return f"the source's lists leave it none: add --ignore-lists, {mend}"
    return mend


def _tested(folder: Path) -> dict[Identity, bool]:
    """Of each vehicle of a dataset that is split, whether it is tested."""
    manifest.read_dataset(folder)  # there is one
    rows = [row for row in manifest.read_manifest(folder) if row.split is not None]
    if not rows:
        raise FvridError(f"{folder}: not split yet; run fvrid split {folder} first.")
    tested = {row.identity for row in rows if row.split != "train"}
    return {row.identity: row.identity in tested for row in rows}


def _of_lists(rows: list[Row], test_share: float) -> str:
    """What to tell where the sources' own lists may decide."""
    listed, whole = [row for row in rows if row.source_split is not None], _as_listed(rows)
    if len(listed) == len(rows):
        ignored = test_share != TEST_SHARE
        return "--test-share changes nothing: the source's own lists decide; add --ignore-lists to draw" * ignored
    sources = {row.source for row in listed if row.image_id not in whole}
    partly = sorted(sources & {row.source for row in rows if row.source_split is None})
    return f"{', '.join(partly)}: its lists do not place every image; test vehicles are drawn" * bool(partly)


def _shared_vehicles(rows: list[Row], split: dict[str, str]) -> str:
    """A sentence about vehicles that a list puts into training and into the test; "" where there are none."""
    trained = {row.identity for row in rows if split.get(row.image_id) == "train"}
    tested = {row.identity for row in rows if split.get(row.image_id) in ("query", "gallery")}
    if not (found := sorted(trained & tested)):
        return ""
    source, vehicle = found[0]
    return (
        f"{len(found)} vehicles are both trained on and tested, as the list has them (such as {vehicle} of {source});"
        " their scores say little"
    )
