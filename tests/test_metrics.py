import math

import numpy as np
import pytest
import torch

from sjdl_model import metrics


def by_argsort(query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras):
    """The textbook: a full distance matrix in float64, a stable argsort, precision at each right answer."""
    precisions, first, penalties = [], [], []
    for q in range(len(query)):
        distance = ((gallery.astype(np.float64) - query[q].astype(np.float64)) ** 2).sum(axis=1)
        order = np.argsort(distance, kind="stable")
        junk = (
            (gallery_ids[order] == query_ids[q])
            & (gallery_cameras[order] == query_cameras[q])
            & (query_cameras[q] >= 0)
        )
        hits = (gallery_ids[order] == query_ids[q])[~junk]
        if not hits.any():
            continue
        rank = np.flatnonzero(hits) + 1
        precisions.append(np.mean(np.arange(1, len(rank) + 1) / rank))
        first.append(rank[0])
        penalties.append(len(rank) / rank[-1])
    cmc = np.array([np.mean(np.array(first) <= r) for r in range(1, 51)])
    return np.mean(precisions), cmc, np.mean(penalties)


def test_worked_by_hand() -> None:
    # one query at 0; gallery at 1, 2, 3, 4, 5 of vehicles a b a b a: right at ranks 1, 3, 5
    scores = metrics.evaluate([[0.0]], [[1.0], [2.0], [3.0], [4.0], [5.0]], [0], [0, 1, 0, 1, 0])
    assert scores.mAP == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert scores.mINP == pytest.approx(3 / 5)
    assert scores.cmc.tolist() == [1, 1, 1, 1, 1]
    # the nearest is by the query's own camera: ranks 2, 4 of the four that are left
    scores = metrics.evaluate([[0.0]], [[1.0], [2.0], [3.0], [4.0], [5.0]], [0], [0, 1, 0, 1, 0], [6], [6, 6, 7, 7, 8])
    assert scores.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores.cmc[:3].tolist() == [0, 1, 1]


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("queries", [7, 300])  # within one block, and over two
def test_equal_to_a_full_argsort(queries: int, cameras: bool) -> None:
    rng = np.random.default_rng(queries)
    centres = rng.normal(size=(40, 16))
    query_ids, gallery_ids = rng.integers(0, 45, queries), rng.integers(0, 40, 900)
    query = (np.vstack([centres, rng.normal(size=(5, 16))])[query_ids] + rng.normal(size=(queries, 16))).astype(
        np.float32
    )
    gallery = (centres[gallery_ids] + rng.normal(size=(900, 16))).astype(np.float32)
    query_cameras = rng.integers(-1, 4, queries) if cameras else np.full(queries, -1)
    gallery_cameras = rng.integers(-1, 4, 900) if cameras else np.full(900, -1)
    arguments = (query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras)
    expected_map, expected_cmc, expected_inp = by_argsort(*arguments)
    scores = metrics.evaluate(*arguments)
    assert scores.mAP == pytest.approx(expected_map, abs=1e-6)
    assert scores.mINP == pytest.approx(expected_inp, abs=1e-6)
    assert scores.cmc == pytest.approx(expected_cmc, abs=1e-9)


def test_ties_count_against_whatever_the_order() -> None:
    for order in ([0, 1], [1, 0]):
        assert metrics.evaluate([[0.0]], [[1.0], [1.0]], [0], order).mAP == pytest.approx(1 / 2)


def test_the_order_of_the_gallery_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    gallery, ids = rng.integers(0, 3, (60, 4)).astype(np.float32), rng.integers(0, 6, 60)
    query, query_ids = rng.integers(0, 3, (9, 4)).astype(np.float32), rng.integers(0, 6, 9)
    mixed = rng.permutation(60)
    one, other = (
        metrics.evaluate(query, gallery, query_ids, ids),
        metrics.evaluate(query, gallery[mixed], query_ids, ids[mixed]),
    )
    assert one.mAP == other.mAP
    assert np.array_equal(one.cmc, other.cmc)


def test_names_and_tensors_of_any_kind_are_taken() -> None:
    query, gallery = (
        torch.tensor([[0.0]], requires_grad=True),
        torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16),
    )
    ids = [("s", "x")], [("s", "x"), ("s", "y"), ("s", "x")]
    scores = metrics.evaluate(query, gallery, *ids, ["cam_a"], ["cam_a", None, "cam_b"])
    assert scores.mAP == pytest.approx(1 / 2)
    numbers = metrics.evaluate(query, gallery, torch.tensor([7]), np.array([7, 8, 7]), [1.0], [1.0, math.nan, 2.0])
    assert numbers.mAP == scores.mAP


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1, 1000), (1e20, 0), (1e-25, 0)])
def test_neither_scale_nor_offset_change_the_scores(scale: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 20, 400)
    rows = rng.normal(size=(20, 64))[ids] + 2 * rng.normal(size=(400, 64))
    plain = metrics.evaluate(rows[:100], rows[100:], ids[:100], ids[100:])
    moved = rows * scale + offset
    assert metrics.evaluate(moved[:100], moved[100:], ids[:100], ids[100:]).mAP == pytest.approx(plain.mAP, abs=1e-5)


def test_the_protocol_is_told() -> None:
    pair = ([[0.0], [1.0]], [[0.0], [1.0]], [0, 5], [0, 1])
    assert "1 of 2 queries have a match among 2" in metrics.evaluate(*pair).protocol
    assert "cameras not known" in metrics.evaluate(*pair).protocol
    assert "camera left out, ties" in metrics.evaluate(*pair, [1, 1], [2, 2]).protocol
    assert "where both cameras are known" in metrics.evaluate(*pair, [1, None], [2, 2]).protocol
    assert np.isnan(metrics.evaluate(*pair).average_precision).tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[0.0]], [[1.0]], [0], [1]), "no query has a match"),
        (([[0.0]], [[1.0, 2.0]], [0], [0]), "same dimensions"),
        (([0.0], [[1.0]], [0], [0]), "images, dimensions"),
        (([[0.0]], [[1.0]], [0], [0], [1], [1, 2]), "as many ids and cameras"),
        (([[np.nan]], [[1.0]], [0], [0]), "not finite"),
        (([[0.0]], [[1.0]], [0, 1], [0]), "as many ids"),
    ],
)
def test_what_cannot_be_scored_is_said(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.evaluate(*arguments)  # type: ignore[arg-type]


def test_scores_name_their_ranks() -> None:
    scores = metrics.evaluate([[0.0]], [[0.0], [1.0]], [0], [0, 1])
    assert scores.summary() == {"mAP": 1, "CMC@1": 1, "CMC@5": 1, "CMC@10": 1, "mINP": 1}
