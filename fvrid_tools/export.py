"""Datasets in the forms that other tools read: the authors' folders, and webdataset tars."""

import csv
import io
import json
import math
import re
import tarfile
from pathlib import Path
from typing import Literal

from . import files, images
from .dataset import Dataset, Sample
from .fog import PerDistance
from .pictures import AUTHORS_NAME, UNFINISHED_EXPORT
from .progress import Progress, silent
from .records import FARTHEST_M, FvridError

Format = Literal["folder", "webdataset"]
SAMPLES_PER_TAR = 1000
FIRST_REAL = 20_000  # vehicle, of the names


def export(data: Dataset, form: Format, out: Path, progress: Progress = silent) -> int:
    """Write the dataset to the new folder `out`; returns the number of images.

    "folder": <split>_clear/, <split>_foggy/ and Depth/<split>_clear/<stem>/predict_depth_gray.png as the authors
    have them, but with depth of 16 bits; names <vehicle>_c<camera>_<image>_0, and index.csv, which tells what each
    name stands for.
    "webdataset": <split>-00000.tar ... of <stem>.clear.jpg, .foggy.jpg, .depth.png (16 bit), .json; reproducible.
    Images without a split are under "all". A file whose EXIF says how to turn it is turned. Raises FvridError where
    `out` is not empty or cannot be written. Until all is there a file UNFINISHED says so.
    """
    files.make_folder(out)
    if not files.is_empty(out):
        raise FvridError(f"{out} is not empty; name another --out.")
    try:
        (out / UNFINISHED_EXPORT).write_text("this export was stopped: delete the folder and run it again\n")
        if form == "folder":
            _export_folder(data, out, progress)
        else:
            _export_webdataset(data, out, progress)
        (out / UNFINISHED_EXPORT).unlink()
    except OSError as error:
        raise files.not_written(out, error, "delete the folder and run again") from None
    return len(data)


def _names(data: Dataset) -> list[str]:
    """A name in the authors' form for each image; vehicles and images are numbered in the manifest's order, vehicles in
    real fog from FIRST_REAL, as the authors', so that FVRID_syn and FVRID_real share no number up to so many."""
    first = FIRST_REAL if data.domain == "real" else 0
    vehicles: dict[tuple[str, str], int] = {}
    known = sorted({row.camera_id for row in data.rows if row.camera_id is not None})
    cameras: dict[str | None, int] = {camera: number for number, camera in enumerate(known, start=1)}
    if all(re.fullmatch(r"\d{1,3}", camera) for camera in known):
        numbers = {camera: int(camera) for camera in known}
        if 0 not in numbers.values() and len(set(numbers.values())) == len(numbers):
            cameras.update(numbers)  # as they are
    names = []
    for number, row in enumerate(data.rows):
        vehicle = vehicles.setdefault(row.identity, first + len(vehicles))
        camera = cameras.get(row.camera_id, 0)  # 0: not known
        names.append(f"{vehicle:05d}_c{camera:03d}_{number:06d}_0")
    return names


def _unit(sample: Sample) -> str:
    """What beta is per; "" where it is not known."""
    if math.isnan(sample.beta):
        return ""
    return f"{FARTHEST_M:g} m" if isinstance(sample.beta, PerDistance) else "unit of depth"


def _members(sample: Sample) -> dict[str, bytes]:
    """The encoded pictures of a sample by kind, all of one size."""
    columns = {"foggy": images.upright_file(sample.encoded("foggy"))}
    if sample.depth is not None:
        columns["clear"] = images.upright_file(sample.encoded("clear"))
        columns["depth"] = images.encode_depth(images.levels_of_depth(sample.depth))
    return columns


def _export_folder(data: Dataset, out: Path, progress: Progress) -> None:
    index = io.StringIO()
    lines = csv.writer(index, lineterminator="\n")
    lines.writerow(("name", "image_id", "vehicle_id", "camera_id", "split", "beta", "beta_per", "airlight"))
    for position, name in enumerate(_names(data)):
        sample = data[position]
        split = sample.split or "all"
        for kind, content in _members(sample).items():
            if kind == "depth":
                path = out / "Depth" / f"{split}_clear" / name / AUTHORS_NAME
            else:
                path = out / f"{split}_{kind}" / (name + images.suffix(content))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        row = sample.row
        lines.writerow(
            (name, row.image_id, row.vehicle_id, row.camera_id or "", split, row.beta, _unit(sample), row.airlight)
        )
        progress(1)
    files.write_atomic(out / "index.csv", index.getvalue())


def _export_webdataset(data: Dataset, out: Path, progress: Progress) -> None:
    names = _names(data)
    by_split: dict[str, list[int]] = {}
    for position, row in enumerate(data.rows):
        by_split.setdefault(row.split or "all", []).append(position)
    for split, positions in sorted(by_split.items()):
        for start in range(0, len(positions), SAMPLES_PER_TAR):
            path = out / f"{split}-{start // SAMPLES_PER_TAR:05d}.tar"
            with files.atomic_path(path) as unfinished, tarfile.open(unfinished, "w") as tar:
                for position in positions[start : start + SAMPLES_PER_TAR]:
                    _add_sample(tar, names[position], data[position])
                    progress(1)


def _add_sample(tar: tarfile.TarFile, name: str, sample: Sample) -> None:
    members = {
        f"{name}.{kind}{'.png' if kind == 'depth' else images.suffix(content)}": content
        for kind, content in _members(sample).items()
    }
    row = {key: None if value != value else value for key, value in sample.row._asdict().items()}  # nan: null
    row["beta_per"] = _unit(sample) or None
    members[f"{name}.json"] = json.dumps(row, sort_keys=True).encode()
    for member, content in sorted(members.items()):
        entry = tarfile.TarInfo(member)  # its time is 0, so the same samples give the same tar
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
