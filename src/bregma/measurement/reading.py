"""Quantities read off lengths by published equations, and the centiles of lengths on published charts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from bregma.curves import Chart, Curve, Formula
from bregma.geometry import Array

_DAYS = {"d": 1.0, "wk": 7.0}


def evaluate(curve: Curve, x: ArrayLike) -> Array:
    """Return the curve at positive ``x (...)``, NaN elsewhere."""
    given = np.asarray(x, dtype=np.float64)
    positive = np.where(given > 0, given, 1.0)
    terms = [factor * positive**power * np.log(positive) ** log_power for factor, power, log_power in curve.terms]
    total = np.asarray(sum(terms))
    return np.where(given > 0, np.exp(total) if curve.log else total, np.nan)


def read_off(formula: Formula, length_mm: ArrayLike, unit: str) -> Array:
    """Return what the equation gives for lengths ``(...)``, in ``unit``, whether or not it was fitted there."""
    x = formula.offset + formula.scale * np.asarray(length_mm, dtype=np.float64)
    return np.asarray(evaluate(formula.curve, x) * time_factor(formula, unit))


def standard_error(formula: Formula, value: ArrayLike, unit: str) -> Array | None:
    """Return the equation's standard error at results ``(...)``, in ``unit``; None where none is declared."""
    table = formula.standard_error
    if table is None:
        return None
    factor = time_factor(formula, unit)
    return np.asarray(
        np.array(table.values)[np.searchsorted(table.edges, np.asarray(value) / factor, "right")] * factor
    )


def centile(chart: Chart, length_mm: ArrayLike, by: float) -> Array:
    """Return the centiles of lengths ``(...)`` in percent, where ``by`` is the chart's independent quantity."""
    score = (np.asarray(length_mm, dtype=np.float64) - evaluate(chart.mean, by)) / evaluate(chart.sd, by)
    return np.asarray(100.0 * ndtr(score))


def time_factor(formula: Formula, unit: str) -> float:
    """Return how many ``unit`` (``wk`` or ``d``) make one of the equation's own."""
    return _DAYS[formula.unit] / _DAYS[unit]
