"""How far is the path-traced fog of FVRID-Mini from I = J t + A (1 - t), with the best beta and A for each image?

Over the pairs: the stored foggy image against the clear counterpart J under Eq. 1, as FVRID_Syn applies it, on the
developed images with log-normalised depth (paper), and with t = exp(-beta z), z in metres (physical). What is left is
the domain gap, in grey levels; said also for parts of the image, and for homogeneous and patchy fog. Camera noise and
JPEG are in it (benchmarks/mini_fog.py has their size).
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from harness import finish, options, scratch

from fvrid_tools import open_dataset
from fvrid_tools.build import Recipe, build
from fvrid_tools.depth import FARTHEST_M, open_estimator
from fvrid_tools.sources import read_source
from fvrid_tools.sources.mini import EMBEDDED

BETAS = np.geomspace(0.02, 12.0, 80)


def fit(foggy: np.ndarray, clear: np.ndarray, path: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The beta and grey A that fit best, and what is left, (H, W, 3). Images are [0, 1]; beta multiplies `path`."""
    best = (np.inf, 0.0, 0.0, foggy)
    for beta in BETAS:
        t = np.exp(-beta * path)[..., None]
        rest, held = foggy - clear * t, np.broadcast_to(1 - t, foggy.shape)
        airlight = float(np.clip((rest * held).sum() / max(1e-9, (held**2).sum()), 0, 1))
        left = rest - airlight * held
        cost = float(np.mean(left**2))
        if cost < best[0]:
            best = (cost, float(beta), airlight, left)
    return best[1], best[2], best[3]


def regions(foggy: np.ndarray, clear: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
    bright = foggy.min(axis=2) > 0.93
    near_lamp = np.zeros_like(bright)
    for shift in range(-6, 7):
        near_lamp |= np.roll(bright, shift, 0) | np.roll(bright, shift, 1)
    dark = clear.max(axis=2) < 0.2
    far = depth > np.quantile(depth, 0.75)
    return {"lamps and their glow": near_lamp, "dark surfaces": dark & ~near_lamp, "farthest quarter": far & ~near_lamp}


def main() -> None:
    arguments = options(__doc__)
    with (EMBEDDED / "views.csv").open(newline="") as file:
        views = {row["image_id"]: row for row in csv.DictReader(file)}
    squares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    fits: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with scratch() as folder:
        out = Path(folder) / "pairs"
        build([read_source("mini", part="pairs")], out, Recipe(depth=open_estimator("source")), workers=2)
        for sample in open_dataset(out):
            foggy, clear = sample.foggy / 255.0, sample.clear / 255.0
            kind = views[sample.image_id.rpartition("/")[2]]["fog"]
            paths = {"paper": sample.depth, "physical": FARTHEST_M ** sample.depth.astype(np.float64)}
            for form, path in paths.items():
                beta, airlight, left = fit(foggy, clear, path)
                fits[form].append((beta, airlight))
                error = np.mean((255 * left) ** 2, axis=2)
                squares[form]["all"].append(float(error.mean()))
                squares[form][kind].append(float(error.mean()))
                for name, mask in regions(foggy, clear, sample.depth).items():
                    if mask.any():
                        squares[form][name].append(float(error[mask].mean()))
            squares["nothing fitted"]["all"].append(float(np.mean((255 * (foggy - clear)) ** 2)))
    results = {
        form: {
            **{f"rms {name}": round(float(np.sqrt(np.mean(values))), 2) for name, values in parts.items()},
            **(
                {
                    "median beta": round(float(np.median([b for b, _ in fits[form]])), 3),
                    "median A": round(float(np.median([a for _, a in fits[form]])), 3),
                }
                if form in fits
                else {}
            ),
        }
        for form, parts in squares.items()
    }
    finish(arguments, results)


if __name__ == "__main__":
    main()
