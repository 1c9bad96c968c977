"""The pictures of a record, wherever they lie: in files, or in shards, which are read in place."""

from functools import lru_cache
from pathlib import Path

from . import images
from .images import FloatArray
from .records import ImageRecord, ImageRefused, InShard, Place
from .shards import Shard, unpack_depth


def read_image(record: ImageRecord) -> bytes:
    """The encoded image. Raises ImageRefused where its file cannot be read, FvridError where its shard cannot."""
    return _read(record.place)


def read_depth(record: ImageRecord, height: int, width: int) -> FloatArray:
    """The depth that the source carries: (height, width) float32 in [0, 1], 0 nearest; its 16 bits are exact.

    Raises ImageRefused where there is none, it cannot be read, or it has another size than the image.
    """
    if record.depth is None:
        raise ImageRefused(f"{record.source} carries no depth of this image")
    try:
        content = _read(record.depth)
        if isinstance(record.depth, InShard):
            return images.depth_of_levels(unpack_depth(content, height, width))
        depth = images.decode_depth(content)
    except ImageRefused as error:
        raise ImageRefused(f"its depth: {error}") from None
    _check_same("depth", depth.shape, (height, width))
    return depth


def read_clear(record: ImageRecord, height: int, width: int) -> bytes:
    """The encoded clear counterpart of a foggy image.

    Raises ImageRefused where there is none, it cannot be read, or it has another size than the image.
    """
    if record.clear is None:
        raise ImageRefused(f"{record.source} has no clear counterpart of this image")
    try:
        content = _read(record.clear)
        clear = images.decode(content)
    except ImageRefused as error:
        raise ImageRefused(f"its clear counterpart: {error}") from None
    _check_same("clear counterpart", clear.shape[:2], (height, width))
    return content


def _read(place: Place) -> bytes:
    if isinstance(place, InShard):
        return bytes(_open(place.path).read(place.column, place.row))
    try:
        return place.read_bytes()
    except OSError as error:
        raise ImageRefused(f"cannot be read: {error.strerror}") from None


@lru_cache(maxsize=64)
def _open(path: Path) -> Shard:
    return Shard(path)


def _check_same(what: str, found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if found != expected:
        sizes = (" x ".join(str(side) for side in reversed(size)) for size in (found, expected))
        raise ImageRefused("its {}: {} pixels, but the image has {}".format(what, *sizes))
