"""Images of one's own: any tree of folders; a pattern reads vehicle and camera from the path."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..files import paths_below
from ..images import SUFFIXES
from ..records import FvridError, ImageRecord, Listing, OptionError, Reject

SOURCE = "folder"
LAST_FOLDER = r"(?P<vehicle_id>[^/]+)/[^/]+$"  # the pattern where none is given
_WHOLE_FOLDER = r"(?P<vehicle_id>.+)/[^/]+$"


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"--pattern '{pattern}' is not a regular expression: {error}.") from None
    if "vehicle_id" not in compiled.groupindex:
        raise OptionError(f"--pattern '{pattern}' has no group vehicle_id; it needs one, as in (?P<vehicle_id>[^/]+).")
    return compiled


def read(root: Path, pattern: str | None = None) -> Listing:
    """Every image file below `root` whose relative path (with forward slashes) `pattern` is found in.

    The groups vehicle_id and, if it is there, camera_id become the record's; without a pattern a folder is a vehicle.
    Raises OptionError for a bad pattern, FvridError where folders of one name could be one vehicle or several.
    """
    compiled = _compile(pattern or LAST_FOLDER)
    records, rejects = [], []
    for path in image_paths(root):
        match = compiled.search(path)
        if match is None or not match["vehicle_id"]:
            own = "does not match the pattern" if pattern else "lies in no vehicle's folder"
            rejects.append(Reject(SOURCE, path, f"the path {own}"))
            continue
        image_id = f"{SOURCE}/{path.rpartition('.')[0]}"
        camera_id = match.groupdict().get("camera_id") or None
        records.append(ImageRecord(image_id, SOURCE, path, match["vehicle_id"], camera_id, None, root))
    if pattern is None:
        _check_folders(root, records)
    summary = f"folder: {count(records)}, {len(rejects)} images whose path tells no vehicle"
    return Listing(sorted(records), rejects, summary)


def _check_folders(root: Path, records: Iterable[ImageRecord]) -> None:
    folders: dict[str, str] = {}
    for record in records:
        folder = record.source_path.rpartition("/")[0]
        if (other := folders.setdefault(record.vehicle_id, folder)) != folder:
            raise FvridError(
                f"{root}: {other} and {folder} could be one vehicle or two; say --pattern '{LAST_FOLDER}' if they are"
                f" one, '{_WHOLE_FOLDER}' if two, or what else in a path names the vehicle."
            )


def count(records: Iterable[ImageRecord]) -> str:
    """How many images, vehicles and known cameras: a part of every summary."""
    records = list(records)
    vehicles = len({record.vehicle_id for record in records})
    cameras = len({record.camera_id for record in records if record.camera_id is not None})
    return f"{len(records)} images of {vehicles} vehicles, {cameras or 'no'} cameras known"


def image_paths(root: Path, below: str = "", without: Path | None = None) -> list[str]:
    """The image files in the folder `below` of `root`, by suffix: `files.paths_below`."""
    return paths_below(root, SUFFIXES, below, without)
