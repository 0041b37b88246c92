"""What one way of looking says about every label, and how several ways become one score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.geometry import Array

Source = Literal["geometry", "exchange", "image", "prediction", "observer", "duplicate", "axes"]

ALARM_TIMES = 6.0
"""So many times its usual size a deviation is as likely a fault as not: score 0.5."""
ALARM_SHARE = 0.05
"""Deviations below this share of the shape's size count less, however regular the other labels are."""
_STEEPNESS = 4
"""High, so that several deviations of usual size do not add up to a suspicion."""


@dataclass(frozen=True)
class Evidence:
    """What one way of looking says about the labels of C cases with N landmarks.

    Attributes:
        source: the way of looking.
        times: ``(C, N)`` deviation from where the label should be, over its usual size; 0 where nothing is known.
        expected: ``(C, N, 2)`` where the label should be, in pixels of the image; NaN where not known.
        reasons: what is wrong in words, by case and landmark, where a sentence about distance would not do.
    """

    source: Source
    times: Array
    expected: Array
    reasons: dict[tuple[int, int], str]

    @property
    def scores(self) -> Array:
        """Scores ``(C, N)`` in 0 to 1."""
        return score_of(self.times)


def score_of(times: ArrayLike) -> Array:
    """Turn deviations over their usual size into scores from 0 to 1; 0.5 at :data:`ALARM_TIMES`."""
    power = np.minimum(np.nan_to_num(np.asarray(times, dtype=np.float64)), 1e6) ** _STEEPNESS
    return np.asarray(power / (power + ALARM_TIMES**_STEEPNESS))


def times_usual(distance: Array, share: Array) -> Array:
    """Return distances over the median one of their landmark, less where they are small for the shape.

    Args:
        distance: ``(C, N)``, NaN where there is no label.
        share: the same distances as shares of the shape's size.
    """
    known = np.isfinite(distance)
    usual = np.array([np.median(column[here]) if here.any() else 1.0 for column, here in zip(distance.T, known.T)])
    times = distance / np.maximum(usual, 1e-9)
    return np.asarray(np.where(known, times * np.minimum(1.0, np.nan_to_num(share) / ALARM_SHARE), 0.0))


def are_known(points: Array) -> NDArray[np.bool_]:
    """Return which points ``(..., 2)`` have a position: ``(...)``."""
    return np.asarray(np.isfinite(points).all(axis=-1))


def best_order(points: Array, expected: Array, labelled: NDArray[np.bool_], orders: NDArray[np.intp]) -> Array:
    """Return expected places ``(N, 2)`` in that equivalent order which lies nearest to the labels.

    The largest distance decides, so that one displaced point cannot be made up for by the others.
    """
    away = np.linalg.norm(expected[orders] - points, axis=-1)
    away = np.where(labelled, np.where(np.isfinite(away), away, 0.0), 0.0)
    rank = np.lexsort((away.sum(axis=1), away.max(axis=1)))
    return np.asarray(expected[orders[rank[0]]])


def sizes(points: Array, labelled: NDArray[np.bool_]) -> Array:
    """Return sizes ``(C,)`` of shapes ``(C, N, 2)``: root mean square distance from the centre, NaN below 2 points."""
    found = np.full(len(points), np.nan)
    for row, (shape, here) in enumerate(zip(points, labelled, strict=True)):
        if here.sum() >= 2:
            centred = shape[here] - shape[here].mean(axis=0)
            found[row] = np.sqrt((centred**2).sum(axis=1).mean())
    return found
