"""Tasks over processes: each makes something in memory and writes it; progress is counted across processes."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from .records import FvridError

Progress = Callable[[int], None]  # called with the number of images just finished
Made = TypeVar("Made")
Done = TypeVar("Done", covariant=True)


class Task(Protocol[Made, Done]):
    """What is sent to a process; must pickle."""

    def make(self, progress: Progress, /) -> Made:
        """The computing."""

    def write(self, made: Made, /) -> Done:
        """The disk work; the result is sent back."""


def run(tasks: Sequence[Task[Made, Done]], workers: int, progress: Progress) -> list[Done]:
    """Do all tasks, in processes where `workers` is above 1; results come in the order of the tasks.

    Raises what a task raises, and FvridError where a process was killed.
    """
    if workers > 1 and len(tasks) > 1:
        return _run_in_processes(tasks, workers, progress)
    writes: list[Future[Done]] = []
    with ThreadPoolExecutor(1) as disk:  # writing one result overlaps with making the next
        for task in tasks:
            made = task.make(progress)
            for previous in writes[-1:]:
                previous.result()  # so that at most one waits in memory
            writes.append(disk.submit(task.write, made))
        return [write.result() for write in writes]


def _run_in_processes(tasks: Sequence[Task[Made, Done]], workers: int, progress: Progress) -> list[Done]:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    reported = 0
    with ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_start_worker, initargs=(counter,)) as pool:
        futures = [pool.submit(_run_counted, task) for task in tasks]
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                progress(counter.value - reported)
                reported = counter.value
                for future in done:
                    future.result()  # raises what the task raised, without waiting for the others
        except BrokenProcessPool:
            raise FvridError("a worker process was killed (out of memory?); run again with fewer --workers.") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


_counter: Any = None  # in a worker process: the number of images done, shared with the parent


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Leave when the parent is gone, even killed: nobody would take the result, and a rerun may write the same file."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _run_counted(task: Task[Made, Done]) -> Done:
    def count(done: int) -> None:
        with _counter.get_lock():
            _counter.value += done

    return task.write(task.make(count))
