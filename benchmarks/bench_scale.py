"""Scan, build, split, stats and verify of trees of tiny images in VERI-Wild's layout: seconds and memory.

174 cameras and, at full size, 416,314 images of 40,671 vehicles. Each command runs as a user types it, and the largest
of its processes counts. Exit code 1 where one takes 1 GB, or the time of the largest tree is more than 1.3 times the
proportion of the smallest. The depth is constant and the images 16 x 16: this is the work around the images.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from harness import finish, options, scratch

from fvrid_tools import images

SIZES = (40_000, 130_000, 416_314)
VEHICLES, CAMERAS, ALL = 40_671, 174, 416_314
MOST_MEGABYTES, MOST_GROWTH = 1024, 1.3


def write_tree(root: Path, count: int) -> None:
    """`count` images, of as many vehicles as full size has in proportion, with the lists of the later eras."""
    import numpy as np

    vehicles = count * VEHICLES // ALL
    contents = [images.encode(np.full((16, 16, 3), 5 * i, np.uint8)) for i in range(50)]
    lines: dict[str, list[str]] = {"train_list.txt": [], "test_10000.txt": []}
    for vehicle in range(vehicles):
        (root / f"images/{vehicle:05d}").mkdir(parents=True)
    (root / "train_test_split").mkdir()
    for i in range(count):
        vehicle = i % vehicles
        name = f"{vehicle:05d}/{i:06d}.jpg"
        (root / "images" / name).write_bytes(contents[i % 50])
        lines["train_list.txt" if vehicle % 4 else "test_10000.txt"].append(f"{name} 0 {i % CAMERAS + 1}\n")
    for name, several in lines.items():
        (root / "train_test_split" / name).write_text("".join(several))


def measure(*arguments: str) -> dict[str, float]:
    """Seconds of a command and megabytes of its largest process."""
    code = "import sys; from fvrid_tools.cli import cli; cli(sys.argv[1:])"
    program = [sys.executable, "-c", _TIME]
    started = time.perf_counter()
    done = subprocess.run(
        [*program, sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - started
    kilobytes = re.findall(r"kilobytes: (\d+)", done.stderr)[-1]
    return {"seconds": round(seconds, 2), "megabytes": round(int(kilobytes) / 1024, 1)}


_TIME = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"kilobytes: {most}", file=sys.stderr)
sys.exit(code)
"""
SCAN = "build-syn", "--src", "veri-wild", "--depth", "constant"


def of_size(folder: Path, count: int) -> dict[str, dict[str, float]]:
    write_tree(folder / "tree", count)
    out = str(folder / "out")
    build = [*SCAN, "--root", str(folder / "tree"), "--out", out]
    return {
        "build": measure(*build),
        "scan, and find it finished": measure(*build),
        "split": measure("split", out),
        "stats": measure("stats", out),
        "verify": measure("verify", out),
    }


if __name__ == "__main__":
    arguments = options(__doc__, images=False, rounds=None)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for size in SIZES:
        with scratch() as name:
            results[str(size)] = of_size(Path(name), size)
    first, last = results[str(SIZES[0])], results[str(SIZES[-1])]
    growth = {name: last[name]["seconds"] / first[name]["seconds"] / (SIZES[-1] / SIZES[0]) for name in first}
    failures = [
        f"{name} of {size} images takes {figures['megabytes']} MB"
        for size, table in results.items()
        for name, figures in table.items()
        if figures["megabytes"] > MOST_MEGABYTES
    ]
    failures += [
        f"{name} grows {value:.2f} times as fast as the images" for name, value in growth.items() if value > MOST_GROWTH
    ]
    rounded = {name: round(value, 3) for name, value in growth.items()}
    finish(arguments, {"sizes": results, "time_in_proportion_to_the_smallest": rounded}, failures)
