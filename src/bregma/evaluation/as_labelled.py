"""Errors with exchangeable points held to the order of the labels, as systems that do not know better are published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bregma import metrics
from bregma.evaluation.figures import Figure
from bregma.evaluation.tables import PointTable
from bregma.geometry import Array
from bregma.results import CaseResult
from bregma.schema import LandmarkSchema


def as_labelled_figures(schema: LandmarkSchema, results: Sequence[CaseResult], table: PointTable) -> dict[str, Figure]:
    """Return ``mre_as_labelled_px`` and, where every image has a trusted spacing, ``mre_as_labelled_mm``.

    Nothing where no points are exchangeable, or where the order of the labels cannot be told any more, as in those that
    a second reader did not place all of.
    """
    orders = [_errors(result) for result in results]
    if not schema.exchangeable or not orders or any(each is None for each in orders):
        return {}
    errors = {"px": np.array([each[0] for each in orders if each is not None])}
    if table.errors_mm is not None:
        errors["mm"] = np.array([each[1] for each in orders if each is not None])
    return {f"mre_as_labelled_{unit}": _mean(values, unit, table) for unit, values in errors.items()}


def _errors(result: CaseResult) -> tuple[Array, Array] | None:
    labels, spacing = result.case.landmarks, result.case.frame.spacing
    if labels is None or labels.labelled.sum() != result.scored.sum():
        return None
    px = metrics.radial_errors(result.prediction.mean, labels.points, scored=labels.labelled)
    if spacing is None:
        return px, px * np.nan
    return px, metrics.radial_errors(result.prediction.mean, labels.points, scored=labels.labelled, spacing=spacing)


def _mean(errors: Array, unit: str, table: PointTable) -> Figure:
    # Images without a prediction come last, and have no errors.
    points = np.repeat(table.subject[: len(errors)], errors.shape[1])
    statistic = metrics.mean_statistic(errors, points, table.subjects)
    return Figure(statistic, int(np.isfinite(errors).sum()), unit)
