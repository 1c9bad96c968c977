"""How foggy an image looks, from the image alone: in [0, 1], an estimate of the share of its light that is airlight.

By Koschmieder's law contrast falls with the transmission t. By He et al.'s dark channel prior (CVPR 2009) something
in any part of a clear picture is nearly black in one of its colours, so that what is not black there is airlight.
Choi et al. (FADE, 2015) rate fog by many such signs, dark channel, contrast and saturation among them. Here are three,
each a share that is largest in clear images and falls with t, joined as powers, so that their logarithms add up:

    t = e^u,  u = c + a log(deepest) + b log(contrast) + s log(saturation),  bent below 0;  density = 1 - t

The signs are relative to the brightness around, but a place that is dark shows no airlight, and so counts as clear.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import images
from .images import Uint8Image

SIDE = 64  # pixels: images are shrunk to SIDE x SIDE, so that sharpness and noise count for little
# Above it an image is called foggy: 0.1 % of FVRID-Mini's clear test images are and no clear photograph, all images in
# its path-traced fog, and of photographs in Eq. 1's fog, with --depth dcnf, 56 % for beta in [0.4, 0.8], 99 % beyond.
FOGGY = 0.25
FLAT = 4  # levels: less between the brightest and the darkest grey tells nothing, and is no fog

# Fitted to FVRID-Mini's training vehicles in fog of known beta and degraded in many ways; benchmarks/fog_density.py
# fits them again, and fails where these are not what it finds.
OFFSET = 0.0475  # c
WEIGHTS = (0.1746, 0.604, 0.0261)  # a, b, s

_DARKEST = 8  # pixels, a five-hundredth: fewer would be noise
_AROUND = 9  # pixels across: of the neighbourhoods where contrast is looked for
_CONTRASTS = 0.9  # quantile: contrast is where a scene has something dark beside something light
_SATURATIONS = 0.9
_BLACK = 8  # levels: what a camera may give for black
_DIM = 50  # levels: darker places are shadow or night, not fog
_GREY = 4  # levels: colours of less are the coding's, and the image is grey
_TYPICAL = 0.35  # saturation of clear images at that quantile, for grey ones
_BEND = 20.0  # how sharply t is kept below 1


class Signs(NamedTuple):
    """Logarithms of what fog takes away; 0 is a clear image's."""

    deepest: float  # 1 - the darkest places over the mean
    contrast: float  # 1 - dark over bright, within a neighbourhood
    saturation: float


def fog_density(image: Uint8Image) -> float:
    """image: (H, W, 3) RGB -> in [0, 1], more is foggier; 0 where the image is one flat colour."""
    signs = find_signs(image)
    return 0.0 if signs is None else float(density_of(np.array(signs), OFFSET, np.array(WEIGHTS)))


def density_of(signs: NDArray[np.floating], offset: float, weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """signs: (..., 3) -> (...) in [0, 1)."""
    u = offset + signs @ weights
    thickness = np.logaddexp(0, -_BEND * u) / _BEND  # -u where it is far below 0, and never below 0
    density: NDArray[np.float64] = -np.expm1(-thickness)
    return density


def find_signs(image: Uint8Image) -> Signs | None:
    """image: (H, W, 3) RGB.  None where it is one flat colour."""
    small = images.stretch(image, SIDE)
    red, green, blue = (small[..., i] for i in range(3))
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # (SIDE, SIDE) in 0..255
    if float(np.ptp(grey)) < FLAT:
        return None
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    darkest = np.sort(low, axis=None)[:_DARKEST].mean()
    around = images.darkest_around(low, _AROUND), images.brightest_around(high, _AROUND)
    dark, bright = (plane[_AROUND // 2 :: _AROUND - 1, _AROUND // 2 :: _AROUND - 1] for plane in around)
    return Signs(
        math.log(max(0.01, 1 - float(_veil(darkest, grey.mean())))),
        math.log(_quantile(1 - _veil(dark, bright), _CONTRASTS) + 0.02),
        _log_saturation(low, high),
    )


def _veil(dark: NDArray[np.generic] | float, bright: NDArray[np.generic] | float) -> NDArray[np.float64]:
    """Dark over bright, in [0, 1], as far as neither is the camera's black."""
    above = np.maximum(np.asarray(dark, dtype=np.float64) - _BLACK, 0)
    share: NDArray[np.float64] = above / np.maximum(np.asarray(bright, dtype=np.float64) - _BLACK, _DIM)
    return np.minimum(share, 1.0)


def _log_saturation(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> float:
    """Of (SIDE, SIDE) smallest and largest channels; 0, a clear image's, where the image is grey."""
    chroma = high - low
    if _quantile(chroma, 0.99) <= _GREY:
        return 0.0
    return math.log((_quantile(chroma / np.maximum(high, 5), _SATURATIONS) + 0.05) / _TYPICAL)


def _quantile(values: NDArray[np.generic], share: float) -> float:
    ordered = np.sort(values, axis=None)
    return float(ordered[int(share * (ordered.size - 1))])
