"""Scored points and measurements as arrays, from which the figures are computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array
from bregma.measurement.values import mean_grade, quantity_of
from bregma.results import CaseResult
from bregma.schema import LandmarkSchema
from bregma.types import Case, LandmarkSet, Measurement, Status

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PointTable:
    """All points of C images, with N landmarks each.

    Attributes:
        subjects: number of subjects.
        subject: ``(C,)`` each image's subject, 0 … ``subjects`` − 1.
        labelled: ``(C, N)`` points with a true position.
        outside: ``(C, N)`` points known not to be on the image.
        given: ``(C, N)`` points that the model gave.
        long_side: ``(C,)`` longer side of each image in px.
        extent: ``(C,)`` diagonal of the box around the true points in px; 0 for fewer than two.
        errors_px: ``(C, N)`` radial errors; NaN where there is no label or no position.
        errors_mm: the same in mm, or None unless every image has a trusted spacing.
        errors_mm_ref: the same in the literature's millimetres, or None unless asked for.
    """

    subjects: int
    subject: NDArray[np.intp]
    labelled: Mask
    outside: Mask
    given: Mask
    long_side: Array
    extent: Array
    errors_px: Array
    errors_mm: Array | None = None
    errors_mm_ref: Array | None = None


@dataclass(frozen=True)
class Reading:
    """One measurement at one place of one image, predicted and true.

    Attributes:
        case_id: the image.
        subject: index of its subject.
        name: the measurement.
        label: words for a reader.
        level: where along a chain, or None.
        unit: of both values.
        predicted: value from the prediction, or None.
        true: value from the labels, or None.
        predicted_grade: grade from the prediction, or None.
        true_grade: grade from the labels, or None.
        seed: which training of several it comes from.
    """

    case_id: str
    subject: int
    name: str
    label: str
    level: str | None
    unit: str
    predicted: float | None
    true: float | None
    predicted_grade: str | None
    true_grade: str | None
    seed: int = 0

    @property
    def failed(self) -> bool:
        """Whether there is a true value and no predicted one."""
        return self.true is not None and self.predicted is None


def subject_index(subjects: Iterable[str]) -> dict[str, int]:
    """Number subjects in order of first appearance."""
    return {subject: index for index, subject in enumerate(dict.fromkeys(subjects))}


def point_table(
    results: Sequence[CaseResult],
    failed: Sequence[Case],
    subjects: dict[str, int],
    *,
    presence_threshold: float | None,
    reference: tuple[int, int, float] | None,
) -> PointTable:
    """Collect scored images and those for which there is no prediction.

    Args:
        results: scored images.
        failed: labelled images without a prediction; all their points count as not given.
        subjects: subject to index, for all of them.
        presence_threshold: a prediction below it does not give the point; None takes all as given.
        reference: indices of two landmarks and the millimetres between them, to score in ``mm_ref``.
    """
    truths = [result.truth for result in results] + [case.landmarks for case in failed if case.landmarks is not None]
    cases = [result.case for result in results] + list(failed)
    points = true_points(truths)
    status = np.array([truth.status for truth in truths])
    count = status.shape[1]
    silent = [np.full(count, np.nan)] * len(failed)
    presence = np.array([result.prediction.presence for result in results] + [np.zeros(count)] * len(failed))
    has_position = np.arange(len(cases)) < len(results)
    given = has_position[:, None] & (presence >= (presence_threshold or 0.0))
    errors_px = np.array([result.errors_px for result in results] + silent)
    errors_mm = [result.errors_mm for result in results if result.errors_mm is not None]
    return PointTable(
        subjects=len(subjects),
        subject=np.array([subjects[case.subject] for case in cases], dtype=np.intp),
        labelled=status <= Status.OCCLUDED,
        outside=status == Status.OUTSIDE,
        given=given,
        long_side=np.array([max(case.frame.shape) for case in cases], dtype=np.float64),
        extent=extents(points),
        errors_px=errors_px,
        errors_mm=np.array(errors_mm + silent) if errors_mm and len(errors_mm) == len(results) else None,
        errors_mm_ref=None if reference is None else errors_px * reference_scales(points, reference)[:, None],
    )


def true_points(truths: Iterable[LandmarkSet]) -> Array:
    """Return the labels of C images as ``(C, N, 2)``, NaN where there is no position."""
    return np.array([np.where(truth.labelled[:, None], truth.points, np.nan) for truth in truths])


def extents(points: Array) -> Array:
    """Return the diagonals ``(C,)`` of the boxes around points ``(C, N, 2)``; 0 for images without any point."""
    known = np.isfinite(points)
    high = np.where(known, points, -np.inf).max(axis=1, initial=-np.inf)
    low = np.where(known, points, np.inf).min(axis=1, initial=np.inf)
    return np.asarray(np.hypot(*np.where(np.isfinite(high), high - low, 0.0).T))


def reference_scales(points: Array, reference: tuple[int, int, float]) -> Array:
    """Return mm per pixel ``(C,)`` by a reference length; NaN where one of its ends is not labelled."""
    first, second, length_mm = reference
    lengths = np.hypot(*(points[:, first] - points[:, second]).T)
    return np.asarray(length_mm / np.where(lengths > 0, lengths, np.nan))


def readings(
    results: Iterable[CaseResult],
    subjects: dict[str, int],
    silent: Iterable[tuple[Case, Sequence[Measurement]]] = (),
) -> tuple[Reading, ...]:
    """Pair each measurement of the labels with the same one of the prediction.

    Args:
        results: of images with a prediction.
        subjects: index of every subject.
        silent: labelled images without one, each with what its labels measure: none of it was predicted.
    """
    pairs = []
    for result in results:
        predicted = {(m.name, m.level): m for m in result.measured}
        for true in result.true_measured:
            pairs.append(_reading(result.case, subjects, predicted.get((true.name, true.level)), true))
    pairs += [_reading(case, subjects, None, true) for case, measured in silent for true in measured]
    return tuple(pairs)


def average_subjects(rows: Sequence[Reading], schema: LandmarkSchema) -> tuple[Reading, ...]:
    """Return readings in which those of a subject are one, of the quantities that belong to subjects and not to images.

    The values predicted on the subject's images are averaged, each training's by themselves; the grade is that of
    the mean. The first image by name stands for all.
    """
    together: dict[tuple[object, ...], list[Reading]] = {}
    for place, row in enumerate(rows):
        quantity = quantity_of(schema, row.name)
        alone = quantity is None or quantity.per != "subject"
        key = (place,) if alone else (row.name, row.subject, row.unit, row.seed)
        together.setdefault(key, []).append(row)
    return tuple(_averaged(own, schema) for own in together.values())


def _averaged(rows: Sequence[Reading], schema: LandmarkSchema) -> Reading:
    if len(rows) == 1:
        return rows[0]
    predicted, predicted_grade = mean_grade(schema, rows[0].name, [row.predicted for row in rows])
    true, true_grade = mean_grade(schema, rows[0].name, [row.true for row in rows])
    case_id = min(row.case_id for row in rows)
    return replace(
        rows[0], case_id=case_id, predicted=predicted, true=true, predicted_grade=predicted_grade, true_grade=true_grade
    )


def _reading(case: Case, subjects: dict[str, int], predicted: Measurement | None, true: Measurement) -> Reading:
    same_unit = predicted is not None and predicted.unit == true.unit
    return Reading(
        case_id=case.id,
        subject=subjects[case.subject],
        name=true.name,
        label=true.label,
        level=true.level,
        unit=true.unit,
        predicted=predicted.value if predicted is not None and same_unit else None,
        true=true.value,
        predicted_grade=None if predicted is None else predicted.grade,
        true_grade=true.grade,
    )
