"""Euclidean distances of queries to a gallery, a block of queries at a time: exact, and without a copy of either."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import DataError

Floats = NDArray[np.floating[Any]]

BLOCK_BYTES = 64 * 2**20  # of distances held at a time
CHUNK_ROWS = 512  # of the gallery: a few megabytes that stay in the cache
ROUNDING = 2.0**-20  # 16 units of float32 in the product of two vectors no longer than 1
NEAR = 4.0  # an offset of so many times the spread costs two bits of those


def embeddings(rows: Any, name: str) -> Floats:
    """(N, D) float32, or float64 where that is given, of an array or a tensor on any device; not copied where it need
    not be.  Raises DataError where it is not that, or not finite."""
    if hasattr(rows, "detach"):
        rows = rows.detach().cpu()
        rows = (rows if rows.element_size() >= 4 else rows.float()).numpy()  # NumPy knows no bfloat16
    array = np.asarray(rows)
    if array.dtype not in (np.float32, np.float64):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"the {name} embeddings are not numbers") from None
    if array.ndim != 2:
        raise DataError(f"the {name} embeddings are {array.shape}: (images, dimensions) needed")
    for chunk in _chunks(array):
        if not np.isfinite(chunk).all():
            raise DataError(f"a {name} embedding is not finite")
    return array


def _chunks(rows: Floats) -> Iterator[Floats]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield rows[start : start + CHUNK_ROWS]


class Euclidean:
    """Distances from each query to all of a gallery, in two forms.

    `rows` gives half the squared distance less what is the same for all of a query's gallery, in float32, of embeddings
    moved to the gallery's mean and scaled to a length of at most 1, so that neither offset nor scale costs digits.
    `exact` gives the squared distance in float64, for the few whose order float32 leaves open:
    those nearer to one another than `tolerance`.
    """

    def __init__(self, query: Floats, gallery: Floats, device: Any = None) -> None:
        """query: (Q, D), gallery: (G, D), finite.  device: torch's, to multiply on; NumPy multiplies where None."""
        if query.shape[1] != gallery.shape[1]:
            raise DataError(f"query {query.shape} and gallery {gallery.shape} must have the same dimensions")
        self._query, self._gallery, self._device = query, gallery, device
        largest = max(float(np.abs(chunk).max(initial=0)) for rows in (query, gallery) for chunk in _chunks(rows))
        scale = largest or 1.0
        total = sum(((chunk / scale).sum(axis=0, dtype=np.float64) for chunk in _chunks(gallery)), np.zeros(1))
        # rounded as the rows are, so that rows of float32 lose nothing when it is taken away from them
        self._centre = (total / max(1, len(gallery)) * scale).astype(gallery.dtype)
        self._scale = 1.0 / scale
        norms = [np.concatenate([self._norms(chunk) for chunk in _chunks(rows)]) for rows in (query, gallery)]
        spread = float(max(norm.max() for norm in norms))
        self._scale /= spread or 1.0
        offset = float(np.linalg.norm(self._centre.astype(np.float64) / scale)) / (spread or 1.0)
        self._as_they_are = gallery.dtype == np.float32 and offset <= NEAR and 1e-6 < self._scale < 1e6
        self._half_of_query, half = ((norm / (spread or 1.0)) ** 2 / 2 for norm in norms)
        self._half_squares = half.astype(np.float32)
        self.tolerance = ROUNDING if spread else 0.0
        self.block = max(32, min(1024, BLOCK_BYTES // (4 * max(1, len(gallery)))))  # queries at a time

    def _norms(self, chunk: Floats) -> NDArray[np.float64]:
        moved = self._moved(chunk)
        norms: NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", moved, moved, dtype=np.float64))
        return norms

    def _moved(self, rows: Floats) -> NDArray[np.float32]:
        """Moved and scaled, in float32."""
        moved = rows - self._centre
        moved *= moved.dtype.type(self._scale)
        return moved.astype(np.float32, copy=False)

    def rows(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (index of a query, (G,)) for all queries in order; the array is the caller's until the next one."""
        kept = np.empty((min(self.block, len(self._query)), len(self._gallery)), np.float32)
        product = self._numpy_product if self._device is None else self._torch_product()
        for start in range(0, len(self._query), self.block):
            queries = self._moved(self._query[start : start + self.block])
            product(-queries, kept[: len(queries)])
            for i, row in enumerate(kept[: len(queries)], start):
                row += self._half_squares
                yield i, row

    def squared(self, query: int, row: NDArray[np.float32]) -> NDArray[np.float64]:
        """What one of `rows` stands for: squared distances of the embeddings as they were given."""
        lost = self._half_of_query[query]
        if self._as_they_are and self._device is None:
            lost += float(self._moved(self._query[query : query + 1])[0] @ (self._centre * self._scale))
        found: NDArray[np.float64] = np.maximum(row + lost, 0) * 2 / self._scale**2
        return found

    def _numpy_product(self, queries: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        if self._as_they_are:  # what the offset adds is the same for all of a query's gallery
            np.matmul(queries * np.float32(self._scale), self._gallery.T, out=out)
            return
        for i, chunk in enumerate(_chunks(self._gallery)):
            columns = slice(i * CHUNK_ROWS, i * CHUNK_ROWS + len(chunk))
            np.matmul(queries, self._moved(chunk).T, out=out[:, columns])

    def _torch_product(self) -> Any:
        import torch

        from .devices import exact_products

        gallery = torch.cat([torch.from_numpy(self._moved(chunk)).to(self._device) for chunk in _chunks(self._gallery)])

        def product(queries: NDArray[np.float32], out: NDArray[np.float32]) -> None:
            with exact_products():
                torch.from_numpy(out).copy_(torch.from_numpy(queries).to(self._device) @ gallery.T)

        return product

    def exact(self, query: int, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Squared distances, scaled, of one query to the given rows of the gallery, in float64. The scale is a power of
        two, which costs no digit: what is equally far stays so."""
        found = np.empty(len(rows))
        scale = 2.0 ** math.floor(math.log2(self._scale))
        own = self._query[query].astype(np.float64)
        for start in range(0, len(rows), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            apart = (self._gallery[rows[part]] - own) * scale
            found[part] = np.einsum("nd,nd->n", apart, apart)
        return found


def multiplier(device: Any = None) -> Any:
    """The torch.device, for `Euclidean`, of a device or its name; of None that of a GPU where there is one. None where
    NumPy is to multiply."""
    import torch

    if device is None:
        return torch.device("cuda") if torch.cuda.is_available() else None
    device = torch.device(device)
    return None if device.type == "cpu" else device
