"""A dataset to look at: one HTML file with counts, histograms of the fog, and pictures."""

import math
from typing import Any

import numpy as np

from . import page, stats
from .dataset import Dataset, Sample
from .fog import transmission
from .progress import Progress, silent

SAMPLED = 1000  # images whose transmission is read for the histogram


def _evenly(count: int, wanted: int) -> list[int]:
    return [int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()]


def dataset_report(data: Dataset, pictures: int = 24, progress: Progress = silent) -> str:
    """The report of a dataset as an HTML document that needs no other file. `progress` counts images read."""
    known = data.fog is not None  # beta and A
    pairs = ["clear", "depth (far is white)"] if data.has_clear else []
    strips = []
    for index in _evenly(len(data), pictures):
        strips.append(_strip(data[index]))
        progress(1)
    return page.render(
        "fvrid_tools",
        "report.html.j2",
        title=f"FVRID dataset: {data.folder.name}",
        info=data.info,
        table=stats.count(data),
        columns=[*pairs, *(["transmission"] if known else []), "foggy"],
        charts=_charts(data, progress) if known else [],
        strips=strips,
    )


def _strip(sample: Sample) -> dict[str, Any]:
    shown, fog = [], ""
    if sample.clear is not None and sample.depth is not None:
        shown = [sample.clear, page.grey(sample.depth)]
    if not math.isnan(sample.beta) and sample.depth is not None:
        t = transmission(sample.depth, sample.beta)
        shown.append(page.grey(t))
        fog = f"β = {sample.beta:.2f}, A = {sample.airlight:.2f}, t = {t.min():.2f} to {t.max():.2f}"
    return {
        "image_id": sample.image_id,
        "vehicle_id": sample.vehicle_id,
        "camera_id": sample.camera_id,
        "split": sample.split,
        "fog": fog,
        "pictures": [page.picture(image) for image in (*shown, sample.foggy)],
    }


def _charts(data: Dataset, progress: Progress) -> list[Any]:
    """Histograms of beta, A and, from up to SAMPLED images, t."""
    beta = np.array([row.beta for row in data.rows])
    airlight = np.array([row.airlight for row in data.rows])
    counts = np.zeros(100, dtype=np.int64)
    for index in _evenly(len(data), SAMPLED):
        sample = data[index]
        if sample.depth is not None:
            counts += np.histogram(transmission(sample.depth, sample.beta), bins=100, range=(0, 1))[0]
        progress(1)
    by_distance = data.fog is not None and data.fog.by_distance
    centres = (np.arange(100) + 0.5) / 100
    share = counts / max(1, counts.sum())
    return [
        page.histogram(beta, f"β, per {'81 m' if by_distance else 'unit of depth'}", 0, max(1, math.ceil(beta.max()))),
        page.histogram(airlight, "A, airlight", 0, 1),
        page.lines({"t": list(zip(centres.tolist(), share.tolist(), strict=True))}, "t, share of pixels"),
    ]
