"""Datasets as they lie on users' disks -> a Listing of ImageRecords, sorted. One module a dataset.

To add one: write its module with `read(root, ...) -> Listing`, and a branch in `read_source`.
"""

import os
import shlex
from dataclasses import replace
from pathlib import Path

from ..records import FvridError, Listing
from . import folder, veri_wild

_ORIGIN = {
    "veri-wild": "VERI-Wild comes from its authors on request (github.com/PKU-IMRE/VERI-Wild); unpack it with"
    " `unrar x images.part01.rar`, to have ROOT/images/<vehicle>/<image>.jpg and ROOT/train_test_split/*.txt,",
    "folder": "a folder of your own images needs one sub-folder a vehicle, or --pattern to read names otherwise,",
}


def default_root(name: str) -> Path:
    """$FVRID_VERI_WILD, $FVRID_FOLDER, ..., else data/<name>."""
    return Path(os.environ.get("FVRID_" + name.upper().replace("-", "_"), f"data/{name}"))


def read_source(name: str, root: Path | None = None, pattern: str | None = None) -> Listing:
    """List a source's images. FvridError, saying where the data comes from, if it is not there."""
    root = root or default_root(name)
    if not root.is_dir():
        raise FvridError(f"{root}: no such folder.\n{_ORIGIN[name]} and name ROOT with --root.")
    if name == "veri-wild":
        listing = veri_wild.read(root)
    else:
        listing = folder.read(root, pattern or folder.DEFAULT_PATTERN)
    if not listing.records:
        raise FvridError(
            f"{root}: no image can be used ({listing.summary}).\n{_ORIGIN[name]} and name ROOT with --root."
        )
    options = f"--src {name}" + (f" --pattern {shlex.quote(pattern)}" if pattern else "")
    return replace(listing, options=options)
