"""Training as it is run, on FVRID-Mini: images a second, beside what loader and network could do by themselves.

    training    `sjdl train`'s own loop: loaders, synthetic and real batch, all losses, update
    network     the same steps on one pair of batches that is there already: what is lost to the loader shows
    loader      the same batches, made and thrown away
    matmul      a large matrix product in the same precision: the rate that a FLOP can have on this machine

The default is what two CPU cores do in minutes. On a GPU, the published size:

    bench_training.py --recipe default --set precision=bfloat16 --steps 60

Model FLOP utilisation is three forward passes' FLOPs (2 a multiply-add, torch's counter), synthetic and real image,
over the time and the matrix product's rate; above 1 where the CPU's convolutions are faster than its products. `costs`
are the operators that take most time, by torch's profiler.
"""

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path

import torch
from harness import finish, scratch
from torch.utils.flop_counter import FlopCounterMode

from fvrid_tools import open_dataset
from fvrid_tools.build import Recipe as BuildRecipe
from fvrid_tools.build import build
from fvrid_tools.dataset import Dataset
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.sources import read_source
from fvrid_tools.split import write_split
from sjdl_model.config import Recipe, read_recipe
from sjdl_model.devices import pick_device, set_precision
from sjdl_model.domains import Domains
from sjdl_model.engine import EpochLog, Step, Trainer, train_steps

WARM_UP = 3  # steps
PUBLISHED_IMAGES, PUBLISHED_EPOCHS, PUBLISHED_SIZE = 42_558, 120, 384


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout has it too")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=30)
    return parser.parse_args()


def datasets(folder: Path) -> tuple[Dataset, Dataset]:
    recipes = {"clear": BuildRecipe(depth=open_estimator("source"), fog=PRESETS["paper"]), "real": BuildRecipe()}
    for part, recipe in recipes.items():
        build([read_source("mini", part=part)], folder / part, recipe, workers=os.cpu_count() or 1)
        write_split(folder / part, seed=0)
    return open_dataset(folder / "clear"), open_dataset(folder / "real")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images_per_second(
    work: Callable[[Iterator[Step]], object], steps: Iterable[Step], images: int, device: torch.device
) -> float:
    """Of `work`, which is to use up the steps; the first few are not counted."""
    marks = []

    def marked() -> Iterator[Step]:
        for step in steps:
            if len(marks) == WARM_UP:
                wait(device)
            marks.append(time.perf_counter())
            yield step

    work(marked())
    wait(device)
    return (len(marks) - WARM_UP) * images / (time.perf_counter() - marks[WARM_UP])


def matmul_rate(device: torch.device, recipe: Recipe) -> float:
    """FLOP a second."""
    side = 8192 if device.type == "cuda" else 2048
    kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.precision, torch.float32)
    a, b = (torch.rand(side, side, device=device).to(kind) for _ in range(2))
    rates = []
    for _ in range(6):
        wait(device)
        started = time.perf_counter()
        a @ b
        wait(device)
        rates.append(2 * side**3 / (time.perf_counter() - started))
    return max(rates)


def forward_flops(net: torch.nn.Module, size: int, device: torch.device) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.eval()(torch.zeros(1, 3, size, size, device=device))
    return float(counter.get_total_flops())


def costs(trainer: Trainer, pair: Step, device: torch.device) -> dict[str, float]:
    """The operators that take most time, in percent of all."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for step in range(3):
            trainer.step(step, pair)
        wait(device)
    times = {
        event.key: event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        for event in profile.key_averages()
        if event.device_type == torch.autograd.DeviceType.CPU  # operators; a GPU's kernels have rows of their own
    }
    whole = sum(times.values())
    return {name: round(100 * times[name] / whole, 1) for name in sorted(times, key=times.get, reverse=True)[:8]}


def main() -> None:
    options = arguments()
    recipe = read_recipe(options.recipe, ["pretrained=false", *options.changes])
    device = pick_device(recipe.device)
    set_precision(recipe.precision, device)
    with scratch() as folder:
        domains = Domains(*datasets(Path(folder)), recipe)
        net = domains.architecture.build().to(device).to(memory_format=torch.channels_last)
        flops = forward_flops(net, recipe.image_size, device)
        trainer = Trainer(net, recipe, options.steps, device)
        if recipe.compile:
            net.backbone.compile()
            net.firm.compile()
        pair = next(domains.steps(0, 1, device))
        images = sum(len(batch.label) for batch in pair if batch is not None)

        def train(steps: Iterator[Step]) -> None:
            """As `sjdl train` does it, values of the losses read and all."""
            never = train_steps(trainer, steps, 0, EpochLog(), due=lambda done: False, show=lambda terms: None)
            deque(never, maxlen=0)

        def load(steps: Iterator[Step]) -> None:
            deque(steps, maxlen=0)

        rates = {
            "training": images_per_second(train, domains.steps(0, options.steps, device), images, device),
            "network": images_per_second(train, repeat(pair, options.steps), images, device),
            "loader": images_per_second(load, domains.steps(0, options.steps, device), images, device),
        }
        peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        matmul = matmul_rate(device, recipe)
        hours = round(PUBLISHED_EPOCHS * PUBLISHED_IMAGES * 2 / rates["training"] / 3600, 2)
        results = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "recipe": {name: getattr(recipe, name) for name in ("backbone", "image_size", "p", "k", "precision")},
            "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "forward_gflop_an_image": round(flops / 1e9, 2),
            "matmul_tflop_per_second": round(matmul / 1e12, 3),
            "model_flop_utilisation": round(rates["training"] * 3 * flops / matmul, 3),
            "peak_memory_gib": peak and round(peak, 2),
            "hours_of_the_published_run": hours if recipe.image_size == PUBLISHED_SIZE else None,
            "costs_percent": costs(trainer, pair, device),
        }
    finish(argparse.Namespace(out=options.out), results)


if __name__ == "__main__":
    sys.exit(main())
