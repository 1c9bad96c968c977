"""build-syn with given depth pictures on both cores, against what the same cores do when they only decode and encode.

The limit: read and decode the image and its depth picture, encode the foggy image, pack the 16-bit depth; in the same
processes and portions, nothing written. The rival: the original's script as one would port it, an image at a time in
double precision (read, convert, bicubic resize of the depth, exp, blend, write). Exit code 1 where a build is below
0.85 of the limit, below 5 times the rival (of as many processes), or two processes are below 1.8 times one.
"""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import zstandard
from bench_build import enlarged
from harness import finish, options, ratio, rotate, scratch, source_folder, summary
from PIL import Image

from fvrid_tools import build, images, pool
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import ImageRecord, Listing
from fvrid_tools.shards import pack_depth
from fvrid_tools.sources import read_source

IMAGES = {"native": 24 * 512, "384x384": 16 * 512}
LEAST_OF_LIMIT, LEAST_OF_NAIVE, LEAST_OF_ONE = 0.85, 5.0, 1.8


def depth_of(record: ImageRecord, folder: Path) -> Path:
    return folder / record.source_path.removeprefix("images/").replace(".jpg", ".png")


@dataclass(frozen=True)
class Codecs:
    """The limit of a portion of images."""

    records: list[ImageRecord]
    depths: Path

    def make(self, progress: Callable[[int], None]) -> None:
        compressor = zstandard.ZstdCompressor(level=1)
        buffer = np.empty(3 * 512 * 512, np.uint8)
        for record in self.records:
            image = images.decode(record.path.read_bytes(), buffer)
            depth = images.decode_depth(depth_of(record, self.depths).read_bytes())
            images.encode(image)
            pack_depth((depth * np.float32(65535)).astype(np.uint16), compressor)
            progress(1)

    def write(self, made: None) -> None:
        pass


@dataclass(frozen=True)
class Naive(Codecs):
    """The port of the original's script."""

    out: Path = Path()

    def make(self, progress: Callable[[int], None]) -> None:
        fog = PRESETS["paper"]
        for record in self.records:
            clear = np.asarray(Image.open(record.path).convert("RGB")).astype(np.float64) / 255
            picture = Image.open(depth_of(record, self.depths)).convert("F")
            depth = np.asarray(picture.resize(clear.shape[1::-1], Image.Resampling.BICUBIC)).astype(np.float64) / 255
            beta, airlight = fog.draw(0, record.image_id)
            t = np.exp(-beta * depth)[:, :, None].repeat(3, axis=2)
            foggy = clear * t + airlight * (1 - t)
            file = io.BytesIO()
            Image.fromarray((foggy * 255).round().clip(0, 255).astype(np.uint8)).save(
                file, "JPEG", quality=95, subsampling=0
            )
            (self.out / (record.image_id.replace("/", "_") + ".jpg")).write_bytes(file.getvalue())
            progress(1)


def repeated(listing: Listing, count: int) -> Listing:
    records = listing.records
    more = [
        replace(records[i % len(records)], image_id=f"{records[i % len(records)].image_id}-{i:05d}")
        for i in range(count)
    ]
    return replace(listing, records=more)


def compare(listing: Listing, folder: Path, rounds: int) -> dict[str, object]:
    depths, out, naive = folder / "depths", folder / "out", folder / "naive"
    planar = open_estimator("planar")
    for record in {record.source_path: record for record in listing.records}.values():
        depth = planar.predict(images.decode(record.path.read_bytes()), record)
        path = depth_of(record, depths)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_depth(np.rint(255 * depth).astype(np.uint8)))
    naive.mkdir(parents=True)
    recipe = build.Recipe(depth=open_estimator(f"files:{depths}", polarity="far-white"), fog=PRESETS["paper"])
    parts = [listing.records[i : i + 512] for i in range(0, len(listing.records), 512)]

    def built(workers: int) -> None:
        shutil.rmtree(out, ignore_errors=True)
        build.build([listing], out, recipe, workers)

    def limit(workers: int) -> None:
        pool.run([Codecs(part, depths) for part in parts], workers, lambda count: None)

    def ported(workers: int) -> None:
        pool.run([Naive(part, depths, naive) for part in parts], workers, lambda count: None)

    rivals: dict[str, Callable[[], object]] = {
        "build, 2 processes": lambda: built(2),
        "codecs only, 2 processes": lambda: limit(2),
        "double-precision port, 2 processes": lambda: ported(2),
        "build, 1 process": lambda: built(1),
        "codecs only, 1 process": lambda: limit(1),
    }
    seconds = rotate(rivals, rounds)
    shutil.rmtree(folder)
    return {
        "images": len(listing.records),
        "per_image": {name: summary(times, len(listing.records)) for name, times in seconds.items()},
        "share_of_limit": ratio(seconds, "codecs only, 2 processes", "build, 2 processes"),
        "times_the_port": ratio(seconds, "double-precision port, 2 processes", "build, 2 processes"),
        "two_over_one": ratio(seconds, "build, 1 process", "build, 2 processes"),
        "limit_times_the_port": ratio(seconds, "double-precision port, 2 processes", "codecs only, 2 processes"),
        "limit_two_over_one": ratio(seconds, "codecs only, 1 process", "codecs only, 2 processes"),
    }


if __name__ == "__main__":
    arguments = options(__doc__, rounds=3)
    with scratch() as name:
        folder = Path(name)
        native = read_source("veri-wild", source_folder(arguments.images, folder))
        large = enlarged(native, folder / "large", 384)
        results = {
            size: compare(repeated(listing, IMAGES[size]), folder / "work" / size, arguments.rounds)
            for size, listing in (("native", native), ("384x384", large))
        }
    asked = {"share_of_limit": LEAST_OF_LIMIT, "times_the_port": LEAST_OF_NAIVE, "two_over_one": LEAST_OF_ONE}
    failures = [
        f"{size}: {name} is {figures[name]}, below {least}"
        for size, figures in results.items()
        for name, least in asked.items()
        if figures[name] < least  # type: ignore[operator]
    ]
    finish(arguments, results, failures)
