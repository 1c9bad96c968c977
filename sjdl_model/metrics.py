"""Retrieval scores: mAP, CMC and mINP from embeddings, exact, without the query x gallery matrix. NumPy only."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import DataError

SCORES = ("mAP", "CMC@1", "CMC@5", "CMC@10", "mINP")
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
        """The scores that tables print, by the names in SCORES."""
        ranks = (float(self.cmc[min(rank, len(self.cmc)) - 1]) for rank in (1, 5, 10))
        return dict(zip(SCORES, (self.mAP, *ranks, self.mINP), strict=True))


def evaluate(
    query: ArrayLike,
    gallery: ArrayLike,
    query_ids: Sequence[Hashable],
    gallery_ids: Sequence[Hashable],
    query_cameras: Sequence[Hashable] | None = None,
    gallery_cameras: Sequence[Hashable] | None = None,
    ranks: int = 50,
) -> RetrievalScores:
    """Rank the gallery for each query by Euclidean distance and score the ranking.

    query: (Q, D), gallery: (G, D), arrays or tensors.  ids: of each row, integers or other names.  cameras: the same;
    None, nan or a negative number where not known, or None for all.  Gallery rows of the query's vehicle seen by the
    query's camera are left out, where both cameras are known.  Distances are float32, of embeddings moved to the
    gallery's mean.  Ties: a wrong image at the distance of a right one counts as before it, so that the order of the
    gallery changes nothing.  mINP is the mean of (right images) / (rank of the last right one).

    Raises DataError where shapes disagree, an embedding is not finite, or no query has a match.
    """
    query, gallery = _embeddings(query, "query"), _embeddings(gallery, "gallery")
    query_labels, gallery_labels = _numbers(query_ids, gallery_ids)
    query_places, gallery_places = _numbers(
        [None] * len(query) if query_cameras is None else query_cameras,
        [None] * len(gallery) if gallery_cameras is None else gallery_cameras,
    )
    _check(query, gallery, (query_labels, query_places), (gallery_labels, gallery_places))
    query, gallery = _centred(query, gallery)

    order = np.argsort(gallery_labels, kind="stable")
    gallery, gallery_labels, gallery_places = gallery[order], gallery_labels[order], gallery_places[order]
    first = np.searchsorted(gallery_labels, query_labels, side="left")
    last = np.searchsorted(gallery_labels, query_labels, side="right")
    half_squares = np.einsum("gd,gd->g", gallery, gallery) / 2
    precision = np.full(len(query), np.nan)
    inverse_penalty = np.full(len(query), np.nan)
    first_hit = np.zeros(min(ranks, len(gallery)))
    for start in range(0, len(query), BLOCK):
        # half the squared distance less half the query's own square, which changes no order
        block = half_squares - query[start : start + BLOCK] @ gallery.T  # (<= BLOCK, G)
        for q, distance in enumerate(block, start):
            own = distance[first[q] : last[q]].copy()
            junk = (gallery_places[first[q] : last[q]] == query_places[q]) & (query_places[q] >= 0)
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
        protocol=_protocol(query_places, gallery_places, matched),
        average_precision=precision,
    )


def _embeddings(rows: Any, name: str) -> NDArray[np.float64]:
    """(N, D) float64, of an array or a tensor on any device. DataError where it is not that, or not finite."""
    if hasattr(rows, "detach"):
        rows = rows.detach().cpu().double()
    array: NDArray[np.float64] = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2:
        raise DataError(f"the {name} embeddings are {array.shape}: (images, dimensions) needed")
    if not np.isfinite(array).all():
        raise DataError(f"a {name} embedding is not finite")
    return array


def _numbers(query: Iterable[Any], gallery: Iterable[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Names of any kind as integers from 0; None, nan and negative numbers as -1."""
    numbers: dict[Hashable, int] = {}
    both = []
    for names in (query, gallery):
        plain = (name.item() if hasattr(name, "item") else name for name in names)  # of NumPy's and torch's scalars
        known = [
            -1
            if name is None or name != name or (isinstance(name, (int, float)) and name < 0)
            else numbers.setdefault(name, len(numbers))
            for name in plain
        ]
        both.append(np.array(known, dtype=np.int64))
    return both[0], both[1]


def _check(
    query: NDArray[np.float64],
    gallery: NDArray[np.float64],
    query_names: tuple[NDArray[np.int64], ...],
    gallery_names: tuple[NDArray[np.int64], ...],
) -> None:
    if query.shape[1] != gallery.shape[1]:
        raise DataError(f"query {query.shape} and gallery {gallery.shape} must have the same dimensions")
    for rows, names in ((query, query_names), (gallery, gallery_names)):
        if any(len(rows) != len(column) for column in names):
            raise DataError(f"{len(rows)} embeddings need as many ids and cameras, not {[len(c) for c in names]}")


def _centred(query: NDArray[np.float64], gallery: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """Moved to the gallery's mean and scaled to at most 1, so that float32 keeps what tells them apart."""
    scale = max((np.abs(rows).max() for rows in (query, gallery) if rows.size), default=0) or 1.0
    centre = (gallery / scale).mean(axis=0)
    query, gallery = query / scale - centre, gallery / scale - centre
    spread = max((np.linalg.norm(rows, axis=1).max() for rows in (query, gallery) if len(rows)), default=0) or 1.0
    return [np.ascontiguousarray(rows / spread, dtype=np.float32) for rows in (query, gallery)]


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
