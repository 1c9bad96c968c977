"""The order of an ablation: arms x seeds -> runs, each trained and scored -> comparisons -> tables, figure, page.

OUT/runs/<arm>/<seed>/        a run as `sjdl train` leaves it, without its checkpoint, and scores-<images>.json
OUT/start/                    the run on clear images whose backbone all begin with, where none is pretrained
OUT/start-<backbone>/         the same of arms with another backbone
OUT/restorer/                 the restorer of two-stage arms
OUT/results.json              {arm: {seed: {"mAP_synthetic": x, "mAP_real": x, ..., "recipe": ..., "images": ...}}}
OUT/ablation.html             the tables and the figure to look at; OUT/figure.svg

A seed has the same initial weights and the same batches in every arm that does not ask for others (p, k). Runs that are
finished are not repeated, one that was stopped goes on; those in results.json files of other machines or days are taken
from there. Every test image is a query.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from fvrid_tools import files, page, pool
from fvrid_tools.dataset import Dataset, open_dataset
from fvrid_tools.progress import Progress, silent
from fvrid_tools.records import Row

from . import compare, dark_channel_prior
from .arms import STANDARD, START, Arm
from .checkpoint import CHECKPOINT, read_facts, save_tensors
from .compare import Results
from .conditions import defogging_quality
from .config import DataError, Recipe, from_toml, read_recipe, same_run, to_toml
from .data import Counterparts
from .devices import pick_device, set_precision
from .domains import data_sha256
from .evaluate import Defogger, Embedder, TestSet
from .network import WEIGHTS, load_network
from .objectives import defogs
from .report import RECIPE
from .restorer import Restorer
from .train import TerminatedError, train, train_restorer

BACKBONE = "backbone.pt"
_TELLING = ("domain", "image_id", "split", "sha256", "depth", "beta", "airlight")  # of a row, on any machine
RESULTS, PAGE, FIGURE = "results.json", "ablation.html", "figure.svg"
VALIDATION_SHARE = 0.25  # of the training vehicles


@dataclass(frozen=True, kw_only=True)
class Data:
    """Folders of datasets, and whether the test vehicles are left alone: a part of the training vehicles is tested."""

    synthetic: Path
    real: Path
    counterparts: Path | None = None
    validation: bool = False

    def open(self) -> tuple[Dataset, Dataset, Dataset | None]:
        """The counterparts are split as the real images are. Raises DataError where one is missing."""
        synthetic, real = open_dataset(self.synthetic), open_dataset(self.real)
        if self.validation:
            synthetic, real = validation_part(synthetic), validation_part(real)
        if self.counterparts is None:
            return synthetic, real, None
        counterparts = open_dataset(self.counterparts)
        return synthetic, real, counterparts.take(Counterparts(counterparts, real).rows_of(real))


def validation_part(data: Dataset) -> Dataset:
    """The training vehicles alone, a quarter of them for the test: the first in the order of a hash of the name.

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

    part = data.take([row._replace(split=split(row)) for row in rows])
    part.info = {
        **data.info,
        "manifest_sha256": f"{data.info['manifest_sha256']} (validation)",
    }  # it is another dataset
    return part


def ablate(
    data: Data,
    arms: Sequence[Arm],
    seeds: int,
    out: Path,
    recipe: str = "default",
    changes: Sequence[str] = (),
    jobs: int = 1,
    known: Sequence[Path] = (),
    progress: Progress = silent,
) -> Results:
    """Train and score every arm with every seed, and write RESULTS.

    jobs: runs at once.  known: RESULTS of other ablations; runs of `arms` that they have are not made again.
    progress: is told of each score that is there.
    Raises ConfigError, DataError, FvridError; FloatingPointError where a loss is not finite; TerminatedError or
    KeyboardInterrupt after SIGTERM or Ctrl-C, when every run has saved.
    """
    _, _, counterparts = data.open()
    usable = [arm for arm in arms if arm.tested == "clear" or not arm.counterparts or counterparts is not None]
    if not usable:
        raise DataError(f"{arms[0].name} is trained with the clear images of real scenes; name their --counterparts.")
    results: Results = {arm.name: {} for arm in arms}
    elsewhere = [(path, compare.read_results(path)) for path in known]
    files.make_folder(out)
    with files.alone_in(out), _sigterm_handed_on(out):
        first = [arm for arm in usable if arm.tested != "firm"]
        later = [arm for arm in usable if arm.tested == "firm"]  # by the FIRM of a network that is to be trained first
        if all(any(str(seed) in of.get(arm.name, {}) for _, of in elsewhere) for arm in later for seed in range(seeds)):
            first, later = [*first, *later], []  # their scores are known
        if later:  # at the head, so that a training that it shares with another arm lies in its folder
            first = [STANDARD["sjdl"], *(arm for arm in first if arm.name != "sjdl")]
        folders: dict[object, Path] = {}
        for part in (first, later):
            tasks = _tasks(part, range(seeds), data, out, recipe, changes, jobs, folders)
            asked = sum(len(task.arms) for task in tasks)
            tasks = _without_known(tasks, elsewhere, results, "sjdl" if later else None)
            progress(asked - sum(len(task.arms) for task in tasks))
            _train_starts(tasks, data, out, recipe, changes)
            if any(arm.tested == "restorer" for task in tasks for arm in task.arms):
                _train_restorer(data, out, read_recipe(recipe, changes))
            for task, scores in zip(tasks, pool.run(tasks, jobs, progress), strict=True):
                for arm in task.arms:
                    if arm.name in results:
                        results[arm.name][str(task.recipe.seed)] = scores[arm.name]
        compare.write_results(out / RESULTS, results)
    return results


@contextmanager
def _sigterm_handed_on(out: Path) -> Iterator[None]:
    """SIGTERM may reach this process alone: within it the runs, if there are several at once, hear of it too, and save.
    Raises TerminatedError then."""
    asked = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for process in multiprocessing.active_children():
            process.terminate()  # SIGTERM; Ctrl-C would be ignored by those of a script in the background
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    except KeyboardInterrupt:
        if asked:
            raise TerminatedError(f"{out}: stopped") from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _without_known(
    tasks: Sequence["RunTask"], elsewhere: Sequence[tuple[Path, Results]], results: Results, needed: str | None
) -> list["RunTask"]:
    """What is left to do; known scores go to `results`.

    needed: an arm whose networks have to be here. Raises DataError for scores of another recipe or other images.
    """
    left = []
    for task in tasks:
        unknown = []
        for arm in task.arms:
            seed = str(task.recipe.seed)
            known = [(path, of[arm.name][seed]) for path, of in elsewhere if seed in of.get(arm.name, {})]
            if task.data.counterparts is not None:  # a headroom that was scored without them is to be scored in full
                known = [(path, scores) for path, scores in known if scores["mAP_real"] is not None]
            if not known or needed in [arm.name for arm in task.arms]:
                unknown.append(arm)
                continue
            path, scores = known[0]
            same = same_run(from_toml(scores["recipe"], str(path)), task.asked)
            if not same or scores["images"] != task.images():
                raise DataError(f"{path}: {arm.name} is of another recipe or other images; leave --known out.")
            results[arm.name][seed] = scores
        if unknown:
            left.append(replace(task, arms=tuple(unknown)))
    return left


def _start(out: Path, arm: Recipe, recipe: str, changes: Sequence[str]) -> tuple[Path, Recipe]:
    """The folder of the run on clear images that an arm begins with, and its recipe. There is one for each kind of
    backbone, for all arms and seeds to begin with."""
    base = read_recipe(recipe, [*changes, *START.changes, "seed=0"])
    if (arm.backbone, arm.transreid) == (base.backbone, base.transreid):
        return out / START.name, base
    own = replace(base, backbone=arm.backbone, transreid=arm.transreid, last_stride=arm.last_stride)
    return out / f"{START.name}-{arm.backbone}{'-transreid' * arm.transreid}", own


def _train_starts(tasks: Sequence["RunTask"], data: Data, out: Path, recipe: str, changes: Sequence[str]) -> None:
    """Train the backbones that runs begin with, where these are still to be made."""
    for task in tasks:
        if task.begins and not task.is_done():
            _train_start(data, *_start(out, task.recipe, recipe, changes))


def _train_start(data: Data, folder: Path, recipe: Recipe) -> None:
    path = folder / BACKBONE
    synthetic, _, _ = data.open()
    if path.exists():
        _check_trained(folder, recipe, synthetic)
        return
    train(synthetic, None, recipe, folder, resume=True)
    prefix = "backbone.stages." + "vit." * recipe.transreid
    weights = load_file(folder / WEIGHTS)
    backbone = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    save_tensors(path, backbone)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _train_restorer(data: Data, out: Path, recipe: Recipe) -> None:
    """Train the restorer of two-stage arms on the synthetic pairs, with as many steps and images as the networks."""
    folder = out / "restorer"
    synthetic, _, _ = data.open()
    if (folder / WEIGHTS).exists():
        _check_trained(folder, recipe, synthetic)
        return
    train_restorer(synthetic, recipe, folder)


def _tasks(
    arms: Sequence[Arm],
    seeds: Iterable[int],
    data: Data,
    out: Path,
    recipe: str,
    changes: Sequence[str],
    jobs: int,
    folders: dict[object, Path],
) -> list["RunTask"]:
    """A task a training: arms that differ only in what they are tested on, or in nothing, share one. `folders` joins
    what they are trained with to where that lies, and grows."""
    tasks: dict[object, RunTask] = {}
    for seed in seeds:  # one after the other, so that what is there when time runs out can be compared
        for arm in arms:
            resolved = read_recipe(recipe, [*changes, *arm.changes, f"seed={seed}"])
            begins = not resolved.pretrained
            if begins:
                folder, _ = _start(out, resolved, recipe, changes)
                resolved = replace(resolved, pretrained=str(folder.resolve() / BACKBONE))
            training = arm.real, arm.counterparts, resolved
            folder = folders.setdefault(training, out / "runs" / arm.name / str(seed))
            task = tasks.get(training) or RunTask(folder, resolved, (), data, out, jobs, begins)
            tasks[training] = replace(task, arms=(*task.arms, arm))
    return list(tasks.values())


@dataclass(frozen=True)
class RunTask(pool.Task[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]):
    """One training, and the arms that are scored with its weights."""

    folder: Path
    recipe: Recipe
    arms: tuple[Arm, ...]
    data: Data
    out: Path
    jobs: int
    begins: bool  # with the backbone of `_start`

    @property
    def asked(self) -> Recipe:
        """The recipe before `_start` gave it a backbone, which lies elsewhere for others."""
        return _unbegun(self.recipe) if self.begins else self.recipe

    def is_done(self) -> bool:
        return all(self._path(arm).exists() for arm in self.arms)

    def make(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """Train and score, unless that is done; the scores by arm."""
        if multiprocessing.parent_process() is not None:  # one of several
            os.environ["TQDM_DISABLE"] = "1"
            if sys.platform != "win32":  # a pool's processes do not hear Ctrl-C; this one saves and ends
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.jobs))
        found = {}
        for arm in self.arms:
            found[arm.name] = self._scores(arm)
            progress(1)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return found

    def _is_trained(self, data: Sequence[Dataset | None]) -> bool:
        """Whether an earlier ablation came to the end of this training. Raises DataError where it was another."""
        if not (self.folder / WEIGHTS).exists() or (self.folder / CHECKPOINT).exists():
            return False
        _check_trained(self.folder, self.asked, *data, begins=self.begins)
        return True

    def _scores(self, arm: Arm) -> dict[str, Any]:
        synthetic, real, counterparts = self.data.open()
        known = counterparts if arm.counterparts else None
        trained_real = real if arm.real and (known is not None or self.recipe.images == "foggy") else None
        trained_on = synthetic, trained_real, known
        inputs = {
            "recipe": to_toml(self.recipe),
            "data": data_sha256(*trained_on),
            "tested": data_sha256(synthetic, real, counterparts),
            "begun": self._begun(),
        }
        path = self._path(arm)
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if stored is not None:
            before = stored["inputs"]
            earlier = from_toml(before["recipe"], str(path))
            same = same_run(_unbegun(earlier) if self.begins else earlier, self.asked)
            if not same or before["data"] != inputs["data"]:
                raise DataError(f"{self.folder} is of another recipe or other data; name another --out.")
            if None not in (before.get("begun"), inputs["begun"]) and before["begun"] != inputs["begun"]:
                raise DataError(f"{self.folder} began with another backbone than {self.out} has; name another --out.")
        if stored is None or stored["inputs"]["tested"] != inputs["tested"]:  # other vehicles, or counterparts now
            if not self._is_trained(trained_on):
                train(synthetic, trained_real, self.recipe, self.folder, counterparts=known, resume=True)
            tests = {"synthetic": synthetic, "real": known if arm.tested == "clear" else real}
            scores = score(self.folder, self.recipe, arm, tests, counterparts, self.out)
            if stored is not None:  # what it began with when it was trained, if that was known
                inputs["begun"] = stored["inputs"].get("begun")
            stored = {"inputs": inputs, "scores": scores}
            files.write_atomic(path, json.dumps(stored) + "\n")
        facts = {"recipe": to_toml(self.asked), "images": self.images(), "begun": stored["inputs"].get("begun")}
        return {**stored["scores"], **facts}

    def images(self) -> str:
        """A hash of which images, in what fog, by what kind of depth, are trained on, and of which are tested in what
        order: the same on every machine."""
        rows = [row for data in self.data.open()[:2] for row in data.rows if row.split is not None]
        here = [row._replace(depth=row.depth.partition(":")[0]) for row in rows]  # without paths
        parts = sorted(" ".join(str(getattr(row, name)) for name in _TELLING) for row in here)
        return files.sha256_bytes("\n".join(parts).encode())

    def _begun(self) -> str | None:
        """A hash of the backbone of `_start` that the training begins with; None where it begins otherwise, or that is
        gone."""
        path = Path(str(self.recipe.pretrained))
        return files.sha256_file(path) if self.begins and path.exists() else None

    def _path(self, arm: Arm) -> Path:
        return self.folder / f"scores-{arm.tested}.json"


def _unbegun(recipe: Recipe) -> Recipe:
    """A recipe without the backbone that `_start` gave it, wherever that lies."""
    path = Path(str(recipe.pretrained))
    given = path.name == BACKBONE and path.parent.name.startswith(START.name)
    return replace(recipe, pretrained=False) if given else recipe


def _check_trained(run: Path, recipe: Recipe, *data: Dataset | None, begins: bool = False) -> None:
    """Raises DataError where a run that is finished was trained with another recipe or on other data.

    begins: with the backbone of `_start`, which the recipe does not name."""
    path = run / RECIPE
    trained_on = read_facts(run).get("data")
    earlier = from_toml(path.read_text(encoding="utf-8"), str(path))
    same = same_run(_unbegun(earlier) if begins else earlier, recipe)
    if not same or trained_on != data_sha256(*data):
        raise DataError(f"{run} is of another recipe, other data or an earlier version; name another --out.")


def _open_defogger(name: str, out: Path, recipe: Recipe, domain: str) -> Defogger | None:
    """(B, 3, H, W) foggy of a domain -> without fog, by one of arms.DEFOGGERS; None for images as they are."""
    if name == "dark_channel_prior":
        return dark_channel_prior.defog
    device = pick_device(recipe.device)
    if name == "restorer":
        restorer = Restorer()
        restorer.load_state_dict(load_file(out / "restorer" / WEIGHTS))
        return restorer.to(device).eval().defog
    if name == "firm":
        net, _ = load_network(out / "runs" / "sjdl" / str(recipe.seed) / WEIGHTS)
        net.use_statistics_of(domain)
        return net.to(device).defog
    return None


def score(
    run: Path,
    recipe: Recipe,
    arm: Arm,
    tests: dict[str, Dataset | None],
    counterparts: Dataset | None,
    out: Path,
) -> dict[str, Any]:
    """Scores of a run on the test sets by name and domain, each mAP with its 95 % interval over the queries; PSNR (dB)
    and SSIM of the defogged images against the clear ones, where these are known.

    tests: by domain; clear counterparts of real images are of the real domain.  out: the ablation's folder."""
    device = pick_device(recipe.device)
    set_precision("float32", device)
    net, architecture = load_network(run / WEIGHTS)
    condition = {"clear": "clear", "foggy": "foggy"}.get(arm.tested, "defogged")
    found: dict[str, Any] = {}
    for domain, data in tests.items():
        if data is None:
            found[f"mAP_{domain}"] = None
            continue
        test = TestSet(data, queries="all")
        defogger = _open_defogger(arm.tested, out, recipe, domain)
        embedder = Embedder(
            net=net,
            size=architecture.image_size,
            before_bn=True,
            workers=recipe.workers,
            device=device,
            defogger=defogger,
            domain=domain,
        )
        before = embedder(test.data, condition)
        with torch.inference_mode():
            after = net.embedding_of(torch.from_numpy(before).to(device)).cpu().numpy()
        scores = test.score(after, after, device=device)
        result = test.result(scores, condition)
        found |= {f"{name}_{domain}": value for name, value in result.scores.items()}
        found |= {f"mAP_{domain}_interval": result.intervals["mAP"], f"protocol_{domain}": result.protocol}
        found[f"mAP_{domain}_before_bn"] = test.score(before, before, device=device).mAP
        unit = torch.nn.functional.normalize(torch.from_numpy(after)).numpy()  # zeros, of a collapsed network, stay
        found[f"mAP_{domain}_unit"] = test.score(unit, unit, device=device).mAP
        precisions = np.round(scores.average_precision, 4).tolist()  # of each query
        found[f"average_precision_{domain}"] = [None if np.isnan(one) else one for one in precisions]
        truth = test.data if domain == "synthetic" else counterparts
        if truth is not None and (defogger or (arm.tested == "foggy" and defogs(recipe.weights, supervised=True))):
            quality = defogging_quality(embedder, test.data, truth=truth)
            for shown, measures in quality.items():
                found |= {f"{name}_{domain}_{shown}": measures[name] for name in ("psnr", "ssim")}
    if found["mAP_real"] is not None:
        found["difference"] = found["mAP_synthetic"] - found["mAP_real"]
    return found


def write_page(out: Path, results: Results) -> None:
    """Write PAGE and FIGURE."""
    lines = compare.compare(results)
    figure = page.intervals(compare.intervals_of(lines), "mAP in real fog, percent, 95 % intervals")
    files.write_atomic(out / FIGURE, page.as_svg_file(figure))
    runs = {name: sorted(of) for name, of in results.items() if of}
    recipe = next(scores["recipe"] for of in results.values() for scores in of.values())
    values = {"title": f"Ablation {out.resolve().name}", "figure": figure, "table": compare.table(lines), "runs": runs}
    values["remarks"] = compare.remarks(results)
    files.write_atomic(out / PAGE, page.render(__package__, "ablation.html.j2", recipe=recipe, **values))
