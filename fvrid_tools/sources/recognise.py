"""Which dataset a folder holds, told from a few of its entries, however many millions there are.

    VERI-Wild     images/<5 digits>/<6 digits>.jpg, or the same right in ROOT; lists that only it has
    Vehicle-1M    image/<folder>/<image>.jpg, or image_jpg/; lists that only it has
    VeRi-776      image_train/<vehicle>_c<camera>_..., or image_query/, image_test/
    VehicleID     image/<digits>.jpg; lists that only it has
    FVRID         FVRID_syn, FVRID_real, FVRID_clear, or <split>_clear and <split>_foggy with its names

A folder that is none of these is not refused by any reader: it may be one's own arrangement.
"""

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ..images import SUFFIXES
from ..records import FvridError
from .lists import texts

LOOKED_AT = 64  # entries of a folder
_SUBFOLDERS = 8  # of these are looked into
_TITLES = {
    "veri-wild": "VERI-Wild",
    "vehicle-1m": "Vehicle-1M",
    "veri": "VeRi-776",
    "vehicleid": "VehicleID",
    "fvrid": "FVRID",
}


def check(root: Path, source: str) -> None:
    """Raise FvridError where `root` is plainly another of the datasets than `source`, naming the --src to take."""
    if _SIGNS[source](root):
        return
    for other, is_there in _SIGNS.items():
        if is_there(root):
            raise FvridError(
                f"{root} is not {_TITLES[source]} but looks like {_TITLES[other]}; take --src {other}, or name"
                " another --root."
            )


def _is_veri_wild(root: Path) -> bool:
    def holds(folder: Path) -> bool:
        return _holds(folder, r"\d{5}", r"\d{6}")

    if any(holds(root / folder) for folder in ("images", "images/images", "images_all")):
        return True
    only_here = r"vehicle_info|train_list_start0|test_(5000|10000)(_.*)?|(A|B|All)_(query|gallery)"
    return _has_list(root, only_here) or (holds(root) and not _has_list(root, _VEHICLE_1M_LISTS))


_VEHICLE_1M_LISTS = "test_(1000|2000|full)"


def _is_vehicle_1m(root: Path) -> bool:
    folders = (root / "image", root / "image_jpg")
    nested = (folder / name for folder in folders for name in ("image", "image_jpg"))
    own = (_holds(folder, r"(?!image(_jpg)?$).*", ".*") for folder in (*folders, *nested))
    return any(own) or _has_list(root, _VEHICLE_1M_LISTS)


def _is_veri(root: Path) -> bool:
    return any(_has_picture(root / f"image_{name}", r"\d+_c\d+_.*") for name in ("train", "query", "test"))


def _is_vehicleid(root: Path) -> bool:
    flat = any(_has_picture(root / name, r"\d+") for name in ("image", "image/image"))
    return flat or _has_list(root, r"test_list_\d+")


def _is_fvrid(root: Path) -> bool:
    if any((root / f"FVRID_{name}").is_dir() for name in ("syn", "real", "clear")):
        return True
    splits = (f"{split}_{kind}" for split in ("train", "query", "gallery", "all") for kind in ("clear", "foggy"))
    return any(_has_picture(folder, r"\d+_c\d+_.*") for name in splits for folder in (root / name, root / name / name))


_SIGNS: dict[str, Callable[[Path], bool]] = {
    "fvrid": _is_fvrid,
    "veri": _is_veri,
    "veri-wild": _is_veri_wild,
    "vehicleid": _is_vehicleid,
    "vehicle-1m": _is_vehicle_1m,
}


def _holds(folder: Path, subfolder: str, picture: str) -> bool:
    """Whether there is a <subfolder>/<picture>, of these patterns, the picture's suffix apart."""
    named = (entry.name for entry in _entries(folder) if re.fullmatch(subfolder, entry.name) and entry.is_dir())
    return any(_has_picture(folder / name, picture) for name in islice(named, _SUBFOLDERS))


def _has_picture(folder: Path, pattern: str) -> bool:
    names = (entry.name.rpartition(".") for entry in _entries(folder))
    return any(f".{suffix.lower()}" in SUFFIXES and re.fullmatch(pattern, stem) for stem, _, suffix in names)


def _has_list(root: Path, pattern: str) -> bool:
    return bool(texts(root, re.compile(rf"({pattern})\.txt")))


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Some entries of a folder, hidden ones apart; none where it is missing or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            visible = (entry for entry in entries if not entry.name.startswith("."))
            yield from islice(visible, LOOKED_AT)
    except OSError:
        return
