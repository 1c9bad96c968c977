"""Do the paper's image priors prefer the truth to the fog on FVRID-Mini? Exit code 1 if not.

On flat surfaces they prefer the fog (Eqs. 6 to 9: entropy, dark channel, and their sum with total variation), and a
method that follows them could only do harm. Checked on the mean over the pairs, whose fog is path-traced, and over
clear images with the paper's fog.
"""

from pathlib import Path

import torch
from harness import finish, options, scratch

from fvrid_tools import open_dataset
from fvrid_tools.build import Recipe, build
from fvrid_tools.dataset import Dataset
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.sources import read_source
from sjdl_model import losses
from sjdl_model.config import Weights
from sjdl_model.data import ImageSet, clear, foggy, image_batches


def priors(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Means over a dataset's images: {"clear": {"entropy": ..., "dark_channel": ..., "L_DFu": ...}, "foggy": ...}."""
    weights = Weights()
    found = {}
    for name, pick in (("clear", clear), ("foggy", foggy)):
        sums = torch.zeros(3, dtype=torch.float64)
        for images in image_batches(ImageSet(dataset, 128, pick), 64, 0, torch.device("cpu")):
            terms = [losses.color_entropy_loss(images), losses.dark_channel_loss(images)]
            terms.append(losses.total_variation_loss(images))
            sums += len(images) * torch.stack(terms).double()
        entropy, dark, variation = (sums / len(dataset)).tolist()
        whole = weights.color_entropy * entropy + weights.dark_channel * dark + weights.total_variation * variation
        found[name] = {"entropy": -entropy, "dark_channel": dark / losses.PUBLISHED_SIZE**2, "L_DFu": whole}
    return found


def prefers_truth(found: dict[str, dict[str, float]]) -> bool:
    truth, fog = found["clear"], found["foggy"]
    return (
        truth["entropy"] > fog["entropy"]
        and truth["dark_channel"] < fog["dark_channel"]
        and truth["L_DFu"] < fog["L_DFu"]
    )


def main() -> None:
    arguments = options(__doc__, images=False, rounds=None)
    depth = open_estimator("source")
    with scratch() as folder:
        results = {}
        for name, part, fog in (("path-traced fog", "pairs", None), ("synthetic fog", "clear", PRESETS["paper"])):
            out = Path(folder) / part
            build([read_source("mini", part=part)], out, Recipe(depth=depth, fog=fog), workers=2)
            dataset = open_dataset(out)
            results[name] = priors(dataset.take(dataset.rows[:: max(1, len(dataset) // 1000)]))
    fooled = [name for name, found in results.items() if not prefers_truth(found)]
    finish(arguments, results, [f"{name}: the priors prefer it to the truth, for want of texture" for name in fooled])


if __name__ == "__main__":
    main()
