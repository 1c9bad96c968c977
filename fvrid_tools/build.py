"""The order of work: records -> depth -> fog -> shards -> manifest -> dataset.json. The only module that knows it.

A shard is the unit of work: which records it holds follows from their sorted ids alone, each image depends on
nothing but itself and the plan, and a shard's file appears when it is whole. So the bytes do not depend on the
number of workers, and a build that was stopped goes on where it was.
"""

import math
import multiprocessing
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from . import files, images, manifest
from .depth import DepthEstimator
from .fog import FogRange, FogSynthesizer
from .images import Codec, Uint8Image
from .records import FvridError, ImageRecord, ImageRefused, Listing, Reject, Row
from .shards import IMAGES_PER_SHARD, SHARD_FORMAT, Shard, ShardWriter, shard_name

PLAN = "build.json"  # lies in the folder while a build is unfinished
_VERSIONED = ("fvrid", "h5py", "numpy", "opencv-python-headless", "pillow", "simplejpeg", "zstandard")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the bytes of a dataset, beside its images."""

    seed: int = 0
    codec: Codec = "jpeg"  # of the foggy images of the synthetic domain
    depth: DepthEstimator | None = None  # None, as is fog, in the real domain: foggy images are stored as they are
    fog: FogRange | None = None

    @property
    def domain(self) -> str:
        return "real" if self.fog is None else "synthetic"

    def describe(self) -> dict[str, Any]:
        if self.fog is None or self.depth is None:
            return {"domain": self.domain, "seed": self.seed}
        return {
            "domain": self.domain,
            "seed": self.seed,
            "codec": self.codec,
            "depth": self.depth.name,
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


Progress = Callable[[int], None]  # called with the number of images just finished


def build(
    listings: Iterable[Listing], out: Path, recipe: Recipe, workers: int = 1, progress: Progress | None = None
) -> BuildSummary:
    """Build a dataset in the folder `out`.

    The same build again in the same folder goes on where it stopped, or finds that nothing is left to do.
    Raises FvridError where `out` holds anything else, cannot be written, or no image can be used.
    """
    started = time.monotonic()
    progress = progress or (lambda count: None)
    records, rejects = _merge(listings)
    chunks = [records[i : i + IMAGES_PER_SHARD] for i in range(0, len(records), IMAGES_PER_SHARD)]
    plan = _plan(recipe, records, rejects)
    if _is_finished(out, plan):
        rows = manifest.read_manifest(out)
        progress(len(records))
        return _summary(rows, _count_rejects(out), len(rows), started)

    tasks = [ShardTask(out / shard_name(i), _plan(recipe, part), recipe, part) for i, part in enumerate(chunks)]
    found = {task.path: task.find() for task in tasks}
    reused = sum(len(task.records) for task in tasks if found[task.path])
    progress(reused)
    made = _run([task for task in tasks if not found[task.path]], workers, progress)

    shards = [found[task.path] or made[task.path] for task in tasks]
    rows = [row for shard in shards for row in shard.rows]
    rejects += [reject for shard in shards for reject in shard.rejects]
    if not rows:
        reasons = "; ".join(sorted({reject.reason for reject in rejects})[:3])
        _clear(out, tasks)
        raise FvridError(f"none of the {len(rejects)} images can be used ({reasons}).")
    _publish(out, plan, recipe, rows, rejects, shards)
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
        if manifest.read_dataset(out)["plan"] == plan:
            return True
        raise FvridError(f"{out} already holds a dataset that was built otherwise; {advice}")
    files.make_folder(out)
    if (out / PLAN).exists():
        if (out / PLAN).read_text() != plan:
            raise FvridError(f"{out} holds an unfinished build of another kind; {advice}")
    elif any(out.iterdir()):
        raise FvridError(f"{out} is not empty and holds no dataset; {advice}")
    else:
        files.write_atomic(out / PLAN, plan)
    return False


def _count_rejects(out: Path) -> int:
    return len((out / manifest.REJECTS).read_text(encoding="utf-8").splitlines()) - 1


def _clear(out: Path, tasks: Iterable["ShardTask"]) -> None:
    for path in (*(task.path for task in tasks), out / PLAN):
        path.unlink(missing_ok=True)
    out.rmdir()


def _publish(
    out: Path,
    plan: str,
    recipe: Recipe,
    rows: list[Row],
    rejects: list[Reject],
    shards: list["FinishedShard"],
) -> None:
    manifest.write_rejects(out, rejects)
    manifest_sha256 = manifest.write_manifest(out, rows)
    content = {
        "format": manifest.DATASET_FORMAT,
        "plan": plan,
        **recipe.describe(),
        "command": _command(recipe, rows),
        "versions": versions(),
        "images": len(rows),
        "vehicles": len({row.identity for row in rows}),
        "rejects": len(rejects),
        "shards": [
            {"name": s.path.name, "sha256": s.sha256, "bytes": s.path.stat().st_size, "images": len(s.rows)}
            for s in shards
        ],
        "manifest_sha256": manifest_sha256,
        "split": None,
    }
    manifest.write_dataset(out, content)
    (out / PLAN).unlink()


def _command(recipe: Recipe, rows: list[Row]) -> str:
    """The command that builds the same again; folders and the number of workers, which change nothing, left out."""
    sources = " ".join(f"--src {source}" for source in sorted({row.source for row in rows}))
    if recipe.fog is None or recipe.depth is None:
        return f"fvrid build-real {sources} --seed {recipe.seed}"
    beta, airlight = ("{} {}".format(*r) for r in (recipe.fog.beta, recipe.fog.airlight))
    return (
        f"fvrid build-syn {sources} --depth {recipe.depth.name} --beta {beta} --airlight {airlight}"
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
        synthetic = self.recipe.depth is not None
        writer = ShardWriter(self.path, ("clear", "foggy", "depth") if synthetic else ("foggy",))
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


def _run(tasks: list[ShardTask], workers: int, progress: Progress) -> dict[Path, FinishedShard]:
    if workers > 1 and len(tasks) > 1:
        return _run_in_processes(tasks, workers, progress)
    finished: list[Future[FinishedShard]] = []
    with ThreadPoolExecutor(1) as disk:  # writing and hashing a shard overlap with making the next
        for task in tasks:
            writer = task.make(progress)
            for write in finished[-1:]:
                write.result()  # at most one shard waits in memory
            finished.append(disk.submit(task.write, writer))
        return {shard.path: shard for shard in (write.result() for write in finished)}


def _run_in_processes(tasks: list[ShardTask], workers: int, progress: Progress) -> dict[Path, FinishedShard]:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    reported = 0
    shards: dict[Path, FinishedShard] = {}
    with ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=_share_counter, initargs=(counter,)
    ) as pool:
        waiting: set[Future[FinishedShard]] = {pool.submit(_run_counted, task) for task in tasks}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                progress(counter.value - reported)
                reported = counter.value
                shards.update((shard.path, shard) for shard in (future.result() for future in done))
        except BrokenProcessPool:
            raise FvridError("a worker process was killed (out of memory?); run again with fewer --workers.") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return shards


_counter: Any = None  # in a worker process: the number of images done, shared with the parent


def _share_counter(counter: Any) -> None:
    global _counter
    _counter = counter


def _run_counted(task: ShardTask) -> FinishedShard:
    def count(done: int) -> None:
        with _counter.get_lock():
            _counter.value += done

    return task.write(task.make(count))


class _RowMaker:
    """Source file -> decoded -> depth -> fog -> encoded -> row, with buffers kept between images."""

    def __init__(self, recipe: Recipe, writer: ShardWriter) -> None:
        self._recipe = recipe
        self._writer = writer
        self._fog = FogSynthesizer()
        self._buffer = np.empty(0, np.uint8)
        self._scaled = np.empty(0, np.float32)
        self._levels = np.empty(0, np.uint16)

    def add(self, records: list[ImageRecord]) -> None:
        read = []
        for record in records:
            try:
                read.append((record, *self._read(record, keep=len(records) > 1)))
            except ImageRefused as error:
                self._refuse(record, error)
        if self._recipe.depth is None:
            for record, content, image in read:
                self._writer.add(self._row(record, content, image), foggy=content)
        elif read:
            taken, contents, pictures = map(list, zip(*read, strict=True))
            try:
                depths = self._recipe.depth.predict(pictures, taken)
            except ImageRefused as error:
                if len(taken) == 1:
                    return self._refuse(taken[0], error)
                for record in taken:  # find out which it was
                    self.add([record])
                return None
            for record, content, image, depth in zip(taken, contents, pictures, depths, strict=True):
                self._add_foggy(record, content, image, depth)
        return None

    def _refuse(self, record: ImageRecord, error: ImageRefused) -> None:
        self._writer.rejects.append(Reject(record.source, record.source_path, str(error)))

    def _read(self, record: ImageRecord, keep: bool) -> tuple[bytes, Uint8Image]:
        try:
            content = record.path.read_bytes()
        except OSError as error:
            raise ImageRefused(f"cannot be read: {error.strerror}") from None
        image = images.decode(content, buffer=None if keep else self._buffer)
        images.check_size(image)
        if image.size > self._buffer.size:
            self._buffer = np.empty(2 * image.size, np.uint8)
        return content, image

    def _row(
        self,
        record: ImageRecord,
        content: bytes,
        image: Uint8Image,
        depth: str = "",
        beta: float = math.nan,
        airlight: float = math.nan,
    ) -> Row:
        height, width = image.shape[:2]
        return Row(
            image_id=record.image_id,
            domain=self._recipe.domain,
            source=record.source,
            source_path=record.source_path,
            sha256=files.sha256_bytes(content),
            vehicle_id=record.vehicle_id,
            camera_id=record.camera_id,
            source_split=record.source_split,
            split=None,
            shard=self._writer.path.name,
            row=len(self._writer.rows),
            height=height,
            width=width,
            depth=depth,
            beta=beta,
            airlight=airlight,
        )

    def _add_foggy(self, record: ImageRecord, content: bytes, image: Uint8Image, depth: images.FloatArray) -> None:
        recipe = self._recipe
        assert recipe.fog is not None and recipe.depth is not None
        draw = recipe.fog.draw(recipe.seed, record.image_id)
        levels = self._quantize(depth)
        foggy = images.encode(self._fog(image, levels, draw), recipe.codec)
        row = self._row(record, content, image, depth=recipe.depth.name, beta=draw.beta, airlight=draw.airlight)
        self._writer.add(row, foggy, clear=content, depth=levels)

    def _quantize(self, depth: images.FloatArray) -> NDArray[np.uint16]:
        """[0, 1] -> 16 bits, rounded to nearest; valid until the next call."""
        if self._scaled.size < depth.size:
            self._scaled, self._levels = np.empty(depth.size, np.float32), np.empty(depth.size, np.uint16)
        scaled = self._scaled[: depth.size].reshape(depth.shape)
        levels = self._levels[: depth.size].reshape(depth.shape)
        np.multiply(depth, np.float32(65535), out=scaled)
        scaled += np.float32(0.5)
        np.copyto(levels, scaled, casting="unsafe")
        return levels
