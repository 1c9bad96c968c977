"""One epoch of training: in each step a synthetic batch and, when its turn comes, a real one, and one update."""

import math
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from .config import Recipe
from .data import Batch
from .network import SJDL
from .objectives import terms, total
from .schedule import lr_factor

Step = tuple[Batch, Batch | None]  # synthetic, real


def alternate(synthetic: Iterable[Batch], real: Iterable[Batch], first_step: int, real_every: int) -> Iterator[Step]:
    """Pair the synthetic batch of every step with the next real one in each `real_every`-th step."""
    real = iter(real)
    for step, batch in enumerate(synthetic, start=first_step):
        yield batch, next(real, None) if step % real_every == 0 else None


def train_one_epoch(
    net: SJDL,
    optimizer: torch.optim.Optimizer,
    steps: Iterable[Step],
    recipe: Recipe,
    first_step: int,
    total_steps: int,
    device: torch.device,
) -> dict[str, float]:
    """Train on the steps and return the mean of every term ("synthetic/triplet", ...), "lr" and "images_per_second".

    Raises FloatingPointError where a term is not finite.
    """
    net.train()
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    images, started = 0, time.monotonic()
    for step, domains in enumerate(steps, start=first_step):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * lr_factor(step, total_steps)
        optimizer.zero_grad(set_to_none=True)
        for domain, batch in zip(("synthetic", "real"), domains, strict=True):
            if batch is None:
                continue
            found = terms(net, batch.to(device), recipe)
            torch.autograd.backward(
                total(found, recipe.weights)
            )  # gradients add up to those of the sum of both domains
            for name, term in found.items():
                key = f"{domain}/{name}"
                sums[key] = sums.get(key, torch.zeros((), device=device)) + term.detach()
                counts[key] = counts.get(key, 0) + 1
            images += len(batch.label)
        optimizer.step()
    means = {key: float(value) / counts[key] for key, value in sums.items()}
    if not all(map(math.isfinite, means.values())):
        raise FloatingPointError(f"a loss is not finite: {means}; lower lr or the weight of the term.")
    means["lr"] = optimizer.param_groups[0]["lr"]
    means["images_per_second"] = images / max(1e-9, time.monotonic() - started)
    return means
