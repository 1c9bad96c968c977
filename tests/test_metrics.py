import math

import numpy as np
import pytest
import torch

from sjdl_model import metrics
from sjdl_model.distances import Euclidean


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


def test_tensors_of_any_kind_and_names_of_cameras_are_taken() -> None:
    query, gallery = (
        torch.tensor([[0.0]], requires_grad=True),
        torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.bfloat16),
    )
    scores = metrics.evaluate(query, gallery, [7.0], [7, 8, 7], ["cam_a"], ["cam_a", None, "cam_b"])
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
    assert metrics.evaluate(moved[:100], moved[100:], ids[:100], ids[100:]).mAP == pytest.approx(plain.mAP, abs=1e-12)


def test_the_protocol_is_told() -> None:
    pair = ([[0.0], [1.0]], [[0.0], [1.0]], [0, 5], [0, 1])
    assert "1 of 2 queries have a match among 2" in metrics.evaluate(*pair).protocol
    assert "(1 without one not counted)" in metrics.evaluate(*pair).protocol
    assert metrics.evaluate(*pair).unmatched == 1
    assert metrics.evaluate(*pair).protocol.startswith("camera-less: cameras not known")
    assert metrics.evaluate(*pair, [1, 1], [2, 2]).protocol.startswith("camera-aware: ")
    assert "where both cameras are known" not in metrics.evaluate(*pair, [1, 1], [2, 2]).protocol
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
        (([[0.0]], [[1.0], [2.0]], ["a"], [0, 1]), "the query ids are neither whole numbers"),
        (([[0.0]], [[1.0], [2.0]], [0], [0, 1.5]), "the gallery ids are neither whole numbers"),
        (([[0.0]], [[1.0], [2.0]], [np.nan], [0, 1]), "the query ids are neither whole numbers"),
        (([[0.0]], [["x"], ["y"]], [0], [0, 1]), "not numbers"),
        (([[0.0]], [[1.0], [2.0]], [0], [0, 1], [3], [3, 4]), "no query has a match"),
    ],
)
def test_what_cannot_be_scored_is_said(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.evaluate(*arguments)  # type: ignore[arg-type]


def test_a_gallery_of_one_vehicle_is_ranked_rightly_whatever_the_order() -> None:
    scores = metrics.evaluate([[0.0]], [[1.0], [2.0]], [0], [0, 0])
    assert (scores.mAP, scores.mINP, scores.cmc.tolist()) == (1, 1, [1, 1])


def test_an_image_finds_itself_unless_a_camera_keeps_it_out() -> None:
    rows, ids = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) // 2
    assert metrics.evaluate(rows, rows, ids, ids).cmc[0] == 1
    own = [*range(60)]
    assert metrics.evaluate(rows, rows, ids, ids, own, own).cmc[0] < 0.5


def test_scores_name_their_ranks() -> None:
    scores = metrics.evaluate([[0.0]], [[0.0], [1.0]], [0], [0, 1])
    assert scores.summary() == {"mAP": 1, "CMC@1": 1, "CMC@5": 1, "CMC@10": 1, "mINP": 1}


def test_distances_that_float32_cannot_tell_apart_are_ordered_as_in_float64() -> None:
    """A right and a wrong image nearly as far: float32 puts some of them the wrong way round, float64 none."""
    rng = np.random.default_rng(1)
    query, ids = rng.normal(size=(200, 64)), np.arange(200)
    step = rng.normal(size=(200, 64))
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    turned = np.roll(step, 1, axis=1)
    nearer = rng.random(200) < 0.5
    right, wrong = query + step, query + turned * np.where(nearer, 1 - 1e-8, 1 + 1e-8)[:, None]
    gallery = np.concatenate([right, wrong])
    scores = metrics.evaluate(query, gallery, ids, np.concatenate([ids, ids + 200]))
    assert scores.first_match.tolist() == np.where(nearer, 2, 1).tolist()
    many = metrics.evaluate(
        query, np.concatenate([gallery, gallery[:3] * 1e6]), ids, np.r_[ids, ids + 200, 500, 501, 502]
    )
    assert many.first_match.tolist() == scores.first_match.tolist()  # far ones leave float32 fewer digits still


def test_what_is_equally_far_ties_whatever_the_scale() -> None:
    gallery = np.array([[3, 4], [5, 0], [0, 5], [4, 3], [10, 0]], np.float32)  # the first four at a distance of 5
    found = metrics.evaluate(np.zeros((1, 2), np.float32), gallery, [1], [2, 1, 2, 2, 3])
    assert found.mAP == 1 / 4  # the three wrong ones come before
    rng = np.random.default_rng(0)
    rows, ids = rng.integers(-3, 4, (300, 8)).astype(np.float32), rng.integers(0, 30, 300)
    squared = ((rows[:50, None] - rows[None, 50:]) ** 2).sum(axis=2)
    expected = []
    for distance, label in zip(squared, ids[:50], strict=True):
        near = np.sort(distance[ids[50:] == label])
        wrong = [(distance[ids[50:] != label] <= one).sum() for one in near]
        rank = np.arange(1, len(near) + 1)
        expected.append((rank / (rank + wrong)).mean())
    assert metrics.evaluate(rows[:50], rows[50:], ids[:50], ids[50:]).mAP == pytest.approx(np.mean(expected), abs=1e-12)


def test_vehicles_may_have_names() -> None:
    rng = np.random.default_rng(0)
    rows, ids = rng.normal(size=(40, 4)), rng.integers(0, 5, 40)
    names = [f"vehicle {number}" for number in ids]
    numbered = metrics.evaluate(rows[:9], rows[9:], ids[:9], ids[9:])
    assert metrics.evaluate(rows[:9], rows[9:], names[:9], names[9:]).mAP == numbered.mAP
    assert metrics.evaluate(rows[:9], rows[9:], np.array(names[:9]), np.array(names[9:])).mAP == numbered.mAP
    assert metrics.evaluate_vehicleid(rows, names).mAP == metrics.evaluate_vehicleid(rows, ids).mAP


def test_a_collapsed_network_is_all_ties() -> None:
    scores = metrics.evaluate(np.ones((3, 8)), np.ones((90, 8)), [0, 1, 2], np.arange(90) % 3)
    assert scores.first_match.tolist() == [61, 61, 61]  # 60 wrong ones come before


def test_multiplied_by_torch_as_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, on the CPU."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 20, 700)
    rows = rng.normal(size=(20, 32))[ids] + rng.normal(size=(700, 32))
    plain = metrics.evaluate(rows[:90], rows[90:], ids[:90], ids[90:])
    monkeypatch.setattr(metrics, "multiplier", lambda device: torch.device("cpu"))
    assert metrics.evaluate(rows[:90], rows[90:], ids[:90], ids[90:]).mAP == plain.mAP


def test_products_are_exact_whatever_the_process_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in bfloat16 lets matrices multiply in fewer digits, which the ranking's margins do not allow for."""
    seen: list[str] = []

    def watched(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return torch.matmul(one, other)

    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    product = Euclidean(rows, rows, torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    torch.set_float32_matmul_precision("medium")
    try:
        list(product.rows())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["highest"]


def test_intervals_hold_the_mean_and_narrow_with_more_queries() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30, 1200)
    rows = rng.normal(size=(30, 8))[ids] + rng.normal(size=(1200, 8))
    few, many = (metrics.evaluate(rows[:n], rows[n:], ids[:n], ids[n:]) for n in (50, 400))
    for scores in (few, many):
        for name, (low, high) in scores.intervals().items():
            assert low <= scores.summary()[name] <= high
    # of a mean: 1.96 standard errors to either side
    low, high = many.intervals()["mAP"]
    assert high - low == pytest.approx(2 * 1.96 * many.average_precision.std() / math.sqrt(400), rel=0.1)
    low, high = few.intervals()["mAP"]
    assert high - low == pytest.approx(2 * 1.96 * few.average_precision.std() / math.sqrt(50), rel=0.15)
    assert many.intervals() == many.intervals()


def test_vehicleid_takes_one_image_a_vehicle_in_each_of_ten_folds() -> None:
    # vehicles at 0 and 10: with any draw each query's own vehicle is nearest
    rows = np.array([[0.0], [0.1], [0.2], [10.0], [10.1]])
    scores = metrics.evaluate_vehicleid(rows, [4, 4, 4, 9, 9])
    assert scores.mAP == scores.cmc[0] == 1
    assert len(scores.first_match) == 10 * 3
    assert scores.protocol.startswith("VehicleID: mean of 10 folds")
    assert "2 vehicles is the gallery and the other 3 are queries" in scores.protocol
    # an image that is nearer to the other vehicle is wrong in the folds in which it is a query
    rows = np.array([[0.0], [9.0], [10.0], [10.1]])
    scores = metrics.evaluate_vehicleid(rows, [4, 4, 9, 9], folds=200)
    assert scores.cmc[0] == pytest.approx(3 / 4, abs=0.05)  # of the two queries one is always right, one half the time
    with pytest.raises(ValueError, match="no query has a match"):
        metrics.evaluate_vehicleid(rows, [1, 2, 3, 4])
