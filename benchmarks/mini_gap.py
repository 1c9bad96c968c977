"""How far is the path-traced fog of FVRID-Mini from I = J t + A (1 - t), with the best beta and A for each image?

Over the pairs, the stored foggy image is compared with Eq. 1 applied to its clear counterpart J:

    paper      as FVRID_Syn does it: developed images, t = exp(-beta d) with d the log-normalised distance
    physical   the same with t = exp(-beta z), z in metres
    exposed    physical, J times a gain fitted as well: cameras expose a foggy scene and a clear one differently
    linear     exposed, on intensities with the display's curve (2.2) undone; compared in grey levels all the same

What is left is the domain gap, in grey levels (root mean square over all pairs), for the whole image and for parts of
it, for homogeneous and for patchy fog. Camera noise and JPEG are in it: benchmarks/mini_fog.py has their size.
"""

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import finish, options, scratch

from fvrid_tools import open_dataset
from fvrid_tools.build import Recipe, build
from fvrid_tools.depth import open_estimator
from fvrid_tools.records import FARTHEST_M
from fvrid_tools.sources import read_source
from fvrid_tools.sources.mini import EMBEDDED

GAMMA = 2.2
GLOW = 13  # pixels: side of the square around a lamp's pixel that counts as its glow


@dataclass(frozen=True)
class Form:
    """A way to read Eq. 1."""

    betas: np.ndarray
    path: Callable[[np.ndarray], np.ndarray]  # of the log-normalised distance
    gain: bool = False
    gamma: float = 1.0


def metres(d: np.ndarray) -> np.ndarray:
    return FARTHEST_M ** d.astype(np.float64)


PER_METRE = np.geomspace(0.002, 0.5, 60)
FORMS = {
    "paper": Form(np.geomspace(0.02, 40, 60), lambda d: d.astype(np.float64)),
    "physical": Form(PER_METRE, metres),
    "exposed": Form(PER_METRE, metres, gain=True),
    "linear": Form(PER_METRE, metres, gain=True, gamma=GAMMA),
}


@dataclass(frozen=True)
class Fit:
    beta: float
    airlight: float
    at_limit: bool  # the best beta is the first or last that was tried
    error: np.ndarray  # (H, W): squared, mean over the colours, in grey levels


def fit(foggy: np.ndarray, clear: np.ndarray, d: np.ndarray, form: Form) -> Fit:
    """The beta, grey A in [0, 1] and, if wanted, gain with least squares. Images are (H, W, 3) in [0, 1]."""
    i, j = (image**form.gamma for image in (foggy, clear))
    path = form.path(d)
    costs, found = [], []
    for beta in form.betas:
        t = np.exp(-beta * path)[..., None]
        held = np.broadcast_to(1 - t, i.shape)
        gain, airlight = 1.0, 0.0
        if form.gain:
            columns = np.stack([(j * t).ravel(), held.ravel()], 1)
            gain, airlight = np.linalg.solve(columns.T @ columns + 1e-9 * np.eye(2), columns.T @ i.ravel())
        else:
            airlight = float((i - j * t).ravel() @ held.ravel() / max(1e-9, held.ravel() @ held.ravel()))
        airlight = float(np.clip(airlight, 0, 1))
        made = gain * j * t + airlight * held
        costs.append(float(np.mean((i - made) ** 2)))
        found.append((airlight, made))
    best = int(np.argmin(costs))
    airlight, made = found[best]
    shown = np.clip(made, 0, 1) ** (1 / form.gamma)
    error = np.mean((255 * (foggy - shown)) ** 2, axis=2)
    return Fit(float(form.betas[best]), airlight, best in (0, len(costs) - 1), error)


def regions(foggy: np.ndarray, clear: np.ndarray, d: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (H, W). Lamps are the pixels of which a channel, red for tail lamps, is near full scale."""
    lamps = (foggy.max(axis=2) > 0.95).astype(np.uint8)
    glow = cv2.dilate(lamps, np.ones((GLOW, GLOW), np.uint8)) > 0
    dark = clear.max(axis=2) < 0.2
    far = d > np.quantile(d, 0.75)
    rest = ~(glow | dark | far)
    return {"lamps and glow": glow, "dark surfaces": dark & ~glow, "farthest quarter": far & ~glow, "the rest": rest}


def main() -> None:
    arguments = options(__doc__, images=False, rounds=None)
    with (EMBEDDED / "views.csv").open(newline="") as file:
        views = {row["image_id"]: row for row in csv.DictReader(file)}
    squares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    shares: dict[str, list[float]] = defaultdict(list)
    fits: dict[str, list[Fit]] = defaultdict(list)
    with scratch() as folder:
        out = Path(folder) / "pairs"
        build([read_source("mini", part="pairs")], out, Recipe(depth=open_estimator("source")), workers=2)
        for sample in open_dataset(out):
            foggy, clear = sample.foggy / 255.0, sample.clear / 255.0
            kind = views[sample.image_id.rpartition("/")[2]]["fog"]
            masks = regions(foggy, clear, sample.depth)
            for name, mask in masks.items():
                shares[name].append(float(mask.mean()))
            for name, form in FORMS.items():
                found = fit(foggy, clear, sample.depth, form)
                fits[name].append(found)
                squares[name]["all"].append(float(found.error.mean()))
                squares[name][f"{kind} fog"].append(float(found.error.mean()))
                for part, mask in masks.items():
                    if mask.any():
                        squares[name][part].append(float(found.error[mask].mean()))
            squares["nothing fitted"]["all"].append(float(np.mean((255 * (foggy - clear)) ** 2)))
    results: dict[str, Any] = {"pairs": len(fits["paper"])}
    for name, parts in squares.items():
        results[name] = {f"rms {part}": round(float(np.sqrt(np.mean(values))), 2) for part, values in parts.items()}
    for name, several in fits.items():
        results[name] |= {
            "median beta": round(float(np.median([f.beta for f in several])), 4),
            "median A": round(float(np.median([f.airlight for f in several])), 3),
            "share of fits with beta at a limit": round(float(np.mean([f.at_limit for f in several])), 3),
        }
    results["share of pixels"] = {name: round(float(np.mean(values)), 3) for name, values in shares.items()}
    finish(arguments, results)


if __name__ == "__main__":
    main()
