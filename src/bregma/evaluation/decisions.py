"""How well predicted values of a quantity tell on which side of a threshold the true ones lie.

Like those of :mod:`bregma.metrics`, the statistics are functions of ``(D, S)`` counts of how often each subject counts.
Where one side is empty they are NaN. Shape suffixes: D resamples, K values, U different predicted values.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.evaluation.figures import Figure
from bregma.geometry import Array
from bregma.measurement.grades import looked_for
from bregma.metrics import Statistic, ratio, ratio_statistic
from bregma.results import Estimate
from bregma.schema import LandmarkSchema, Quantity

_ROUNDING = 1e-9
"""Share of a positive by which sums of counts may be off."""


def decision_figures(
    quantity: Quantity,
    predicted: ArrayLike,
    true: ArrayLike,
    subject: ArrayLike,
    subjects: int,
) -> dict[str, Figure]:
    """Return the figures of each threshold of a quantity, by ``<threshold>_<kind>``.

    ``auc`` is the area under the ROC curve, the probability that of two values on either side the predictions are in
    that order (Hanley & McNeil, Radiology 1982; 143:29-36). ``sensitivity`` and ``specificity`` are those of the
    threshold put on the predictions. ``cutoff`` is what has to be put on these very predictions instead for the
    threshold's wanted sensitivity, and ``specificity_at_cutoff`` what is left then; each resample has its own.

    Args:
        quantity: whose thresholds are asked.
        predicted: ``(K,)`` values in the quantity's unit; NaN where there is none.
        true: ``(K,)`` likewise.
        subject: ``(K,)`` subjects of 0 … ``subjects`` - 1.
        subjects: number of subjects.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    known = np.isfinite(p) & np.isfinite(t)
    own = np.asarray(subject, dtype=np.intp)[known]
    figures: dict[str, Figure] = {}
    for threshold in quantity.thresholds:
        sign = -1.0 if threshold.is_upper else 1.0
        counts = _Counts(sign * p[known], looked_for(quantity, threshold, t[known]), own)
        decided = looked_for(quantity, threshold, p[known])
        hits, rejections = decided & counts.positive, ~decided & ~counts.positive
        n, positives = len(own), int(counts.positive.sum())
        wanted = threshold.sensitivity
        figures |= {
            f"{threshold.name}_auc": Figure(counts.auc, n, "1", lower_is_better=False),
            f"{threshold.name}_sensitivity": Figure(
                ratio_statistic(100.0 * hits, counts.positive, own, subjects), positives, "%", lower_is_better=False
            ),
            f"{threshold.name}_specificity": Figure(
                ratio_statistic(100.0 * rejections, ~counts.positive, own, subjects),
                n - positives,
                "%",
                lower_is_better=False,
            ),
            f"{threshold.name}_cutoff": Figure(
                _scaled(counts.cutoff(wanted), sign), positives, quantity.unit, lower_is_better=None
            ),
            f"{threshold.name}_specificity_at_cutoff": Figure(
                counts.specificity_at(wanted), n - positives, "%", lower_is_better=False
            ),
        }
    return figures


def decision_notes(schema: LandmarkSchema, metrics: Mapping[str, Estimate]) -> list[str]:
    """Say where a threshold has nothing on one side, and what a cut-off chosen here is worth."""
    notes = []
    chosen = False
    for quantity in schema.quantities:
        for threshold in quantity.thresholds:
            auc = metrics.get(f"{quantity.name}_{threshold.name}_auc")
            if auc is None:
                continue
            chosen |= auc.value is not None
            if auc.value is None:
                why = "all true values lie on one side" if auc.n else "there is no predicted value with a true one"
                notes.append(f"{quantity.label}, {threshold.label}: no ROC curve, because {why}.")
    if chosen:
        notes.append(
            "Cut-offs for a wanted sensitivity were chosen on these very images; on others the sensitivity will tend "
            "to be lower."
        )
    return notes


class _Counts:
    """Positives and negatives at each different value, as often as their subjects are drawn."""

    def __init__(self, suspicion: Array, positive: NDArray[np.bool_], subject: NDArray[np.intp]) -> None:
        self.positive = positive
        self._subject = subject
        self.levels, self._level = np.unique(-suspicion, return_inverse=True)
        """``(U,)`` minus the suspicion, so that the most suspect comes first."""

    def auc(self, weights: Array) -> Array:
        """Return the area under the ROC curve; ties count by half."""
        true, false = self._passed(weights)
        before = true - np.diff(true, axis=1, prepend=0.0) / 2
        area = (np.diff(false, axis=1, prepend=0.0) * before).sum(axis=1)
        return ratio(area, self._last(true) * self._last(false))

    def cutoff(self, sensitivity: float) -> Statistic:
        """Return the suspicion from which on at least a share of the positives is found."""

        def statistic(weights: Array) -> Array:
            true, _ = self._passed(weights)
            found = np.asarray(-self.levels[self._enough(true, sensitivity)]) if len(self.levels) else np.zeros(0)
            return np.where(self._last(true) > 0, found, np.nan) if len(found) else np.full(len(weights), np.nan)

        return statistic

    def specificity_at(self, sensitivity: float) -> Statistic:
        """Return which share of the negatives is below :meth:`cutoff`, in %."""

        def statistic(weights: Array) -> Array:
            true, false = self._passed(weights)
            if not len(self.levels):
                return np.full(len(weights), np.nan)
            called = np.take_along_axis(false, self._enough(true, sensitivity)[:, None], axis=1)[:, 0]
            share = 100.0 * (1.0 - ratio(called, self._last(false)))
            return np.where(self._last(true) > 0, share, np.nan)

        return statistic

    def _passed(self, weights: Array) -> tuple[Array, Array]:
        """Return how many positives and negatives ``(D, U)`` are at least as suspect as each value."""
        each = weights[:, self._subject]
        sides = []
        for mask in (self.positive, ~self.positive):
            counts = np.zeros((len(weights), len(self.levels)))
            np.add.at(counts.T, self._level[mask], each[:, mask].T)
            sides.append(counts.cumsum(axis=1))
        return sides[0], sides[1]

    def _enough(self, true: Array, sensitivity: float) -> NDArray[np.intp]:
        wanted = sensitivity * self._last(true)
        return np.asarray((true >= wanted[:, None] - _ROUNDING).argmax(axis=1))

    def _last(self, passed: Array) -> Array:
        return passed[:, -1] if passed.shape[1] else np.zeros(len(passed))


def _scaled(statistic: Statistic, factor: float) -> Statistic:
    return lambda weights: factor * statistic(weights)
