"""One of a source's own test sets, as its lists name it: VERI-Wild's test_3000.txt with the queries of
test_3000_query.txt, VERI-Wild 2.0's A_gallery.txt with those of A_query.txt, VehicleID's test_list_800.txt, which names
none."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .images import SUFFIXES
from .quotas import lot
from .records import FvridError, Row
from .sources.lists import lines

_GALLERY, _QUERY = "_gallery", "_query"
_FOLDERS = re.compile(r"images?/")  # of a source, that a list may name before its images


class ListedTest(NamedTuple):
    """What a list has tested."""

    split: dict[str, str]  # "query" or "gallery" by image_id
    source: str
    queries: Path | None  # the list that names them; None where they were drawn
    said: str  # a sentence about it


def listed_test(rows: Sequence[Row], path: Path, seed: int) -> ListedTest:
    """The images that a list names, and its queries: those of <name>_query.txt beside it, for <name>_gallery.txt too;
    where there is none, one image of each vehicle is drawn, but of a vehicle with a single one.

    path: a text file whose lines begin with an image, as below the source's folder of images, with or without suffix.
    Raises FvridError where a list cannot be read, names queries alone, or leaves no query or no gallery of the rows.
    """
    name = path.stem.removesuffix(_GALLERY)
    if path.stem.endswith(_QUERY):
        name = path.stem.removesuffix(_QUERY)
        whole = next(
            (one for one in (f"{name}.txt", f"{name}{_GALLERY}.txt") if path.with_name(one).exists()), "the other"
        )
        raise FvridError(f"{path}: it names queries alone; name {whole}, beside it.")
    beside = path.with_name(f"{name}{_QUERY}.txt")
    queries = list(_named(beside)) if beside.exists() else []
    listed = list(_named(path))
    of_source: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        of_source[row.source][row.image_id.removeprefix(f"{row.source}/")] = row
    parts = {
        one: (_found(known, listed, "gallery"), _found(known, queries, "query")) for one, known in of_source.items()
    }
    source = max(parts, key=lambda one: sum(map(len, parts[one])))
    tested, named = parts[source]
    asked = named if queries else _drawn(tested, seed)
    split = dict.fromkeys(tested, "gallery") | dict.fromkeys(asked, "query")
    gallery = len(split) - len(asked)
    if not asked or not gallery:
        lacks = "query" if split and not asked else "gallery image" if split else "image"
        raise FvridError(f"{path}: it names no {lacks} of this dataset; name a test list of one of its sources.")
    chosen = f"named by {beside.name}" if queries else "drawn, one a vehicle"
    lacking = len({*listed, *queries}) - len(split)
    said = f"{path.name} of {source}: {len(asked)} queries, {chosen}, {gallery} gallery images"
    said += f"; {lacking} that it names are not in the dataset" * (lacking > 0)
    return ListedTest(split, source, beside if queries else None, said)


def _named(path: Path) -> Iterator[str]:
    """The images that a list names, without suffix."""
    for _, line in lines(path):
        name = line.split(maxsplit=1)[0].replace("\\", "/").removeprefix("./")
        suffix = Path(name).suffix
        yield name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def _found(known: Mapping[str, Row], names: Sequence[str], folder: str) -> dict[str, Row]:
    """The rows that are named, by image_id. VERI-Wild 2.0 has images in a folder that its lists may leave out."""
    found = {}
    for name in names:
        places = (name, _FOLDERS.sub("", name, count=1), f"{folder}/{name}", f"{folder}/{folder}/{name}")
        if row := next((known[place] for place in places if place in known), None):
            found[row.image_id] = row
    return found


def _drawn(tested: Mapping[str, Row], seed: int) -> list[str]:
    """An image of each vehicle that has several."""
    vehicles: dict[str, list[str]] = defaultdict(list)
    for image_id, row in tested.items():
        vehicles[row.vehicle_id].append(image_id)
    several = [images for images in vehicles.values() if len(images) > 1]
    return [min(images, key=lambda image_id: lot(seed, "query", image_id)) for images in several]
