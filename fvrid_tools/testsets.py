"""One of a source's own test sets, as its list names it: VERI-Wild's test_3000.txt, VehicleID's test_list_800.txt."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from .images import SUFFIXES
from .quotas import lot
from .records import FvridError, Row
from .sources.lists import lines

_QUERY = "_query"  # what the name of the list of queries has beyond that of all


def listed_test(rows: Sequence[Row], path: Path, seed: int) -> tuple[dict[str, str], str]:
    """{image_id: "query" or "gallery"} of the images that a list names, and a sentence about them.

    path: a text file whose lines begin with an image, as below the source's folder of images, with or without suffix.
    The queries are those of the list <name>_query.txt beside it; where there is none, one image of each vehicle is
    drawn, but of a vehicle with a single one.
    Raises FvridError where a list cannot be read, names queries alone, or names no image of the rows.
    """
    if path.stem.endswith(_QUERY):
        raise FvridError(f"{path}: it names queries alone; name {path.stem.removesuffix(_QUERY)}.txt, beside it.")
    beside = path.with_name(f"{path.stem}{_QUERY}.txt")
    queries = _named(beside) if beside.exists() else set()
    names = _named(path) | queries
    known: dict[str, dict[str, Row]] = defaultdict(dict)  # by source, by the name that a list has
    for row in rows:
        if (name := row.image_id.removeprefix(f"{row.source}/")) in names:
            known[row.source][name] = row
    if not known:
        raise FvridError(f"{path}: it names no image of this dataset; name a test list of one of its sources.")
    source, found = max(known.items(), key=lambda item: len(item[1]))
    chosen = f"named by {beside.name}" if queries else "drawn, one a vehicle"
    if not queries:
        queries = _drawn(found, seed)
    split = {row.image_id: "query" if name in queries else "gallery" for name, row in found.items()}
    counts = Counter(split.values())
    lacking = len(names) - len(found)
    said = (
        f"{path.name} of {source}: {counts['query']} queries, {chosen}, {counts['gallery']} gallery images"
        f"{f'; {lacking} that it names are not in the dataset' if lacking else ''}"
    )
    return split, said


def _named(path: Path) -> set[str]:
    """The images that a list names, without suffix."""
    names = (line.split(maxsplit=1)[0].replace("\\", "/").removeprefix("./") for _, line in lines(path))
    return {
        name if (plain := Path(name)).suffix.lower() not in SUFFIXES else plain.with_suffix("").as_posix()
        for name in names
    }


def _drawn(found: dict[str, Row], seed: int) -> set[str]:
    """A name of each vehicle that has several."""
    vehicles: dict[str, list[str]] = defaultdict(list)
    for name, row in found.items():
        vehicles[row.vehicle_id].append(name)
    several = [names for names in vehicles.values() if len(names) > 1]
    return {min(names, key=lambda name: lot(seed, "query", found[name].image_id)) for names in several}
