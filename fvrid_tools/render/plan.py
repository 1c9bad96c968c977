"""Which images a render makes: from a seed to the views of all its vehicles, each from draws of its own."""

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from .light import Fog, FogKind, Light
from .streets import SITES, Site, draw_electronics, site
from .vehicles import KINDS, Model, Vehicle, draw_model, draw_vehicle

MODEL_SHARE = 5  # vehicles a model
TRAFFIC = 24  # vehicles that pass by, the same in all renders
# of the vehicles: mini's 100 of 600 clear, 250 of 550 in fog
_TEST_SHARE: dict[str, float] = {"clear": 1 / 6, "fog": 5 / 11, "wide": 1 / 12}
_PREFIX = {"clear": "", "fog": "f", "wide": "w"}
_GAP, _LANE = 1.5, 2.6  # metres: between vehicles of a lane; between lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A vehicle on the road; yaw in radians, 0 along +x."""

    vehicle: int
    x: float
    y: float
    yaw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One image: who, where, when, and in what weather."""

    image_id: str
    vehicle_id: str
    split: str
    site: Site
    target: Placed
    traffic: tuple[Placed, ...]
    light: Light
    fog: Fog | None
    lamps: bool
    pair: bool  # a clear counterpart is rendered too
    margins: tuple[float, float, float, float]  # of the detector's box, shares of its side: left, right, top, bottom
    seed: int  # of the paths and of the camera's noise
    fog_seed: int  # of patchy fog

    @property
    def distance(self) -> float:
        """From the camera to the middle of the vehicle, metres."""
        return float(np.hypot(np.hypot(self.target.x, self.site.lateral - self.target.y), self.site.height - 0.7))

    def without_fog(self) -> "View":
        """The same scene and light on a clear day."""
        return replace(self, fog=None)

    @property
    def facing(self) -> str:
        """What the camera sees of the vehicle: front, rear, left or right side."""
        place = self.target
        towards = np.arctan2(self.site.lateral - place.y, -place.x)
        angle = float(np.degrees(np.mod(towards - place.yaw + np.pi, 2 * np.pi) - np.pi))
        if abs(angle) < 45:
            return "front"
        return "rear" if abs(angle) > 135 else "left" if angle > 0 else "right"


def generator(*names: object) -> np.random.Generator:
    """Draws that depend on these names alone: SHA-256 of them seeds PCG64."""
    digest = hashlib.sha256(":".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@cache
def traffic(index: int) -> Vehicle:
    """A vehicle that only passes by."""
    rng = generator("traffic", index)
    model: Model = draw_model(rng, f"t{index:02d}")
    return draw_vehicle(rng, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All that a render shows. Draws begin with seed and domain, so that no vehicle is in both domains."""

    seed: int
    vehicles: int
    views: int  # of each vehicle
    fog: tuple[FogKind, ...] = ()  # of which a view has one; none: the clear domain
    pairs: int = 0  # test vehicles whose clear counterparts are shown too
    wide: bool = False  # every view by a camera of its own, every kind as often: scenes to learn depth from

    @property
    def domain(self) -> Literal["clear", "fog", "wide"]:
        return "wide" if self.wide else "fog" if self.fog else "clear"

    def vehicle(self, index: int) -> Vehicle:
        """Vehicle number `index`; which model it is depends on how many vehicles there are."""
        number = self.model_number(index)
        kind = KINDS[number % len(KINDS)] if self.wide else None
        model = draw_model(self._generator("model", number), f"{self.domain}-{number:03d}", kind)
        return draw_vehicle(self._generator("vehicle", index), model)

    def test_vehicles(self) -> tuple[int, ...]:
        """Those kept for the test, model by model, so that vehicles of one model are to be told apart."""
        return _test_vehicles(self)

    def views_of(self, index: int) -> list[View]:
        """The views of a vehicle, by as many cameras as there are."""
        order = self._generator("cameras", index).permutation(SITES)
        tests = self.test_vehicles()
        split = "test" if index in tests else "train"
        length = self.vehicle(index).model.whole_length
        views = [
            self._view(index, length, number, site(int(order[number % SITES])), split, index in tests[: self.pairs])
            for number in range(self.views)
        ]
        return [_widened(v, length, self._generator("wide", v.image_id)) for v in views] if self.wide else views

    def _generator(self, *names: object) -> np.random.Generator:
        return generator(self.seed, self.domain, *names)

    def model_number(self, index: int) -> int:
        """Of the model that vehicle `index` is; about MODEL_SHARE vehicles share one, but where views are wide."""
        if self.wide:
            return index
        return int(self._generator("model of", index).integers(max(1, self.vehicles // MODEL_SHARE)))

    def _view(self, index: int, length: float, number: int, place: Site, split: str, pair: bool) -> View:
        vehicle_id = f"{_PREFIX[self.domain]}{index:04d}"
        image_id = f"{vehicle_id}_{place.name}_{number}"
        rng = self._generator(image_id)
        u = rng.uniform
        street = place.street
        lane = float(rng.choice(street.lanes)) + float(rng.normal(0, 0.25))
        yaw = street.heading + float(rng.normal(0, 0.25 if street.kind == "junction" else 0.035))
        target = Placed(vehicle=index, x=float(u(street.near, street.far)), y=lane, yaw=yaw)
        clouds = float(rng.choice([u(0, 0.35), u(0.4, 0.8), u(0.85, 1.0)]))
        fog = None
        if self.fog:
            clouds = float(u(0.85, 1.0))
            kind = self.fog[int(rng.random() ** 1.5 * len(self.fog))]  # the first somewhat more often
            fog = Fog(kind=kind, visibility=float(np.exp(u(np.log(26), np.log(100)))), asymmetry=float(u(0.65, 0.8)))
        late = rng.random() < (0.3 if self.fog else 0.08)
        light = Light(hour=float(u(18.45, 18.95) if late else u(7.2, 18.2)), clouds=clouds, seed=_seed(rng))
        return View(
            image_id=image_id,
            vehicle_id=vehicle_id,
            split=split,
            site=place,
            target=target,
            traffic=_traffic(rng, place, target, length),
            light=light,
            fog=fog,
            pair=pair,
            lamps=bool(rng.random() < (0.95 if light.dusk else 0.6 if fog else 0.12)),
            margins=tuple(float(m) for m in np.clip(rng.normal(0.04, 0.03, 4), -0.03, 0.12)),  # type: ignore[arg-type]
            seed=_seed(rng),
            fog_seed=_seed(rng),
        )


@cache
def _test_vehicles(fleet: Fleet) -> tuple[int, ...]:
    wanted = max(1, round(fleet.vehicles * _TEST_SHARE[fleet.domain])) if fleet.vehicles > 1 else 0
    by_model: dict[int, list[int]] = {}
    for index in range(fleet.vehicles):
        by_model.setdefault(fleet.model_number(index), []).append(index)
    order = generator(fleet.seed, fleet.domain, "test").permutation(sorted(by_model))
    return tuple([index for number in order for index in by_model[int(number)]][:wanted])


def _widened(view: View, length: float, rng: np.random.Generator) -> View:
    """The view by a camera and in a pose of its own: from kerb to gantry, 3.5 to 30 m away, often at any angle."""
    u, street = rng.uniform, view.site.street
    x = float(np.exp(u(np.log(3.5), np.log(30)))) + length / 2
    yaw = view.target.yaw if rng.random() < 0.5 else float(u(0, 2 * np.pi))
    target = replace(view.target, x=x, yaw=yaw)
    free = max(street.reach, abs(street.side))  # of trees and hedges, on the side of the street's own camera
    low, high = (-street.reach, free) if street.side > 0 else (-free, street.reach)
    camera = replace(
        view.site,
        height=min(float(np.exp(u(np.log(1.1), np.log(9)))), 0.75 * x),
        lateral=float(np.clip(target.y + u(-0.8, 0.8) * x, low, high)),
        aim=(x, target.y, 0.7),
        focal=4000.0,
        north=float(u(0, 2 * np.pi)),
        **draw_electronics(rng),
    )
    others = [replace(other, x=other.x + x - view.target.x) for other in view.traffic]
    return replace(
        view,
        site=camera,
        target=target,
        traffic=tuple(other for other in others if _may_stay(rng, camera, target, length, other)),
        margins=tuple(float(m) for m in np.clip(rng.normal(0.08, 0.08, 4), -0.08, 0.3)),  # type: ignore[arg-type]
    )


def _may_stay(rng: np.random.Generator, camera: Site, target: Placed, length: float, other: Placed) -> bool:
    """Whether a vehicle that passes by is clear of camera and target; it may hide a part of the target now and then."""
    half = traffic(other.vehicle).model.whole_length / 2
    eye, at, there = np.array([0, camera.lateral]), np.array([target.x, target.y]), np.array([other.x, other.y])
    share = np.clip((there - eye) @ (at - eye) / ((at - eye) @ (at - eye)), 0, 1)
    beside_the_view = np.linalg.norm(there - eye - share * (at - eye))  # metres
    crossways = abs(np.sin(target.yaw - camera.street.heading)) > 0.35
    touches = crossways and np.linalg.norm(there - at) < (length / 2 + half + _GAP)
    hides = beside_the_view < half + 1 and other.x < target.x and rng.random() < 0.6
    return bool(other.x - half > 3 and not touches and not hides)


def _traffic(rng: np.random.Generator, place: Site, target: Placed, length: float) -> tuple[Placed, ...]:
    """Vehicles on the lanes beside the target, and behind it: none through another, none that hides the target."""
    found: list[tuple[Placed, float]] = [(target, length)]
    for _ in range(int(rng.integers(0, 4))):
        who = int(rng.integers(TRAFFIC))
        model = traffic(who).model
        beside = [y for y in place.street.lanes if abs(y - target.y) > 2.4]
        behind = bool(rng.random() < 0.4) or not beside
        x = target.x + float(rng.uniform(9, 16) if behind else rng.uniform(-7, 14))
        y = float(target.y if behind else rng.choice(beside)) + float(rng.normal(0, 0.2))
        other = Placed(vehicle=who, x=x, y=y, yaw=place.street.heading)
        meets = any(
            abs(x - p.x) < (reach + model.whole_length) / 2 + _GAP and abs(y - p.y) < _LANE for p, reach in found
        )
        hides = x < target.x + 3 and model.kind in ("bus", "truck")  # no detector would report the target
        if place.street.kind != "junction" and x - model.whole_length / 2 > 5 and not hides and not meets:
            found.append((other, model.whole_length))
    return tuple(other for other, _ in found[1:])


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
