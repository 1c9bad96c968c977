"""How good is the depth of --depth dcnf? On renders with exact depth, and by signs on photographs without.

    renders       FVRID-Mini's test vehicles, or with --scenes the test vehicles of a fvrid render: correlation of d
                  within a crop, errors; of the network alone and of the field over superpixels; by kind of refinement
    photographs   a folder in VERI-Wild's layout, of which nothing was trained on: top farther than bottom, vehicle
                  nearer than the ground beside it, mirrored alike, median d and its spread within a crop

The same signs of the renders' exact depth say how far each sign can be trusted. Exit code 1 where a figure is missed.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import finish, options

from fvrid_tools import images, pictures
from fvrid_tools.depth import REFINEMENTS, DepthEstimator
from fvrid_tools.depth.accuracy import correlation, measure
from fvrid_tools.depth.dcnf.estimator import (
    DCNF,
    SIDE,
    WEIGHTS,
    both_ways,
    most_probable,
    read_network,
    region_of,
    unary,
)
from fvrid_tools.depth.dcnf.superpixels import Superpixels
from fvrid_tools.images import FloatArray
from fvrid_tools.records import ImageRecord
from fvrid_tools.sources import read_source

LIMITS: dict[str, tuple[str, str, float, float]] = {
    "in-crop correlation": ("renders", "correlation", 0.97, 1),
    "top farther than bottom": ("photographs", "top_farther", 99, 100),
    "vehicle nearer than the ground beside it": ("photographs", "vehicle_nearer", 97, 100),
    "mirror": ("photographs", "mirror_difference", 0, 0.03),
    "median d": ("photographs", "median_d", 0.3, 0.7),
    "spread": ("photographs", "spread_p95_p5", 1.2, 2.2),
}


def of_superpixels(records: list[ImageRecord], weights: Path) -> dict[str, float]:
    """In-crop correlation over superpixels with the truth's averages: of the network's z, and of the field's y*."""
    net = read_network(weights)
    found: dict[str, list[float]] = {"network": [], "field": []}
    for record in records:
        image = images.decode(pictures.read_image(record))
        truth = pictures.read_depth(record, *image.shape[:2])
        nodes = Superpixels.of(image, region_of(image))
        wanted = nodes.mean(truth[..., None])[:, 0]
        scene = torch.from_numpy(images.stretch(image, SIDE)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            z = unary(net, both_ways(net, scene)[0], nodes)
            y = most_probable(image, nodes, z, net.betas)
        if truth.std() > 0.005:
            found["network"].append(correlation(z.numpy(), wanted))
            found["field"].append(correlation(y, wanted))
    return {name: round(float(np.median(several)), 4) for name, several in found.items()}


def signs(d: FloatArray) -> dict[str, float]:
    """Of a crop: is the top farther than the bottom, the vehicle (middle) nearer than what is at its sides."""
    height, width = d.shape
    tenth = max(1, height // 10)
    rows = slice(int(0.4 * height), int(0.6 * height))
    edge, middle = max(1, round(0.06 * width)), slice(int(0.35 * width), int(0.65 * width))
    beside = np.concatenate([d[rows, :edge].ravel(), d[rows, -edge:].ravel()])
    low, high = np.percentile(d, (5, 95))
    return {
        "top_farther": 100.0 * (np.median(d[:tenth]) > np.median(d[-tenth:])),
        "vehicle_nearer": 100.0 * (np.median(d[rows, middle]) < np.median(beside)),
        "median_d": float(np.median(d)),
        "spread_p95_p5": float(high / max(low, 1e-6)),
    }


def of_photographs(records: list[ImageRecord], estimator: DepthEstimator) -> dict[str, Any]:
    found: list[dict[str, float]] = []
    for record in records:
        image = images.decode(pictures.read_image(record))
        d = estimator.predict(image, record)
        other = estimator.predict(np.ascontiguousarray(image[:, ::-1]), record)
        found.append(signs(d) | {"mirror_difference": float(np.abs(d - other[:, ::-1]).mean())})
    return summary(found)


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Shares for the signs, medians and 10th to 90th percentile for the rest."""
    result: dict[str, Any] = {}
    for name in found[0]:
        values = np.array([one[name] for one in found])
        if name in ("top_farther", "vehicle_nearer"):
            result[name] = round(float(values.mean()), 2)
        else:
            result[name] = round(float(values.mean() if name == "mirror_difference" else np.median(values)), 4)
            result[f"{name}_p10_p90"] = [round(float(v), 3) for v in np.percentile(values, (10, 90))]
    return result


def main() -> None:
    arguments = options(__doc__, rounds=None, weights=True)
    listing = read_source("mini", arguments.scenes)
    rendered = [record for record in listing.records if record.source_split == "test"]
    weights = arguments.weights or WEIGHTS
    results: dict[str, Any] = {"weights_bytes": weights.stat().st_size}
    print(f"{len(rendered)} renders", file=sys.stderr)
    sample = rendered[::4]
    results["renders"] = {
        **measure(DCNF(weights), rendered),
        "images": len(rendered),
        "every fourth, by refinement": {how: measure(DCNF(weights, how), sample) for how in REFINEMENTS},
        "superpixels": of_superpixels(rendered, weights),
        "signs_of_the_truth": summary([signs(pictures.read_depth(r, 128, 128)) for r in rendered]),
    }
    if arguments.images.is_dir():
        records = read_source("veri-wild", arguments.images).records
        results["photographs"] = {"images": len(records), **of_photographs(records, DCNF(weights))}
    finish(arguments, results, failures(results))


def failures(results: dict[str, Any]) -> list[str]:
    found = []
    for what, (part, name, low, high) in LIMITS.items():
        if part in results and not low <= results[part][name] <= high:
            found.append(f"{what}: {results[part][name]} is not between {low} and {high}")
    alone, field = (results["renders"]["superpixels"][name] for name in ("network", "field"))
    if field < alone:
        found.append(f"the field's correlation {field} is below the network's, {alone}")
    return found


if __name__ == "__main__":
    main()
