"""Values to grades on a declared scale, and samples of a value to the probability of each grade."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.schema import GradeScale, Quantity, Threshold


def grade_of(scale: GradeScale, value: float) -> str:
    """Return the label of a value; one that equals an edge falls into the upper grade."""
    return scale.labels[int(_positions(scale, value))]


def grade_probabilities(scale: GradeScale, values: ArrayLike) -> dict[str, float]:
    """Return the share of finite samples ``(S,)`` in each grade, in the order of the scale.

    Labels that occur more than once on a scale (abnormal, normal, abnormal) are added up. With no finite sample,
    nothing is known and the result is empty.
    """
    samples = np.asarray(values, dtype=np.float64)
    samples = samples[np.isfinite(samples)]
    if not samples.size:
        return {}
    shares = np.bincount(_positions(scale, samples), minlength=len(scale.labels)) / samples.size
    probabilities = dict.fromkeys(scale.labels, 0.0)
    for label, share in zip(scale.labels, shares):
        probabilities[label] += float(share)
    return probabilities


def looked_for(quantity: Quantity, threshold: Threshold, values: ArrayLike) -> NDArray[np.bool_]:
    """Return which values ``(K,)`` of a quantity lie on the side of a threshold that is looked for."""
    own, edge = np.asarray(values, dtype=np.float64), threshold.value(quantity)
    return own <= edge if threshold.is_upper else own >= edge


def _positions(scale: GradeScale, values: ArrayLike) -> NDArray[np.intp]:
    graded = np.abs(values) if scale.absolute else np.asarray(values)
    return np.asarray(np.searchsorted(scale.edges, graded, side="right"))
