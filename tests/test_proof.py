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
    "synthetic/triplet": [0.24868, 0.40781, 0.24413, 0.44159, 0.53098, 0.53021, 0.47511, 0.43842, 0.36276, 0.41636],
    "synthetic/identity": [1.10541, 1.11264, 1.07278, 1.0929, 1.09838, 1.09473, 1.11331, 1.09614, 1.08554, 1.09719],
    "synthetic/restoration": [
        41.30257,
        42.19818,
        35.75526,
        32.05803,
        30.65697,
        36.72333,
        30.66603,
        27.76976,
        33.23588,
        32.51778,
    ],
    "real/triplet": [0.50044, 0.59577, 0.49248, 0.49077, 0.48537, 0.51412, 0.48417, 0.51331, 0.38143, 0.28902],
    "real/identity": [1.10654, 1.10011, 1.09696, 1.10486, 1.09897, 1.0968, 1.08907, 1.10064, 1.11694, 1.09039],
    "real/color_entropy": [
        -4.24209,
        -4.19488,
        -4.21452,
        -4.25553,
        -4.29263,
        -4.28649,
        -4.2611,
        -4.29032,
        -4.28045,
        -4.28806,
    ],
    "real/dark_channel": [
        9070.97656,
        7575.63965,
        9356.12109,
        13169.0752,
        18439.56641,
        21509.16797,
        19824.40039,
        25475.39844,
        23078.92383,
        23057.45312,
    ],
    "real/total_variation": [
        12416.05859,
        11958.37793,
        11982.4209,
        11772.35547,
        12053.11426,
        11768.26074,
        11559.39551,
        11636.26562,
        11644.90625,
        11673.67676,
    ],
    "real/self_constraint": [
        -0.00106,
        0.00083,
        0.0014,
        -0.00251,
        0.00132,
        -0.00052,
        -0.00529,
        0.00049,
        -0.00396,
        -0.0014,
    ],
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
    return Batch("real", foggy, label, label) if real else Batch("synthetic", foggy, label, label, clear)


def losses(steps: int) -> dict[str, list[float]]:
    recipe = read_recipe("demo", ["p=3", "k=2", "lr=1e-4"])
    torch.manual_seed(0)
    switches = ("local_contrast", "whole_contrast", "domain_statistics", "unit_embedding")
    net = SJDL(3, 3, recipe.backbone, last_stride=recipe.last_stride, **{key: getattr(recipe, key) for key in switches})
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
