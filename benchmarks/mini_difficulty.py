"""How hard is FVRID-Mini? Retrieval by colour, by an untrained network and by a small trained one, and its errors.

    clear           test vehicles without fog: joint RGB histogram, untrained ResNet-18, one trained on clear images
    in real fog     the path-traced fog: the same three, and with --in-fog a network trained in synthetic fog
    the same views  of the 40 vehicles of the pairs, clear and in fog: what fog alone takes from each
    before BN       of the trained networks: by the feature that the triplet loss sees, not by the one after BN
    errors          of the network trained on clear images, before BN: what the wrong first match shares with the
                    query, how often queries of each end and kind are wrong, mAP from front to front and to rear

Every test image is a query. --epochs 0 leaves the training out. Exit code 1 where the dataset is trivial or hopeless:
histogram above 35 mAP on clear images, or the network trained on them outside 50 to 90, by its feature after BN as
`sjdl eval` takes it, or no worse in real fog.
"""

import csv
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import finish, options, scratch

from fvrid_tools import open_dataset
from fvrid_tools.build import Recipe, build
from fvrid_tools.dataset import Dataset
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS, FogRange
from fvrid_tools.sources import read_source
from fvrid_tools.sources.mini import EMBEDDED
from fvrid_tools.split import write_split
from sjdl_model import SJDL, data, metrics
from sjdl_model.config import Recipe as TrainingRecipe
from sjdl_model.config import read_recipe
from sjdl_model.evaluate import embed
from sjdl_model.network import load_network
from sjdl_model.train import train

COLOUR_LEVELS = 8  # a channel


def build_datasets(folder: Path) -> dict[str, Dataset]:
    """Clear images as they are, in synthetic fog, and the real-fog domain."""
    depth = open_estimator("source")
    recipes = {
        "clear": ("clear", Recipe(depth=depth, fog=FogRange(beta=(0.0, 0.0), airlight=(1.0, 1.0)))),
        "synthetic": ("clear", Recipe(depth=depth, fog=PRESETS["paper"])),
        "real": ("real", Recipe()),
        "pairs": ("pairs", Recipe(depth=depth)),
    }
    for name, (part, recipe) in recipes.items():
        build([read_source("mini", part=part)], folder / name, recipe, workers=2)
        write_split(folder / name, seed=0, test_share=0.25)
    return {name: open_dataset(folder / name) for name in recipes}


def test_part(dataset: Dataset) -> Dataset:
    return dataset.take([row for row in dataset.rows if row.split in ("query", "gallery")])


def histograms(dataset: Dataset, images: str = "foggy") -> np.ndarray:
    """(N, 512): square roots of the shares of joint RGB cells, the Hellinger embedding."""
    found = []
    for sample in dataset:
        cells = (getattr(sample, images) // (256 // COLOUR_LEVELS)).astype(int) @ [COLOUR_LEVELS**2, COLOUR_LEVELS, 1]
        found.append(np.sqrt(np.bincount(cells.ravel(), minlength=COLOUR_LEVELS**3) / cells.size))
    return np.array(found, np.float32)


def features(net: SJDL, dataset: Dataset, images: str = "foggy", *, size: int, before_bn: bool = False) -> np.ndarray:
    pick = data.clear if images == "clear" else data.foggy
    batches = data.image_batches(data.ImageSet(dataset, size, pick), 64, 2, torch.device("cpu"))
    return embed(net, batches, len(dataset), before_bn=before_bn)


def score(found: np.ndarray, dataset: Dataset) -> dict[str, float]:
    names = metrics.numbered([row.identity for row in dataset.rows], [])[0]
    cameras = [row.camera_id for row in dataset.rows]
    summary = metrics.evaluate(found, found, names, names, cameras, cameras).summary()
    return {name: round(100 * value, 2) for name, value in summary.items()}


def errors(found: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """What a wrong first match has in common with the query, in percent of the queries or of the errors."""
    with (EMBEDDED / "views.csv").open(newline="") as file:
        views = {row["image_id"]: row for row in csv.DictReader(file)}
    facts = [views[row.image_id.rpartition("/")[2]] for row in dataset.rows]
    distance = -found @ found.T + (found**2).sum(1) / 2
    counts: Counter[str] = Counter()
    for i, row in enumerate(dataset.rows):
        junk = [r.identity == row.identity and r.camera_id == row.camera_id for r in dataset.rows]
        order = np.argsort(np.where(junk, np.inf, distance[i]))
        first = int(order[0])
        end = "front" if facts[i]["facing"] == "front" else "rear" if facts[i]["facing"] == "rear" else "side"
        kind = facts[i]["kind"]
        counts[f"queries {end}"] += 1
        counts[f"queries {kind}"] += 1
        if dataset.rows[first].identity == row.identity:
            continue
        counts["errors"] += 1
        counts[f"errors {end}"] += 1
        counts[f"errors {kind}"] += 1
        counts["same model"] += facts[first]["model"] == facts[i]["model"]
        counts["same colour"] += facts[first]["colour"] == facts[i]["colour"]
        counts["same model and colour"] += (facts[first]["model"], facts[first]["colour"]) == (
            facts[i]["model"],
            facts[i]["colour"],
        )
        counts["same kind"] += facts[first]["kind"] == facts[i]["kind"]
        counts["same facing"] += facts[first]["facing"] == facts[i]["facing"]
        counts["same camera"] += facts[first]["camera_id"] == facts[i]["camera_id"]
    total = counts["errors"] or 1
    shares = {name: round(100 * counts[name] / total, 1) for name in counts if name.startswith("same")}
    groups = [name.partition(" ")[2] for name in sorted(counts) if name.startswith("queries ")]
    wrong = {f"errors of {g} queries": round(100 * counts[f"errors {g}"] / counts[f"queries {g}"], 1) for g in groups}
    across = across_ends(found, dataset, facts)
    return {"errors": round(100 * total / len(facts), 1), **shares, **wrong, **across}


def across_ends(found: np.ndarray, dataset: Dataset, facts: list[dict[str, str]]) -> dict[str, float]:
    """mAP where a query of one end is to find images of the same end only, and of the other end only."""
    ends = np.array([fact["facing"] for fact in facts])
    result = {}
    for name, wanted in (("mAP front to front", "front"), ("mAP front to rear", "rear")):
        query, gallery = np.flatnonzero(ends == "front"), np.flatnonzero(ends == wanted)
        ids = metrics.numbered([row.identity for row in dataset.rows], [])[0]
        cameras = [row.camera_id for row in dataset.rows]
        scores = metrics.evaluate(
            found[query],
            found[gallery],
            ids[query],
            ids[gallery],
            [cameras[i] for i in query],
            [cameras[i] for i in gallery],
        )
        result[name] = round(100 * scores.mAP, 1)
    return result


def trained(dataset: Dataset, recipe: TrainingRecipe, run: Path) -> SJDL:
    train(dataset, None, recipe, run, resume=(run / "checkpoint.pt").exists())
    return load_network(run / "weights.safetensors")[0]


def failures(results: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    if results["clear"]["colour histogram"]["mAP"] >= 35:
        found.append("trivial: the colour histogram reaches 35 mAP on clear images")
    network = "ResNet-18 trained on clear"
    if network in results["clear"]:
        clear, fog = (results[part][network]["mAP"] for part in ("clear", "in real fog"))
        if not 50 <= clear <= 90:
            found.append(f"{network}: {clear} mAP on clear images is not between 50 and 90")
        if fog > clear - 5:
            found.append(f"{network}: {fog} mAP in real fog is not clearly below {clear}")
    return found


def main() -> None:
    arguments = options(__doc__, images=False, rounds=None, epochs=50)
    recipe = read_recipe("mini", [f"epochs={arguments.epochs}"])
    size = recipe.image_size
    torch.manual_seed(0)
    results: dict[str, dict[str, Any]] = {"clear": {}, "in real fog": {}, "the same views": {}}
    with scratch() as folder:
        sets = build_datasets(Path(folder))
        tested = {name: test_part(dataset) for name, dataset in sets.items()}

        def compare(label: str, embedding: Callable[[Dataset, str], np.ndarray]) -> None:
            for part, name in (("clear", "clear"), ("in real fog", "real")):
                results[part][label] = score(embedding(tested[name], "foggy"), tested[name])
            results["the same views"][label] = {
                f"{images} {name}": value
                for images in ("clear", "foggy")
                for name, value in score(embedding(tested["pairs"], images), tested["pairs"]).items()
            }
            print(label, {part: found[label] for part, found in results.items()}, file=sys.stderr, flush=True)

        compare("colour histogram", histograms)
        untrained = SJDL(2, 0, recipe.backbone, last_stride=recipe.last_stride)
        compare("untrained ResNet-18", partial(features, untrained, size=size))
        for name in ("clear", "synthetic")[: 1 + arguments.in_fog] if arguments.epochs else ():
            net = trained(sets[name], recipe, (arguments.runs or Path(folder)) / f"run-{name}")
            label = f"ResNet-18 trained on {'clear' if name == 'clear' else 'synthetic fog'}"
            compare(label, partial(features, net, size=size))
            compare(f"{label}, before BN", partial(features, net, size=size, before_bn=True))
            if name == "clear":
                found = features(net, tested["clear"], size=size, before_bn=True)
                results["errors"] = errors(found, tested["clear"])
    finish(arguments, results, failures(results))


if __name__ == "__main__":
    main()
