"""Landmarks to clinical measurements: primitives, grades, and the uncertainty carried through them.

A schema names its measurements as rows over the functions in ``PRIMITIVES``; :func:`measure` does the rest.
"""

from __future__ import annotations

from bregma.measurement.grades import grade_of, grade_probabilities
from bregma.measurement.primitives import Primitive
from bregma.measurement.propagate import measure, measure_landmarks, measure_prediction
from bregma.measurement.rows import check_measurements
from bregma.measurement.table import PRIMITIVES
from bregma.measurement.values import measure_subject, measure_targets

__all__ = [
    "PRIMITIVES",
    "Primitive",
    "check_measurements",
    "grade_of",
    "grade_probabilities",
    "measure",
    "measure_landmarks",
    "measure_prediction",
    "measure_subject",
    "measure_targets",
]
