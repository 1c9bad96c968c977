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
    "synthetic/triplet": [2.89837, 3.49924, 0.07402, 1.85963, 2.32129, 2.33272, 2.47198, 2.0575, 0.44703, 2.01876],
    "synthetic/identity": [1.09613, 1.09054, 1.10803, 1.10489, 1.09331, 1.09566, 1.1069, 1.10656, 1.10343, 1.10223],
    "synthetic/restoration": [
        40.94816,
        41.82158,
        35.62448,
        32.15698,
        30.8465,
        36.76272,
        30.33376,
        27.65077,
        32.77124,
        32.36502,
    ],
    "real/triplet": [1.99044, 2.78209, 0.13278, 2.63733, 1.88503, 1.67851, 3.89008, 4.13843, 1.80726, 1.49819],
    "real/identity": [1.10266, 1.08599, 1.11108, 1.09732, 1.08696, 1.09227, 1.08319, 1.08686, 1.09575, 1.10422],
    "real/color_entropy": [
        -4.21109,
        -4.15307,
        -4.19107,
        -4.23869,
        -4.28405,
        -4.28642,
        -4.24603,
        -4.30029,
        -4.28128,
        -4.29986,
    ],
    "real/dark_channel": [
        8982.94043,
        8279.67285,
        9694.29883,
        12323.53125,
        17868.2168,
        19620.73438,
        19003.11523,
        22800.32031,
        22024.50586,
        20854.76953,
    ],
    "real/total_variation": [
        12338.03906,
        11715.05859,
        11995.80762,
        11726.35156,
        11838.73047,
        11756.83203,
        11443.48828,
        11679.51074,
        11447.54297,
        11627.86719,
    ],
    "real/self_constraint": [-0.0025, 0.00073, 0.00292, 8e-05, 0.00133, 0.00031, -0.00251, 0.00074, -0.00061, -0.00276],
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
