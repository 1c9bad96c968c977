"""A prior for re-identification crops: a ground plane, the vehicle standing on it, the background behind."""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ..images import FloatArray, Uint8Image
from ..records import FARTHEST_M, ImageRecord

NEAR_M, FAR_M = 6.0, 20.0  # ray distance at the crop's bottom and top row: a roadside camera
CONTACT, ROOF = 0.92, 0.45  # rows, from the top, where tyres touch the ground and where the background begins


@dataclass(frozen=True)
class Planar:
    """The same for every crop of a size: right in sign and order of magnitude, blind to the picture."""

    name: str = "planar"
    versions: dict[str, str] = field(default_factory=dict, compare=False)

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32."""
        return planar_depth(*image.shape[:2])


def planar_depth(height: int, width: int) -> FloatArray:
    """(height, width) float32: log-normalised distance, the same along a row, never nearer further up.

    From the tyres up to the vehicle's middle it stands upright at one distance; below, the plane comes nearer;
    above, depth goes over smoothly to the plane's. An outline is left out: a wrong one would show in the fog.
    """
    depth: FloatArray = np.empty((height, width), np.float32)
    depth[:] = _profile(height)[:, None]
    return depth


@lru_cache(maxsize=4096)
def _profile(height: int) -> FloatArray:
    """(height,): the depth of each row."""
    y: FloatArray = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(height)  # 0 top, 1 bottom
    plane, board = _depth_of_row(y), _depth_of_row(np.float32(CONTACT))
    share = np.maximum(1 - y / np.float32(ROOF), 0)
    share = share * share * (3 - 2 * share)  # 0 on the vehicle, 1 at the top row
    return np.asarray(np.minimum(plane, board) + share * np.maximum(plane - board, 0), dtype=np.float32)


def _depth_of_row(y: FloatArray | np.float32) -> FloatArray:
    """On a plane seen in perspective 1/z is linear in the row."""
    inverse_m = (1 - y) / FAR_M + y / NEAR_M
    return np.asarray(-np.log(inverse_m) / math.log(FARTHEST_M), dtype=np.float32)
