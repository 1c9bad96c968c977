"""How alike superpixels are, by texture, by colour histogram and by mean colour: Liu et al. 2015, section 3.2.

S^k_pq = exp(-gamma_k ||f_p - f_q||_2 / sqrt(dim f)) where p and q touch, else 0.
"""

import numpy as np
from numpy.typing import NDArray

from ...images import Uint8Image
from .superpixels import Doubles, Superpixels

GAMMAS = (50.0, 25.0, 0.1)  # texture, histogram, colour: the order of the field's betas
_BOX = 8  # pixels a side of the texture's window
_HISTOGRAM = 11  # levels a channel


def similarities(image: Uint8Image, superpixels: Superpixels) -> Doubles:
    """S, (3, n, n), symmetric, in [0, 1], of an image (H, W, 3)."""
    p, q = superpixels.neighbours().T
    found = np.zeros((len(GAMMAS), superpixels.count, superpixels.count))
    features = (texture(image, superpixels), histogram(image, superpixels), superpixels.mean(luv(image)))
    for k, (gamma, feature) in enumerate(zip(GAMMAS, features, strict=True)):
        distance = np.linalg.norm(feature[p] - feature[q], axis=1) / np.sqrt(feature.shape[1])
        found[k, p, q] = found[k, q, p] = np.exp(-gamma * distance)
    return found


def texture(image: Uint8Image, superpixels: Superpixels) -> Doubles:
    """Local binary patterns, (n, 58), of a window of 8 x 8 grey pixels around the middle of each superpixel."""
    grey = np.pad(image @ np.array([0.2989, 0.587, 0.114]), _BOX)
    boxes = superpixels.boxes()
    # one-based middles of the bounding boxes, as in the original
    middles = ((boxes[:, 0::2] + boxes[:, 1::2]) / 2) + 1
    starts = np.ceil(middles - _BOX / 2 + _BOX).astype(int) - 1
    reach = np.arange(_BOX)
    windows = grey[(starts[:, 0, None] + reach)[:, :, None], (starts[:, 1, None] + reach)[:, None, :]]
    centre = windows[:, 1:-1, 1:-1]
    codes = np.zeros(centre.shape, np.int64)
    for bit, (dy, dx) in enumerate(_RING):
        codes |= (windows[:, 1 + dy : _BOX - 1 + dy, 1 + dx : _BOX - 1 + dx] > centre).astype(np.int64) << bit
    weight = 1 - np.abs((np.arange(1, _BOX - 1) + 0.5) / _BOX - 0.5)
    weights = np.broadcast_to(weight[:, None] * weight[None], centre.shape)
    n = len(codes)
    cells = np.arange(n)[:, None, None] * 58 + _BINS[codes]
    counts = np.bincount(cells.ravel(), weights.ravel(), n * 58).reshape(n, 58)
    return np.asarray(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), np.float64)


def histogram(image: Uint8Image, superpixels: Superpixels) -> Doubles:
    """Shares of 11 levels of each channel, (n, 33); levels are centred at 11.1 + 23.3 k."""
    levels = np.clip(np.rint((image - 11.136) / 23.273), 0, _HISTOGRAM - 1).astype(np.int64)
    n, labels = superpixels.count, superpixels.labels
    counts = [
        np.bincount((labels * _HISTOGRAM + levels[..., c]).ravel(), minlength=n * _HISTOGRAM).reshape(n, -1)
        for c in range(3)
    ]
    return np.asarray(np.concatenate(counts, axis=1) / superpixels.areas()[:, None], np.float64)


def luv(image: Uint8Image) -> Doubles:
    """(H, W, 3) -> L in 0..100, u, v, of RGB with gamma 2.2, CIE primaries and white point E."""
    xyz = (image / 255.0) ** 2.2 @ _TO_XYZ.T
    x, y, z = np.moveaxis(xyz, -1, 0)
    total = x + 15 * y + 3 * z
    safe = np.where(total > 0, total, 1)
    lightness = np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, 903.3 * y)
    u = np.where(total > 0, 13 * lightness * (4 * x / safe - 4 / 19), 0)
    v = np.where(total > 0, 13 * lightness * (9 * y / safe - 9 / 19), 0)
    return np.stack([lightness, u, v], -1)


_TO_XYZ = np.array([[0.488718, 0.310680, 0.200602], [0.176204, 0.812985, 0.0108109], [0.0, 0.0102048, 0.989795]])
_RING = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def _uniform_bins() -> NDArray[np.int64]:
    """The bin of each of the 256 patterns: 56 of one run of ones, 56 all alike, 57 all others."""
    bins = np.full(256, 57, np.int64)
    bins[[0, 255]] = 56
    for start in range(8):
        code = 0
        for length in range(1, 8):
            code |= 1 << ((start + length - 1) % 8)
            bins[code] = start * 7 + length - 1
    return bins


_BINS = _uniform_bins()
