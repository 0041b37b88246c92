"""How well two readings of the same quantity agree, as statistics of how often each subject counts.

Like those of :mod:`bregma.metrics`, these are functions of ``(D, S)`` counts, so that resampling subjects gives their
intervals. A subject that was drawn twice stands for two subjects. Where a figure is not defined it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.geometry import Array
from bregma.metrics import Statistic, ratio

LIMIT_SDS = 1.96
"""Standard deviations from the bias to a limit of agreement (Bland & Altman 1999, Stat Methods Med Res 8:135–160)."""

_ROUNDING = 1e-12
"""Share of a sum of squares below which it is the rounding of nothing."""


def sd_of_differences(differences: ArrayLike, subject: ArrayLike, subjects: int) -> Statistic:
    """Return the standard deviation of differences ``(K,)`` for the limits of agreement.

    Several pairs of one subject are repeated measures of quantities that vary, as images at different times or levels
    of a spine are. Their plain standard deviation tends to be too small, since pairs of one subject resemble each
    other. So the variances between and within subjects are estimated by a one-way analysis of variance and added
    (Bland & Altman 2007, J Biopharm Stat 17:571–582, where the true value varies). With one pair a subject this is the
    sample standard deviation (n − 1) of the differences.

    Args:
        differences: NaN where a pair is not known.
        subject: ``(K,)`` subjects of 0 … ``subjects`` − 1.
        subjects: number of subjects.
    """
    moments = _difference_moments(differences, subject, subjects)
    return lambda weights: moments(weights)[1]


def limit_of_agreement(differences: ArrayLike, subject: ArrayLike, subjects: int, *, sds: float) -> Statistic:
    """Return the mean difference plus ``sds`` times :func:`sd_of_differences`, e.g. ± :data:`LIMIT_SDS`."""
    moments = _difference_moments(differences, subject, subjects)

    def statistic(weights: Array) -> Array:
        mean, sd = moments(weights)
        return mean + sds * sd

    return statistic


def absolute_agreement_icc(ratings: ArrayLike, subject: ArrayLike, subjects: int) -> Statistic:
    """Return ICC(2,1) of ratings ``(K, R)``: two-way random effects, absolute agreement, a single rater.

    (BMS − EMS) / (BMS + (R − 1) EMS + R (JMS − EMS) / K) from the mean squares between targets, between raters and of
    the rest (Shrout & Fleiss 1979, Psychol Bull 86:420–428; ICC(A,1) of McGraw & Wong 1996, Psychol Methods 1:30–46).
    Each row is a target; those of one subject are kept together by the resampling only.

    Args:
        ratings: one column a rater; a row with a NaN is left out.
        subject: ``(K,)`` subjects of 0 … ``subjects`` − 1.
        subjects: number of subjects.
    """
    r = np.asarray(ratings, dtype=np.float64)
    known = np.isfinite(r).all(axis=1)
    r, raters = r[known], r.shape[1]
    # Large common offsets would cost digits in the sums of squares.
    r = r - (np.median(r) if r.size else 0.0)
    target = r.mean(axis=1)
    rest = r - target[:, None]
    columns = [np.ones(len(r)), target, target**2, (rest**2).sum(axis=1), *rest.T]
    sums = _sums(columns, np.asarray(subject)[known], subjects)

    def statistic(weights: Array) -> Array:
        n, total, square, within, *shifts = (weights @ sums).T
        between = raters * (square - ratio(total**2, n))
        judges = ratio(sum(shift**2 for shift in shifts), n)
        bms = ratio(between, n - 1.0)
        jms = judges / (raters - 1.0)
        ems = ratio(np.maximum(within - judges, 0.0), (n - 1.0) * (raters - 1.0))
        spread = bms + (raters - 1.0) * ems + raters * ratio(jms - ems, n)
        nothing = spread <= _ROUNDING * ratio(raters * square + within, n)
        return ratio(bms - ems, np.where(nothing, np.nan, spread))

    return statistic


def weighted_kappa(
    first: ArrayLike, second: ArrayLike, subject: ArrayLike, subjects: int, *, disagreement: ArrayLike
) -> Statistic:
    """Return Cohen's weighted kappa of two gradings ``(K,)``: 1 − Σ v p_observed / Σ v p_expected.

    Cohen 1968, Psychol Bull 70:213–220. It is not defined where both sides know a single and the same grade.

    Args:
        first: grades 0 … G − 1 of one side, NaN where there is none.
        second: those of the other side.
        subject: ``(K,)`` subjects of 0 … ``subjects`` − 1.
        subjects: number of subjects.
        disagreement: ``(G, G)`` weights v of each pair of grades, 0 on the diagonal; see :func:`graded_disagreement`.
    """
    v = np.asarray(disagreement, dtype=np.float64)
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    cell = a[known].astype(np.intp) * len(v) + b[known].astype(np.intp)
    counts = np.zeros((subjects, v.size))
    np.add.at(counts, (np.asarray(subject, dtype=np.intp)[known], cell), 1.0)

    def statistic(weights: Array) -> Array:
        table = (weights @ counts).reshape(-1, *v.shape)
        rows, columns, n = table.sum(axis=2), table.sum(axis=1), table.sum(axis=(1, 2))
        expected = ratio(np.einsum("di,ij,dj->d", rows, v, columns), n)
        return 1.0 - ratio((table * v).sum(axis=(1, 2)), expected)

    return statistic


def graded_disagreement(grades: int, *, power: int) -> Array:
    """Return ``|i − j| ** power`` of ordered grades, ``(grades, grades)``.

    Power 1 gives linear weights (Cicchetti & Allison 1971); power 2 gives quadratic ones, under which kappa is an
    intraclass correlation of the grades' ranks (Fleiss & Cohen 1973, Educ Psychol Meas 33:613–619).
    """
    rank = np.arange(grades, dtype=np.float64)
    return np.asarray(np.abs(rank[:, None] - rank[None]) ** power)


def undefined(weights: Array) -> Array:
    """Return NaN for every resample: the statistic of what cannot be said."""
    return np.full(len(weights), np.nan)


def _difference_moments(
    differences: ArrayLike, subject: ArrayLike, subjects: int
) -> Callable[[Array], tuple[Array, Array]]:
    d = np.asarray(differences, dtype=np.float64)
    known = np.isfinite(d)
    d, s = d[known], np.asarray(subject, dtype=np.intp)[known]
    centre = float(np.median(d)) if d.size else 0.0
    count, total, square = _sums([np.ones(d.size), d - centre, (d - centre) ** 2], s, subjects).T
    of_means = np.divide(total**2, count, out=np.zeros(subjects), where=count > 0)
    sums = np.stack([count > 0, count, count**2, total, of_means, square], axis=1)

    def moments(weights: Array) -> tuple[Array, Array]:
        n, pairs, pairs_squared, total, of_means, square = (weights @ sums).T
        mean = ratio(total, pairs)
        ms_between = ratio(of_means - pairs * mean**2, n - 1.0)
        repeated = pairs > n
        ms_within = np.where(repeated, ratio(square - of_means, np.where(repeated, pairs - n, 1.0)), 0.0)
        size = ratio(pairs - ratio(pairs_squared, pairs), n - 1.0)
        between = np.maximum(ratio(ms_between - ms_within, size), 0.0)
        return mean + centre, np.sqrt(np.maximum(ms_within + between, 0.0))

    return moments


def _sums(columns: list[Array], subject: NDArray[np.intp], subjects: int) -> Array:
    """Add up columns ``(K,)`` by subject: ``(subjects, len(columns))``."""
    index = np.asarray(subject, dtype=np.intp)
    return np.stack([np.bincount(index, weights=column, minlength=subjects) for column in columns], axis=1)
