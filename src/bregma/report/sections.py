"""The parts of a report's pages, from the values of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bregma.geometry import Array
from bregma.measurement.grades import looked_for
from bregma.measurement.values import mean_grade, quantity_of
from bregma.metrics import roc_points
from bregma.report import figures
from bregma.report.page import Picture, svg
from bregma.report.words import metric_words, plural, short_labels
from bregma.results import Agreement, CaseResult, ComparisonTable, Evaluation
from bregma.schema import LandmarkSchema
from bregma.types import Measurement

_MOST_PLOTS = 12
_MOST_IDS = 8
_FEWEST_PAIRS = 3

Pair = tuple[Measurement, Measurement]


def metric_rows(evaluation: Evaluation, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a metric: its words, the model's figure, and a second observer's."""
    return [
        {
            "name": name,
            "words": metric_words(name, evaluation.schema),
            "figure": evaluation.metrics[name],
            "human": evaluation.human.get(name),
        }
        for name in names
    ]


def examples_of(cases: Sequence[CaseResult]) -> list[tuple[str, CaseResult]]:
    """Return up to three typical and three best cases of a list that runs from worst to best."""
    scored = [result for result in cases if result.ipe_px is not None or (not len(result.truth) and result.measured)]
    best = scored[max(0, len(scored) - 3) :]
    rest = scored[: len(scored) - len(best)]
    middle = max(0, len(rest) // 2 - 1)
    return [*(("typical", result) for result in rest[middle : middle + 3]), *(("best", r) for r in best[::-1])]


def measured_cases(evaluation: Evaluation) -> list[tuple[str, CaseResult]]:
    """Return the two worst, a typical and the best of the cases of which something is measured on landmarks."""
    if not len(evaluation.schema):
        return []
    cases = [result for result in evaluation.cases if any(m.value is not None for m in result.measured)]
    worst, rest = [("among the worst", result) for result in cases[:2]], examples_of(cases[2:])
    others = {kind: (kind, result) for kind, result in reversed(rest)}
    return [*worst, *(others[kind] for kind in ("typical", "best") if kind in others)]


def error_figures(evaluation: Evaluation) -> list[Picture]:
    """Return the cumulative curve and the histogram of all scored errors."""
    errors, unit = _all_errors(evaluation.cases)
    if not np.isfinite(errors).any():
        return []
    thresholds = evaluation.settings.get(f"sdr_{unit}", ())
    curve = figures.cumulative_errors({"model": errors}, unit, thresholds=thresholds)
    histogram = figures.error_histogram(errors, unit)
    return [
        svg(curve, "Cumulative curve: share of points within a radial error", "Share of points within a distance"),
        svg(histogram, "Histogram of radial errors", "How often which error occurs"),
    ]


def landmark_figures(evaluation: Evaluation) -> list[Picture]:
    """Return the errors by landmark, or nothing where none was scored."""
    if all(mark.mre.value is None for mark in evaluation.landmarks):
        return []
    short = dict(zip(evaluation.schema.names, short_labels(evaluation.schema)))
    labels = [short.get(mark.name, mark.label) for mark in evaluation.landmarks]
    drawn = figures.landmark_errors(evaluation.landmarks, labels=labels)
    return [svg(drawn, "Radial errors by landmark; the table below has the values")]


def history_figures(history: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Return the learning curves, or nothing without a history."""
    if not history:
        return []
    return [svg(figures.learning_curves(history), f"Losses and validation errors over {plural(len(history), 'epoch')}")]


def agreement_figures(evaluation: Evaluation) -> list[Picture]:
    """Return for each measurement a Bland-Altman plot, the agreement by level along a chain, and a table of grades."""
    pictures: list[Picture] = []
    model, human = (_whole(rows) for rows in (evaluation.agreements, evaluation.human_agreements))
    for (name, unit), pairs in _pairs_by_measurement(evaluation.schema, evaluation.cases).items():
        if len(pictures) < _MOST_PLOTS and len(pairs) >= _FEWEST_PAIRS:
            if any(quantity.name == name for quantity in evaluation.schema.quantities):
                pictures += _values(evaluation, name, unit, pairs)
            pictures.append(_bland_altman(pairs, unit, model.get((name, unit)), human.get((name, unit))))
            pictures += _by_level([row for row in evaluation.agreements if (row.name, row.unit) == (name, unit)])
            pictures += _grades(evaluation.schema, name, pairs)
    return pictures


def _whole(rows: Sequence[Agreement]) -> dict[tuple[str, str], Agreement]:
    return {(row.name, row.unit): row for row in rows if row.level is None}


def missing_measurements(cases: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """Return what was not measured or not vouched for, one row a measurement and reason, with the cases concerned."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in cases:
        for m in result.measured:
            if m.status != "ok":
                found[m.label, f"{m.status.replace('_', ' ')}: {m.reason}"].append(result.case.id)
    return [
        {"label": label, "reason": reason, "places": len(ids), "cases": some_ids(list(dict.fromkeys(ids)))}
        for (label, reason), ids in found.items()
    ]


def some_ids(ids: Sequence[str]) -> str:
    """Return the first few of a list of cases, and how many more there are."""
    more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
    return ", ".join(ids[:_MOST_IDS]) + more


def comparison_rows(comparison: ComparisonTable, schema: LandmarkSchema | None) -> list[dict[str, Any]]:
    """Return one row a metric with a cell a run."""
    return [
        {
            "words": metric_words(row.metric, schema),
            "lower_is_better": row.lower_is_better,
            "cells": [
                {"figure": figure, "difference": difference, "p": p, "mood": "ci"}
                for figure, difference, p in zip(row.figures, row.differences, row.p_values, strict=True)
            ],
        }
        for row in comparison.rows
    ]


def _all_errors(cases: Sequence[CaseResult]) -> tuple[Array, str]:
    """Return the errors of all cases in mm if every one has them, else in px."""
    in_mm = [result.errors_mm for result in cases if result.errors_mm is not None]
    if in_mm and len(in_mm) == len(cases):
        return np.concatenate(in_mm), "mm"
    return np.concatenate([np.empty(0), *(result.errors_px for result in cases)]), "px"


def _pairs_by_measurement(schema: LandmarkSchema, cases: Sequence[CaseResult]) -> dict[tuple[str, str], list[Pair]]:
    pairs: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    shared: dict[tuple[str, str], dict[str, list[Pair]]] = {}
    for result in cases:
        for predicted, true in _matched(result):
            place = predicted.name, predicted.unit
            pairs[place].append((predicted, true))
            quantity = quantity_of(schema, predicted.name)
            if quantity is not None and quantity.per == "subject":
                shared.setdefault(place, {}).setdefault(result.case.subject, []).append((predicted, true))
    averaged = {place: [_mean_pair(schema, own) for own in people.values()] for place, people in shared.items()}
    return pairs | averaged


def _mean_pair(schema: LandmarkSchema, pairs: Sequence[Pair]) -> Pair:
    """Return the mean of what was predicted and is known on the images of one subject."""
    sides = [
        replace(side[0], **dict(zip(("value", "grade"), mean_grade(schema, side[0].name, [one.value for one in side]))))
        for side in zip(*pairs, strict=True)
    ]
    return sides[0], sides[1]


def _matched(result: CaseResult) -> Iterator[Pair]:
    true = {(m.name, m.level): m for m in result.true_measured}
    for predicted in result.measured:
        partner = true.get((predicted.name, predicted.level))
        if partner is not None and partner.unit == predicted.unit and None not in (predicted.value, partner.value):
            yield predicted, partner


def _bland_altman(pairs: Sequence[Pair], unit: str, agreement: Agreement | None, human: Agreement | None) -> Picture:
    predicted, true = ([m.value for m in side if m.value is not None] for side in zip(*pairs, strict=True))
    label = pairs[0][0].label
    return svg(
        figures.bland_altman(predicted, true, unit, label, agreement=agreement, human=human),
        f"Bland-Altman plot of {label}: {plural(len(pairs), 'pair')} of predicted and true values",
        "Bias (line) and 95 % limits of agreement (dashed); bands are their intervals." if agreement else "",
    )


def _values(evaluation: Evaluation, name: str, unit: str, pairs: Sequence[Pair]) -> list[Picture]:
    """Return the predicted against the true values of a quantity, its residuals, and how often which occurs."""
    predicted, true = ([m.value for m in side if m.value is not None] for side in zip(*pairs, strict=True))
    label = pairs[0][0].label
    r2, slope, intercept = (evaluation.metrics.get(f"{name}_{kind}") for kind in ("r2", "slope", "intercept"))
    drawn = figures.predicted_against_true(predicted, true, unit, label, r2=r2, slope=slope, intercept=intercept)
    return [
        svg(
            drawn,
            f"Predicted against true values of {label}",
            "Grey: equal values; red: what is true on average",
        ),
        svg(figures.residuals(predicted, true, unit, label), f"Residuals of {label} against predicted values"),
        svg(figures.difference_histogram(predicted, true, unit, label), f"How often which error of {label} occurs"),
        *_decisions(evaluation, name, unit, predicted, true),
    ]


def _decisions(
    evaluation: Evaluation, name: str, unit: str, predicted: Sequence[float], true: Sequence[float]
) -> list[Picture]:
    """Return a ROC curve for each threshold of a quantity that has true values on both sides."""
    quantity = evaluation.schema.quantity(name)
    pictures = []
    for threshold in quantity.thresholds if unit == quantity.unit else ():
        positive, decided = (looked_for(quantity, threshold, values) for values in (true, predicted))
        if positive.all() or not positive.any():
            continue
        curve = roc_points(np.array(predicted) * (-1.0 if threshold.is_upper else 1.0), positive)
        drawn = figures.roc_curve(
            *curve,
            threshold.label,
            auc=evaluation.metrics.get(f"{name}_{threshold.name}_auc"),
            decision=(float(decided[~positive].mean()), float(decided[positive].mean())),
            wanted=threshold.sensitivity,
        )
        words = f"ROC curve of predicted {quantity.label} for {threshold.label}"
        pictures.append(
            svg(drawn, words, "Dot: the threshold put on the predicted values; dashed: the sensitivity asked for")
        )
    return pictures


def _by_level(rows: Sequence[Agreement]) -> list[Picture]:
    if len(rows) < 2:
        return []
    return [svg(figures.agreement_by_level(rows), f"Bias and limits of agreement of {rows[0].label} at each level")]


def _grades(schema: LandmarkSchema, name: str, pairs: Sequence[Pair]) -> list[Picture]:
    scale = schema.grades_of.get(name)
    graded = [(p.grade, t.grade) for p, t in pairs if p.grade is not None and t.grade is not None]
    if scale is None or not graded:
        return []
    labels = schema.grade(scale).labels
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for predicted, true in graded:
        counts[labels.index(true), labels.index(predicted)] += 1
    title = schema.grade(scale).label or scale
    return [svg(figures.confusion(counts, labels, title), f"Table of true and predicted grades, {title}")]
