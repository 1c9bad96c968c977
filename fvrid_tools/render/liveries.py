"""What is painted on a body, texel by texel: lacquer, seams, lamps, glass, marks, dirt."""

import numpy as np

from .meshes import Array, Canvas, fractal
from .shells import Shell
from .vehicles import Mark, Vehicle

BLACK = (0.012, 0.012, 0.012)
_CHROME = (0.55, 0.55, 0.56)


class BodyPainter:
    """Paints the shell: by where a texel lies and which way it faces."""

    def __init__(self, vehicle: Vehicle, shell: Shell) -> None:
        self.vehicle, self.shell, self.model = vehicle, shell, vehicle.model
        self.rng = np.random.default_rng(vehicle.seed)

    def paint(self, canvas: Canvas) -> None:
        """Lay on the layers, the lowest first."""
        self.x, self.y, self.z = canvas.at[..., 0], canvas.at[..., 1], canvas.at[..., 2]
        self.side = np.abs(canvas.normal[..., 1]) > 0.62
        self.ahead, self.behind = canvas.normal[..., 0] > 0.22, canvas.normal[..., 0] < -0.22
        self.up = canvas.normal[..., 2] > 0.55
        self.across = np.abs(self.y) / (self.model.width / 2)
        self.share = 0.5 - self.x / self.model.length
        self.noise = fractal(self.rng, self.x.shape, 3, 5)
        self.fine = fractal(self.rng, self.x.shape, 24, 4)
        self._lacquer(canvas)
        self._seams(canvas)
        self._front(canvas)
        self._back(canvas)
        glass = self._glass(canvas)
        self._marks(canvas, glass)
        self._grime(canvas)
        canvas.fill(self.shell.arch(canvas.at) & self.side, BLACK, 0.9, 0, 0)
        canvas.fill(canvas.normal[..., 2] < -0.5, BLACK, 0.9, 0, 0)

    def _lacquer(self, canvas: Canvas) -> None:
        v, m = self.vehicle, self.model
        everywhere = np.ones(self.x.shape, np.float32)
        canvas.fill(everywhere, v.paint, 0.32, v.metallic, 1.0)
        fade = v.wear * np.clip((self.noise - 0.42) * 4, 0, 1) * (0.25 + 0.75 * self.up)
        grey = np.full(3, float(np.mean(v.paint)) * 0.7 + 0.08, np.float32)
        canvas.fill(0.6 * fade, grey, 0.55, 0, 0.4)
        if v.roof:
            canvas.fill(self.up & (self.z > m.height - 0.14), v.roof, 0.2, 0, 1.0)
        if v.panel:
            start, end, colour = v.panel
            left = np.where(self.y > 0, 1, 0) == v.seed % 2
            canvas.fill(self.side & left & (self.share > start) & (self.share < end), colour, 0.4, 0, 0.6)
        scratches = (np.abs(self.fine - 0.5) < 0.012) & (self.noise > 0.62 - 0.12 * v.wear) & (self.z < m.cowl)
        canvas.fill(v.wear * scratches, (0.35, 0.34, 0.33), 0.7)

    def _seams(self, canvas: Canvas) -> None:
        m = self.model
        lower = m.clearance + (0.14 if m.cladding else 0.06)
        canvas.fill(self.z < lower, BLACK, 0.7, 0, 0.1)
        if m.cladding:
            canvas.fill(self.shell.arch(canvas.at, 1.32) & self.side, (0.02, 0.02, 0.02), 0.8, 0, 0)
        doors = (self.z > lower) & (self.z < self.shell.belt(self.x) + 0.03) & self.side
        places = [m.hood + 0.05, *m.pillars, 0.84 if m.kind != "pickup" else 0.63]
        for place in places:
            canvas.fill(doors & (np.abs(self.share - place) * m.length < 0.012), BLACK, 0.8, 0, 0)
            if m.kind not in ("bus", "truck"):
                handle = (np.abs(self.share - place + 0.05) * m.length < 0.09) & (
                    np.abs(self.z - m.cowl + 0.12) < 0.014
                )
                canvas.fill(doors & handle, _CHROME if m.chrome else BLACK, 0.3, float(m.chrome), 0.5)
        crease = self.side & (np.abs(self.z - (m.clearance + 0.55 * (m.cowl - m.clearance))) < 0.012)
        canvas.fill(0.35 * crease, BLACK)
        hood = self.up & (self.share < m.hood) & (np.abs(self.across - 0.74 + 0.3 * (m.hood - self.share)) < 0.01)
        hood |= self.up & (np.abs(self.share - m.hood) * m.length < 0.03)
        canvas.fill(0.7 * hood, BLACK, 0.8)

    def _front(self, canvas: Canvas) -> None:
        m, v = self.model, self.vehicle
        face = canvas.normal[..., 0] > 0.3
        z, half, wide = m.grille
        grille = face & (np.abs(self.z - z) < half) & (self.across < wide - 0.25 * np.abs(self.z - z))
        canvas.fill(grille, BLACK, 0.6, 0, 0.2)
        bar = _CHROME if m.chrome else (0.03, 0.03, 0.03)
        phase = (self.z - z + half) / (2 * half) * m.bars
        upright = self.across / max(wide, 0.1) * m.bars * 3
        lines = {
            0: np.mod(phase, 1) < 0.35,
            1: np.mod(upright, 1) < 0.35,
            2: (np.mod(phase, 1) < 0.25) | (np.mod(upright, 1) < 0.25),
            3: np.abs(self.z - z) < 0.02,
            4: np.mod(phase + upright, 1) < 0.3,
        }[m.grille_style]
        canvas.fill(grille & lines, bar, 0.25, float(m.chrome), 0.4)
        rim = (
            face
            & ~grille
            & (np.abs(self.z - z) < half + 0.02)
            & (self.across < wide + 0.025 - 0.25 * np.abs(self.z - z))
        )
        canvas.fill(rim, bar, 0.2, float(m.chrome), 0.6)
        canvas.fill(face & (np.hypot(self.y, self.z - z) < 0.06), _CHROME, 0.2, 1.0, 0.5)  # the maker's badge
        low = m.clearance + 0.2
        intake = face & (np.abs(self.z - low) < 0.07) & (self.across < 0.55 + 0.4 * (low - self.z))
        canvas.fill(intake, BLACK, 0.7, 0, 0)
        canvas.fill(
            face & (np.hypot(np.abs(self.y) - 0.36 * m.width, self.z - low) < 0.055), (0.5, 0.5, 0.48), 0.1, 0, 1
        )
        lamp = self._lamp_mask(m.lamp) & (canvas.normal[..., 0] > 0.08) & (self.x > 0)
        canvas.fill(lamp, (0.45, 0.46, 0.48), 0.12, 0.3, 1.0)
        z, half, inner, outer = m.lamp
        bulb = np.hypot((self.across - inner - 0.4 * (outer - inner)) * m.width / 2, self.z - z) < 0.6 * half
        canvas.fill(lamp & bulb, (0.8, 0.8, 0.8), 0.05, 0.2, 1.0)
        canvas.fill(lamp & (self.across > outer - 0.06), (0.7, 0.28, 0.03), 0.1, 0, 1.0)
        self._plate(canvas, face, m.clearance + 0.26)
        if v.sign and m.kind == "bus":
            canvas.fill(
                face & (np.abs(self.z - m.height + 0.32) < 0.1) & (self.across < 0.7), (0.02, 0.02, 0.02), 0.1, 0, 1
            )

    def _back(self, canvas: Canvas) -> None:
        m = self.model
        face = canvas.normal[..., 0] < -0.3
        lamp = self._lamp_mask(m.tail_lamp) & (canvas.normal[..., 0] < -0.12) & (self.x < 0)
        canvas.fill(lamp, (0.33, 0.012, 0.012), 0.1, 0, 1.0)
        z, half, *_ = m.tail_lamp
        white = np.abs(self.z - z + 0.5 * half) < 0.18 * half
        canvas.fill(lamp & white, (0.65, 0.62, 0.58), 0.1, 0, 1.0)
        canvas.fill(lamp & (np.abs(self.z - z - 0.6 * half) < 0.2 * half), (0.6, 0.22, 0.02), 0.1, 0, 1.0)
        bumper = m.clearance + 0.28
        canvas.fill(face & (np.abs(self.z - bumper - 0.09) < 0.01), BLACK, 0.7, 0, 0)
        canvas.fill(face & (np.abs(self.z - m.clearance - 0.12) < 0.07) & (self.across < 0.8), BLACK, 0.8, 0, 0.1)
        if m.kind in ("hatchback", "suv", "van"):
            canvas.fill(face & (np.abs(self.across - 0.86) < 0.012) & (self.z > bumper), BLACK, 0.7, 0, 0)
        strip = face & (np.abs(self.z - z + half + 0.05) < 0.014) & (self.across < 0.5)
        canvas.fill(strip, _CHROME if m.chrome else BLACK, 0.25, float(m.chrome), 0.4)
        self._plate(canvas, face, z - half - 0.12 if m.kind == "sedan" else m.clearance + 0.45)

    def _plate(self, canvas: Canvas, face: Array, z: float) -> None:
        """A plate whose characters were masked, as in VERI-Wild and Vehicle-1M."""
        plate = face & (np.abs(self.z - z) < 0.075) & (np.abs(self.y) < 0.235)
        canvas.fill(plate, self.vehicle.plate, 0.45, 0, 0.2)

    def _lamp_mask(self, lamp: tuple[float, float, float, float]) -> Array:
        z, half, inner, outer = lamp
        middle, reach = (inner + outer) / 2, (outer - inner) / 2
        return ((np.abs(self.across - middle) / reach) ** 3 + (np.abs(self.z - z) / half) ** 3) < 1

    def _glass(self, canvas: Canvas) -> dict[str, Array]:
        m, v = self.model, self.vehicle
        big = m.kind in ("bus", "truck")
        top, belt = self.shell.top(self.x), self.shell.belt(self.x)
        steep = 0.2 if big else 0.62
        screen = self.ahead & (self.z > m.cowl + 0.05) & (self.z < m.height - (0.42 if m.kind == "bus" else 0.09))
        screen &= ~self.side & (canvas.normal[..., 2] < 0.93) & (self.across < 0.93)
        rear = self.behind & (self.z > m.deck_height + 0.04) & (self.z < m.height - 0.1) & ~self.side
        rear &= (canvas.normal[..., 2] < 0.95) & (self.across < 0.84)
        if m.kind == "van" and m.blind:
            rear &= np.abs(self.y) > 0.06
        side = (
            (np.abs(canvas.normal[..., 1]) > steep) & (self.z > belt + 0.04) & (self.z < top - (0.3 if big else 0.13))
        )
        pad = 0.09 if m.kind != "bus" else 0.05
        side &= (self.share > m.hood + 0.3 * m.rake) & (self.share < 1 - m.deck - 0.25 * m.tail - pad / m.length * 2)
        if m.kind == "bus":
            side &= self.share < 0.97
        if m.kind == "truck":
            side &= self.share < 0.62
        if m.blind:
            side &= self.share < m.pillars[0]
        for pillar in m.pillars:
            side &= np.abs(self.share - pillar) * m.length > 0.045
        glass = {"screen": screen, "rear_screen": rear, "side": side}
        for name, pane in glass.items():
            if m.chrome and name == "side" and not big:
                canvas.fill(self._near(pane), _CHROME, 0.2, 1.0, 0.4)
            elif name != "side":
                canvas.fill(self._near(pane), BLACK, 0.3, 0, 0.5)
            tint = v.tint if name != "side" else v.tint * 0.7
            depth = tint + 0.03 * np.clip(self.noise * 2 - 0.9, 0, 1)  # seats and daylight behind the pane
            canvas.fill(pane, np.stack((depth, depth * 1.08, depth * 1.1), -1), 0.06, 0, 1.0)
        self._cabin(canvas, screen)
        return glass

    def _near(self, pane: Array) -> Array:
        grown = pane.copy()
        for axis in (0, 1):
            for shift in (-2, 2):
                grown |= np.roll(pane, shift, axis)
        return grown & ~pane

    def _cabin(self, canvas: Canvas, screen: Array) -> None:
        m, v = self.model, self.vehicle
        place, wide, colour = v.dashboard
        low = m.cowl + 0.05
        thing = screen & (np.abs(self.y - place * 0.4 * m.width) < wide / 2) & (self.z < low + 0.11)
        canvas.fill(0.8 * thing, colour, 0.2, 0, 1.0)
        for seat in (-0.22, 0.22):
            head = np.hypot(self.y - seat * m.width, (self.z - (low + 0.62 * (m.height - low))) * 1.2) < 0.12
            canvas.fill(0.5 * (screen & head), (0.09, 0.075, 0.065), 0.15, 0, 1.0)
        wiper = screen & (np.abs(self.z - low - 0.05 - 0.12 * np.mod(self.y * 1.1, 0.7)) < 0.012)
        canvas.fill(wiper, BLACK, 0.6, 0, 0)

    def _marks(self, canvas: Canvas, glass: dict[str, Array]) -> None:
        for mark in self.vehicle.marks:
            self._mark(canvas, mark, glass)

    def _mark(self, canvas: Canvas, mark: Mark, glass: dict[str, Array]) -> None:
        m = self.model
        low, high = m.clearance + 0.15, m.cowl - 0.06
        if mark.place == "side":
            if m.kind in ("van", "bus") and m.blind:
                high = m.height - 0.3
            along = self.x - (0.5 - mark.at[0]) * m.length * 0.8
            up = self.z - (low + mark.at[1] * (high - low))
            where = self.side & ~glass["side"]
        elif mark.place == "hood":
            along, up = self.y - (mark.at[0] - 0.5) * m.width * 0.7, self.x - (0.5 - m.hood * mark.at[1]) * m.length
            where = self.up & (self.share < m.hood)
        elif mark.place == "roof":
            along, up = self.y - (mark.at[0] - 0.5) * m.width * 0.5, self.x - (mark.at[1] - 0.5) * 0.3 * m.length
            where = self.up & (self.z > m.height - 0.12)
        elif mark.place == "back":
            along = self.y - (mark.at[0] - 0.5) * m.width * 0.8
            up = self.z - (low + 0.1 + mark.at[1] * max(0.1, m.deck_height - low - 0.1))
            where = self.behind & ~glass["rear_screen"]
        else:
            front = mark.place == "screen"
            top = m.height - (0.5 if m.kind == "bus" else 0.16)
            bottom = (m.cowl if front else m.deck_height) + 0.1
            along = self.y - (mark.at[0] - 0.5) * m.width * 0.72
            up = self.z - (bottom + mark.at[1] * max(0.05, top - bottom))
            where = glass[mark.place]
        wide, tall = mark.size
        inside = (np.abs(along) < wide / 2) & (np.abs(up) < tall / 2)
        if mark.shape == 1:
            inside = (along / wide) ** 2 + (up / tall) ** 2 < 0.25
        elif mark.shape == 2:
            inside = np.abs(up) < tall / 4
        elif mark.shape == 4:
            inside = np.abs(along - up * 0.8) < wide / 4
        canvas.fill(where & inside, mark.colour, 0.35, 0, 0.6)
        if mark.shape == 3:
            letters = np.mod(along / (0.55 * tall), 1) < 0.62
            letters &= (np.abs(np.mod(up / tall + 0.5, 1) - 0.5) < 0.3) & (np.mod(along / (0.21 * tall), 1) < 0.7)
            canvas.fill(where & inside & letters, mark.second, 0.35, 0, 0.6)
        else:
            canvas.fill(where & inside & (np.abs(up) < tall / 10), mark.second, 0.35, 0, 0.6)

    def _grime(self, canvas: Canvas) -> None:
        v, m = self.vehicle, self.model
        rise = np.clip(1 - (self.z - m.clearance) / (0.35 + 0.5 * v.dirt), 0, 1) ** 1.5
        splash = np.any([np.hypot(self.x - x, self.z - m.wheel) < 2 * m.wheel for x in m.axles], axis=0)
        veil = v.dirt * (0.9 * rise * (0.4 + self.noise) + 0.25 * splash * self.fine + 0.12 * self.noise * self.up)
        veil += v.dirt * 0.25 * self.behind * (self.z < m.cowl + 0.2)
        canvas.fill(np.clip(veil, 0, 0.85), v.dirt_colour, 0.85, 0, 0.0)
        canvas.colour *= 1 + (0.10 + 0.12 * v.wear) * (self.fine - 0.5)[..., None]
