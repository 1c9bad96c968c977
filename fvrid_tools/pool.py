"""Tasks over processes: each makes something in memory and writes it; progress is counted across processes."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

from .progress import Progress
from .records import FvridError

Made = TypeVar("Made")
Done = TypeVar("Done")


_MOST = 61 if sys.platform == "win32" else 1_000_000  # processes that a pool can wait for


class Task(Generic[Made, Done]):
    """What is sent to a process; must pickle."""

    def make(self, progress: Progress, /) -> Made:
        """The computing."""
        raise NotImplementedError

    def write(self, made: Made, /) -> Done:
        """The disk work, if any; the result is sent back."""
        return cast(Done, made)


def run(tasks: Sequence[Task[Made, Done]], workers: int, progress: Progress) -> list[Done]:
    """Do all tasks, in processes where `workers` is above 1; results come in the order of the tasks.

    Raises what a task raises, once the tasks that are under way are finished, and FvridError where a process was
    killed. At a KeyboardInterrupt the tasks under way are dropped.
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
    counter, stop = context.Value("q", 0), context.Event()
    reported = 0
    with ProcessPoolExecutor(
        min(workers, len(tasks), _MOST), context, initializer=_start_worker, initargs=(counter, stop)
    ) as pool:
        with _interrupts_held():  # the processes start here, and inherit it: only this one is to be interrupted
            futures = [pool.submit(_run_counted, task) for task in tasks]
        finished: SimpleQueue[Future[Done]] = SimpleQueue()
        for future in futures:
            future.add_done_callback(finished.put)
        waiting = len(futures)
        try:
            while waiting:
                ready: list[Future[Done]] = []
                with suppress(Empty):
                    ready.append(finished.get(timeout=0.2))
                count = counter.get_obj().value  # without its lock, which a process that was killed may hold
                progress(count - reported)
                reported = count
                waiting -= len(ready)
                for future in ready:
                    future.result()  # raises what the task raised, without waiting for the others
        except BrokenProcessPool:
            raise FvridError("a worker process was killed (out of memory?); run again with fewer at once.") from None
        except KeyboardInterrupt:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stopped(Exception):
    """In a worker process: what it is making is not wanted any more."""


_counter: Any = None  # in a worker process: the number of images done, shared with the parent
_stop: Any = None  # and whether the parent wants no more


def _start_worker(counter: Any, stop: Any) -> None:
    global _counter, _stop
    _counter, _stop = counter, stop
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Leave when the parent is gone, even killed: nobody would take the result."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _run_counted(task: Task[Made, Done]) -> Done:
    def count(done: int) -> None:
        if _stop.is_set():
            raise _Stopped
        with _counter.get_lock():
            _counter.value += done

    count(0)  # a task that waited in the queue when the others were stopped
    return task.write(task.make(count))
