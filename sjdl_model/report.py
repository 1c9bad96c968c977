"""A run to look at: report.html, made of what lies in the run's folder, and pictures of defogged test images."""

import json
import math
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
from .tables import read_result

METRICS = "metrics.jsonl"
REPORT = "report.html"
RECIPE = "recipe.toml"
_GAP = 6  # pixels between pictures


@torch.inference_mode()
def write_examples(run: Path, net: SJDL, data: Dataset, size: int, device: torch.device, count: int = 6) -> None:
    """Write examples-<domain>.jpg, a row an image: clear | depth, where these are known, | foggy, | defogged, where the
    network does.

    The images are queries, or any before a split, evenly spaced, each at size x size pixels.
    """
    part = data.select(split="query")
    part = part if len(part) else data
    chosen = part.take([part.rows[int(i)] for i in np.linspace(0, len(part) - 1, min(count, len(part))).round()])
    net.to(device).eval()
    net.use_statistics_of(data.domain)
    rows = []
    for sample, batch in zip(chosen, image_batches(ImageSet(chosen, size, foggy), 1, 0, device), strict=True):
        pictures = [sample.foggy]
        if net.defogs:
            pictures.append(images.to_uint8(net.defog(batch)[0].permute(1, 2, 0).float().cpu().numpy()))
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


def read_text(path: Path) -> str:
    """Of a file of a run; "" where it is not there, as where only the weights are."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def read_results(run: Path) -> dict[str, dict[str, Any]]:
    """Every eval-*.json of a run, by what the star stands for. Raises DataError where one is not a result."""
    return {path.stem.removeprefix("eval-"): read_result(path) for path in sorted(run.glob("eval-*.json"))}


def label(config: str) -> str:
    """What stands for the star of eval-*.json, to read: synthetic-foggy-reranked -> synthetic, foggy-reranked."""
    return config.replace("-", ", ", 1)


def write_report(run: Path) -> None:
    """Write report.html from metrics.jsonl, recipe.toml, eval-*.json and examples-*.jpg, those that there are.

    Raises DataError where a result cannot be read.
    """
    epochs = [json.loads(line) for line in read_text(run / METRICS).splitlines()]
    results = {label(config): result for config, result in read_results(run).items()}
    examples = {
        path.stem.removeprefix("examples-"): page.data_uri(path.read_bytes()) for path in run.glob("examples-*.jpg")
    }
    html = page.render(
        "sjdl_model",
        "report.html.j2",
        title=f"SJDL run: {run.resolve().name}",
        recipe=read_text(run / RECIPE),
        results=results,
        scores=SCORES,
        charts=_charts(epochs) if epochs else [],
        watch_charts=_watch_charts(epochs),
        verdict=epochs[-1].get("verdict") if epochs else None,
        examples=dict(sorted(examples.items(), reverse=True)),
    )
    write_atomic(run / REPORT, html)


def _charts(epochs: list[dict[str, Any]]) -> list[Any]:
    """A chart for each term, both domains in it; then speed and learning rate."""
    charts = [
        _chart(epochs, {domain: f"{domain}/{name}" for domain in ("synthetic", "real")}, name.replace("_", " "))
        for name in _terms(epochs, 1)
    ]
    speed = {"as it was": "images_per_second", "without waiting for the loader": "images_per_second_without_waiting"}
    return [*charts, _chart(epochs, speed, "images per second"), _chart(epochs, {"lr": "lr"}, "learning rate")]


def _watch_charts(epochs: list[dict[str, Any]]) -> list[Any]:
    """Of the watched images: quality of the defogged ones, and how hard each term pulls at the shared stage."""
    charts = [
        _chart(epochs, {"defogged": f"defogging/{name}", "foggy": f"defogging/{name}_foggy"}, title)
        for name, title in (("psnr", "PSNR, dB"), ("correlation", "correlation with the clear images"))
        if any(f"defogging/{name}" in epoch for epoch in epochs)
    ]
    for domain in ("synthetic", "real"):
        names = {name: f"{domain}/gradient/{name}" for name in _terms(epochs, 2, f"{domain}/gradient/")}
        if names:
            sizes = [{key: _log10(value) for key, value in epoch.items() if "/gradient/" in key} for epoch in epochs]
            logged = [{"epoch": epoch["epoch"], **size} for epoch, size in zip(epochs, sizes, strict=True)]
            titles = {name.replace("_", " "): key for name, key in names.items()}
            charts.append(_chart(logged, titles, f"log10 of the gradient at the shared stage, {domain}"))
    return charts


def _terms(epochs: list[dict[str, Any]], slashes: int, prefix: str = "") -> list[str]:
    """The last parts of keys such as "synthetic/triplet"."""
    keys = {key for epoch in epochs for key in epoch if key.count("/") == slashes and key.startswith(prefix)}
    return sorted({key.rpartition("/")[2] for key in keys if not key.startswith("defogging/")})


def _chart(epochs: list[dict[str, Any]], keys: dict[str, str], title: str) -> Any:
    """Lines over the epochs, by name, of the keys that any epoch has."""
    series = {name: [(epoch["epoch"], epoch[key]) for epoch in epochs if key in epoch] for name, key in keys.items()}
    return page.lines({name: points for name, points in series.items() if points}, title)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
