"""Random access to foggy/clear pairs: our shards against the same files in a folder read with Pillow.

Pairs come out as uint8 from the shards, with one thread and with one a core. From the folder: as uint8 arrays, and
as the float tensors that the released loader makes of them. The limit is decoding the same bytes from memory. The
bytes on disk are compared with the sum of the image files; depth, which the folder lacks, is counted in.
"""

import os
from pathlib import Path

import numpy as np
import simplejpeg
from bench_build import enlarged
from harness import finish, options, ratio, rotate, scratch, source_folder, summary
from PIL import Image
from torchvision.transforms import functional as F

import fvrid_tools
from fvrid_tools import build
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import Listing
from fvrid_tools.sources import read_source


def compare(listing: Listing, out: Path, rounds: int) -> dict[str, object]:
    build.build([listing], out / "shards", build.Recipe(depth=open_estimator("planar"), fog=PRESETS["paper"]))
    data = fvrid_tools.open_dataset(out / "shards")
    files = []
    for number, sample in enumerate(data):
        pair = tuple(out / kind / f"{number:06d}.jpg" for kind in ("foggy", "clear"))
        for path in pair:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(sample.encoded(path.parent.name))
        files.append(pair)
    memory = [tuple(path.read_bytes() for path in pair) for pair in files]
    order = np.random.default_rng(0).permutation(len(files)).tolist()

    def pillow() -> None:
        for i in order:
            for path in files[i]:
                np.array(Image.open(path).convert("RGB"))

    def pillow_tensors() -> None:
        for i in order:
            for path in files[i]:
                F.to_tensor(Image.open(path).convert("RGB"))

    def shards(threads: int) -> None:
        for _ in data.read_pairs(order, threads):
            pass

    def decoder() -> None:
        for i in order:
            for content in memory[i]:
                simplejpeg.decode_jpeg(content)

    threads = os.cpu_count() or 1
    seconds = rotate(
        {
            "folder, Pillow, uint8": pillow,
            "folder, Pillow, float tensors": pillow_tensors,
            "shards, 1 thread": lambda: shards(1),
            f"shards, {threads} threads": lambda: shards(threads),
            "decoder alone (limit of 1 thread)": decoder,
        },
        rounds,
    )
    ours = ("shards, 1 thread", f"shards, {threads} threads")
    stored = sum(path.stat().st_size for path in (out / "shards").iterdir() if path.suffix == ".h5")
    images = sum(len(content) for pair in memory for content in pair)
    return {
        "pairs": len(files),
        "per_pair": {name: summary(times, len(files)) for name, times in seconds.items()},
        "times_pillow_uint8": {name: ratio(seconds, "folder, Pillow, uint8", name) for name in ours},
        "times_pillow_tensors": {name: ratio(seconds, "folder, Pillow, float tensors", name) for name in ours},
        "share_of_limit_1_thread": ratio(seconds, "decoder alone (limit of 1 thread)", "shards, 1 thread"),
        "shard_bytes_over_image_bytes": round(stored / images, 4),
    }


if __name__ == "__main__":
    arguments = options(__doc__)
    with scratch() as name:
        folder = Path(name)
        native = read_source("veri-wild", source_folder(arguments.images, folder))
        for size in ("native", "384"):
            (folder / size).mkdir()
        finish(
            arguments,
            {
                "native": compare(native, folder / "native", arguments.rounds),
                "384x384": compare(enlarged(native, folder / "large", 384), folder / "384", arguments.rounds),
            },
        )
