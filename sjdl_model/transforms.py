"""Geometry for images of one scene: what happens to the foggy image happens to the clear one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fvrid_tools.images import moved

PADDING = 10  # pixels on each side before the random crop


class View(NamedTuple):
    """What a visit sees of an image: flipped or not, through a window as large as it, whose corner is at (top, left)
    and may lie outside."""

    flipped: bool
    top: int
    left: int


def draw_view(seed: int) -> View:
    """A flip with probability 1/2, and a random crop of an image that PADDING makes larger."""
    draws = np.random.default_rng(seed)
    flipped = draws.random() < 0.5
    return View(flipped, *(draws.integers(0, 2 * PADDING + 1, size=2) - PADDING).tolist())


def resize(image: Tensor, size: int) -> Tensor:
    """(C, H, W) -> (C, size, size), uint8 or float32, bilinear with antialiasing."""
    resized: Tensor = F.resize(image, [size, size], antialias=True)
    return resized


def augment(image: Tensor, size: int, seed: int, edge_padding: bool = False) -> Tensor:
    """Resize, and look at it as `draw_view` says, the same for all images of a scene. Beyond the image all is black,
    or goes on with the pixels of the edge.

    image: (C, H, W) uint8 or float32.  -> (C, size, size).
    """
    flipped, top, left = draw_view(seed)
    image = resize(image, size)
    if flipped:
        image = image.flip(-1)
    # pixel by pixel, as images are decoded: torch's own padding and indexing took ten times as long
    found = moved(image.permute(1, 2, 0).numpy(), top, left, edge=edge_padding)
    return torch.from_numpy(found).permute(2, 0, 1)


def look_at(images: Tensor, positions: Tensor, views: Sequence[View], edge_padding: bool = False) -> Tensor:
    """`augment` of images that are resized and lie on a device.

    images: (N, S, S, C).  positions: (B,) among them.  -> (B, C, S, S), channels last.
    """
    size = images.shape[1]
    flipped, top, left = torch.tensor(views, device="cpu").to(images.device, non_blocking=True).T  # (B,) each
    line = torch.arange(size, device=images.device)
    rows, columns = line + top[:, None], line + left[:, None]  # (B, S)
    columns = torch.where(flipped[:, None] > 0, size - 1 - columns, columns)
    inner = [of.clamp(0, size - 1) for of in (rows, columns)]
    seen = images[positions[:, None, None], inner[0][:, :, None], inner[1][:, None, :]]
    if not edge_padding:
        inside = (rows == inner[0])[:, :, None] & (columns == inner[1])[:, None, :]
        seen = seen * inside[..., None]
    return seen.permute(0, 3, 1, 2)
