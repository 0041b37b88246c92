"""Predictions held against the shapes that occur: points called back, and points flagged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bregma.exchange import Sets
from bregma.geometry import Array
from bregma.shape_model.model import ShapeModel
from bregma.shape_model.pose import isotropic
from bregma.types import Prediction

_PRESENT = 0.5
"""A landmark that is more likely not there cannot be in the wrong place."""


def as_seen(prediction: Prediction) -> tuple[Array, Array]:
    """Return the points ``(N, 2)`` and covariances ``(N, 2, 2)`` of a prediction in isotropic coordinates.

    A landmark that is more likely not there than there may be anywhere, and so says nothing about the others.
    """
    factors = isotropic(prediction.frame)
    anywhere = np.where(prediction.presence < _PRESENT, float(np.prod(prediction.frame.shape)), 0.0)
    cov = prediction.cov * np.outer(factors, factors) + anywhere[:, None, None] * np.eye(2)
    return prediction.mean * factors, cov


def reconcile(prediction: Prediction, model: ShapeModel, *, weight: float, sets: Sets = ()) -> Prediction:
    """Return a prediction whose points were reconciled with the shapes that occur; see :meth:`ShapeModel.fit`.

    Each stays where it stands among the points, whatever order of the exchangeable ``sets`` was the likeliest. The
    reason of a flagged point then says how far it was moved.

    The covariances stay the network's own. Those that follow from the fit would be narrower, but only if the points
    erred independently; where they err together, intervals of that width miss the truth too often.
    """
    points, cov = as_seen(prediction)
    order = model.order(points, weight * cov, sets)
    fit = model.fit(points[order], cov[order], weight=weight)
    mean = np.empty_like(points)
    mean[order] = fit.points / isotropic(prediction.frame)
    moved = np.linalg.norm(mean - prediction.mean, axis=1)
    return replace(prediction, mean=mean, flags=_with_moves(prediction, moved))


def _with_moves(prediction: Prediction, moved: Array) -> tuple[str, ...] | None:
    """Say of each flagged point how far ``(N,)`` it was moved, so that nothing is moved silently."""
    if prediction.flags is None:
        return None
    return tuple(why and f"{why}; moved by {far:.1f} px" for why, far in zip(prediction.flags, moved, strict=True))


def flag_outliers(prediction: Prediction, model: ShapeModel, *, limit: float, sets: Sets = ()) -> Prediction:
    """Return a prediction that says which points contradict the others; none is moved, and no earlier flag lost.

    A point is flagged where it lies more than ``limit`` standard deviations from where the others and the shapes that
    occur say it is, the others counting the less the more they are contradicted themselves (:meth:`ShapeModel.fit`).
    """
    points, cov = as_seen(prediction)
    order = model.order(points, cov, sets)
    away = np.empty(len(model))
    away[order] = np.sqrt(model.fit(points[order], cov[order]).contradiction)
    reasons = (f"{sd:.1f} standard deviations from where the other points say it is" for sd in away)
    doubtful = (away > limit) & (prediction.presence >= _PRESENT)
    known = prediction.flags or ("",) * len(model)
    flags = tuple(old or (why if bad else "") for old, bad, why in zip(known, doubtful, reasons, strict=True))
    return replace(prediction, flags=flags)
