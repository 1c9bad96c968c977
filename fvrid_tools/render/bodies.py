"""A Vehicle -> its parts: a lofted body, wheels, mirrors, lamps, and what stands on it.

The vehicle's own axes: x ahead, y left, z up, the ground at 0, the origin below the middle of the body.
"""

from dataclasses import dataclass, replace

import numpy as np

from .liveries import BLACK, BodyPainter
from .meshes import Canvas, Painter, Part, box, fractal, limb, plain, revolve, surface
from .riders import motorcycle
from .shells import Shell
from .vehicles import Vehicle

_RUBBER = (0.018, 0.018, 0.018)


@dataclass(frozen=True, slots=True)
class Lamp:
    """Where a lamp is, the way it shines (+1 ahead, -1 back) and its colour."""

    at: tuple[float, float, float]
    facing: int
    radius: float
    colour: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Body:
    """All parts of a vehicle, and where its lamps are."""

    parts: tuple[Part, ...]
    lamps: tuple[Lamp, ...]


def build_body(vehicle: Vehicle, detail: float = 1.0) -> Body:
    """The parts of a vehicle; `detail` scales the size of its textures."""
    if vehicle.model.kind == "motorcycle":
        pieces, places = motorcycle(vehicle)
        return Body(pieces, tuple(Lamp(at, facing, 0.07, _lamp_colour(facing)) for at, facing in places))
    model = vehicle.model
    shell = Shell(model)
    rows, columns = int(384 * detail), int((640 if model.length < 6 else 1024) * detail)
    parts = [surface(shell.grid(), (rows, columns), BodyPainter(vehicle, shell).paint)]
    parts += _wheels(vehicle)
    parts += _mirrors(vehicle)
    parts += _load(vehicle, shell)
    middle = model.box[0] / 2  # so far the origin is below the cab of a truck
    lamps = (replace(lamp, at=(lamp.at[0] + middle, *lamp.at[1:])) for lamp in _lamps(vehicle))
    return Body(tuple(part.placed((middle, 0.0, 0.0)) for part in parts), tuple(lamps))


def _lamp_colour(facing: int) -> tuple[float, float, float]:
    return (1.0, 0.9, 0.72) if facing > 0 else (1.0, 0.04, 0.02)


def _wheels(vehicle: Vehicle) -> list[Part]:
    m = vehicle.model
    wide = 0.26 if m.kind in ("bus", "truck") else 0.2
    profile = np.array(
        [
            (0.0, 0.02),
            (0.3, 0.035),
            (0.62, 0.0),
            (0.66, -0.01),
            (0.7, 0.015),
            (0.9, 0.012),
            (0.985, -0.02),
            (1.0, -0.06),
        ],
    )
    profile = np.concatenate([profile, [(1.0, -wide + 0.04), (0.95, -wide), (0.0, -wide)]])
    profile[:, 0] *= m.wheel
    parts = []
    places = [(x, side) for x in m.axles for side in (1, -1)]
    for i, (x, side) in enumerate(places):
        y = side * (m.width / 2 - 0.03)
        painter = _wheel_painter(vehicle, (x, y, m.wheel), cap=i != vehicle.missing_cap)
        flipped = profile * (1, -side)
        parts.append(revolve(flipped if side > 0 else flipped[::-1], (x, y, m.wheel), painter, 24))
    return parts


def _wheel_painter(vehicle: Vehicle, hub: tuple[float, float, float], cap: bool) -> Painter:
    spokes, bright = vehicle.rims
    turn = (vehicle.seed % 628) / 100 + hub[0]

    def paint(canvas: Canvas) -> None:
        dx, dz = canvas.at[..., 0] - hub[0], canvas.at[..., 2] - hub[2]
        radius = np.hypot(dx, dz) / vehicle.model.wheel
        angle = np.arctan2(dz, dx) + turn
        outer = np.abs(canvas.at[..., 1]) > np.abs(hub[1]) - 0.07
        canvas.fill(np.ones_like(radius), _RUBBER, 0.85, 0, 0)
        rim = (radius < 0.68) & outer
        shade = bright if cap else 0.02
        canvas.fill(rim, (0.025, 0.025, 0.025), 0.6, 0, 0)
        metal = rim & ((np.mod(angle / (2 * np.pi) * spokes, 1) < 0.5) | (radius < 0.2) | (radius > 0.6))
        canvas.fill(metal, (shade, shade, shade), 0.3, 0.5, 0.3)
        canvas.fill(rim & (radius < 0.1), (0.1, 0.1, 0.1), 0.3, 0.5, 0.3)
        canvas.fill(0.4 * vehicle.dirt * (radius > 0.0), vehicle.dirt_colour, 0.9, 0, 0)

    return paint


def _mirrors(vehicle: Vehicle) -> list[Part]:
    m = vehicle.model
    big = m.kind in ("bus", "truck")
    x = m.length / 2 - (m.hood + (0.02 if big else 0.35 * m.rake)) * m.length
    z = m.cowl + (0.45 if big else 0.08)
    colour = BLACK if big or vehicle.seed % 3 == 0 else vehicle.paint
    parts = []
    for side in (1, -1):
        root = (x, side * (m.width / 2 - 0.08), z)
        tip = (x + (0.12 if big else -0.02), side * (m.width / 2 + 0.13), z + 0.02)
        parts.append(limb(root, tip, (0.03, 0.09), plain(colour, 0.3, 1.0)))
    return parts


def _load(vehicle: Vehicle, shell: Shell) -> list[Part]:
    """What stands on a body: racks, a box or sign on the roof, cargo, a lorry's load."""
    m, v = vehicle.model, vehicle
    parts: list[Part] = []
    if m.kind == "truck":
        long, high = m.box
        x = -m.length / 2 - long / 2 - 0.12
        floor = m.clearance + 0.45
        parts.append(
            box((x, 0, floor + (high - floor) / 2), (long, m.width * 1.04, high - floor), _box_painter(v), 128)
        )
        parts.append(box((x, 0, m.clearance + 0.25), (long, m.width * 0.7, 0.35), plain(BLACK, 0.8), 16))
        bar = (x - long / 2, 0.0, m.clearance + 0.12)
        parts.append(box(bar, (0.08, m.width * 0.95, 0.14), plain((0.5, 0.06, 0.04), 0.6), 16))
    if m.kind == "pickup":
        parts += _bed(v)
    if v.rack:
        parts += _roof(v, shell)
    return parts


def _box_painter(vehicle: Vehicle) -> Painter:
    m, v = vehicle.model, vehicle
    rng = np.random.default_rng(v.seed + 1)
    light = v.rims[1]
    colour = (0.6, 0.6, 0.58) if light > 0.3 else v.paint
    ribs = int(rng.integers(0, 30))

    def paint(canvas: Canvas) -> None:
        x, y, z = canvas.at[..., 0], canvas.at[..., 1], canvas.at[..., 2]
        noise = fractal(rng, x.shape, 4, 5)
        long, high = m.box
        along = (-m.length / 2 - 0.12 - x) / long
        up = (z - m.clearance - 0.45) / (high - m.clearance - 0.45)
        side = np.abs(canvas.normal[..., 1]) > 0.5
        back = canvas.normal[..., 0] < -0.5
        canvas.fill(np.ones_like(x), colour, 0.45, 0, 0.2)
        if ribs > 8:
            canvas.fill(0.25 * (np.mod(along * ribs, 1) < 0.2) * side, BLACK)
        canvas.fill(back & (np.abs(y) < 0.02), BLACK, 0.8)
        canvas.fill(back & (np.abs(np.abs(y) - 0.3) < 0.02), (0.35, 0.35, 0.35), 0.4, 0.6)
        canvas.fill((up < 0.06) & (np.mod(along * 8, 1) < 0.5) & side, (0.5, 0.04, 0.03), 0.5)
        for mark in v.marks:
            where = back if mark.place in ("back", "rear_screen") else side
            across = y / m.width + 0.5 if mark.place in ("back", "rear_screen") else along
            size = mark.size[0] / (m.width if mark.place in ("back", "rear_screen") else long) * 1.4
            inside = (np.abs(across - mark.at[0]) < size / 2) & (np.abs(up - mark.at[1]) < mark.size[1] / 2)
            if mark.shape == 2:
                inside = np.abs(up - mark.at[1]) < mark.size[1] / 4
            canvas.fill(where & inside, mark.colour, 0.4, 0, 0.3)
            if mark.shape >= 3:
                letters = np.mod((across - mark.at[0]) / size * 7, 1) < 0.6
                canvas.fill(where & inside & letters & (np.abs(up - mark.at[1]) < mark.size[1] / 4), mark.second, 0.4)
        streaks = fractal(rng, x.shape, 2, 6)
        canvas.fill(
            np.clip(v.dirt * (1.2 - up) * noise * 0.9 + v.wear * 0.3 * (streaks > 0.6), 0, 0.8), v.dirt_colour, 0.9
        )

    return paint


def _bed(vehicle: Vehicle) -> list[Part]:
    m, v = vehicle.model, vehicle
    rng = np.random.default_rng(v.seed + 2)
    back = -m.length / 2
    long = m.deck * m.length
    parts = [box((back + long / 2, 0, m.deck_height - 0.02), (long - 0.12, m.width * 0.8, 0.06), plain(BLACK, 0.8), 16)]
    for colour in v.cargo:
        size = (float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.15, 0.55)))
        at = (
            back + float(rng.uniform(0.35, max(0.4, long - 0.4))),
            float(rng.uniform(-0.3, 0.3)),
            m.deck_height + size[2] / 2,
        )
        parts.append(box(at, size, plain(colour, 0.7), 16))
    return parts


def _roof(vehicle: Vehicle, shell: Shell) -> list[Part]:
    m, v = vehicle.model, vehicle
    front, rear = m.length / 2 - (m.hood + m.rake) * m.length, shell.rear_screen[1]
    middle, long = (front + rear) / 2, (front - rear)
    rail = (m.width / 2 - (m.height - m.cowl) * m.tumblehome) * 0.72
    metal = plain((0.3, 0.3, 0.31), 0.35, 0.3, 0.5) if v.seed % 2 else plain(BLACK, 0.5)
    top = m.height
    parts: list[Part] = []
    if v.rack == 4:
        return [box((front - 0.25, 0, top + 0.08), (0.16, 0.42, 0.14), plain(v.rack_colour, 0.3, 1.0), 16)]
    for side in (1, -1):
        parts.append(
            limb((front - 0.2, side * rail, top + 0.03), (rear + 0.1, side * rail, top + 0.02), (0.022, 0.022), metal)
        )
    if v.rack >= 2:
        for share in (0.3, 0.7):
            x = rear + share * long
            parts.append(limb((x, rail, top + 0.06), (x, -rail, top + 0.06), (0.02, 0.02), metal))
    if v.rack == 2:
        parts.append(box((middle, 0, top + 0.1), (long * 0.6, rail * 1.7, 0.06), plain(BLACK, 0.8), 16))
        for i, colour in enumerate(v.cargo[:3]):
            at = (middle + (i - 1) * long * 0.2, rail * (0.4 - 0.4 * (i % 3)), top + 0.22)
            parts.append(box(at, (0.4, 0.5, 0.24), plain(colour, 0.8), 16))
    if v.rack == 3:
        parts.append(box((middle, 0.15, top + 0.2), (min(1.7, long), 0.75, 0.28), plain(v.rack_colour, 0.3, 1.0), 16))
    return parts


def _lamps(vehicle: Vehicle) -> tuple[Lamp, ...]:
    m = vehicle.model
    lamps = []
    for facing, (z, half, inner, outer) in ((1, m.lamp), (-1, m.tail_lamp)):
        y = (inner + 0.4 * (outer - inner)) * m.width / 2
        x = facing * (m.length / 2 + 0.05)
        if m.kind == "truck" and facing < 0:
            x, z = -m.length / 2 - m.box[0] - 0.2, m.clearance + 0.2
        for side in (1, -1):
            lamps.append(Lamp((x, side * y, z), facing, min(0.09, 0.8 * half), _lamp_colour(facing)))
    return tuple(lamps)
