"""The dataset inside the package: its size, its texture, the fog it was rendered in."""

import csv
from collections import Counter

import numpy as np
import pytest
import torch

from fvrid_tools import build, open_dataset
from fvrid_tools.dataset import Dataset
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import ImageRecord, Part
from fvrid_tools.sources import mini, read_source
from sjdl_model import losses


def records(part: Part) -> list[ImageRecord]:
    return read_source("mini", part=part).records


def vehicles(found: list[ImageRecord], split: str) -> int:
    return len({record.vehicle_id for record in found if record.source_split == split})


@pytest.fixture(scope="module")
def views() -> list[dict[str, str]]:
    with (mini.EMBEDDED / mini.VIEWS).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in mini.EMBEDDED.iterdir()) <= 50_000_000


def test_the_clear_domain() -> None:
    found = records("clear")
    assert len(found) == 4800
    assert (vehicles(found, "train"), vehicles(found, "test")) == (500, 100)
    assert len({record.camera_id for record in found}) >= 12


def test_the_real_fog_domain() -> None:
    found = records("real")
    assert len(found) == 3300
    assert (vehicles(found, "train"), vehicles(found, "test")) == (300, 250)
    pairs = records("pairs")
    assert vehicles(pairs, "train") == 0  # for evaluation only
    assert vehicles(pairs, "test") == 40
    assert {record.image_id for record in pairs} <= {record.image_id for record in found}


def test_no_vehicle_is_in_both_domains() -> None:
    assert not {r.vehicle_id for r in records("clear")} & {r.vehicle_id for r in records("real")}


def test_fog_is_of_many_kinds(views: list[dict[str, str]]) -> None:
    foggy = [view for view in views if view["fog"]]
    kinds = Counter(view["fog"] for view in foggy)
    assert min(kinds["homogeneous"], kinds["patchy"]) > 800
    visibility = np.array([float(view["visibility_m"]) for view in foggy])
    assert visibility.min() < 30
    assert visibility.max() > 90
    assert 0.1 < np.mean([float(view["hour"]) > 18.4 for view in foggy]) < 0.5  # dusk
    assert 0.4 < np.mean([view["lamps"] == "1" for view in foggy]) < 0.9


def test_colour_and_model_do_not_tell_vehicles_apart(views: list[dict[str, str]]) -> None:
    for fog in (False, True):
        tested = [v for v in views if v["split"] == "test" and bool(v["fog"]) == fog]
        looks = {v["vehicle_id"]: (v["model"], v["colour"]) for v in tested}
        alike = Counter(looks.values())
        assert np.mean([alike[look] > 1 for look in looks.values()]) > 0.5


@pytest.fixture(scope="module", params=["pairs", "clear"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Clear images with the path-traced fog of their pairs, or with synthetic fog."""
    part: Part = request.param
    listing = read_source("mini", part=part)
    few = listing.records[:: max(1, len(listing.records) // 240)]
    fog = None if part == "pairs" else PRESETS["paper"]
    out = tmp_path_factory.mktemp("texture") / part
    recipe = build.Recipe(depth=open_estimator("source"), fog=fog)
    build.build([listing.__class__(few, [], "")], out, recipe)
    return open_dataset(out)


def test_the_papers_priors_prefer_the_truth_to_the_fog(both: Dataset) -> None:
    clear, foggy = (
        torch.from_numpy(np.stack([getattr(sample, name) for sample in both])).permute(0, 3, 1, 2).float() / 255
        for name in ("clear", "foggy")
    )

    def unsupervised(images: torch.Tensor) -> float:
        sharp = 1e-5 * (losses.dark_channel_loss(images) + losses.total_variation_loss(images))
        return float(losses.color_entropy_loss(images) + sharp)

    assert losses.color_entropy_loss(clear) < losses.color_entropy_loss(foggy)  # minus the entropy
    assert losses.dark_channel_loss(clear) < losses.dark_channel_loss(foggy)
    assert unsupervised(clear) < unsupervised(foggy)


def test_fog_takes_contrast(both: Dataset) -> None:
    spread = [(sample.clear.std(), sample.foggy.std()) for sample in both]
    assert np.mean([foggy < clear for clear, foggy in spread]) > 0.95
