"""Triangle meshes made of a few kinds of surface, and textures painted on them by position.

Lengths are metres; x points ahead, y to the left, z up. A surface is a grid of points (U, V, 3): the texture's
columns run along U, its rows along V, so a texel's place in space is the grid, resampled (`texels`), and a
painter needs no other parameterisation than "where is this point".
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of numbers; docstrings give shapes


@dataclass(frozen=True, slots=True)
class Texture:
    """What a surface looks like: colour (H, W, 3) linear, the others (H, W), all in [0, 1]."""

    colour: Array
    roughness: Array
    metallic: Array
    coat: Array  # clear coat over the colour: paint, glass, plastic lenses


@dataclass(frozen=True, slots=True)
class Part:
    """A mesh with its texture."""

    vertices: Array  # (N, 3)
    faces: NDArray[np.uint32]  # (M, 3)
    normals: Array | None  # (N, 3); None: shaded face by face
    uv: Array  # (N, 2)
    texture: Texture

    def placed(self, at: tuple[float, float, float], yaw: float = 0.0) -> "Part":
        """Turned by `yaw` (radians, about z) and moved."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
        normals = None if self.normals is None else self.normals @ turn
        return replace(self, vertices=self.vertices @ turn + np.array(at, np.float32), normals=normals)


@dataclass(slots=True)
class Canvas:
    """A texture being painted: `at` (H, W, 3) is where each texel lies, `normal` which way it faces."""

    at: Array
    normal: Array
    colour: Array = field(init=False)
    roughness: Array = field(init=False)
    metallic: Array = field(init=False)
    coat: Array = field(init=False)

    def __post_init__(self) -> None:
        shape = self.at.shape[:2]
        self.colour = np.zeros((*shape, 3), np.float32)
        self.roughness = np.full(shape, 0.5, np.float32)
        self.metallic = np.zeros(shape, np.float32)
        self.coat = np.zeros(shape, np.float32)

    def fill(
        self,
        where: Array | NDArray[np.bool_],
        colour: tuple[float, float, float] | Array,
        roughness: float | None = None,
        metallic: float | None = None,
        coat: float | None = None,
    ) -> None:
        """Lay a colour over the texels `where` (opacity in [0, 1], or a mask)."""
        opacity = np.asarray(where, np.float32)
        self.colour += opacity[..., None] * (np.asarray(colour, np.float32) - self.colour)
        for layer, value in ((self.roughness, roughness), (self.metallic, metallic), (self.coat, coat)):
            if value is not None:
                layer += opacity * (np.float32(value) - layer)

    def texture(self) -> Texture:
        return Texture(
            np.clip(self.colour, 0.0, 1.0),
            np.clip(self.roughness, 0.04, 1.0),
            np.clip(self.metallic, 0.0, 1.0),
            np.clip(self.coat, 0.0, 1.0),
        )


Painter = Callable[[Canvas], None]


def surface(points: Array, size: tuple[int, int], paint: Painter, flat: bool = False) -> Part:
    """A grid of points (U, V, 3), painted on a texture of `size` (rows, columns). Faces look along dU x dV."""
    along, across = points.shape[:2]
    index = np.arange(along * across, dtype=np.uint32).reshape(along, across)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack((a, b, c), -1).reshape(-1, 3), np.stack((a, c, d), -1).reshape(-1, 3)])
    u, v = np.meshgrid(np.linspace(0, 1, along), np.linspace(0, 1, across), indexing="ij")
    canvas = Canvas(*texels(points, size))
    paint(canvas)
    uv = np.stack((u, v), -1).reshape(-1, 2).astype(np.float32)
    vertices = points.reshape(-1, 3).astype(np.float32)
    return Part(vertices, faces, None if flat else _normals(vertices, faces), uv, canvas.texture())


def _normals(vertices: Array, faces: NDArray[np.uint32]) -> Array:
    """Unit vertex normals (N, 3), area-weighted, joined where vertices coincide."""
    corners = vertices[faces]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    _, joined = np.unique(np.round(vertices, 4), axis=0, return_inverse=True)
    joined = joined.ravel()
    total = np.zeros((joined.max() + 1, 3))
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(joined[faces[:, corner]], face[:, axis], len(total))
    total /= np.linalg.norm(total, axis=1, keepdims=True) + 1e-12
    return total[joined].astype(np.float32)


def texels(points: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Place and unit normal of every texel of a grid of points (U, V, 3) -> two (rows, columns, 3)."""
    rows, columns = size
    at = _resample(_resample(points.astype(np.float32), columns, 0), rows, 1).transpose(1, 0, 2)
    along, across = np.gradient(at, axis=1), np.gradient(at, axis=0)
    normal = np.cross(along, across)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    return np.ascontiguousarray(at), normal.astype(np.float32)


def _resample(grid: Array, count: int, axis: int) -> Array:
    """Linear interpolation at `count` texel centres."""
    length = grid.shape[axis]
    place = (np.arange(count) + 0.5) / count * (length - 1)
    low = np.minimum(place.astype(int), length - 2)
    share = (place - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(grid.ndim)])
    return np.take(grid, low, axis) * (1 - share) + np.take(grid, low + 1, axis) * share


def box(centre: tuple[float, float, float], size: tuple[float, float, float], paint: Painter, texel: int = 64) -> Part:
    """A closed box as one surface: six faces side by side in the texture would waste it, so it is unrolled round z."""
    (x, y, z), (lx, ly, lz) = centre, (s / 2 for s in size)
    ring = np.array([[lx, -ly], [lx, ly], [-lx, ly], [-lx, -ly], [lx, -ly]], np.float32)
    ring = np.repeat(ring, 2, axis=0)[1:-1]  # doubled corners keep the edges sharp
    levels = [(0.0, -lz), (1.0, -lz), (1.0, -lz), (1.0, lz), (1.0, lz), (0.0, lz)]
    grid = np.empty((len(ring), len(levels), 3), np.float32)
    for i, (spread, height) in enumerate(levels):
        grid[:, i, :2] = ring * spread + (x, y)
        grid[:, i, 2] = z + height
    return surface(grid, (texel, texel * 2), paint, flat=True)


def revolve(profile: Array, centre: tuple[float, float, float], paint: Painter, steps: int) -> Part:
    """A profile (N, 2) of (radius, height to the right) turned about an axis along y: wheels."""
    turn = np.linspace(0, 2 * np.pi, steps + 1)
    radius, height = profile[:, 0], profile[:, 1]
    grid = np.empty((steps + 1, len(profile), 3), np.float32)
    circle = np.stack((np.cos(turn), np.sin(turn)), -1)[:, None] * radius[None, :, None]
    grid[..., 0], grid[..., 2], grid[..., 1] = circle[..., 0], circle[..., 1], -height
    grid += np.array(centre, np.float32)
    return surface(grid, (64, 64), paint)


def limb(
    start: tuple[float, float, float], end: tuple[float, float, float], radii: tuple[float, float], paint: Painter
) -> Part:
    """A rounded rod from start to end: limbs, tubes, trunks, poles."""
    a, b = np.array(start, float), np.array(end, float)
    ahead = (b - a) / (np.linalg.norm(b - a) + 1e-9)
    side = np.cross(ahead, [0, 0, 1] if abs(ahead[2]) < 0.9 else [1, 0, 0])
    side /= np.linalg.norm(side)
    other = np.cross(ahead, side)
    cap = np.linspace(np.pi / 2, 0, 4)
    radius = np.concatenate([radii[0] * np.cos(cap), radii[1] * np.cos(cap[::-1])])
    offset = np.concatenate([-radii[0] * np.sin(cap), radii[1] * np.sin(cap[::-1])])
    base = np.where(np.arange(8)[:, None] < 4, a, b) + offset[:, None] * ahead
    turn = np.linspace(0, 2 * np.pi, 11)
    circle = np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * other
    grid = base[None] + circle[:, None] * radius[None, :, None]
    return surface(grid.astype(np.float32), (24, 24), paint)


def plain(
    colour: tuple[float, float, float], roughness: float = 0.6, coat: float = 0.0, metallic: float = 0.0
) -> Painter:
    """One colour all over."""

    def paint(canvas: Canvas) -> None:
        canvas.fill(np.ones(canvas.at.shape[:2], np.float32), colour, roughness, metallic, coat)

    return paint


def fractal(rng: np.random.Generator, shape: tuple[int, int], cells: float = 4.0, octaves: int = 4) -> Array:
    """Fractal value noise (rows, columns), about [0, 1] with mean 0.5; `cells` of the coarsest octave down the rows."""
    rows, columns = shape
    total, weight, amplitude = np.zeros(shape, np.float32), 0.0, 1.0
    for octave in range(octaves):
        size = max(2, round(cells * 2**octave)), max(2, round(cells * 2**octave * columns / rows))
        grid = rng.random((size[0] + 1, size[1] + 1), np.float32)
        total += amplitude * _resample(_resample(grid, rows, 0), columns, 1)
        weight += amplitude
        amplitude *= 0.55
    return total / weight
