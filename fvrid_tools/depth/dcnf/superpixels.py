"""Superpixels: the nodes of the field, which of them touch, and averages over them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import slic

from ...images import Uint8Image

REGION = 16  # pixels a side of an average superpixel, as in the outdoor model
Doubles = NDArray[np.float64]
_COMPACTNESS = 0.1**0.5  # VLFeat's regularizer 0.1, on RGB in [0, 1]
_SMALLEST = 10  # pixels
_SMALLEST_SHARE = 0.25  # of an average one, where that has fewer than 40: else most of a small image's would be merged


@dataclass(frozen=True, slots=True)
class Superpixels:
    """Regions of an image of H x W pixels."""

    labels: NDArray[np.int64]  # (H, W), 0 .. count - 1
    count: int

    @classmethod
    def of(cls, image: Uint8Image, region: int = REGION) -> "Superpixels":
        """SLIC of an image (H, W, 3), about one superpixel every `region` x `region` pixels."""
        height, width = image.shape[:2]
        found = slic(
            image.astype(np.float64) / 255,
            n_segments=max(1, round(height * width / region**2)),
            compactness=_COMPACTNESS,
            convert2lab=False,
            sigma=0,
            max_num_iter=20,
            min_size_factor=min(_SMALLEST / region**2, _SMALLEST_SHARE),
            enforce_connectivity=True,
            start_label=0,
        )
        names, labels = np.unique(found, return_inverse=True)
        return cls(labels.reshape(height, width), len(names))

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each, (n,)."""
        return np.bincount(self.labels.ravel(), minlength=self.count)

    def mean(self, values: NDArray[np.floating]) -> Doubles:
        """Averages (n, C) of values (H, W, C)."""
        flat, labels = values.reshape(-1, values.shape[-1]), self.labels.ravel()
        sums = np.stack([np.bincount(labels, column, self.count) for column in flat.T], 1)
        return np.asarray(sums / self.areas()[:, None], np.float64)

    def centres(self) -> NDArray[np.int64]:
        """Row and column of the pixel nearest to each centroid, the later of two, (n, 2); it may lie in another."""
        height, width = self.labels.shape
        rows, columns = np.mgrid[:height, :width]
        return np.floor(self.mean(np.stack([rows, columns], -1).astype(np.float64)) + 0.5).astype(np.int64)

    def boxes(self) -> NDArray[np.int64]:
        """First and last row, first and last column of each, (n, 4)."""
        found = ndimage.find_objects(self.labels + 1)
        return np.array([(r.start, r.stop - 1, c.start, c.stop - 1) for r, c in found], np.int64)

    def neighbours(self) -> NDArray[np.int64]:
        """Pairs (E, 2), p < q, of superpixels with adjacent pixels (above and below, left and right)."""
        one = np.concatenate([self.labels[1:].ravel(), self.labels[:, 1:].ravel()]).astype(np.int64)
        other = np.concatenate([self.labels[:-1].ravel(), self.labels[:, :-1].ravel()])
        low, high = np.minimum(one, other), np.maximum(one, other)
        pairs = np.unique((low * self.count + high)[low < high])  # as single numbers, whose sorting is fast
        return np.stack(np.divmod(pairs, self.count), axis=1)

    def pooling(self, height: int, width: int) -> Doubles:
        """W (n, height * width): the share of each superpixel that lies on each unit of a smaller map; rows sum to 1.

        Units are spread over the image by nearest neighbour, as MATLAB's imresize and torch's nearest-exact do.
        """
        full_height, full_width = self.labels.shape
        rows = np.minimum(((np.arange(full_height) + 0.5) * height / full_height).astype(int), height - 1)
        columns = np.minimum(((np.arange(full_width) + 0.5) * width / full_width).astype(int), width - 1)
        units = rows[:, None] * width + columns[None]
        cells = self.labels * (height * width) + units
        counts = np.bincount(cells.ravel(), minlength=self.count * height * width)
        return np.asarray(counts.reshape(self.count, -1) / self.areas()[:, None], np.float64)
