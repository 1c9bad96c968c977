"""The order of work: records -> depth -> fog -> shards -> manifest -> dataset.json. The only module that knows it.

A shard is the unit of work: which records it holds follows from their sorted ids alone, each image depends on
nothing but itself and the plan, and a shard's file appears when it is whole. So the bytes do not depend on the
number of workers, and a build that was stopped goes on where it was.
"""

import math
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from . import files, images, manifest, pictures, pool
from .depth import DepthEstimator
from .fog import FogDraw, FogRange, FogSynthesizer
from .images import Codec, Uint8Image
from .pool import Progress
from .records import FvridError, ImageRecord, ImageRefused, Listing, Reject, Row
from .shards import IMAGES_PER_SHARD, SHARD_FORMAT, Shard, ShardWriter, shard_name

PLAN = "build.json"  # lies in the folder while a build is unfinished
_NO_FOG = FogDraw(math.nan, math.nan)  # of real images
_VERSIONED = ("fvrid", "h5py", "numpy", "opencv-python-headless", "pillow", "simplejpeg", "zstandard")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the bytes of a dataset, beside its images.

    With depth and fog the images are clear, and get fog. Without either they are foggy, and stored as they are.
    With depth alone they are pairs: foggy images, stored with the clear counterpart and the depth of each.
    """

    seed: int = 0
    codec: Codec = "jpeg"  # of the foggy images of the synthetic domain
    depth: DepthEstimator | None = None
    fog: FogRange | None = None

    @property
    def domain(self) -> str:
        return "real" if self.fog is None else "synthetic"

    @property
    def pairs(self) -> bool:
        return self.fog is None and self.depth is not None

    def describe(self) -> dict[str, Any]:
        if self.fog is None or self.depth is None:
            return {"domain": self.domain, "seed": self.seed} | ({"pairs": True} if self.pairs else {})
        return {
            "domain": self.domain,
            "seed": self.seed,
            "codec": self.codec,
            "depth": self.depth.name,
            **({"depth_versions": self.depth.versions} if self.depth.versions else {}),
            "fog": asdict(self.fog),
        }


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a build did; `reused` counts images that an earlier, unfinished build had stored already."""

    images: int
    vehicles: int
    rejects: int
    reused: int
    seconds: float


def build(
    listings: Iterable[Listing], out: Path, recipe: Recipe, workers: int = 1, progress: Progress | None = None
) -> BuildSummary:
    """Build a dataset in the folder `out`.

    The same build again in the same folder goes on where it stopped, or finds that nothing is left to do.
    Raises FvridError where `out` holds anything else, cannot be written, or no image can be used.
    """
    started = time.monotonic()
    progress = progress or (lambda count: None)
    listings = list(listings)
    records, rejects = _merge(listings)
    command = _command(recipe, [listing.options for listing in listings])
    chunks = [records[i : i + IMAGES_PER_SHARD] for i in range(0, len(records), IMAGES_PER_SHARD)]
    plan = _plan(recipe, records, rejects)
    if _is_finished(out, plan):
        rows = manifest.read_manifest(out)
        progress(len(records))
        return _summary(rows, manifest.read_dataset(out)["rejects"], len(rows), started)

    tasks = [ShardTask(out / shard_name(i), _plan(recipe, part), recipe, part) for i, part in enumerate(chunks)]
    found = {task.path: task.find() for task in tasks}
    reused = sum(len(task.records) for task in tasks if found[task.path])
    progress(reused)
    made = iter(pool.run([task for task in tasks if not found[task.path]], workers, progress))
    shards = [found[task.path] or next(made) for task in tasks]
    rows = [row for shard in shards for row in shard.rows]
    rejects += [reject for shard in shards for reject in shard.rejects]
    if not rows:
        reasons = "; ".join(sorted({reject.reason for reject in rejects})[:3])
        _clear(out, tasks)
        raise FvridError(f"none of the {len(rejects)} images can be used ({reasons}).")
    _publish(out, plan, recipe, command, rows, rejects, shards)
    return _summary(rows, len(rejects), reused, started)


def _summary(rows: list[Row], rejects: int, reused: int, started: float) -> BuildSummary:
    vehicles = len({row.identity for row in rows})
    return BuildSummary(len(rows), vehicles, rejects, reused, time.monotonic() - started)


def _merge(listings: Iterable[Listing]) -> tuple[list[ImageRecord], list[Reject]]:
    """All records sorted by id; of records with one id the first by path is kept."""
    records: list[ImageRecord] = []
    rejects: list[Reject] = []
    for listing in listings:
        records += listing.records
        rejects += listing.rejects
    unique = []
    for image_id, group in groupby(sorted(records), key=lambda record: record.image_id):
        first, *others = group
        unique.append(first)
        rejects += [
            Reject(r.source, r.source_path, f"duplicate id {image_id}, taken from {first.source_path}") for r in others
        ]
    return unique, rejects


def _plan(recipe: Recipe, records: list[ImageRecord], rejects: Iterable[Reject] = ()) -> str:
    """A hash of everything that decides the bytes, but for the content of the source files."""
    parts = [repr((SHARD_FORMAT, IMAGES_PER_SHARD, recipe.describe(), versions()))]
    parts += [repr((r.image_id, r.source_path, r.vehicle_id, r.camera_id, r.source_split)) for r in records]
    parts += [repr(reject) for reject in sorted(rejects)]
    return files.sha256_bytes("\n".join(parts).encode())


def _is_finished(out: Path, plan: str) -> bool:
    """Whether `out` holds this very dataset; prepares the folder where it is new or the build unfinished."""
    advice = "name another --out, or delete the folder."
    if (out / manifest.DATASET).exists():
        info = manifest.read_dataset(out)
        if info["plan"] == plan:
            for shard in info["shards"]:
                path = files.inside(out, shard["name"])
                if not path.exists() or path.stat().st_size != shard["bytes"]:
                    raise FvridError(f"{path}: not what was built (see fvrid verify); delete {out} and build again.")
            (out / PLAN).unlink(missing_ok=True)  # where a kill came just before its end
            return True
        raise FvridError(f"{out} already holds a dataset that was built otherwise; {advice}")
    files.make_folder(out)
    if (out / PLAN).exists():
        if (out / PLAN).read_text() != plan:
            raise FvridError(f"{out} holds an unfinished build of another kind; {advice}")
    elif any(path.suffix != files.UNFINISHED for path in out.iterdir()):
        raise FvridError(f"{out} is not empty and holds no dataset; {advice}")
    else:
        files.write_atomic(out / PLAN, plan)
    return False


def _clear(out: Path, tasks: Iterable["ShardTask"]) -> None:
    for path in (*(task.path for task in tasks), out / PLAN):
        path.unlink(missing_ok=True)
    out.rmdir()


def _publish(
    out: Path,
    plan: str,
    recipe: Recipe,
    command: str,
    rows: list[Row],
    rejects: list[Reject],
    shards: list["FinishedShard"],
) -> None:
    rejects_sha256 = manifest.write_rejects(out, rejects)
    manifest_sha256 = manifest.write_manifest(out, rows)
    content = {
        "format": manifest.DATASET_FORMAT,
        "plan": plan,
        **recipe.describe(),
        "command": command,
        "versions": versions(),
        "images": len(rows),
        "vehicles": len({row.identity for row in rows}),
        "rejects": len(rejects),
        "shards": [
            {"name": s.path.name, "sha256": s.sha256, "bytes": s.path.stat().st_size, "images": len(s.rows)}
            for s in shards
        ],
        "manifest_sha256": manifest_sha256,
        "rejects_sha256": rejects_sha256,
        "split": None,
    }
    manifest.write_dataset(out, content)
    (out / PLAN).unlink()


def _command(recipe: Recipe, sources: list[str]) -> str:
    """The command that builds the same again; folders and the number of workers, which change nothing, left out."""
    options = " ".join(sources)
    if recipe.fog is None or recipe.depth is None:
        return f"fvrid build-real {options}{' --pairs' if recipe.pairs else ''} --seed {recipe.seed}"
    beta, airlight = ("{} {}".format(*r) for r in (recipe.fog.beta, recipe.fog.airlight))
    return (
        f"fvrid build-syn {options} --depth {recipe.depth.name} --beta {beta} --airlight {airlight}"
        f" --codec {recipe.codec} --seed {recipe.seed}"
    )


def versions() -> dict[str, str]:
    """The versions of everything that could change a byte."""
    found = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


class FinishedShard(NamedTuple):
    """What the manifest and dataset.json need to know of a shard that is on disk."""

    path: Path
    rows: list[Row]
    rejects: list[Reject]
    sha256: str


@dataclass(frozen=True)
class ShardTask:
    """The records of one shard and how to turn them into its file."""

    path: Path
    plan: str
    recipe: Recipe
    records: list[ImageRecord]

    def find(self) -> FinishedShard | None:
        """This very shard, where an earlier run left it; None where it is missing, unreadable or another."""
        try:
            shard = Shard(self.path)
            if shard.plan != self.plan:
                return None
            return FinishedShard(self.path, *shard.read_rows(), files.sha256_file(self.path))
        except FvridError:
            return None

    def make(self, progress: Progress) -> ShardWriter:
        """Read, fog and encode the images."""
        with_depth = self.recipe.depth is not None
        writer = ShardWriter(self.path, ("clear", "foggy", "depth") if with_depth else ("foggy",))
        maker = _RowMaker(self.recipe, writer)
        size = self.recipe.depth.batch_size if self.recipe.depth else 1
        for start in range(0, len(self.records), size):
            batch = self.records[start : start + size]
            maker.add(batch)
            progress(len(batch))
        return writer

    def write(self, writer: ShardWriter) -> FinishedShard:
        """Write the file. Raises FvridError where the disk does not take it."""
        try:
            writer.write(self.plan)
        except OSError as error:
            raise FvridError(f"{self.path}: cannot be written ({error}); free some space and run again.") from None
        return FinishedShard(self.path, writer.rows, writer.rejects, files.sha256_file(self.path))


class _Read(NamedTuple):
    """An image that was read: its record, its file's bytes, and (H, W, 3) uint8."""

    record: ImageRecord
    content: bytes
    image: Uint8Image
    clear: bytes  # the clear file: of a pair the counterpart's bytes, else `content`


class _Scratch:
    """Buffers that are kept from image to image and from shard to shard; a process makes one shard at a time."""

    def __init__(self) -> None:
        self.fog = FogSynthesizer()
        self.pixels = np.empty(0, np.uint8)
        self._scaled = np.empty(0, np.float32)
        self._levels = np.empty(0, np.uint16)

    def quantize(self, depth: images.FloatArray) -> NDArray[np.uint16]:
        """[0, 1] -> 16 bits, rounded to nearest; valid until the next call."""
        if self._scaled.size < depth.size:
            self._scaled, self._levels = np.empty(depth.size, np.float32), np.empty(depth.size, np.uint16)
        scaled = self._scaled[: depth.size].reshape(depth.shape)
        levels = self._levels[: depth.size].reshape(depth.shape)
        np.multiply(depth, np.float32(65535), out=scaled)
        scaled += np.float32(0.5)
        np.copyto(levels, scaled, casting="unsafe")
        return levels


_scratch = _Scratch()


class _RowMaker:
    """Source picture -> decoded -> depth -> fog -> encoded -> row."""

    def __init__(self, recipe: Recipe, writer: ShardWriter) -> None:
        self._recipe = recipe
        self._writer = writer

    def add(self, records: list[ImageRecord]) -> None:
        """Read images and add them to the shard; those that cannot be used are listed as rejects."""
        read = []
        for record in records:
            try:
                read.append(self._read(record, keep=len(records) > 1))
            except ImageRefused as error:
                self._refuse(record, error)
        if self._recipe.depth is not None:
            self._add_with_depth(read, self._recipe.depth)
        else:
            for one in read:
                self._writer.add(self._row(one), foggy=one.content)

    def _refuse(self, record: ImageRecord, error: ImageRefused) -> None:
        self._writer.rejects.append(Reject(record.source, record.source_path, str(error)))

    def _read(self, record: ImageRecord, keep: bool) -> _Read:
        content = pictures.read_image(record)
        image = images.decode(content, buffer=None if keep else _scratch.pixels)
        images.check_size(image)
        if image.size > _scratch.pixels.size:
            _scratch.pixels = np.empty(2 * image.size, np.uint8)
        clear = pictures.read_clear(record, *image.shape[:2]) if self._recipe.pairs else content
        return _Read(record, content, image, clear)

    def _add_with_depth(self, read: list[_Read], estimator: DepthEstimator) -> None:
        try:
            depths = estimator.predict([one.image for one in read], [one.record for one in read])
        except ImageRefused as error:
            if len(read) == 1:
                self._refuse(read[0].record, error)
            else:  # find out which it was
                for one in read:
                    self._add_with_depth([one], estimator)
            return
        for one, depth in zip(read, depths, strict=True):
            levels = _scratch.quantize(depth)
            foggy, draw = self._add_fog(one, levels)
            row = self._row(one, estimator.name, draw)
            self._writer.add(row, foggy, clear=one.clear, depth=levels)

    def _add_fog(self, read: _Read, levels: NDArray[np.uint16]) -> tuple[bytes, FogDraw]:
        """The encoded foggy image and its fog; a pair's is foggy already."""
        recipe = self._recipe
        if recipe.fog is None:
            return read.content, _NO_FOG
        draw = recipe.fog.draw(recipe.seed, read.record.image_id)
        return images.encode(_scratch.fog(read.image, levels, draw), recipe.codec), draw

    def _row(self, read: _Read, depth: str = "", draw: FogDraw = _NO_FOG) -> Row:
        height, width = read.image.shape[:2]
        return Row.of(
            read.record,
            domain=self._recipe.domain,
            sha256=files.sha256_bytes(read.content),
            place=(self._writer.path.name, len(self._writer.rows)),
            size=(height, width),
            depth=depth,
            beta=draw.beta,
            airlight=draw.airlight,
        )
