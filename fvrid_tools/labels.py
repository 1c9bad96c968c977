"""FVRID_Label.csv, the authors' list of what FVRID is made of, and lists in its form such as `fvrid pick` saves.

IMG        the image's name in FVRID, 00012_c003_000123_0.jpg      not read: our ids are the source's
NAME                                                               not read
SOURCE     Veriwild, else Vehicle1M; or the name of any --src
SAVE       FVRID_syn/train_clear, FVRID_real/query_foggy, ...; FVRID_real alone where it says no split: the source's own
           lists decide
ORI_NAME   the image in its source: folder/image.jpg, or the bare image.jpg
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .records import Domain, FvridError, ImageRecord, Listing, Reject, Row
from .sources import SOURCES

_COLUMNS = ("SOURCE", "SAVE", "ORI_NAME")
_SAVE = re.compile(r"FVRID_(?P<set>syn|real|clear)(/(?P<split>train|query|gallery)_(clear|foggy))?", re.IGNORECASE)
_UNIQUE_NAMES = ("veri-wild", "veri", "vehicleid")  # sources where no two images have one name
_DOMAINS: dict[str, Domain | None] = {"syn": "synthetic", "real": "real", "clear": None}  # RVSL's clear: of neither


class Label(NamedTuple):
    """A row of the list."""

    source: str
    domain: Domain | None
    split: str | None
    original: str  # ORI_NAME, with forward slashes


class Matching(NamedTuple):
    """Which images the labels name: labels by image_id, and those that name none, several, or one named before."""

    found: dict[str, Label]
    paths: dict[str, str]  # of the same, by image_id, which files of two suffixes may share
    unmatched: list[Label]
    ambiguous: list[Label]
    repeated: list[Label]


def read_labels(path: Path, domain: Domain) -> list[Label]:
    """The labels of one domain. Raises FvridError where the file is not such a list, naming the line, or has none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise FvridError(f"{path}: the column {missing[0]} is missing; it needs SOURCE, SAVE and ORI_NAME.")
            labels = [_to_label(cells, f"{path}, line {reader.line_num}") for cells in reader]
    except OSError as error:
        raise FvridError(f"{path}: cannot be read ({error.strerror}); name another file.") from None
    except (ValueError, csv.Error) as error:
        raise FvridError(f"{path}: not a list of labels ({error}); save it as CSV in UTF-8.") from None
    wanted = [label for label in labels if label.domain == domain]
    if not wanted:
        raise FvridError(f"{path}: none of its {len(labels)} rows is of the {domain} domain (see its column SAVE).")
    return wanted


def _to_label(cells: dict[str, str], where: str) -> Label:
    saved = _SAVE.fullmatch(cells["SAVE"].strip().replace("\\", "/").strip("/"))
    original = cells["ORI_NAME"].strip().replace("\\", "/")
    if saved is None:
        raise FvridError(
            f"{where}: SAVE is {cells['SAVE'][:40]!r}, not a folder such as FVRID_syn/train_clear; mend it."
        )
    if not original.strip("/"):
        raise FvridError(f"{where}: ORI_NAME is empty; mend it.")
    split = saved["split"]
    return Label(_source(cells["SOURCE"]), _DOMAINS[saved["set"].lower()], split and split.lower(), original)


def _source(cell: str) -> str:
    plain = {re.sub("[^a-z0-9]", "", name): name for name in SOURCES}
    return plain.get(re.sub("[^a-z0-9]", "", cell.lower()), "vehicle-1m")


def match(labels: Iterable[Label], images: Iterable[ImageRecord | Row]) -> Matching:
    """Find the image that each label names: by its path, of any depth, the very same one before others; else, where no
    folder is named that the source has, by its file name alone, if names of that source are unique or no label of it
    names such a folder. Suffixes may differ."""
    labels = list(labels)
    wanted = {(label.source, _parts(label.original)[-1]) for label in labels}
    named: dict[tuple[str, str], list[_Candidate]] = defaultdict(list)
    folders = set()
    for image in images:
        *above, name = _parts(image.source_path)
        folders.add((image.source, above[-1] if above else ""))
        if (image.source, name) in wanted:
            named[image.source, name].append(_Candidate(image.image_id, above, image.source_path))
    by_folder = {
        label.source
        for label in labels
        if (label.source, (_parts(label.original)[:-1] or [""])[-1]) in folders and label.source not in _UNIQUE_NAMES
    }
    matching = Matching({}, {}, [], [], [])
    for label in labels:
        *above, name = _parts(label.original)
        candidates = named[label.source, name]
        if here := [candidate for candidate in candidates if candidate.above == above]:
            candidates = [candidate for candidate in here if candidate.path == label.original] or here
        elif above and (label.source in by_folder or (label.source, above[-1]) in folders):
            candidates = _nearest(candidates, above)
        if not candidates:
            matching.unmatched.append(label)
        elif len(candidates) > 1:
            matching.ambiguous.append(label)
        elif candidates[0].image_id in matching.found:
            matching.repeated.append(label)
        else:
            matching.found[candidates[0].image_id] = label
            matching.paths[candidates[0].image_id] = candidates[0].path
    return matching


def _parts(path: str) -> list[str]:
    """Folders and name, without suffix."""
    *above, name = path.strip("/").split("/")
    return [*above, name.rpartition(".")[0] or name]


class _Candidate(NamedTuple):
    """An image that a label may name."""

    image_id: str
    above: list[str]  # folders
    path: str


def _nearest(candidates: list[_Candidate], above: list[str]) -> list[_Candidate]:
    """Those that share most folders with the label's path, from the image upwards, and at least one."""

    def shared(folders: list[str]) -> int:
        pairs = list(zip(reversed(folders), reversed(above), strict=False))
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))

    most = max((shared(candidate.above) for candidate in candidates), default=0)
    return [candidate for candidate in candidates if most and shared(candidate.above) == most]


def take_labelled(listings: Sequence[Listing], path: Path, domain: Domain) -> tuple[list[Listing], str]:
    """Of the listings what a list names, and a table of what was matched. Each image has the split that the list says,
    or the source's own where it says none.

    What is not found, or not for certain, becomes a reject. Raises FvridError where nothing is found.
    """
    labels = read_labels(path, domain)
    asked = {listing.source for listing in listings}
    matching = match(
        [label for label in labels if label.source in asked], (r for listing in listings for r in listing.records)
    )
    text = to_text(matching, [label for label in labels if label.source not in asked])
    if not matching.found:
        raise FvridError(f"{path}: it names no image of {', '.join(sorted(asked))}.\n{text}")
    taken = []
    for listing in listings:
        records = [
            replace(record, source_split=label.split or record.source_split)
            for record in listing.records
            if (label := matching.found.get(record.image_id)) and matching.paths[record.image_id] == record.source_path
        ]
        rejects = [
            Reject(label.source, label.original, f"named in {path.name}, but {why}")
            for why, several in (("not found", matching.unmatched), ("several images fit", matching.ambiguous))
            for label in several
            if label.source == listing.source
        ]
        taken.append(replace(listing, records=records, rejects=rejects))
    return taken, text


def split_as_labelled(rows: Sequence[Row], path: Path, domain: Domain) -> tuple[dict[str, str], str]:
    """{image_id: split} of the images that a list names, and a table of what was matched.

    Raises FvridError where the list names no split, or no image of the rows.
    """
    matching = match(labels := read_labels(path, domain), rows)
    if not any(label.split for label in labels):
        raise FvridError(f"{path}: its column SAVE tells no split (FVRID_real/query_foggy, ...); leave --labels out.")
    if not matching.found:
        raise FvridError(f"{path}: it names no image of this dataset.\n{to_text(matching)}")
    return {image_id: label.split for image_id, label in matching.found.items() if label.split}, to_text(matching)


def to_text(matching: Matching, elsewhere: Iterable[Label] = ()) -> str:
    """Rows matched, unmatched, ambiguous and repeated, a line a source.  elsewhere: labels of sources not looked at."""
    columns = (matching.found.values(), matching.unmatched, matching.ambiguous, matching.repeated)
    counts = [Counter(label.source for label in labels) for labels in columns]
    lines: list[tuple[str, ...]] = [("Labels", "Rows", "Matched", "Unmatched", "Ambiguous", "Repeated")]
    for source in sorted(set().union(*counts)):
        cells = [count[source] for count in counts]
        lines.append((source, *map(str, (sum(cells), *cells))))
    for source, rows in sorted(Counter(label.source for label in elsewhere).items()):
        lines.append((source, str(rows), "no --src", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows_ = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(row.rstrip() for row in rows_)
