"""The vocabulary that every stage shares; imports nothing of ours."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple


class FvridError(Exception):
    """One sentence for the user: which file or option is wrong, and how to mend it."""


class OptionError(FvridError):
    """The same, where an option's value itself is wrong, whatever the files hold."""


class ImageRefused(Exception):
    """Why one image cannot be used; it ends up as a line of rejects.csv, not as an error."""


FARTHEST_M = 81.0  # metres, where depth is 1; Make3D's laser range, on which the original depth model was trained
Domain = Literal["synthetic", "real"]
SPLITS = ("train", "query", "gallery")

Part = Literal["clear", "real", "pairs"]  # of a source: clear views, real fog, real fog with clear counterparts


class InShard(NamedTuple):
    """Where a picture lies that is no file of its own: a shard's file, column ("clear", ...) and row."""

    path: Path
    column: str
    row: int


Place = Path | InShard  # of a picture; pictures.py reads either


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
    source_split: str | None  # "train", "test", or of the test "query", "gallery", where the source's own lists say so
    root: Path
    image: InShard | None = field(default=None, compare=False)  # None where it is the file `path`
    depth: Place | None = field(default=None, compare=False)  # exact depth, where the source carries it
    clear: Place | None = field(default=None, compare=False)  # counterpart of a foggy image, where there is one
    foggy: Place | None = field(default=None, compare=False)  # of a clear image: the source's own, where it has one

    @property
    def path(self) -> Path:
        return self.root / self.source_path

    @property
    def place(self) -> Place:
        """Where the image itself lies."""
        return self.image or self.path


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
    source: str = ""  # that --src names
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
    depth: str  # the estimator; "" in the real domain, but for pairs
    beta: float
    airlight: float

    @classmethod
    def of(
        cls,
        record: ImageRecord,
        *,
        domain: str,
        sha256: str,
        place: tuple[str, int],
        size: tuple[int, int],
        depth: str = "",
        beta: float = math.nan,
        airlight: float = math.nan,
    ) -> "Row":
        """The row of a record, not split yet.  place: shard and row.  size: height and width."""
        return cls(
            image_id=record.image_id,
            domain=domain,
            source=record.source,
            source_path=record.source_path,
            sha256=sha256,
            vehicle_id=record.vehicle_id,
            camera_id=record.camera_id,
            split=None,
            source_split=record.source_split,
            shard=place[0],
            row=place[1],
            height=size[0],
            width=size[1],
            depth=depth,
            beta=beta,
            airlight=airlight,
        )

    @property
    def identity(self) -> tuple[str, str]:
        """What is the same for two images of one vehicle, and only for those."""
        return self.source, self.vehicle_id
