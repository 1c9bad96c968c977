"""The order of work: records -> depth -> fog -> shards -> manifest -> dataset.json. The only module that knows it.

A shard is the unit of work: which records it holds follows from their sorted ids alone, each image depends on
nothing but itself and the plan, and a shard's file appears when it is whole. So the bytes do not depend on the
number of workers, and a build that was stopped goes on where it was.
"""

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from . import cluster, files, images, manifest, pictures, pool
from .density import fog_density
from .depth import DepthEstimator, part_of
from .fog import FogDraw, FogRange, FogSynthesizer, GivenFog
from .images import Codec, Uint8Image
from .progress import Progress, silent
from .records import FvridError, ImageRecord, ImageRefused, Listing, Place, Reject, Row
from .shards import IMAGES_PER_SHARD, SHARD_FORMAT, Shard, ShardWriter, shard_name

PLAN = "build.json"  # lies in the folder while a build is unfinished
SHARDS = "shard-*.h5"
_ADVICE = "name another --out, or delete the folder."
_NOT_KNOWN = FogDraw(math.nan, math.nan)  # of real images, and of fog that the source brings
_VERSIONED = ("fvrid", "h5py", "numpy", "opencv-python-headless", "pillow", "simplejpeg", "zstandard")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the bytes of a dataset, beside its images.

    With depth and fog the images are clear, and get fog, or are stored with the foggy images that the source has of
    them. Without either they are foggy, and stored as they are. With depth alone they are pairs: foggy images, stored
    with the clear counterpart and the depth of each.
    """

    seed: int = 0
    codec: Codec = "jpeg"  # of the foggy images that are made
    depth: DepthEstimator | None = None
    fog: FogRange | GivenFog | None = None
    max_density: float | None = None  # of fog that a clear image may show already, see density.py
    min_density: float | None = None  # of fog that a real image shows

    @property
    def domain(self) -> str:
        return "real" if self.fog is None else "synthetic"

    @property
    def pairs(self) -> bool:
        return self.fog is None and self.depth is not None

    @property
    def copied(self) -> dict[str, str]:
        """The columns of a shard that are the source's files as they are, and what of a record says where these lie."""
        if self.fog is None:
            return {"foggy": "place", **({"clear": "clear"} if self.pairs else {})}
        return {"clear": "place", **({"foggy": "foggy"} if isinstance(self.fog, GivenFog) else {})}

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {"domain": self.domain, "seed": self.seed}
        if self.min_density is not None:
            described["min_density"] = self.min_density
        if self.pairs:
            return described | {"pairs": True}
        if self.fog is None or self.depth is None:
            return described
        described["depth"] = self.depth.name
        if self.depth.versions:
            described["depth_versions"] = self.depth.versions
        if isinstance(self.fog, GivenFog):
            return described | {"fog": "source"}
        described |= {"codec": self.codec, "fog": self.fog.describe()}
        if self.codec == "jpeg":
            busy = {"bits_a_pixel_above": images.BUSY_BITS, "quality": images.BUSY_QUALITY}
            described |= {"quality": images.JPEG_QUALITY, "busy": busy}
        return described if self.max_density is None else described | {"max_density": self.max_density}


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a build did; `reused` counts images that an earlier, unfinished build had stored already."""

    images: int
    vehicles: int
    rejects: int
    reused: int
    seconds: float


def build(
    listings: Iterable[Listing],
    out: Path,
    recipe: Recipe,
    workers: int = 1,
    progress: Progress = silent,
    scheduler: str | None = None,
) -> BuildSummary:
    """Build a dataset in the folder `out`, with processes here, or on the cluster of a Dask `scheduler` (its address).

    The same build again in the same folder goes on where it stopped, or finds that nothing is left to do. Shards whose
    source files changed in size since are made again.
    Raises FvridError where `out` holds anything else, or a finished dataset of source files that changed so, another
    process is at work in it, it cannot be written, or no image can be used.
    """
    started = time.monotonic()
    listings = list(listings)
    records, rejects = _merge(listings)
    command = _command(recipe, [listing.options for listing in listings])
    files.make_folder(out)
    tasks = _tasks(records, out, recipe)
    with files.alone_in(out):
        if _is_finished(out, plan := _plan(recipe, records, rejects), command, tasks):
            progress(len(records))
            reused = len(records)
        else:
            _prepare(out, recipe, command)
            reused, refused, shards = _make_shards(tasks, out, workers, progress, scheduler)
            _publish(out, plan, recipe, command, rejects + refused, shards)
        info = manifest.read_dataset(out)
    seconds = time.monotonic() - started
    return BuildSummary(info["images"], info["vehicles"], info["rejects"], reused, seconds)


def _tasks(records: list[ImageRecord], out: Path, recipe: Recipe) -> list["ShardTask"]:
    chunks = [records[i : i + IMAGES_PER_SHARD] for i in range(0, len(records), IMAGES_PER_SHARD)]
    return [
        ShardTask(out / shard_name(i), _plan(recipe, part), _sent(recipe, part), part) for i, part in enumerate(chunks)
    ]


def _sent(recipe: Recipe, records: list[ImageRecord]) -> Recipe:
    return recipe if recipe.depth is None else replace(recipe, depth=part_of(recipe.depth, records))


def _make_shards(
    tasks: list["ShardTask"], out: Path, workers: int, progress: Progress, scheduler: str | None
) -> tuple[int, list[Reject], list["FinishedShard"]]:
    """Make the shards that are not there yet; how many images were, what was refused, and all shards in order."""
    found = {task.path: task.find() for task in tasks}
    reused = sum(len(task.records) for task in tasks if found[task.path])
    progress(reused)
    missing = [task for task in tasks if not found[task.path]]
    if scheduler is None:
        made = iter(pool.run(missing, workers, progress))
    else:
        made = iter(cluster.run(missing, scheduler, progress))
    shards = [found[task.path] or next(made) for task in tasks]
    refused = [reject for shard in shards for reject in shard.rejects]
    if not any(shard.images for shard in shards):
        reasons = "; ".join(sorted({reject.reason for reject in refused})[:3])
        _clear(out, tasks)
        raise FvridError(f"none of the {len(refused)} images can be used ({reasons}).")
    return reused, refused, shards


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


def _plan(recipe: Recipe, records: Iterable[ImageRecord] = (), rejects: Iterable[Reject] = ()) -> str:
    """A hash of everything that decides the bytes, but for the content of the source files."""
    whole = hashlib.sha256(repr((SHARD_FORMAT, recipe.describe(), versions())).encode())
    for r in records:
        whole.update(repr((r.image_id, r.source_path, r.vehicle_id, r.camera_id, r.source_split)).encode() + b"\n")
    for reject in sorted(rejects):
        whole.update(repr(reject).encode() + b"\n")
    return whole.hexdigest()


def _is_finished(out: Path, plan: str, command: str, tasks: Iterable["ShardTask"]) -> bool:
    """Whether `out` holds this very dataset, whole."""
    if not (out / manifest.DATASET).exists():
        return False
    info = manifest.read_dataset(out)
    if info["plan"] != plan:
        raise FvridError(f"{out} already holds a dataset that was built otherwise{_how(info, command)}; {_ADVICE}")
    for shard in info["shards"]:
        path = files.inside(out, shard["name"])
        if not path.exists() or path.stat().st_size != shard["bytes"]:
            raise FvridError(f"{path}: not what was built (see fvrid verify); delete {out} and build again.")
    for task in tasks:
        shard = Shard(task.path)
        if changed := task.find_changed(shard, shard.read_rows()[0]):
            raise FvridError(f"{changed}: not the file that {out} was built from; {_ADVICE}")
    (out / PLAN).unlink(missing_ok=True)  # where a kill came just before its end
    return True


def _prepare(out: Path, recipe: Recipe, command: str) -> None:
    """Make a new folder ready, or an unfinished one, whose images may have changed since, but not sources, options and
    versions."""
    plan = _begun(recipe, command)
    if (out / PLAN).exists():
        if (before := (out / PLAN).read_text(encoding="utf-8")) != plan:
            how = _how(json.loads(before), command) if before.startswith("{") else ""
            raise FvridError(f"{out} holds an unfinished build of another kind{how}; {_ADVICE}")
    elif not files.is_empty(out):
        raise FvridError(f"{out} is not empty and holds no dataset; {_ADVICE}")
    else:
        files.write_atomic(out / PLAN, plan)
    files.remove_unfinished(out)


def _begun(recipe: Recipe, command: str) -> str:
    """What PLAN holds."""
    return json.dumps({"plan": _plan(recipe), "command": command, "versions": versions()})


def _how(before: dict[str, Any], command: str) -> str:
    """In what an earlier build differs, in brackets, as far as its command and versions tell."""
    now = versions()
    others = [f"{name} {old}, not {now.get(name)}" for name, old in before["versions"].items() if old != now.get(name)]
    if before["command"] != command:
        return f" ({before['command']})"
    return f" (with {', '.join(others)})" if others else ""


def _clear(out: Path, tasks: Iterable["ShardTask"]) -> None:
    for path in (*(task.path for task in tasks), out / PLAN):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # of a link, or a disk that is mounted there
        out.rmdir()


def _publish(
    out: Path, plan: str, recipe: Recipe, command: str, rejects: list[Reject], shards: list["FinishedShard"]
) -> None:
    kept = {shard.path for shard in shards}
    for path in out.glob(SHARDS):  # of an unfinished build whose source has lost images since
        if path not in kept:
            path.unlink()
    vehicles = set()

    def rows() -> Iterator[Row]:
        for shard in shards:
            for row in Shard(shard.path).read_rows()[0]:
                vehicles.add(row.identity)
                yield row

    content = {
        "format": manifest.DATASET_FORMAT,
        "plan": plan,
        **recipe.describe(),
        "command": command,
        "versions": versions(),
        "manifest_sha256": manifest.write_manifest(out, rows()),
        "rejects_sha256": manifest.write_rejects(out, rejects),
        "images": sum(shard.images for shard in shards),
        "vehicles": len(vehicles),
        "rejects": len(rejects),
        "shards": [{"name": s.path.name, "sha256": s.sha256, "bytes": s.bytes, "images": s.images} for s in shards],
        "split": None,
    }
    files.remove_unfinished(out)
    manifest.write_dataset(out, content)
    (out / PLAN).unlink()


def _command(recipe: Recipe, sources: list[str]) -> str:
    """The command that builds the same again; folders and the number of workers, which change nothing, left out."""
    options = " ".join(sources)
    if recipe.fog is None or recipe.depth is None:
        options += " --pairs" if recipe.pairs else ""
        options += "" if recipe.min_density is None else f" --min-density {recipe.min_density}"
        return f"fvrid build-real {options} --seed {recipe.seed}"
    depth = f"fvrid build-syn {options} --depth {recipe.depth.name}"
    if isinstance(recipe.fog, GivenFog):
        return f"{depth} --fog source --seed {recipe.seed}"
    beta, airlight = ("{} {}".format(*r) for r in (recipe.fog.beta, recipe.fog.airlight))
    depth += " --fog physical" if recipe.fog.by_distance else ""
    density = "" if recipe.max_density is None else f" --max-density {recipe.max_density}"
    return f"{depth} --beta {beta} --airlight {airlight}{density} --codec {recipe.codec} --seed {recipe.seed}"


@lru_cache
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
    """What dataset.json needs to know of a shard that is on disk."""

    path: Path
    images: int
    rejects: list[Reject]
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, images: int, rejects: list[Reject]) -> "FinishedShard":
        return cls(path, images, rejects, path.stat().st_size, files.sha256_file(path))


@dataclass(frozen=True)
class ShardTask(pool.Task[ShardWriter, FinishedShard]):
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
            rows, rejects = shard.read_rows()
            if self.find_changed(shard, rows):
                return None
            return FinishedShard.of(self.path, len(rows), rejects)
        except FvridError:
            return None

    def find_changed(self, shard: Shard, rows: list[Row]) -> Path | None:
        """A source file of another size than the one that is stored, be it a counterpart; reading all to compare them
        would take too long.

        rows: the shard's.  Files that are not there any more, and pictures of shards, are not looked at.
        Raises FvridError where the shard is damaged.
        """
        for column, place_of in self.recipe.copied.items():
            found = shard.sizes(column)
            if len(found) != len(rows):
                raise FvridError(f"{self.path}: {len(found)} images for {len(rows)} rows; delete it, and run again.")
            sizes = {(row.source, row.source_path): size for row, size in zip(rows, found, strict=True)}
            for record in self.records:
                size = sizes.get((record.source, record.source_path))
                place: Place | None = getattr(record, place_of)
                if size is None or not isinstance(place, Path) or not place.exists():
                    continue
                if place.stat().st_size != size:
                    return place
        return None

    def make(self, progress: Progress) -> ShardWriter:
        """Read, fog and encode the images. Raises FvridError where this process, of another version, would differ."""
        if _plan(self.recipe, self.records) != self.plan:
            raise FvridError(
                "a worker of the cluster has other versions of the packages than this machine; align them."
            )
        with_depth = self.recipe.depth is not None
        writer = ShardWriter(self.path, ("clear", "foggy", "depth") if with_depth else ("foggy",))
        maker = _RowMaker(self.recipe, writer)
        for record in self.records:
            try:
                maker.add(record)
            except ImageRefused as error:
                writer.rejects.append(Reject(record.source, record.source_path, str(error)))
            progress(1)
        return writer

    def write(self, writer: ShardWriter) -> FinishedShard:
        """Write the file. Raises FvridError where the disk does not take it."""
        try:
            writer.write(self.plan)
        except OSError as error:
            raise files.not_written(self.path, error) from None
        return FinishedShard.of(self.path, len(writer.rows), writer.rejects)


class _Read(NamedTuple):
    """An image that was read: its record, its file's bytes, and (H, W, 3) uint8."""

    record: ImageRecord
    content: bytes
    image: Uint8Image
    clear: bytes  # the clear file: of a pair the counterpart's bytes, else `content`
    foggy: bytes | None  # the foggy file; None where it is to be made


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

    def add(self, record: ImageRecord) -> None:
        """Read an image and add it to the shard. Raises ImageRefused where it cannot be used."""
        read, estimator = self._read(record), self._recipe.depth
        if estimator is None:
            self._writer.add(self._row(read), foggy=read.content)
            return
        levels = _scratch.quantize(estimator.predict(read.image, record))
        foggy, draw = self._add_fog(read, levels)
        self._writer.add(self._row(read, estimator.name, draw), foggy, clear=read.clear, depth=levels)

    def _read(self, record: ImageRecord) -> _Read:
        content = pictures.read_image(record)
        image = images.decode(content, buffer=_scratch.pixels)
        images.check_size(image)
        if image.size > _scratch.pixels.size:
            _scratch.pixels = np.empty(2 * image.size, np.uint8)
        if self._recipe.fog is None:
            self._check_density(image)
            clear = pictures.read_clear(record, *image.shape[:2]) if self._recipe.pairs else content
            return _Read(record, content, image, clear, foggy=content)
        if isinstance(self._recipe.fog, GivenFog):
            return _Read(record, content, image, content, foggy=pictures.read_foggy(record, *image.shape[:2]))
        self._check_density(image)
        return _Read(record, content, image, content, foggy=None)

    def _check_density(self, image: Uint8Image) -> None:
        most, least = self._recipe.max_density, self._recipe.min_density
        if most is not None and (found := fog_density(image)) > most:
            raise ImageRefused(f"foggy already: its fog density is {found:.2f}, above {most:g}")
        if least is not None and (found := fog_density(image)) < least:
            raise ImageRefused(f"not foggy: its fog density is {found:.2f}, below {least:g}")

    def _add_fog(self, read: _Read, levels: NDArray[np.uint16]) -> tuple[bytes, FogDraw]:
        """The encoded foggy image and its fog."""
        recipe = self._recipe
        if read.foggy is not None:
            return read.foggy, _NOT_KNOWN
        assert isinstance(recipe.fog, FogRange)
        draw = recipe.fog.draw(recipe.seed, read.record.image_id)
        return images.encode(_scratch.fog(read.image, levels, draw), recipe.codec), draw

    def _row(self, read: _Read, depth: str = "", draw: FogDraw = _NOT_KNOWN) -> Row:
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
