"""torch as the estimators use it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..records import FvridError


@contextmanager
def inference() -> Iterator[None]:
    """Without gradients, and with one thread: parallelism is over images, and sums keep their order whatever the number
    of processes. Raises FvridError where the GPU has too little memory."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError:
        raise FvridError(
            "the GPU has too little memory for so many processes; lower --workers, or set CUDA_VISIBLE_DEVICES= to use"
            " none."
        ) from None
    finally:
        torch.set_num_threads(before)
