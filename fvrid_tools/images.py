"""Images as bytes and as arrays: decode, encode, resize. The only module that touches OpenCV.

An image is (H, W, 3) uint8 RGB. JPEG goes through libjpeg-turbo (simplejpeg: strict about truncation,
no detour over BGR); every other format, and JPEGs that are CMYK, through Pillow.
"""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .records import ImageRefused

Uint8Image = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MIN_SIDE = 16  # pixels; below it there is no vehicle to see
JPEG_MAX_SIDE = 65_500  # pixels, of libjpeg
MAX_PIXELS = 64_000_000  # more is refused before it is decoded
JPEG_QUALITY = 95
BUSY_BITS = 5  # a pixel, at JPEG_QUALITY; beyond them, as of noise, its error comes near 2 of 255 levels
BUSY_QUALITY = 98  # of such images, within 1.4 levels

# those of SUFFIXES alone: Pillow would hand a PostScript file, under whatever name, to a program that runs it
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
# what Pillow's decoders raise of files that are not whole
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
)

_EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")

Codec = Literal["jpeg", "png"]

cv2.setNumThreads(1)  # parallelism is over images: see build.py


def decode(content: bytes | memoryview, buffer: Uint8Image | None = None) -> Uint8Image:
    """Decode an image file to upright (H, W, 3) uint8 RGB.

    `buffer`, uint8 and large enough, receives the pixels of a plain JPEG, and the result is a view of it.
    Grey is repeated, alpha dropped, CMYK converted, 16-bit scaled to 8, an EXIF rotation applied.

    Raises ImageRefused where the content is no image, is cut off, or has more than MAX_PIXELS.
    """
    if len(content) == 0:
        raise ImageRefused("the file is empty")
    if bytes(content[:3]) == b"\xff\xd8\xff":
        image = _decode_jpeg(content, buffer)
        if image is not None:
            return image
    return _decode_with_pillow(bytes(content))


def _decode_jpeg(content: bytes | memoryview, buffer: Uint8Image | None) -> Uint8Image | None:
    """None for what libjpeg-turbo cannot turn into RGB, or finds odd; then Pillow knows more, or says what is wrong."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        if colorspace in ("CMYK", "YCCK") or height * width > MAX_PIXELS:
            return None
        if buffer is not None and buffer.size < height * width * 3:
            buffer = None
        image: Uint8Image = simplejpeg.decode_jpeg(content, colorspace="RGB", buffer=buffer)
    except ValueError as error:
        if "premature end" in str(error).lower():
            raise ImageRefused(f"unreadable: truncated ({error})") from None
        if _is_damaged(bytes(content), str(error)):
            raise ImageRefused(f"unreadable: damaged ({error})") from None
        return None
    if bytes(content[:65536]).find(b"Exif\x00") >= 0:
        return _upright(image, bytes(content))
    return image


def _is_damaged(content: bytes, complaint: str) -> bool:
    """Whether what libjpeg complains of reaches the pixels: Pillow would hand them out without a word.

    Bytes between segments do not, nor does padding of one value that some cameras put behind the scan.
    """
    found = _EXTRANEOUS.search(complaint)
    if found is None:
        return "Corrupt JPEG data" in complaint
    count, marker = int(found[1]), int(found[2], 16)
    if marker != 0xD9:
        return 0xD0 <= marker <= 0xD7  # a restart within the scan
    end = content.rfind(b"\xff\xd9")
    return len(set(content[max(0, end - count) : end])) > 1


def _upright(image: Uint8Image, content: bytes) -> Uint8Image:
    """Turn and mirror as the file's EXIF orientation says."""
    orientation = _orientation(content)
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _orientation(content: bytes) -> int:
    """1 is upright."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as file:
            return int(file.getexif().get(0x0112, 1))
    except _BROKEN:
        return 1


def upright_file(content: bytes) -> bytes:
    """The file as it is, or encoded anew where it is to be turned before it is looked at, which not all readers do."""
    return encode(decode(content)) if _orientation(content) in range(2, 9) else content


def _decode_with_pillow(content: bytes) -> Uint8Image:
    with _opened(content) as image:
        if image.mode == "F" or _has_32_bits(image):
            kind = "floating-point" if image.mode == "F" else "32-bit"
            raise ImageRefused(f"{kind} pixels: their range is not known; convert it to 8 or 16 bits")
        return np.array(ImageOps.exif_transpose(_eight_bit(image)).convert("RGB"))


def _has_32_bits(image: Image.Image) -> bool:
    """Whole numbers of them; Pillow has the mode "I" for 16 bits too."""
    bits = getattr(image, "tag_v2", {}).get(258)  # of a TIFF, a sample
    return image.mode == "I" and bits in (32, (32,))


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """An image that Pillow reads. ImageRefused where it is none, is cut off or has too many pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageRefused(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
                image.load()
                yield image
    except _BROKEN as error:
        what = "not an image" if isinstance(error, UnidentifiedImageError) else f"unreadable: {error}"
        raise ImageRefused(what) from None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip it."""
    if not image.mode.startswith("I"):
        return image
    exif = image.getexif()
    grey = Image.fromarray((np.asarray(image, dtype=np.uint32) // 257).clip(0, 255).astype(np.uint8))
    grey.info["exif"] = exif.tobytes()
    return grey


def check_size(image: Uint8Image) -> None:
    """Raise ImageRefused where a side has fewer than MIN_SIDE pixels, or more than a JPEG can have."""
    height, width = image.shape[:2]
    if max(height, width) > JPEG_MAX_SIDE:
        raise ImageRefused(f"too long: {width} x {height} pixels, a side has at most {JPEG_MAX_SIDE}")
    if min(height, width) < MIN_SIDE:
        raise ImageRefused(f"too small: {width} x {height} pixels, a side needs {MIN_SIDE}")


def encode(image: Uint8Image, codec: Codec = "jpeg") -> bytes:
    """Encode (H, W, 3) uint8 RGB: "png" is lossless, "jpeg" of a quality by which a pixel is off by less than 2 levels
    on average, without chroma subsampling."""
    if codec == "jpeg":
        encoded = encode_jpeg(image)
        busy = 8 * len(encoded) > BUSY_BITS * image.shape[0] * image.shape[1]
        return encode_jpeg(image, BUSY_QUALITY) if busy else encoded
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def encode_jpeg(image: Uint8Image, quality: int = JPEG_QUALITY, chroma: Literal["444", "420"] = "444") -> bytes:
    """Encode (H, W, 3) uint8 RGB; "420" stores colour at half resolution, as cameras do."""
    encoded: bytes = simplejpeg.encode_jpeg(
        image, quality=quality, colorspace="RGB", colorsubsampling=chroma, fastdct=False
    )
    return encoded


def suffix(content: bytes) -> str:
    """The file name suffix of encoded image content, from its first bytes."""
    for magic, name in ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"RIFF", ".webp")):
        if content.startswith(magic):
            return name
    return ".tif"


def decode_depth(content: bytes) -> FloatArray:
    """A depth picture (8-bit or 16-bit grey; a colour one by its first channel) as (H, W) float32 in [0, 1].

    Raises ImageRefused where it is not a picture.
    """
    try:
        with _opened(content) as image:
            levels = image.convert("L") if image.mode in ("P", "PA", "1") else image  # not the palette's indices
            values = np.asarray(levels)
    except ImageRefused as error:
        raise ImageRefused(f"the depth picture is unreadable: {error}") from None
    if values.ndim == 3:
        values = values[..., 0]
    return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else depth_of_levels(values)


def depth_of_levels(levels: NDArray[Any]) -> FloatArray:
    """16 bits -> [0, 1]; `levels_of_depth` gives the very levels back."""
    return levels.astype(np.float32) / np.float32(65535)


def levels_of_depth(depth: FloatArray) -> NDArray[np.uint16]:
    """[0, 1] -> 16 bits, rounded to nearest."""
    levels: NDArray[np.uint16] = np.rint(depth * np.float32(65535)).astype(np.uint16)
    return levels


def encode_depth(depth: NDArray[np.uint16] | Uint8Image) -> bytes:
    """(H, W) uint16, or uint8, as a grey PNG of as many bits; shards hold depth more compactly."""
    return cv2.imencode(".png", depth)[1].tobytes()


def resize_map(values: FloatArray, height: int, width: int) -> FloatArray:
    """Resize (H, W) float32 in [0, 1] by the bicubic kernel with antialiasing (a = -0.5, as MATLAB's imresize)."""
    if values.shape == (height, width):
        return values
    resized = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized).clip(0, 1)


def shrink(image: Uint8Image, longest_px: int) -> Uint8Image:
    """Scale an image down so that its longer side has at most `longest_px` pixels."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def colours(values: FloatArray) -> Uint8Image:
    """(H, W) in [0, 1] -> (H, W, 3): the viridis scale, from dark blue to yellow."""
    coded = cv2.applyColorMap(to_uint8(values), cv2.COLORMAP_VIRIDIS)
    return np.asarray(cv2.cvtColor(coded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def blur(image: Uint8Image, sigma_px: float) -> Uint8Image:
    """Gaussian blur of (H, W, 3); sigma in pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), dtype=np.uint8)


def stretch(image: Uint8Image, size: int) -> Uint8Image:
    """Resize to size x size pixels, whatever the aspect, for pictures beside a network's."""
    shrinking = max(image.shape[:2]) > size
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=how), dtype=np.uint8)


def moved(image: NDArray[Any], top: int, left: int, *, edge: bool) -> NDArray[Any]:
    """What a window as large as the image sees whose corner is at (top, left) pixels, which may be negative: beyond the
    image black, or the pixels of its edge.

    image: (H, W, C) uint8 or float32, and so is the result.  top, left: fewer than H and W either way.
    """
    height, width = image.shape[:2]
    inside = image[max(0, top) : height + min(0, top), max(0, left) : width + min(0, left)]
    around = (max(0, -top), max(0, top), max(0, -left), max(0, left))
    found: NDArray[Any] = cv2.copyMakeBorder(inside, *around, cv2.BORDER_REPLICATE if edge else cv2.BORDER_CONSTANT)
    return found.reshape(image.shape)


def darkest_around(plane: Uint8Image, size_px: int) -> Uint8Image:
    """(H, W) uint8 -> (H, W): the least of the square neighbourhood, `size_px` across, of each pixel."""
    return np.asarray(cv2.erode(plane, np.ones((size_px, size_px), np.uint8)), dtype=np.uint8)


def brightest_around(plane: Uint8Image, size_px: int) -> Uint8Image:
    """(H, W) uint8 -> (H, W): the most of the square neighbourhood, `size_px` across, of each pixel."""
    return np.asarray(cv2.dilate(plane, np.ones((size_px, size_px), np.uint8)), dtype=np.uint8)


def repeat_channels(plane: FloatArray, out: FloatArray) -> None:
    """Write (H, W) float32 into each channel of `out`, (H, W, 3); five times faster than NumPy's broadcasting."""
    cv2.merge((plane, plane, plane), out)


def exponential(values: FloatArray) -> None:
    """exp in place, float32; four times faster than NumPy's."""
    cv2.exp(values, values)


def add_and_round(values: FloatArray, offset: float, out: Uint8Image) -> None:
    """Round values + offset, which must not be below 0, into `out`; saturates at 255."""
    cv2.convertScaleAbs(values, out, 1, offset)


def to_uint8(image: FloatArray) -> Uint8Image:
    """float in [0, 1] -> uint8, rounded to nearest."""
    return np.rint(image.clip(0, 1) * np.float32(255)).astype(np.uint8)
