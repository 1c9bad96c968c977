"""Fog density of an image: a value by hand, and what must hold of images never seen."""

import numpy as np
import pytest

from fvrid_tools import density, images, pictures
from fvrid_tools.density import FOGGY, find_signs, fog_density
from fvrid_tools.depth.planar import planar_depth
from fvrid_tools.fog import add_fog
from fvrid_tools.images import Uint8Image
from fvrid_tools.records import ImageRecord
from fvrid_tools.sources import mini, read_source

LADDER = np.linspace(0, 2, 9)


@pytest.fixture(scope="module")
def clear() -> list[ImageRecord]:
    """A view of every 40th test vehicle or so."""
    return [record for record in read_source("mini").records if record.source_split == "test"][::40]


def shown(record: ImageRecord) -> Uint8Image:
    return images.decode(pictures.read_image(record))


def in_fog(image: Uint8Image, beta: float, airlight: float) -> Uint8Image:
    d = planar_depth(*image.shape[:2])
    return images.to_uint8(add_fog(image.astype(np.float32) / 255, d, beta, airlight))


def grey(image: Uint8Image) -> Uint8Image:
    return np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


def test_a_value_by_hand() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    image[:, 32:] = 228
    # 8 levels taken off as black: the darkest over the mean; dark over bright, where a neighbourhood has both
    deepest, contrast = np.log(1 - 120 / 170), np.log(1 - 120 / 220 + 0.02)
    assert find_signs(image) == pytest.approx((deepest, contrast, 0))  # grey tells nothing of saturation
    a, b, _ = density.WEIGHTS
    assert fog_density(image) == pytest.approx(1 - np.exp(density.OFFSET + a * deepest + b * contrast), abs=1e-5)


@pytest.mark.parametrize("airlight", [0.5, 0.75, 1.0])
def test_more_fog_is_a_higher_density(clear: list[ImageRecord], airlight: float) -> None:
    for record in clear:
        scores = [fog_density(in_fog(shown(record), beta, airlight)) for beta in LADDER]
        assert (np.diff(scores) > 0).all(), record.image_id
        assert 0 <= scores[0] < FOGGY < scores[-1] < 1


def test_photographs_too(real_images: object) -> None:
    records = read_source("veri-wild", real_images).records[::60]  # type: ignore[arg-type]
    for record in records:
        scores = [fog_density(in_fog(shown(record), beta, 0.8)) for beta in LADDER]
        assert (np.diff(scores) > 0).all(), record.image_id
        assert scores[0] < FOGGY < scores[-1]


def test_path_traced_fog_is_foggy() -> None:
    assert all(fog_density(shown(record)) > FOGGY for record in read_source("mini", part="real").records[::80])


def test_white_vehicles_and_dark_images_are_not_foggy(clear: list[ImageRecord]) -> None:
    white = {v.image_id for v in mini.find_views(mini.EMBEDDED, "clear") if v.cells["colour"] == "white"}
    records = [record for record in read_source("mini").records if record.image_id in white][::60]
    assert len(records) > 10
    assert all(fog_density(shown(record)) < FOGGY for record in records)
    for record in clear:
        image = shown(record).astype(np.float32) / 255
        noise = np.random.default_rng(0).normal(0, 0.01, image.shape)
        for share in (0.05, 0.15, 0.4):
            assert fog_density(images.to_uint8((image * share + noise).astype(np.float32))) < FOGGY
            assert fog_density(images.to_uint8(image * np.float32(share) + np.float32(0.05))) < FOGGY  # raised black


def test_a_white_vehicle_may_fill_the_image() -> None:
    image = np.full((90, 70, 3), 235, np.uint8)
    image[15:35, 10:60] = (40, 44, 50)  # its window
    image[75:, :12] = image[75:, -12:] = 30  # and tyres
    assert fog_density(image) < FOGGY
    assert fog_density(in_fog(image, 2.0, 0.9)) > FOGGY


@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 30)])
def test_one_flat_colour_is_no_fog(colour: tuple[int, int, int]) -> None:
    assert fog_density(np.full((60, 80, 3), colour, np.uint8)) == 0


def test_camera_and_coding_change_little(clear: list[ImageRecord]) -> None:
    for record in clear[::2]:
        for beta in (0.0, 1.2):
            image = in_fog(shown(record), beta, 0.7)
            score = fog_density(image)
            coded = images.decode(images.encode_jpeg(image, 40, "420"))
            small = np.ascontiguousarray(images.shrink(image, 60))
            mirrored = np.ascontiguousarray(image[:, ::-1])
            for other, near in ((coded, 0.06), (small, 0.08), (grey(image), 0.1), (mirrored, 0.06)):
                assert fog_density(other) == pytest.approx(score, abs=near), record.image_id


def test_a_time_stamp_does_not_clear_the_fog(clear: list[ImageRecord]) -> None:
    for record in clear:
        image = in_fog(shown(record), 2.0, 0.7)
        image[2:8, 10:50] = 0
        assert fog_density(image) > FOGGY
