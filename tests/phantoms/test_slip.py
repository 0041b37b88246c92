"""Declared ranges and shares of slips, counted over many patients."""

import numpy as np
import pytest
from pydantic import ValidationError

from bregma.phantoms.slip import PAIRS, SlipSettings, meyerding, sample_slips

SETTINGS = SlipSettings()


def test_slips_keep_their_ranges_and_margin():
    rng = np.random.default_rng(7)
    seen = []
    for _ in range(1500):
        slips = sample_slips(rng, SETTINGS)
        assert tuple(slips) == PAIRS
        values = np.abs(list(slips.values()))
        assert (values >= 5).sum() <= 2
        for edge in (5, 25, 50, 75, 100):
            assert (np.abs(values - edge) >= 1.5 - 1e-9).all()
        seen.append(meyerding(values.max()))
    shares = np.bincount(seen, minlength=5) / len(seen)
    np.testing.assert_allclose(shares, [0.30, 0.32, 0.22, 0.12, 0.04], atol=0.04)


def test_high_grades_sit_at_the_two_lowest_levels():
    rng = np.random.default_rng(3)
    high = SlipSettings(grade_weights=(0, 0, 0, 1, 1), second_share=0.0)
    for _ in range(200):
        slips = sample_slips(rng, high)
        assert [pair for pair, slip in slips.items() if abs(slip) >= 50] in (["L5-S1"], ["L4-L5"])


def test_backward_slips_are_of_grade_one():
    rng = np.random.default_rng(4)
    only = SlipSettings(backward_share=1.0, second_share=0.0)
    worst = [min(sample_slips(rng, only).values()) for _ in range(300)]
    assert min(worst) >= -23.5
    assert sum(value <= -6.5 for value in worst) > 60


def test_sound_levels_spread_as_declared():
    rng = np.random.default_rng(5)
    none = SlipSettings(grade_weights=(1, 0, 0, 0, 0))
    values = np.array([list(sample_slips(rng, none).values()) for _ in range(1500)])
    assert np.abs(values).max() <= 3.5
    assert values.std() == pytest.approx(1.2, abs=0.06)


@pytest.mark.parametrize(("slip", "grade"), [(4.9, 0), (5, 1), (-24.9, 1), (25, 2), (50, 3), (99, 4), (100, 5)])
def test_meyerding_edges(slip, grade):
    assert meyerding(slip) == grade


@pytest.mark.parametrize(
    "wrong", [{"grade_weights": (0, 0, 0, 0, 0)}, {"level_weights": {"L6-S1": 1.0}}, {"margin_percent": 2.5}]
)
def test_slip_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        SlipSettings(**wrong)
