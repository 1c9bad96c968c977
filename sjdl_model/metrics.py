"""Retrieval scores: mAP, CMC and mINP from embeddings, exact, without the query x gallery matrix. NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import DataError

BLOCK = 256  # queries whose distances are held at a time


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries that have a match in the gallery; `cmc[r - 1]`: the share with a match in the first r."""

    mAP: float
    cmc: NDArray[np.float64]
    mINP: float
    protocol: str
    average_precision: NDArray[np.float64]  # of each query; nan where it has no match

    def summary(self) -> dict[str, float]:
        ranks = {f"CMC@{rank}": float(self.cmc[min(rank, len(self.cmc)) - 1]) for rank in (1, 5, 10)}
        return {"mAP": self.mAP, **ranks, "mINP": self.mINP}


def evaluate(
    query: ArrayLike,
    gallery: ArrayLike,
    query_ids: Sequence[int] | NDArray[np.integer],
    gallery_ids: Sequence[int] | NDArray[np.integer],
    query_cameras: Sequence[int | None] | NDArray[np.integer] | None = None,
    gallery_cameras: Sequence[int | None] | NDArray[np.integer] | None = None,
    ranks: int = 50,
) -> RetrievalScores:
    """Rank the gallery for each query by Euclidean distance and score the ranking.

    query: (Q, D), gallery: (G, D) float32.  ids: (Q,), (G,) integers.  cameras: integers, None or negative where
    not known, or None for all.  Gallery rows of the query's vehicle seen by the query's camera are left out, where
    both cameras are known.  Ties: a wrong image at the distance of a right one counts as before it, so that the
    order of the gallery changes nothing.  mINP is the mean of (right images) / (rank of the last right one).

    Raises DataError where shapes disagree, an embedding is not finite, or no query has a match.
    """
    query, gallery = (np.ascontiguousarray(a, dtype=np.float32) for a in (query, gallery))
    query_ids, gallery_ids = np.asarray(query_ids), np.asarray(gallery_ids)
    query_cameras, gallery_cameras = (
        _cameras(query_cameras, len(query)),
        _cameras(gallery_cameras, len(gallery)),
    )
    _check(query, gallery, query_ids, gallery_ids)

    order = np.argsort(gallery_ids, kind="stable")
    gallery, gallery_ids, gallery_cameras = gallery[order], gallery_ids[order], gallery_cameras[order]
    first = np.searchsorted(gallery_ids, query_ids, side="left")
    last = np.searchsorted(gallery_ids, query_ids, side="right")
    half_squares = np.einsum("gd,gd->g", gallery, gallery) / 2
    precision = np.full(len(query), np.nan)
    inverse_penalty = np.full(len(query), np.nan)
    first_hit = np.zeros(min(ranks, len(gallery)))
    for start in range(0, len(query), BLOCK):
        # half the squared distance less half the query's own square, which changes no order
        block = half_squares - query[start : start + BLOCK] @ gallery.T  # (<= BLOCK, G)
        for q, distance in enumerate(block, start):
            own = distance[first[q] : last[q]].copy()
            junk = (gallery_cameras[first[q] : last[q]] == query_cameras[q]) & (query_cameras[q] >= 0)
            right = np.sort(own[~junk])
            if not len(right):
                continue
            distance[first[q] : last[q]] = np.inf  # what is left are the wrong ones
            wrong = np.sort(distance[distance <= right[-1]])
            rank = np.arange(1, len(right) + 1) + np.searchsorted(wrong, right, side="right")
            precision[q] = np.mean(np.arange(1, len(right) + 1) / rank)
            inverse_penalty[q] = len(right) / rank[-1]
            first_hit[rank[0] - 1 :] += 1
    matched = int(np.isfinite(precision).sum())
    if not matched:
        raise DataError("no query has a match in the gallery: check the split, and the cameras")
    return RetrievalScores(
        mAP=float(np.nanmean(precision)),
        cmc=first_hit / matched,
        mINP=float(np.nanmean(inverse_penalty)),
        protocol=_protocol(query_cameras, gallery_cameras, matched),
        average_precision=precision,
    )


def _cameras(cameras: Sequence[int | None] | NDArray[np.integer] | None, count: int) -> NDArray[np.int64]:
    if cameras is None:
        return np.full(count, -1, dtype=np.int64)
    return np.array([-1 if camera is None else camera for camera in cameras], dtype=np.int64)


def _check(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    query_ids: NDArray[np.integer],
    gallery_ids: NDArray[np.integer],
) -> None:
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise DataError(f"query {query.shape} and gallery {gallery.shape} must be (Q, D) and (G, D)")
    if len(query) != len(query_ids) or len(gallery) != len(gallery_ids):
        raise DataError("every embedding needs one id")
    for name, embeddings in (("query", query), ("gallery", gallery)):
        if not np.isfinite(embeddings).all():
            raise DataError(f"a {name} embedding is not finite")


def _protocol(query_cameras: NDArray[np.int64], gallery_cameras: NDArray[np.int64], matched: int) -> str:
    known = int((query_cameras >= 0).sum()), int((gallery_cameras >= 0).sum())
    if 0 in known:
        rule = "cameras not known, so nothing is left out of the gallery"
    else:
        rule = "gallery images of the query's vehicle by the query's camera left out"
        if known != (len(query_cameras), len(gallery_cameras)):
            rule += " where both cameras are known"
    return (
        f"Euclidean distance, {matched} of {len(query_cameras)} queries have a match among {len(gallery_cameras)}"
        f" gallery images, {rule}, ties count against"
    )
