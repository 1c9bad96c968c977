"""Plainly drawn vehicles in the layouts that `fvrid` reads: the input of `make demo` and of the tests.

    python tests/drawn_vehicles.py OUT [--vehicles N] [--views N] [--seed N]

writes OUT/clear, as VERI-Wild lies on disk, and OUT/foggy, other vehicles in patchy fog that Eq. 1 does not
describe, as folders of a user's own.
"""

import argparse
import colorsys
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CAMERAS = 4


def _colour(rng: np.random.Generator, saturation: float = 0.7) -> tuple[int, int, int]:
    rgb = colorsys.hsv_to_rgb(rng.random(), saturation * rng.random() ** 0.5, 0.25 + 0.7 * rng.random())
    red, green, blue = (int(255 * value) for value in rgb)
    return red, green, blue


def draw_vehicle(vehicle: int, camera: int, view: int, seed: int = 0) -> Image.Image:
    """One crop of a vehicle: its shape, colours and marks follow from (seed, vehicle), the scene from the rest."""
    marks = np.random.default_rng([seed, vehicle])
    scene = np.random.default_rng([seed, 10_000 + camera])
    shot = np.random.default_rng([seed, vehicle, camera, view, 1])
    width, height = int(shot.integers(84, 150)), int(shot.integers(70, 130))
    image = Image.new("RGB", (width, height), _colour(scene, 0.15))
    draw = ImageDraw.Draw(image)
    road = tuple(int(scene.integers(70, 120)) for _ in range(3))
    draw.rectangle((0, int(height * 0.45), width, height), fill=road)
    draw.line((0, int(height * 0.97), width, int(height * 0.85)), fill=(225, 225, 215), width=3)

    left, right = (0.08 + 0.05 * shot.random()) * width, (0.92 - 0.05 * shot.random()) * width
    bottom = (0.88 + 0.05 * shot.random()) * height
    tall, cabin = 0.35 + 0.3 * marks.random(), 0.3 + 0.5 * marks.random()
    body, trim, stripe = _colour(marks), _colour(marks, 0.3), _colour(marks, 1.0)
    span, sill = right - left, bottom - tall * 0.55 * height
    roof = bottom - (tall + 0.12) * height
    draw.ellipse((left - 4, bottom - 6, right + 4, bottom + 5), fill=(40, 40, 42))
    start = left + span * (0.1 + 0.3 * marks.random())
    draw.rectangle((start, roof, min(right, start + cabin * span), sill + 2), fill=trim)
    draw.rounded_rectangle((left, sill, right, bottom - 4), radius=6, fill=body)
    for pane in range(int(marks.integers(2, 5))):
        x = start + 4 + pane * cabin * span / 4
        draw.rectangle((x, roof + 4, x + cabin * span / 5, sill - 1), fill=(60, 75, 95))
    y = sill + (bottom - sill) * (0.2 + 0.4 * marks.random())
    draw.line((left + 3, y, right - 3, y), fill=stripe, width=int(marks.integers(2, 6)))
    for _ in range(int(marks.integers(1, 5))):  # stickers
        x, y = (
            left + span * (0.1 + 0.75 * marks.random()),
            sill + (bottom - sill) * (0.1 + 0.55 * marks.random()),
        )
        draw.rectangle((x, y, x + 7, y + 5), fill=_colour(marks, 1.0))
    for share in (0.2, 0.8):
        x = left + span * share
        draw.ellipse((x - 8, bottom - 14, x + 8, bottom + 2), fill=(25, 25, 25))
        draw.ellipse((x - 3, bottom - 9, x + 3, bottom - 3), fill=_colour(np.random.default_rng([seed, vehicle, 5])))
    if shot.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.filter(ImageFilter.GaussianBlur(0.5 * shot.random()))
    pixels = np.asarray(image, dtype=np.float32) * (0.8 + 0.35 * scene.random()) + shot.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def add_patchy_fog(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Fog whose density varies over the image, tinted and blurred: not Eq. 1."""
    width, height = image.size
    coarse = Image.fromarray((255 * rng.random((4, 5))).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    density = 0.25 + 0.5 * rng.random() + 0.35 * (np.asarray(coarse, dtype=np.float32)[..., None] / 255 - 0.5)
    tint = np.array([225, 228, 235]) * (0.75 + 0.25 * rng.random())
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    foggy = blurred * (1 - density) + tint * density + rng.normal(0, 3, blurred.shape)
    return Image.fromarray(foggy.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def write_clear(root: Path, vehicles: int, views: int, seed: int = 0) -> None:
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
            path.write_bytes(jpeg(draw_vehicle(vehicle, camera, view, seed)))
            info.append(f"{name};{camera + 1};2018-03-01 06:00:20;unknown;drawn;unknown")
            test = "test_3000" if view else "test_3000_query"
            lists["train_list" if vehicle % 4 else test].append(name)
    folder = root / "train_test_split"
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {**lists, "vehicle_info": info}.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_foggy(root: Path, vehicles: int, views: int, seed: int = 0) -> None:
    """<vehicle>/c<camera>_<view>.jpg of vehicles that `write_clear` does not have."""
    for vehicle in range(1000, 1000 + vehicles):
        for view in range(views):
            camera = view % CAMERAS
            image = add_patchy_fog(
                draw_vehicle(vehicle, camera, view, seed), np.random.default_rng([seed, vehicle, view])
            )
            path = root / f"{vehicle:05d}" / f"c{camera + 1}_{view}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(image))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--vehicles", type=int, default=48)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_clear(arguments.out / "clear", arguments.vehicles, arguments.views, arguments.seed)
    write_foggy(arguments.out / "foggy", arguments.vehicles, arguments.views, arguments.seed)
