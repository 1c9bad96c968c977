"""Tasks over the machines of a Dask cluster (extra `dask`); all of them see the same folders under the same names."""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .pool import Done, Made, Task
from .progress import Progress
from .records import FvridError, OptionError

PATIENCE = 10.0  # seconds that a scheduler may take to answer
WORKERS_PATIENCE = 600.0  # and its first worker to come
_AHEAD = 3  # tasks a thread of the cluster that are sent before they are needed
_one_at_a_time = threading.Lock()  # in a process: tasks keep their buffers, and the current folder is the process's


def run(tasks: Sequence[Task[Made, Done]], address: str, progress: Progress) -> list[Done]:
    """Do all tasks on the workers of the scheduler at `address`; results come in the order of the tasks.

    A task of a worker that is lost is done by another. `progress` is called when a task is done.
    Raises what a task raises; OptionError where Dask is not installed, FvridError where no scheduler answers, no worker
    comes in time or a task has killed several workers.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
        from distributed.client import FutureCancelledError
    except ImportError:
        raise OptionError("--scheduler needs Dask: pip install 'fvrid[dask]'.") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise FvridError(
            f"--scheduler {address}: no Dask scheduler answers there ({error}); start one with `dask scheduler`,"
            " and workers with `dask worker ADDRESS --nthreads 1`."
        ) from None
    done: dict[int, Done] = {}
    with client:
        if not tasks:
            return []
        if not client.nthreads():
            print(f"--scheduler {address}: no workers yet; waiting for the first", file=sys.stderr)
        try:
            client.wait_for_workers(1, timeout=WORKERS_PATIENCE)
        except TimeoutError:
            raise FvridError(
                f"--scheduler {address}: it has no workers; start some with `dask worker ADDRESS --nthreads 1`."
            ) from None
        rest = iter(enumerate(tasks))
        here = str(Path.cwd())
        numbers: dict[Any, int] = {}

        def send(count: int) -> list[Any]:
            sent = []
            for number, task in (pair for _, pair in zip(range(count), rest, strict=False)):
                future = client.submit(_run, task, here, pure=False)
                numbers[future.key] = number
                sent.append(future)
            return sent

        def room() -> int:
            """How many tasks more the workers take that are here now: others may have come."""
            threads: int = sum(client.nthreads().values())
            return max(1, _AHEAD * threads - len(numbers))

        running = as_completed(send(room()), loop=client.loop)
        try:
            for future in running:
                number = numbers.pop(future.key)
                done[number], count = future.result()
                progress(count)
                running.update(send(room()))
        except KilledWorker as error:
            raise FvridError(f"the cluster lost every worker that took a part ({error}); run again.") from None
        except FutureCancelledError:
            raise FvridError(f"--scheduler {address}: the connection was lost; start Dask and run again.") from None
    return [done[number] for number in range(len(tasks))]


def _run(task: Task[Made, Done], folder: str) -> tuple[Done, int]:
    """In a worker: do a task as if in the folder that the command was given in; its result, and what it counted."""
    counts: list[int] = []
    with _one_at_a_time:
        before = Path.cwd()
        try:
            os.chdir(folder)
        except OSError as error:
            raise FvridError(
                f"a worker of the cluster cannot enter {folder} ({error.strerror}); all need the same folders."
            ) from None
        try:
            return task.write(task.make(counts.append)), sum(counts)
        finally:
            os.chdir(before)
