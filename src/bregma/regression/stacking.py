"""Predictions of several models weighed together, by what each of them said of cases that it had not learned from.

Stacked regressions with weights that are not negative (Breiman, Mach Learn 1996; 24:49-64). Members may be anything
that predicts a case without having learned from its fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bregma.geometry import Array

_FEWEST = 10
"""Cases below which the members are averaged."""


def stacked(members: Array, target: Array, folds: NDArray[np.intp], subjects: Sequence[str]) -> Array:
    """Return the stack's predictions ``(S,)``: those of each fold are weighed by the cases of all other folds.

    Args:
        members: ``(S, M)`` predictions, each by a model that has not learned from the case's fold.
        target: ``(S,)``, NaN where it is not known.
        folds: ``(S,)``.
        subjects: of the rows; each counts once.
    """
    rows = np.array([subjects.count(subject) for subject in subjects], dtype=np.float64)
    weight = 1.0 / np.sqrt(rows)
    out = np.zeros(len(members))
    for fold in np.unique(folds):
        own = folds == fold
        learn = ~own & np.isfinite(target) & np.isfinite(members).all(axis=1)
        shares, centre, offset = _weights(members[learn], target[learn], weight[learn])
        out[own] = (members[own] - centre) @ shares + offset
    return out


def _weights(members: Array, target: Array, weight: Array) -> tuple[Array, Array, float]:
    """Return weights, and the means about which they are meant."""
    count = members.shape[1]
    if len(members) < _FEWEST:
        return np.full(count, 1.0 / count), np.zeros(count), 0.0
    share = weight**2 / (weight**2).sum()
    centre, offset = share @ members, float(share @ target)
    found, _ = nnls((members - centre) * weight[:, None], (target - offset) * weight)
    return found, centre, offset
