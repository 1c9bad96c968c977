"""Identity-disjoint train / query / gallery, by the paper's protocol ("Evaluation Protocols").

A vehicle is in training or in the test. Of a test vehicle one random image is the query, the rest are the
gallery. Every draw is a hash of (seed, name), so the order of rows changes nothing.
"""

import hashlib
from collections import defaultdict
from pathlib import Path

from . import manifest
from .records import FvridError, Row

Identity = tuple[str, str]
TEST_SHARE = 0.25  # of the vehicles, where the source's lists do not say; the paper has 1000 of 4000


def _draw(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()


def assign_splits(rows: list[Row], seed: int, test_share: float = TEST_SHARE, use_lists: bool = True) -> dict[str, str]:
    """image_id -> "train", "query" or "gallery".

    Sources whose own lists tell train from test keep that (unless use_lists is False); of the others
    `test_share` of the vehicles with two images or more is drawn for the test. A test vehicle with a
    single image has nothing to be found by: its image joins the gallery, as a distractor.
    """
    vehicles: dict[Identity, list[Row]] = defaultdict(list)
    for row in rows:
        vehicles[row.identity].append(row)
    split = {}
    for identity in vehicles.keys() - (test := _test_vehicles(vehicles, seed, test_share, use_lists)):
        split.update({row.image_id: "train" for row in vehicles[identity]})
    for identity in test:
        images = sorted((row.image_id for row in vehicles[identity]), key=lambda name: _draw(seed, "query", name))
        split.update(dict.fromkeys(images, "gallery"))
        if len(images) > 1:
            split[images[0]] = "query"
    return split


def _test_vehicles(vehicles: dict[Identity, list[Row]], seed: int, test_share: float, use_lists: bool) -> set[Identity]:
    test = set()
    drawn: dict[str, list[Identity]] = defaultdict(list)
    listed = {source for source, _ in vehicles}
    for (source, _), images in vehicles.items():
        if not use_lists or any(row.source_split is None for row in images):
            listed.discard(source)
    for identity, images in vehicles.items():
        if identity[0] in listed:
            if all(row.source_split == "test" for row in images):
                test.add(identity)
        elif len(images) > 1:
            drawn[identity[0]].append(identity)
    for identities in drawn.values():
        identities.sort(key=lambda identity: _draw(seed, "test", *identity))
        test.update(identities[: round(test_share * len(identities))])
    return test


def write_split(folder: Path, seed: int, test_share: float = TEST_SHARE, use_lists: bool = True) -> dict[str, str]:
    """Split the dataset in `folder`: rewrites manifest.csv and dataset.json, never a shard. Returns the split.

    Raises FvridError where there is no dataset, or no vehicle can be tested.
    """
    info = manifest.read_dataset(folder)
    rows = manifest.read_manifest(folder)
    split = assign_splits(rows, seed, test_share, use_lists)
    if "query" not in split.values():
        raise FvridError(
            f"{folder}: no vehicle with two images is left for the test; raise --test-share or add images."
        )
    rows = [row._replace(split=split[row.image_id]) for row in rows]
    info["manifest_sha256"] = manifest.write_manifest(folder, rows)
    info["split"] = {"seed": seed, "test_share": test_share, "use_lists": use_lists}
    manifest.write_dataset(folder, info)
    return split
