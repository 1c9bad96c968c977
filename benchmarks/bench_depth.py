"""Crops a second of --depth dcnf at 160 x 160 pixels, and where its time goes.

    crops a second    over as many processes as cores, by refinement
    milliseconds      of one crop in one process with one thread, stage by stage
    fog over depth    the time of fog and its JPEG as a share of depth's

The limit is the network alone: multiplications over the rate of a matrix product of the same machine.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import finish, options, rotate, scratch, source_folder, summary

from fvrid_tools import images, pictures, pool
from fvrid_tools.depth import REFINEMENTS, DepthEstimator, Refinement
from fvrid_tools.depth.constant import Constant
from fvrid_tools.depth.dcnf import estimator as dcnf
from fvrid_tools.depth.dcnf.similarities import similarities
from fvrid_tools.depth.dcnf.superpixels import Superpixels
from fvrid_tools.fog import FogDraw, FogSynthesizer
from fvrid_tools.progress import Progress
from fvrid_tools.records import ImageRecord
from fvrid_tools.sources import read_source

SIZE = 160
NO_RECORD = ImageRecord("crop", "folder", "crop", "", None, None, Path())


@dataclass(frozen=True)
class Crops:
    """Some crops for a process; -> seconds from its first to its last."""

    crops: list[images.Uint8Image]
    estimator: DepthEstimator

    def make(self, progress: Progress) -> tuple[float, float]:
        self.estimator.predict(self.crops[0], NO_RECORD)  # starts everything
        started = time.time()
        for crop in self.crops:
            self.estimator.predict(crop, NO_RECORD)
        return started, time.time()

    def write(self, made: tuple[float, float]) -> tuple[float, float]:
        return made


def crops_a_second(crops: list[images.Uint8Image], estimator: DepthEstimator) -> float:
    workers = os.cpu_count() or 1
    shares = [crops[i::workers] for i in range(workers)]
    spans = pool.run([Crops(share, estimator) for share in shares], workers, lambda count: None)
    return round(len(crops) / (max(end for _, end in spans) - min(start for start, _ in spans)), 1)


def stages(crops: list[images.Uint8Image], rounds: int) -> dict[str, Any]:
    """Milliseconds a crop of each stage, medians over rounds."""
    torch.set_num_threads(1)
    net = dcnf.read_network(dcnf.WEIGHTS)
    scenes = torch.from_numpy(np.stack([images.stretch(image, dcnf.SIDE) for image in crops]))
    scenes = scenes.permute(0, 3, 1, 2).float() / 255
    nodes = [Superpixels.of(image, dcnf.region_of(image)) for image in crops]
    with torch.inference_mode():
        maps = dcnf.both_ways(net, scenes)

        def solve() -> None:
            for image, one, both in zip(crops, nodes, maps, strict=True):
                dcnf.most_probable(image, one, dcnf.unary(net, both, one), net.betas)

        d = [np.full(one.count, 0.5) for one in nodes]

        def refined(how: Refinement) -> Callable[[], None]:
            def work() -> None:
                for image, one, depth in zip(crops, nodes, d, strict=True):
                    dcnf.to_pixels(image, image, one, depth, how)

            return work

        fog, levels = FogSynthesizer(), np.full((SIZE, SIZE), 30000, np.uint16)
        seconds = rotate(
            {
                "network": lambda: [dcnf.both_ways(net, scene[None]) for scene in scenes],
                "superpixels": lambda: [Superpixels.of(image, dcnf.region_of(image)) for image in crops],
                "similarities": lambda: [similarities(i, n) for i, n in zip(crops, nodes, strict=True)],
                "similarities, pooling, head and field": solve,
                **{f"refine {how}": refined(how) for how in REFINEMENTS},
                "fog and its JPEG": lambda: [images.encode(fog(i, levels, FogDraw(1.0, 0.8))) for i in crops],
            },
            rounds,
        )
    milliseconds = {name: round(summary(found, len(crops))["median_us"] / 1000, 2) for name, found in seconds.items()}
    whole = sum(
        milliseconds[name]
        for name in ("network", "superpixels", "similarities, pooling, head and field", "refine guided")
    )
    product = _product_rate(rounds)
    multiplications = 2 * _multiplications(net, scenes[:1])  # as it is, and mirrored
    return {
        "milliseconds": milliseconds,
        "guided, a crop": round(whole, 2),
        "fog over depth": round(milliseconds["fog and its JPEG"] / whole, 3),
        "network, GFLOP": round(2 * multiplications / 1e9, 3),
        "matrix product, GFLOP/s": round(product / 1e9, 1),
        "limit of the network, ms": round(2e3 * multiplications / product, 2),
    }


def _product_rate(rounds: int) -> float:
    """FLOP a second of a matrix product, one thread."""
    a = torch.rand(1024, 1024)
    seconds = rotate({"product": lambda: a @ a}, max(3, rounds))["product"]
    return 2 * 1024**3 / float(np.median(seconds))


def _multiplications(net: torch.nn.Module, scene: torch.Tensor) -> int:
    total = 0

    def count(module: torch.nn.Module, _: Any, made: torch.Tensor) -> None:
        nonlocal total
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        total += made.numel() * math.prod(weight.shape[1:])

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    net.trunk(scene)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return total


def main() -> None:
    arguments = options(__doc__, rounds=3)
    with scratch() as folder:
        root = source_folder(arguments.images, Path(folder))
        records: list[ImageRecord] = read_source("veri-wild", root).records[:320]
        crops = [images.stretch(images.decode(pictures.read_image(record)), SIZE) for record in records]
    rates = {how: crops_a_second(crops, dcnf.DCNF(refine=how)) for how in REFINEMENTS}
    results = {
        "crops a second": rates | {"constant": crops_a_second(crops, Constant())},
        **stages(crops[:64], arguments.rounds),
    }
    missed = [
        f"{how}: {rates[how]} crops a second are fewer than {wanted} on 2 cores"
        for how, wanted in (("guided", 12), ("levin", 4))
        if rates[how] < wanted  # type: ignore[index]
    ]
    finish(arguments, results, missed)


if __name__ == "__main__":
    main()
