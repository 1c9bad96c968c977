"""Geometry for images of one scene: what happens to the foggy image happens to the clear one."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

PADDING = 10  # pixels on each side before the random crop


def resize(images: Tensor, size: int) -> Tensor:
    """(C, H, W) -> (C, size, size), uint8 or float32, bilinear with antialiasing."""
    resized: Tensor = F.resize(images, [size, size], antialias=True)
    return resized


def augment(images: Tensor, size: int, seed: int, edge_padding: bool = False) -> Tensor:
    """Resize, flip with probability 1/2, pad by PADDING (black, or the edge's pixels) and crop at random: all from
    `seed`.

    images: (C, H, W) uint8 or float32, the channels of one or several images of a scene.  -> (C, size, size).
    """
    draws = np.random.default_rng(seed)
    images = resize(images, size)
    if draws.random() < 0.5:
        images = images.flip(-1)
    top, left = draws.integers(0, 2 * PADDING + 1, size=2).tolist()
    if edge_padding:
        rows, columns = ((torch.arange(size) + start - PADDING).clamp(0, size - 1) for start in (top, left))
        return images[:, rows[:, None], columns]
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    return padded[:, top : top + size, left : left + size]
