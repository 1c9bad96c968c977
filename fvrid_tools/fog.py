"""The atmospheric scattering model, Eq. 1 of the paper: I = J t + A (1 - t), t = exp(-beta d). No files.

Images are float in [0, 1]; depth d is in [0, 1], 0 nearest and 1 farthest (log-normalised distance, so that
d = log(z / 1 m) / log(81)); the airlight A is one grey value in [0, 1]. beta is per unit of d, as the original has it;
a beta that is a `PerDistance` is per 81 m of the distance z itself, as fog is: t = exp(-beta z / 81 m).
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import images
from .images import FloatArray, Uint8Image
from .records import FARTHEST_M, OptionError


class PerDistance(float):
    """A beta per 81 m of distance, not per unit of log-normalised distance: log(20) * 81 m / V of a visibility V."""


class FogDraw(NamedTuple):
    """The fog of one image."""

    beta: float
    airlight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FogRange:
    """Uniform ranges of beta and A. OptionError where one is out of order, negative, or A is above 1."""

    beta: tuple[float, float]
    airlight: tuple[float, float]
    by_distance: bool = False  # beta is drawn as a PerDistance

    def __post_init__(self) -> None:
        for name, (low, high), most in (("beta", self.beta, math.inf), ("airlight", self.airlight, 1.0)):
            if not (math.isfinite(high) and 0 <= low <= high <= most):
                limit = "0 <= LO <= HI" + (" <= 1" if most == 1 else "")
                raise OptionError(f"--{name} {low:g} {high:g}: the range needs {limit}.")

    def draw(self, seed: int, image_id: str) -> FogDraw:
        """The fog of an image: a function of (seed, image_id) alone, so no order of work can change it.

        Taken from a hash, not a random generator, whose streams may change between versions of a library.
        """
        digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
        beta, airlight = (int.from_bytes(part) / 2**64 for part in (digest[:8], digest[8:16]))  # in [0, 1]
        drawn = _between(self.beta, beta)
        return FogDraw(PerDistance(drawn) if self.by_distance else drawn, _between(self.airlight, airlight))

    def describe(self) -> dict[str, Any]:
        """As dataset.json has it; `read` reads it."""
        described = {"beta": self.beta, "airlight": self.airlight}
        return described | ({"by_distance": True} if self.by_distance else {})

    @classmethod
    def read(cls, described: dict[str, Any]) -> "FogRange":
        """What `describe` gave."""
        beta, airlight = (tuple(described[name]) for name in ("beta", "airlight"))
        return cls(beta=beta, airlight=airlight, by_distance=described.get("by_distance", False))


@dataclass(frozen=True, slots=True)
class GivenFog:
    """The fog that the source's own foggy images are in already; its beta and A are not known."""


def _between(limits: tuple[float, float], share: float) -> float:
    low, high = limits
    return low + (high - low) * share


PRESETS = {
    "paper": FogRange(beta=(0.4, 1.6), airlight=(0.5, 1.0)),  # the paper's text, "Synthetic Dataset"
    "release": FogRange(beta=(1.0, 5.0), airlight=(0.4, 1.0)),  # the authors' later script, and the paper's Fig. 4
    "wide": FogRange(beta=(0.2, 5.0), airlight=(0.3, 1.0)),  # both and what lies beyond: to train on, docs/results.md
    # a visibility (5 % of the contrast left) of 150 to 25 m
    "physical": FogRange(
        beta=(math.log(20) * FARTHEST_M / 150, math.log(20) * FARTHEST_M / 25), airlight=(0.3, 1.0), by_distance=True
    ),
}


def transmission(depth: NDArray[np.floating], beta: float) -> FloatArray:
    """t = exp(-beta d).  depth: (H, W) in [0, 1].  -> (H, W) float32 in (0, 1]."""
    depth = np.asarray(depth, dtype=np.float32)
    if isinstance(beta, PerDistance):
        depth = relative_distance(depth)
    t: FloatArray = np.exp(depth * np.float32(-beta))
    return t


def depth_of(metres: NDArray[Any]) -> NDArray[Any]:
    """d of distances in metres: log z / log 81, in [0, 1]."""
    return np.asarray(np.log(np.clip(metres, 1.0, FARTHEST_M)) / np.log(FARTHEST_M))


def relative_distance(depth: Any) -> Any:
    """d -> z / 81 m, of an array or a tensor."""
    return FARTHEST_M ** (depth - 1)


def add_fog(clear: NDArray[np.floating], depth: NDArray[np.floating], beta: float, airlight: float) -> FloatArray:
    """Eq. 1.  clear: (H, W, 3) float in [0, 1].  depth: (H, W) in [0, 1], 0 nearest.  -> (H, W, 3) float32, [0, 1]."""
    if not (np.issubdtype(clear.dtype, np.floating) and np.issubdtype(depth.dtype, np.floating)):
        raise ValueError(f"clear is {clear.dtype} and depth {depth.dtype}: both must be floats in [0, 1]")
    if clear.shape[:2] != depth.shape:
        raise ValueError(f"clear is {clear.shape[:2]} pixels and depth {depth.shape}: they must agree")
    t = transmission(depth, beta)[..., None]  # (H, W, 1)
    return np.asarray(clear, dtype=np.float32) * t + np.float32(airlight) * (1 - t)


class FogSynthesizer:
    """`add_fog` for 8-bit images and 16-bit depth in one pass, float32 inside, rounded once.

    Written as I = (J - A) t + A on the 0..255 scale, with buffers that are kept between images: fresh
    megabyte arrays for every step would cost more than the arithmetic.
    """

    def __init__(self) -> None:
        self._plane = np.empty(0, np.float32)
        self._weight = np.empty(0, np.float32)
        self._colour = np.empty(0, np.float32)
        self._foggy = np.empty(0, np.uint8)

    def __call__(self, clear: Uint8Image, depth: NDArray[np.uint16], fog: FogDraw) -> Uint8Image:
        """clear: (H, W, 3).  depth: (H, W), 65535 farthest.  -> (H, W, 3), valid until the next call."""
        if self._foggy.size < clear.size:
            self._plane = np.empty(depth.size, np.float32)
            self._weight = np.empty(clear.size, np.float32)
            self._colour = np.empty(clear.size, np.float32)
            self._foggy = np.empty(clear.size, np.uint8)
        t = self._plane[: depth.size].reshape(depth.shape)
        t3 = self._weight[: clear.size].reshape(clear.shape)
        colour = self._colour[: clear.size].reshape(clear.shape)
        foggy = self._foggy[: clear.size].reshape(clear.shape)
        if isinstance(fog.beta, PerDistance):
            np.multiply(depth, np.float32(math.log(FARTHEST_M) / 65535), out=t)
            images.exponential(t)  # metres
            t *= np.float32(-fog.beta / FARTHEST_M)
        else:
            np.multiply(depth, np.float32(-fog.beta / 65535), out=t)
        images.exponential(t)
        images.repeat_channels(t, t3)
        np.copyto(colour, clear)
        colour -= np.float32(255 * fog.airlight)
        colour *= t3
        images.add_and_round(colour, 255 * fog.airlight, foggy)
        return foggy
