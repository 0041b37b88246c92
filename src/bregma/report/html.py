"""Self-contained HTML reports: an evaluation, predictions without labels, and runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bregma.report import words
from bregma.report.chains import chain_headlines, chain_sections
from bregma.report.page import write_page
from bregma.report.sections import (
    agreement_figures,
    comparison_rows,
    error_figures,
    examples_of,
    history_figures,
    landmark_figures,
    measured_cases,
    metric_rows,
    missing_measurements,
)
from bregma.report.tables import SubjectValue
from bregma.report.tiles import case_tile, measured_tile, prediction_tile
from bregma.results import ComparisonTable, Evaluation
from bregma.schema import LandmarkSchema
from bregma.types import ImageSource, Measurement, Prediction


class PredictedCase(NamedTuple):
    """One image with what a model said about it."""

    image: ImageSource
    prediction: Prediction
    measurements: Sequence[Measurement] = ()


def write_report(
    path: str | Path,
    evaluation: Evaluation,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    plan: Mapping[str, Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    title: str | None = None,
    worst: int = 12,
) -> Path:
    """Write an evaluation as one HTML file that loads nothing from elsewhere; return its path.

    An image that cannot be read leaves its place with the reason; the report is written all the same.

    Args:
        path: the HTML file.
        evaluation: what to show; cases come worst first.
        history: one row an epoch, with ``epoch`` and any of ``train_loss``, ``val_loss``, ``val_mre_px``,
            ``val_median_px``.
        plan: setting to its ``value`` and ``reason``.
        provenance: versions, commit, seed, data hashes, command; may be nested.
        title: heading; anatomy and run when left out.
        worst: how many of the worst cases to draw.

    Raises:
        RunError: the file cannot be written.
    """
    schema = evaluation.schema
    shown = evaluation.cases[: max(worst, 0)]
    examples = examples_of(evaluation.cases[len(shown) :])
    measured = measured_cases(evaluation) if shown else []
    pictures = len(shown) + len(examples) + len(measured)
    level = f"{100 * float(evaluation.settings.get('level', 0.95)):g} %"
    main = words.main_metrics(evaluation.metrics)
    chains = chain_sections(evaluation)
    headline = [*words.headline_metrics(evaluation.metrics), *chain_headlines(evaluation, chains)]
    elsewhere = {*main, *(row["name"] for chain in chains for row in chain.metrics)}
    return write_page(
        path,
        "report.html.j2",
        title=title or f"{schema.title}: {evaluation.name}",
        lead=_lead(evaluation),
        notes=evaluation.notes,
        level=level,
        headline=metric_rows(evaluation, headline),
        human=bool(evaluation.human),
        main_rows=metric_rows(evaluation, main),
        other_rows=metric_rows(evaluation, [name for name in evaluation.metrics if name not in elsewhere]),
        chains=chains,
        worst=[
            case_tile(schema, result, heading=f"{rank}. {result.case.id}", pictures=pictures)
            for rank, result in enumerate(shown, start=1)
        ],
        examples=[
            case_tile(schema, result, heading=f"{kind}: {result.case.id}", pictures=pictures)
            for kind, result in examples
        ],
        error_figures=error_figures(evaluation),
        landmarks=evaluation.landmarks,
        landmark_figures=landmark_figures(evaluation),
        agreements=evaluation.agreements,
        human_agreements=evaluation.human_agreements,
        measurement_figures=agreement_figures(evaluation),
        doubtful=any(any(result.prediction.flags or ()) for result in evaluation.cases),
        has_points=len(evaluation.schema) > 0,
        measured=[
            measured_tile(schema, result, heading=f"{kind}: {result.case.id}", pictures=pictures)
            for kind, result in measured
        ],
        missing=missing_measurements(evaluation.cases),
        history_figures=history_figures(history or ()),
        plan=_plan_rows(plan or {}),
        provenance=words.flat(provenance or {}),
        settings=words.flat(evaluation.settings),
    )


def write_prediction_report(
    path: str | Path,
    schema: LandmarkSchema,
    items: Iterable[PredictedCase | tuple[ImageSource, Prediction, Sequence[Measurement]]],
    *,
    subjects: Sequence[SubjectValue] = (),
    title: str | None = None,
    notes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    most: int = 60,
) -> Path:
    """Write predictions without labels as one HTML file that loads nothing from elsewhere; return its path.

    Args:
        path: the HTML file.
        schema: the anatomy.
        items: image, prediction and measurements of each case, in the order in which to show them.
        subjects: what was measured on all images of a subject together.
        title: heading; the anatomy when left out.
        notes: what a reader must know.
        provenance: versions, bundle, command; may be nested.
        most: how many cases to show; a note says how many were left out.

    Raises:
        RunError: the file cannot be written.
    """
    cases = [PredictedCase(*item) for item in items]
    shown = list(islice(cases, most))
    left_out = len(cases) - len(shown)
    more = (f"Only the first {len(shown)} of {len(cases)} cases are shown.",) if left_out else ()
    models = ", ".join(dict.fromkeys(case.prediction.model or "unknown" for case in cases))
    measured = [(case.prediction.case_id, m) for case in shown for m in case.measurements]
    return write_page(
        path,
        "prediction.html.j2",
        title=title or f"{schema.title}: predictions",
        lead=f"{words.plural(len(cases), 'image')}, model {models or 'unknown'}, {len(schema)} landmarks. No labels: "
        "nothing here is checked against the truth.",
        notes=(*notes, *more),
        doubtful=any(any(case.prediction.flags or ()) for case in shown),
        subjects=subjects,
        summary=[{"case": case, "m": m} for case, m in measured] if len(shown) > 1 else [],
        cases=[
            {
                "tile": prediction_tile(schema, *case, pictures=len(shown)),
                "measurements": case.measurements,
            }
            for case in shown
        ],
        provenance=words.flat(provenance or {}),
    )


def write_comparison_html(
    path: str | Path,
    comparison: ComparisonTable,
    *,
    schema: LandmarkSchema | None = None,
    title: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write runs side by side as one HTML file that loads nothing from elsewhere; return its path.

    Args:
        path: the HTML file.
        comparison: the runs and their paired differences.
        schema: gives the names of measurements in words.
        title: heading; the comparison's name when left out.
        provenance: versions, commands; may be nested.

    Raises:
        RunError: the file cannot be written.
    """
    return write_page(
        path,
        "comparison.html.j2",
        title=title or comparison.name,
        lead=f"{words.plural(len(comparison.runs), 'run')} on the same {words.plural(comparison.cases, 'image')} of "
        f"{words.plural(comparison.subjects, 'subject')}.",
        notes=comparison.notes,
        runs=comparison.runs,
        test=comparison.test,
        rows=comparison_rows(comparison, schema),
        provenance=words.flat(provenance or {}),
    )


def _lead(evaluation: Evaluation) -> str:
    cases = evaluation.cases
    subjects = len({result.case.subject for result in cases})
    models = ", ".join(dict.fromkeys(result.prediction.model for result in cases if result.prediction.model))
    calibration = ", ".join(dict.fromkeys(result.prediction.calibration for result in cases)) or "none"
    view = f" ({evaluation.schema.view})" if evaluation.schema.view else ""
    return (
        f"{words.plural(len(cases), 'image')} of {words.plural(subjects, 'subject')}, "
        f"{_what(evaluation.schema)}{view}; model {models or 'unknown'}, "
        f"uncertainty calibrated by: {calibration}."
    )


def _what(schema: LandmarkSchema) -> str:
    if len(schema):
        return f"{len(schema)} landmarks"
    return ", ".join(quantity.label for quantity in schema.quantities)


def _plan_rows(plan: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {"name": name, "value": words.plain(row.get("value")), "reason": words.plain(row.get("reason", ""))}
        for name, row in plan.items()
    ]
