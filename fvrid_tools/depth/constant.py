"""The same depth everywhere: fog without structure, the control of every comparison of estimators."""

import math
from dataclasses import dataclass, field

import numpy as np

from ..images import FloatArray, Uint8Image
from ..records import ImageRecord


@dataclass(frozen=True)
class Constant:
    """Depth `value` at every pixel; 0.45 is the median of the published FVRID_Syn fog, about 7 m.

    Raises ValueError where `value` is outside [0, 1].
    """

    value: float = 0.45
    versions: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.value <= 1):
            raise ValueError(f"{self.value} is not a depth in [0, 1]")

    @property
    def name(self) -> str:
        return f"constant:{self.value:g}"

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32."""
        return np.full(image.shape[:2], self.value, np.float32)
