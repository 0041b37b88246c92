"""The spine's shape: slips, angles and sizes worked out again by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from bregma.phantoms.spine import (
    LEVELS,
    PAIRS,
    SlipSettings,
    build_spine,
    meyerding,
    opening_deg,
    sample_slips,
    sample_spine,
    truncated_normal,
)

SETTINGS = SlipSettings()


def drawn(seed, slips=None):
    rng = np.random.default_rng(seed)
    return build_spine(sample_spine(rng, sample_slips(rng, SETTINGS) if slips is None else slips))


def slip_by_hand(spine, upper, lower):
    anterior, posterior = spine.sacrum if lower == "S1" else spine.bodies[lower][:2]
    (ax, ay), (px, py), (sx, sy) = anterior, posterior, spine.bodies[upper][3]
    length2 = (ax - px) ** 2 + (ay - py) ** 2
    return 100 * ((sx - px) * (ax - px) + (sy - py) * (ay - py)) / length2


@pytest.mark.parametrize("seed", range(20))
def test_built_slips_are_the_drawn_ones(seed):
    spine = drawn(seed)
    for pair, slip in spine.parameters.slip_percent.items():
        assert slip_by_hand(spine, *pair.split("-")) == pytest.approx(slip, abs=1e-9)


def test_slip_of_half_an_endplate_worked_by_hand():
    flat = dict.fromkeys(LEVELS, 0.0)
    base = drawn(0, {"L5-S1": 50.0}).parameters
    level = replace(base, size=1.0, sacral_slope_deg=0.0, wedge_deg=flat, disc_deg=flat)
    level = replace(level, disc_mm=dict.fromkeys(LEVELS, 10.0), depth_mm=dict.fromkeys(LEVELS, (34.0, 34.0)))
    level = replace(level, height_mm=dict.fromkeys(LEVELS, 25.0))
    spine = build_spine(level)
    np.testing.assert_allclose(spine.sacrum, [(-17, 0), (17, 0)], atol=1e-12)
    np.testing.assert_allclose(spine.bodies["L5"], [(-34, -35), (0, -35), (-34, -10), (0, -10)], atol=1e-9)
    np.testing.assert_allclose(spine.bodies["L4"], [(-34, -70), (0, -70), (-34, -45), (0, -45)], atol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_vertebrae_are_stacked_without_overlap(seed):
    spine = drawn(seed)
    tops = {**{level: corners[:2] for level, corners in spine.bodies.items()}, "S1": spine.sacrum}
    for upper, lower in zip(LEVELS, (*LEVELS[1:], "S1"), strict=True):
        anterior, posterior = tops[lower]
        along = (anterior - posterior) / np.hypot(*(anterior - posterior))
        # Facing left, the outward normal of an endplate points up: rotate "forward" by a quarter turn.
        normal = np.array([-along[1], along[0]])
        assert normal[1] < 0
        assert ((spine.bodies[upper][2:] - posterior) @ normal > 1.5).all()


@pytest.mark.parametrize("seed", range(10))
def test_lordosis_is_the_sum_of_its_parts(seed):
    spine = drawn(seed)
    p = spine.parameters
    inner = ("L1", "L2", "L3", "L4", "L5")
    expected = sum(p.wedge_deg[level] + p.disc_deg[level] for level in inner)
    assert opening_deg(spine.bodies["L1"][:2], spine.sacrum) == pytest.approx(expected, abs=1e-9)


def test_opening_by_hand():
    flat = np.array([(0.0, 0.0), (10.0, 0.0)])
    tilted = np.array([(0.0, 10.0), (10.0, 0.0)])
    assert opening_deg(flat, tilted) == pytest.approx(45.0)
    assert opening_deg(tilted, flat) == pytest.approx(-45.0)


def test_sizes_stay_human():
    spines = [drawn(seed) for seed in range(60)]
    depth = [math.dist(*spine.bodies["L3"][:2]) for spine in spines]
    height = [math.dist(spine.bodies["L3"][1], spine.bodies["L3"][3]) for spine in spines]
    lordosis = [opening_deg(spine.bodies["L1"][:2], spine.sacrum) for spine in spines]
    assert 25 < min(depth) < max(depth) < 45
    assert 20 < min(height) < max(height) < 36
    assert 18 < min(lordosis) < max(lordosis) < 85


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


def test_truncated_normal_has_the_moments_of_a_cut_bell():
    rng = np.random.default_rng(6)
    values = np.array([truncated_normal(rng, 0.0, 1.0, -1.0, 1.0) for _ in range(8000)])
    # Variance of a standard normal cut at +-1: 1 - 2 phi(1) / (2 Phi(1) - 1) = 0.2911.
    assert values.var() == pytest.approx(0.2911, abs=0.01)
    assert np.abs(values).max() <= 1.0


@pytest.mark.parametrize(
    "wrong", [{"grade_weights": (0, 0, 0, 0, 0)}, {"level_weights": {"L6-S1": 1.0}}, {"margin_percent": 2.5}]
)
def test_slip_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        SlipSettings(**wrong)
