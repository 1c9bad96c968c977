"""What a surveillance camera makes of the light that reaches it: optics, exposure, noise, JPEG."""

import numpy as np

from ..images import Uint8Image, encode_jpeg
from .light import Light
from .meshes import Array
from .plan import View
from .streets import Site

SHOT_NOISE = 0.0006  # variance of a pixel at full scale; read noise is the camera's own


def develop(radiance: Array, view: View, native: float) -> Uint8Image:
    """Radiance (S, S, 3), linear, free of rendering noise -> (S, S, 3) uint8.

    `native` is the crop's side in pixels of the camera's frame: a vehicle far away has less detail than S pixels hold.
    """
    place = view.site
    raw = expose(radiance, place, view.light, native)
    shot = [view.seed, 21, int(view.fog is not None)]  # the clear counterpart of a foggy view is another photograph
    shown = show(add_noise(raw, place, native, np.random.default_rng(shot)), place)
    return np.clip(shown + 0.5, 0, 255).astype(np.uint8)


def expose(radiance: Array, place: Site, light: Light, native: float) -> Array:
    """Radiance -> what the chip records, in [0, 1]; highlights saturate softly."""
    exposed = radiance * (exposure(radiance, place, light) * np.array(place.balance, np.float32))
    blur = float(np.hypot(place.blur, 0.45 * max(0.0, radiance.shape[0] / native - 1)))
    recorded: Array = 1 - np.exp(-1.25 * _blur(exposed.astype(np.float32), blur))
    return recorded


def add_noise(raw: Array, place: Site, native: float, rng: np.random.Generator) -> Array:
    """Photon and read noise, less of it where a large crop was scaled down to this size."""
    variance = SHOT_NOISE * raw + place.noise**2
    return raw + rng.normal(size=raw.shape) * np.sqrt(variance) * grain(native, raw.shape[0])


def show(raw: Array, place: Site) -> Array:
    """The chip's values -> grey levels, 0 to 255, not rounded."""
    grey = raw @ np.array([0.299, 0.587, 0.114])
    coloured = grey[..., None] + place.saturation * (raw - grey[..., None])
    shown = np.clip(coloured, 0, 1) ** (1 / 2.2)
    return np.clip(0.5 + place.contrast * (shown - 0.5), 0, 1) * 255


def exposure(radiance: Array, place: Site, light: Light) -> float:
    """The gain of automatic exposure: half by the light that falls on the road, half by what the crop shows."""
    direction, sun = light.sun(place.north)
    fallen = light.sky()[:32].mean() + max(0.0, -direction[2]) * float(sun.mean()) / np.pi
    shown = float(np.clip(radiance, 0, 4).mean())
    return place.exposure * 0.252 / (0.14 * float(fallen) + 0.5 * shown + 1e-6)


def grain(native: float, size: int) -> float:
    """How much of a frame's noise is left where it is scaled to the crop's size."""
    return float(np.clip(size / native, 0.75, 1.0))


def to_jpeg(image: Uint8Image, place: Site) -> bytes:
    """As the camera stores it: its own quality, chroma at half resolution."""
    return encode_jpeg(image, place.quality, "420")


def _blur(image: Array, sigma: float) -> Array:
    """Gaussian, with the edge's pixels repeated outwards."""
    size = image.shape[0]
    reach = max(1, int(np.ceil(3 * sigma)))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size), np.float32)
    for offset, weight in zip(offsets, weights, strict=True):
        matrix[np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)] += weight
    return np.einsum("ij,jkc,lk->ilc", matrix, image, matrix, optimize=True).astype(np.float32)
