"""One network under every condition: images of queries and gallery, thick and thin fog, worth of its defogging."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchmetrics.functional.image as image_metrics
from numpy.typing import NDArray
from torch import Tensor

from fvrid_tools import images
from fvrid_tools.dataset import Dataset, Sample
from fvrid_tools.fog import FogDraw, FogSynthesizer
from fvrid_tools.records import FARTHEST_M

from . import data as images_of
from . import processes
from .data import ImageSet, image_batches
from .evaluate import CONDITIONS, MIXED, Embedder, Result, TestSet, mixed
from .metrics import bootstrap
from .rerank import Rerank

BETAS = (0.0, 0.4, 0.8, 1.2, 1.6, 2.4, 3.2, 5.0)  # the paper's range, and beyond it what its Fig. 4 shows
_LOOKED_AT = 64  # images for the mean transmission
_synthesize = FogSynthesizer()  # of this process


@dataclass(frozen=True)
class InFog:
    """A sample's clear image in fog of a given beta, in the sample's own airlight (Eq. 1)."""

    beta: float  # per unit of d

    def __call__(self, sample: Sample) -> NDArray[np.uint8]:
        """-> (H, W, 3) uint8. Of datasets whose fog is known."""
        clear = images_of.clear(sample)
        if sample.depth is None or not self.beta:
            return clear
        levels = images.levels_of_depth(sample.depth)
        return _synthesize(clear, levels, FogDraw(self.beta, sample.airlight)).copy()  # else the next call's


def conditions_of(data: Dataset, defogs: bool = True) -> list[str]:
    """Those of CONDITIONS that a dataset has images for; "defogged" where the network's FIRM is of use."""
    absent = {"clear": not data.has_clear, "defogged": not defogs}
    return [condition for condition in CONDITIONS if not absent.get(condition)]


def matrix(
    embedder: Embedder, test: TestSet, defogs: bool = True, rerank: Rerank | None = None
) -> tuple[list[Result], dict[str, NDArray[np.float32]]]:
    """Score every condition of the queries against every condition of the gallery, MIXED too where it can be.

    -> results, queries' conditions varying slowest, and by condition the (N, D) embeddings of `test.data`. VehicleID's
    protocol has one condition at a time.
    """
    found = {condition: embedder(test.data, condition) for condition in conditions_of(test.data, defogs)}
    galleries = dict(found)
    if test.data.has_clear and test.protocol != "vehicleid":
        galleries[MIXED] = mixed(test.data, found["foggy"], found["clear"])
    results = [
        test.result(
            test.score(found[one], galleries[other], rerank, embedder.device), one, other, before_bn=embedder.before_bn
        )
        for one in found
        for other in galleries
        if one == other or test.protocol != "vehicleid"
    ]
    return results, found


def visibility_curve(
    embedder: Embedder,
    test: TestSet,
    clear: NDArray[np.float32],
    betas: tuple[float, ...] = BETAS,
    rerank: Rerank | None = None,
) -> list[dict[str, Any]]:
    """Score the test images in fog drawn afresh with each beta, queries and gallery alike; beta 0 is the clear image.

    clear: (N, D) embeddings of the clear images, as `matrix` gives them.
    -> a point a beta: "beta", "visibility_m" (None beyond the farthest that d tells), "transmission" (mean of
    t = exp(-beta d) over the pixels) and the result.
    Of datasets whose fog is known.
    """
    spaced = np.linspace(0, len(test.data) - 1, min(_LOOKED_AT, len(test.data))).round().astype(int)
    depths = [sample.depth for i in spaced if (sample := test.data[int(i)]).depth is not None]
    points = []
    for beta in betas:
        found = embedder(test.data, "foggy", InFog(beta)) if beta else clear
        scores = test.score(found, found, rerank, embedder.device)
        points.append(
            {
                "beta": beta,
                "visibility_m": metres if (metres := visibility(beta)) <= FARTHEST_M else None,
                "transmission": float(np.mean([np.exp(-beta * depth).mean() for depth in depths])),
                **test.result(scores, "foggy", before_bn=embedder.before_bn).to_json(),
            }
        )
    return points


def visibility(beta: float) -> float:
    """Metres at which 5 % of the contrast is left (the meteorological optical range, WMO No. 8), where distance is
    stored as d = log(z / 1 m) / log(81): exp(-beta d) = 1/20. Infinite without fog."""
    exponent = math.log(20) / beta if beta else math.inf
    return math.inf if exponent > 100 else FARTHEST_M**exponent


@torch.inference_mode()
def defogging_quality(
    embedder: Embedder, data: Dataset, defogs: bool = True, truth: Dataset | None = None
) -> dict[str, dict[str, Any]]:
    """PSNR (dB) and SSIM against the clear images, of "foggy" and "defogged" images at the network's size.

    truth: where the clear images are, by image_id, if not in `data`.
    -> {"foggy": {"psnr": mean, "psnr_interval": (low, high), "ssim": ...}, ...}; means of the images' own values.
    """
    mine: dict[str, list[NDArray[np.float64]]] = {}
    for foggy, clear in _pairs(embedder, data, truth or data):
        shown = {"foggy": foggy, **({"defogged": embedder.defog(foggy)} if defogs else {})}
        for name, image in shown.items():
            for measure, values in (("psnr", _psnr(image, clear)), ("ssim", _ssim(image, clear))):
                mine.setdefault(f"{name} {measure}", []).append(values.double().cpu().numpy())
        embedder.progress(len(foggy))
    found: dict[str, dict[str, Any]] = {}
    shares = [share for share in processes.objects(mine) if share]  # of the processes that had images
    for name in shares[0]:
        condition, measure = name.split()
        of_images = np.concatenate([part for share in shares for part in share[name]])
        ((low, high),) = bootstrap(of_images[:, None]).T
        found.setdefault(condition, {}).update(
            {measure: float(of_images.mean()), f"{measure}_interval": (float(low), float(high))}
        )
    return found


def _pairs(embedder: Embedder, data: Dataset, truth: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """(B, 3, S, S) foggy and clear, in [0, 1], of this process's share."""
    embedder.make_ready_for(data)
    data = data.take(data.rows[processes.share(len(data))])
    row_of = {row.image_id: row for row in truth.rows}
    truth = truth.take([row_of[row.image_id] for row in data.rows])
    foggy, clear = (
        image_batches(ImageSet(part, embedder.size, pick), embedder.batch, embedder.workers, embedder.device)
        for part, pick in ((data, images_of.foggy), (truth, images_of.clear))
    )
    yield from zip(foggy, clear, strict=True)


def _psnr(image: Tensor, clear: Tensor) -> Tensor:
    """(B,) dB; at most 100, where the images are the same."""
    return image_metrics.peak_signal_noise_ratio(
        image, clear, data_range=1.0, reduction="none", dim=(1, 2, 3)
    ).clamp_max(100)


def _ssim(image: Tensor, clear: Tensor) -> Tensor:
    """(B,)."""
    found = image_metrics.structural_similarity_index_measure(image, clear, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)
    return found
