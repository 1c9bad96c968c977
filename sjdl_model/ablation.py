"""The order of an ablation: arms x seeds -> runs, each trained and scored -> comparisons -> tables, figure, page.

OUT/runs/<arm>/<seed>/        a run as `sjdl train` leaves it, without its checkpoint, and scores.json
OUT/start/                    the run on clear images whose backbone all begin with, where none is pretrained
OUT/results.json              {arm: {seed: {"mAP_synthetic": x, "mAP_real": x, ...}}}
OUT/ablation.html             the tables and the figure to look at; OUT/figure.svg

A seed has the same initial weights and the same batches in every arm. Runs that are finished are not repeated, one that
was stopped goes on. Every test image is a query.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from fvrid_tools import files, page, pool
from fvrid_tools.dataset import Dataset, open_dataset
from fvrid_tools.records import Row

from . import compare
from .arms import START, Arm
from .checkpoint import CHECKPOINT
from .conditions import defogging_quality
from .config import DataError, Recipe, read_recipe, to_toml
from .data import Counterparts
from .devices import pick_device, set_precision
from .evaluate import Embedder, TestSet
from .network import WEIGHTS, load_network
from .objectives import defogs
from .train import train

RESULTS, SCORES, PAGE, FIGURE = "results.json", "scores.json", "ablation.html", "figure.svg"
LISTS = ("average_precision_synthetic", "average_precision_real")  # of each query; in SCORES only
VALIDATION_SHARE = 0.25  # of the training vehicles

Results = dict[str, dict[str, dict[str, Any]]]  # arm -> seed -> scores


@dataclass(frozen=True, kw_only=True)
class Data:
    """Folders of datasets, and whether the test vehicles are left alone: a part of the training vehicles is tested."""

    synthetic: Path
    real: Path
    counterparts: Path | None = None
    validation: bool = False

    def open(self) -> tuple[Dataset, Dataset, Dataset | None]:
        paths = (self.synthetic, self.real, self.counterparts)
        found = [None if path is None else open_dataset(path) for path in paths]
        first, second, third = [d and (validation_part(d) if self.validation else d) for d in found]
        assert first is not None
        assert second is not None
        return first, second, third


def validation_part(data: Dataset) -> Dataset:
    """The training vehicles alone, every fourth of them for the test, in the order of a hash of its name.

    What is settled on them, is settled without the test vehicles.
    """
    rows = [row for row in data.rows if row.split == "train"]
    vehicles = sorted({row.identity for row in rows}, key=lambda name: files.sha256_bytes(repr(name).encode()))
    tested = set(vehicles[: round(VALIDATION_SHARE * len(vehicles))])
    seen: set[tuple[str, str]] = set()

    def split(row: Row) -> str:
        if row.identity not in tested:
            return "train"
        first = row.identity not in seen
        seen.add(row.identity)
        return "query" if first else "gallery"  # all are queries in an ablation

    return data.take([row._replace(split=split(row)) for row in rows])


def ablate(
    data: Data,
    arms: Sequence[Arm],
    seeds: int,
    out: Path,
    recipe: str = "default",
    changes: Sequence[str] = (),
    jobs: int = 1,
    progress: pool.Progress = lambda count: None,
) -> Results:
    """Train and score every arm with every seed, and write RESULTS.

    jobs: runs at once.  progress: is told of each run that is done.
    Raises ConfigError, DataError, FvridError; FloatingPointError where a loss is not finite.
    """
    _, real, counterparts = data.open()
    if counterparts is not None:
        Counterparts(counterparts, real)
    usable = [arm for arm in arms if arm.clear or not arm.counterparts or counterparts is not None]
    files.make_folder(out)
    with files.alone_in(out):
        changes = [*changes, *_start(data, out, recipe, changes)]
        tasks: dict[str, RunTask] = {}  # by what is asked for: arms may ask for the same, as sjdl and conv_2
        places: dict[tuple[str, int], str] = {}
        for arm in usable:
            for seed in range(seeds):
                resolved = read_recipe(recipe, [*changes, *arm.changes, f"seed={seed}"])
                asked = f"{arm.counterparts} {arm.clear} {to_toml(resolved)}"
                folder = out / "runs" / arm.name / str(seed)
                tasks.setdefault(asked, RunTask(folder, resolved, arm, data, jobs))
                places[arm.name, seed] = asked
        found = dict(zip(tasks, pool.run(list(tasks.values()), jobs, progress), strict=True))
        results: Results = {arm.name: {} for arm in arms}
        for (name, seed), asked in places.items():
            results[name][str(seed)] = found[asked]
        files.write_atomic(out / RESULTS, json.dumps(_scalars(results), indent=1) + "\n")
    return results


def _start(data: Data, out: Path, recipe: str, changes: Sequence[str]) -> list[str]:
    """Where the recipe begins with random weights: train one network on clear images for all to begin with."""
    resolved = read_recipe(recipe, [*changes, *START.changes, "seed=0"])
    if resolved.pretrained:
        return []
    path = out / "start" / "backbone.pt"
    if not path.exists():
        synthetic, _, _ = data.open()
        train(synthetic, None, resolved, out / "start", resume=True)
        prefix = "backbone.stages."
        weights = load_file(out / "start" / WEIGHTS)
        with files.atomic_path(path) as unfinished:
            torch.save({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}, unfinished)
        (out / "start" / CHECKPOINT).unlink(missing_ok=True)
    return [f'pretrained="{path}"']


@dataclass(frozen=True)
class RunTask:
    """One run: trained, or gone on with, and scored."""

    folder: Path
    recipe: Recipe
    arm: Arm
    data: Data
    jobs: int

    def make(self, progress: pool.Progress) -> dict[str, Any]:
        """Train and score, unless that is done."""
        if self.jobs > 1:  # in a process of its own
            os.environ["TQDM_DISABLE"] = "1"
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.jobs))
        synthetic, real, counterparts = self.data.open()
        known = counterparts if self.arm.counterparts else None
        inputs = {
            "recipe": to_toml(self.recipe),
            "validation": self.data.validation,
            "data": [d and d.info["manifest_sha256"] for d in (synthetic, real, known)],
        }
        path = self.folder / SCORES
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["inputs"] != inputs:
                raise DataError(f"{self.folder} is of another recipe or other data; name another --out.")
        else:
            without = self.arm.clear and known is None  # real fog has no clear images to train on
            train(synthetic, None if without else real, self.recipe, self.folder, counterparts=known, resume=True)
            tested_real = known if self.arm.clear else real
            scores = score(self.folder, self.recipe, self.arm, synthetic, tested_real, counterparts)
            stored = {"inputs": inputs, "scores": scores}
            files.write_atomic(path, json.dumps(stored) + "\n")
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        progress(1)
        found: dict[str, Any] = stored["scores"]
        return found

    def write(self, made: dict[str, Any]) -> dict[str, Any]:
        """It is written; sends it back."""
        return made


def score(
    run: Path, recipe: Recipe, arm: Arm, synthetic: Dataset, real: Dataset | None, counterparts: Dataset | None
) -> dict[str, Any]:
    """Scores of a run on both test sets by name and domain, each mAP with its 95 % interval over the queries; PSNR (dB)
    and SSIM of the defogged images against the clear ones, where these are known."""
    device = pick_device(recipe.device)
    set_precision("float32", device)
    net, architecture = load_network(run / WEIGHTS)
    embedder = Embedder(net=net, size=architecture.image_size, before_bn=True, workers=recipe.workers, device=device)
    found: dict[str, Any] = {}
    for domain, data in (("synthetic", synthetic), ("real", real)):
        if data is None:
            found[f"mAP_{domain}"] = None
            continue
        test = TestSet(data, queries="all")
        before = embedder(test.data, "clear" if arm.clear else "foggy")
        with torch.inference_mode():
            after = net.neck(torch.from_numpy(before).to(device)).cpu().numpy()
        scores = test.score(after, after)
        found |= {f"{name}_{domain}": value for name, value in scores.summary().items()}
        found[f"mAP_{domain}_interval"] = scores.intervals()["mAP"]
        found[f"mAP_{domain}_before_bn"] = test.score(before, before).mAP
        found[f"average_precision_{domain}"] = np.round(scores.average_precision, 5).tolist()
        truth = test.data if domain == "synthetic" else counterparts
        if truth is not None and not arm.clear and defogs(recipe.weights, supervised=True):
            quality = defogging_quality(embedder, test.data, truth=truth)
            for condition, measures in quality.items():
                found |= {f"{name}_{domain}_{condition}": measures[name] for name in ("psnr", "ssim")}
    if found["mAP_real"] is not None:
        found["difference"] = found["mAP_synthetic"] - found["mAP_real"]
    return found


def _scalars(results: Results) -> Results:
    """Without the lists of every query's."""
    return {
        arm: {seed: {name: value for name, value in scores.items() if name not in LISTS} for seed, scores in of.items()}
        for arm, of in results.items()
    }


def write_page(out: Path, results: Results) -> None:
    """Write PAGE and FIGURE."""
    lines = compare.compare(results)
    figure = page.intervals(compare.intervals_of(lines), "mAP in real fog, percent, 95 % intervals")
    files.write_atomic(out / FIGURE, page.as_svg_file(figure))
    runs = {name: sorted(of) for name, of in results.items() if of}
    recipe = next((out / "runs").glob("*/*/recipe.toml")).read_text(encoding="utf-8")
    values = {"title": f"Ablation {out.resolve().name}", "figure": figure, "table": compare.table(lines), "runs": runs}
    files.write_atomic(out / PAGE, page.render(__package__, "ablation.html.j2", recipe=recipe, **values))
