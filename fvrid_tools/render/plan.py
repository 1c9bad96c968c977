"""Which images a render makes: from a seed to the views of all its vehicles, each from draws of its own."""

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from .light import Fog, FogKind, Light
from .streets import SITES, Site, site
from .vehicles import Model, Vehicle, draw_model, draw_vehicle

MODEL_SHARE = 5  # vehicles a model
TRAFFIC = 24  # vehicles that pass by, the same in all renders
# of the vehicles: mini's 100 of 600 clear, 250 of 550 in fog
_TEST_SHARE: dict[str, float] = {"clear": 1 / 6, "fog": 5 / 11}
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

    @property
    def domain(self) -> Literal["clear", "fog"]:
        return "fog" if self.fog else "clear"

    def vehicle(self, index: int) -> Vehicle:
        """Vehicle number `index`; which model it is depends on how many vehicles there are."""
        number = self.model_number(index)
        model = draw_model(self._generator("model", number), f"{self.domain}-{number:03d}")
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
        return [
            self._view(index, length, number, site(int(order[number % SITES])), split, index in tests[: self.pairs])
            for number in range(self.views)
        ]

    def _generator(self, *names: object) -> np.random.Generator:
        return generator(self.seed, self.domain, *names)

    def model_number(self, index: int) -> int:
        """Of the model that vehicle `index` is; about MODEL_SHARE vehicles share one."""
        return int(self._generator("model of", index).integers(max(1, self.vehicles // MODEL_SHARE)))

    def _view(self, index: int, length: float, number: int, place: Site, split: str, pair: bool) -> View:
        vehicle_id = f"{'f' if self.fog else ''}{index:04d}"
        image_id = f"{vehicle_id}_{place.name}_{number}"
        rng = self._generator(image_id)
        u = rng.uniform
        lane = float(rng.choice(place.lanes)) + float(rng.normal(0, 0.25))
        yaw = place.heading + float(rng.normal(0, 0.25 if place.kind == "junction" else 0.035))
        target = Placed(vehicle=index, x=float(u(place.near, place.far)), y=lane, yaw=yaw)
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


def _traffic(rng: np.random.Generator, place: Site, target: Placed, length: float) -> tuple[Placed, ...]:
    """Vehicles on the lanes beside the target, and behind it: none through another, none that hides the target."""
    found: list[tuple[Placed, float]] = [(target, length)]
    for _ in range(int(rng.integers(0, 4))):
        who = int(rng.integers(TRAFFIC))
        model = traffic(who).model
        beside = [y for y in place.lanes if abs(y - target.y) > 2.4]
        behind = bool(rng.random() < 0.4) or not beside
        x = target.x + float(rng.uniform(9, 16) if behind else rng.uniform(-7, 14))
        y = float(target.y if behind else rng.choice(beside)) + float(rng.normal(0, 0.2))
        other = Placed(vehicle=who, x=x, y=y, yaw=place.heading)
        meets = any(
            abs(x - p.x) < (reach + model.whole_length) / 2 + _GAP and abs(y - p.y) < _LANE for p, reach in found
        )
        hides = x < target.x + 3 and model.kind in ("bus", "truck")  # no detector would report the target
        if place.kind != "junction" and x - model.whole_length / 2 > 5 and not hides and not meets:
            found.append((other, model.whole_length))
    return tuple(other for other, _ in found[1:])


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
