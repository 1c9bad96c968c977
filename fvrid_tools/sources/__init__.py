"""Datasets as they lie on users' disks -> a Listing of ImageRecords, sorted. One module a dataset.

To add one: write its module with `read(root, ...) -> Listing`, and a branch in `read_source`.
"""

import os
import shlex
from dataclasses import replace
from pathlib import Path

from ..records import FvridError, Listing, OptionError, Part
from . import folder, mini, veri_wild

_ORIGIN = {
    "veri-wild": "VERI-Wild comes from its authors on request (github.com/PKU-IMRE/VERI-Wild); unpack it with"
    " `unrar x images.part01.rar`, to have ROOT/images/<vehicle>/<image>.jpg and ROOT/train_test_split/*.txt,"
    " and name ROOT with --root; or take --src mini, which needs no download.",
    "folder": "a folder of your own images needs one sub-folder a vehicle, or --pattern to read names otherwise,"
    " and is named with --root; --src mini needs no folder and no download.",
    "mini": "mini lies inside the package: leave --root out; or name what `fvrid render --out ROOT` has finished.",
}
_WITH_DEPTH = _WITH_PAIRS = frozenset({mini.SOURCE})


def default_root(name: str) -> Path:
    """$FVRID_VERI_WILD, $FVRID_FOLDER, $FVRID_MINI, ...; else data/<name>, but mini's is inside the package."""
    named = os.environ.get("FVRID_" + name.upper().replace("-", "_"))
    return Path(named or (mini.EMBEDDED if name == mini.SOURCE else f"data/{name}"))


def carries_depth(name: str) -> bool:
    """Whether the source comes with the depth of its images, which `--depth source` takes."""
    return name in _WITH_DEPTH


def read_source(name: str, root: Path | None = None, pattern: str | None = None, part: Part = "clear") -> Listing:
    """List a source's images; `part` says which, where the source can tell.

    Raises FvridError, saying where the data comes from, if it is not there, and OptionError for pairs of a source
    that has none.
    """
    if part == "pairs" and name not in _WITH_PAIRS:
        raise OptionError(f"--pairs: {name} has no clear counterparts of foggy images; take --src mini.")
    root = root or default_root(name)
    if not root.is_dir() and root != mini.EMBEDDED:
        raise FvridError(f"{root}: no such folder.\n{_ORIGIN[name]}")
    if name == "veri-wild":
        listing = veri_wild.read(root)
    elif name == "mini":
        listing = mini.read(root, part)
    else:
        listing = folder.read(root, pattern or folder.DEFAULT_PATTERN)
    if not listing.records:
        raise FvridError(f"{root}: no image can be used ({listing.summary}).\n{_ORIGIN[name]}")
    options = f"--src {name}" + (f" --pattern {shlex.quote(pattern)}" if pattern else "")
    return replace(listing, options=options)
