"""What a camera sees of a view: path-traced light without visible noise, and exact distances.

Without fog, radiance is traced with few paths a pixel and denoised, the denoiser being told the surfaces' colours,
which cost little. In fog that would draw edges which no camera could see, so the two parts of the image are
estimated each by itself:

    radiance = transmittance * surface + inscatter

`surface` is what the first surface sends to the camera, lit by all the light that the fog scatters on it: traced
by a camera that is not told of the fog, so that no path is lost on the way, and denoised as without fog.
`transmittance` follows from distance and density. `inscatter` is what is left when their product is taken from
the whole, traced with the fog: noisy, but smooth in space and in transmittance, so that a fit to the whole image
and a wide average of what the fit leaves give it with little noise. So the sum is the path-traced image, but for the
smoothing, the denoiser, and paths of one in a million; benchmarks/mini_fog.py measures by how much.
"""

from dataclasses import dataclass
from typing import Any

import mitsuba as mi
import numpy as np
import pyoidn

from .light import Fog, density
from .meshes import Array
from .plan import View
from .scene import FOG_BOX, FRAME_WIDTH, NEAR_CLIP, Loaded, Scene, Window, build_scene, camera_of, sensor, window_of

_ALBEDO_SAMPLES = 16
_IN_AIR = {"type": "path", "max_depth": 5}
_IN_FOG = {"type": "volpath", "max_depth": 12, "rr_depth": 4}
_SMOOTH = 4.0  # standard deviation of the average of the inscatter, in its own pixels: a quarter as many a side


@dataclass(frozen=True, slots=True)
class Seen:
    """What a camera saw."""

    radiance: Array  # (S, S, 3) linear RGB
    distance: Array | None  # (S, S) along the rays through the pixels' centres, metres; inf: sky; None in fog
    native: float  # side of the crop in pixels of the camera's frame


def render_view(view: View, vehicle: Loaded, size: int, samples: int) -> Seen:
    """Trace a view: `size` pixels a side (a multiple of 4), `samples` paths a pixel."""
    window = window_of(view, vehicle)
    scene = build_scene(view, vehicle)
    albedo = _render(scene.albedo, sensor(view, window, size, _ALBEDO_SAMPLES), {"type": "path", "max_depth": 1}, 1)
    albedo = np.clip(albedo, 0, 1)
    native = window[2] * FRAME_WIDTH
    if view.fog is None:
        radiance = _clear(scene, view, window, size, samples, albedo)
        return Seen(radiance, _distance(scene, view, window, size), native)
    return Seen(_foggy(scene, view, view.fog, window, size, samples, albedo), None, native)


def render_reference(view: View, vehicle: Loaded, size: int, samples: int, through_fog: bool = True) -> Array:
    """The daylight of a view as Mitsuba traces it, (S, S, 3): nothing separated, nothing denoised. For checks.

    With `through_fog` false the fog between camera and surfaces is left out; it still lights and shades them.
    """
    scene = build_scene(view, vehicle)
    camera = sensor(view, window_of(view, vehicle), size, samples, scene.medium if through_fog else None)
    return _render(scene.daylight, camera, _IN_FOG, view.seed)


def mean_transmittance(view: View, vehicle: Loaded, size: int) -> Array:
    """The fog's transmittance up to the first surface, (S, S), averaged over each pixel."""
    assert view.fog is not None
    window = window_of(view, vehicle)
    fine = _distance(build_scene(view, vehicle), view, window, 4 * size)
    return _halve(_halve(transmittance(view.fog, view, fine, window)))


def denoise(radiance: Array, albedo: Array | None = None) -> Array:
    """Open Image Denoise; `albedo` is free of noise."""
    cleaned = pyoidn.denoise(np.ascontiguousarray(radiance), albedo=albedo, hdr=True, clean_aux=albedo is not None)
    return np.maximum(np.asarray(cleaned, np.float32), 0)


def _clear(scene: Scene, view: View, window: Window, size: int, samples: int, albedo: Array) -> Array:
    lit = {**scene.daylight, **(scene.lamplight or {})}
    return denoise(_render(lit, sensor(view, window, size, samples), _IN_AIR, view.seed), albedo)


def _foggy(scene: Scene, view: View, fog: Fog, window: Window, size: int, samples: int, albedo: Array) -> Array:
    surface = _render(scene.daylight, sensor(view, window, size, max(1, samples // 2)), _IN_FOG, view.seed)
    surface = denoise(surface, albedo)
    fine = transmittance(fog, view, _distance(scene, view, window, 2 * size), window)
    through = _halve(fine)[..., None]
    quarter = sensor(view, window, size // 4, 4 * samples, scene.medium)
    whole = _render(scene.daylight, quarter, _IN_FOG, view.seed + 1)
    radiance = through * surface + _inscatter(whole - _halve(_halve(through * surface)), through)
    if scene.lamplight:
        half = sensor(view, window, size // 2, samples, scene.medium)
        radiance += _double(denoise(_render(scene.lamplight, half, _IN_FOG, view.seed + 2)))
    return np.maximum(radiance, 0)


def transmittance(fog: Fog, view: View, distance: Array, window: Window) -> Array:
    """exp of minus the optical thickness up to `distance` (S, S) metres along each pixel's ray."""
    if fog.kind == "homogeneous":
        return np.exp(-fog.extinction * distance)
    size = distance.shape[0]
    origin, axes, focal = camera_of(view)
    across, down = _on_frame(window, size)
    rays = np.stack((across / focal, down / focal, np.ones_like(across)), -1) @ axes
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    grid = density(view.fog_seed)
    steps = 48
    total = np.zeros_like(distance)
    for i in range(steps):
        at = origin + rays * (distance * (i + 0.5) / steps)[..., None]
        total += _trilinear(grid, at, fog.thickness)
    result: Array = np.exp(-fog.extinction * total / steps * distance).astype(np.float32)
    return result


def _trilinear(grid: Array, at: Array, thickness: float) -> Array:
    x0, x1, half = FOG_BOX
    shape = np.array(grid.shape[::-1])
    share = (at - (x0, -half, -0.5)) / (x1 - x0, 2 * half, thickness)
    place = np.clip(share * shape - 0.5, 0, shape - 1.000001)
    low = place.astype(int)
    x, y, z = np.moveaxis(low, -1, 0)
    fx, fy, fz = np.moveaxis(place - low, -1, 0)
    value = np.zeros(at.shape[:-1])
    for dz, wz in ((0, 1 - fz), (1, fz)):
        for dy, wy in ((0, 1 - fy), (1, fy)):
            for dx, wx in ((0, 1 - fx), (1, fx)):
                value += wz * wy * wx * grid[z + dz, y + dy, x + dx]
    return value


def _inscatter(rest: Array, through: Array) -> Array:
    """Light scattered into the rays, (S, S, 3), from a noisy estimate (S/4, S/4, 3), given transmittance (S, S, 1)."""
    rest = np.clip(rest, None, rest.mean(axis=(0, 1)) + 8 * rest.std(axis=(0, 1)))  # a path in a million
    coarse = _basis(_halve(_halve(through)))
    weights, *_ = np.linalg.lstsq(coarse, rest.reshape(-1, 3), rcond=None)
    left = (rest.reshape(-1, 3) - coarse @ weights).reshape(rest.shape)
    size = through.shape[0]
    fitted = (_basis(through) @ weights).reshape(size, size, 3)
    return fitted + _double(_double(_average(left.astype(np.float32), _SMOOTH)))


def _basis(through: Array) -> Array:
    """Polynomials in the place on the image times powers of what the fog holds back; nothing where it holds none."""
    size = through.shape[0]
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    place = [np.ones_like(x), x, y, x * x, x * y, y * y]
    held = 1 - through[..., 0]
    return np.stack([p * h for p in place for h in (held, held**2)], -1).reshape(size * size, -1)


def _distance(scene: Scene, view: View, window: Window, size: int) -> Array:
    """From the camera along one ray through the middle of each pixel: nothing is mixed at edges.

    In fog a ray that meets no surface ends at the wall of the fog's box, as the optical thickness does.
    """
    exact = _render(scene.daylight, sensor(view, window, size, 1), {"type": "depth"}, 0)[..., 0]
    _, _, focal = camera_of(view)
    x, y = _on_frame(window, size)
    before = NEAR_CLIP * np.sqrt(1 + (x / focal) ** 2 + (y / focal) ** 2)  # where Mitsuba begins to count
    return np.where(exact > 0, exact + before, np.inf)


def _on_frame(window: Window, size: int) -> tuple[Array, Array]:
    """x and y of the pixels' centres in widths of the frame, each (S, S)."""
    left, top, side = window
    place = (np.arange(size) + 0.5) * side / size
    x, y = np.meshgrid(left + place, top + place)
    return x, y


def _halve(image: Array) -> Array:
    size = image.shape[0] // 2
    return image.reshape(size, 2, size, 2, *image.shape[2:]).mean(axis=(1, 3))


def _double(image: Array) -> Array:
    size = image.shape[0]
    place = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    low = np.minimum(place.astype(int), size - 2)
    share = (place - low).astype(np.float32)
    rows = image[low] * (1 - share)[:, None, None] + image[low + 1] * share[:, None, None]
    return rows[:, low] * (1 - share)[None, :, None] + rows[:, low + 1] * share[None, :, None]


def _average(image: Array, sigma: float) -> Array:
    size = image.shape[0]
    offsets = np.arange(size)[:, None] - np.arange(size)[None]
    weights = np.exp(-0.5 * (offsets / sigma) ** 2).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ij,jkc,lk->ilc", weights, image, weights, optimize=True)


def _render(scene: dict[str, Any], camera: Any, integrator: dict[str, Any], seed: int) -> Array:
    traced = mi.render(mi.load_dict(scene), sensor=camera, integrator=mi.load_dict(integrator), seed=seed)
    return np.nan_to_num(np.array(traced, np.float32), nan=0.0, posinf=0.0)
