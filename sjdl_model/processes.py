"""The processes that train together: one, or as many as torchrun started, each with its own part of every batch.

torch's own launcher and DistributedDataParallel do the work. A framework above them would own the loop, and ours has
two batches and one update in a step; what is left for us to write is this page.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes where torchrun started this one, and part from them at the end."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # gloo for the CPU beside NCCL, for the flags and objects that need no GPU to wait
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """0 in the process that writes files and talks to the user."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(length: int) -> slice:
    """This process's part of so many items; the parts in order of rank are all of them."""
    return slice(rank() * length // count(), (rank() + 1) * length // count())


def barrier() -> None:
    """Wait until every process is here."""
    any_of(False)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process: the same answer in all of them."""
    if count() == 1:
        return flag
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def mean(values: list[float]) -> list[float]:
    """Of each value over the processes."""
    if count() == 1:
        return values
    means = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(means)
    return [float(value) / count() for value in means]


def objects(mine: T) -> list[T]:
    """What every process has, by rank."""
    if count() == 1:
        return [mine]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, mine)
    return found


def gather(tensor: Tensor) -> Tensor:
    """(B, ...) of each process -> (count * B, ...) in order of rank, in every process; gradients go back."""
    if count() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(count())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """What all processes' losses ask of this one's part. DistributedDataParallel takes the mean of it later."""
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)  # what comes in is not ours to change
        dist.all_reduce(gradient)
        mine: Tensor = gradient.chunk(count())[rank()]
        return mine
