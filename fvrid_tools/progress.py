"""Progress on stderr: a bar with rate and time left on a terminal; elsewhere, as in a log, a line a minute."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[int], None]  # called with the number of images just finished
LINE_EVERY = 60.0  # seconds
_LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {rate_fmt}, {remaining} left"


def silent(count: int) -> None:
    """Shows nothing."""


def bar(
    total: int,
    what: str,
    unit: str = "images",
    *,
    over: Iterable[Any] | None = None,
    initial: int = 0,
    leave: bool = False,
    shown: bool = True,
) -> "tqdm[Any]":
    """A bar to be used in `with`, whose `update` is a Progress; or which yields what is in `over`. TQDM_DISABLE in the
    environment hides it."""
    from tqdm import tqdm

    lines: dict[str, Any] = {
        "file": _Lines(),
        "bar_format": _LINE,
        "delay": LINE_EVERY,  # nothing of what is shorter
        "mininterval": LINE_EVERY,
        "miniters": 1,  # else a monitor of tqdm's prints a second time what is late
        "position": 0,  # else a bar within a bar moves the cursor
    }
    how = {} if sys.stderr.isatty() else lines
    return tqdm(
        over,
        total=total,
        desc=what,
        unit=f" {unit}",
        initial=initial,
        leave=leave,
        disable=not shown or bool(os.environ.get("TQDM_DISABLE")),
        smoothing=0.1,
        **how,
    )


class _Lines:
    """stderr as tqdm's file, for a place where nothing can be drawn over."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
