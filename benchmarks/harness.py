"""What every benchmark shares: options, rotation of rivals, medians, and JSON with the machine and versions."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
PHOTOGRAPHS = ROOT.parent / "shared/data/two-camera-vehicles"
PACKAGES = (
    "numpy",
    "h5py",
    "simplejpeg",
    "opencv-python-headless",
    "pillow",
    "zstandard",
    "torch",
    "torchvision",
    "timm",
    "scikit-image",
    "mitsuba",
    "pyoidn",
)


def options(
    description: str,
    *,
    images: bool = True,
    rounds: int | None = 5,
    epochs: int | None = None,
    weights: bool = False,
    start: bool = False,
) -> argparse.Namespace:
    """--out, and what is heeded of --images, --rounds, --epochs with --runs and --in-fog, --weights with --scenes,
    --start."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout has it too")
    if images:
        parser.add_argument("--images", type=Path, default=PHOTOGRAPHS, help="a folder in VERI-Wild's layout")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
    if epochs is not None:
        parser.add_argument("--epochs", type=int, default=epochs, help="of training; 0 leaves it out")
        parser.add_argument("--runs", type=Path, help="keep the training runs here; go on with those that are there")
        parser.add_argument("--in-fog", action="store_true", help="train another network in synthetic fog")
    if weights:
        parser.add_argument("--weights", type=Path, help="of --depth dcnf, instead of the package's")
        parser.add_argument("--scenes", type=Path, help="a folder of fvrid render, instead of FVRID-Mini")
    if start:
        parser.add_argument("--start", type=Path, help="a backbone to begin with (make ablate's start/backbone.pt)")
    return parser.parse_args()


def source_folder(images: Path, scratch: Path) -> Path:
    """`images`, or FVRID-Mini in that layout where it is not there."""
    if images.is_dir():
        return images
    import mini_layouts

    mini_layouts.write_clear(scratch / "mini", vehicles=100, views=8)
    return scratch / "mini"


def rotate(rivals: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each rival: one warm-up each, then `rounds` times in turn."""
    for work in rivals.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, work in rivals.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(seconds: list[float], count: int = 1) -> dict[str, float]:
    """Median and range, per item of `count`, in microseconds."""
    scale = 1e6 / count
    return {
        "median_us": round(statistics.median(seconds) * scale, 2),
        "min_us": round(min(seconds) * scale, 2),
        "max_us": round(max(seconds) * scale, 2),
    }


def ratio(seconds: dict[str, list[float]], top: str, bottom: str) -> float:
    """Median of the ratios within a round, which cancels slow drifts of the machine."""
    return round(statistics.median(a / b for a, b in zip(seconds[top], seconds[bottom], strict=True)), 3)


def finish(arguments: argparse.Namespace, results: dict[str, Any], failures: list[str] | None = None) -> None:
    """Print and write what was measured. Exits with 1 where it falls short of what the project promises."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False)
    cpu = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    report = {
        "commit": commit.stdout.strip(),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(cpu),
        "python": platform.python_version(),
        "versions": _versions(),
        **({"rounds": arguments.rounds} if "rounds" in arguments else {}),
        "results": results,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if failures:
        sys.exit("\n".join(failures))


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of an extra
            found[name] = None
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="fvrid-bench-")
