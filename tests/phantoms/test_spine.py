"""The spine's shape: slips, angles and sizes worked out again by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bregma.phantoms.sampling import TruncatedNormal
from bregma.phantoms.slip import SlipSettings, sample_slips
from bregma.phantoms.spine import LEVELS, SpineSettings, build_spine, opening_deg, sample_spine

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


def test_spine_settings_are_honoured():
    narrow = TruncatedNormal(mean=60.0, sd=1.0, low=59.0, high=61.0)
    tall = TruncatedNormal(mean=1.1, sd=0.01, low=1.09, high=1.11)
    for seed in range(10):
        p = sample_spine(np.random.default_rng(seed), {}, SpineSettings(lordosis_deg=narrow, size=tall))
        assert 59 <= p.lordosis_deg <= 61
        assert 1.09 <= p.size <= 1.11
