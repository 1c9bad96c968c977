"""Geometry for images of one scene: what happens to the foggy image happens to the clear one."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

PADDING = 10  # pixels on each side before the random crop


def resize(image: Tensor, size: int) -> Tensor:
    """(C, H, W) -> (C, size, size), uint8 or float32, bilinear with antialiasing."""
    resized: Tensor = F.resize(image, [size, size], antialias=True)
    return resized


def augment(image: Tensor, size: int, seed: int, edge_padding: bool = False) -> Tensor:
    """Resize, flip with probability 1/2, pad by PADDING (black, or the edge's pixels) and crop at random: all from
    `seed`, the same for all images of a scene.

    image: (C, H, W) uint8 or float32.  -> (C, size, size).
    """
    draws = np.random.default_rng(seed)
    image = resize(image, size)
    if draws.random() < 0.5:
        image = image.flip(-1)
    top, left = (draws.integers(0, 2 * PADDING + 1, size=2) - PADDING).tolist()
    return _moved(image, top, left, edge_padding)


def _moved(image: Tensor, top: int, left: int, edge_padding: bool) -> Tensor:
    """What a window as large as the image sees whose corner is at (top, left), which may be negative."""
    height, width = image.shape[1:]
    inside = image[:, max(0, top) : height + min(0, top), max(0, left) : width + min(0, left)]
    around = (max(0, -top), max(0, top), max(0, -left), max(0, left))
    border = cv2.BORDER_REPLICATE if edge_padding else cv2.BORDER_CONSTANT
    # pixel by pixel, as images are decoded: torch's own padding and indexing took ten times as long
    moved = cv2.copyMakeBorder(inside.permute(1, 2, 0).numpy(), *around, border)
    return torch.from_numpy(moved.reshape(height, width, -1)).permute(2, 0, 1)
