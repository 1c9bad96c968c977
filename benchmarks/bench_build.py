"""build-syn with planar depth, one process, against only decoding and encoding what the dataset stores.

The limit: read a source file, decode it, encode the foggy image, pack the 16-bit depth; nothing else. Two sizes:
the images as they are, and the same enlarged to 384 x 384. Each is taken REPEAT times, for several shards.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import zstandard
from harness import finish, options, ratio, rotate, scratch, source_folder, summary

from fvrid_tools import build, images
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import ImageRecord, Listing
from fvrid_tools.shards import pack_depth
from fvrid_tools.sources import read_source


def enlarged(listing: Listing, folder: Path, size: int) -> Listing:
    records = []
    for record in listing.records:
        path = folder / record.source_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode(images.stretch(images.decode(record.path.read_bytes()), size)))
        records.append(replace(record, root=folder))
    return replace(listing, records=records)


REPEAT = 4


def repeated(listing: Listing) -> Listing:
    records = [replace(r, image_id=f"{r.image_id}-{copy}") for copy in range(REPEAT) for r in listing.records]
    return replace(listing, records=records)


def compare(listing: Listing, out: Path, rounds: int) -> dict[str, object]:
    recipe = build.Recipe(depth=open_estimator("planar"), fog=PRESETS["paper"])
    assert recipe.depth is not None
    records = listing.records
    depths = [_levels(record, recipe) for record in records]
    buffer = np.empty(3 * max(depth.size for depth in depths), np.uint8)
    compressor = zstandard.ZstdCompressor(level=1)

    def whole() -> None:
        shutil.rmtree(out, ignore_errors=True)
        build.build([listing], out, recipe)

    def codecs() -> None:
        for record, depth in zip(records, depths, strict=True):
            image = images.decode(record.path.read_bytes(), buffer)
            images.encode(image)
            pack_depth(depth, compressor)

    seconds = rotate({"build": whole, "codecs only": codecs}, rounds)
    return {
        "images": len(records),
        "mean_pixels": round(np.mean([depth.size for depth in depths])),
        "per_image": {name: summary(times, len(records)) for name, times in seconds.items()},
        "share_of_limit": ratio(seconds, "codecs only", "build"),
    }


def _levels(record: ImageRecord, recipe: build.Recipe) -> np.ndarray:
    assert recipe.depth is not None
    depth = recipe.depth.predict(images.decode(record.path.read_bytes()), record)
    return np.rint(depth * 65535).astype(np.uint16)


if __name__ == "__main__":
    arguments = options(__doc__)
    with scratch() as name:
        folder = Path(name)
        native = read_source("veri-wild", source_folder(arguments.images, folder))
        large = enlarged(native, folder / "large", 384)
        finish(
            arguments,
            {
                "native": compare(repeated(native), folder / "out", arguments.rounds),
                "384x384": compare(repeated(large), folder / "out", arguments.rounds),
            },
        )
