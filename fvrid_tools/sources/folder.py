"""Images of one's own: any tree of folders; a pattern reads vehicle and camera from the path."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..files import is_text
from ..images import SUFFIXES
from ..records import FvridError, ImageRecord, Listing, OptionError, Reject

SOURCE = "folder"
DEFAULT_PATTERN = r"(?P<vehicle_id>[^/]+)/[^/]+$"


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"--pattern {pattern!r} is not a regular expression: {error}.") from None
    if "vehicle_id" not in compiled.groupindex:
        raise OptionError(f"--pattern {pattern!r} needs a named group, such as (?P<vehicle_id>[^/]+).")
    return compiled


def read(root: Path, pattern: str = DEFAULT_PATTERN) -> Listing:
    """Every image file below `root` whose relative path (with forward slashes) `pattern` is found in.

    The groups vehicle_id and, if it is there, camera_id become the record's. Raises OptionError for a bad pattern.
    """
    compiled = _compile(pattern)
    records, rejects = [], []
    for path in image_paths(root):
        match = compiled.search(path)
        if match is None or not match["vehicle_id"]:
            rejects.append(Reject(SOURCE, path, "the path does not match the pattern"))
            continue
        image_id = f"{SOURCE}/{path.rpartition('.')[0]}"
        camera_id = match.groupdict().get("camera_id") or None
        records.append(ImageRecord(image_id, SOURCE, path, match["vehicle_id"], camera_id, None, root))
    summary = f"folder: {count(records)}, {len(rejects)} files whose path does not match the pattern"
    return Listing(sorted(records), rejects, summary)


def count(records: Iterable[ImageRecord]) -> str:
    """How many images, vehicles and known cameras: a part of every summary."""
    records = list(records)
    vehicles = len({record.vehicle_id for record in records})
    cameras = len({record.camera_id for record in records if record.camera_id is not None})
    return f"{len(records)} images of {vehicles} vehicles, {cameras or 'no'} cameras known"


def _raise(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        return  # a folder that is not there has no images
    raise FvridError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); mend or remove it, and run again."
    )


def image_paths(root: Path, below: str = "") -> list[str]:
    """The image files in the folder `below` of `root`, by suffix, relative to `root`, with forward slashes, sorted.

    Hidden files and folders are left out. Links to folders are followed, each folder once. No file is opened.
    None where `below` is not there. Raises FvridError where a folder cannot be read, or a name has control characters
    or is not UTF-8, as no manifest could hold it.
    """
    found, seen = [], set()
    suffixes, top = tuple(SUFFIXES), str(root / below)
    for folder, subfolders, names in os.walk(top, onerror=_raise, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        prefix = f"{below}{folder[len(top) :]}/".replace(os.sep, "/").lstrip("/")
        found += [prefix + name for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
    for path in found:
        if not is_text(path):
            raise FvridError(f"{root}: the file name {path!a} has control characters or is not UTF-8; rename it.")
    return sorted(found)
