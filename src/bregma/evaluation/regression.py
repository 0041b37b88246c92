"""How well values of a quantity are predicted, as statistics of how often each subject counts.

Like those of :mod:`bregma.metrics`, these are functions of ``(D, S)`` counts, so that resampling subjects gives their
intervals. Where a figure is not defined (values that do not differ) it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.geometry import Array
from bregma.metrics import Statistic, ratio

_ROUNDING = 1e-12
"""Share of a sum of squares below which it is the rounding of nothing."""


def regression_statistics(
    predicted: ArrayLike, true: ArrayLike, subject: ArrayLike, subjects: int
) -> dict[str, Statistic]:
    """Return the figures of predicted against true values ``(K,)``, of which NaN pairs are left out.

    ``rmse``; ``r2``, the coefficient of determination 1 - Σ(p - t)² / Σ(t - mean t)², which is 0 for one who always
    says the mean of these very values, and may be negative; ``pearson`` and ``spearman`` correlations; ``mape``, the
    mean absolute error in % of the true value; ``slope`` and ``intercept`` of true on predicted values, 1 and 0 where
    predictions are calibrated in the mean (Cox, Biometrika 1958; 45:562-565).

    Args:
        predicted: values.
        true: values.
        subject: ``(K,)`` subjects of 0 … ``subjects`` - 1.
        subjects: number of subjects.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    known = np.isfinite(p) & np.isfinite(t)
    p, t, s = p[known], t[known], np.asarray(subject, dtype=np.intp)[known]
    # Large common offsets would cost digits in the sums of squares.
    centre = float(np.median(t)) if t.size else 0.0
    moments = _moments(_sums(p - centre, t - centre, s, subjects), centre)
    relative = np.divide(np.abs(p - t), np.abs(t), out=np.full(t.size, np.nan), where=t != 0)
    return {
        "rmse": lambda w: np.sqrt(moments(w)["mse"]),
        "r2": lambda w: 1.0 - ratio(moments(w)["mse"], moments(w)["tt"]),
        "pearson": lambda w: ratio(moments(w)["pt"], np.sqrt(moments(w)["pp"] * moments(w)["tt"])),
        "spearman": _spearman(p, t, s),
        "mape": _mean(100.0 * relative, s, subjects),
        "slope": lambda w: ratio(moments(w)["pt"], moments(w)["pp"]),
        "intercept": lambda w: moments(w)["t"] - ratio(moments(w)["pt"], moments(w)["pp"]) * moments(w)["p"],
    }


def _sums(p: Array, t: Array, subject: NDArray[np.intp], subjects: int) -> Array:
    """Add up, by subject, ``(subjects, 7)``: count, p, t, p², t², p t and (p - t)²."""
    columns = (np.ones(p.size), p, t, p**2, t**2, p * t, (p - t) ** 2)
    return np.stack([np.bincount(subject, weights=c, minlength=subjects) for c in columns], axis=1)


def _moments(sums: Array, centre: float) -> Callable[[Array], Mapping[str, Array]]:
    def moments(weights: Array) -> Mapping[str, Array]:
        n, p, t, pp, tt, pt, squared = (weights @ sums).T
        means = {"p": ratio(p, n), "t": ratio(t, n)}
        raw_pp, raw_tt = ratio(pp, n), ratio(tt, n)
        return {
            "p": means["p"] + centre,
            "t": means["t"] + centre,
            "pp": _something(raw_pp - means["p"] ** 2, raw_pp),
            "tt": _something(raw_tt - means["t"] ** 2, raw_tt),
            "pt": ratio(pt, n) - means["p"] * means["t"],
            "mse": ratio(squared, n),
        }

    return moments


def _something(variance: Array, raw: Array) -> Array:
    """Return a variance, or 0 where it is the rounding of none."""
    return np.where(variance <= _ROUNDING * raw, 0.0, variance)


def _mean(values: Array, subject: NDArray[np.intp], subjects: int) -> Statistic:
    known = np.isfinite(values)
    total = np.bincount(subject[known], weights=values[known], minlength=subjects)
    count = np.bincount(subject[known], minlength=subjects).astype(np.float64)
    return lambda weights: ratio(weights @ total, weights @ count)


def _spearman(p: Array, t: Array, subject: NDArray[np.intp]) -> Statistic:
    """Return the Pearson correlation of mid-ranks, which are those of each resample."""

    def statistic(weights: Array) -> Array:
        each = weights[:, subject]
        a, b = _mid_ranks(p, each), _mid_ranks(t, each)
        n = each.sum(axis=1)
        a = a - ratio((each * a).sum(axis=1), n)[:, None]
        b = b - ratio((each * b).sum(axis=1), n)[:, None]
        spread = (each * a**2).sum(axis=1) * (each * b**2).sum(axis=1)
        return ratio((each * a * b).sum(axis=1), np.sqrt(spread))

    return statistic


def _mid_ranks(values: Array, weights: Array) -> Array:
    """Return the ranks ``(D, K)`` of values ``(K,)`` in resamples in which each occurs ``weights`` times."""
    _, place = np.unique(values, return_inverse=True)
    levels = int(place.max(initial=-1)) + 1
    counts = np.zeros((len(weights), levels))
    np.add.at(counts.T, place, weights.T)
    return np.asarray((counts.cumsum(axis=1) - (counts - 1) / 2)[:, place])
