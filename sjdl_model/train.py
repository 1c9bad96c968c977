"""The order of training: recipe -> data -> network -> epochs -> weights -> report. The only module that knows it."""

import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fvrid_tools.dataset import Dataset
from fvrid_tools.files import alone_in, make_folder, remove_unfinished, write_atomic
from fvrid_tools.progress import bar
from fvrid_tools.records import FvridError

from . import norms, processes
from .card import write_card
from .checkpoint import (
    CHECKPOINT,
    git_revision,
    load_checkpoint,
    save_checkpoint,
    save_weights,
    versions,
)
from .config import DataError, Recipe, differences, from_toml, to_toml
from .devices import autocast, pick_device, set_precision
from .domains import Domains, shared_vehicles
from .engine import Clock, EpochLog, NotFiniteError, Step, Trainer, seed_step, train_steps
from .network import SJDL, WEIGHTS, check_image_size
from .report import METRICS, RECIPE, write_examples, write_report
from .restorer import Restorer, restorer_loss
from .schedule import in_warmup, lr_factor
from .watch import Watch, verdict

NOT_FINITE = "not-finite.json"


class TerminatedError(Exception):
    """The run was asked to end, by SIGTERM or the keyboard; its checkpoint is written."""


def train(
    data: Dataset,
    real: Dataset | None,
    recipe: Recipe,
    run: Path,
    *,
    counterparts: Dataset | None = None,
    resume: bool = False,
) -> None:
    """Train SJDL on the "train" split of `data`, and of `real` for the unsupervised stage, into the folder `run`.

    counterparts: clear images of `real`'s scenes, by image_id, which no camera has: the oracle's restoration targets
    (see Domains).
    Leaves recipe.toml (as resolved), metrics.jsonl (a line an epoch), TensorBoard events, checkpoint.pt,
    weights.safetensors and report.html. With `resume` a run goes on from its last checkpoint, or starts where there is
    none. Under torchrun the processes share every batch.
    Raises DataError, ConfigError, FvridError, as where another process trains there; FloatingPointError where a loss is
    not finite; TerminatedError after SIGTERM, when the checkpoint is written.
    """
    device = pick_device(recipe.device)
    with processes.joined(device), _Termination() as termination:
        domains = Domains(data, real, recipe, counterparts)
        if processes.rank() == 0:
            for said in filter(None, (str(domains), shared_vehicles(data, real))):
                tqdm.write(said, file=sys.stderr)
        with _alone_in(run):
            _Run(domains, recipe, run, device, resume).train(termination)


def train_restorer(data: Dataset, recipe: Recipe, folder: Path) -> None:
    """Train a Restorer on the synthetic batches of a recipe, step for step, at its rates and in its precision.

    Leaves recipe.toml and weights.safetensors in `folder`; goes on where an earlier call was stopped.
    Raises DataError where that had another recipe or other data; TerminatedError after SIGTERM or Ctrl-C;
    FloatingPointError where the loss is not finite at the end of an epoch.
    """
    domains, device = Domains(data, None, recipe, beside=True), pick_device(recipe.device)
    set_precision(recipe.precision, device)
    torch.manual_seed(recipe.seed)
    net = Restorer().to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    parts: dict[str, Any] = {"net": net, "optimizer": optimizer, "scaler": scaler}
    facts = {"recipe": to_toml(recipe), "data": domains.data_sha256}
    first, total = 0, recipe.epochs * domains.steps_per_epoch
    make_folder(folder)
    if (folder / CHECKPOINT).exists():
        state = load_checkpoint(folder)
        _check_same(folder, state, recipe, domains.data_sha256)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        first = int(state["step"])
    write_atomic(folder / RECIPE, to_toml(recipe))
    steps = domains.steps(first, total, device)
    shown = bar(total, "restorer", "steps", over=steps, initial=first, leave=True)
    with _Termination() as termination:
        for done, (batch, _) in enumerate(shown, start=first + 1):
            seed_step(recipe.seed, done - 1)
            batch = batch.to(device)
            assert batch.clear is not None
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * lr_factor(done - 1, total)
            optimizer.zero_grad(set_to_none=True)
            with autocast(recipe.precision, device):
                stages = net(batch.foggy)
            loss = restorer_loss([stage.float() for stage in stages], batch.clear)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            if termination.asked or done % domains.steps_per_epoch == 0:
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"{folder}: the restorer's loss of step {done} is not finite; lower lr.")
                states = {name: part.state_dict() for name, part in parts.items()}
                save_checkpoint(folder, states | facts | {"step": done})
            if termination.asked:
                raise TerminatedError(f"{folder}: stopped after step {done}")
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write_atomic(folder / WEIGHTS, save(weights, {"data": domains.data_sha256}))
    (folder / CHECKPOINT).unlink(missing_ok=True)


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """The first process locks the folder of the run for all that train together. Raises FvridError in all of them
    where it cannot."""
    with ExitStack() as held:
        refused = None
        if processes.rank() == 0:
            try:
                if not run.exists():
                    held.callback(_remove_empty, run)
                make_folder(run)
                held.enter_context(alone_in(run))
            except FvridError as error:
                refused = str(error)
        if first := processes.objects(refused)[0]:
            raise FvridError(first)
        yield


def _remove_empty(folder: Path) -> None:
    """Of a training that was refused."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class _Termination:
    """SIGTERM, or an interrupt from the keyboard, sets `asked` instead of ending the process; a second interrupt ends
    it."""

    asked = False

    def __enter__(self) -> "_Termination":
        heard = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a script's command in the background
            heard.append(signal.SIGINT)
        self._before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if processes.rank() == 0:
                tqdm.write("finishing the step under way, then saving; Ctrl-C again ends at once", file=sys.stderr)


class _Run:
    """A training from its checkpoint, or from nothing, to its weights."""

    def __init__(self, domains: Domains, recipe: Recipe, run: Path, device: torch.device, resume: bool) -> None:
        self._domains, self._recipe, self._folder, self._device = domains, recipe, run, device
        self._total_steps = recipe.epochs * self._domains.steps_per_epoch
        if not resume and run.is_dir() and any(run.iterdir()):
            raise DataError(f"{run} already holds a run; name another --run, or add --resume to go on with it.")
        if resume and (run / WEIGHTS).exists() and not (run / CHECKPOINT).exists():
            raise DataError(f"{run} is finished, and its {CHECKPOINT} is gone; name another --run to train anew.")
        resume = resume and (run / CHECKPOINT).exists()
        processes.barrier()  # before the first process writes there
        set_precision(recipe.precision, device)
        torch.manual_seed(recipe.seed)
        self._net = _prepared(self._domains.architecture.build(recipe.pretrained if not resume else False), device)
        check_image_size(self._net, recipe.image_size)
        self._facts = {
            "git": git_revision(),
            "data": self._domains.data_sha256,
            "built": "\n".join(dataset.info.get("command", "unknown") for dataset in self._domains.datasets),
            "recipe": to_toml(recipe),
        }
        self._trainer = Trainer(self._net, recipe, self._total_steps, device)
        self._step, self._log = 0, EpochLog()
        if resume:
            self._restore()
            if processes.rank() == 0:
                remove_unfinished(run)
        if len(set(processes.objects((self._step, self._domains.data_sha256)))) > 1:
            raise DataError(f"{run}: the machines do not see the same checkpoint and data; name a run that they share.")
        if not resume and processes.rank() == 0:
            remove_unfinished(run)
            write_atomic(run / RECIPE, to_toml(recipe))
            write_atomic(run / METRICS, "")
        if recipe.compile:
            self._net.backbone.compile()
            self._net.firm.compile()

    def train(self, termination: _Termination) -> None:
        first = processes.rank() == 0
        steps = self._domains.steps(self._step, self._total_steps, self._device)
        watch = Watch(self._domains.sets, self._domains.validation, self._recipe, self._device)
        per_epoch = self._domains.steps_per_epoch
        done = self._step // per_epoch
        with SummaryWriter(str(self._folder / "tensorboard"), purge_step=done + 1) if first else nullcontext() as board:
            for epoch in range(done, self._recipe.epochs):
                self._train_epoch(epoch, steps, termination)
                means = {**self._log.means(), "lr": self._trainer.learning_rate(self._step - 1), **self._rates}
                if board is not None:
                    with torch.compiler.set_stance("force_eager"):  # a compiled graph hides what depends on what
                        numbers, pictures = watch.look(self._net)
                    self._record(board, epoch + 1, means, numbers, pictures)
                self._log = EpochLog()
                self._save()
                self._stop_if(termination)
        if first:
            with torch.compiler.set_stance("force_eager"):  # a few images are not worth compiling for
                self._finish()
        processes.barrier()

    def _train_epoch(self, epoch: int, steps: Iterator[Step], termination: _Termination) -> None:
        """Train to the end of the epoch. Raises TerminatedError, NotFiniteError."""
        per_epoch = self._domains.steps_per_epoch
        clock = Clock()
        shown = bar(
            per_epoch,
            f"epoch {epoch + 1}/{self._recipe.epochs}",
            "steps",
            over=clock.timed(islice(steps, (epoch + 1) * per_epoch - self._step)),
            initial=self._step % per_epoch,
            shown=processes.rank() == 0,
        )

        def show(terms: dict[str, float]) -> None:
            short = {name.replace("synthetic/", "").replace("real/", "real "): f"{v:.3g}" for name, v in terms.items()}
            shown.set_postfix({**short, "images/s": f"{clock.rates()['images_per_second']:.0f}"}, refresh=False)

        def due(done: int) -> bool:
            if done % per_epoch == 0:  # the epoch's own checkpoint comes next
                return False
            every = self._recipe.save_every
            return processes.any_of(termination.asked) or bool(every and done % every == 0)

        try:
            for done in train_steps(self._trainer, shown, self._step, self._log, due, show):
                self._step = done
                self._save()
                self._stop_if(termination)
        except NotFiniteError as error:
            raise self._explained(error) from None
        finally:
            shown.close()
        self._step = (epoch + 1) * per_epoch
        self._rates = clock.rates()

    def _stop_if(self, termination: _Termination) -> None:
        if processes.any_of(termination.asked):
            raise TerminatedError(f"{self._folder}: stopped after step {self._step}")

    def _explained(self, error: NotFiniteError) -> FloatingPointError:
        """Save which images the step was made of, and say where."""
        parts = processes.objects((self._domains.image_ids(error.domains), error.terms))
        ids = {domain: [name for found, _ in parts for name in found[domain]] for domain in parts[0][0]}
        terms = {name: [str(found[name]) for _, found in parts] for name in error.terms}  # of each process
        broken = [name for name in terms if not all(math.isfinite(found[name]) for _, found in parts)]
        path = self._folder / NOT_FINITE
        if processes.rank() == 0:
            found = {"step": error.step, "not_finite": broken, "terms": terms, "image_ids": ids}
            write_atomic(path, json.dumps(found, indent=1) + "\n")
        return FloatingPointError(
            f"a loss of step {error.step} is not finite ({', '.join(broken)}); {path} names its images; "
            "lower lr or the weight of the term."
        )

    def _record(
        self,
        board: SummaryWriter,
        epoch: int,
        means: dict[str, float],
        numbers: dict[str, float],
        pictures: dict[str, Any],
    ) -> None:
        """A line of metrics.jsonl, the same and the pictures for TensorBoard, a few words for the user."""
        line: dict[str, Any] = {"epoch": epoch, **means, **numbers}
        found = {name.removeprefix("defogging/"): v for name, v in numbers.items() if name.startswith("defogging/")}
        if found:
            line["verdict"] = verdict(found, warming_up=in_warmup(self._step - 1, self._total_steps))
        with (self._folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in (means | numbers).items():
            board.add_scalar(name, value, epoch)
        for domain, picture in pictures.items():
            board.add_image(f"{domain}: foggy | defogged | clear", picture, epoch, dataformats="HWC")
        board.flush()  # the checkpoint is to come, and a resumed run does not repeat this epoch
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items() if name != "lr")
        tqdm.write(f"epoch {epoch}: {shown}", file=sys.stderr)
        if found:
            tqdm.write(f"epoch {epoch}: {line['verdict']}", file=sys.stderr)

    def _save(self) -> None:
        log = self._log.of_all_processes()
        if processes.rank() == 0:
            state = {**self._trainer.state(), "step": self._step, "log": asdict(log), **self._facts}
            save_checkpoint(self._folder, {**state, "versions": versions()})

    def _restore(self) -> None:
        """Load the run's checkpoint and cut metrics.jsonl back to it."""
        state = load_checkpoint(self._folder)
        where = str(self._folder / CHECKPOINT)
        _check_same(self._folder, state, self._recipe, self._facts["data"])
        try:
            self._trainer.restore(state)
            self._step, self._log = int(state["step"]), EpochLog(**state["log"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise DataError(f"{where}: not a checkpoint of this version; name another --run.") from None
        if processes.rank() == 0:
            lines = (self._folder / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomic(self._folder / METRICS, "".join(lines[: self._step // self._domains.steps_per_epoch]))

    def _finish(self) -> None:
        _check_finite(self._net, self._recipe.image_size, self._device)
        last = json.loads(((self._folder / METRICS).read_text(encoding="utf-8").splitlines() or ["{}"])[-1])
        facts = {**self._facts, "versions": versions(), "verdict": last.get("verdict", "")}
        save_weights(self._folder, self._net, self._domains.architecture, facts)
        for dataset in self._domains.datasets:
            write_examples(self._folder, self._net, dataset, self._recipe.image_size, self._device)
        write_report(self._folder)
        write_card(self._folder)


def _check_same(folder: Path, state: dict[str, Any], recipe: Recipe, data_sha256: str) -> None:
    """Raises DataError where a checkpoint is not of this recipe and data."""
    other = differences(from_toml(state.get("recipe", ""), str(folder / CHECKPOINT)), recipe)
    what = f"another recipe ({'; '.join(other)})" if other else "" if state.get("data") == data_sha256 else "other data"
    if what:
        raise DataError(f"{folder} was trained with {what}; resume with the same, or name another folder.")


def synchronize_norms(net: SJDL) -> None:
    """Let the batch norms of the backbone see the batches of all processes; each keeps the statistics it has."""
    apart = norms.are_apart(net)
    net.backbone.stages = timm.layers.convert_sync_batchnorm(net.backbone.stages)
    if apart:
        norms.keep_apart(net)  # a converted norm has forgotten


def _prepared(net: SJDL, device: torch.device) -> SJDL:
    """On the device, channels last: a third faster on the CPU, more with tensor cores. With several GPUs the BN of the
    backbone sees the whole batch, as the neck does in any case; torch has none such for the CPU, where it sees that of
    its process."""
    if processes.count() > 1 and device.type == "cuda":
        synchronize_norms(net)
    moved: SJDL = net.to(device).to(memory_format=torch.channels_last)
    return moved


@torch.inference_mode()
def _check_finite(net: SJDL, size: int, device: torch.device) -> None:
    """The epochs check every loss, but not what the last update did. Raises FloatingPointError."""
    out = net.eval()(torch.full((1, 3, size, size), 0.5, device=device))
    if not all(tensor is None or torch.isfinite(tensor).all() for tensor in out):
        raise FloatingPointError("the last update broke the weights (outputs are not finite); lower lr.")
