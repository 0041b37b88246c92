"""Peaks of two diameters chosen together; views that number the ends differently."""

from dataclasses import replace

import numpy as np
import pytest

from bregma.geometry import Frame
from bregma.inference import Places
from bregma.prediction.pairing import choose_together
from bregma.prediction.predictor import mixture, reordered
from bregma.shape_model import ShapeModel, flag_outliers
from bregma.types import Prediction

FRAME = Frame((200, 200), None, "none")
HEAD = np.array([(30.0, 100.0), (170.0, 100.0), (100.0, 44.0), (100.0, 156.0)])
"""A diameter of 140 across one of 112: a ratio of 0.8."""
MODEL = ShapeModel((HEAD - 100) / np.sqrt(((HEAD - 100) ** 2).sum(1).mean()), 1e-3 * np.eye(8), 50)
SETS = ((0, 1), (2, 3))


def places(members, *found, presence=None):
    """Candidates ``(x, y, mass)`` of a set."""
    rows = np.array(found)
    return Places(members, rows[:, :2], np.tile(2 * np.eye(2), (len(rows), 1, 1)), rows[:, 2], presence)


def prediction(mean, presence=(1, 1, 1, 1)):
    return Prediction("a", np.asarray(mean, float), np.tile(np.eye(2), (len(mean), 1, 1)), np.array(presence), FRAME)


def chosen(first, second, *, weight=1.0, model=MODEL):
    sets = (places((0, 1), *first), places((2, 3), *second))
    alone = np.concatenate([one.mean[:2] for one in sets])
    return choose_together(prediction(alone), sets, model, weight=weight)


LONG, SHORT = [(30, 100, 0.5), (170, 100, 0.4)], [(100, 44, 0.5), (100, 156, 0.4)]


def test_a_diameter_does_not_take_an_end_of_the_other():
    stolen = [(30, 100, 0.5), (100, 45, 0.3), (170, 100, 0.2)]
    np.testing.assert_allclose(chosen(stolen, SHORT).mean, HEAD)
    # Left to itself it would.
    np.testing.assert_allclose(chosen(stolen, SHORT, weight=0.0).mean[:2], [(30, 100), (100, 45)])


def test_a_spurious_third_peak_is_rejected_however_bright():
    echo = [(60, 60, 0.6), (100, 44, 0.2), (100, 156, 0.1)]
    found = chosen(LONG, echo)
    np.testing.assert_allclose(found.mean, HEAD)
    # Masses 0.2 and 0.1 are 4/3 and 2/3 of an equal share.
    assert found.presence[2:] == pytest.approx([1.0, 1.125 * (2 / 3) / (2 / 3 + 0.125)])


def test_an_uncommon_head_without_rivals_stays_as_it_is():
    narrow = [(100, 70, 0.5), (100, 130, 0.5)]
    np.testing.assert_allclose(chosen(LONG, narrow).mean, [(30, 100), (170, 100), (100, 70), (100, 130)])


def test_ends_come_from_left_to_right_whatever_order_the_model_has():
    flipped = ShapeModel(MODEL.mean[[1, 0, 3, 2]], MODEL.cov, 50)
    np.testing.assert_allclose(chosen(LONG[::-1], SHORT[::-1], model=flipped).mean, HEAD)


def test_a_set_with_too_few_peaks_is_left_as_the_codec_had_it():
    one = [(100, 44, 1.0), (99.5, 99.5, 0.0)]
    np.testing.assert_allclose(chosen(LONG, one).mean[2:], [(100, 44), (99.5, 99.5)])


def test_learned_presence_follows_the_mass():
    sets = (places((0, 1), *LONG), places((2, 3), (100, 156, 0.6), (100, 44, 0.3), presence=np.array([0.9, 0.2])))
    found = choose_together(prediction(HEAD), sets, MODEL, weight=1.0)
    assert found.presence[2:] == pytest.approx([0.2, 0.9])


def test_many_sets_are_arranged_one_after_another():
    # Six pairs with six places each: 30^6 arrangements.
    angles = np.arange(12) * np.pi / 6
    mean = np.stack([np.cos(angles), np.sin(angles)], 1)
    pairs = tuple((n, n + 6) for n in range(6))
    model = ShapeModel(mean, 1e-3 * np.eye(24), 50)
    points = 100 + 70 * mean
    rng = np.random.default_rng(0)
    sets = [
        places((a, b), *([*points[n], 0.2] for n in (a, b)), *([*rng.uniform(60, 140, 2), 0.15] for _ in range(4)))
        for a, b in pairs
    ]
    found = choose_together(prediction(points, np.ones(12)), sets, model, weight=1.0)
    for a, b in pairs:
        np.testing.assert_allclose(sorted(found.mean[[a, b]].tolist()), sorted(points[[a, b]].tolist()))


def test_views_are_averaged_end_by_end():
    first, second = prediction(HEAD, (0.9, 1, 1, 1)), prediction(HEAD[[1, 0, 3, 2]] + 1.0, (1, 0.7, 1, 1))
    mixed = mixture([first, second], SETS)
    np.testing.assert_allclose(mixed.mean, HEAD + 0.5)
    assert mixed.presence == pytest.approx([0.8, 1, 1, 1])
    # The views' own variance and that between them, a quarter along each axis.
    np.testing.assert_allclose(mixed.cov, np.tile(np.eye(2) + 0.25, (4, 1, 1)))


def test_a_vertical_pair_keeps_its_ends_over_turned_views():
    upright = HEAD.copy()
    upright[2:] = (99.8, 44.0), (100.2, 156.0)
    turned = upright.copy()
    turned[2:] = (99.9, 156.0), (100.1, 44.0)  # From left to right in this view.
    np.testing.assert_allclose(mixture([prediction(upright), prediction(turned)], SETS).mean[2:, 1], [44.0, 156.0])


class TestEvidence:
    def test_views_that_disagree_say_so(self):
        far = HEAD.copy()
        far[1] += (6.0, 8.0)
        mixed = mixture([prediction(HEAD), prediction(far)], SETS)
        # Two views 10 px apart lie 5 px from their mean.
        np.testing.assert_allclose(mixed.view_spread, [0, 5, 0, 0], atol=1e-9)
        # Two such means 10 px apart: 5 px between and 5 px within.
        again = mixture([mixed, reordered(mixed, np.arange(4))])
        np.testing.assert_allclose(again.view_spread, [0, 5, 0, 0], atol=1e-9)
        assert prediction(HEAD).view_spread is None

    def test_a_point_that_contradicts_the_others_is_flagged_and_stays(self):
        # Deviations of 0.0316 of the size 63.4 px are 2 px.
        off = HEAD.copy()
        off[1] += (40.0, 30.0)
        flagged = flag_outliers(prediction(off), MODEL, limit=6.0, sets=SETS)
        assert flagged.flags is not None
        assert [bool(why) for why in flagged.flags] == [False, True, False, False]
        assert "standard deviations" in flagged.flags[1]
        np.testing.assert_array_equal(flagged.mean, off)
        assert Prediction.from_dict(flagged.to_dict()).flags == flagged.flags

    def test_nothing_is_flagged_on_a_usual_head_whatever_the_order_of_its_ends(self):
        for order in ([0, 1, 2, 3], [1, 0, 2, 3], [1, 0, 3, 2]):
            assert flag_outliers(prediction(HEAD[order] + 0.5), MODEL, limit=6.0, sets=SETS).flags == ("",) * 4

    def test_a_point_that_is_not_there_is_not_flagged(self):
        off = HEAD.copy()
        off[1] += (40.0, 30.0)
        flags = flag_outliers(prediction(off, (1, 0.2, 1, 1)), MODEL, limit=6.0, sets=SETS).flags
        assert flags is not None
        assert flags[1] == ""

    def test_flags_follow_their_points(self):
        one = replace(prediction(HEAD), flags=("", "why", "", ""))
        assert reordered(one, np.array([1, 0, 2, 3])).flags == ("why", "", "", "")
        mixed = mixture([prediction(HEAD), replace(prediction(HEAD[[1, 0, 2, 3]]), flags=("why", "", "", ""))], SETS)
        assert mixed.flags == ("", "why", "", "")

    def test_draws_follow_their_points_and_end_with_a_mixture(self):
        draws = np.arange(16.0).reshape(2, 4, 2)
        one = replace(prediction(HEAD), samples=draws)
        np.testing.assert_array_equal(reordered(one, np.array([1, 0, 2, 3])).samples, draws[:, [1, 0, 2, 3]])
        assert mixture([one, one]).samples is None
