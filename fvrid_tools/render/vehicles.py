"""Which vehicles there are: models, shared by several vehicles, and what tells one vehicle of a model from another.

A model or a vehicle is drawn from a generator of its own, so that none depends on the others' draws.
Lengths are metres; colours are linear RGB.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Colour = tuple[float, float, float]
Kind = Literal["sedan", "hatchback", "suv", "van", "pickup", "bus", "truck", "motorcycle"]

_KINDS: dict[Kind, float] = {
    "sedan": 0.27,
    "hatchback": 0.16,
    "suv": 0.21,
    "van": 0.11,
    "pickup": 0.07,
    "bus": 0.05,
    "truck": 0.09,
    "motorcycle": 0.04,
}
KINDS = tuple(_KINDS)
#                                      length       width        height       clearance  nose height  cowl height
_SIZES: dict[Kind, tuple[tuple[float, float], ...]] = {
    "sedan": ((4.45, 5.05), (1.76, 1.90), (1.41, 1.50), (0.17, 0.2), (0.68, 0.78), (0.94, 1.02)),
    "hatchback": ((3.65, 4.35), (1.66, 1.80), (1.46, 1.56), (0.17, 0.2), (0.70, 0.82), (0.96, 1.05)),
    "suv": ((4.30, 5.00), (1.80, 1.98), (1.62, 1.86), (0.23, 0.3), (0.88, 1.02), (1.08, 1.20)),
    "van": ((4.40, 5.50), (1.72, 1.98), (1.80, 2.25), (0.2, 0.26), (0.80, 1.00), (1.12, 1.30)),
    "pickup": ((5.00, 5.55), (1.80, 1.96), (1.74, 1.90), (0.27, 0.34), (0.95, 1.08), (1.14, 1.24)),
    "bus": ((7.00, 11.0), (2.30, 2.52), (2.85, 3.25), (0.28, 0.36), (2.55, 2.75), (1.15, 1.45)),
    "truck": ((5.60, 8.00), (2.00, 2.40), (2.10, 2.60), (0.32, 0.45), (1.20, 1.50), (1.35, 1.60)),
    "motorcycle": ((1.85, 2.15), (0.70, 0.80), (1.10, 1.25), (0.2, 0.2), (0.8, 0.8), (0.9, 0.9)),
}
_PAINTS: tuple[tuple[str, float, Colour], ...] = (
    ("white", 0.27, (0.74, 0.74, 0.72)),
    ("black", 0.19, (0.012, 0.012, 0.014)),
    ("silver", 0.13, (0.42, 0.43, 0.44)),
    ("grey", 0.13, (0.13, 0.135, 0.14)),
    ("red", 0.08, (0.42, 0.018, 0.02)),
    ("blue", 0.08, (0.02, 0.06, 0.28)),
    ("brown", 0.04, (0.13, 0.065, 0.035)),
    ("gold", 0.03, (0.42, 0.33, 0.18)),
    ("green", 0.03, (0.03, 0.16, 0.07)),
    ("yellow", 0.02, (0.72, 0.43, 0.02)),
)
_BRIGHT: tuple[Colour, ...] = (
    (0.70, 0.03, 0.03),
    (0.02, 0.12, 0.55),
    (0.80, 0.60, 0.03),
    (0.03, 0.40, 0.12),
    (0.80, 0.80, 0.78),
    (0.02, 0.02, 0.02),
    (0.75, 0.25, 0.02),
    (0.35, 0.04, 0.40),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What all vehicles of a model share."""

    name: str
    kind: Kind
    length: float
    width: float
    height: float
    clearance: float
    nose: float  # height of the bonnet's front edge
    cowl: float  # height of the lower edge of the windscreen, and of the waistline
    hood: float  # share of the length before the windscreen
    rake: float  # length of the windscreen seen from above, as a share of the length
    tail: float  # length of the rear window seen from above
    deck: float  # length of what lies behind the rear window
    deck_height: float
    tumblehome: float  # inward lean of the side windows, tangent
    edge: float  # exponent of the cross-section: 2 round, 4 boxy
    plan: float  # how much the ends narrow
    pillars: tuple[float, ...]  # of the side windows, share of the length from the front
    wheel: float  # radius
    axles: tuple[float, float]  # x of front and rear
    spokes: int
    lamp: tuple[float, float, float, float]  # height, half height, inner and outer edge as shares of half the width
    tail_lamp: tuple[float, float, float, float]
    grille: tuple[float, float, float]  # height, half height, half width as a share
    grille_style: int
    bars: int
    cladding: bool
    chrome: bool
    blind: bool  # a van without rear side windows
    box: tuple[float, float] = (0.0, 0.0)  # of trucks: length and height of the load; `length` is then the cab's

    @property
    def whole_length(self) -> float:
        return self.length + self.box[0]


@dataclass(frozen=True, slots=True)
class Mark:
    """A patch of colour on a side, the bonnet, the back or a pane."""

    place: Literal["side", "hood", "back", "screen", "rear_screen", "roof"]
    at: tuple[float, float]  # shares of the place: along, up
    size: tuple[float, float]  # metres
    colour: Colour
    second: Colour
    shape: int  # 0 rectangle, 1 ellipse, 2 stripe, 3 lettering, 4 slanted band


@dataclass(frozen=True, slots=True, kw_only=True)
class Vehicle:
    """One vehicle: its model, its paint, and the marks that identify it."""

    model: Model
    colour: str
    paint: Colour
    metallic: float
    roof: Colour | None  # where it is painted otherwise
    wear: float
    dirt: float
    dirt_colour: Colour
    tint: float
    plate: Colour
    rims: tuple[int, float]  # spokes, brightness
    missing_cap: int  # a wheel without its cap, or -1
    panel: tuple[float, float, Colour] | None  # from, to (shares of the length): a door of another colour
    rack: int  # 0 none, 1 bars, 2 basket, 3 box, 4 taxi sign
    rack_colour: Colour
    cargo: tuple[Colour, ...]
    dashboard: tuple[float, float, Colour]  # a thing behind the windscreen: place, width, colour
    marks: tuple[Mark, ...]
    sign: bool  # of a bus: the line's sign above the windscreen
    seed: int  # of noise on its surfaces


def draw_model(rng: np.random.Generator, name: str, kind: Kind | None = None) -> Model:
    """A model with proportions of its kind."""
    kind = kind or _choose(rng, _KINDS)
    length, width, height, clearance, nose, cowl = (float(rng.uniform(*limits)) for limits in _SIZES[kind])
    u = rng.uniform
    wheel = {"truck": 0.42, "bus": 0.46, "suv": 0.37, "pickup": 0.38, "motorcycle": 0.3}.get(kind, 0.32) * u(0.95, 1.08)
    hood, rake, tail, deck = {
        "sedan": (u(0.215, 0.25), u(0.13, 0.16), u(0.13, 0.17), u(0.1, 0.13)),
        "hatchback": (u(0.185, 0.23), u(0.14, 0.17), u(0.05, 0.13), u(0.015, 0.03)),
        "suv": (u(0.195, 0.24), u(0.11, 0.145), u(0.05, 0.1), u(0.015, 0.025)),
        "van": (u(0.08, 0.16), u(0.1, 0.16), u(0.015, 0.035), 0.01),
        "pickup": (u(0.2, 0.23), u(0.09, 0.12), u(0.02, 0.04), u(0.3, 0.36)),
        "bus": (0.0, 0.012, 0.006, 0.004),
        "truck": (u(0.0, 0.035), u(0.05, 0.09), 0.01, 0.005),
        "motorcycle": (0.3, 0.1, 0.1, 0.3),
    }[kind]
    deck_height = {
        "sedan": cowl + u(0.02, 0.1),
        "pickup": cowl - u(0.0, 0.08),
        "bus": height * 0.55,
        "truck": cowl,
    }.get(kind, cowl + u(0.0, 0.1))
    box = (0.0, 0.0)
    if kind == "truck":
        cab = float(u(1.75, 2.15))
        box = (length - cab, float(u(2.6, 3.5)))
        length, height = cab, float(u(2.15, 2.5))
        hood, rake = hood * 2, u(0.1, 0.2)
    half = length / 2
    if kind == "truck":
        axles = (half - 0.75, half - length - box[0] * u(0.62, 0.72))
    elif kind == "bus":
        axles = (half - u(1.9, 2.5), -half + u(2.0, 2.8))
    elif kind == "motorcycle":
        axles = (half - wheel, -half + wheel)
    else:
        axles = (half - length * u(0.175, 0.205), -half + length * u(0.17, 0.215))
    pillars = {
        "bus": tuple(np.linspace(0.16, 0.9, int(rng.integers(5, 9)))),
        "pickup": (0.5,),
        "truck": (),
        "van": (0.4, 0.66),
        "sedan": (0.52,) if rng.random() < 0.7 else (0.51, 0.7),
    }.get(kind, (0.51, 0.74))
    big = kind in ("bus", "truck")
    lamp_height = 0.75 if big else nose - u(0.06, 0.12)
    inner = u(0.5, 0.68)
    return Model(
        name=name,
        kind=kind,
        length=length,
        width=width,
        height=height,
        clearance=clearance,
        nose=nose,
        cowl=cowl,
        hood=float(hood),
        rake=float(rake),
        tail=float(tail),
        deck=float(deck),
        deck_height=float(deck_height),
        tumblehome=float(u(0.03, 0.08) if big else u(0.06, 0.14) if kind == "van" else u(0.2, 0.36)),
        edge=float(u(3.5, 5.0) if big else u(2.4, 3.6)),
        plan=float(u(0.03, 0.07) if big else u(0.12, 0.24)),
        pillars=tuple(float(p) for p in pillars),
        wheel=float(wheel),
        axles=(float(axles[0]), float(axles[1])),
        spokes=int(rng.integers(5, 11)),
        lamp=(float(lamp_height), float(u(0.045, 0.11)), float(inner), float(u(0.9, 1.0))),
        tail_lamp=(
            float(u(0.75, 1.0) if big else cowl - u(0.08, 0.2)),
            float(u(0.06, 0.12) if kind in ("sedan", "bus", "truck") else u(0.1, 0.28)),
            float(u(0.55, 0.82)),
            1.0,
        ),
        grille=(
            float(0.75 if big else nose - u(0.1, 0.2)),
            float(u(0.05, 0.15)),
            float(min(inner - 0.04, u(0.3, 0.6))),
        ),
        grille_style=int(rng.integers(0, 5)),
        bars=int(rng.integers(2, 7)),
        cladding=bool(kind in ("suv", "pickup") and rng.random() < 0.6),
        chrome=bool(rng.random() < 0.5),
        blind=bool(kind == "van" and rng.random() < 0.5),
        box=box,
    )


def draw_vehicle(rng: np.random.Generator, model: Model) -> Vehicle:
    """A vehicle of a model."""
    u = rng.uniform
    names = {paint: weight for paint, weight, _ in _PAINTS}
    if model.kind in ("truck", "bus", "van"):
        names |= {"white": 0.5, "blue": 0.14, "yellow": 0.06, "black": 0.05}
    colour = _choose(rng, names)
    base = next(rgb for paint, _, rgb in _PAINTS if paint == colour)
    paint = _vary(rng, base, 0.28)
    commercial = model.kind in ("bus", "truck", "van")
    count = int(rng.choice([2, 3, 4, 5])) + (2 if commercial else 0)
    tall = model.kind in ("suv", "hatchback", "van", "sedan")
    return Vehicle(
        model=model,
        colour=colour,
        paint=paint,
        metallic=float(u(0.2, 0.6) if colour in ("silver", "grey", "gold", "blue", "brown") else u(0, 0.15)),
        roof=(0.015, 0.015, 0.017) if rng.random() < 0.1 else None,
        wear=float(rng.beta(1.3, 3)),
        dirt=float(rng.beta(1.4, 2.6)),
        dirt_colour=_vary(rng, (0.19, 0.15, 0.11), 0.35),
        tint=float(u(0.008, 0.05)),
        plate=_pick(rng, [(0.02, 0.08, 0.36), (0.55, 0.45, 0.03), (0.12, 0.42, 0.2), (0.6, 0.6, 0.58)]),
        rims=(model.spokes if rng.random() < 0.6 else int(rng.integers(3, 14)), float(u(0.12, 0.8))),
        missing_cap=int(rng.integers(0, 4)) if rng.random() < 0.07 else -1,
        panel=(float(u(0.25, 0.5)), float(u(0.52, 0.75)), _vary(rng, (0.2, 0.2, 0.2), 0.9))
        if rng.random() < 0.1
        else None,
        rack=int(rng.choice([0, 1, 2, 3, 4], p=[0.5, 0.26, 0.06, 0.08, 0.1])) if tall else 0,
        rack_colour=_pick(rng, _BRIGHT),
        cargo=tuple(_vary(rng, _pick(rng, _BRIGHT), 0.4) for _ in range(int(rng.integers(0, 5)))),
        dashboard=(float(u(-0.7, 0.7)), float(u(0.08, 0.35)), _vary(rng, _pick(rng, _BRIGHT), 0.3)),
        marks=tuple(_draw_mark(rng, commercial) for _ in range(count)),
        sign=bool(rng.random() < 0.4),
        seed=int(rng.integers(0, 2**31)),
    )


def _draw_mark(rng: np.random.Generator, commercial: bool) -> Mark:
    places = ["side", "hood", "back", "screen", "rear_screen", "roof"]
    odds = np.array([3.0, 0.5, 2.0, 1.0, 1.0, 0.4] if commercial else [1.9, 1.2, 1.2, 1.7, 1.4, 0.8])
    place = str(rng.choice(places, p=odds / odds.sum()))
    screen = place.endswith("screen")
    size = (0.1, 0.3) if screen else (0.25, 1.6) if commercial else (0.2, 0.9)
    return Mark(
        place=place,  # type: ignore[arg-type]  # one of the list above
        at=(float(rng.uniform(0.08, 0.92)), float(rng.uniform(0.15, 0.85))),
        size=(float(rng.uniform(*size)), float(rng.uniform(0.08, 0.22) if screen else rng.uniform(0.1, 0.4))),
        colour=_pick(rng, _BRIGHT),
        second=_pick(rng, _BRIGHT),
        shape=int(rng.integers(0, 5)),
    )


def _choose(rng: np.random.Generator, odds: "dict[Any, float]") -> Any:
    names = list(odds)
    weights = np.array(list(odds.values()))
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _pick(rng: np.random.Generator, colours: "list[Colour] | tuple[Colour, ...]") -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _vary(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    light = float(np.exp(rng.normal(0, amount)))
    tones = np.clip(np.array(colour) * light * np.exp(rng.normal(0, amount / 3, 3)), 0.006, 0.82)
    return float(tones[0]), float(tones[1]), float(tones[2])
