"""Retrieval scores: mAP, CMC and mINP from embeddings, exact, without the query x gallery matrix."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import DataError
from .distances import Euclidean, embeddings, multiplier
from .rerank import KReciprocal, Rerank

SCORES = ("mAP", "CMC@1", "CMC@5", "CMC@10", "mINP")
RESAMPLES = 1000  # of the bootstrap
FOLDS = 10  # of VehicleID's protocol


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries that have a match in the gallery; `cmc[r - 1]`: the share with a match in the first r."""

    mAP: float
    cmc: NDArray[np.float64]
    mINP: float
    protocol: str
    average_precision: NDArray[np.float64]  # of each query; nan where it has no match
    inverse_penalty: NDArray[np.float64]  # the same: right images / rank of the last right one
    first_match: NDArray[np.int64]  # rank of the first right image of each query, 0 where it has none
    query: NDArray[np.int64]  # which query each of them is of: more than one where folds repeat them

    @property
    def unmatched(self) -> int:
        """Queries without a match, which no mean counts."""
        return int((self.first_match == 0).sum())

    def summary(self) -> dict[str, float]:
        """The scores that tables print, by the names in SCORES."""
        ranks = (float(self.cmc[min(rank, len(self.cmc)) - 1]) for rank in (1, 5, 10))
        return dict(zip(SCORES, (self.mAP, *ranks, self.mINP), strict=True))

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % intervals of `summary`, by name: percentiles over RESAMPLES draws of the matched queries with
        replacement (Efron's bootstrap)."""
        matched = self.first_match > 0
        hits = (self.first_match[:, None] <= np.array([1, 5, 10])).astype(float)
        values = np.column_stack([self.average_precision, hits, self.inverse_penalty])[matched]
        of = np.unique(self.query[matched], return_inverse=True)[1]
        sums = np.column_stack([np.bincount(of, column) for column in values.T])  # (queries, scores)
        counts = np.bincount(of)
        low, high = bootstrap(sums, counts, seed)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(SCORES)}


def bootstrap(sums: NDArray[Any], counts: NDArray[Any] | None = None, seed: int = 0) -> NDArray[np.float64]:
    """(2, S): 2.5th and 97.5th percentile of the mean over RESAMPLES draws with replacement.

    sums: (N, S) of each of N units, over the counts (N,) of values each has, 1 where not given.
    """
    counts = np.ones(len(sums)) if counts is None else counts
    draws = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, sums.shape[1]))
    for mean in means:
        times = np.bincount(draws.integers(0, len(sums), len(sums)), minlength=len(sums))
        mean[:] = times @ sums / (times @ counts)
    return np.percentile(means, (2.5, 97.5), axis=0)


def evaluate(
    query: ArrayLike,
    gallery: ArrayLike,
    query_ids: Sequence[int] | Sequence[str] | NDArray[Any],
    gallery_ids: Sequence[int] | Sequence[str] | NDArray[Any],
    query_cameras: Sequence[Hashable] | None = None,
    gallery_cameras: Sequence[Hashable] | None = None,
    ranks: int = 50,
    rerank: Rerank | None = None,
    rule: str | None = None,
    device: Any = None,
) -> RetrievalScores:
    """Rank the gallery for each query by Euclidean distance and score the ranking.

    query: (Q, D), gallery: (G, D), arrays or tensors.  ids: of each row, whole numbers or names.  cameras: the same;
    None, nan or a negative number where not known, or None for all ("camera-less").  Gallery rows of the query's
    vehicle seen by the query's camera are left out, where both cameras are known ("camera-aware").  The order is that
    of the distances in float64.  Ties: a wrong image at the distance of a right one counts as before it, so that the
    order of the gallery changes nothing.  mINP is the mean of (right images) / (rank of the last right one).
    A query that lies in the gallery as well is found by itself, unless cameras keep it out, such as one of its own for
    each image whose camera is not known.
    rerank: rank by k-reciprocal distances instead (Zhong et al. 2017); where `gallery` is `query`, the same object,
    each image lies in the space once.  rule: what the protocol says of the images left out, where the cameras stand for
    something else.

    device: torch's, or its name, that multiplies; None: a GPU where there is one.
    Beyond the embeddings less than 200 MB are held.
    Raises DataError where shapes disagree, an embedding is not finite, an id is neither a whole number nor a name, or
    no query has a match.
    """
    of_queries = embeddings(query, "query")
    rows = of_queries, of_queries if gallery is query else embeddings(gallery, "gallery")
    labels = identities(query_ids, gallery_ids)
    cameras = numbered(
        [None] * len(rows[0]) if query_cameras is None else query_cameras,
        [None] * len(rows[1]) if gallery_cameras is None else gallery_cameras,
    )
    for own, *names in zip(rows, labels, cameras, strict=True):
        if any(len(own) != len(column) for column in names):
            raise DataError(f"{len(own)} embeddings need as many ids and cameras, not {[len(c) for c in names]}")
    if rows[0].shape[1] != rows[1].shape[1]:
        raise DataError(f"query {rows[0].shape} and gallery {rows[1].shape} must have the same dimensions")
    check_matches(*labels, *cameras)
    on = multiplier(device)
    ordering = Euclidean(*rows, on) if rerank is None else KReciprocal(*rows, rerank, on)
    found = _rank(ordering, *labels, *cameras)
    distance = "Euclidean" if rerank is None else str(rerank)
    return _scores(found, min(ranks, len(rows[1])), _protocol(*cameras, found, distance, rule))


def evaluate_vehicleid(
    rows: ArrayLike,
    ids: Sequence[int] | Sequence[str] | NDArray[Any],
    folds: int = FOLDS,
    seed: int = 0,
    ranks: int = 50,
    device: Any = None,
) -> RetrievalScores:
    """VehicleID's protocol (Liu et al. 2016): one random image of each vehicle is the gallery, the rest are queries,
    cameras are not looked at, and the scores are means over ten such draws.

    rows: (N, D), ids: (N,), as `evaluate` takes them.  Of each fold's queries in turn are `average_precision` and its
    like.
    device: as in `evaluate`.
    Raises DataError as `evaluate`.
    """
    every, labels = embeddings(rows, "test"), identities(ids, ids)[0]
    if len(every) != len(labels):
        raise DataError(f"{len(every)} embeddings need as many ids, not {len(labels)}")
    draws = np.random.default_rng(seed)
    on = multiplier(device)
    parts = []
    for _ in range(folds):
        mixed = draws.permutation(len(labels))
        first = mixed[np.unique(labels[mixed], return_index=True)[1]]  # of each vehicle, the first in this order
        rest = np.setdiff1d(np.arange(len(labels)), first)
        unknown = np.full(len(rest), -1), np.full(len(first), -1)
        check_matches(labels[rest], labels[first], *unknown)
        ranked = _rank(Euclidean(every[rest], every[first], on), labels[rest], labels[first], *unknown)
        parts.append(ranked._replace(query=rest))
    found = _Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    vehicles = len(np.unique(labels))
    protocol = (
        f"VehicleID: mean of {folds} folds, in each one random image of each of {vehicles} vehicles is the gallery and"
        f" the other {len(labels) - vehicles} are queries, cameras not looked at; Euclidean distance,"
        " ties count against"
    )
    return _scores(found, min(ranks, vehicles), protocol)


class _Ranked(NamedTuple):
    """Of each query; nan, nan and 0 where it has no match."""

    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]
    first_match: NDArray[np.int64]
    query: NDArray[np.int64]


class _Ordering(Protocol):
    """What orders a gallery: float32 values, a query at a time, and the exact ones of a few."""

    tolerance: float

    def rows(self) -> Iterator[tuple[int, NDArray[np.float32]]]: ...

    def exact(self, query: int, rows: NDArray[np.intp]) -> NDArray[np.float64]: ...


def _rank(
    ordering: _Ordering,
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
) -> _Ranked:
    """Where the right images stand. Only they are sorted, and what is as near as the last of them."""
    by_label = np.argsort(gallery_labels, kind="stable")
    in_order = gallery_labels[by_label]
    first = np.searchsorted(in_order, query_labels, side="left")
    last = np.searchsorted(in_order, query_labels, side="right")
    precision, inverse_penalty = (np.full(len(query_labels), np.nan) for _ in range(2))
    first_match = np.zeros(len(query_labels), np.int64)
    for q, distance in ordering.rows():
        own = by_label[first[q] : last[q]]
        junk = (gallery_cameras[own] == query_cameras[q]) & (query_cameras[q] >= 0)
        right = own[~junk]
        if not len(right):
            continue
        near = distance[right]
        distance[own] = np.inf  # what is left are the wrong ones
        rank = np.arange(1, len(right) + 1) + _wrong_before(ordering, q, distance, right, near)
        precision[q] = np.mean(np.arange(1, len(right) + 1) / rank)
        inverse_penalty[q] = len(right) / rank[-1]
        first_match[q] = rank[0]
    return _Ranked(precision, inverse_penalty, first_match, np.arange(len(query_labels)))


def _wrong_before(
    ordering: _Ordering,
    query: int,
    wrong: NDArray[np.float32],
    right: NDArray[np.intp],
    near: NDArray[np.float32],
) -> NDArray[np.intp]:
    """How many wrong images come before each right one, nearest first.

    wrong: (G,) distances, inf where not wrong.  right: rows of the right ones, near: their distances.  Where float32
    cannot tell a wrong image from a right one, both are measured anew.
    """
    slack = np.float32(ordering.tolerance)
    order = np.argsort(near)
    near, right = near[order], right[order]
    low, high = near - slack, near + slack
    sorted_wrong = np.sort(wrong[wrong <= high[-1]])
    perhaps = np.searchsorted(sorted_wrong, high, side="right")
    if not slack:
        return perhaps
    surely = np.searchsorted(sorted_wrong, low, side="left")
    unsure = np.flatnonzero(surely < perhaps)
    if not len(unsure):
        return surely
    exact = ordering.exact(query, right)
    for k in unsure:
        close = np.flatnonzero((wrong >= low[k]) & (wrong <= high[k]))
        surely[k] += np.count_nonzero(ordering.exact(query, close) <= exact[k])
    return surely[np.argsort(exact)]


def _scores(found: _Ranked, ranks: int, protocol: str) -> RetrievalScores:
    first = found.first_match[found.first_match > 0]
    reached = np.bincount(np.minimum(first, ranks + 1), minlength=ranks + 2)[1 : ranks + 1]
    return RetrievalScores(
        mAP=float(np.nanmean(found.average_precision)),
        cmc=np.cumsum(reached) / len(first),
        mINP=float(np.nanmean(found.inverse_penalty)),
        protocol=protocol,
        **found._asdict(),
    )


def check_matches(
    query_labels: NDArray[np.int64],
    gallery_labels: NDArray[np.int64],
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
) -> None:
    """Raises DataError where there is nothing to score, as no query has a match in the gallery. Needs no embeddings, so
    it can come before them."""
    _, labels = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    cameras = np.concatenate([query_cameras, gallery_cameras])
    pairs = np.where(cameras >= 0, labels * (cameras.max(initial=0) + 1) + cameras, -1)
    mine, others = slice(0, len(query_labels)), slice(len(query_labels), None)
    of_vehicle = _counts(labels[mine], labels[others])
    left_out = np.where(cameras[mine] >= 0, _counts(pairs[mine], pairs[others]), 0)
    if not (of_vehicle > left_out).any():
        raise DataError("no query has a match in the gallery: check the split, and the cameras")


def _counts(wanted: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.intp]:
    """How often each of the wanted is given."""
    in_order = np.sort(given)
    counts: NDArray[np.intp] = np.searchsorted(in_order, wanted, "right") - np.searchsorted(in_order, wanted, "left")
    return counts


def identities(query: Any, gallery: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) int64 each: whole numbers as they are; names, all of them strings, numbered alike in both.

    Raises DataError for anything else, such as whole numbers on one side only.
    """
    both = [np.asarray(ids.detach().cpu() if hasattr(ids, "detach") else ids) for ids in (query, gallery)]
    if all(array.dtype.kind in "UO" and all(isinstance(name, str) for name in array.flat) for array in both):
        numbers = np.unique(np.concatenate([array.astype(str).ravel() for array in both]), return_inverse=True)[1]
        return numbers[: both[0].size].astype(np.int64), numbers[both[0].size :].astype(np.int64)
    return _whole_numbers(both[0], "query"), _whole_numbers(both[1], "gallery")


def _whole_numbers(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    if array.dtype.kind in "iub" or not array.size:
        return array.astype(np.int64).reshape(-1)
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if array.dtype.kind in "USO" or not (np.isfinite(numbers) & (numbers == np.round(numbers))).all():
        raise DataError(f"the {name} ids are neither whole numbers nor, in queries and gallery alike, names")
    return numbers.astype(np.int64).reshape(-1)


def numbered(query: Iterable[Any], gallery: Iterable[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Names of any kind as whole numbers, equal ones the same; None, nan and negative numbers as -1."""
    if all(isinstance(names, np.ndarray) and names.dtype.kind == "i" for names in (query, gallery)):
        first, other = (np.maximum(np.asarray(names, np.int64), -1) for names in (query, gallery))
        return first, other
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


def _protocol(
    query_cameras: NDArray[np.int64],
    gallery_cameras: NDArray[np.int64],
    found: _Ranked,
    distance: str,
    rule: str | None,
) -> str:
    known = int((query_cameras >= 0).sum()), int((gallery_cameras >= 0).sum())
    if rule is None and 0 in known:
        rule = "camera-less: cameras not known, so nothing is left out of the gallery"
    elif rule is None:
        rule = "camera-aware: gallery images of the query's vehicle by the query's camera left out"
        if known != (len(query_cameras), len(gallery_cameras)):
            rule += " where both cameras are known"
    without = int((found.first_match == 0).sum())
    matched = len(query_cameras) - without
    return (
        f"{rule}; {distance} distance, {matched} of {len(query_cameras)} queries have a match among"
        f" {len(gallery_cameras)} gallery images{f' ({without} without one not counted)' if without else ''},"
        " ties count against"
    )
