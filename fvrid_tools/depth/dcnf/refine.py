"""From a depth of superpixels to a depth of pixels whose edges are the image's."""

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.sparse import csc_array, diags_array
from scipy.sparse.linalg import spsolve

from ...images import Uint8Image
from .superpixels import Doubles

_SMALLEST_VARIANCE = 2e-6
_GREY = np.array([0.2989, 0.587, 0.114])


def colorize(image: Uint8Image, seeds: Doubles) -> Doubles:
    """Levin et al. 2004: values that change as little as the grey image does, near the seeds. (H, W).

    image: (H, W, 3).  seeds: (H, W), nan where there is none.  Each pixel is the mean of its 3 x 3 neighbours, weighted
    by exp(-(grey difference)^2 / sigma), sigma following the local variance; at a seed, the mean of that and the seed.
    """
    known = np.isfinite(seeds)
    system = diags_array(known.ravel().astype(np.float64)) + affinity_laplacian(image)
    solved = spsolve(csc_array(system), np.where(known, seeds, 0).ravel())
    return np.asarray(solved.reshape(seeds.shape), np.float64)


def affinity_laplacian(image: Uint8Image) -> csc_array:
    """I - W, (HW, HW): rows sum to 0, W holds each pixel's weights of its neighbours."""
    grey = image / 255.0 @ _GREY
    height, width = grey.shape
    padded = np.pad(grey, 1, constant_values=np.nan)
    offsets = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    around = np.stack([padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in offsets])
    variance = np.nanvar(np.concatenate([around, grey[None]]), axis=0)
    squares = (around - grey) ** 2
    sigma = np.maximum(np.maximum(0.6 * variance, -np.nanmin(squares, axis=0) / np.log(0.01)), _SMALLEST_VARIANCE)
    weights = np.where(np.isfinite(squares), np.exp(-squares / sigma), 0)
    weights /= weights.sum(axis=0)
    pixels = np.arange(height * width).reshape(height, width)
    shifts = np.array([dy * width + dx for dy, dx in offsets])
    rows = np.broadcast_to(pixels, weights.shape)
    used = weights > 0
    columns = (pixels[None] + shifts[:, None, None])[used]
    off = csc_array((weights[used], (rows[used], columns)), shape=(pixels.size, pixels.size))
    return csc_array(diags_array(np.ones(pixels.size)) - off)


def guided(image: Uint8Image, coarse: Doubles, radius: int, epsilon: float = 1e-3) -> Doubles:
    """He et al. 2010: `coarse` (H, W) smoothed so that its edges are those of the grey image (H, W, 3).

    In each window of 2 radius + 1 pixels a side the result is linear in grey; epsilon, a variance of grey in
    [0, 1], is the contrast below which an image is taken for flat.
    """
    grey = image / 255.0 @ _GREY
    size = 2 * radius + 1

    def mean(values: Doubles) -> Doubles:
        averaged: Doubles = uniform_filter(values, size, mode="nearest")
        return averaged

    mean_grey, mean_coarse = mean(grey), mean(coarse)
    slope = (mean(grey * coarse) - mean_grey * mean_coarse) / (mean(grey**2) - mean_grey**2 + epsilon)
    return np.asarray(mean(slope) * grey + mean(mean_coarse - slope * mean_grey), np.float64)
