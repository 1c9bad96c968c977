"""FVRID itself, as the authors' scripts leave it (or `fvrid export --format folder`, where no split is "all").

    ROOT/FVRID_syn/<split>_clear/<vehicle>_c<camera>_<image>_0.jpg       clear; <split> is train, query or gallery
    ROOT/FVRID_syn/<split>_foggy/<the same name>                         with the authors' fog
    ROOT/FVRID_syn/Depth/<split>_clear/<stem>/predict_depth_gray.png     8 bits, far is white, of any size
    ROOT/FVRID_real/<split>_foggy/<vehicle>_c<camera>_<image>_0.jpg      in real fog

ROOT may be FVRID_syn or FVRID_real itself, Depth lie beside FVRID_syn, a folder lie in one of its own name
(train_clear/train_clear/), and <stem> be cut to 19 characters. c000 is no camera, nor is c001 where a vehicle has no
other: the authors' names of Vehicle-1M's images all have it, and a query's every counterpart would be one to leave out.
Before the authors' MATLAB scripts have run there are neither fog nor depth, and clear images alone are read. Left out
is FVRID_clear, which RVSL adds, unless it is ROOT itself: its clear images show yet other vehicles, so they are no
counterparts of FVRID_real's.
"""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from ..pictures import AUTHORS_NAME, AUTHORS_STEM, UNFINISHED_EXPORT
from ..records import FvridError, ImageRecord, Listing, Part, Reject
from . import recognise
from .folder import count, image_paths
from .lists import SUFFIX, Found, find_images
from .veri import NAMED, camera_of

SOURCE = "fvrid"
SYNTHETIC, REAL = "FVRID_syn", "FVRID_real"
DUMMY = "1"  # the camera of the authors' names for Vehicle-1M, which knows none
SPLITS = {"train": "train", "query": "query", "gallery": "gallery", "all": None}

Kind = Literal["clear", "foggy"]


def read(root: Path, part: Part) -> Listing:
    """The clear images, each with the authors' foggy one and depth where these are there; or, for "real", the images of
    real fog.

    A foggy image without a clear one of its name becomes a reject.
    Raises FvridError where `root` is another dataset, an export that was stopped, or does not hold the part.
    """
    recognise.check(root, SOURCE)
    folder = root / _base(root, REAL if part == "real" else SYNTHETIC)
    if any((one / UNFINISHED_EXPORT).exists() for one in (root, folder)):
        raise FvridError(f"{folder}: fvrid export was stopped while it wrote this; delete it, and run that again.")
    return _read_real(root) if part == "real" else _read_synthetic(root)


def _read_synthetic(root: Path) -> Listing:
    base = _base(root, SYNTHETIC)
    if not _has(root / base, "clear"):
        raise FvridError(
            f"{root} has no {SYNTHETIC}/<split>_clear, clear images; fvrid build-real takes foggy ones, and RVSL's"
            " FVRID_clear is read where --root names it."
        )
    clear, foggy = (_find(root, base, SYNTHETIC, kind) for kind in ("clear", "foggy"))
    depths = _find_depths(root, base)
    records = []
    for image_id, path in sorted(clear.paths.items()):
        _, _, folder, stem = image_id.split("/")
        counterpart = foggy.paths.pop(_foggy_id(image_id), None)
        depth = depths.get((folder, stem)) or depths.get((folder, stem[:AUTHORS_STEM]))
        places = {"depth": root / depth if depth else None, "foggy": root / counterpart if counterpart else None}
        records.append(_record(root, image_id, path, **places))
    without = [Reject(SOURCE, path, "its clear counterpart is not there") for _, path in sorted(foggy.paths.items())]
    passed = clear.passed + foggy.passed
    records = _without_dummies(records)
    with_depth = sum(record.depth is not None for record in records)
    without_fog = sum(record.foggy is None for record in records)
    summary = (
        f"fvrid: {SYNTHETIC}, {count(records)}, {with_depth} with depth,"
        f" {without_fog} clear without fog, {len(without)} foggy without clear, {len(passed)} other files"
    )
    return Listing(records, [*without, *passed], summary)


def _read_real(root: Path) -> Listing:
    base = _base(root, REAL)
    if not base and (_has(root, "clear") or not _has(root, "foggy")):
        raise FvridError(f"{root} has no {REAL}, images in real fog; fvrid build-syn takes {SYNTHETIC}.")
    found = _find(root, base, REAL, "foggy")
    records = _without_dummies([_record(root, image_id, path) for image_id, path in sorted(found.paths.items())])
    return Listing(records, found.passed, f"fvrid: {REAL}, {count(records)}, {len(found.passed)} other files")


def _without_dummies(records: list[ImageRecord]) -> list[ImageRecord]:
    """With no camera for the vehicles that have no other than c001."""
    elsewhere = {record.vehicle_id for record in records if record.camera_id != DUMMY}
    return [record if record.vehicle_id in elsewhere else replace(record, camera_id=None) for record in records]


def _base(root: Path, domain: str) -> str:
    """The folder of a domain with a slash, or "" for the root."""
    return f"{domain}/" if (root / domain).is_dir() else ""


def _has(folder: Path, kind: Kind) -> bool:
    return any((folder / f"{split}_{kind}").is_dir() for split in SPLITS)


def _find(root: Path, base: str, domain: str, kind: Kind) -> Found:
    """The images of a kind, by "fvrid/<domain>/<split>_<kind>/<stem>"."""
    folders = [f"{split}_{kind}" for split in SPLITS]
    one = f"(?:{'|'.join(folders)})"
    image = re.compile(rf"{base}(?:(?P<outer>{one})/(?=(?P=outer)/))*+(?P<key>{one}/{NAMED}){SUFFIX}")
    prefix, form = f"{SOURCE}/{domain}", "<vehicle>_c<camera>_<image>_0"
    return find_images(prefix, root, [base + folder for folder in folders], image, form)


def _foggy_id(image_id: str) -> str:
    return image_id.replace("_clear/", "_foggy/", 1)


def _find_depths(root: Path, base: str) -> dict[tuple[str, str], str]:
    """Depth pictures by (<split>_clear, <stem>); of several the one that lies least deep."""
    depths: dict[tuple[str, str], str] = {}
    for tree in sorted({f"{base}Depth", "Depth"}, reverse=True):  # FVRID_syn's own first
        paths = [path for path in image_paths(root, tree) if path.endswith("/" + AUTHORS_NAME)]
        for path in sorted(paths, key=lambda path: path.count("/")):
            stem = PurePosixPath(path).parent
            depths.setdefault((stem.parent.name, stem.name), path)
    return depths


def _record(root: Path, image_id: str, path: str, depth: Path | None = None, foggy: Path | None = None) -> ImageRecord:
    _, _, folder, stem = image_id.split("/")
    match = re.match(NAMED, stem)
    assert match is not None  # `_find` found no other
    split = SPLITS[folder.partition("_")[0]]
    vehicle_id, camera_id = match["vehicle_id"], camera_of(match)
    return ImageRecord(image_id, SOURCE, path, vehicle_id, camera_id, split, root, depth=depth, foggy=foggy)
