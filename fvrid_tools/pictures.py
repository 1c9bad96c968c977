"""The pictures of a record, wherever they lie: in files, or in shards, which are read in place."""

from functools import lru_cache
from pathlib import Path

from . import images
from .images import FloatArray, Uint8Image
from .records import FvridError, ImageRecord, ImageRefused, InShard, Place
from .shards import Shard, unpack_depth

AUTHORS_NAME = "predict_depth_gray.png"  # of a depth picture of FVRID's authors, in a folder <stem of the image>
UNFINISHED_EXPORT = "UNFINISHED"  # a file in a folder of them that is still being written, or was left so
AUTHORS_STEM = 19  # characters of that stem that their scripts keep: 00000_c001_000001_0


def read_image(record: ImageRecord) -> bytes:
    """The encoded image. Raises FvridError where its file, or its shard, cannot be read."""
    return _read(record.place)


def read_depth(record: ImageRecord, height: int, width: int) -> FloatArray:
    """The depth that the source carries: (height, width) float32 in [0, 1], 0 nearest.

    Exact to its 8 or 16 bits where it has the image's size. Raises ImageRefused where there is none, it is no picture,
    or it has another shape than the image, and FvridError where its file, or its shard, cannot be read.
    """
    if record.depth is None:
        raise ImageRefused(f"{record.source} carries no depth of this image; another --depth, such as dcnf, makes one")
    try:
        content = _read(record.depth)
        if isinstance(record.depth, InShard):
            try:
                return images.depth_of_levels(unpack_depth(content, height, width))
            except ValueError as error:
                raise ImageRefused(str(error)) from None
        depth = images.decode_depth(content)
        fitted = fit_depth(depth, height, width)
        if fitted is None:
            raise _other_size(depth.shape, (height, width))
        return fitted
    except ImageRefused as error:
        raise ImageRefused(f"its depth: {error}") from None


def read_scene(record: ImageRecord) -> tuple[Uint8Image, FloatArray]:
    """The image, (H, W, 3), and the depth that the source carries, (H, W), as `read_depth` gives it.

    Raises FvridError where one of the two cannot be used.
    """
    try:
        image = images.decode(read_image(record))
        return image, read_depth(record, *image.shape[:2])
    except ImageRefused as error:
        raise FvridError(f"{record.path}: {error}; mend or remove it, and run again.") from None


def fit_depth(depth: FloatArray, height: int, width: int) -> FloatArray | None:
    """Resize (H, W) float32 in [0, 1] to an image's size; itself where it has that size.

    None where one is not the other scaled, up to the rounding of its sides.
    """
    h, w = depth.shape
    same_shape = abs(h * width - w * height) <= max(height, width, h, w)
    return images.resize_map(depth, height, width) if same_shape else None


def read_clear(record: ImageRecord, height: int, width: int) -> bytes:
    """The encoded clear counterpart of a foggy image.

    Raises ImageRefused where there is none, it is no picture, or it has another size than the image, and FvridError
    where its file, or its shard, cannot be read.
    """
    return _read_counterpart(record, record.clear, "clear", height, width)


def read_foggy(record: ImageRecord, height: int, width: int) -> bytes:
    """The encoded foggy counterpart of a clear image.

    Raises ImageRefused where there is none, it is no picture, or it has another size than the image, and FvridError
    where its file, or its shard, cannot be read.
    """
    return _read_counterpart(record, record.foggy, "foggy", height, width)


def _read_counterpart(record: ImageRecord, place: Place | None, kind: str, height: int, width: int) -> bytes:
    if place is None:
        raise ImageRefused(f"{record.source} has no {kind} counterpart of this image")
    try:
        content = _read(place)
        found = images.decode(content).shape[:2]
        if found != (height, width):
            raise _other_size(found, (height, width))
    except ImageRefused as error:
        raise ImageRefused(f"its {kind} counterpart: {error}") from None
    return content


def _read(place: Place) -> bytes:
    if isinstance(place, InShard):
        return bytes(_open(place.path).read(place.column, place.row))
    try:
        return place.read_bytes()
    except OSError as error:
        raise FvridError(f"{place}: cannot be read ({error.strerror}); mend or remove it, and run again.") from None


@lru_cache(maxsize=64)
def _open(path: Path) -> Shard:
    return Shard(path)


def _other_size(found: tuple[int, ...], expected: tuple[int, int]) -> ImageRefused:
    sizes = (" x ".join(str(side) for side in reversed(size)) for size in (found, expected))
    return ImageRefused("{} pixels, but the image has {}".format(*sizes))
