"""A step of training, and an epoch of steps: a synthetic batch and, when its turn comes, a real one, and one update."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from . import processes
from .config import Recipe
from .data import Batch
from .network import SJDL
from .objectives import Objective, total
from .schedule import lr_factor

Step = tuple[Batch, Batch | None]  # synthetic, real


def alternate(synthetic: Iterable[Batch], real: Iterable[Batch], first_step: int, real_every: int) -> Iterator[Step]:
    """Pair the synthetic batch of every step with the next real one in each `real_every`-th step."""
    real = iter(real)
    for step, batch in enumerate(synthetic, start=first_step):
        yield batch, next(real, None) if step % real_every == 0 else None


class NotFiniteError(FloatingPointError):
    """A loss of a step was infinite or not a number; `domains` and `terms` say where."""

    def __init__(self, step: int, terms: dict[str, float], domains: Step) -> None:
        super().__init__(f"a loss of step {step} is not finite: {terms}")
        self.step, self.terms, self.domains = step, terms, domains


def seed_step(seed: int, number: int) -> None:
    """What is random within a network, or drawn on the device, follows from step and process, like all else: nothing is
    to be saved of it."""
    seeds = np.random.SeedSequence([seed, number, processes.rank()])
    torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class Trainer:
    """The network and all that an update changes: optimizer, and the scale of float16 gradients."""

    def __init__(self, net: SJDL, recipe: Recipe, total_steps: int, device: torch.device) -> None:
        self.net, self.recipe, self.total_steps, self.device = net, recipe, total_steps, device
        objective = Objective(net, recipe)
        if processes.count() > 1:  # a batch of one domain leaves the other's classifier without a gradient
            self._objective: nn.Module = DistributedDataParallel(objective, find_unused_parameters=True)
        else:
            self._objective = objective
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(self._parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    def step(self, number: int, domains: Step) -> dict[str, Tensor]:
        """Update the weights by a synthetic batch and, where there is one, a real batch of this process.

        number: of the step, from 0.  Returns every term before the update: "synthetic/triplet", ...
        """
        self.net.train()
        seed_step(self.recipe.seed, number)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self._optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        batches = {name: batch for name, batch in zip(("synthetic", "real"), domains, strict=True) if batch}
        for domain, batch in batches.items():
            # gradients add up to those of the sum of both domains, at the memory of one; processes meet at the last
            with nullcontext() if domain == list(batches)[-1] else self._alone():
                found = self._objective(batch.to(self.device))
                torch.autograd.backward(self._scaler.scale(total(found, self.recipe.weights)))
            terms |= {f"{domain}/{name}": term.detach() for name, term in found.items()}
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return terms

    def learning_rate(self, step: int) -> float:
        return self.recipe.lr * lr_factor(step, self.total_steps)

    def state(self) -> dict[str, Any]:
        """For `restore`: tensors, numbers, and dicts and lists of them."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _alone(self) -> Any:
        return self._objective.no_sync() if isinstance(self._objective, DistributedDataParallel) else nullcontext()


@dataclass
class EpochLog:
    """What the steps of an epoch have shown so far; it goes into the checkpoint, so that a resumed epoch has it all."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, terms: dict[str, float]) -> None:
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Of each term, over the processes too."""
        sums = self.of_all_processes().sums
        return {name: sums[name] / self.counts[name] for name in sorted(sums)}

    def of_all_processes(self) -> "EpochLog":
        """With the means of the processes' sums."""
        names = list(self.sums)
        return replace(self, sums=dict(zip(names, processes.mean([self.sums[name] for name in names]), strict=True)))


class Clock:
    """How fast images go through, and how fast they would if the trainer never waited for the loader."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._waited, self._images = 0.0, 0

    def timed(self, steps: Iterable[Step]) -> Iterator[Step]:
        steps = iter(steps)
        while True:
            asked = time.monotonic()
            domains = next(steps, None)
            if domains is None:
                return
            self._waited += time.monotonic() - asked
            self._images += sum(len(batch.label) for batch in domains if batch is not None) * processes.count()
            yield domains

    def rates(self) -> dict[str, float]:
        seconds = max(1e-9, time.monotonic() - self._started)
        return {
            "images_per_second": self._images / seconds,
            "images_per_second_without_waiting": self._images / max(1e-9, seconds - self._waited),
        }


class _Values:
    """Numbers on their way from the device, which need not stop for them."""

    def __init__(self, terms: dict[str, Tensor]) -> None:
        together = torch.stack(list(terms.values()))
        self._names, self._values = list(terms), together.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if together.is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived:
            self._arrived.record()

    def read(self) -> dict[str, float]:
        if self._arrived:
            self._arrived.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))


def train_steps(
    trainer: Trainer,
    steps: Iterable[Step],
    first: int,
    log: EpochLog,
    due: Callable[[int], bool],
    show: Callable[[dict[str, float]], None],
) -> Iterator[int]:
    """Train on `steps`, numbered from `first`, adding to the log, and yield at the steps after which a checkpoint is
    due(steps done): network, optimizer and log then agree.

    The values of a step are read, and shown, while the next one is under way, so that a GPU has no pause.
    Raises NotFiniteError where a term is infinite or not a number.
    """
    pending: list[tuple[int, _Values, Step]] = []

    def settle() -> None:
        while pending:
            step, terms, domains = pending.pop(0)
            values = terms.read()
            if processes.any_of(not all(map(math.isfinite, values.values()))):
                raise NotFiniteError(step, values, domains)
            log.add(values)
            show(values)

    for step, domains in enumerate(steps, start=first):
        terms = _Values(trainer.step(step, domains))
        settle()
        pending.append((step, terms, domains))
        if due(step + 1):
            settle()
            yield step + 1
    settle()
