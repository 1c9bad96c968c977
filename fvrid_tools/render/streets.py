"""The cameras and what stands around them: road, kerbs, poles, trees, houses, traffic.

World axes: the camera stands above (0, lateral) and looks along +x; y to its left, z up, metres. Site number i
is always the same camera, whatever the seed of a render: cameras outlive the vehicles that pass.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from .meshes import Array, Canvas, Part, box, fractal, limb, plain, surface

SITES = 14
ROAD = (3.0, 60.0, 22.0)  # from, to, half width of the ground that is modelled in detail
_WHITE, _YELLOW = (0.62, 0.62, 0.6), (0.6, 0.4, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Street:
    """A road and what is built beside it, free of trees where its own camera looks."""

    kind: Literal["gantry", "pole", "junction", "kerb"]  # where its camera hangs
    side: float  # the y at which it hangs
    heading: float  # radians, of passing vehicles: 0 away from the camera, pi towards it
    lanes: tuple[float, ...]  # y of their middles
    lane_width: float
    near: float  # distances at which vehicles are caught
    far: float
    asphalt: float
    tint: tuple[float, float, float]
    seed: int

    @property
    def reach(self) -> float:
        """From the road's middle to its edge."""
        return max(map(abs, self.lanes)) + self.lane_width / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A camera: its street, where it hangs and looks, and its electronics."""

    name: str
    street: Street
    height: float
    lateral: float  # its y
    aim: tuple[float, float, float]  # what is in the middle of its frame
    focal: float  # pixels of a frame 1920 wide
    exposure: float
    balance: tuple[float, float, float]
    contrast: float
    saturation: float
    blur: float  # pixels of the crop
    noise: float  # standard deviation of read noise, of full scale
    quality: int  # of its JPEG
    north: float  # radians: turns the sun


@cache
def site(index: int) -> Site:
    """Camera number `index`, 0 to SITES - 1."""
    rng = np.random.default_rng([7, index])
    u = rng.uniform
    kind = ("gantry", "pole", "junction", "kerb", "gantry", "pole", "pole")[index % 7]
    towards = index % 2 == 0
    height = {"gantry": u(5.6, 7.2), "pole": u(4.4, 6.6), "junction": u(4.8, 6.5), "kerb": u(2.3, 3.4)}[kind]
    lateral = {"gantry": u(-2, 2), "pole": u(5, 8.5), "junction": u(3, 7), "kerb": u(4.5, 6)}[kind]
    lateral *= float(rng.choice([-1, 1])) if kind != "gantry" else 1
    lane_width = float(u(3.2, 3.75))
    count = int(rng.integers(2, 5))
    lanes = tuple(float((i - (count - 1) / 2) * lane_width) for i in range(count))
    turn = u(0.5, 1.1) * float(rng.choice([-1, 1])) if kind == "junction" else u(-0.06, 0.06)
    near = {"gantry": u(13, 17), "pole": u(11, 14), "junction": u(12, 15), "kerb": u(9, 12)}[kind]
    far = near + u(5, 12)
    focal, asphalt, tint = u(1300, 3000), u(0.06, 0.17), u(0.93, 1.07, 3)
    electronics, north = draw_electronics(rng), float(u(0, 2 * np.pi))
    street = Street(
        kind=kind,  # type: ignore[arg-type]
        side=float(lateral),
        heading=float((np.pi if towards else 0.0) + turn),
        lanes=lanes,
        lane_width=lane_width,
        near=float(near),
        far=float(far),
        asphalt=float(asphalt),
        tint=tuple(float(t) for t in tint),  # type: ignore[arg-type]
        seed=int(rng.integers(2**31)),
    )
    return Site(
        name=f"c{index + 1:02d}",
        street=street,
        height=float(height),
        lateral=float(lateral),
        aim=(float(near + far) / 2, float(np.mean(lanes)) * 0.5, 0.6),
        focal=float(focal),
        north=north,
        **electronics,
    )


def draw_electronics(rng: np.random.Generator) -> dict[str, Any]:
    """What of a Site is its make, not its place."""
    u = rng.uniform
    return {
        "exposure": float(u(0.8, 1.25)),
        "balance": (float(u(0.9, 1.12)), 1.0, float(u(0.88, 1.14))),
        "contrast": float(u(0.9, 1.25)),
        "saturation": float(u(0.65, 1.15)),
        "blur": float(u(0.25, 0.75)),
        "noise": float(u(0.008, 0.016)),
        "quality": int(rng.integers(66, 85)),
    }


def ground(place: Street) -> list[Part]:
    """The road with its markings and wear, its edges, and a plain beyond."""
    near, far, half = ROAD
    xs, ys = np.linspace(near, far, 40), np.linspace(half, -half, 30)
    grid = np.zeros((40, 30, 3), np.float32)
    grid[..., 0], grid[..., 1] = xs[:, None], ys[None]
    # dU x dV must look up: x ahead, then y to the right would look down, so V runs from right to left
    road = surface(grid[:, ::-1].copy(), (1024, 1344), _RoadPainter(place).paint)
    wide = np.array([[[-300, -300, -0.03], [-300, 300, -0.03]], [[400, -300, -0.03], [400, 300, -0.03]]], np.float32)
    rng = np.random.default_rng([place.seed, 3])
    tone = place.asphalt * 1.2

    def paint(canvas: Canvas) -> None:
        noise = fractal(rng, canvas.at.shape[:2], 20, 3)
        canvas.fill(np.ones_like(noise), (tone, tone * 1.02, tone * 0.9), 0.9)
        canvas.colour *= (0.7 + 0.6 * noise)[..., None]

    parts = [road, surface(wide, (128, 128), paint)]
    reach = place.reach + 0.5
    for side in (1, -1):
        if place.kind != "junction":
            kerb = box((30.0, side * (reach + 0.55), 0.06), (60.0, 0.25, 0.14), plain((0.3, 0.3, 0.28), 0.9), 16)
            parts.append(kerb)
    return parts


class _RoadPainter:
    """Asphalt, markings, patches, cracks, tracks and stains."""

    def __init__(self, place: Street) -> None:
        self.place = place
        self.rng = np.random.default_rng([place.seed, 1])

    def paint(self, canvas: Canvas) -> None:
        p, rng = self.place, self.rng
        x, y = canvas.at[..., 0], canvas.at[..., 1]
        shape = x.shape
        coarse, fine = fractal(rng, shape, 5, 5), fractal(rng, shape, 160, 3)
        tone = p.asphalt * (0.72 + 0.4 * coarse + 0.32 * fine)
        canvas.fill(np.ones(shape, np.float32), tone[..., None] * np.array(p.tint, np.float32), 0.82, 0, 0)
        reach = p.reach
        for lane in p.lanes:  # wheel tracks
            for track in (-0.8, 0.8):
                canvas.fill(0.22 * np.exp(-(((y - lane - track) / 0.28) ** 2)), (0.03, 0.03, 0.03), 0.6)
        for _ in range(int(rng.integers(4, 12))):  # patches of other asphalt
            cx, cy, lx, ly = rng.uniform(6, 50), rng.uniform(-reach, reach), rng.uniform(0.4, 5), rng.uniform(0.3, 2.0)
            tone_of_patch = float(p.asphalt * rng.uniform(0.5, 1.5))
            canvas.fill(0.8 * ((np.abs(x - cx) < lx) & (np.abs(y - cy) < ly)), (tone_of_patch,) * 3, 0.85)
        cracks = np.abs(fractal(rng, shape, 9, 5) - 0.5) < 0.004
        canvas.fill(0.6 * (cracks & (fractal(rng, shape, 3, 2) > 0.5)), (0.012, 0.012, 0.012), 0.95)
        self._markings(canvas, x, y, reach, 0.75 + 0.25 * (fine > 0.45))
        for _ in range(int(rng.integers(3, 9))):  # oil, water
            cx, cy, size = rng.uniform(6, 50), rng.uniform(-reach, reach), rng.uniform(0.2, 0.9)
            spot = np.hypot(x - cx, (y - cy) * 1.5) / size + 0.9 * coarse
            canvas.fill(0.55 * np.clip(1.4 - spot, 0, 1), (0.012, 0.012, 0.014), 0.35)
        if p.kind != "junction":
            self._edges(canvas, y, reach, coarse, fine)

    def _markings(self, canvas: Canvas, x: Array, y: Array, reach: float, wear: Array) -> None:
        p, rng = self.place, self.rng
        dash, gap = float(rng.uniform(2, 5)), float(rng.uniform(2, 6))
        borders = [lane + p.lane_width / 2 for lane in p.lanes[:-1]]
        middle = len(borders) // 2
        for i, border in enumerate(borders):
            solid = i == middle and rng.random() < 0.4
            line = np.abs(y - border) < 0.07
            if not solid:
                line &= np.mod(x, dash + gap) < dash
            canvas.fill(wear * line, _YELLOW if solid else _WHITE, 0.6)
        canvas.fill(wear * (np.abs(np.abs(y) - reach) < 0.08), _WHITE if rng.random() < 0.7 else _YELLOW, 0.6)
        style = rng.random()
        at = float(rng.uniform(p.near - 2, p.far + 4))
        if style < 0.35:  # zebra
            zebra = (np.abs(x - at) < 1.8) & (np.mod(y, 1.1) < 0.5) & (np.abs(y) < reach)
            canvas.fill(wear * zebra, _WHITE, 0.6)
        elif style < 0.7:  # arrows
            for lane in p.lanes:
                shaft = (np.abs(y - lane) < 0.1) & (np.abs(x - at) < 1.6)
                head = (np.abs(y - lane) < 0.45 * (1 - (x - at - 1.0) / 1.4)) & (x > at + 1.0) & (x < at + 2.4)
                canvas.fill(wear * (shaft | head), _WHITE, 0.6)
        if rng.random() < 0.4:  # stop line
            canvas.fill(wear * ((np.abs(x - at - 4) < 0.2) & (np.abs(y) < reach)), _WHITE, 0.6)
        for _ in range(int(rng.integers(0, 4))):  # manholes
            cx, cy = rng.uniform(8, 40), rng.uniform(-reach, reach)
            hole = np.hypot(x - cx, y - cy) < 0.34
            canvas.fill(hole, (0.05, 0.045, 0.04), 0.5, 0.3)
            canvas.fill(hole & (np.mod(x * 9, 1) < 0.4), (0.1, 0.095, 0.09), 0.5, 0.3)

    def _edges(self, canvas: Canvas, y: Array, reach: float, coarse: Array, fine: Array) -> None:
        x = canvas.at[..., 0]
        outside = np.abs(y) > reach + 0.6
        slabs = (np.mod(x, 0.6) < 0.03) | (np.mod(y, 0.6) < 0.03)
        pave = np.array((0.26, 0.245, 0.225), np.float32) * (0.75 + 0.5 * fine)[..., None]
        canvas.fill(outside, pave, 0.9)
        canvas.fill(outside & slabs, (0.08, 0.08, 0.075), 0.95)
        green = np.abs(y) > reach + float(self.rng.uniform(2.0, 5.0))
        lawn = np.array((0.07, 0.105, 0.03), np.float32) * (0.5 + coarse * fine * 2)[..., None]
        canvas.fill(green, lawn, 0.95)


def surroundings(place: Street) -> list[Part]:
    """What stands beside the road, always the same for a camera."""
    rng = np.random.default_rng([place.seed, 2])
    reach = place.reach + 1.2
    if place.kind == "junction":
        reach = 16.0
    parts = [part for at in street_lamps(place) for part in _lamp_post(at)]
    for side in (1, -1):
        if rng.random() < 0.85:
            gap = float(rng.uniform(7, 12))
            for x in np.arange(float(rng.uniform(5, 12)), 55, gap):
                at = (float(x), side * (reach + float(rng.uniform(1.2, 2.6))))
                hides = x < place.far + 3 and (place.kind == "junction" or side * place.side > 2)
                if hides:  # it would stand between the camera and the vehicles
                    continue
                parts += _tree(rng, at)
        style = rng.random()
        if style < 0.4:
            paint = plain((0.32, 0.33, 0.34), 0.5, 0, 0.3)
            for z in (0.45, 0.85):
                parts.append(limb((4, side * (reach + 0.2), z), (60, side * (reach + 0.2), z), (0.04, 0.04), paint))
            for x in np.arange(4, 60, 2.5):
                parts.append(
                    limb(
                        (float(x), side * (reach + 0.2), 0), (float(x), side * (reach + 0.2), 0.9), (0.04, 0.04), paint
                    )
                )
        elif style < 0.65:
            hedge = (30.0, side * (reach + 0.5), 0.45)
            parts.append(box(hedge, (56.0, 0.7, 0.9), _leaves(rng), 256))
        for _ in range(int(rng.integers(1, 4))):
            long, high = float(rng.uniform(10, 24)), float(rng.uniform(5, 16))
            middle = (float(rng.uniform(5, 70)), side * (reach + float(rng.uniform(9, 16))), high / 2)
            parts.append(box(middle, (long, 8.0, high), _facade(rng, high), 256))
    if rng.random() < 0.5:
        parts.append(box((95.0, float(rng.uniform(-30, 30)), 7.0), (10.0, 40.0, 14.0), _facade(rng, 14.0), 256))
    return parts


def street_lamps(place: Street) -> list[tuple[float, float, float]]:
    """Where the street lamps shine at dusk: on the side where the camera does not hang."""
    reach = place.reach
    side = -1.0 if place.side > 0 else 1.0
    return [(x, side * reach, 7.5) for x in (14.0, 38.0)]


def _leaves(rng: np.random.Generator) -> "_Leaves":
    green = np.array(rng.uniform((0.03, 0.06, 0.012), (0.09, 0.13, 0.035)), np.float32)
    return _Leaves(rng, green)


@dataclass(frozen=True, slots=True)
class _Leaves:
    rng: np.random.Generator
    green: Array

    def __call__(self, canvas: Canvas) -> None:
        noise = fractal(self.rng, canvas.at.shape[:2], 12, 4)
        canvas.fill(np.ones_like(noise), self.green, 0.8)
        canvas.colour *= (2.6 * np.clip(noise - 0.22, 0.03, 1))[..., None]


def _tree(rng: np.random.Generator, at: tuple[float, float]) -> list[Part]:
    x, y = at
    high = float(rng.uniform(2.0, 3.2))
    parts = [limb((x, y, 0), (x, y, high + 0.5), (0.14, 0.09), plain((0.06, 0.045, 0.035), 0.95))]
    leaves = _leaves(rng)
    for _ in range(3):
        centre = np.array([x, y, high + 1.0]) + rng.normal(0, (0.6, 0.6, 0.4))
        parts.append(_blob(rng, centre, float(rng.uniform(0.9, 1.5)), leaves))
    return parts


def _blob(rng: np.random.Generator, centre: Array, radius: float, leaves: _Leaves) -> Part:
    around, up = np.linspace(0, 2 * np.pi, 25), np.linspace(-np.pi / 2, np.pi / 2, 15)
    bumps = 1 + 0.5 * (fractal(rng, (15, 25), 5, 2).T - 0.5)
    bumps[-1] = bumps[0]
    r = radius * bumps
    grid = np.stack(
        [
            r * np.cos(around)[:, None] * np.cos(up),
            r * np.sin(around)[:, None] * np.cos(up),
            r * 0.8 * np.sin(up)[None] * np.ones((25, 1)),
        ],
        -1,
    )
    return surface((grid + centre).astype(np.float32), (64, 96), leaves)


def _lamp_post(light: tuple[float, float, float]) -> list[Part]:
    x, y, z = light
    outwards = 1.8 if y > 0 else -1.8
    paint = plain((0.2, 0.2, 0.2), 0.5, 0, 0.4)
    return [
        limb((x, y + outwards, 0), (x, y + outwards, z), (0.09, 0.06), paint),
        limb((x, y + outwards, z), (x, y, z + 0.3), (0.05, 0.05), paint),
        box((x, y, z + 0.27), (0.2, 0.7, 0.1), paint, 16),
    ]


def _facade(rng: np.random.Generator, high: float) -> "_Facade":
    wall = rng.uniform(0.12, 0.45) * rng.uniform((0.85, 0.8, 0.72), (1.1, 1.0, 1.0))
    return _Facade(rng, np.array(wall, np.float32), high, float(rng.uniform(1.6, 3.2)), float(rng.uniform(2.8, 3.6)))


@dataclass(frozen=True, slots=True)
class _Facade:
    rng: np.random.Generator
    wall: Array
    high: float
    bay: float
    storey: float

    def __call__(self, canvas: Canvas) -> None:
        at = canvas.at
        noise = fractal(self.rng, at.shape[:2], 6, 5)
        canvas.fill(np.ones_like(noise), self.wall * (0.75 + 0.5 * noise)[..., None], 0.9)
        along = np.where(np.abs(canvas.normal[..., 1]) > 0.5, at[..., 0], at[..., 1])
        window = (np.mod(along, self.bay) < 0.6 * self.bay) & (np.mod(at[..., 2], self.storey) > 0.36 * self.storey)
        dark = 0.02 + 0.1 * (noise > 0.55)
        canvas.fill(window, np.stack((dark, dark * 1.1, dark * 1.25), -1), 0.1, 0, 0.6)
        canvas.fill(np.mod(at[..., 2], self.storey) < 0.12, self.wall * 0.6, 0.9)
