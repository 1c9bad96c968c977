"""Files that appear whole or not at all, their hashes, and names that stay inside their folder."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .records import FvridError

UNFINISHED = ".part"  # suffix of a file that is still being written; never read


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a neighbour of `path` to write to; it takes the name `path` only if the body succeeds."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8 with \\n line ends) so that a reader sees all of it or the old file."""
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(folder: Path, name: str) -> Path:
    """`folder / name` for a plain file name; FvridError for anything that could lead elsewhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise FvridError(f"{folder}: {name!r} is not a file name of a dataset; rebuild the dataset.")
    return folder / name


def make_folder(path: Path) -> None:
    """Create `path`; FvridError where that is not allowed or something else has the name."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FvridError(f"{path}: the folder cannot be made ({error.strerror}); choose another.") from None
    if not os.access(path, os.W_OK):
        raise FvridError(f"{path}: the folder cannot be written to; choose another or change its permissions.")
