"""A prior for re-identification crops: a ground plane, and on it the vehicle as an upright board."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..images import FloatArray, Uint8Image
from ..records import ImageRecord
from . import FARTHEST_M

NEAR_M, FAR_M = 6.0, 20.0  # ray distance at the crop's bottom and top row: a roadside camera
CONTACT = 0.92  # height, from the top, of the line where the tyres touch the ground


@dataclass(frozen=True)
class Planar:
    """The same for every crop of a size: right in sign and order of magnitude, blind to the picture."""

    name: str = "planar"
    batch_size: int = 1

    def predict(self, images: Sequence[Uint8Image], records: Sequence[ImageRecord]) -> list[FloatArray]:
        """(H, W, 3) each -> (H, W) float32 each, read-only."""
        return [planar_depth(*image.shape[:2]) for image in images]


@lru_cache(maxsize=64)
def planar_depth(height: int, width: int) -> FloatArray:
    """(height, width) float32: log-normalised distance of the plane, and of the board in the crop's middle."""
    y = (np.arange(height, dtype=np.float32) + 0.5) / height  # 0 top, 1 bottom
    ground = _depth_of_row(y)
    depth: FloatArray = np.empty((height, width), np.float32)
    depth[:] = ground[:, None]
    top, bottom = round(0.10 * height), round(CONTACT * height)
    left, right = round(0.08 * width), round(0.92 * width)
    depth[top:bottom, left:right] = _depth_of_row(np.float32(CONTACT))
    depth.setflags(write=False)
    return depth


def _depth_of_row(y: FloatArray | np.float32) -> FloatArray:
    """On a plane seen in perspective 1/z is linear in the row."""
    inverse_m = (1 - y) / FAR_M + y / NEAR_M
    return np.asarray(-np.log(inverse_m) / math.log(FARTHEST_M), dtype=np.float32)
