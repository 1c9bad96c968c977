"""The HDF5 shard: encoded images one after another in a blob, with offsets. Writer and reader.

    attributes        format = 1, plan (hash of the build's options and of this shard's records)
    rows              one compound row an image: image_id, vehicle_id, ..., beta, airlight (UTF-8)
    rejects           source, source_path, reason of the records that were refused
    clear/bytes       uint8, contiguous: the source files as they were        (not of real fog, but for pairs)
    clear/offsets     uint64, N + 1: image i is bytes[offsets[i]:offsets[i + 1]]
    foggy/...         JPEG or PNG files                                       (not of a source that is clear)
    depth/...         uint16 (65535 farthest), packed without loss: differences down the columns, of these the
                      differences along the rows (both modulo 65536), zigzag (0, -1, 1, -2 -> 0, 1, 2, 3),
                      all low bytes, then all high bytes, zstd

Because the blobs are contiguous, a reader maps the file and touches the bytes of the image it wants, no
others; no HDF5 handle stays open, so readers survive fork and threads. benchmarks/bench_layout.py compares
this with other layouts.
"""

import io
import mmap
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import h5py
import numpy as np
import zstandard
from numpy.typing import NDArray

from .files import atomic_path, not_written
from .records import FvridError, Reject, Row

if sys.platform != "win32":
    import resource

SHARD_FORMAT = 1
IMAGES_PER_SHARD = 512
IN_MEMORY = 1 << 28  # bytes of a column of a shard that is being made

_TEXT_FIELDS = (
    "image_id",
    "domain",
    "source",
    "source_path",
    "sha256",
    "vehicle_id",
    "camera_id",
    "source_split",
    "depth",
)
_NUMBER_FIELDS = {"height": "<u4", "width": "<u4", "beta": "<f8", "airlight": "<f8"}
_REJECT_FIELDS = ("source", "source_path", "reason")


Identity = tuple[int, int, int]  # of a file: inode, size, time of change


def shard_name(index: int, kind: str = "shard") -> str:
    return f"{kind}-{index:05d}.h5"


def pack_depth(depth: NDArray[np.uint16], compressor: zstandard.ZstdCompressor) -> bytes:
    """(H, W) uint16 -> bytes, lossless. A 16-bit PNG of the same map is larger and takes several times longer."""
    residual = depth.copy()
    residual[1:] -= depth[:-1]
    residual[:, 1:] -= residual[:, :-1].copy()
    zigzag = (residual << 1) ^ (residual.view(np.int16) >> 15).view(np.uint16)
    halves = zigzag.astype("<u2", copy=False).view(np.uint8).reshape(-1, 2).T  # all low bytes, all high bytes
    return compressor.compress(halves.tobytes())


def unpack_depth(content: bytes | memoryview, height: int, width: int) -> NDArray[np.uint16]:
    """The inverse of pack_depth.  -> (H, W) uint16. Raises ValueError where the bytes are not such a map's."""
    try:
        raw = zstandard.decompress(content, max_output_size=2 * height * width)
    except zstandard.ZstdError as error:
        raise ValueError(f"not a packed depth map: {error}") from None
    low, high = np.frombuffer(raw, np.uint8).reshape(2, height, width)
    zigzag = low | (high.astype(np.uint16) << 8)
    depth: NDArray[np.uint16] = ((zigzag >> 1) ^ -(zigzag & 1)).astype(np.uint16, copy=False)
    np.cumsum(depth, axis=1, dtype=np.uint16, out=depth)
    np.cumsum(depth, axis=0, dtype=np.uint16, out=depth)
    return depth


class ShardWriter:
    """Collects the images of one shard, in memory up to IN_MEMORY a column, and writes them as one file, whole or not
    at all.

    `level` is zstd's, for depth: 1 packs in 0.2 ms an image of 192 x 256, 19 in 25 ms to three quarters of the bytes.
    """

    def __init__(self, path: Path, columns: Iterable[str], level: int = 1) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []
        self._blobs = {column: _Blob(path.parent) for column in columns}
        self._compressor = zstandard.ZstdCompressor(level=level)

    def add(
        self,
        row: Row,
        foggy: bytes | None = None,
        clear: bytes | None = None,
        depth: NDArray[np.uint16] | None = None,
    ) -> None:
        """Append an image. Each picture is given exactly where the shard has its column. FvridError where what goes
        beyond IN_MEMORY cannot be written."""
        packed = None if depth is None else pack_depth(depth, self._compressor)
        self.rows.append(row)
        try:
            for name, content in (("foggy", foggy), ("clear", clear), ("depth", packed)):
                if content is not None:
                    self._blobs[name].append(content)
        except OSError as error:
            raise not_written(self.path, error) from None

    def write(self, plan: str) -> None:
        """Write the file; OSError where the disk does not take it, and then nothing is left."""
        with atomic_path(self.path) as unfinished:
            places = {}
            sparse = _SparseFile()
            with h5py.File(sparse, "w") as file:
                file.attrs["format"] = SHARD_FORMAT
                file.attrs["plan"] = plan
                _write_table(file, "rows", self.rows, _TEXT_FIELDS, _NUMBER_FIELDS)
                _write_table(file, "rejects", self.rejects, _REJECT_FIELDS, {})
                for name, blob in self._blobs.items():
                    file.create_dataset(f"{name}/offsets", data=np.array(blob.offsets, "<u8"))
                    places[name] = _reserve(file, f"{name}/bytes", blob.offsets[-1])
            with unfinished.open("wb") as raw:
                sparse.save(raw)
                for name, blob in self._blobs.items():
                    raw.seek(places[name])
                    for piece in blob.pieces():
                        raw.write(piece)
        for blob in reversed(self._blobs.values()):  # so that the next shard's columns get their own memory back
            blob.release()


def _reserve(file: h5py.File, name: str, size: int) -> int:
    """Make a contiguous uint8 dataset without writing to it; returns where in the file it begins."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return file.create_dataset(name, (size,), np.uint8, dcpl=properties).id.get_offset() or 0


class _SparseFile(io.RawIOBase):
    """A file in memory that holds what was written to it and nothing of what was only reserved.

    HDF5 writes to it, and the disk is written to by Python: HDF5 does not survive a disk that is full, and would keep
    Python's lock while it writes megabytes.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes]] = []
        self._position = self._size = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, content: Any) -> int:
        piece = bytes(content)
        self._pieces.append((self._position, piece))
        self._position += len(piece)
        self._size = max(self._size, self._position)
        return len(piece)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        view[:count] = bytes(count)
        for start, piece in self._pieces:
            first, last = max(start, self._position), min(start + len(piece), self._position + count)
            if first < last:
                view[first - self._position : last - self._position] = piece[first - start : last - start]
        self._position += count
        return count

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def save(self, file: BinaryIO) -> None:
        """Write everything to a file on disk, in order, what was only reserved as zeros."""
        for start, piece in self._pieces:
            file.seek(start)
            file.write(piece)
        file.truncate(self._size)


class _Blob:
    """Bytes one after another, in memory that shards hand on: the first touch of a page costs more than a copy."""

    _spare: ClassVar[list[NDArray[np.uint8]]] = []

    def __init__(self, folder: Path) -> None:
        """folder: where a file without a name takes what is more than IN_MEMORY, as of large photographs."""
        self._memory = self._spare.pop() if self._spare else np.empty(1 << 25, np.uint8)  # touched as it fills
        self._folder, self._filled = folder, 0
        self._spilt: BinaryIO | None = None
        self.offsets = [0]

    def append(self, content: bytes) -> None:
        if self._filled + len(content) > IN_MEMORY:
            self._spill()
        start, end = self._filled, self._filled + len(content)
        if end > self._memory.size:
            larger = np.empty(2 * end, np.uint8)
            larger[:start] = self._memory[:start]
            self._memory = larger
        self._memory[start:end] = np.frombuffer(content, np.uint8)
        self._filled = end
        self.offsets.append(self.offsets[-1] + len(content))

    def _spill(self) -> None:
        if self._spilt is None:
            self._spilt = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - released, or gone with the process
        for piece in self._in_memory():
            self._spilt.write(piece)
        self._filled = 0

    def _in_memory(self) -> Iterator[memoryview]:
        """A megabyte at a time: Linux takes five times longer for fifty at once (ext4, large folios)."""
        content = self._memory[: self._filled].data
        for start in range(0, len(content), 1 << 20):
            yield content[start : start + (1 << 20)]

    def pieces(self) -> Iterator[bytes | memoryview]:
        """All of it."""
        if self._spilt is not None:
            self._spilt.seek(0)
            while piece := self._spilt.read(1 << 20):
                yield piece
        yield from self._in_memory()

    def release(self) -> None:
        self._spare.append(self._memory)
        if self._spilt is not None:
            self._spilt.close()


def _write_table(file: h5py.File, name: str, items: list[Any], text: Iterable[str], numbers: dict[str, str]) -> None:
    columns: dict[str, NDArray[Any]] = {}
    for field in text:
        values = [(getattr(item, field) or "").encode() for item in items]
        columns[field] = np.array(values, dtype=f"S{max(map(len, values), default=0) or 1}")
    for field, kind in numbers.items():
        columns[field] = np.array([getattr(item, field) for item in items], dtype=kind)
    table = np.empty(len(items), dtype=[(field, column.dtype) for field, column in columns.items()])
    for field, column in columns.items():
        table[field] = column
    packed = {"compression": "gzip", "shuffle": True} if items else {}
    # now, not when the dataset is let go of: a profiler that holds h5py's frames, as Dask's does, would move it
    file.create_dataset(name, data=table, **packed).flush()


_DAMAGED = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)  # what h5py and we raise then


class Shard:
    """A shard open for reading: where each image lies, and nothing of the images themselves.

    Raises FvridError where the file is missing, cut off or no shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs: dict[str, tuple[int, NDArray[np.uint64]]] = {}
        try:
            self._identity = _identify(path)
            with h5py.File(path, "r", locking=False) as file:  # some network disks have no locks; shards never change
                if file.attrs.get("format") != SHARD_FORMAT:
                    raise FvridError(f"{path}: not a shard of format {SHARD_FORMAT}; rebuild the dataset.")
                self.plan = str(file.attrs["plan"])
                for name in ("clear", "foggy", "depth"):
                    if name in file:
                        start = file[f"{name}/bytes"].id.get_offset() or 0  # None where there are no images
                        self._blobs[name] = start, file[f"{name}/offsets"][:]
        except _DAMAGED as error:
            raise _unreadable(path, error) from None

    def has(self, column: str) -> bool:
        return column in self._blobs

    def sizes(self, column: str) -> list[int]:
        """Bytes of each image's file. Raises FvridError where the shard has no such column."""
        if column not in self._blobs:
            raise FvridError(f"{self.path}: the shard has no {column} images; copy it again or rebuild the dataset.")
        sizes: list[int] = np.diff(self._blobs[column][1]).tolist()
        return sizes

    def read(self, column: str, row: int) -> memoryview:
        """The encoded bytes of one image: a view of the mapped file.  column: "clear", "foggy" or "depth"."""
        start, offsets = self._blobs[column]
        if not 0 <= row < len(offsets) - 1:
            raise FvridError(f"{self.path}: there is no image {row}; run fvrid verify.")
        first, last = start + int(offsets[row]), start + int(offsets[row + 1])
        content = _map(self.path, self._identity)[first:last]
        if len(content) != last - first:
            raise FvridError(f"{self.path}: the shard is cut off; copy it again or rebuild the dataset.")
        return content

    def read_rows(self) -> tuple[list[Row], list[Reject]]:
        """The rows (without split, as the shard does not know it) and the refused records."""
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                rows = [_to_row(values, self.path.name, i) for i, values in enumerate(_read_table(file, "rows"))]
                rejects = [Reject(**values) for values in _read_table(file, "rejects")]
        except _DAMAGED as error:
            raise _unreadable(self.path, error) from None
        return rows, rejects


def _read_table(file: h5py.File, name: str) -> list[dict[str, Any]]:
    table = file[name][:]
    fields = table.dtype.names
    return [
        {k: v.decode() if isinstance(v, bytes) else v for k, v in zip(fields, values, strict=True)}
        for values in table.tolist()
    ]


def _to_row(values: dict[str, Any], shard: str, row: int) -> Row:
    for optional in ("camera_id", "source_split"):
        values[optional] = values[optional] or None
    return Row(**values, split=None, shard=shard, row=row)


def _unreadable(path: Path, error: Exception) -> FvridError:
    if not path.exists():
        return FvridError(f"{path}: the shard is missing; copy it again or rebuild the dataset.")
    return FvridError(f"{path}: not a readable shard ({error}); copy it again or rebuild the dataset.")


def _mapped() -> int:
    """How many shards may be mapped at once: each keeps a descriptor, of which macOS gives a process 256."""
    if sys.platform == "win32":
        return 512
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if allowed == resource.RLIM_INFINITY else min(4096, allowed // 2)


@lru_cache(maxsize=_mapped())
def _map(path: Path, identity: Identity) -> memoryview:
    """The file's bytes; FvridError where it is not the file any more whose offsets were read."""
    with path.open("rb") as file:
        if _identify(file.fileno()) != identity:
            raise FvridError(f"{path}: the shard changed while it was in use; open the dataset again.")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _identify(file: int | Path) -> Identity:
    status = os.fstat(file) if isinstance(file, int) else file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
