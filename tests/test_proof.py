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
    "synthetic/triplet": [2.89837, 3.49827, 0.07689, 1.85717, 2.30937, 2.36107, 2.48438, 2.05556, 0.45124, 2.01784],
    "synthetic/identity": [1.088, 1.09736, 1.10809, 1.11125, 1.09117, 1.09488, 1.12504, 1.10663, 1.09314, 1.09074],
    "synthetic/restoration": [
        40.57928,
        40.13039,
        35.5438,
        33.50002,
        26.68037,
        32.66756,
        32.5862,
        27.74699,
        31.32613,
        29.1168,
    ],
    "real/triplet": [1.99044, 2.78289, 0.13223, 2.63414, 1.8753, 1.69203, 3.9251, 4.17608, 1.84903, 1.48915],
    "real/identity": [1.09533, 1.09367, 1.0931, 1.10721, 1.08191, 1.09728, 1.07108, 1.08859, 1.0983, 1.09538],
    "real/color_entropy": [
        -4.20967,
        -4.27418,
        -4.27336,
        -4.30398,
        -4.27731,
        -4.27054,
        -4.27165,
        -4.27684,
        -4.26191,
        -4.26882,
    ],
    "real/dark_channel": [
        64247.35938,
        59968.36719,
        60068.46094,
        55141.75781,
        53698.76953,
        50666.0625,
        48964.23047,
        49945.69922,
        46832.10156,
        48469.15234,
    ],
    "real/total_variation": [
        10573.0791,
        11143.09668,
        11099.68848,
        11325.05078,
        10922.63086,
        10645.15723,
        10840.84668,
        10748.99219,
        10593.29688,
        10686.45117,
    ],
    "real/self_constraint": [-0.00461, 0.00158, -0.00103, 0.0013, 0.00385, 0.00446, 0.00368, 0.00587, -2e-05, 0.00585],
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
