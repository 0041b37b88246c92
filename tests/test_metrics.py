"""Figures and intervals against hand-worked numbers, plain numpy on resampled lists, and simulated coverage."""

from __future__ import annotations

import math
from time import perf_counter

import numpy as np
import pytest
from scipy import stats

from bregma import metrics


def test_radial_errors_in_px_and_mm() -> None:
    predicted = np.array([[3.0, 4.0], [10.0, 10.0]])
    true = np.array([[0.0, 0.0], [10.0, 16.0]])
    np.testing.assert_allclose(metrics.radial_errors(predicted, true), [5.0, 6.0])
    # 0.5 mm along x and 2 mm along y: (1.5, 8) and (0, -12).
    expected = [math.sqrt(1.5**2 + 8.0**2), 12.0]
    np.testing.assert_allclose(metrics.radial_errors(predicted, true, spacing=(0.5, 2.0)), expected)


def test_radial_errors_of_points_that_are_not_scored_are_nan() -> None:
    errors = metrics.radial_errors(np.zeros((2, 2)), np.ones((2, 2)), scored=[True, False])
    assert errors[0] == pytest.approx(math.sqrt(2))
    assert math.isnan(errors[1])


def test_plain_figures_leave_out_what_is_not_known() -> None:
    errors = np.array([[1.0, 3.0], [np.nan, 8.0]])
    assert metrics.mean_radial_error(errors) == 4.0
    assert metrics.error_sd(errors) == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert metrics.error_quantile(errors, 0.5) == 3.0
    assert metrics.detection_rate(errors, 3.0) == pytest.approx(200 / 3)
    assert metrics.detection_rate(errors, 3.0, labelled=4) == 50.0
    np.testing.assert_array_equal(metrics.image_errors(errors), [2.0, 8.0])
    np.testing.assert_array_equal(metrics.outliers(errors, 2.0), [1, 1])
    np.testing.assert_array_equal(metrics.normalised_errors(errors, [50.0, 0.0])[0], [2.0, 6.0])
    assert np.isnan(metrics.normalised_errors(errors, [50.0, 0.0])[1]).all()
    assert metrics.mean_absolute_error([1.0, 5.0, np.nan], [2.0, 2.0, 2.0]) == 2.0
    assert metrics.bias([1.0, 5.0, np.nan], [2.0, 2.0, 2.0]) == 1.0


def test_nothing_known_gives_none_and_not_a_number() -> None:
    nothing = np.full((2, 3), np.nan)
    assert metrics.mean_radial_error(nothing) is None
    assert metrics.error_sd([1.0]) is None
    assert metrics.error_quantile(nothing, 0.5) is None
    assert metrics.detection_rate(nothing, 2.0) is None
    assert np.isnan(metrics.image_errors(nothing)).all()


def _statistics(values: np.ndarray, subject: np.ndarray, subjects: int) -> dict[str, metrics.Statistic]:
    return {
        "mean": metrics.mean_statistic(values, subject, subjects),
        "sd": metrics.sd_statistic(values, subject, subjects),
        "median": metrics.quantile_statistic(values, subject, subjects, 0.5),
        "p95": metrics.quantile_statistic(values, subject, subjects, 0.95),
        "max": metrics.max_statistic(values, subject, subjects),
    }


_PLAIN = {
    "mean": np.mean,
    "sd": lambda v: np.std(v, ddof=1),
    "median": np.median,
    "p95": lambda v: np.quantile(v, 0.95),
    "max": np.max,
}


@pytest.mark.parametrize("size", [2, 3, 7, 50, 401])
@pytest.mark.parametrize("name", list(_PLAIN))
def test_statistics_equal_numpy_on_the_written_out_resample(name: str, size: int) -> None:
    generator = np.random.default_rng(size)
    values = np.round(generator.gamma(2.0, 2.0, size), 1)  # rounding makes ties
    subject = np.concatenate([[0, 1], generator.integers(0, 5, size - 2)])
    statistic = _statistics(values, subject, 5)[name]
    checked = 0
    for weights in next(metrics.resamples(5, draws=40, seed=1)):
        written_out = np.repeat(values, weights[subject].astype(int))
        if written_out.size > 1:
            assert statistic(weights[None])[0] == pytest.approx(_PLAIN[name](written_out), rel=1e-12, abs=1e-12)
            checked += 1
    assert checked > 10


def test_resample_without_any_value_is_undefined() -> None:
    for statistic in _statistics(np.array([1.0, 2.0]), np.array([0, 0]), 2).values():
        assert np.isnan(statistic(np.array([[0.0, 2.0]]))[0])
    for statistic in _statistics(np.full(3, np.nan), np.array([0, 1, 1]), 2).values():
        assert metrics.figure_of(statistic, 2) is None
        assert metrics.bootstrap([statistic], 2) == (None,)


def test_statistics_of_each_subject_alone() -> None:
    statistic = metrics.mean_statistic([1.0, 3.0, 10.0], [0, 0, 2], 3)
    np.testing.assert_array_equal(metrics.per_subject(statistic, 3), [2.0, np.nan, 10.0])


def test_a_figure_in_large_numbers_keeps_its_digits() -> None:
    statistic = metrics.sd_statistic(1e8 + np.array([0.0, 1.0, 2.0]), [0, 1, 2], 3)
    assert metrics.figure_of(statistic, 3) == pytest.approx(1.0, rel=1e-9)


def test_one_subject_has_no_interval() -> None:
    assert metrics.bootstrap([metrics.mean_statistic([1.0, 2.0], [0, 0], 1)], 1) == (None,)


def test_two_subjects_give_the_interval_that_can_be_worked_out() -> None:
    # Resamples are (a, a), (a, b) or (b, b) with 1/4, 1/2, 1/4: the mean is 0, 5 or 10.
    statistic = metrics.mean_statistic([0.0, 10.0], [0, 1], 2)
    assert metrics.bootstrap([statistic], 2, draws=4000) == ((0.0, 10.0),)
    assert metrics.bootstrap([statistic], 2, draws=4000, level=0.4) == ((5.0, 5.0),)


def test_the_same_seed_gives_the_same_interval() -> None:
    statistic = metrics.mean_statistic(np.arange(30.0), np.arange(30), 30)
    first = metrics.bootstrap([statistic], 30, seed=3)
    assert metrics.bootstrap([statistic], 30, seed=3) == first
    assert metrics.bootstrap([statistic], 30, seed=4) != first


def test_resamples_come_in_parts_that_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(metrics.resamples(7, draws=50, seed=2)))
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 21)
    parts = list(metrics.resamples(7, draws=50, seed=2))
    assert [len(part) for part in parts] == [3] * 16 + [2]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole.sum(axis=1) == 7).all()


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(3.0, 1.0, 60)
    (ours,) = metrics.bootstrap([metrics.mean_statistic(values, np.arange(60), 60)], 60, draws=20000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert ours is not None
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_images_of_one_subject_do_not_narrow_the_interval() -> None:
    """Ten equal images of each subject say no more than one: the interval is that of the subjects."""
    per_subject = np.random.default_rng(5).normal(5.0, 2.0, 25)
    once = metrics.bootstrap([metrics.mean_statistic(per_subject, np.arange(25), 25)], 25)
    images = np.repeat(per_subject, 10)
    grouped = metrics.bootstrap([metrics.mean_statistic(images, np.repeat(np.arange(25), 10), 25)], 25)
    as_if_independent = metrics.bootstrap([metrics.mean_statistic(images, np.arange(250), 250)], 250)
    assert once[0] is not None
    assert grouped[0] == pytest.approx(once[0])
    assert as_if_independent[0] is not None
    ratio = (once[0][1] - once[0][0]) / (as_if_independent[0][1] - as_if_independent[0][0])
    assert ratio == pytest.approx(math.sqrt(10), rel=0.1)


def test_coverage_of_correlated_images() -> None:
    """95 % intervals over 60 subjects with 4 correlated images each hold the true mean about 95 % of the time."""
    generator, held, trials = np.random.default_rng(11), 0, 400
    subject = np.repeat(np.arange(60), 4)
    for trial in range(trials):
        values = generator.normal(0.0, 1.0, 60)[subject] + generator.normal(0.0, 0.5, 240)
        (interval,) = metrics.bootstrap([metrics.mean_statistic(values, subject, 60)], 60, draws=400, seed=trial)
        assert interval is not None
        held += interval[0] <= 0.0 <= interval[1]
    # Binomial spread over 400 trials is 1.1 %; images resampled as if independent would hold it about 70 % of the time.
    assert 0.91 <= held / trials <= 0.98


def test_a_whole_evaluation_is_resampled_within_a_second_or_two() -> None:
    errors = np.random.default_rng(0).gamma(2.0, 2.0, (813, 15))
    subject = np.repeat(np.arange(813), 15)
    several = list(_statistics(errors.ravel(), subject, 813).values()) * 3
    several += [metrics.mean_statistic(errors.ravel() <= t, subject, 813) for t in range(1, 13)]
    start = perf_counter()
    metrics.bootstrap(several, 813)
    assert perf_counter() - start < 6.0  # about 0.5 s on a free core; the bound allows for a busy machine


def test_a_ratio_of_sums_is_weighted_by_subject() -> None:
    # Subject 0: 3 of 4; subject 1: 1 of 6.
    statistic = metrics.ratio_statistic([1, 2, 1], [2, 2, 6], [0, 0, 1], 2)
    assert statistic(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])) == pytest.approx(
        [0.4, 0.75, 1 / 6, np.nan], nan_ok=True
    )
