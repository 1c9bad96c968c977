"""Images of one's own: any tree of folders; a pattern reads vehicle and camera from the path."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..files import paths_below
from ..images import SUFFIXES
from ..records import ImageRecord, Listing, OptionError, Reject

SOURCE = "folder"
DEFAULT_PATTERN = r"(?P<vehicle_id>[^/]+)/[^/]+$"


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(f"--pattern '{pattern}' is not a regular expression: {error}.") from None
    if "vehicle_id" not in compiled.groupindex:
        raise OptionError(f"--pattern '{pattern}' has no group vehicle_id; it needs one, as in (?P<vehicle_id>[^/]+).")
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
            own = "lies in no vehicle's folder" if pattern == DEFAULT_PATTERN else "does not match the pattern"
            rejects.append(Reject(SOURCE, path, f"the path {own}"))
            continue
        image_id = f"{SOURCE}/{path.rpartition('.')[0]}"
        camera_id = match.groupdict().get("camera_id") or None
        records.append(ImageRecord(image_id, SOURCE, path, match["vehicle_id"], camera_id, None, root))
    summary = f"folder: {count(records)}, {len(rejects)} images whose path tells no vehicle"
    return Listing(sorted(records), rejects, summary)


def count(records: Iterable[ImageRecord]) -> str:
    """How many images, vehicles and known cameras: a part of every summary."""
    records = list(records)
    vehicles = len({record.vehicle_id for record in records})
    cameras = len({record.camera_id for record in records if record.camera_id is not None})
    return f"{len(records)} images of {vehicles} vehicles, {cameras or 'no'} cameras known"


def image_paths(root: Path, below: str = "") -> list[str]:
    """The image files in the folder `below` of `root`, by suffix: `files.paths_below`."""
    return paths_below(root, SUFFIXES, below)
