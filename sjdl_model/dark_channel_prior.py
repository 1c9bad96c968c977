"""Defogging by the dark channel prior (He, Sun and Tang 2009), its transmission smoothed by a guided filter (2013).

What two-stage methods are compared by: no training, each image by itself.
"""

import torch.nn.functional as F
from torch import Tensor

WINDOW = 15 / 400  # of the published images' longer side, about 400 pixels
OMEGA = 0.95  # of the fog that is taken away
BRIGHTEST = 0.001  # of the pixels by dark channel, for the airlight
LEAST_TRANSMISSION = 0.1
RADIUS, EPSILON = 60 / 400, 1e-3  # of the guided filter; the window's half, as a share of the side


def defog(foggy: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same without fog."""
    foggy = foggy.float()
    side = max(foggy.shape[-2:])
    window = _odd(WINDOW * side)
    dark = _darkest(foggy.amin(dim=1, keepdim=True), window)  # (B, 1, H, W)
    airlight = _airlight(foggy, dark)  # (B, 3, 1, 1)
    rough = 1 - OMEGA * _darkest((foggy / airlight).amin(dim=1, keepdim=True), window)
    t = _guided(foggy.mean(dim=1, keepdim=True), rough, _odd(2 * RADIUS * side))
    return ((foggy - airlight) / t.clamp_min(LEAST_TRANSMISSION) + airlight).clamp(0, 1)


def _odd(size: float) -> int:
    return 2 * max(1, round((size - 1) / 2)) + 1


def _darkest(plane: Tensor, window: int) -> Tensor:
    return -F.max_pool2d(-plane, window, stride=1, padding=window // 2)


def _airlight(foggy: Tensor, dark: Tensor) -> Tensor:
    """The colour of the brightest of the pixels whose dark channel is brightest."""
    count = max(1, int(BRIGHTEST * dark[0].numel()))
    chosen = dark.flatten(1).topk(count, dim=1).indices  # (B, count)
    colours = foggy.flatten(2).gather(2, chosen[:, None].expand(-1, 3, -1))  # (B, 3, count)
    brightest = colours.mean(dim=1, keepdim=True).argmax(dim=2, keepdim=True)
    return colours.gather(2, brightest.expand(-1, 3, -1))[..., None].clamp_min(0.05)


def _guided(guide: Tensor, plane: Tensor, window: int) -> Tensor:
    """Smooth (B, 1, H, W) along the edges of another: locally it is a linear function of that."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)

    of_guide, of_plane = mean(guide), mean(plane)
    variance = mean(guide * guide) - of_guide**2
    slope = (mean(guide * plane) - of_guide * of_plane) / (variance + EPSILON)
    return mean(slope) * guide + mean(of_plane - slope * of_guide)
