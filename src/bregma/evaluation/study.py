"""Arms of a study side by side: figures over subjects with seeds pooled, paired tests, tiers, tags and landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bregma import metrics
from bregma.evaluation.compare import (
    SharedCases,
    compare_stored,
    difference_of,
    holm,
    missing_notes,
    paired_p,
    shared_cases,
    shared_readings,
    shared_table,
    unlike_notes,
)
from bregma.evaluation.figures import Figure, Space, estimates, spaces_of
from bregma.evaluation.measured import common_unit
from bregma.evaluation.notes import FEW_SUBJECTS
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.stored import StoredRun, comparable, pooled, seed_case
from bregma.evaluation.tables import PointTable
from bregma.results import ArmResult, Breakdown, Estimate, StudyTable

_MOST_VALUES = 12
"""A tag with more different values is no group but a measurement, or an identifier."""


@dataclass(frozen=True)
class _Arm:
    run: StoredRun
    table: PointTable
    space: Space
    mre: Figure


def compare_arms(
    arms: Mapping[str, Sequence[StoredRun]],
    *,
    title: str,
    settings: EvaluationSettings,
    tiers: Sequence[float],
    tags: Sequence[str] = (),
) -> StudyTable:
    """Compare the evaluations of several recipes, each under one or several seeds.

    An arm's figures take every image once a seed. Intervals are over subjects; the seeds' spread is given beside them.
    P-values are of Wilcoxon's signed-rank test on the subjects' mean errors, two-sided, against the first arm,
    corrected after Holm (1979) for the number of arms.

    Args:
        arms: name to its evaluations, one a seed, all on the same images; the first arm is the reference.
        title: of the study.
        settings: thresholds and resampling for all arms.
        tiers: mean errors of an image below which it counts for a tier, in the study's unit.
        tags: by whose values to break errors down; those that are groups when empty.

    Raises:
        InputError: the arms have no case in common.
    """
    arms = _comparable(arms)
    names = list(arms)
    runs = [pooled(of_arm, name) for name, of_arm in arms.items()]
    seeds = len(arms[names[0]])
    common = shared_cases(runs)
    subjects = len(common.subjects)
    unit = _main_space(runs, common, settings)
    prepared = [_prepare(run, common, settings, unit) for run in runs]
    return StudyTable(
        title=title,
        unit=_unit(prepared[0], settings),
        arms=_arm_results(arms, prepared, common, settings, tiers),
        tiers=tuple(tiers),
        tags=_by_tag(prepared, common, settings, tags),
        landmarks=_by_landmark(prepared, subjects, settings),
        comparison=compare_stored(runs, names, settings, repeats=seeds),
        notes=(
            *_notes(subjects, seeds),
            *unlike_notes(runs, names, common, repeats=seeds),
            *missing_notes(runs, names, common),
        ),
        quantity=runs[0].schema.quantities[0].label if _without_landmarks(runs[0]) else None,
    )


def _comparable(arms: Mapping[str, Sequence[StoredRun]]) -> dict[str, Sequence[StoredRun]]:
    """Return the arms, all as quantities of whole images where some are nothing else."""
    every = iter(comparable([run for runs in arms.values() for run in runs]))
    return {name: [next(every) for _ in runs] for name, runs in arms.items()}


def _main_space(runs: Sequence[StoredRun], common: SharedCases, settings: EvaluationSettings) -> str:
    """Return the name of the space of every figure of a study; a part of the images may know more than all of them."""
    if _without_landmarks(runs[0]):
        return runs[0].schema.quantities[0].name
    tables = [shared_table(run, common, settings) for run in runs]
    if settings.at_size is not None:
        return spaces_of(tables[0], settings)[-1].name
    return "px" if any(table.errors_mm is None for table in tables) else "mm"


def _without_landmarks(run: StoredRun) -> bool:
    """Tell whether a run is about quantities of whole images."""
    return not len(run.schema)


def _prepare(run: StoredRun, common: SharedCases, settings: EvaluationSettings, unit: str) -> _Arm:
    table = shared_table(run, common, settings)
    spaces = [_quantity_space(run, common)] if _without_landmarks(run) else spaces_of(table, settings)
    space = next(space for space in spaces if space.name == unit)
    return _Arm(run, table, space, _mean(table, space))


def _quantity_space(run: StoredRun, common: SharedCases) -> Space:
    """Return the absolute errors ``(C, 1)`` of the first quantity, which a study of whole images is about."""
    name = run.schema.quantities[0].name
    own = {row.case_id: row for row in shared_readings(run, common) if row.name == name}
    found = [own[case] for case in common.ids if case in own]
    unit = common_unit(found) if found else run.schema.quantities[0].unit
    errors = np.full((len(common.ids), 1), np.nan)
    for place, case in enumerate(common.ids):
        row = own.get(case)
        if row is not None and row.unit == unit and row.predicted is not None and row.true is not None:
            errors[place] = abs(row.predicted - row.true)
    return Space(name, unit, errors, (), None, main=True)


def _mean(table: PointTable, space: Space) -> Figure:
    points = np.repeat(table.subject, space.errors.shape[1])
    n = int(np.isfinite(space.errors).sum())
    return Figure(metrics.mean_statistic(space.errors, points, table.subjects), n, space.unit)


def _unit(arm: _Arm, settings: EvaluationSettings) -> str:
    at_size = settings.at_size is not None and not _without_landmarks(arm.run)
    return f"px at {settings.at_size}" if at_size else arm.space.unit


def _arm_results(
    arms: Mapping[str, Sequence[StoredRun]],
    prepared: Sequence[_Arm],
    common: SharedCases,
    settings: EvaluationSettings,
    tiers: Sequence[float],
) -> tuple[ArmResult, ...]:
    subjects, reference = len(common.subjects), prepared[0].mre
    raw = [paired_p(arm.mre, reference, subjects) for arm in prepared[1:]]
    p_values = (None, *holm(raw))
    results = []
    for (name, runs), arm, p in zip(arms.items(), prepared, p_values, strict=True):
        figures: dict[object, Figure] = {"mre": arm.mre, "median": _median(arm)}
        figures |= {("tier", tier): _tier(arm, tier) for tier in tiers}
        if arm is not prepared[0]:
            figures["difference"] = difference_of(arm.mre, reference, subjects)
        found = estimates(figures, subjects, settings)
        results.append(
            ArmResult(
                name=name,
                mre=found["mre"],
                median=found["median"],
                seed_mres=_seed_mres(runs, arm, common),
                tiers=tuple(found["tier", tier] for tier in tiers),
                difference=found.get("difference"),
                p_value=p,
            )
        )
    return tuple(results)


def _median(arm: _Arm) -> Figure:
    points = np.repeat(arm.table.subject, arm.space.errors.shape[1])
    statistic = metrics.quantile_statistic(arm.space.errors, points, arm.table.subjects, 0.5)
    return Figure(statistic, arm.mre.n, arm.space.unit)


def _tier(arm: _Arm, limit: float) -> Figure:
    means = metrics.image_errors(arm.space.errors)
    below = np.where(np.isfinite(means), np.where(means < limit, 100.0, 0.0), np.nan)
    statistic = metrics.mean_statistic(below, arm.table.subject, arm.table.subjects)
    return Figure(statistic, int(np.isfinite(below).sum()), "%", lower_is_better=False)


def _seed_mres(runs: Sequence[StoredRun], arm: _Arm, common: SharedCases) -> tuple[float | None, ...]:
    """Return the mean radial error of each seed, on the cases and points that all arms share."""
    each = [{seed_case(case, number) for case in run.cases} for number, run in enumerate(runs, start=1)]
    return tuple(metrics.mean_radial_error(arm.space.errors[[case in own for case in common.ids]]) for own in each)


def _by_tag(
    prepared: Sequence[_Arm], common: SharedCases, settings: EvaluationSettings, tags: Sequence[str]
) -> tuple[Breakdown, ...]:
    cases = prepared[0].run.cases
    found = []
    for tag in tags or _groups(prepared[0].run):
        values = sorted({cases[case].tags[tag] for case in common.ids if cases[case].tags.get(tag)})
        rows = {}
        for value in values:
            part = {case for case in common.ids if cases[case].tags.get(tag) == value}
            shared = shared_cases([arm.run for arm in prepared], part)
            rows[value] = tuple(_part_mre(arm, shared, settings) for arm in prepared)
        if rows:
            found.append(Breakdown(tag, rows))
    return tuple(found)


def _part_mre(arm: _Arm, part: SharedCases, settings: EvaluationSettings) -> Estimate:
    own = _prepare(arm.run, part, settings, arm.space.name)
    return estimates({"mre": own.mre}, len(part.subjects), settings)["mre"]


def _groups(run: StoredRun) -> list[str]:
    values: dict[str, set[str]] = {}
    for row in run.cases.values():
        for tag, value in row.tags.items():
            values.setdefault(tag, set()).add(value)
    return [tag for tag, found in values.items() if 2 <= len(found - {""}) <= _MOST_VALUES]


def _by_landmark(prepared: Sequence[_Arm], subjects: int, settings: EvaluationSettings) -> Breakdown:
    """Return the mean error of each landmark, or of the quantity, in every arm, the hardest of the reference first."""
    names = prepared[0].run.schema.names or (prepared[0].space.name,)
    figures = {
        (name, number): Figure(
            metrics.mean_statistic(arm.space.errors[:, index], arm.table.subject, subjects),
            int(np.isfinite(arm.space.errors[:, index]).sum()),
            arm.space.unit,
        )
        for index, name in enumerate(names)
        for number, arm in enumerate(prepared)
    }
    found = estimates(figures, subjects, settings)
    rows = {name: tuple(found[name, number] for number in range(len(prepared))) for name in names}
    kind = "landmark" if prepared[0].run.schema.names else "quantity"
    return Breakdown(kind, dict(sorted(rows.items(), key=lambda row: -(row[1][0].value or 0.0))))


def _notes(subjects: int, seeds: int) -> list[str]:
    notes = []
    if subjects < FEW_SUBJECTS:
        notes.append(f"Only {subjects} subjects: intervals may be too narrow, and tests have little power.")
    if seeds == 1:
        notes.append("One seed an arm: how much of a difference is the chance of one training is not known.")
    return notes
