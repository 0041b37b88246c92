"""One image: its labels and a prediction, or a second reader, to a scored case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bregma import metrics
from bregma.errors import InputError
from bregma.evaluation.elements import match_elements
from bregma.evaluation.settings import EvaluationSettings
from bregma.geometry import Array
from bregma.measurement import measure_landmarks, measure_prediction, measure_targets
from bregma.results import CaseResult
from bregma.schema import LandmarkSchema
from bregma.types import Case, LandmarkSet, Measurement, Prediction, Status


def score_case(schema: LandmarkSchema, case: Case, prediction: Prediction, settings: EvaluationSettings) -> CaseResult:
    """Score a prediction against a case's labels.

    Raises:
        InputError: the prediction does not fit the schema or the case's image, or the case has no labels.
    """
    if len(prediction) != len(schema):
        raise InputError(
            f"the prediction does not fit the schema '{schema.name}'",
            where=case.id,
            expected=f"{len(schema)} landmarks",
            got=str(len(prediction)),
        )
    if prediction.frame.shape != case.frame.shape:
        raise InputError(
            "the prediction was made on an image of another size, so its pixels are not those of the labels",
            where=case.id,
            expected=f"{case.frame.shape[0]} rows x {case.frame.shape[1]} columns",
            got=f"{prediction.frame.shape[0]} x {prediction.frame.shape[1]}",
        )
    truth = match_exchangeable(schema, prediction.mean, _labels(case)) if len(schema) else LandmarkSet(np.zeros((0, 2)))
    # Measured in the case's own frame, so that both sides of a comparison are in one unit.
    in_frame, threshold = replace(prediction, frame=case.frame), settings.presence_threshold
    measured = (
        measure_prediction(schema, in_frame, given=case.targets)
        if threshold is None
        else measure_prediction(schema, in_frame, presence_threshold=threshold, given=case.targets)
    )
    result = _case_result(schema, case, truth, prediction, measured, settings)
    elements = match_elements(
        schema, truth, prediction, within=settings.match_within, presence_threshold=threshold, frame=case.frame
    )
    return replace(result, elements=elements)


def is_labelled(schema: LandmarkSchema, case: Case) -> bool:
    """Tell whether a case has anything to be scored: a landmark or, where the schema has none, a quantity."""
    if len(schema):
        return case.landmarks is not None and bool(case.landmarks.labelled.any())
    return any(quantity.name in case.targets for quantity in schema.quantities)


def _labels(case: Case) -> LandmarkSet:
    if case.landmarks is None:
        raise InputError("the case has no labels to score against", where=case.id)
    return case.landmarks


def _case_result(
    schema: LandmarkSchema,
    case: Case,
    truth: LandmarkSet,
    prediction: Prediction,
    measured: tuple[Measurement, ...],
    settings: EvaluationSettings,
) -> CaseResult:
    scored, spacing = truth.labelled, case.frame.spacing
    errors_px = metrics.radial_errors(prediction.mean, truth.points, scored=scored)
    missed = scored & (prediction.presence < (settings.presence_threshold or 0.0))
    far = np.nan_to_num(errors_px) > settings.outlier_px
    return CaseResult(
        case=case,
        truth=truth,
        prediction=prediction,
        errors_px=errors_px,
        errors_mm=None
        if spacing is None
        else metrics.radial_errors(prediction.mean, truth.points, scored=scored, spacing=spacing),
        scored=scored,
        ipe_px=metrics.mean_radial_error(errors_px),
        outliers=int((far | missed).sum()),
        measured=measured,
        true_measured=_measured(schema, case, truth),
    )


def measure_labels(schema: LandmarkSchema, case: Case) -> tuple[Measurement, ...]:
    """Return what the labels of a case measure, for a case that nothing was predicted on."""
    truth = _labels(case) if len(schema) else LandmarkSet(np.zeros((0, 2)))
    return _measured(schema, case, truth)


def _measured(schema: LandmarkSchema, case: Case, truth: LandmarkSet) -> tuple[Measurement, ...]:
    known = () if len(schema) else tuple(measure_targets(schema, case))
    return (*measure_landmarks(schema, truth, case.frame, given=case.targets), *known)


def match_exchangeable(
    schema: LandmarkSchema, points: Array, truth: LandmarkSet, placed: NDArray[np.bool_] | None = None
) -> LandmarkSet:
    """Return the labels with exchangeable points in the order that is nearest to ``points (N, 2)``.

    The order of such labels carries no meaning (the two ends of a diameter), so the least sum of distances decides.
    Points that are not ``placed (N,)`` have no say.
    """
    order = np.arange(len(schema))
    for group in schema.exchangeable:
        index = np.array([schema.index(name) for name in group])
        distances = np.linalg.norm(points[index][:, None] - truth.points[index][None], axis=2)
        usable = truth.labelled[index][None] & (True if placed is None else placed[index][:, None])
        cost = np.where(usable, distances, 0.0)
        rows, columns = linear_sum_assignment(cost)
        order[index[rows]] = index[columns]
    return LandmarkSet(truth.points[order], truth.status[order])


def score_reader(schema: LandmarkSchema, case: Case, reading: LandmarkSet, settings: EvaluationSettings) -> CaseResult:
    """Score a reader as if they were a model, on the landmarks that both the reader and the labels placed."""
    labels = match_exchangeable(schema, reading.points, _labels(case), reading.labelled)
    both = labels.labelled & reading.labelled
    truth = LandmarkSet(labels.points, np.where(both, labels.status, Status.UNLABELLED))
    n = len(reading)
    as_prediction = Prediction(case.id, reading.points, np.zeros((n, 2, 2)), np.ones(n), case.frame)
    measured = measure_landmarks(schema, reading, case.frame, given=case.targets)
    return _case_result(schema, case, truth, as_prediction, measured, settings)
