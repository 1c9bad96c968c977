"""Images of FVRID-Mini in the layouts that `fvrid` reads: input for tests, and for benchmarks without photographs."""

import io
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from fvrid_tools import pictures
from fvrid_tools.records import ImageRecord, Part
from fvrid_tools.sources import read_source

CAMERAS = 4


@cache
def _views(part: Part) -> list[list[ImageRecord]]:
    """The records of each vehicle."""
    records = read_source("mini", part=part).records
    return [list(group) for _, group in groupby(records, key=lambda record: record.vehicle_id)]


def picture(vehicle: int, view: int, part: Part = "clear") -> Image.Image:
    """A crop; its size is one of many, as in datasets of photographs."""
    views = _views(part)[vehicle]
    content = pictures.read_image(views[view % len(views)])
    draws = np.random.default_rng([vehicle, view])
    size = int(draws.integers(84, 150)), int(draws.integers(70, 130))
    return Image.open(io.BytesIO(content)).convert("RGB").resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def write_clear(root: Path, vehicles: int, views: int) -> None:
    """VERI-Wild's layout: images, lists of names (three vehicles of four to train) and vehicle_info.txt."""
    lists: dict[str, list[str]] = {"train_list": [], "test_3000": [], "test_3000_query": []}
    info = ["id/image;Camera ID;Time;Model;Type;Color"]
    number = 0
    for vehicle in range(vehicles):
        for view in range(views):
            number += 1
            camera, name = view % CAMERAS, f"{vehicle:05d}/{number:06d}"
            path = root / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(picture(vehicle, view)))
            info.append(f"{name};{camera + 1};2018-03-01 06:00:20;unknown;rendered;unknown")
            test = "test_3000" if view else "test_3000_query"
            lists["train_list" if vehicle % 4 else test].append(name)
    folder = root / "train_test_split"
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {**lists, "vehicle_info": info}.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_foggy(root: Path, vehicles: int, views: int) -> None:
    """<vehicle>/c<camera>_<view>.jpg of vehicles in path-traced fog."""
    for vehicle in range(vehicles):
        for view in range(views):
            path = root / f"{1000 + vehicle:05d}" / f"c{view % CAMERAS + 1}_{view}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(picture(vehicle, view, "real")))
