"""Where in real fog does a network fail? mAP of FVRID-Mini's real test images by how much of the vehicle's light comes
through, beside that of the same network on the same scenes without fog.

t is exp(-3 distance / visibility) of views.csv. Each line is a test of its own, of the images that t lets in: every one
is a query against all others of them.

    foggy           as the camera saw them
    clear           `fvrid render --counterparts` of the same scenes, by the statistics of synthetic images
    foggy to clear  the foggy image is the query, the clear ones are the gallery

--picture FILE.jpg shows what there is to see, the densest fog first: foggy | clear, and local contrast of both.
"""

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, finish

from fvrid_tools import images, open_dataset
from fvrid_tools.dataset import Dataset
from fvrid_tools.files import write_atomic
from fvrid_tools.images import Uint8Image
from fvrid_tools.sources.mini import EMBEDDED
from sjdl_model import norms
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


def local_contrast(image: Uint8Image) -> Uint8Image:
    """As the backbone sees it; grey is none."""
    seen = norms.local_contrast(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0).numpy()
    return images.to_uint8((seen / norms.MOST_CONTRAST + 1) / 2)


def picture(pairs: list[tuple[Uint8Image, Uint8Image]], columns: int = 2) -> Uint8Image:
    cells = [
        np.concatenate([foggy, clear, local_contrast(foggy), local_contrast(clear)], axis=1) for foggy, clear in pairs
    ]
    rows = [np.concatenate(cells[i :: len(cells) // columns], axis=1) for i in range(len(cells) // columns)]
    return np.ascontiguousarray(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout has it too")
    parser.add_argument("--run", type=Path, required=True, help="a run of sjdl train or ablate")
    parser.add_argument("--real", type=Path, default=ABLATION / "real")
    parser.add_argument("--counterparts", type=Path, default=ABLATION / "counterparts")
    parser.add_argument("--picture", type=Path)
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

    if args.picture:
        thickest = sorted(tests.rows, key=lambda row: t[row.image_id.rpartition("/")[2]])
        shown = [thickest[i] for i in np.linspace(0, len(thickest) - 1, 12).astype(int)]
        by_name = {row.image_id: row for row in scenes.rows}
        sides = tests.take(shown), scenes.take([by_name[row.image_id] for row in shown])
        size = architecture.image_size
        pairs = [(foggy.foggy, scene.clear) for foggy, scene in zip(*sides, strict=True)]
        both = [(images.stretch(a, size), images.stretch(b, size)) for a, b in pairs]
        write_atomic(args.picture, images.encode(picture(both)))

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
