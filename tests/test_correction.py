"""A linear correction learned on what a network gets wrong on its training images."""

import numpy as np
import pytest

from bregma.correction import MIN_CASES, Correction, learn_correction
from bregma.errors import InputError

N = 6


def chests(count, seed=0, *, noise=6.0):
    """Points whose heights all hang on two ends of an axis, and what a network says: ends that it sees badly."""
    rng = np.random.default_rng(seed)
    top, length = 40 + rng.normal(0, 3, count), 100 + rng.normal(0, 6, count)
    share = np.linspace(0, 1, N)
    x = 50 + 20 * share + rng.normal(0, 2, (count, 1)) * np.ones(N)
    true = np.stack([x, top[:, None] + length[:, None] * share], -1)
    seen = true + rng.normal(0, 0.5, true.shape)
    # The lower end is seen with an error that the others share by how far down they are.
    seen[..., 1] += rng.normal(0, noise, (count, 1)) * share
    return seen, true


def error(points, true):
    return float(np.linalg.norm(points - true, axis=-1).mean())


def learned(count=400, **more):
    seen, true = chests(count, **more)
    return learn_correction(seen, true, [str(i) for i in range(count)])


def test_errors_that_points_share_become_smaller_on_other_images():
    correction = learned()
    seen, true = chests(300, seed=1)
    fixed = np.array([correction.apply(points) for points in seen])
    # Of a length that varies by 6 and is seen with an error of 6, half the error is best: 1 / sqrt(2) remains.
    assert error(fixed, true) < 0.85 * error(seen, true)
    assert correction.after == pytest.approx(error(fixed, true), rel=0.1)
    assert correction.before == pytest.approx(error(seen, true), rel=0.1)


def test_a_shift_of_the_whole_image_shifts_the_points_and_no_more():
    correction = learned()
    points = chests(1, seed=2)[0][0]
    shift = np.array([30, -7])
    np.testing.assert_allclose(correction.apply(points + shift), correction.apply(points) + shift)


def test_a_bias_is_taken_off_whatever_the_penalty():
    seen, true = chests(200, noise=0.0)
    low = seen + np.array([0.0, 4.0])
    correction = learn_correction(low, true, [str(i) for i in range(200)])
    assert error(correction.apply(low[0]), true[0]) < 1.0


def test_where_nothing_can_be_learned_there_is_no_correction():
    rng = np.random.default_rng(3)
    true = rng.uniform(0, 100, (60, N, 2))
    known_by_heart = true.copy()
    assert learn_correction(known_by_heart, true, [str(i) for i in range(60)]) is None
    few = MIN_CASES - 1
    assert learned(few) is None
    seen, true = chests(100)
    assert learn_correction(seen, true, ["the same"] * 100) is None


def test_images_of_one_subject_are_in_one_fold():
    """Ten subjects with a hundred images each that err alike: across subjects there is nothing to learn."""
    rng = np.random.default_rng(4)
    true = rng.normal(0, 20, (10, 1, N, 2)) + np.zeros((10, 100, 1, 1))
    seen = true + rng.normal(0, 5, (10, 1, N, 2)) + rng.normal(0, 0.1, (10, 100, N, 2))
    flat = (seen.reshape(-1, N, 2), true.reshape(-1, N, 2))
    known = learn_correction(*flat, [str(i // 100) for i in range(1000)])
    each_alone = learn_correction(*flat, [str(i) for i in range(1000)])
    assert each_alone is not None
    assert each_alone.after < 1
    assert known is None or known.after > 0.8 * known.before


def test_it_round_trips_and_refuses_what_is_none():
    correction = learned()
    again = Correction.from_dict(correction.to_dict())
    points = chests(1)[0][0]
    np.testing.assert_array_equal(again.apply(points), correction.apply(points))
    with pytest.raises(InputError, match="not a correction"):
        Correction.from_dict({"mean": [0, 0]})
    with pytest.raises(InputError, match="contradicts itself"):
        Correction(np.zeros(4), np.zeros(4), np.zeros((4, 3)), 1, 0, 0)
    with pytest.raises(InputError, match="not finite"):
        Correction(np.zeros(2), np.full(2, np.nan), np.zeros((2, 2)), 1, 0, 0)
    with pytest.raises(InputError, match="do not fit"):
        correction.apply(points[:3])
