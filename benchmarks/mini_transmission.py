"""Where in real fog does a network fail? mAP of FVRID-Mini's real test images by how much of the vehicle's light comes
through, beside that of the same network on the same scenes without fog.

t is exp(-3 distance / visibility) of views.csv. Each line is a test of its own, of the images that t lets in: every one
is a query against all others of them.

    foggy           as the camera saw them
    clear           `fvrid render --counterparts` of the same scenes, by the statistics of synthetic images
    foggy to clear  the foggy image is the query, the clear ones are the gallery
"""

import argparse
import csv
import math
from pathlib import Path

import numpy as np
from harness import ROOT, finish

from fvrid_tools import open_dataset
from fvrid_tools.dataset import Dataset
from fvrid_tools.sources.mini import EMBEDDED
from sjdl_model.data import Counterparts
from sjdl_model.evaluate import Embedder, TestSet
from sjdl_model.network import load_network

ABLATION = ROOT / "build/ablation"
AT_LEAST = (0, 0.1, 0.2, 0.34, 0.5)
BELOW = (0.34, 0.2)


def transmissions() -> dict[str, float]:
    """By image_id."""
    with (EMBEDDED / "views.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["visibility_m"]]
    return {row["image_id"]: math.exp(-3 * float(row["distance_m"]) / float(row["visibility_m"])) for row in rows}


def embeddings(embedder: Embedder, data: Dataset, condition: str) -> dict[str, np.ndarray]:
    return {row.image_id: one for row, one in zip(data.rows, embedder(data, condition), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout has it too")
    parser.add_argument("--run", type=Path, required=True, help="a run of sjdl train or ablate")
    parser.add_argument("--real", type=Path, default=ABLATION / "real")
    parser.add_argument("--counterparts", type=Path, default=ABLATION / "counterparts")
    args = parser.parse_args()
    net, architecture = load_network(args.run)
    embedder = Embedder(net=net, size=architecture.image_size)
    real, counterparts = open_dataset(args.real), open_dataset(args.counterparts)
    Counterparts(counterparts, real)  # of the same scenes, or an error
    tests = real.take([row for row in real.rows if row.split in ("query", "gallery")])
    tested = {row.image_id for row in tests.rows}
    foggy = embeddings(embedder, tests, "foggy")
    scenes = counterparts.take([row for row in counterparts.rows if row.image_id in tested])
    clear = embeddings(embedder, scenes, "clear")
    t = transmissions()

    def line(low: float, high: float) -> dict[str, float]:
        part = tests.take([row for row in tests.rows if low <= t[row.image_id.rpartition("/")[2]] < high])
        test = TestSet(part, queries="all")
        f, c = (np.stack([of[row.image_id] for row in test.data.rows]) for of in (foggy, clear))
        found = {"foggy": test.score(f, f), "clear": test.score(c, c), "foggy to clear": test.score(f, c)}
        return {"images": len(part), **{name: round(100 * scores.mAP, 2) for name, scores in found.items()}}

    finish(
        args,
        {
            "run": str(args.run),
            **{f"t >= {bound}": line(bound, 1) for bound in AT_LEAST},
            **{f"t < {bound}": line(0, bound) for bound in BELOW},
        },
    )


if __name__ == "__main__":
    main()
