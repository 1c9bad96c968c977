import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvrid_tools import add_fog
from fvrid_tools.fog import PRESETS, FogDraw, FogRange, FogSynthesizer, PerDistance, transmission
from fvrid_tools.records import OptionError

RNG = np.random.default_rng(0)
CLEAR = RNG.random((5, 7, 3), dtype=np.float32)
DEPTH = RNG.random((5, 7), dtype=np.float32)


def test_a_value_worked_by_hand() -> None:
    # t = exp(-2 ln(2) / 2) = 1/2, so I = 0.2 / 2 + 0.8 / 2
    foggy = add_fog(np.full((1, 1, 3), 0.2), np.full((1, 1), 0.5), 2 * math.log(2), 0.8)
    assert foggy == pytest.approx(0.5)


def test_no_depth_or_no_beta_is_no_fog() -> None:
    assert np.allclose(add_fog(CLEAR, np.zeros_like(DEPTH), 1.5, 0.9), CLEAR)
    assert np.allclose(add_fog(CLEAR, DEPTH, 0, 0.9), CLEAR)


def test_far_away_is_only_airlight() -> None:
    assert np.allclose(add_fog(CLEAR, np.ones_like(DEPTH), 1000, 0.7), 0.7)


def test_fog_grows_with_depth_and_stays_in_range() -> None:
    t = transmission(np.sort(DEPTH.ravel())[None], 1.2)
    assert (np.diff(t) <= 0).all()
    foggy = add_fog(CLEAR, DEPTH, 1.2, 0.6)
    assert foggy.dtype == np.float32
    assert foggy.min() >= 0
    assert foggy.max() <= 1


def test_bytes_are_no_floats() -> None:
    with pytest.raises(ValueError, match="floats"):
        add_fog((255 * CLEAR).astype(np.uint8), DEPTH, 1, 1)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="agree"):
        add_fog(CLEAR, DEPTH[:4], 1, 1)


def test_physical_fog_worked_by_hand() -> None:
    # at 9 m of 81, d is 1/2; a visibility of 27 m leaves 1/20 at 27 m, so 20^(-1/3) at 9 m
    beta = PerDistance(math.log(20) * 81 / 27)
    assert transmission(np.array([[0.5, 1.0]]), beta) == pytest.approx(np.array([[20 ** (-1 / 3), 20.0**-3]]))
    low, high = PRESETS["physical"].beta
    assert [math.log(20) * 81 / b for b in (low, high)] == pytest.approx([150, 25])
    assert isinstance(PRESETS["physical"].draw(0, "a").beta, PerDistance)
    assert FogRange.read(PRESETS["physical"].describe()) == PRESETS["physical"]


@pytest.mark.parametrize("unit", [float, PerDistance])
@given(st.floats(0, 10), st.floats(0, 1), st.integers(1, 40), st.integers(1, 40))
def test_the_fast_way_is_add_fog_rounded_once(
    unit: type[float], beta: float, airlight: float, height: int, width: int
) -> None:
    beta = unit(beta)
    rng = np.random.default_rng(height * 100 + width)
    clear = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth = rng.integers(0, 65536, (height, width), dtype=np.uint16)
    exact = 255 * add_fog(clear / 255, depth / 65535, beta, airlight).astype(np.float64)
    fast = FogSynthesizer()(clear, depth, FogDraw(beta, airlight))
    assert np.abs(fast - exact).max() <= 0.5 + 1e-3


def test_buffers_kept_from_a_larger_image_do_no_harm() -> None:
    kept, draw = FogSynthesizer(), FogDraw(1.0, 0.8)
    for height, width in ((30, 40), (3, 5), (40, 30)):
        clear = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
        depth = RNG.integers(0, 65536, (height, width), dtype=np.uint16)
        assert np.array_equal(kept(clear, depth, draw), FogSynthesizer()(clear, depth, draw))


def test_a_draw_depends_on_seed_and_id_alone() -> None:
    paper = PRESETS["paper"]
    assert paper.draw(3, "veri-wild/1/2") == paper.draw(3, "veri-wild/1/2")
    assert paper.draw(3, "veri-wild/1/2") != paper.draw(4, "veri-wild/1/2")
    # stored numbers: a change here changes every dataset that anyone built
    assert paper.draw(0, "veri-wild/00001/000001") == pytest.approx((STORED_BETA, STORED_AIRLIGHT), abs=1e-12)


STORED_BETA, STORED_AIRLIGHT = 1.5682332269013068, 0.7154462331712463


@pytest.mark.parametrize("preset", PRESETS)
def test_draws_fill_their_ranges_evenly(preset: str) -> None:
    ranges = PRESETS[preset]
    draws = np.array([ranges.draw(0, str(i)) for i in range(4000)])
    for column, (low, high) in zip(draws.T, (ranges.beta, ranges.airlight), strict=True):
        share = (column - low) / (high - low)
        assert 0 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1
        assert np.histogram(share, 10, (0, 1))[0] == pytest.approx(400, abs=80)  # four standard deviations
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.07


@pytest.mark.parametrize(
    ("beta", "airlight"),
    [
        ((1.6, 0.4), (0.5, 1)),
        ((-1, 1), (0.5, 1)),
        ((0, math.nan), (0.5, 1)),
        ((0, math.inf), (0.5, 1)),
        ((0, 1), (0.9, 0.5)),
        ((0, 1), (-0.1, 0.5)),
        ((0, 1), (0.5, 1.1)),
    ],
)
def test_ranges_out_of_order_or_negative_are_refused(beta: tuple[float, float], airlight: tuple[float, float]) -> None:
    with pytest.raises(OptionError, match="range needs"):
        FogRange(beta=beta, airlight=airlight)
