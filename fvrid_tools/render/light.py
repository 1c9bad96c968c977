"""Sky, sun and fog of a view. Radiances are relative: 1 is an overcast noon sky."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .meshes import Array, fractal

FogKind = Literal["homogeneous", "patchy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fog:
    """A layer of fog around camera and vehicle."""

    kind: FogKind
    visibility: float  # metres, meteorological: contrast of 5 %, so the mean extinction is 3 / visibility
    albedo: float = 0.995  # single scattering
    asymmetry: float = 0.75  # of the Henyey-Greenstein phase function
    thickness: float = 17.0  # metres

    @property
    def extinction(self) -> float:
        """Mean extinction coefficient in 1 / m (Koschmieder: exp(-sigma V) = 0.05)."""
        return 3.0 / self.visibility


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Time of day and weather. hour: 7 to 19, the sun is up; clouds: 0 clear to 1 overcast."""

    hour: float
    clouds: float
    seed: int

    @property
    def elevation(self) -> float:
        """Of the sun, radians."""
        return float(np.radians(58) * np.sin(np.pi * (self.hour - 6.2) / 12.8))

    @property
    def dusk(self) -> bool:
        """Whether the sun is so low that street lamps are lit."""
        return self.hour > 18.4

    def sun(self, north: float) -> tuple[Array, Array]:
        """The way its light goes (3,), and its irradiance across it (3,), linear RGB."""
        azimuth = north + 2 * np.pi * (self.hour - 12) / 24
        up = max(self.elevation, 0.02)
        towards = np.array([np.cos(azimuth) * np.cos(up), np.sin(azimuth) * np.cos(up), np.sin(up)])
        strength = 3.4 * (1 - self.clouds) ** 1.5 * np.clip(np.sin(self.elevation) * 2.2, 0, 1)
        warm = np.exp(-0.22 / (np.sin(up) + 0.08) * np.array([0.25, 0.6, 1.3]))
        return -towards, strength * warm / warm.max()

    def sky(self, size: tuple[int, int] = (64, 128)) -> Array:
        """Radiance in all directions (rows from the zenith down, columns round), linear RGB."""
        rng = np.random.default_rng([self.seed, 11])
        rows, columns = size
        up = np.pi / 2 - (np.arange(rows) + 0.5) / rows * np.pi
        day = float(np.clip(np.sin(self.elevation) * 3 + 0.16, 0.05, 1.0))
        height = np.clip(np.sin(up), 0, 1)[:, None, None]
        blue = np.array([0.2, 0.38, 0.8]) * (1 - height) ** 0.4 + np.array([0.12, 0.26, 0.62]) * height
        haze = np.array([0.75, 0.78, 0.8]) * np.exp(-6 * height)
        low = np.clip(1 - np.sin(max(self.elevation, 0)) * 2.5, 0, 1)
        glow = low * np.exp(-5 * height) * np.array([0.5, 0.22, 0.02])
        clear = blue + haze * (1 - 0.4 * low) + glow
        noise = fractal(rng, size, 6, 5)
        noise[:, -16:] += (noise[:, :1] - noise[:, -1:]) * np.linspace(0, 1, 16)  # closes the circle
        cover = np.clip((noise - 0.62 + 0.62 * self.clouds) * 5, 0, 1)[..., None]
        cloud = (0.55 + 0.6 * noise[..., None]) * np.array([0.97, 0.98, 1.0]) * (1 - 0.15 * height)
        sky = day * (clear * (1 - cover) + cloud * cover)
        if self.dusk:
            sky *= np.array([0.8, 0.9, 1.25])
        skyline = 0.05 + 0.16 * fractal(rng, (2, columns), 14, 2)[0]
        below = (up[:, None] < skyline[None])[..., None]
        town = day * np.array([0.16, 0.155, 0.15]) * (0.4 + 1.2 * fractal(rng, size, 24, 2))[..., None]
        ground = day * np.array([0.13, 0.125, 0.12])
        sky = np.where(below, town, sky)
        sky = np.where((up < 0)[:, None, None], ground, sky)
        result: Array = sky.astype(np.float32)
        return result


def density(seed: int, shape: tuple[int, int, int] = (12, 28, 40)) -> Array:
    """Patchy fog: relative density (z, y, x) with mean 1, from about 0.15 to 2.4, thinning upwards."""
    rng = np.random.default_rng([seed, 12])
    depth, rows, columns = shape
    layers = np.stack([fractal(rng, (rows, columns), 3, 3) for _ in range(4)])
    place = np.linspace(0, 3, depth)
    low = np.minimum(place.astype(int), 2)
    share = (place - low)[:, None, None]
    field = layers[low] * (1 - share) + layers[low + 1] * share
    field = np.clip((field - 0.5) * 4 + 1, 0.2, 1.9) * np.linspace(1.15, 0.7, depth)[:, None, None]
    return (field / field.mean()).astype(np.float32)
