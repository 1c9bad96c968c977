"""How far an estimator is from depth that is known exactly."""

from collections.abc import Sequence

import numpy as np

from .. import pictures
from ..images import FloatArray
from ..progress import Progress, silent
from ..records import FARTHEST_M, ImageRecord
from . import DepthEstimator


def measure(estimator: DepthEstimator, records: Sequence[ImageRecord], progress: Progress = silent) -> dict[str, float]:
    """Scores of images that carry depth (at least one).

    correlation and its 5th percentile: Pearson's, of d within an image, over images (the median; flat truths left
    out).  error: mean |d - truth|.  abs_rel: mean |z - truth| / truth, z in metres.  within_25: share of pixels whose
    distance is wrong by less than a factor of 1.25.
    Raises FvridError where an image or its depth cannot be used, ImageRefused where the estimator has none for it.
    """
    correlations, errors, relative, within = [], [], [], []
    for record in records:
        image, truth = pictures.read_scene(record)
        d = estimator.predict(image, record)
        if truth.std() > 0.005:
            correlations.append(correlation(d, truth))
        errors.append(np.abs(d - truth).mean())
        ratio = FARTHEST_M ** (d - truth)
        relative.append(np.abs(ratio - 1).mean())
        within.append((np.abs(np.log(ratio)) < np.log(1.25)).mean())
        progress(1)
    return {
        "correlation": float(np.median(correlations)),
        "correlation_p5": float(np.percentile(correlations, 5)),
        "error": float(np.mean(errors)),
        "abs_rel": float(np.mean(relative)),
        "within_25": float(np.mean(within)),
    }


def correlation(a: FloatArray, b: FloatArray) -> float:
    """Pearson's, of two maps; 0 where one of them is flat."""
    x, y = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0
