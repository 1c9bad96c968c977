"""Ways to store encoded images in HDF5, by random access to one image; and ways to store a 16-bit depth map."""

import zlib
from pathlib import Path

import cv2
import h5py
import numpy as np
import zstandard
from harness import finish, options, rotate, scratch, source_folder, summary

from fvrid_tools import images
from fvrid_tools.depth.planar import planar_depth
from fvrid_tools.shards import Shard, ShardWriter, pack_depth
from fvrid_tools.sources import read_source


def layouts(contents: list[bytes], folder: Path, rounds: int) -> dict[str, object]:
    """Microseconds to fetch the bytes of one image at random, and bytes an image."""
    paths = {name: folder / f"{name}.h5" for name in ("vlen", "blob")}
    with h5py.File(paths["vlen"], "w") as file:
        data = file.create_dataset("foggy", len(contents), h5py.vlen_dtype(np.uint8))
        for i, content in enumerate(contents):
            data[i] = np.frombuffer(content, np.uint8)
    writer = ShardWriter(paths["blob"], ("foggy",))
    for content in contents:
        writer._blobs["foggy"].append(content)
    writer.write("")
    order = np.random.default_rng(0).permutation(len(contents)).tolist()
    vlen, blob, shard = (
        h5py.File(paths["vlen"]),
        h5py.File(paths["blob"]),
        Shard(paths["blob"]),
    )
    offsets = blob["foggy/offsets"][:]

    def by_vlen() -> None:
        for i in order:
            vlen["foggy"][i].tobytes()

    def by_h5py() -> None:
        for i in order:
            blob["foggy/bytes"][offsets[i] : offsets[i + 1]].tobytes()

    def by_map() -> None:
        for i in order:
            bytes(shard.read("foggy", i))

    seconds = rotate({"vlen arrays": by_vlen, "blob, h5py": by_h5py, "blob, mapped (ours)": by_map}, rounds)
    sizes = {name: round(path.stat().st_size / len(contents), 1) for name, path in paths.items()}
    raw = round(sum(map(len, contents)) / len(contents), 1)
    return {
        "fetch": {name: summary(times, len(contents)) for name, times in seconds.items()},
        "bytes_per_image": {"files": raw, **sizes},
    }


def depth_codecs(depths: list[np.ndarray], rounds: int) -> dict[str, object]:
    compressor = zstandard.ZstdCompressor(level=1)
    codecs = {
        "PNG, 16 bit": lambda depth: cv2.imencode(".png", depth)[1].tobytes(),
        "zlib level 1": lambda depth: zlib.compress(depth, 1),
        "zstd level 1": lambda depth: compressor.compress(depth.tobytes()),
        "differences, zigzag, shuffle, zstd (ours)": lambda depth: pack_depth(depth, compressor),
    }
    seconds = rotate({name: lambda c=codec: [c(depth) for depth in depths] for name, codec in codecs.items()}, rounds)
    return {
        name: {
            **summary(seconds[name], len(depths)),
            "bytes": round(sum(len(codec(depth)) for depth in depths) / len(depths)),
        }
        for name, codec in codecs.items()
    }


def smooth_depth(image: np.ndarray) -> np.ndarray:
    """A stand-in for a learned depth map: the picture's own brightness, blurred."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return np.rint((0.4 + 0.2 * cv2.GaussianBlur(grey, (0, 0), 4)) * 65535).astype(np.uint16)


if __name__ == "__main__":
    arguments = options(__doc__)
    with scratch() as name:
        folder = Path(name)
        records = read_source("veri-wild", source_folder(arguments.images, folder)).records
        pictures = [images.decode(record.path.read_bytes()) for record in records]
        planar = [np.rint(planar_depth(*picture.shape[:2]) * 65535).astype(np.uint16) for picture in pictures]
        finish(
            arguments,
            {
                "images": len(pictures),
                "layout": layouts([images.encode(picture) for picture in pictures], folder, arguments.rounds),
                "planar depth": depth_codecs(planar, arguments.rounds),
                "smooth depth": depth_codecs([smooth_depth(picture) for picture in pictures], arguments.rounds),
            },
        )
