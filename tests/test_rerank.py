"""Re-ranking in blocks against the paper, worked out with whole matrices and sets."""

from functools import cache

import numpy as np
import pytest

from sjdl_model import metrics
from sjdl_model.config import ConfigError
from sjdl_model.rerank import KReciprocal, Rerank


def by_the_paper(query, gallery, k1, k2, lam, gallery_too=False):
    """Zhong et al. 2017, section 3, on an N x N matrix; gallery_too: the queries are the gallery."""
    rows = np.concatenate([query, gallery])
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    original = squared / squared.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1, kind="stable")

    @cache
    def mutual(i, k):
        return {j for j in order[i, : k + 1].tolist() if i in order[j, : k + 1]}

    v = np.zeros_like(original)
    for i in range(len(rows)):
        first = mutual(i, k1)
        whole = set(first)
        for q in first:
            more = mutual(q, round(k1 / 2))
            if len(more & first) > 2 / 3 * len(more):
                whole |= more
        whole = sorted(whole)
        v[i, whole] = np.exp(-original[i, whole])
        v[i] /= v[i].sum()
    if k2 > 1:
        v = np.stack([v[order[i, :k2]].mean(axis=0) for i in range(len(rows))])
    n = len(query)
    if gallery_too:
        low, high = (of(v[:, None], v[None]).sum(axis=2) for of in (np.minimum, np.maximum))
        return (1 - lam) * (1 - low / high) + lam * original
    low = np.minimum(v[:n, None], v[None, n:]).sum(axis=2)
    high = np.maximum(v[:n, None], v[None, n:]).sum(axis=2)
    return (1 - lam) * (1 - low / high) + lam * original[:n, n:]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("settings", [Rerank(), Rerank(8, 1, 0.5), Rerank(6, 3, 0), Rerank(500, 4, 0.3)])
def test_equal_to_the_paper(settings: Rerank, kind: type) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 12, 150)
    rows = (3 + 2 * (rng.normal(size=(12, 6))[ids] + 0.6 * rng.normal(size=(150, 6)))).astype(kind)
    query, gallery = rows[:40], rows[40:]
    found = np.stack([row.copy() for _, row in KReciprocal(query, gallery, settings).rows()])
    assert found == pytest.approx(by_the_paper(query, gallery, settings.k1, settings.k2, settings.lam), abs=2e-6)
    plain = metrics.evaluate(query, gallery, ids[:40], ids[40:])
    scores = metrics.evaluate(query, gallery, ids[:40], ids[40:], rerank=settings)
    assert f"k-reciprocal (k1 = {settings.k1}" in scores.protocol
    if settings.k1 == 8:
        assert scores.mAP > plain.mAP + 0.03  # what it is for


def test_where_every_image_is_a_query_each_lies_in_the_space_once() -> None:
    """Its neighbours are other images, not its own double."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 6)).astype(np.float32)
    settings = Rerank(8, 3, 0.3)
    found = np.stack([row.copy() for _, row in KReciprocal(rows, rows, settings).rows()])
    queries_alone = by_the_paper(rows, rows[:0], settings.k1, settings.k2, settings.lam, gallery_too=True)
    assert found == pytest.approx(queries_alone, abs=2e-6)


def test_of_more_queries_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(size=(130, 5))
    expected = by_the_paper(rows[:90], rows[90:], 20, 6, 0.3)
    monkeypatch.setattr("sjdl_model.distances.BLOCK_BYTES", 1)  # 32 queries a block
    found = [(i, row.copy()) for i, row in KReciprocal(rows[:90], rows[90:], Rerank()).rows()]
    assert [i for i, _ in found] == list(range(90))
    assert np.stack([row for _, row in found]) == pytest.approx(expected, abs=2e-6)


def test_settings_that_mean_nothing_are_refused() -> None:
    for settings in ((0, 1, 0.3), (5, 6, 0.3), (5, 2, 1.5)):
        with pytest.raises(ConfigError, match="re-ranking with"):
            Rerank(*settings)
