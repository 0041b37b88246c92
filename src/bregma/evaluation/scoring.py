"""Predictions and labels to an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bregma import metrics
from bregma.errors import ConfigError, InputError
from bregma.evaluation.as_labelled import as_labelled_figures
from bregma.evaluation.case import is_labelled, measure_labels, score_case, score_reader
from bregma.evaluation.decisions import decision_notes
from bregma.evaluation.element_figures import element_figures, image_elements
from bregma.evaluation.figures import Figure, estimates, point_figures
from bregma.evaluation.measured import agreement_rows, gap_notes, measurement_figures
from bregma.evaluation.notes import coverage_notes, meaning_notes, no_better_than_the_mean
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.tables import PointTable, Reading, average_subjects, point_table, readings, subject_index
from bregma.results import Agreement, CaseResult, Estimate, Evaluation, LandmarkResult
from bregma.schema import LandmarkSchema
from bregma.types import Case, Prediction


def evaluate_predictions(
    schema: LandmarkSchema,
    cases: Iterable[Case],
    predictions: Iterable[Prediction],
    settings: EvaluationSettings | None = None,
    *,
    name: str,
) -> Evaluation:
    """Score predictions against the labels of cases.

    Points that the schema calls exchangeable are matched to the labels in the order that fits best. A labelled image
    without a prediction fails all its landmarks in SDR, outliers and ``missed_rate``, and is named in the notes.

    Args:
        schema: the anatomy.
        cases: images with labels; those without any label are left out, with a note.
        predictions: at most one an image, matched by case id.
        settings: thresholds and resampling.
        name: run and split, for headings.

    Raises:
        InputError: nothing can be scored, or a prediction does not fit its case.
    """
    settings = settings or EvaluationSettings()
    given = _by_case(predictions)
    everything = list(cases)
    labelled = [case for case in everything if is_labelled(schema, case)]
    results = [score_case(schema, case, given[case.id], settings) for case in labelled if case.id in given]
    if not results:
        raise InputError(
            "there is nothing to score",
            where=name,
            expected="predictions for labelled cases",
            got=f"{len(labelled)} labelled cases and {len(given)} predictions, with no id in common",
            fix="evaluate the predictions of these very images",
        )
    failed = [case for case in labelled if case.id not in given]
    scored = _figures(schema, results, failed, settings)
    human = _human(schema, labelled, settings)
    metrics = estimates(scored.figures, scored.subjects, settings)
    notes = [
        *coverage_notes(everything, labelled, failed, given),
        *meaning_notes(schema, results, scored.readings, scored.subjects, settings),
        *no_better_than_the_mean(schema, metrics),
        *decision_notes(schema, metrics),
        *human.notes,
    ]
    return Evaluation(
        name=name,
        schema=schema,
        cases=tuple(sorted(results, key=lambda r: (-_worst(r), r.case.id))),
        metrics=metrics,
        landmarks=_landmark_rows(schema, scored.table, settings),
        agreements=agreement_rows(scored.readings, scored.subjects, schema, settings),
        settings=settings.to_dict(),
        notes=tuple(notes),
        human=human.metrics,
        human_agreements=human.agreements,
    )


def _worst(result: CaseResult) -> float:
    """Return by what images are ranked: the mean error of points, or else the largest relative one of values."""
    if result.ipe_px is not None or len(result.truth):
        return -1.0 if result.ipe_px is None else result.ipe_px
    predicted = {one.name: one for one in result.measured}
    errors = [
        abs(found.value - true.value) / max(abs(true.value), 1e-9)
        for true in result.true_measured
        if true.value is not None
        and (found := predicted.get(true.name)) is not None
        and found.value is not None
        and found.unit == true.unit
    ]
    return max(errors, default=np.inf)


@dataclass(frozen=True)
class _Scored:
    subjects: int
    table: PointTable
    readings: tuple[Reading, ...]
    figures: dict[str, Figure]


def _figures(
    schema: LandmarkSchema, results: Sequence[CaseResult], failed: Sequence[Case], settings: EvaluationSettings
) -> _Scored:
    subjects = subject_index([*(r.case.subject for r in results), *(case.subject for case in failed)])
    table = point_table(
        results,
        failed,
        subjects,
        presence_threshold=settings.presence_threshold,
        reference=_reference(schema) if settings.reference_length else None,
    )
    silent = [(case, measure_labels(schema, case)) for case in failed]
    rows = average_subjects(readings(results, subjects, silent), schema)
    if not len(schema):
        return _Scored(len(subjects), table, rows, measurement_figures(rows, len(subjects), schema))
    images = image_elements(schema, results, failed, subjects)
    figures = point_figures(table, settings) | element_figures(images, len(subjects), schema, at_size=settings.at_size)
    figures |= as_labelled_figures(schema, results, table)
    figures |= measurement_figures(rows, len(subjects), schema)
    return _Scored(len(subjects), table, rows, figures)


def _reference(schema: LandmarkSchema) -> tuple[int, int, float]:
    if schema.reference_length is None:
        raise ConfigError(
            f"the schema '{schema.name}' declares no reference length",
            where="reference_length",
            fix="leave reference_length off, or declare it in the schema",
        )
    first, second, length_mm = schema.reference_length
    return schema.index(first), schema.index(second), length_mm


def _by_case(predictions: Iterable[Prediction]) -> dict[str, Prediction]:
    given: dict[str, Prediction] = {}
    for prediction in predictions:
        if prediction.case_id in given:
            raise InputError("there are two predictions for one case", where=prediction.case_id)
        given[prediction.case_id] = prediction
    return given


@dataclass(frozen=True)
class _Human:
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    agreements: tuple[Agreement, ...] = ()


def _human(schema: LandmarkSchema, cases: Sequence[Case], settings: EvaluationSettings) -> _Human:
    """Score the second reader like a model, on the landmarks that the reader placed."""
    reader = settings.observer or _usual_reader(cases)
    read = [case for case in cases if reader in case.observers]
    if reader is None or not read:
        return _Human(() if reader is None else (f"No image was read by '{reader}', so there is no human line.",))
    results = [score_reader(schema, case, case.observers[reader], settings) for case in read]
    kept = [result for result in results if result.scored.any()]
    if not kept:
        return _Human((f"'{reader}' placed no landmark that is labelled, so there is no human line.",))
    scored = _figures(schema, kept, [], settings)
    note = f"The human line is the reader '{reader}' against the labels, on {len(kept)} of {len(cases)} images."
    return _Human(
        notes=(note, *(f"Human line, {gap}" for gap in gap_notes(scored.readings, schema))),
        metrics=estimates(scored.figures, scored.subjects, settings),
        agreements=agreement_rows(scored.readings, scored.subjects, schema, settings),
    )


def _usual_reader(cases: Sequence[Case]) -> str | None:
    counts = Counter(name for case in cases for name, points in case.observers.items() if points != case.landmarks)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None


def _landmark_rows(
    schema: LandmarkSchema, table: PointTable, settings: EvaluationSettings
) -> tuple[LandmarkResult, ...]:
    """One row a landmark, in mm where every image has a trusted spacing and in px otherwise."""
    errors, unit = (table.errors_px, "px") if table.errors_mm is None else (table.errors_mm, "mm")
    figures: dict[tuple[int, str], Figure] = {}
    for index in range(len(schema)):
        values, n = errors[:, index], int(np.isfinite(errors[:, index]).sum())
        grouped = (values, table.subject, table.subjects)
        figures[index, "mre"] = Figure(metrics.mean_statistic(*grouped), n, unit)
        figures[index, "median"] = Figure(metrics.quantile_statistic(*grouped, 0.5), n, unit)
        figures[index, "p95"] = Figure(metrics.quantile_statistic(*grouped, 0.95), n, unit)
    found = estimates(figures, table.subjects, settings)
    bad = (np.nan_to_num(table.errors_px) > settings.outlier_px) | (table.labelled & ~table.given)
    return tuple(
        LandmarkResult(
            name=landmark.name,
            label=landmark.label,
            mre=found[index, "mre"],
            median=found[index, "median"],
            p95=found[index, "p95"],
            outliers=int(bad[:, index].sum()),
        )
        for index, landmark in enumerate(schema.landmarks)
    )
