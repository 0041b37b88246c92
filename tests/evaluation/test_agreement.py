"""Agreement against published worked examples, and against analyses of variance written out over each resample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bregma import metrics
from bregma.evaluation import agreement
from bregma.metrics import Statistic

# Bland & Altman 1986, Lancet 327:307-310, table 1: peak expiratory flow of 17 subjects, first reading of each meter.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# Bland & Altman 2007, J Biopharm Stat 17:571-582, table 1: cardiac output of 12 subjects by two methods (RV, IC).
CARDIAC = {
    1: [(7.83, 6.57), (7.42, 5.62), (7.89, 6.90), (7.12, 6.57), (7.88, 6.35)],
    2: [(6.16, 4.06), (7.26, 4.29), (6.71, 4.26), (6.54, 4.09)],
    3: [(4.75, 4.71), (5.24, 5.50), (4.86, 5.08), (4.78, 5.02), (6.05, 6.01), (5.42, 5.67)],
    4: [(4.21, 4.14), (3.61, 4.20), (3.72, 4.61), (3.87, 4.68), (3.92, 5.04)],
    5: [(3.13, 3.03), (2.98, 2.86), (2.85, 2.77), (3.17, 2.46), (3.09, 2.32), (3.12, 2.43)],
    6: [(5.92, 5.90), (6.42, 5.81), (5.92, 5.70), (6.27, 5.76)],
    7: [(7.13, 5.09), (6.62, 4.63), (6.58, 4.61), (6.93, 5.09)],
    8: [(4.54, 4.72), (4.81, 4.61), (5.11, 4.36), (5.29, 4.20), (5.39, 4.36), (5.57, 4.20)],
    9: [(4.48, 3.17), (4.92, 3.12), (3.97, 2.96)],
    10: [(4.22, 4.35), (4.65, 4.62), (4.74, 3.16), (4.44, 3.53), (4.50, 3.53)],
    11: [(6.78, 7.20), (6.07, 6.09), (6.52, 7.00), (6.42, 7.10), (6.41, 7.40), (5.76, 6.80)],
    12: [(5.06, 4.50), (4.72, 4.20), (4.90, 3.80), (4.80, 3.80), (4.90, 4.20), (5.10, 4.50)],
}

# Shrout & Fleiss 1979, Psychol Bull 86:420-428, table 2: six targets rated by four judges.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def _figure(statistic: Statistic, subjects: int) -> float:
    value = metrics.figure_of(statistic, subjects)
    assert value is not None
    return value


def test_peak_flow_of_bland_and_altman_1986() -> None:
    difference = np.array(WRIGHT, float) - MINI
    sd = agreement.sd_of_differences(difference, np.arange(17), 17)
    assert _figure(metrics.mean_statistic(difference, np.arange(17), 17), 17) == pytest.approx(-2.1, abs=0.05)
    assert _figure(sd, 17) == pytest.approx(38.8, abs=0.05)
    # The paper takes two standard deviations: -79.7 and 75.5 l/min, from rounded figures.
    low, high = (agreement.limit_of_agreement(difference, np.arange(17), 17, sds=sds) for sds in (-2, 2))
    assert _figure(low, 17) == pytest.approx(-79.7, abs=0.1)
    assert _figure(high, 17) == pytest.approx(75.5, abs=0.1)


def test_repeated_measures_of_bland_and_altman_2007() -> None:
    subject = np.repeat(np.arange(12), [len(pairs) for pairs in CARDIAC.values()])
    rv, ic = np.array([pair for pairs in CARDIAC.values() for pair in pairs]).T
    grouped = (rv - ic, subject, 12)
    # Published: mean squares 4.2091 and 0.1707, divisor 4.98, variance 0.9813, limits -1.34 and 2.54.
    assert _figure(agreement.sd_of_differences(*grouped), 12) ** 2 == pytest.approx(0.98133606, abs=1e-7)
    limits = [_figure(agreement.limit_of_agreement(*grouped, sds=sds), 12) for sds in (-1.96, 1.96)]
    assert limits == pytest.approx([-1.3394565, 2.5437899], abs=1e-6)
    # Ignoring that pairs belong to subjects gives the smaller 0.9611 of the paper's section 2.
    assert _figure(agreement.sd_of_differences(rv - ic, np.arange(60), 60), 60) == pytest.approx(0.9610571, abs=1e-6)


def test_icc_of_shrout_and_fleiss_1979() -> None:
    assert _figure(agreement.absolute_agreement_icc(SHROUT_FLEISS, np.arange(6), 6), 6) == pytest.approx(0.29, abs=5e-3)


def test_icc_of_two_readers_worked_out_by_hand() -> None:
    # Means of targets 1.5, 4 and 6.5: BMS = 2 * 12.5 / 2. Raters' means 10 / 3 and 14 / 3: JMS = 3 * 2 * (2 / 3)**2.
    ratings = [[1.0, 2.0], [3.0, 5.0], [6.0, 7.0]]
    bms, jms, total = 12.5, 8 / 3, 28.0
    ems = (total - 2 * bms - jms) / 2
    expected = (bms - ems) / (bms + ems + 2 * (jms - ems) / 3)
    assert _figure(agreement.absolute_agreement_icc(ratings, range(3), 3), 3) == pytest.approx(expected, rel=1e-12)


def _table(counts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    cells = [(i, j) for (i, j), count in np.ndenumerate(np.array(counts)) for _ in range(count)]
    first, second = np.array(cells).T
    return first, second


def _kappa(first: np.ndarray, second: np.ndarray, disagreement: np.ndarray) -> float:
    n = len(first)
    return _figure(agreement.weighted_kappa(first, second, np.arange(n), n, disagreement=disagreement), n)


def test_weighted_kappa_of_cohen_1968() -> None:
    # Cohen 1968, Psychol Bull 70:213-220, table 1: 200 diagnoses; kappa 0.492 and weighted kappa 0.348.
    first, second = _table([[88, 10, 2], [14, 40, 6], [18, 10, 12]])
    assert _kappa(first, second, 1.0 - np.eye(3)) == pytest.approx(0.492, abs=5e-4)
    assert _kappa(first, second, np.array([[0, 1, 3], [1, 0, 6], [3, 6, 0]])) == pytest.approx(0.348, abs=5e-4)


def test_linear_kappa_as_printed_by_sas() -> None:
    # PROC FREQ on this table: simple kappa 0.4842, weighted (Cicchetti-Allison) kappa 0.4701.
    first, second = _table([[0, 4, 1], [0, 8, 0], [0, 1, 5]])
    assert _kappa(first, second, 1.0 - np.eye(3)) == pytest.approx(0.4842, abs=5e-5)
    assert _kappa(first, second, agreement.graded_disagreement(3, power=1)) == pytest.approx(0.4701, abs=5e-5)


def test_linear_and_quadratic_kappa_as_printed_by_r() -> None:
    # Raters 2 and 3 of the set ``anxiety`` of R's irr: kappa2(..., "equal") and kappa2(..., "squared").
    second = [3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4]
    third = [2, 1, 4, 4, 3, 2, 1, 6, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2]
    # kappa2 numbers the grades in use, of which there are five.
    first, other = (np.searchsorted([1, 2, 3, 4, 6], grades) for grades in (second, third))
    assert _kappa(first, other, agreement.graded_disagreement(5, power=1)) == pytest.approx(0.1459075, abs=5e-8)
    assert _kappa(first, other, agreement.graded_disagreement(5, power=2)) == pytest.approx(0.2520325, abs=5e-8)


def test_quadratic_kappa_is_lin_s_concordance_of_the_ranks() -> None:
    generator = np.random.default_rng(3)
    first = generator.integers(0, 6, 200)
    second = np.clip(first + generator.integers(-1, 3, 200), 0, 5)
    covariance = np.cov(first, second, ddof=0)
    concordance = 2 * covariance[0, 1] / (np.trace(covariance) + (first.mean() - second.mean()) ** 2)
    assert _kappa(first, second, agreement.graded_disagreement(6, power=2)) == pytest.approx(concordance, rel=1e-12)


def _anova_sd(groups: list[np.ndarray]) -> float:
    """One-way analysis of variance of the differences, subject by subject."""
    everything, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    n, k = len(everything), len(groups)
    between = sum(len(group) * (group.mean() - everything.mean()) ** 2 for group in groups) / (k - 1)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (n - k)
    divisor = (n**2 - (sizes**2).sum()) / ((k - 1) * n)
    return math.sqrt(within + max(0.0, (between - within) / divisor))


def _anova_icc(x: np.ndarray) -> float:
    """Two-way analysis of variance without replication."""
    n, k = x.shape
    grand = x.mean()
    bms = k * ((x.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    jms = n * ((x.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    rest = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0) + grand
    ems = (rest**2).sum() / ((n - 1) * (k - 1))
    return float((bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n))


def _plain_kappa(first: np.ndarray, second: np.ndarray, power: int) -> float:
    """Mean disagreement of the pairs over that of all crossed pairs."""
    return 1.0 - float((np.abs(first - second) ** power).mean() / (np.abs(first[:, None] - second) ** power).mean())


@pytest.fixture
def clustered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subjects, true and predicted values; errors of one subject resemble each other."""
    generator = np.random.default_rng(11)
    subject = np.repeat(np.arange(8), generator.integers(1, 6, 8))
    true = 1000.0 + generator.normal(0, 5, len(subject))
    shared = generator.normal(0.5, 1.0, 8)[subject]
    return subject, true, true + shared + generator.normal(0, 0.6, len(subject))


def _each_resample(
    subject: np.ndarray, statistic: Statistic, plain: Callable[[list[np.ndarray]], float], draws: int = 30
) -> None:
    """Compare with ``plain`` of the row numbers of each drawn subject."""
    subjects = int(subject.max()) + 1
    for weights in next(metrics.resamples(subjects, draws=draws, seed=2)):
        drawn = [np.flatnonzero(subject == s) for s in range(subjects) for _ in range(int(weights[s]))]
        assert statistic(weights[None])[0] == pytest.approx(plain(drawn), rel=1e-9, abs=1e-12)


def test_statistics_equal_those_of_the_written_out_resample(clustered: tuple[np.ndarray, ...]) -> None:
    subject, true, predicted = clustered
    d = predicted - true
    sd = agreement.sd_of_differences(d, subject, 8)
    _each_resample(subject, sd, lambda rows: _anova_sd([d[r] for r in rows]))
    low = agreement.limit_of_agreement(d, subject, 8, sds=-1.96)
    _each_resample(
        subject, low, lambda rows: float(d[np.concatenate(rows)].mean()) - 1.96 * _anova_sd([d[r] for r in rows])
    )
    both = np.stack([predicted, true], axis=1)
    icc = agreement.absolute_agreement_icc(both, subject, 8)
    _each_resample(subject, icc, lambda rows: _anova_icc(both[np.concatenate(rows)]))
    a, b = (np.digitize(values, [996.0, 1000.0, 1004.0]) for values in (true, predicted))
    for power in (1, 2):
        kappa = agreement.weighted_kappa(a, b, subject, 8, disagreement=agreement.graded_disagreement(4, power=power))

        def plain(rows: list[np.ndarray], power: int = power) -> float:
            index = np.concatenate(rows)
            return _plain_kappa(a[index], b[index], power)

        _each_resample(subject, kappa, plain)


def test_pairs_that_are_not_known_are_left_out(clustered: tuple[np.ndarray, ...]) -> None:
    subject, true, predicted = clustered
    holes = predicted.copy()
    holes[::4] = np.nan
    known = np.isfinite(holes)
    for make in (
        lambda p, t, s: agreement.sd_of_differences(p - t, s, 8),
        lambda p, t, s: agreement.absolute_agreement_icc(np.stack([p, t], axis=1), s, 8),
    ):
        with_holes = _figure(make(holes, true, subject), 8)
        assert with_holes == pytest.approx(_figure(make(predicted[known], true[known], subject[known]), 8), rel=1e-12)


def test_what_is_not_defined_is_none() -> None:
    one = np.ones((1, 1))
    assert np.isnan(agreement.sd_of_differences([1.0, 2.0], [0, 0], 1)(one))
    assert np.isnan(agreement.sd_of_differences([], [], 1)(one))
    assert np.isnan(agreement.absolute_agreement_icc([[1.0, 2.0]], [0], 1)(one))
    assert np.isnan(agreement.absolute_agreement_icc(np.full((4, 2), 0.1), range(4), 4)(np.ones((1, 4))))
    # A resample that holds a single target, though the sample holds two.
    lone = agreement.absolute_agreement_icc([[0.1, 0.1], [0.7, 0.7]], [0, 1], 2)
    assert np.isnan(lone(np.array([[2.0, 0.0]])))
    assert lone(np.ones((1, 2)))[0] == pytest.approx(1.0)
    weights = agreement.graded_disagreement(3, power=2)
    assert np.isnan(agreement.weighted_kappa([1, 1], [1, 1], [0, 1], 2, disagreement=weights)(np.ones((1, 2))))
    assert np.isnan(agreement.weighted_kappa([np.nan], [1], [0], 1, disagreement=weights)(one))


def test_equal_differences_have_no_spread() -> None:
    sd = agreement.sd_of_differences(np.full(6, 0.1), [0, 0, 1, 1, 2, 2], 3)
    assert _figure(sd, 3) == 0.0


def test_differences_within_subjects_only_give_their_own_spread() -> None:
    # Each subject's differences are -1 and 1: no variance between subjects, MSW = 3 * 2 / 3.
    sd = agreement.sd_of_differences([-1.0, 1.0] * 3, [0, 0, 1, 1, 2, 2], 3)
    assert _figure(sd, 3) == pytest.approx(math.sqrt(2.0))


def test_intervals_agree_with_those_of_normal_theory() -> None:
    """In a large sample: the limits' standard error of Bland & Altman 1999, McGraw & Wong's F interval of the ICC."""
    n = 800
    generator = np.random.default_rng(8)
    true = generator.normal(0, 2, n)
    predicted = true + generator.normal(0.3, 1, n)
    d = predicted - true
    both = np.stack([predicted, true], axis=1)
    statistics = [
        agreement.limit_of_agreement(d, np.arange(n), n, sds=1.96),
        agreement.absolute_agreement_icc(both, np.arange(n), n),
    ]
    limit, icc = metrics.bootstrap(statistics, n, draws=2000)
    assert limit is not None
    assert icc is not None
    reach = 1.96 * d.std(ddof=1) * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    assert (limit[1] - limit[0]) / 2 == pytest.approx(reach, rel=0.1)
    assert icc == pytest.approx(_f_interval(both), abs=0.01)


def _f_interval(x: np.ndarray) -> tuple[float, float]:
    """McGraw & Wong 1996, table 7, ICC(A,1)."""
    n, k = x.shape
    grand = x.mean()
    msr = k * ((x.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    msc = n * ((x.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    mse = ((x - x.mean(axis=1, keepdims=True) - x.mean(axis=0) + grand) ** 2).sum() / ((n - 1) * (k - 1))
    rho = _anova_icc(x)
    a, b = k * rho / (n * (1 - rho)), 1 + k * rho * (n - 1) / (n * (1 - rho))
    v = (a * msc + b * mse) ** 2 / ((a * msc) ** 2 / (k - 1) + (b * mse) ** 2 / ((n - 1) * (k - 1)))
    low, high = stats.f.ppf(0.975, n - 1, v), stats.f.ppf(0.975, v, n - 1)
    rest = k * msc + (k * n - k - n) * mse
    return (
        n * (msr - low * mse) / (low * rest + n * msr),
        n * (high * msr - mse) / (rest + n * high * msr),
    )
