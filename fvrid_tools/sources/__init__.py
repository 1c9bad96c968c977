"""Datasets as they lie on users' disks -> a Listing of ImageRecords, sorted. One module a dataset.

To add one: write its module with `read(root, ...) -> Listing`, an entry of `_SOURCES`, a branch in `_read`, and, where
its folders have a form of their own, its signs in recognise.py. Readers are imported where they are called, so that
the command line can name the sources without waiting for OpenCV and HDF5.
"""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..records import FvridError, Listing, OptionError, Part


class _Source(NamedTuple):
    origin: str  # where the dataset comes from, and how it must lie
    depth: bool = False  # comes with that of its images
    fog: bool = False  # and with a foggy counterpart of its clear images
    pairs: bool = False  # and with clear counterparts of foggy images
    clear: bool = False  # of all weathers, few images being taken in fog


_SOURCES = {
    "veri-wild": _Source(
        "VERI-Wild comes from its authors on request (github.com/PKU-IMRE/VERI-Wild); unpack it with"
        " `unrar x images.part01.rar`, to have ROOT/images/<vehicle>/<image>.jpg and ROOT/train_test_split/*.txt,"
        " and name ROOT with --root",
        clear=True,
    ),
    "vehicle-1m": _Source(
        "Vehicle-1M comes from its authors at NLPR, Chinese Academy of Sciences, for a signed agreement; unpack it to"
        " have ROOT/image/<folder>/<image>.jpg and ROOT/train-test-split/*.txt, and name ROOT with --root",
        clear=True,
    ),
    "veri": _Source(
        "VeRi-776 comes from its authors on request (github.com/JDAI-CV/VeRidataset); unpack it to have"
        " ROOT/image_train, ROOT/image_query and ROOT/image_test, and name ROOT with --root",
        clear=True,
    ),
    "vehicleid": _Source(
        "VehicleID comes from its authors at Peking University on request (PKU VehicleID); unpack it to have"
        " ROOT/image/<image>.jpg and ROOT/train_test_split/*.txt, which alone tell the vehicles, and name ROOT with"
        " --root",
        clear=True,
    ),
    "fvrid": _Source(
        "FVRID's authors share lists and scripts that make FVRID_syn and FVRID_real of VERI-Wild and Vehicle-1M; name"
        " the folder that holds the two with --root",
        depth=True,
        fog=True,
    ),
    "folder": _Source(
        "a folder of your own images needs one sub-folder a vehicle, or --pattern to read names otherwise, and is named"
        " with --root"
    ),
    "mini": _Source(
        "mini lies inside the package: leave --root out; or name what `fvrid render --out ROOT` has finished",
        depth=True,
        pairs=True,
    ),
}
SOURCES = tuple(_SOURCES)  # what --src takes


def default_root(name: str) -> Path:
    """$FVRID_VERI_WILD, $FVRID_FOLDER, $FVRID_MINI, ...; else data/<name>, but mini's is inside the package."""
    named = os.environ.get("FVRID_" + name.upper().replace("-", "_"))
    return Path(named) if named else _embedded() if name == "mini" else Path("data", name)


def _embedded() -> Path:
    from .mini import EMBEDDED

    return EMBEDDED


def carries_depth(name: str) -> bool:
    """Whether the source comes with the depth of its images, which `--depth source` takes."""
    return _SOURCES[name].depth


def carries_fog(name: str) -> bool:
    """Whether the source comes with a foggy counterpart of its clear images."""
    return _SOURCES[name].fog


def is_clear(name: str) -> bool:
    """Whether the source is a dataset of all weathers, of which few images were taken in fog."""
    return _SOURCES[name].clear


def read_source(name: str, root: Path | None = None, pattern: str | None = None, part: Part = "clear") -> Listing:
    """List a source's images; `part` says which, where the source can tell.

    Raises FvridError, saying where the data comes from, if it is not there, and where `root` is plainly another
    dataset; OptionError for pairs of a source that has none.
    """
    if part == "pairs" and not _SOURCES[name].pairs:
        raise OptionError(f"--pairs: {name} has no clear counterparts of foggy images; take --src mini.")
    root = root or default_root(name)
    if not root.is_dir() and root != _embedded():
        raise FvridError(f"{root}: no such folder.\n{_how_to_have(name)}")
    listing = _read(name, root, pattern, part)
    if not listing.records:
        raise FvridError(f"{root}: no image can be used ({listing.summary}).\n{_how_to_have(name)}")
    options = f"--src {name}" + (f" --pattern {shlex.quote(pattern)}" if pattern else "")
    return replace(listing, source=name, options=options)


def _how_to_have(name: str) -> str:
    end = "." if name == "mini" else "; or take --src mini, which needs no download."
    return _SOURCES[name].origin + end


def _read(name: str, root: Path, pattern: str | None, part: Part) -> Listing:
    if name == "veri-wild":
        from . import veri_wild

        return veri_wild.read(root)
    if name == "vehicle-1m":
        from . import vehicle_1m

        return vehicle_1m.read(root)
    if name == "veri":
        from . import veri

        return veri.read(root)
    if name == "vehicleid":
        from . import vehicleid

        return vehicleid.read(root)
    if name == "fvrid":
        from . import fvrid

        return fvrid.read(root, part)
    if name == "mini":
        from . import mini

        return mini.read(root, part)
    from . import folder

    return folder.read(root, pattern)
