"""Errors of landmarks, the field's figures over them, and intervals by resampling subjects.

Errors are arrays of radial distances in which NaN marks a point that cannot be scored. A figure is a *statistic*: a
function of how often each subject counts. With every subject counted once it gives the figure itself; with the counts
of bootstrap resamples it gives the figure's spread, for all resamples in a few matrix products. Images of one subject
are not independent, so that resampling images would promise more certainty than there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

Statistic = Callable[[Array], Array]
"""Maps ``(D, S)`` counts, how often each of S subjects occurs in each of D resamples, to ``(D,)`` figures."""

_CELLS_AT_ONCE = 4_000_000
"""Counts held in memory at a time: 32 MB."""


def radial_errors(
    predicted: ArrayLike,
    true: ArrayLike,
    *,
    scored: ArrayLike | None = None,
    spacing: tuple[float, float] | None = None,
) -> Array:
    """Return the distances between points ``(..., N, 2)``, as ``(..., N)``.

    Args:
        predicted: points ``(..., N, 2)`` as ``(x, y)``.
        true: points of the same shape.
        scored: mask ``(..., N)``; the others become NaN.
        spacing: millimetres per pixel along x and y; gives distances in millimetres instead of pixels.
    """
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64)
    if spacing is not None:
        difference = difference * np.asarray(spacing, dtype=np.float64)
    errors = np.hypot(difference[..., 0], difference[..., 1])
    return errors if scored is None else np.where(np.asarray(scored, dtype=bool), errors, np.nan)


def mean_radial_error(errors: ArrayLike) -> float | None:
    """Return the MRE, the mean of all errors that are not NaN; None where there is none."""
    values = _known(errors)
    return float(values.mean()) if values.size else None


def error_sd(errors: ArrayLike) -> float | None:
    """Return the sample standard deviation (n − 1) of the errors; None for fewer than two."""
    values = _known(errors)
    return float(values.std(ddof=1)) if values.size > 1 else None


def error_quantile(errors: ArrayLike, q: float) -> float | None:
    """Return the ``q`` quantile of the errors, linear between order statistics; None where there is none."""
    values = _known(errors)
    return float(np.quantile(values, q)) if values.size else None


def detection_rate(errors: ArrayLike, threshold: float, *, labelled: int | None = None) -> float | None:
    """Return SDR@threshold in %: the share of points whose error is at most ``threshold``.

    Args:
        errors: any shape, in the unit of ``threshold``.
        threshold: largest error that counts as a detection.
        labelled: number of points that were to be found; by default those that have an error. A point without an error
            among them is a failure, so that staying silent never raises the rate.
    """
    values = _known(errors)
    total = values.size if labelled is None else labelled
    return 100.0 * float((values <= threshold).sum()) / total if total else None


def image_errors(errors: ArrayLike) -> Array:
    """Return the IPE of each image: the mean over landmarks of ``(C, N)``, as ``(C,)``; NaN where none is scored."""
    e = np.asarray(errors, dtype=np.float64)
    known = np.isfinite(e)
    count = known.sum(axis=-1)
    total = np.where(known, e, 0.0).sum(axis=-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def outliers(errors: ArrayLike, threshold: float) -> NDArray[np.int64]:
    """Return O_r of each image: how many errors of ``(..., N)`` exceed ``threshold``."""
    return np.asarray((np.nan_to_num(np.asarray(errors, dtype=np.float64)) > threshold).sum(axis=-1), dtype=np.int64)


def normalised_errors(errors: ArrayLike, length: ArrayLike) -> Array:
    """Return errors ``(C, N)`` in % of a length ``(C,)`` of each image; their mean is the NME.

    An image whose length is zero or unknown gets NaN.
    """
    lengths = np.asarray(length, dtype=np.float64)
    usable = np.where(np.nan_to_num(lengths) > 0, lengths, np.nan)
    return np.asarray(100.0 * np.asarray(errors, dtype=np.float64) / usable[..., None])


def mean_absolute_error(predicted: ArrayLike, true: ArrayLike) -> float | None:
    """Return the mean of ``|predicted − true|`` over the pairs that are known; None where there is none."""
    values = _known(np.asarray(predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64))
    return float(np.abs(values).mean()) if values.size else None


def bias(predicted: ArrayLike, true: ArrayLike) -> float | None:
    """Return the mean of ``predicted − true`` over the pairs that are known; None where there is none."""
    values = _known(np.asarray(predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64))
    return float(values.mean()) if values.size else None


def roc_points(suspicion: ArrayLike, positive: ArrayLike) -> tuple[Array, Array]:
    """Return false and true positive rates ``(U + 1,)`` from 0 to 1 as the cut-off falls; equal values fall together.

    Args:
        suspicion: ``(K,)`` the higher, the more it speaks for a positive.
        positive: ``(K,)`` what is true; both kinds must occur.
    """
    order = np.argsort(-np.asarray(suspicion, dtype=np.float64), kind="stable")
    s, y = np.asarray(suspicion, dtype=np.float64)[order], np.asarray(positive, dtype=bool)[order]
    last = np.flatnonzero(np.append(np.diff(s) != 0, True))
    true, false = y.cumsum()[last] / y.sum(), (~y).cumsum()[last] / (~y).sum()
    return np.append(0.0, false), np.append(0.0, true)


def mean_statistic(values: ArrayLike, subject: ArrayLike, subjects: int) -> Statistic:
    """Return the mean of ``values (K,)``, which belong to subjects ``subject (K,)`` of 0 … ``subjects`` − 1."""
    v, s = _grouped(values, subject)
    total = np.bincount(s, weights=v, minlength=subjects)
    count = np.bincount(s, minlength=subjects).astype(np.float64)
    return lambda weights: ratio(weights @ total, weights @ count)


def ratio_statistic(top: ArrayLike, bottom: ArrayLike, subject: ArrayLike, subjects: int) -> Statistic:
    """Return the sum of ``top (K,)`` over that of ``bottom (K,)``, grouped as for :func:`mean_statistic`.

    Counts of images make such figures: precision, recall and F1 pool the counts of all images.
    """
    s = np.asarray(subject, dtype=np.intp).ravel()
    above = np.bincount(s, weights=np.asarray(top, dtype=np.float64).ravel(), minlength=subjects)
    below = np.bincount(s, weights=np.asarray(bottom, dtype=np.float64).ravel(), minlength=subjects)
    return lambda weights: ratio(weights @ above, weights @ below)


def sd_statistic(values: ArrayLike, subject: ArrayLike, subjects: int) -> Statistic:
    """Return the sample standard deviation (n − 1) of ``values (K,)``, grouped as for :func:`mean_statistic`."""
    v, s = _grouped(values, subject)
    # Centred first: the difference of two large sums of squares would lose digits.
    v = v - (v.mean() if v.size else 0.0)
    count = np.bincount(s, minlength=subjects).astype(np.float64)
    total = np.bincount(s, weights=v, minlength=subjects)
    square = np.bincount(s, weights=v * v, minlength=subjects)

    def statistic(weights: Array) -> Array:
        n = weights @ count
        scatter = weights @ square - ratio((weights @ total) ** 2, n)
        return np.sqrt(np.maximum(ratio(scatter, n - 1.0), 0.0))

    return statistic


def quantile_statistic(values: ArrayLike, subject: ArrayLike, subjects: int, q: float) -> Statistic:
    """Return the ``q`` quantile of ``values (K,)``, grouped as for :func:`mean_statistic`.

    Linear between order statistics of the resample (definition 7 of Hyndman & Fan 1996, as in ``numpy.quantile``). The
    sorted values are cut into about √K blocks, so that a resample needs its counts per block and the items of one
    block instead of all K.
    """
    v, s = _grouped(values, subject)
    order = np.argsort(v, kind="stable")
    v, s = v[order], s[order]
    size = max(1, round(np.sqrt(v.size)))
    blocks = -(-v.size // size)
    per_block = np.zeros((subjects, blocks))
    np.add.at(per_block, (s, np.arange(v.size) // size), 1.0)

    def order_statistic(weights: Array, upto: Array, rank: Array) -> Array:
        block = (upto <= rank[:, None]).sum(axis=1)
        before = np.where(block > 0, upto[np.arange(len(upto)), block - 1], 0.0)
        items = block[:, None] * size + np.arange(size)
        counted = np.take_along_axis(weights, s[np.minimum(items, v.size - 1)], axis=1)
        reached = before[:, None] + np.cumsum(counted, axis=1)
        return np.asarray(v[np.minimum(block * size + (reached <= rank[:, None]).sum(axis=1), v.size - 1)])

    def statistic(weights: Array) -> Array:
        result = np.full(len(weights), np.nan)
        upto = np.cumsum(weights @ per_block, axis=1)
        filled = upto[:, -1] > 0 if blocks else np.zeros(len(weights), dtype=bool)
        if filled.any():
            w, upto = weights[filled], upto[filled]
            position = (upto[:, -1] - 1.0) * q
            low = order_statistic(w, upto, np.floor(position))
            high = order_statistic(w, upto, np.ceil(position))
            result[filled] = low + (high - low) * (position - np.floor(position))
        return result

    return statistic


def max_statistic(values: ArrayLike, subject: ArrayLike, subjects: int) -> Statistic:
    """Return the largest of ``values (K,)``, grouped as for :func:`mean_statistic`.

    No interval should be given for it: the bootstrap fails for extremes (Efron & Tibshirani 1993, section 7.4).
    """
    v, s = _grouped(values, subject)
    largest = np.full(subjects, -np.inf)
    np.maximum.at(largest, s, v)

    def statistic(weights: Array) -> Array:
        found = np.where(weights > 0, largest, -np.inf).max(axis=1, initial=-np.inf)
        return np.where(np.isfinite(found), found, np.nan)

    return statistic


def figure_of(statistic: Statistic, subjects: int) -> float | None:
    """Return the figure itself: every subject counted once; None where it is not defined."""
    value = float(statistic(np.ones((1, subjects)))[0])
    return value if np.isfinite(value) else None


def per_subject(statistic: Statistic, subjects: int) -> Array:
    """Return the figure of each subject alone, ``(subjects,)``; NaN where a subject does not define it."""
    rows = max(1, _CELLS_AT_ONCE // max(1, subjects))
    parts = [np.eye(min(rows, subjects - start), subjects, start) for start in range(0, subjects, rows)]
    return np.concatenate([statistic(part) for part in parts]) if parts else np.zeros(0)


def bootstrap(
    statistics: Sequence[Statistic], subjects: int, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[Interval | None, ...]:
    """Return the interval of each statistic from the same resamples of subjects.

    Percentile interval of the cluster bootstrap: subjects are drawn with replacement, each with all its images
    (Efron & Tibshirani 1993, chapter 13; Davison & Hinkley 1997, section 3.8). The same seed gives the same interval.

    Args:
        statistics: functions of ``(D, S)`` counts.
        subjects: number S of subjects.
        draws: number of resamples.
        seed: of the resampling.
        level: coverage, between 0 and 1.

    Returns:
        Low and high end, or None where there are fewer than 2 subjects or the statistic is not defined.
    """
    if subjects < 2:
        return tuple(None for _ in statistics)
    found: list[list[Array]] = [[] for _ in statistics]
    for weights in resamples(subjects, draws=draws, seed=seed):
        for values, statistic in zip(found, statistics):
            values.append(statistic(weights))
    return tuple(_interval(np.concatenate(values), level) for values in found)


def resamples(subjects: int, *, draws: int, seed: int) -> Iterator[Array]:
    """Yield counts ``(D, S)``, a few million numbers at a time: how often each subject was drawn, with replacement."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // subjects)
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        drawn = generator.integers(0, subjects, size=(rows, subjects)) + subjects * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * subjects).reshape(rows, subjects).astype(np.float64)


def _interval(values: Array, level: float) -> Interval | None:
    known = _known(values)
    if not known.size:
        return None
    low, high = np.quantile(known, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _known(values: ArrayLike) -> Array:
    v = np.asarray(values, dtype=np.float64).ravel()
    return v[np.isfinite(v)]


def _grouped(values: ArrayLike, subject: ArrayLike) -> tuple[Array, NDArray[np.intp]]:
    v = np.asarray(values, dtype=np.float64).ravel()
    known = np.isfinite(v)
    return v[known], np.asarray(subject, dtype=np.intp).ravel()[known]


def ratio(top: Array, bottom: Array) -> Array:
    """Divide where there is something to divide by; NaN elsewhere."""
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0))
