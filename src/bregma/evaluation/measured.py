"""The figures of measurements: predicted against true values and grades, over all places and at each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bregma import metrics
from bregma.evaluation import agreement
from bregma.evaluation.decisions import decision_figures
from bregma.evaluation.figures import Figure, estimates
from bregma.evaluation.grouped import group_figures
from bregma.evaluation.regression import regression_statistics
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.tables import Reading
from bregma.geometry import Array
from bregma.results import Agreement
from bregma.schema import LandmarkSchema, Quantity

FEWEST_PAIRS = 3
"""Below it there are no limits of agreement, no ICC and no kappa."""

_LIMITS, _ICC, _KAPPA = "limits of agreement", "ICC", "weighted kappa"

_REPEATED = (
    "Limits of agreement take several pairs of one subject as repeated measures: the variances between and within "
    "subjects are added (Bland & Altman 2007)."
)

Grades = Mapping[str, int]
"""Grade to its rank; empty where there is no scale."""


@dataclass(frozen=True)
class Pairs:
    """The readings of one measurement as arrays; NaN where a pair is not complete.

    Attributes:
        unit: of most readings; the others (lengths without a spacing) cannot be averaged with them.
        subject: ``(K,)`` index of the subject.
        values: ``(K, 2)`` predicted and true.
        ranks: ``(K, 2)`` predicted and true grade as a rank.
    """

    unit: str
    subject: NDArray[np.intp]
    values: Array
    ranks: Array


def measurement_figures(
    rows: Sequence[Reading], subjects: int, schema: LandmarkSchema | None = None
) -> dict[str, Figure]:
    """Return the figures of each measurement, all places taken together.

    Args:
        rows: readings of one or several measurements.
        subjects: number of subjects.
        schema: gives the order of grades; without it the figures that need it are left out.
    """
    figures: dict[str, Figure] = {}
    for name, own in _by_measurement(rows).items():
        order = grade_order(schema, name)
        found = agreement_figures(own, subjects, order)
        quantity = next((one for one in schema.quantities if one.name == name), None) if schema is not None else None
        if quantity is not None:
            found = _quantity_figures(quantity, pairs_of(own, order), subjects, found)
        figures |= {f"{name}_{kind}": figure for kind, figure in found.items()}
        if order and any(row.level for row in own) and "grade_accuracy" in found:
            figures[f"{name}_worst_grade_accuracy"] = _worst_grade_figure(own, subjects, order)
    return figures if schema is None else figures | group_figures(rows, subjects, schema)


def agreement_figures(rows: Sequence[Reading], subjects: int, order: Grades) -> dict[str, Figure]:
    """Return the figures of readings of one measurement by kind, e.g. ``mae``; those of grades only if graded.

    A place without a predicted value is in none of them but ``grade_accuracy``, where it is wrong.
    """
    pairs = pairs_of(rows, order)
    figures = _value_figures(pairs, subjects)
    right = np.array([np.nan if r.true_grade is None else 100.0 * (r.predicted_grade == r.true_grade) for r in rows])
    if np.isfinite(right).any():
        statistic = metrics.mean_statistic(right, pairs.subject, subjects)
        graded = int(np.isfinite(right).sum())
        figures["grade_accuracy"] = Figure(statistic, graded, "%", tested=True, lower_is_better=False)
        if order:
            figures |= _kappa_figures(pairs, subjects, len(order))
    return figures


def agreement_rows(
    rows: Sequence[Reading], subjects: int, schema: LandmarkSchema, settings: EvaluationSettings
) -> tuple[Agreement, ...]:
    """Return a row a measurement, each followed by one a level where it is taken along a chain."""
    places = {
        (name, level): part
        for name, own in _by_measurement(rows).items()
        for level, part in ({None: own} | _by_level(own)).items()
    }
    figures = {
        (place, kind): figure
        for place, own in places.items()
        for kind, figure in agreement_figures(own, subjects, grade_order(schema, place[0])).items()
    }
    found = estimates(figures, subjects, settings)
    return tuple(
        Agreement(
            name=place[0],
            label=own[0].label,
            level=place[1],
            unit=common_unit(own),
            failed=sum(row.failed for row in own),
            mae=found[place, "mae"],
            bias=found[place, "bias"],
            difference_sd=found[place, "difference_sd"],
            loa_low=found[place, "loa_low"],
            loa_high=found[place, "loa_high"],
            icc=found[place, "icc"],
            grade_accuracy=found.get((place, "grade_accuracy")),
            kappa=found.get((place, "kappa")),
            kappa_linear=found.get((place, "kappa_linear")),
        )
        for place, own in places.items()
    )


def gap_notes(rows: Sequence[Reading], schema: LandmarkSchema) -> list[str]:
    """Say which figures of agreement cannot be given, and why; a level is named where the whole has the figure."""
    notes = []
    for name, own in _by_measurement(rows).items():
        order = grade_order(schema, name)
        whole = _gaps(pairs_of(own, order))
        places: dict[tuple[str, str], list[str]] = {gap: [] for gap in whole.items()}
        for level, part in _by_level(own).items():
            for kind, reason in _gaps(pairs_of(part, order)).items():
                if kind not in whole:
                    places.setdefault((kind, reason), []).append(level)
        notes += _gap_sentences(own[0].label, places)
    return notes


def repeated_notes(rows: Sequence[Reading]) -> list[str]:
    """Say how limits of agreement take several pairs of one subject, where there are such."""
    repeated = any(_is_repeated(pairs_of(own, {})) for own in _by_measurement(rows).values())
    return [_REPEATED] if repeated else []


def _gap_sentences(label: str, places: Mapping[tuple[str, str], list[str]]) -> list[str]:
    """Return a sentence for each reason and list of levels, none of which stands for all places together."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for (kind, reason), levels in places.items():
        where = f"{label} at {', '.join(levels)}" if levels else label
        kinds.setdefault((where, reason), []).append(f"no {kind}")
    return [f"{where}: {' and '.join(missing)}, because {reason}." for (where, reason), missing in kinds.items()]


def pairs_of(rows: Sequence[Reading], order: Grades) -> Pairs:
    """Collect the readings of one measurement; values in another unit than the common one are left out."""
    unit = common_unit(rows)
    values = [_values(row) if row.unit == unit else (np.nan, np.nan) for row in rows]
    ranks = [(order.get(row.predicted_grade or "", np.nan), order.get(row.true_grade or "", np.nan)) for row in rows]
    return Pairs(
        unit=unit,
        subject=np.array([row.subject for row in rows], dtype=np.intp),
        values=np.array(values, dtype=np.float64),
        ranks=np.array(ranks, dtype=np.float64),
    )


def common_unit(rows: Sequence[Reading]) -> str:
    """Return the unit of most readings; the others (lengths without a spacing) cannot be averaged with them."""
    units = Counter(row.unit for row in rows if row.true is not None) or Counter(row.unit for row in rows)
    return units.most_common(1)[0][0]


def grade_order(schema: LandmarkSchema | None, name: str) -> dict[str, int]:
    """Return the rank of each grade of a measurement; empty where it has no scale, or one that repeats a label."""
    scale = None if schema is None else schema.grades_of.get(name)
    if schema is None or scale is None:
        return {}
    labels = schema.grade(scale).labels
    return {label: rank for rank, label in enumerate(labels)} if len(set(labels)) == len(labels) else {}


def _value_figures(pairs: Pairs, subjects: int) -> dict[str, Figure]:
    difference = pairs.values[:, 0] - pairs.values[:, 1]
    n, unit, gaps = int(np.isfinite(difference).sum()), pairs.unit, _gaps(pairs)
    grouped = (difference, pairs.subject, subjects)
    sd = agreement.sd_of_differences(*grouped)
    low = agreement.limit_of_agreement(*grouped, sds=-agreement.LIMIT_SDS)
    high = agreement.limit_of_agreement(*grouped, sds=agreement.LIMIT_SDS)
    if _LIMITS in gaps:
        sd, low, high = (agreement.undefined,) * 3
    icc = agreement.absolute_agreement_icc(pairs.values, pairs.subject, subjects)
    mae = metrics.mean_statistic(np.abs(difference), pairs.subject, subjects)
    return {
        "mae": Figure(mae, n, unit, tested=True),
        "bias": Figure(metrics.mean_statistic(*grouped), n, unit, lower_is_better=None),
        "difference_sd": Figure(sd, n, unit),
        "loa_low": Figure(low, n, unit, lower_is_better=None),
        "loa_high": Figure(high, n, unit, lower_is_better=None),
        "icc": Figure(agreement.undefined if _ICC in gaps else icc, n, "1", lower_is_better=False),
    }


def _quantity_figures(
    quantity: Quantity, pairs: Pairs, subjects: int, agreeing: dict[str, Figure]
) -> dict[str, Figure]:
    """Return the figures of a quantity of whole images: of regression, of agreement and of its thresholds."""
    found = _regression_figures(pairs, subjects) | agreeing
    if pairs.unit == quantity.unit:
        found |= decision_figures(quantity, pairs.values[:, 0], pairs.values[:, 1], pairs.subject, subjects)
    return found


def _regression_figures(pairs: Pairs, subjects: int) -> dict[str, Figure]:
    n, unit = int(np.isfinite(pairs.values).all(axis=1).sum()), pairs.unit
    found = regression_statistics(pairs.values[:, 0], pairs.values[:, 1], pairs.subject, subjects)
    units = {"rmse": unit, "mape": "%", "intercept": unit}
    better: dict[str, bool | None] = {"rmse": True, "mape": True, "slope": None, "intercept": None}
    return {
        kind: Figure(statistic, n, units.get(kind, "1"), tested=kind == "r2", lower_is_better=better.get(kind, False))
        for kind, statistic in found.items()
    }


def _kappa_figures(pairs: Pairs, subjects: int, grades: int) -> dict[str, Figure]:
    n = int(np.isfinite(pairs.ranks).all(axis=1).sum())
    predicted, true = pairs.ranks.T
    defined = _KAPPA not in _gaps(pairs)

    def kappa(power: int) -> Figure:
        weights = agreement.graded_disagreement(grades, power=power)
        statistic = agreement.weighted_kappa(true, predicted, pairs.subject, subjects, disagreement=weights)
        return Figure(statistic if defined else agreement.undefined, n, "1", lower_is_better=False)

    return {"kappa": kappa(2), "kappa_linear": kappa(1)}


def _gaps(pairs: Pairs) -> dict[str, str]:
    """Return which figures cannot be given, and why."""
    values, graded = np.isfinite(pairs.values).all(axis=1), np.isfinite(pairs.ranks).all(axis=1)
    gaps = {}
    too_few = _too_few(pairs.subject[values], "values")
    if too_few:
        gaps = {_LIMITS: too_few, _ICC: too_few}
    elif np.ptp(pairs.values[values, 1]) == 0.0:
        gaps = {_ICC: "the true values do not differ"}
    if np.isfinite(pairs.ranks[:, 1]).any():
        too_few = _too_few(pairs.subject[graded], "grades")
        if too_few:
            gaps[_KAPPA] = too_few
        elif np.ptp(pairs.ranks[graded, 1]) == 0.0:
            gaps[_KAPPA] = "all true grades are the same"
    return gaps


def _too_few(subject: NDArray[np.intp], what: str) -> str:
    if len(subject) < FEWEST_PAIRS:
        return f"fewer than {FEWEST_PAIRS} pairs of {what} are known"
    return "all pairs come from one subject" if len(np.unique(subject)) < 2 else ""


def _is_repeated(pairs: Pairs) -> bool:
    known = pairs.subject[np.isfinite(pairs.values).all(axis=1)]
    return len(np.unique(known)) < len(known)


def _values(row: Reading) -> tuple[float, float]:
    if row.predicted is None or row.true is None:
        return np.nan, np.nan
    return row.predicted, row.true


def _by_measurement(rows: Sequence[Reading]) -> dict[str, list[Reading]]:
    return {name: [row for row in rows if row.name == name] for name in dict.fromkeys(row.name for row in rows)}


def _by_level(rows: Sequence[Reading]) -> dict[str, list[Reading]]:
    levels = dict.fromkeys(row.level for row in rows if row.level is not None)
    return {level: [row for row in rows if row.level == level] for level in levels}


def _worst_grade_figure(rows: Sequence[Reading], subjects: int, order: Grades) -> Figure:
    """Compare the highest grade of each image; places without a true grade are left out on both sides."""
    true: dict[str, int] = {}
    predicted: dict[str, int] = {}
    subject: dict[str, int] = {}
    for row in rows:
        if row.true_grade is not None:
            subject[row.case_id] = row.subject
            true[row.case_id] = max(true.get(row.case_id, -1), order[row.true_grade])
            rank = -1 if row.predicted_grade is None else order[row.predicted_grade]
            predicted[row.case_id] = max(predicted.get(row.case_id, -1), rank)
    right = [100.0 * (predicted[case] == true[case]) for case in true]
    statistic = metrics.mean_statistic(right, list(subject.values()), subjects)
    return Figure(statistic, len(right), "%", lower_is_better=False)
