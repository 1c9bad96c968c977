"""The device that a process computes on, and how exact its products are."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from .config import ConfigError, first_line

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of this process: of several on a machine, each takes a GPU of its own.

    Raises ConfigError where torch does not know the device or it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device = {name!r} cannot be used ({first_line(error)}).") from None
    return device


def set_precision(precision: str, device: torch.device, *, one_size: bool = True) -> None:
    """Of products on a GPU: float32 is to be float32, and torch lets convolutions use TF32 unless told otherwise.

    one_size: images are, so that it pays to try which convolution is fastest."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "float32"
        torch.backends.cudnn.benchmark = one_size


@contextmanager
def exact_products() -> Iterator[None]:
    """Within it the products of float32 matrices are made in float32, whatever else the process was told."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Within it products are made in `precision`, where that is one of the 16-bit types."""
    return torch.autocast(device.type, _HALVES.get(precision), enabled=precision in _HALVES)
