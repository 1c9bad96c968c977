"""Scoring a ranking: 5,000 queries against 50,000 gallery images of 2048 dimensions.

    product    queries x gallery by NumPy, in blocks into a kept buffer: what cannot be saved
    ours       metrics.evaluate: check, product, ranking, scores
    argsort    the whole float32 matrix and an argsort of it, mAP from that; on some of the queries (the matrix would
               take gigabytes, the sort minutes), its time scaled to all

Exits with 1 where ours takes more than 1.25 times the product, or more than 200 MB beyond the embeddings.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from harness import finish, ratio, rotate, summary

from sjdl_model import metrics

QUERIES, GALLERY, DIMENSIONS, VEHICLES, CAMERAS = 5_000, 50_000, 2048, 3_800, 174
SORTED = 250  # queries of the argsort
BLOCK = 512
MOST, MOST_MB = 1.25, 200


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; stdout has it too")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def made(count: int, centres: np.ndarray, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings around their vehicle's centre, ids, cameras."""
    ids = draws.integers(0, VEHICLES, count)
    rows = centres[ids]
    for start in range(0, count, 1000):  # of normal draws in float32 at a time
        rows[start : start + 1000] += 3 * draws.standard_normal(rows[start : start + 1000].shape, dtype=np.float32)
    return rows, ids, draws.integers(0, CAMERAS, count)


def by_argsort(
    query: np.ndarray, gallery: np.ndarray, names: tuple[np.ndarray, ...], places: tuple[np.ndarray, ...]
) -> list[float]:
    """Average precision of each query."""
    squares = np.einsum("gd,gd->g", gallery, gallery)
    order = np.argsort(squares - 2 * query @ gallery.T, axis=1)
    found = []
    for q, row in enumerate(order):
        same = names[1][row] == names[0][q]
        hits = same[~(same & (places[1][row] == places[0][q]))]
        ranks = np.flatnonzero(hits) + 1
        found.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else np.nan)
    return found


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = arguments()
    draws = np.random.default_rng(0)
    centres = draws.standard_normal((VEHICLES, DIMENSIONS), dtype=np.float32)
    query, query_ids, query_cameras = made(QUERIES, centres, draws)
    gallery, gallery_ids, gallery_cameras = made(GALLERY, centres, draws)
    del centres
    everything = (query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras)
    kept = np.empty((BLOCK, GALLERY), np.float32)
    metrics.evaluate(query[:64], gallery[:64], query_ids[:64], query_ids[:64])  # what is imported is no memory of ours

    def product() -> None:
        for start in range(0, QUERIES, BLOCK):
            part = query[start : start + BLOCK]
            np.matmul(part, gallery.T, out=kept[: len(part)])

    def ours() -> metrics.RetrievalScores:
        return metrics.evaluate(*everything)

    product()
    before = peak_mb()
    kept_mb = kept.nbytes / 2**20
    scores = ours()
    beyond = peak_mb() - before + kept_mb  # as if ours had used nothing of what the product left behind
    seconds = rotate({"product": product, "ours": ours}, options.rounds)
    started = time.perf_counter()
    some = by_argsort(query[:SORTED], gallery, (query_ids, gallery_ids), (query_cameras, gallery_cameras))
    argsort = (time.perf_counter() - started) * QUERIES / SORTED
    agree = float(np.nanmax(np.abs(np.array(some) - scores.average_precision[:SORTED])))
    results = {
        "product": summary(seconds["product"], QUERIES),
        "ours": summary(seconds["ours"], QUERIES),
        "ours_over_product": ratio(seconds, "ours", "product"),
        "argsort_over_ours": round(argsort / min(seconds["ours"]), 2),
        "beyond_the_embeddings_mb_at_most": round(beyond, 1),
        "mAP": round(scores.mAP, 4),
        "average_precision_differs_from_argsort_by_at_most": agree,
    }
    failures = []
    if results["ours_over_product"] > MOST:
        failures.append(f"ours takes {results['ours_over_product']} of the product, more than {MOST}")
    if beyond > MOST_MB:
        failures.append(f"ours takes {beyond:.0f} MB beyond the embeddings, more than {MOST_MB}")
    finish(options, results, failures)


if __name__ == "__main__":
    sys.exit(main())
