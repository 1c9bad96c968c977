"""Files that appear whole or not at all, their hashes, and names that stay inside their folder."""

import errno
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .records import FvridError

if sys.platform != "win32":
    import fcntl

_UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.part")  # the name of a file that is still being written; never read
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # the last are bytes that are not UTF-8
# of file systems and storage: not to be read, or not meant
_SYSTEMS = {"lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir"}
_SYSTEMS |= {".DS_Store", "desktop.ini", "Thumbs.db"}
_INSTALLED = Path(__file__).with_name("manifests")  # where a wheel has the repository's folder
MANIFESTS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "manifests"


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a neighbour of `path` to write to; it takes the name `path` only if the body succeeds.

    durable: not even a power cut leaves half of it; small files by the thousand can do without the disk's waiting.
    Raises IsADirectoryError where something else than a file has the name; an OSError of the body speaks of `path`.
    No two writers share a neighbour, so that one that was given up for dead harms nothing; what a killed one left
    is for `remove_unfinished`.
    """
    if path.exists() and not path.is_file():
        raise IsADirectoryError(errno.EISDIR, "is no file", str(path))
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield unfinished
        if durable:
            with unfinished.open("r+b") as file:  # Windows syncs what may be written only
                os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(unfinished):
            error.filename = str(path)
        raise


def sentence_of(error: OSError) -> str:
    """What the system would not do, and how to mend it; the error's own last line where it is not the system's."""
    if error.strerror is None:
        return (str(error).strip().splitlines() or [type(error).__name__])[-1]
    mend = _MENDS.get(error.errno or 0)
    return f"{error.filename or 'the output'}: {error.strerror}{f'; {mend}' if mend else ''}."


def not_written(path: Path, error: OSError, then: str = "run again") -> FvridError:
    """What to raise where the system does not take what is to be written to `path`."""
    mend = _MENDS.get(error.errno or 0, "check the disk")
    return FvridError(f"{path}: cannot be written ({error.strerror or error}); {mend}; then {then}.")


_MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name another place",
    errno.EISDIR: "name a file",
}


def write_atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write `content` (text as UTF-8 with \\n line ends) so that a reader sees all of it or the old file."""
    with atomic_path(path, durable) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8 without control characters, so that a line of text can hold it."""
    return _NOT_TEXT.search(name) is None


def is_unfinished(path: Path) -> bool:
    """Whether this is what a killed writer left, by its name."""
    return _UNFINISHED.fullmatch(path.name) is not None


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what killed writers, or systems that show folders, leave."""
    return all(is_unfinished(path) or path.name in _SYSTEMS for path in folder.iterdir())


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left, in sub-folders too."""
    for path in folder.rglob("*.part"):
        if is_unfinished(path):
            path.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` against any other process that asks for it; the system lets go of it when this one ends or dies.

    Raises FvridError where another holds it. File systems without locks, and Windows, are not guarded.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FvridError(
                    f"{folder}: another process is at work here; wait for it, or name another folder."
                ) from None
        yield
    finally:
        if handle in _held:  # else this is a child that has let go of it
            _held.remove(handle)
            os.close(handle)


_held: set[int] = set()  # descriptors of folders that this process holds


def _let_go() -> None:
    """In a forked child, such as one that decodes images: it may live on for seconds when its parent was killed."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


def _raise(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        return  # a folder that is not there has no images
    raise FvridError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); mend or remove it, and run again."
    )


def paths_below(root: Path, suffixes: Collection[str], below: str = "", without: Path | None = None) -> list[str]:
    """The files in the folder `below` of `root`, by suffix, relative to `root`, with forward slashes, sorted.

    without: a folder further down that is left out, as what is written there is no input.
    Hidden files and folders are left out, and those of the system. Links to folders are followed, each folder once. No
    file is opened. Empty where `below` is not there. Raises FvridError where a folder cannot be read, or a name has
    control characters or is not UTF-8, as no manifest could hold it.
    """
    found, seen = [], set()
    ends, top = tuple(suffixes), str(root / below)
    left_out = None if without is None else os.path.realpath(without)
    for folder, subfolders, names in os.walk(top, onerror=_raise, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name not in _SYSTEMS)
        real = os.path.realpath(folder)
        if real in seen or (real == left_out and folder != top):
            subfolders.clear()
            continue
        seen.add(real)
        prefix = f"{below}{folder[len(top) :]}/".replace(os.sep, "/").lstrip("/")
        found += [prefix + name for name in names if name.lower().endswith(ends) and not name.startswith(".")]
    for path in found:
        if not is_text(path):
            raise FvridError(f"{root}: the file name {path!a} has control characters or is not UTF-8; rename it.")
    return sorted(found)


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


def find_manifest(name_or_path: str) -> Path | None:
    """A path, or NAME for MANIFESTS/NAME.toml; None without one."""
    candidates = (Path(name_or_path), MANIFESTS / f"{name_or_path}.toml")
    return next((path for path in candidates if path.is_file()), None)
