"""Proof that training is right as a whole: losses that were written down, and a set that must be learned by heart."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fvrid_tools
from sjdl_model import SJDL
from sjdl_model.config import read_recipe
from sjdl_model.data import Batch
from sjdl_model.engine import Trainer
from sjdl_model.train import evaluate_run, train

# Every term of ten steps: seed 0, ResNet-18 from random weights, p = 3, k = 2 at 64 pixels, recipe demo.
GOLDEN: dict[str, list[float]] = {
    "synthetic/triplet": [2.89837, 3.4488, 0.30967, 1.65538, 1.62272, 3.75349, 3.1405, 2.94398, 0.19404, 1.85471],
    "synthetic/identity": [1.088, 1.10559, 1.1464, 1.11593, 1.0567, 1.06068, 1.18581, 1.12057, 1.27075, 1.06604],
    "synthetic/restoration": [
        40.57927,
        37.83556,
        27.04309,
        20.54238,
        26.78976,
        24.58133,
        23.65592,
        21.76903,
        19.51264,
        23.98432,
    ],
    "real/triplet": [1.99044, 2.71477, 0.0, 2.39766, 1.68944, 1.75706, 3.0079, 3.69357, 1.7721, 1.19455],
    "real/identity": [1.09533, 1.09121, 1.11428, 1.15117, 1.09757, 1.03819, 1.04259, 1.13587, 1.0614, 1.15889],
    "real/color_entropy": [
        -4.20967,
        -4.29297,
        -4.23449,
        -4.21815,
        -4.08504,
        -4.07314,
        -4.04882,
        -4.04597,
        -4.02771,
        -4.04207,
    ],
    "real/dark_channel": [
        64247.36719,
        55998.21484,
        42029.125,
        41589.77344,
        31584.33203,
        35094.01562,
        42734.08203,
        47112.54688,
        46160.03906,
        49417.28125,
    ],
    "real/total_variation": [
        10573.07715,
        11279.30469,
        10236.57227,
        10789.5918,
        9222.90039,
        8857.16406,
        8978.57422,
        8957.48926,
        8828.13086,
        8874.02734,
    ],
    "real/self_constraint": [-0.00461, 0.00174, 0.00123, 0.00423, 0.01159, 0.01621, 0.01682, 0.0134, 0.01349, 0.01858],
}


def batch(step: int, real: bool) -> Batch:
    """Images with some structure, of three vehicles, by NumPy: no decoder takes part."""
    draws = np.random.default_rng([step, real])
    colours = draws.uniform(0.2, 0.8, (6, 3, 1, 1))
    waves = np.sin(np.arange(64) / draws.uniform(2, 9, (6, 1, 1, 1)) + draws.uniform(0, 6, (6, 1, 1, 1)))
    clear = np.clip(colours + 0.15 * waves + draws.normal(0, 0.03, (6, 3, 64, 64)), 0, 1)
    foggy = 0.4 * clear + 0.6 * 0.9
    clear, foggy = (torch.from_numpy((255 * x).round().astype(np.uint8)) for x in (clear, foggy))
    label = torch.arange(6) // 2
    return Batch(foggy, None if real else clear, label, label)


def losses(steps: int) -> dict[str, list[float]]:
    recipe = read_recipe("demo", ["p=3", "k=2", "lr=1e-3"])
    torch.manual_seed(0)
    net = SJDL(3, 3, recipe.backbone, last_stride=recipe.last_stride)
    trainer = Trainer(net, recipe, 2 * steps, torch.device("cpu"))
    found: dict[str, list[float]] = {}
    for step in range(steps):
        for name, value in trainer.step(step, (batch(step, False), batch(step, True))).items():
            found.setdefault(name, []).append(round(float(value), 5))
    return found


def test_the_losses_of_ten_steps_are_those_written_down() -> None:
    """They change with the network, its initialisation, a term, the optimizer or the schedule; then write anew, by
    `python tests/test_proof.py`, and say why."""
    found = losses(10)
    assert found.keys() == GOLDEN.keys()
    for name, values in GOLDEN.items():
        assert found[name] == pytest.approx(values, rel=5e-3, abs=1e-3), name


def test_twelve_vehicles_are_learned_by_heart(built: Path, tmp_path: Path) -> None:
    """All terms at work, synthetic fog: every image finds its vehicle's others first."""
    data = fvrid_tools.open_dataset(built)
    assert len({row.identity for row in data.rows}) == 12
    settings = ["steps_per_epoch=8", "epochs=10", "workers=0", "p=6", "k=4", "lr=2e-3", "last_stride=2"]
    recipe = read_recipe("demo", settings)
    train(data.take([row._replace(split="train") for row in data.rows]), None, recipe, tmp_path / "run")
    first = {row.identity: row.image_id for row in reversed(data.rows)}
    rows = [
        row._replace(split="query" if row.image_id == first[row.identity] else "gallery", camera_id=None)
        for row in data.rows
    ]
    result = evaluate_run(tmp_path / "run", data.take(rows), condition="foggy", device="cpu")
    assert result.queries == 12
    assert result.scores["mAP"] == 1.0


if __name__ == "__main__":
    print(losses(10))
