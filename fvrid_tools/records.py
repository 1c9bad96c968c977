"""The vocabulary that every stage shares; imports nothing of ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class FvridError(Exception):
    """One sentence for the user: which file or option is wrong, and how to mend it."""


class OptionError(FvridError):
    """The same, where an option's value itself is wrong, whatever the files hold."""


class ImageRefused(Exception):
    """Why one image cannot be used; it ends up as a line of rejects.csv, not as an error."""


@dataclass(frozen=True, slots=True, order=True)
class ImageRecord:
    """One image of a source, before anything was done to it.

    `vehicle_id` is the source's own name of the identity: two sources may use the same one for
    different vehicles, so an identity is the pair (source, vehicle_id).
    """

    image_id: str  # "<source>/<path below the image folder, without suffix>", unique in a dataset
    source: str
    source_path: str  # below `root`, with forward slashes
    vehicle_id: str
    camera_id: str | None  # None where the source does not tell
    source_split: str | None  # "train" or "test" where the source's own lists say so
    root: Path

    @property
    def path(self) -> Path:
        return self.root / self.source_path


@dataclass(frozen=True, slots=True, order=True)
class Reject:
    """An image that was listed or found but not taken, and why."""

    source: str
    source_path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds: records sorted by image_id, what was refused, and a line that says so."""

    records: list[ImageRecord]
    rejects: list[Reject]
    summary: str
    options: str = ""  # of the command that reads it again, but for the folder: "--src folder --pattern ..."


class Row(NamedTuple):
    """One image of a finished dataset: a line of manifest.csv. beta and airlight are nan in the real domain."""

    image_id: str
    domain: str  # "synthetic" or "real"
    source: str
    source_path: str
    sha256: str  # of the source file
    vehicle_id: str
    camera_id: str | None
    split: str | None  # "train", "query", "gallery"; None before `fvrid split`, and for images that it left out
    source_split: str | None
    shard: str
    row: int  # within the shard
    height: int
    width: int
    depth: str  # the estimator; "" in the real domain
    beta: float
    airlight: float

    @property
    def identity(self) -> tuple[str, str]:
        """What is the same for two images of one vehicle, and only for those."""
        return self.source, self.vehicle_id
