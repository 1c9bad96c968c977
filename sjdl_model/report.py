"""A run to look at: report.html, made of what lies in the run's folder, and pictures of defogged test images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fvrid_tools import images, page
from fvrid_tools.dataset import Dataset
from fvrid_tools.files import write_atomic
from fvrid_tools.images import Uint8Image

from .data import ImageSet, foggy, image_batches
from .metrics import SCORES
from .network import SJDL

METRICS = "metrics.jsonl"
REPORT = "report.html"
RECIPE = "recipe.toml"
_GAP = 6  # pixels between pictures


def result_path(run: Path, domain: str, condition: str, queries: str = "one") -> Path:
    return run / f"eval-{domain}-{condition}{'-all-queries' if queries == 'all' else ''}.json"


@torch.inference_mode()
def write_examples(run: Path, net: SJDL, data: Dataset, size: int, device: torch.device, count: int = 6) -> None:
    """Write examples-<domain>.jpg: clear | depth | foggy | defogged (real: foggy | defogged), a row an image.

    The images are queries, or any before a split, evenly spaced, each at size x size pixels.
    """
    part = data.select(split="query")
    part = part if len(part) else data
    chosen = part.take([part.rows[int(i)] for i in np.linspace(0, len(part) - 1, min(count, len(part))).round()])
    net.eval()
    rows = []
    for sample, batch in zip(chosen, image_batches(ImageSet(chosen, size, foggy), 1, 0, device), strict=True):
        defogged = net.defog(batch)[0].permute(1, 2, 0).float().cpu().numpy()
        pictures = [sample.foggy, images.to_uint8(defogged)]
        if sample.clear is not None and sample.depth is not None:
            pictures = [sample.clear, page.grey(sample.depth), *pictures]
        rows.append(_join([images.stretch(picture, size) for picture in pictures], axis=1))
    write_atomic(run / f"examples-{data.info['domain']}.jpg", images.encode(_join(rows, axis=0)))


def _join(parts: list[Uint8Image], axis: int) -> Uint8Image:
    """Side by side (axis 1) or one below the other, with white between."""
    shape = list(parts[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, np.uint8)
    spaced = [piece for part in parts for piece in (gap, part)][1:]
    return np.ascontiguousarray(np.concatenate(spaced, axis=axis))


def write_report(run: Path) -> None:
    """Write report.html from metrics.jsonl, recipe.toml, eval-*.json and examples-*.jpg."""
    metrics = [json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines()]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("eval-*.json"))]
    examples = {
        path.stem.removeprefix("examples-"): page.data_uri(path.read_bytes()) for path in run.glob("examples-*.jpg")
    }
    html = page.render(
        "sjdl_model",
        "report.html.j2",
        title=f"SJDL run: {run.resolve().name}",
        recipe=(run / RECIPE).read_text(encoding="utf-8"),
        results=results,
        scores=SCORES,
        charts=_charts(metrics),
        examples=dict(sorted(examples.items(), reverse=True)),
    )
    write_atomic(run / REPORT, html)


def _charts(metrics: list[dict[str, float]]) -> list[Any]:
    """A chart for each term, both domains in it, and one for the learning rate."""
    names = sorted({key.partition("/")[2] for epoch in metrics for key in epoch if "/" in key})
    charts = []
    for name in names:
        series = {
            domain: [(epoch["epoch"], epoch[f"{domain}/{name}"]) for epoch in metrics if f"{domain}/{name}" in epoch]
            for domain in ("synthetic", "real")
        }
        charts.append(page.lines({domain: data for domain, data in series.items() if data}, name.replace("_", " ")))
    if metrics:
        charts.append(page.lines({"lr": [(epoch["epoch"], epoch["lr"]) for epoch in metrics]}, "learning rate"))
    return charts
