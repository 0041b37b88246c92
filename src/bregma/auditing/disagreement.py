"""Labels against predictions of models that have not learned from them, and against other observers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bregma.auditing.evidence import Evidence, Source, are_known, best_order, sizes, times_usual
from bregma.geometry import Array
from bregma.types import LandmarkSet, Prediction

PRESENT = 0.5
"""Least probability of presence of a prediction that is compared."""


def prediction_evidence(
    points: Array, ids: Sequence[str], orders: NDArray[np.intp], predictions: Mapping[str, Sequence[Prediction]]
) -> Evidence:
    """Compare labels with out-of-fold predictions, in units of the model's own usual error.

    The unit is the median distance of each landmark from its label over all cases, and more where the model says that
    it is less sure than usual (its standard deviation over the median one).

    Args:
        points: ``(C, N, 2)`` labels in pixels, NaN where there is none.
        ids: of the cases.
        orders: equivalent orders ``(K, N)``.
        predictions: case id to what one or several models say, none of which learned from that case.
    """
    labelled = are_known(points)
    expected, unsure = np.full(points.shape, np.nan), np.full(labelled.shape, np.nan)
    for row, case in enumerate(ids):
        if case in predictions:
            expected[row], unsure[row] = _consensus(predictions[case], points[row], labelled[row], orders)
    middle = np.array([np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 1.0 for c in unsure.T])
    doubt = np.maximum(1.0, np.nan_to_num(unsure / np.maximum(middle, 1e-9), nan=1.0))
    return _compared("prediction", points, expected, doubt)


def _consensus(
    predictions: Sequence[Prediction], points: Array, labelled: NDArray[np.bool_], orders: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return the median of what models expect ``(N, 2)`` in the labels' order, and their standard deviations."""
    means, spreads = [], []
    for prediction in predictions:
        given = prediction.presence >= PRESENT
        mean = np.where(given[:, None], prediction.mean, np.nan)
        sd = np.sqrt(np.trace(prediction.cov, axis1=1, axis2=2) / 2 / points_scale(prediction) ** 2)
        both = np.column_stack([mean, np.where(given, sd, np.nan)])
        best = _ordered(points, both, labelled, orders)
        means.append(best[:, :2])
        spreads.append(best[:, 2])
    stacked = np.array(means)
    complete = np.asarray(np.isfinite(stacked).all(axis=(0, 2)))
    middle = np.where(complete[:, None], np.median(stacked, axis=0), np.nan)
    return middle, np.mean(spreads, axis=0)


def points_scale(prediction: Prediction) -> float:
    """Return the long side of a prediction's image, which makes standard deviations of images comparable."""
    return float(max(prediction.frame.shape))


def _ordered(points: Array, values: Array, labelled: NDArray[np.bool_], orders: NDArray[np.intp]) -> Array:
    """Return rows ``(N, 3)`` of predictions in the equivalent order that lies nearest to the labels."""
    away = np.linalg.norm(values[orders][..., :2] - points, axis=-1)
    away = np.where(labelled & np.isfinite(away), away, 0.0)
    rank = np.lexsort((away.sum(axis=1), away.max(axis=1)))
    return np.asarray(values[orders[rank[0]]])


def observer_evidence(
    points: Array, observers: Sequence[Mapping[str, LandmarkSet]], orders: NDArray[np.intp]
) -> Evidence | None:
    """Compare labels with those of further observers, in units of their usual disagreement; None where there are none.

    Args:
        points: ``(C, N, 2)`` labels in pixels, NaN where there is none.
        observers: ``Case.observers`` of every case; the first one that labelled the image is compared.
        orders: equivalent orders ``(K, N)``.
    """
    labelled = are_known(points)
    expected = np.full(points.shape, np.nan)
    for row, readings in enumerate(observers):
        for marks in readings.values():
            other = np.where(marks.labelled[:, None], marks.points, np.nan)
            expected[row] = best_order(points[row], other, labelled[row], orders)
            break
    if not np.isfinite(expected).any():
        return None
    return _compared("observer", points, expected, np.ones(labelled.shape))


def _compared(source: Source, points: Array, expected: Array, doubt: Array) -> Evidence:
    labelled = are_known(points)
    size = sizes(points, labelled)
    typical = np.median(size[np.isfinite(size)]) if np.isfinite(size).any() else 1.0
    # A label whose points are scattered must not hide that by its own size.
    size = np.fmin(np.where(np.isfinite(size), size, typical), sizes(expected, are_known(expected)))
    share = np.linalg.norm(points - expected, axis=-1) / np.maximum(size, 1e-9)[:, None]
    return Evidence(source, times_usual(share, share) / doubt, expected, {})
