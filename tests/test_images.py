import io

import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, Image, ImageOps

from fvrid_tools import images
from fvrid_tools.records import ImageRefused


def file_of(array: np.ndarray, form: str, mode: str | None = None, **options: object) -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(content, form, **options)
    return content.getvalue()


@pytest.fixture
def photo() -> np.ndarray:
    """Smooth in space, so that JPEG keeps it within a few levels; wider than high, so that rotation shows."""
    y, x = np.mgrid[0:40, 0:64]
    return np.stack([3 * x, 5 * y, 2 * x + 2 * y], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_lossless_formats_decode_to_what_was_written(photo: np.ndarray, form: str, options: dict[str, object]) -> None:
    assert np.array_equal(images.decode(file_of(photo, form, **options)), photo)


def test_jpeg_decodes_as_pillow_does(photo: np.ndarray) -> None:
    content = file_of(photo, "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(images.decode(content).astype(int) - expected).max() <= 1


def test_a_kept_buffer_receives_the_pixels(photo: np.ndarray) -> None:
    content = file_of(photo, "JPEG")
    buffer = np.zeros(photo.size + 100, np.uint8)
    image = images.decode(content, buffer)
    assert np.shares_memory(image, buffer)
    assert np.array_equal(image, images.decode(content))


def test_grey_is_repeated(photo: np.ndarray) -> None:
    for form in ("JPEG", "PNG"):
        image = images.decode(file_of(photo[..., 0], form))
        assert image.shape == photo.shape
        assert np.array_equal(image[..., 0], image[..., 2])


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    image = images.decode(file_of(ramp, "PNG"))
    assert np.abs(image[..., 0] - ramp / 257.0).max() <= 1


def test_cmyk_is_converted(photo: np.ndarray) -> None:
    image = images.decode(file_of(photo, "JPEG", mode="CMYK", quality=95))
    assert np.abs(image.astype(int) - photo).mean() < 4


def test_exif_rotation_is_applied(photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    image = images.decode(file_of(photo, "JPEG", quality=95, exif=exif.tobytes()))
    assert image.shape == (64, 40, 3)
    assert np.abs(image.astype(int) - np.rot90(photo, -1)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone_as_pillow_does(photo: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_of(photo, "JPEG", quality=95, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert np.abs(images.decode(content).astype(int) - expected).max() <= 1


def test_a_jpeg_cut_off_and_closed_again_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    content = file_of(noise, "JPEG")
    with pytest.raises(ImageRefused, match="truncated"):
        images.decode(content[: len(content) // 2] + b"\xff\xd9")


def test_a_jpeg_whose_scan_is_damaged_is_refused_and_one_that_is_padded_is_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = file_of(noise, "JPEG", restart_marker_blocks=2)
    expected = images.decode(content)
    middle = len(content) // 2
    injuries = [content[:middle] + bytes(range(90)) + content[middle + 120 :]]  # before a restart
    injuries.append(content[:-2] + bytes(range(40)) + content[-2:])
    plain = file_of(noise, "JPEG")
    injuries.append(plain[:middle] + b"\x11" * 400 + plain[middle + 400 :])
    for injured in injuries:
        with pytest.raises(ImageRefused, match=r"unreadable: damaged \(Corrupt JPEG data"):
            images.decode(injured)
    between = content.replace(b"\xff\xdb", b"camera\xff\xdb", 1)
    for harmless in (content[:-2] + b"\0" * 100 + content[-2:], between, content + b"camera"):
        assert np.array_equal(images.decode(harmless), expected)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageRefused, match="floating-point"):
        images.decode(file_of(np.random.default_rng(0).random((32, 32), dtype=np.float32), "TIFF"))


def test_pixels_of_thirty_two_bits_are_refused() -> None:
    """From 0 to 255 they would come out black."""
    with pytest.raises(ImageRefused, match="32-bit"):
        images.decode(file_of(np.full((32, 32), 200, np.int32), "TIFF"))
    content = io.BytesIO()
    tifffile.imwrite(content, np.full((32, 32), 257 * 60, np.int16))  # signed: Pillow opens it as if it had 32
    assert (images.decode(content.getvalue()) == 60).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_file_cut_off_is_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    content = file_of(noise, form)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(ImageRefused):
            images.decode(content[: int(share * len(content))])


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\xff\xd8\xff\xe0 and then nothing", b"\x00" * 1000])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ImageRefused):
        images.decode(content)


@pytest.mark.parametrize("form", ["GIF", "EPS", "PPM"])
def test_formats_that_no_suffix_stands_for_are_not_even_tried(
    photo: np.ndarray, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PostScript file named .jpg would be run."""
    content = file_of(photo, form)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("the file was run"))
    with pytest.raises(ImageRefused, match="not an image"):
        images.decode(content)


def test_too_small_and_too_large_are_refused() -> None:
    with pytest.raises(ImageRefused, match="too small: 1 x 1"):
        images.check_size(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ImageRefused, match="too long: 66000 x 20"):  # for the JPEG of its foggy image
        images.check_size(np.zeros((20, 66000, 3), np.uint8))
    huge = Image.new("1", (9000, 9000))
    content = io.BytesIO()
    huge.save(content, "PNG")
    with pytest.raises(ImageRefused, match="9000 x 9000 pixels"):
        images.decode(content.getvalue())


def test_png_is_lossless_and_jpeg_close(photo: np.ndarray) -> None:
    assert np.array_equal(images.decode(images.encode(photo, "png")), photo)
    assert np.abs(images.decode(images.encode(photo)).astype(int) - photo).mean() < 1


@pytest.mark.parametrize("deviation", [0, 2, 3, 4, 8, 32, 128])
def test_no_jpeg_is_off_by_two_levels(photo: np.ndarray, deviation: float) -> None:
    noisy = np.random.default_rng(0).normal(photo, deviation).clip(0, 255).round().astype(np.uint8)
    assert np.abs(images.decode(images.encode(noisy)).astype(int) - noisy).mean() < 2


def test_depth_pictures_of_both_depths(photo: np.ndarray) -> None:
    eight = photo[..., 0]
    assert np.allclose(images.decode_depth(file_of(eight, "PNG")), eight / 255)
    sixteen = eight.astype(np.uint16) * 200
    assert np.allclose(images.decode_depth(images.encode_depth(sixteen)), sixteen / 65535)
