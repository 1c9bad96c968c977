"""A motorcycle or scooter with its rider, of rods, boxes and turned parts."""

import numpy as np

from .meshes import Canvas, Painter, Part, box, fractal, limb, plain, revolve
from .vehicles import Vehicle

_BLACK = (0.015, 0.015, 0.015)


def _cloth(vehicle: Vehicle, colour: tuple[float, float, float], offset: int) -> Painter:
    rng = np.random.default_rng(vehicle.seed + offset)

    def paint(canvas: Canvas) -> None:
        noise = fractal(rng, canvas.at.shape[:2], 4, 3)
        canvas.fill(np.ones_like(noise), colour, 0.9)
        canvas.colour *= (0.6 + 0.8 * noise)[..., None]

    return paint


def motorcycle(vehicle: Vehicle) -> tuple[tuple[Part, ...], list[tuple[tuple[float, float, float], int]]]:
    """-> the parts, and the places and directions of the lamps."""
    m, v = vehicle.model, vehicle
    rng = np.random.default_rng(v.seed + 9)
    front, back = m.axles
    r = m.wheel
    paint = plain(v.paint, 0.3, 1.0, v.metallic)
    metal = plain((0.35, 0.35, 0.35), 0.3, 0.3, 0.7)
    jacket = _cloth(v, tuple(float(c) for c in rng.uniform(0.01, 0.4, 3) * rng.uniform(0.2, 1.2)), 1)  # type: ignore[arg-type]
    trousers = _cloth(v, (0.03, 0.035, 0.06) if rng.random() < 0.6 else (0.2, 0.18, 0.14), 2)
    helmet = plain(v.rack_colour, 0.2, 1.0)
    tyre = np.array(
        [(0.0, 0.03), (0.6, 0.03), (0.72, 0.05), (0.95, 0.05), (1.0, 0.0), (0.95, -0.05), (0.6, -0.03), (0, -0.03)]
    )
    tyre[:, 0] *= r
    tyre = tyre * (1, -1)
    parts = [revolve(tyre, (x, 0, r), plain((0.03, 0.03, 0.03), 0.8), 22) for x in (front, back)]
    seat = 0.78
    scooter = rng.random() < 0.6
    parts.append(limb((front, 0, r), (front - 0.28, 0, 0.98), (0.06, 0.05), metal if not scooter else paint))
    parts.append(limb((front - 0.3, 0, 0.86), (back + 0.1, 0, seat - 0.06), (0.13, 0.17), paint))
    parts.append(
        limb((front - 0.36, 0, 0.45), (back + 0.2, 0, 0.4), (0.13, 0.14), plain(_BLACK, 0.6) if not scooter else paint)
    )
    if scooter:
        parts.append(box((front - 0.25, 0, 0.68), (0.07, 0.42, 0.55), paint, 16))
    parts.append(limb((front - 0.55, 0, seat + 0.02), (back + 0.05, 0, seat + 0.06), (0.12, 0.11), plain(_BLACK, 0.7)))
    parts.append(limb((front - 0.27, 0.34, 1.02), (front - 0.27, -0.34, 1.02), (0.025, 0.025), metal))
    parts.append(limb((front - 0.2, 0, 0.94), (front - 0.12, 0, 0.94), (0.1, 0.09), plain((0.5, 0.5, 0.5), 0.1, 1.0)))
    parts.append(box((back - 0.12, 0, 0.62), (0.03, 0.18, 0.14), plain(v.plate, 0.5), 16))
    lean = float(rng.uniform(0.05, 0.3))
    hip, neck = (-0.12, 0.0, seat + 0.12), (-0.12 + lean, 0.0, seat + 0.62)
    parts.append(limb(hip, neck, (0.17, 0.19), jacket))
    parts.append(limb((neck[0] + 0.03, 0, neck[2] + 0.17), (neck[0] + 0.04, 0, neck[2] + 0.2), (0.135, 0.135), helmet))
    for side in (1, -1):
        shoulder, elbow = (neck[0], side * 0.2, neck[2] - 0.04), (neck[0] + 0.22, side * 0.3, neck[2] - 0.27)
        hand = (front - 0.28, side * 0.3, 1.04)
        parts += [limb(shoulder, elbow, (0.07, 0.055), jacket), limb(elbow, hand, (0.055, 0.04), jacket)]
        knee, foot = (0.28, side * 0.2, seat - 0.03), (0.12, side * 0.2, 0.32)
        parts += [
            limb((hip[0], side * 0.1, hip[2]), knee, (0.1, 0.08), trousers),
            limb(knee, foot, (0.075, 0.05), trousers),
        ]
        parts.append(
            limb(
                (foot[0] - 0.05, side * 0.2, 0.3), (foot[0] + 0.16, side * 0.2, 0.29), (0.05, 0.045), plain(_BLACK, 0.6)
            )
        )
    if v.cargo and rng.random() < 0.6:
        size = float(rng.uniform(0.3, 0.5))
        parts.append(box((back + 0.02, 0, seat + 0.1 + size / 2), (size, size, size), plain(v.cargo[0], 0.5), 16))
    if len(v.cargo) > 2:  # a passenger
        cloth = _cloth(v, v.cargo[1], 3)
        parts.append(limb((back + 0.2, 0, seat + 0.14), (back + 0.25, 0, seat + 0.6), (0.16, 0.17), cloth))
        head = plain(v.cargo[2], 0.2, 1.0)
        parts.append(limb((back + 0.27, 0, seat + 0.76), (back + 0.28, 0, seat + 0.79), (0.13, 0.13), head))
    lamps = [((front - 0.03, 0.0, 0.94), 1), ((back - 0.2, 0.0, 0.74), -1)]
    return tuple(parts), lamps
