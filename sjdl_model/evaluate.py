"""Embed the query and gallery images of a dataset and score the ranking."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fvrid_tools.dataset import Dataset
from fvrid_tools.records import Row

from . import data as images_of
from . import processes
from .config import DataError
from .data import ImageSet, image_batches
from .metrics import RetrievalScores, evaluate
from .network import SJDL

BATCH = 64

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores with everything one must know to compare them."""

    scores: dict[str, float]
    domain: str
    images: str  # "foggy", "clear" or "defogged"
    feature: str
    queries: int
    gallery: int
    protocol: str
    data_sha256: str  # of the manifest

    def to_json(self) -> dict[str, Any]:
        """The scores by name, and the rest."""
        facts = asdict(self)
        return {**facts.pop("scores"), **facts}


@torch.inference_mode()
def embed(
    net: SJDL,
    batches: Iterable[Tensor],
    *,
    defog: bool = False,
    before_bn: bool = False,
    progress: Progress = lambda count: None,
) -> NDArray[np.float32]:
    """(N, D) float32 embeddings; with `defog` of the images that the network's FIRM makes of them."""
    net.eval()
    parts = []
    for images in batches:
        parts.append(net.embed(net.defog(images) if defog else images, before_bn).float().cpu().numpy())
        progress(len(images))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def evaluate_dataset(
    net: SJDL,
    dataset: Dataset,
    size: int,
    *,
    images: str = "foggy",
    queries: str = "one",
    before_bn: bool = False,
    workers: int = 0,
    device: torch.device | None = None,
    progress: Progress = lambda count: None,
) -> tuple[Result, RetrievalScores]:
    """Score the "query" and "gallery" splits of a dataset at size x size pixels.

    images: "foggy", "clear" (synthetic domain, and pairs) or "defogged".  queries: "one" a vehicle, the paper's
    protocol, or "all": every test image in turn against all others.  `progress` counts images. The processes of
    torchrun embed a share each, and all of them return the scores.
    Raises DataError where a split is empty, or no query has a match.
    """
    if images == "clear" and dataset.info["domain"] == "real" and not dataset.info.get("pairs"):
        raise DataError(f"{dataset.folder} is real and has no clear images; name another --data or --images.")
    device = device or torch.device("cpu")
    parts = {split: dataset.select(split=split) for split in ("query", "gallery")}
    for split, part in parts.items():
        if not len(part):
            raise DataError(f"{dataset.folder} has no {split} images; run fvrid split {dataset.folder} first.")
    pick = images_of.clear if images == "clear" else images_of.foggy
    embeddings = {}
    for split, part in parts.items():
        mine = part.take(part.rows[processes.share(len(part))])
        batches = image_batches(ImageSet(mine, size, pick), BATCH, workers, device)
        found = embed(net.to(device), batches, defog=images == "defogged", before_bn=before_bn, progress=progress)
        embeddings[split] = np.concatenate([share for share in processes.objects(found) if len(share)])
    rows = {split: list(part.rows) for split, part in parts.items()}
    chosen = f"one random {images} image of each test vehicle is the query, the rest gallery"
    if queries == "all":
        both = np.concatenate([embeddings["query"], embeddings["gallery"]])
        both_rows = rows["query"] + rows["gallery"]
        rows = dict.fromkeys(rows, both_rows)
        embeddings = dict.fromkeys(embeddings, both)
        chosen = f"every {images} test image is a query against all others"
        if any(row.camera_id is None for row in both_rows):
            chosen += ", an image without a known camera counting as a camera of its own"
    cameras: dict[str, list[Hashable]] = {split: [_camera(row) for row in part] for split, part in rows.items()}
    if queries == "all":  # an image is not to be found by itself: where its camera is not known, it is its own
        cameras = {
            split: [camera or row.image_id for camera, row in zip(cameras[split], rows[split], strict=True)]
            for split in rows
        }
    scores = evaluate(
        embeddings["query"],
        embeddings["gallery"],
        [row.identity for row in rows["query"]],
        [row.identity for row in rows["gallery"]],
        cameras["query"],
        cameras["gallery"],
    )
    result = Result(
        scores=scores.summary(),
        domain=dataset.info["domain"],
        images=images,
        feature="before BN" if before_bn else "after BN",
        queries=len(rows["query"]),
        gallery=len(rows["gallery"]),
        protocol=f"{chosen}; {scores.protocol}",
        data_sha256=dataset.info["manifest_sha256"],
    )
    return result, scores


def _camera(row: Row) -> tuple[str, str] | None:
    """What is the same for two images of one camera; None where it is not known."""
    return None if row.camera_id is None else (row.source, row.camera_id)
