"""k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, CVPR 2017), a block of queries at a time.

Two images are alike if each is among the other's nearest, and if their nearest are the same. Of the N = Q + G images
only the k1 nearest of each are kept, and sparse vectors over them; never an N x N matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .config import ConfigError
from .distances import Euclidean, Floats


@dataclass(frozen=True)
class Rerank:
    """k1 nearest neighbours to be mutual among, k2 of them to average over, lam the share of the original distance."""

    k1: int = 20
    k2: int = 6
    lam: float = 0.3

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if not (1 <= self.k2 <= self.k1 and 0 <= self.lam <= 1):
            raise ConfigError(f"re-ranking with {self.k1} {self.k2} {self.lam:g}: 1 <= k2 <= k1, 0 <= lambda <= 1.")

    @property
    def name(self) -> str:
        """For a file's name."""
        return "reranked" if self == Rerank() else f"reranked-{self.k1}-{self.k2}-{self.lam:g}"

    def __str__(self) -> str:
        return f"k-reciprocal (k1 = {self.k1}, k2 = {self.k2}, lambda = {self.lam:g})"


class KReciprocal:
    """(1 - lam) x Jaccard distance of the k-reciprocal neighbours + lam x squared Euclidean distance, which is divided
    by the largest that the query has (section 3 of the paper). In float32 throughout, so what is equal counts as a tie.
    """

    tolerance = 0.0

    def __init__(self, query: Floats, gallery: Floats, settings: Rerank, device: Any = None) -> None:
        """query: (Q, D), gallery: (G, D), finite; the same array where every image of a gallery is a query."""
        self._settings, self._device = settings, device
        self._rows: Floats = gallery if gallery is query else np.concatenate([query, gallery])
        self._of_queries, self._of_gallery = slice(0, len(query)), slice(len(self._rows) - len(gallery), None)
        nearest, self._farthest = self._neighbours(min(settings.k1 + 1, len(self._rows)))
        weights = _averaged(self._weights(nearest), nearest, settings.k2)
        self._query_weights = weights[self._of_queries].tocsr()
        self._gallery_weights = weights[self._of_gallery].tocsc()

    def _neighbours(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """(N, count) nearest images, itself first, ties in order of the rows; (N,) the largest squared distance."""
        nearest = np.empty((len(self._rows), count), np.intp)
        farthest = np.empty(len(self._rows))
        euclidean = Euclidean(self._rows, self._rows, self._device)
        for i, distance in euclidean.rows():
            distance[i] = -np.inf
            limit = np.partition(distance, count - 1)[count - 1]
            near = np.flatnonzero(distance <= limit)
            nearest[i] = near[np.argsort(distance[near], kind="stable")][:count]
            farthest[i] = self._squared(i, np.array([np.argmax(distance)]))[0]
        return nearest, farthest

    def _squared(self, i: int, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        apart = self._rows[rows].astype(np.float64) - self._rows[i]
        squared: NDArray[np.float64] = np.einsum("nd,nd->n", apart, apart)
        return squared

    def _weights(self, nearest: NDArray[np.intp]) -> sparse.csr_array:
        """(N, N): the share of each image among another's k-reciprocal neighbours, exp(-distance), rows sum to 1."""
        half = nearest[:, : round(self._settings.k1 / 2) + 1]
        mutual, mutual_half = _reciprocal(nearest), _reciprocal(half)
        indices, values, ends = [], [], [0]
        for i, own in enumerate(mutual):
            core = set(own)
            members = set(own)
            for candidate in own:
                others = mutual_half[candidate]
                if len(core.intersection(others)) > 2 / 3 * len(others):
                    members.update(others)
            columns = np.array(sorted(members))
            weight = np.exp(-self._squared(i, columns) / (self._farthest[i] or 1.0))
            indices.append(columns)
            values.append(weight / weight.sum())
            ends.append(ends[-1] + len(columns))
        shape = (len(nearest), len(nearest))
        return sparse.csr_array((np.concatenate(values), np.concatenate(indices), ends), shape=shape)

    def rows(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (index of a query, (G,) distances) for all queries; the array is the caller's until the next one."""
        lam = self._settings.lam
        euclidean = Euclidean(self._rows[self._of_queries], self._rows[self._of_gallery], self._device)
        for i, distance in euclidean.rows():
            plain = euclidean.squared(i, distance) / (self._farthest[i] or 1.0)
            distance[:] = lam * plain + (1 - lam) * self._jaccard(i)
            yield i, distance

    def _jaccard(self, query: int) -> NDArray[np.float64]:
        """(G,): 1 - sum of minima / sum of maxima; both vectors sum to 1, so the maxima to 2 - the minima."""
        of, to = self._query_weights, self._gallery_weights
        own = slice(of.indptr[query], of.indptr[query + 1])
        columns, weights = of.indices[own], of.data[own]
        starts, ends = to.indptr[columns], to.indptr[columns + 1]
        lengths = ends - starts
        places = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
        minima = np.minimum(to.data[places], np.repeat(weights, lengths))
        shared = np.bincount(to.indices[places], minima, minlength=to.shape[0])
        return 1 - shared / (2 - shared)

    def exact(self, query: int, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Never asked for: nothing is within a tolerance of 0."""
        raise NotImplementedError


def _reciprocal(nearest: NDArray[np.intp]) -> list[list[int]]:
    """Of each image, those of its nearest that have it among theirs."""
    found = []
    for i, own in enumerate(nearest):
        found.append(own[(nearest[own] == i).any(axis=1)].tolist())
    return found


def _averaged(weights: sparse.csr_array, nearest: NDArray[np.intp], k2: int) -> sparse.csr_array:
    """Each row the mean of those of its k2 nearest (local query expansion)."""
    if k2 == 1:
        return weights
    near = nearest[:, :k2]
    rows = np.repeat(np.arange(len(near)), near.shape[1])
    mean = sparse.csr_array((np.full(near.size, 1 / near.shape[1]), (rows, near.reshape(-1))), shape=weights.shape)
    return (mean @ weights).tocsr()
