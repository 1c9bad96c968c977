"""The body of a car, van or bus as one lofted surface: an outline from the side, and a cross-section at every place."""

from typing import Any

import numpy as np

from .meshes import Array
from .vehicles import Model


class Shell:
    """The body's outline and cross-sections."""

    def __init__(self, model: Model) -> None:
        self.model = model
        m, half = model, model.length / 2
        x0 = half - m.hood * m.length  # of the windscreen's lower edge
        x1 = x0 - m.rake * m.length
        x3 = -half + m.deck * m.length  # of the rear window's lower edge
        x2 = x3 + m.tail * m.length
        if m.kind == "pickup":
            x2, x3 = x3 + m.tail * m.length, x3
        crest = x1 + (x2 - x1) * 0.4
        self.outline = np.array(
            [
                (half, m.nose if m.hood else m.cowl),
                (half - 0.12 * m.hood * m.length, m.nose + 0.03 if m.hood else m.cowl + 0.04),
                (x0, m.cowl),
                (x1, m.height - 0.035),
                (crest, m.height),
                (x2, m.height - 0.05),
                (x3, m.deck_height),
                (-half + 0.01, m.deck_height - (0.06 if m.deck > 0.05 else 0.03)),
                (-half, m.deck_height - 0.09),
            ],
            np.float64,
        )
        self.rear_screen = (x3, x2)

    def top(self, x: Array) -> Array:
        """Height of the silhouette at x."""
        line = self.outline[::-1]
        return np.interp(x, line[:, 0] + np.arange(len(line)) * 1e-6, line[:, 1]).astype(np.float32)

    def belt(self, x: Any) -> Any:
        """Height of the waistline, rising a little to the back."""
        m = self.model
        return m.cowl + 0.02 - 0.02 * x / m.length

    def grid(self) -> Array:
        """The surface, from the middle of the front to the middle of the back, from the left sill to the right."""
        steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(self.outline, axis=0), axis=1))])
        count = 110 if self.model.length < 6 else 150
        along = np.linspace(0, steps[-1], count)
        xs = np.interp(along, steps, self.outline[:, 0])
        zs = np.interp(along, steps, self.outline[:, 1])
        kernel = np.array([1, 4, 6, 4, 1]) / 16
        for _ in range(2):
            zs[2:-2] = np.convolve(zs, kernel, "valid")
        rings = [self._section(x, z) for x, z in zip(xs, zs, strict=True)]
        front = [self._cap(rings[0], k, b) for k, b in ((0.0, 0.07), (0.35, 0.065), (0.7, 0.05), (0.9, 0.03))]
        back = [self._cap(rings[-1], k, -b) for k, b in ((0.92, 0.02), (0.7, 0.035), (0.35, 0.045), (0.0, 0.05))]
        grid = np.stack(front + rings + back)
        return self._arches(grid.astype(np.float32))

    def _section(self, x: float, top: float) -> Array:
        m = self.model
        end = min(m.length / 2 - x, m.length / 2 + x)
        reach = 0.55
        narrow = 1 - m.plan * max(0.0, (reach - end) / reach) ** 2.2
        top -= 0.07 * max(0.0, (0.16 - end) / 0.16) ** 2
        belt = float(self.belt(np.float32(x)))
        low = m.clearance + 0.16 * max(0.0, (0.5 - end) / 0.5) ** 2 * (m.kind not in ("bus", "truck"))
        edge = min(0.30, 0.45 * (top - low)) if m.kind not in ("bus", "truck") else 0.2
        side = np.linspace(low, top - edge, 18)
        turn = np.linspace(0, np.pi / 2, 15)[1:]
        z = np.concatenate([[low + 0.03, low + 0.02], side, top - edge + edge * np.sin(turn) ** (2 / m.edge)])
        y = np.concatenate(
            [[0, 0.4 * m.width], self._half(side, belt), self._half(z[-14:], belt) * np.cos(turn) ** (2 / m.edge)]
        )
        y *= narrow
        z[-14:] += 0.025 * (1 - (y[-14:] / (m.width / 2)) ** 2)  # crown
        left = np.stack((np.full_like(y, x), y, z), -1)
        right = left[::-1][1:] * (1, -1, 1)
        return np.concatenate([left, right]).astype(np.float32)

    def _half(self, z: Array, belt: float) -> Array:
        m = self.model
        middle = m.clearance + 0.45 * (belt - m.clearance)
        full = np.interp(
            z, [m.clearance, m.clearance + 0.12, middle, belt - 0.06, belt], [0.93, 0.975, 1, 0.985, 0.955]
        )
        return (full * m.width / 2 - np.maximum(0, z - belt) * m.tumblehome).astype(np.float32)

    @staticmethod
    def _cap(ring: Array, scale: float, bulge: float) -> Array:
        middle = np.array([ring[0, 0], 0, (ring[:, 2].min() + ring[:, 2].max()) / 2], np.float32)
        return middle + (ring - middle) * np.array([1, scale, scale], np.float32) + np.array([bulge, 0, 0], np.float32)

    def _arches(self, grid: Array) -> Array:
        m = self.model
        inside = self.arch(grid) * (np.abs(grid[..., 1]) > 0.6 * m.width / 2)
        grid[..., 1] -= np.sign(grid[..., 1]) * np.where(inside, 0.2, 0).astype(np.float32)
        return grid

    def arch(self, at: Array, grow: float = 1.14) -> Array:
        """Whether points lie within the circles of the wheel arches."""
        m = self.model
        return np.any(
            [np.hypot(at[..., 0] - x, at[..., 2] - m.wheel) < m.wheel * grow for x in m.axles if abs(x) < m.length / 2],
            axis=0,
        )
