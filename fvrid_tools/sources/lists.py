"""The text lists that datasets come with, and what the disk has of what they name.

A list only ever names images: the files that are read are those that were found on disk, so no line leads out of
the folder.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from ..images import SUFFIXES
from ..records import FvridError, ImageRecord, Listing, Reject
from .folder import count, image_paths

FOLDERS = ("", "train_test_split", "train-test-split", "test_split", "test_split_V2")  # of a dataset, that hold lists
NAME = r"[^/\s.][^/\s]*?"  # of a folder, or of an image without its suffix
SUFFIX = rf"(?i:{'|'.join(map(re.escape, sorted(SUFFIXES)))})?"


class Entry(NamedTuple):
    """What is known of an image beside its path."""

    split: str | None
    vehicle_id: str
    camera_id: str | None = None


class Found(NamedTuple):
    """The images on disk."""

    paths: dict[str, str]  # by image_id, relative to the root
    passed: list[Reject]  # image files that are none of the dataset's


def find_images(prefix: str, root: Path, folders: Iterable[str], image: re.Pattern[str], form: str) -> Found:
    """The images in these folders of `root`, "" for itself, with ids "<prefix>/<key>".

    `image` matches a path relative to `root`; its group "key" tells one image from another. `form` says the same in
    words.
    """
    source = prefix.partition("/")[0]
    found = Found({}, [])
    for path in (path for folder in folders for path in image_paths(root, folder)):
        match = image.fullmatch(path)
        if match is None:
            found.passed.append(Reject(source, path, f"the path is not {form}"))
            continue
        image_id = f"{prefix}/{match['key']}"
        if (first := found.paths.setdefault(image_id, path)) != path:
            found.passed.append(Reject(source, path, f"duplicate id {image_id}, taken from {first}"))
    return found


def folder_of(root: Path, names: tuple[str, ...]) -> str:
    """The first of the folders that `root` has, or "", the root itself."""
    return next((name for name in names if (root / name).is_dir()), "")


def join(source: str, root: Path, found: Found, entries: Mapping[str, Entry], *, note: str, below: str = "") -> Listing:
    """The images that are both on disk and among `entries`, by image_id; those that are not on disk become rejects.

    `note` says in a few words which lists there are, `below` in which folder listed images should lie.
    """
    records = [
        ImageRecord(image_id, source, path, entry.vehicle_id, entry.camera_id, entry.split, root)
        for image_id, path in found.paths.items()
        if (entry := entries.get(image_id)) is not None
    ]
    records.sort(key=attrgetter("image_id"))
    missing = [
        Reject(source, image_id.replace(source, below, 1).lstrip("/"), "listed, but not on disk")
        for image_id in sorted(entries.keys() - found.paths.keys())
    ]
    summary = (
        f"{source}: {note}, {count(records)}, {len(missing)} listed but not on disk,"
        f" {len(found.paths) - len(records)} on disk but not listed, {len(found.passed)} other files"
    )
    if not entries or len(found.passed) > len(records):
        summary += "; images of one's own are read by --src folder"
    return Listing(records, [*missing, *found.passed], summary)


def read_vehicles(
    source: str, root: Path, names: re.Pattern[str], image: re.Pattern[str], form: str
) -> tuple[dict[str, Entry], str]:
    """Lists of lines "image vehicle ...", as entries by image_id; and the names of the lists that were read.

    Further columns are never used. These datasets have no vehicle in both training and test: a number that is in
    both stands for two vehicles, and then all get their split's name, as in "train-17".
    Raises FvridError naming a line that is of another form, or says other than an earlier one of the same image.
    """
    entries: dict[str, Entry] = {}
    shared: dict[Entry, Entry] = {}  # an object for each vehicle, not for each image
    read = []
    for path in texts(root, names):
        read.append(path.stem)
        split = "train" if path.name.startswith("train") else "test"
        for number, line in lines(path):
            image_id, cells = f"{source}/{key_of(path, number, line, image, form)}", line.split()
            if len(cells) < 2:
                raise bad_line(path, number, line, form)
            entry = Entry(split, cells[1])
            entry = shared.setdefault(entry, entry)
            if (earlier := entries.setdefault(image_id, entry)) != entry:
                raise FvridError(
                    f"{path}, line {number}: {cells[0]} is of vehicle {entry.vehicle_id} in {split} here, but of"
                    f" {earlier.vehicle_id} in {earlier.split} in another line; keep only one of the two lists."
                )
    return _tell_apart(entries, set(shared)), ", ".join(sorted(set(read))) or "no lists"


def _tell_apart(entries: dict[str, Entry], vehicles: set[Entry]) -> dict[str, Entry]:
    if len({entry.vehicle_id for entry in vehicles}) == len(vehicles):
        return entries
    named = {entry: entry._replace(vehicle_id=f"{entry.split}-{entry.vehicle_id}") for entry in vehicles}
    return {image_id: named[entry] for image_id, entry in entries.items()}


def texts(root: Path, names: re.Pattern[str]) -> list[Path]:
    """The lists of these names in a dataset, sorted."""
    folders = (root / name for name in FOLDERS if (root / name).is_dir())
    return sorted(path for folder in folders for path in folder.glob("*.txt") if names.fullmatch(path.name))


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1: UTF-8, or UTF-16 as Windows tools write it; any line ends.

    Raises FvridError where the list cannot be read.
    """
    try:
        with path.open("rb") as file:
            wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace") as text:
            for number, line in enumerate(text, start=1):
                if stripped := line.strip():
                    yield number, stripped
    except OSError as error:
        raise FvridError(f"{path}: cannot be read ({error.strerror}); restore the list.") from None


def key_of(path: Path, number: int, line: str, image: re.Pattern[str], form: str) -> str:
    """The key of the image that a line begins with. Raises FvridError where it begins with none."""
    match = image.fullmatch(line.split(maxsplit=1)[0])
    if match is None or not match[0].isprintable():
        raise bad_line(path, number, line, form)
    return match["key"]


def bad_line(path: Path, number: int, line: str, form: str) -> FvridError:
    return FvridError(f"{path}, line {number}: {line[:60]!r} is not {form}; restore the list.")
