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
from sjdl_model.results import evaluate_run
from sjdl_model.train import train

# Every term of ten steps: seed 0, ResNet-18 from random weights, p = 3, k = 2 at 64 pixels, recipe demo.
GOLDEN: dict[str, list[float]] = {
    "synthetic/triplet": [0.61571, 0.71525, 0.1182, 0.53988, 0.50057, 0.5262, 0.55486, 0.59111, 0.1085, 0.44305],
    "synthetic/identity": [1.09613, 1.09052, 1.10889, 1.10506, 1.09298, 1.09601, 1.10618, 1.10789, 1.10738, 1.09905],
    "synthetic/restoration": [
        40.94816,
        41.81845,
        35.59468,
        32.10638,
        30.78381,
        36.66182,
        30.24454,
        27.53086,
        32.68031,
        32.25331,
    ],
    "real/triplet": [0.51142, 0.60348, 0.07085, 0.61671, 0.42203, 0.36577, 0.70639, 0.86505, 0.40558, 0.4096],
    "real/identity": [1.10266, 1.08596, 1.11133, 1.09859, 1.08699, 1.0913, 1.08315, 1.08799, 1.09466, 1.10188],
    "real/color_entropy": [
        -4.21109,
        -4.15302,
        -4.19111,
        -4.23905,
        -4.28471,
        -4.28901,
        -4.24573,
        -4.30258,
        -4.28238,
        -4.30004,
    ],
    "real/dark_channel": [
        8982.9375,
        8279.48242,
        9719.39941,
        12362.86328,
        17873.18164,
        19610.44531,
        19225.22266,
        23125.38281,
        21867.9043,
        21135.9375,
    ],
    "real/total_variation": [
        12338.03906,
        11713.31738,
        11983.10547,
        11712.87891,
        11809.25391,
        11697.30957,
        11414.16113,
        11634.66016,
        11398.72363,
        11581.17676,
    ],
    "real/self_constraint": [-0.0025, 0.00071, 0.0028, 0.00062, 0.00129, 0.00078, -0.00399, 0.0009, -0.00099, -0.00211],
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
    recipe = read_recipe("demo", ["p=3", "k=2", "lr=1e-4"])
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


@pytest.mark.slow
def test_twelve_vehicles_are_learned_by_heart(built: Path, tmp_path: Path) -> None:
    """In fog, flipped and cropped, by one of timm's smallest networks: every image finds its vehicle's others first."""
    data = fvrid_tools.open_dataset(built)
    assert len({row.identity for row in data.rows}) == 12
    settings = ["backbone=test_resnet", "last_stride=2", "p=6", "k=4", "lr=3e-3", "weights.restoration=0"]
    recipe = read_recipe("demo", [*settings, "steps_per_epoch=600", "epochs=1", "workers=2"])
    train(data.take([row._replace(split="train") for row in data.rows]), None, recipe, tmp_path / "run")
    first = {row.identity: row.image_id for row in reversed(data.rows)}
    rows = [
        row._replace(split="query" if row.image_id == first[row.identity] else "gallery", camera_id=None)
        for row in data.rows
    ]
    result = evaluate_run(tmp_path / "run", data.take(rows))
    assert result.queries == 12
    assert result.scores["mAP"] == 1.0


if __name__ == "__main__":
    print(losses(10))
