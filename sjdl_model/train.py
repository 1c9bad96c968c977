"""The order of training: recipe -> data -> network -> epochs -> weights -> report. The only module that knows it."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fvrid_tools.dataset import Dataset
from fvrid_tools.files import make_folder, write_atomic

from .checkpoint import (
    WEIGHTS,
    Architecture,
    git_revision,
    load_checkpoint,
    load_network,
    save_checkpoint,
    save_weights,
)
from .config import ConfigError, DataError, Recipe, to_toml
from .data import Batch, TrainingSet, training_batches
from .engine import Step, alternate, train_one_epoch
from .evaluate import Result, evaluate_dataset
from .network import SJDL
from .report import METRICS, RECIPE, result_path, write_examples, write_report
from .samplers import PKSampler


def pick_device(name: str) -> torch.device:
    """Raises ConfigError where torch does not know the device or it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device = {name!r} cannot be used ({str(error).splitlines()[0]}).") from None
    return device


def train(data: Dataset, real: Dataset | None, recipe: Recipe, run: Path, *, resume: bool = False) -> None:
    """Train SJDL on the "train" split of `data`, and of `real` for the unsupervised stage, into the folder `run`.

    Leaves recipe.toml (as resolved), metrics.jsonl (a line an epoch), TensorBoard events, checkpoint.pt,
    weights.safetensors and report.html. With `resume` a run goes on after its last whole epoch.
    Raises DataError, ConfigError, FvridError; FloatingPointError where a loss is not finite.
    """
    device = pick_device(recipe.device)
    domains = _Domains(data, real, recipe)
    _check_free(run, resume)
    torch.manual_seed(recipe.seed)
    net = domains.architecture.build(recipe.pretrained if not resume else False)
    net = net.to(device).to(memory_format=torch.channels_last)  # a third faster on the CPU, more with tensor cores
    optimizer = torch.optim.Adam(
        (p for p in net.parameters() if p.requires_grad), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    if not resume:
        _start(run, recipe)
    facts = {"git": git_revision(), "data": domains.data_sha256, "recipe": to_toml(recipe)}
    first_epoch = _restore(run, net, optimizer, facts) if resume else 0
    total_steps = recipe.epochs * domains.steps_per_epoch
    with SummaryWriter(str(run / "tensorboard")) as board:
        for epoch in range(first_epoch, recipe.epochs):
            first_step = epoch * domains.steps_per_epoch
            steps = tqdm(
                domains.steps(epoch, pin=device.type == "cuda"),
                total=domains.steps_per_epoch,
                desc=f"epoch {epoch + 1}/{recipe.epochs}",
                unit=" steps",
                disable=None,
                leave=False,
            )
            means = train_one_epoch(net, optimizer, steps, recipe, first_step, total_steps, device)
            _log(run, board, epoch + 1, means)
            state = {
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
                **facts,
            }
            save_checkpoint(run, state)
    _check_finite(net, recipe.image_size, device)
    save_weights(run, net, domains.architecture, facts)
    for dataset in (data, real):
        if dataset is not None:
            write_examples(run, net, dataset, recipe.image_size, device)
    write_report(run)


@torch.inference_mode()
def _check_finite(net: SJDL, size: int, device: torch.device) -> None:
    """The epochs check every loss, but not what the last update did. Raises FloatingPointError."""
    out = net.eval()(torch.full((1, 3, size, size), 0.5, device=device))
    if not all(tensor is None or torch.isfinite(tensor).all() for tensor in out):
        raise FloatingPointError("the last update broke the weights (outputs are not finite); lower lr.")


class _Domains:
    """The training data of both domains, and the batches of an epoch."""

    def __init__(self, data: Dataset, real: Dataset | None, recipe: Recipe) -> None:
        for dataset, domain in ((data, "synthetic"), (real, "real")):
            if dataset is not None and dataset.info["domain"] != domain:
                raise DataError(f"{dataset.folder} is not of the {domain} domain; --data is synthetic, --real real.")
            if dataset is not None and dataset.info.get("pairs"):
                raise DataError(
                    f"{dataset.folder} holds pairs for measuring defogging, never for training; name another."
                )
        self._recipe = recipe
        self._synthetic = TrainingSet.of(data, recipe.image_size, recipe.fog.redraw)
        self._real = None if real is None else TrainingSet.of(real, recipe.image_size)
        self._samplers = [
            PKSampler(training.labels, recipe.p, recipe.k, recipe.seed + offset)
            for offset, training in enumerate((self._synthetic, self._real))
            if training is not None
        ]
        self.steps_per_epoch = recipe.steps_per_epoch or max(1, len(self._synthetic) // (recipe.p * recipe.k))
        self.architecture = Architecture(
            num_synthetic=self._synthetic.num_vehicles,
            num_real=0 if self._real is None else self._real.num_vehicles,
            backbone=recipe.backbone,
            shared_stage=recipe.shared_stage,
            last_stride=recipe.last_stride,
            image_size=recipe.image_size,
        )
        self.data_sha256 = " ".join(d.info["manifest_sha256"] for d in (data, real) if d is not None)

    def steps(self, epoch: int, pin: bool) -> Iterator[Step]:
        first = epoch * self.steps_per_epoch
        steps = range(first, first + self.steps_per_epoch)
        workers = self._recipe.workers
        synthetic = training_batches(self._synthetic, self._samplers[0], steps, workers, pin)
        real: Iterable[Batch] = ()
        if self._real is not None:
            every = self._recipe.real_every
            turns = [step // every for step in steps if step % every == 0]
            real = training_batches(self._real, self._samplers[1], turns, workers, pin)
        return alternate(synthetic, real, first, self._recipe.real_every)


def _check_free(run: Path, resume: bool) -> None:
    if not resume and run.is_dir() and any(run.iterdir()):
        raise DataError(f"{run} already holds a run; name another --run, or add --resume to go on with it.")


def _start(run: Path, recipe: Recipe) -> None:
    """Make the run's folder, once all that can be wrong with recipe and data has been found."""
    make_folder(run)
    write_atomic(run / RECIPE, to_toml(recipe))
    write_atomic(run / METRICS, "")


def _restore(run: Path, net: SJDL, optimizer: torch.optim.Optimizer, facts: dict[str, str]) -> int:
    """Load the run's checkpoint and cut metrics.jsonl back to it; returns the number of epochs that are done."""
    state = load_checkpoint(run)
    for key in ("recipe", "data"):
        if state[key] != facts[key]:
            raise DataError(f"{run} was trained with another {key}; resume with the same, or name another --run.")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    lines = (run / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    write_atomic(run / METRICS, "".join(lines[: state["epoch"]]))
    return int(state["epoch"])


def _log(run: Path, board: SummaryWriter, epoch: int, means: dict[str, float]) -> None:
    with (run / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": epoch, **means}) + "\n")
    for name, value in means.items():
        board.add_scalar(name, value, epoch)
    shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items() if name != "lr")
    tqdm.write(f"epoch {epoch}: {shown}", file=sys.stderr)


def evaluate_weights(
    weights: Path,
    data: Dataset,
    *,
    condition: str,
    queries: str = "one",
    before_bn: bool = False,
    device: str = "auto",
    workers: int = 0,
) -> tuple[Result, SJDL, Architecture]:
    """Score a weights file on a dataset, with a progress bar on stderr."""
    net, architecture = load_network(weights)
    tested = sum(row.split in ("query", "gallery") for row in data.rows)
    with tqdm(total=tested, desc="embed", unit=" images", disable=None, leave=False) as bar:
        result, _ = evaluate_dataset(
            net,
            data,
            architecture.image_size,
            images=condition,
            queries=queries,
            before_bn=before_bn,
            workers=workers,
            device=pick_device(device),
            progress=bar.update,
        )
    return result, net, architecture


def evaluate_run(run: Path, data: Dataset, *, condition: str, queries: str = "one", **options: Any) -> Result:
    """Score a run's weights on a dataset, store the result beside them and write the report anew.

    options: those of `evaluate_weights`.
    """
    result, net, architecture = evaluate_weights(run / WEIGHTS, data, condition=condition, queries=queries, **options)
    path = result_path(run, result.domain, condition, queries)
    write_atomic(path, json.dumps(result.to_json(), indent=1) + "\n")
    write_examples(run, net, data, architecture.image_size, pick_device(options.get("device", "auto")))
    write_report(run)
    return result
