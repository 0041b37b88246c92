"""Figures of predicted against true values, against scipy and by hand, whole and resampled."""

import numpy as np
import pytest
from scipy import stats

from bregma.evaluation.regression import regression_statistics

RNG = np.random.default_rng(0)
TRUE = RNG.normal(120, 35, 40)
PREDICTED = 60 + 0.5 * TRUE + RNG.normal(0, 12, 40)
SUBJECT = np.repeat(np.arange(20), 2)


def figures(predicted=PREDICTED, true=TRUE, subject=SUBJECT, subjects=20, weights=None):
    counts = np.ones((1, subjects)) if weights is None else np.asarray(weights, float)[None]
    found = regression_statistics(predicted, true, subject, subjects)
    return {name: float(statistic(counts)[0]) for name, statistic in found.items()}


def expected(p, t):
    line = stats.linregress(p, t)
    return {
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "r2": 1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum(),
        "pearson": stats.pearsonr(p, t)[0],
        "spearman": stats.spearmanr(p, t)[0],
        "mape": 100 * np.mean(np.abs(p - t) / np.abs(t)),
        "slope": line.slope,
        "intercept": line.intercept,
    }


def test_they_are_those_of_the_textbook():
    assert figures() == pytest.approx(expected(PREDICTED, TRUE))


def test_a_resample_is_as_if_its_subjects_were_there_so_often():
    counts = RNG.integers(0, 4, 20)
    rows = np.repeat(np.arange(40), counts[SUBJECT])
    assert figures(weights=counts) == pytest.approx(expected(PREDICTED[rows], TRUE[rows]))


def test_ties_share_their_rank():
    p, t = np.array([1.0, 1, 2, 3, 3, 3]), np.array([2.0, 1, 2, 5, 4, 4])
    found = figures(p, t, np.arange(6), 6)
    assert found["spearman"] == pytest.approx(stats.spearmanr(p, t)[0])
    counts = np.array([2, 0, 1, 3, 1, 1])
    rows = np.repeat(np.arange(6), counts)
    assert figures(p, t, np.arange(6), 6, counts)["spearman"] == pytest.approx(stats.spearmanr(p[rows], t[rows])[0])


def test_who_always_says_the_mean_has_an_r2_of_zero_and_no_correlation():
    found = figures(np.full(40, TRUE.mean()))
    assert found["r2"] == pytest.approx(0.0)
    assert np.isnan([found["pearson"], found["spearman"], found["slope"]]).all()


def test_values_that_do_not_differ_leave_no_r2():
    assert np.isnan(figures(true=np.full(40, 3.0))["r2"])


def test_pairs_that_are_not_complete_are_left_out():
    p, t = PREDICTED.copy(), TRUE.copy()
    p[3], t[7] = np.nan, np.nan
    keep = np.isfinite(p) & np.isfinite(t)
    assert figures(p, t) == pytest.approx(expected(p[keep], t[keep]))
