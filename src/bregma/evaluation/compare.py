"""Runs side by side on the cases that all of them scored, with paired differences from the first one."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from bregma import metrics
from bregma.errors import InputError
from bregma.evaluation.element_figures import ImageElements, element_figures
from bregma.evaluation.figures import Figure, estimates, point_figures
from bregma.evaluation.measured import measurement_figures
from bregma.evaluation.notes import FEW_SUBJECTS
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.stored import StoredRun, comparable, load_run, table_of
from bregma.evaluation.tables import Mask, PointTable, Reading, average_subjects, subject_index
from bregma.geometry import Array
from bregma.metrics import Statistic
from bregma.results import ComparisonRow, ComparisonTable, Estimate
from bregma.types import Status

Figures = Mapping[str, Figure]

_NAMED = 8
"""How many figures a note names before it counts them."""
_FIRST = 3
"""How many of them it still names then."""


def compare_runs(
    folders: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    settings: EvaluationSettings | None = None,
) -> ComparisonTable:
    """Compare saved evaluations of the same cases.

    Every figure is computed anew on the cases and points that all runs scored, so that no run gains from an easier set.
    Differences are paired: both runs are taken on the same resample of subjects. P-values are of Wilcoxon's signed-rank
    test on the subjects' own figures, two-sided, for the main figures; they are corrected together after Holm (1979).
    Runs of quantities of whole images are compared with those of landmarks by what both measure.

    Args:
        folders: folders written by ``save_evaluation``; the first one is the reference.
        names: headings of the runs; by default those stored, with the folder's name where two are equal.
        settings: thresholds and resampling; by default those of the first run.

    Raises:
        InputError: fewer than two folders, different anatomies, or no case in common.
    """
    if len(folders) < 2:
        raise InputError("a comparison needs two runs", expected="two folders or more", got=str(len(folders)))
    runs = comparable([load_run(folder) for folder in folders])
    titles = tuple(names) if names is not None else _titles(runs, folders)
    return compare_stored(runs, titles, settings or runs[0].settings)


def compare_stored(
    runs: Sequence[StoredRun], titles: Sequence[str], settings: EvaluationSettings, *, repeats: int = 1
) -> ComparisonTable:
    """Compare evaluations of one anatomy that were read back, as :func:`compare_runs` does.

    Args:
        runs: the evaluations; the first one is the reference.
        titles: their headings.
        settings: thresholds and resampling.
        repeats: how often each image occurs in every run (:func:`bregma.evaluation.stored.pooled`).
    """
    common = shared_cases(runs)
    subjects = len(common.subjects)
    left_out = unlike_notes(runs, titles, common, repeats=repeats)
    figures = [figures_of(run, common, settings) for run in runs]
    rows = _rows(figures, subjects, settings)
    return ComparisonTable(
        name=f"{', '.join(titles[1:])} against {titles[0]}",
        runs=tuple(titles),
        rows=rows,
        cases=len(common.ids) // repeats,
        subjects=subjects,
        test=f"paired bootstrap over subjects, {settings.draws} draws; Wilcoxon signed-rank test over subjects",
        notes=(*left_out, *missing_notes(runs, titles, common), *_notes(runs, titles, subjects, rows, settings)),
    )


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Correct p-values for having made several tests (Holm 1979, Scand. J. Statist. 6:65–70); None stays None."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[index] = largest
    return tuple(corrected)


def signed_rank_p(differences: Array) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; None without any pair.

    Pairs that do not differ are left out (Wilcoxon 1945); where no pair differs, the value is 1.
    """
    known = differences[np.isfinite(differences)]
    # Differences of equal figures may be off zero by rounding, which would enter the ranks as if it were real.
    known = np.where(np.abs(known) < 1e-9, 0.0, known)
    if not known.size:
        return None
    return float(stats.wilcoxon(known).pvalue) if known.any() else 1.0


def _titles(runs: Sequence[StoredRun], folders: Sequence[str | Path]) -> tuple[str, ...]:
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name} ({Path(folder).name})" for name, folder in zip(names, folders))


@dataclass(frozen=True)
class SharedCases:
    """What several runs have in common.

    Attributes:
        ids: the cases that all of them hold.
        subjects: subject to index.
        labelled: ``(C, N)`` points that all of them may be scored on.
    """

    ids: tuple[str, ...]
    subjects: dict[str, int]
    labelled: Mask


def shared_cases(runs: Sequence[StoredRun], among: Container[str] | None = None) -> SharedCases:
    """Return the cases that all runs hold, and the points of them that are labelled in all.

    Args:
        runs: saved evaluations.
        among: cases to which to keep; None takes all. Only their subjects are then resampled.

    Raises:
        InputError: there is none, or a case has different subjects.
    """
    ids = [
        case
        for case in (runs[0].cases if among is None else [case for case in runs[0].cases if case in among])
        if all(case in run.cases and case in run.points for run in runs)
    ]
    if not ids:
        raise InputError("the runs have no case in common", fix="evaluate all runs on the same cases")
    for case in ids:
        found = sorted({run.cases[case].subject for run in runs})
        if len(found) > 1:
            raise InputError("the runs give a case different subjects", where=case, got=", ".join(found))
    masks = [[run.points[case].status <= Status.OCCLUDED for case in ids] for run in runs]
    subjects = subject_index(runs[0].cases[case].subject for case in ids)
    return SharedCases(tuple(ids), subjects, np.asarray(np.all(masks, axis=0)))


def shared_table(run: StoredRun, common: SharedCases, settings: EvaluationSettings) -> PointTable:
    """Return the points of a run that are scored in all runs."""
    return table_of(run, common.ids, common.labelled, common.subjects, settings)


def shared_readings(run: StoredRun, common: SharedCases) -> tuple[Reading, ...]:
    """Return what a run measured on the cases that all runs hold; one a subject of what belongs to subjects."""
    wanted = set(common.ids)
    rows = [
        replace(row, subject=common.subjects[run.cases[row.case_id].subject])
        for row in run.readings
        if row.case_id in wanted
    ]
    return average_subjects(rows, run.schema)


def figures_of(run: StoredRun, common: SharedCases, settings: EvaluationSettings) -> Figures:
    """Return every figure of a run on the cases that all runs hold."""
    measured = measurement_figures(shared_readings(run, common), len(common.subjects), run.schema)
    if not len(run.schema):
        return measured
    images = [
        ImageElements(common.subjects[run.cases[case].subject], max(run.cases[case].shape), run.elements.get(case, ()))
        for case in common.ids
    ]
    elements = element_figures(images, len(common.subjects), run.schema, at_size=settings.at_size)
    return point_figures(shared_table(run, common, settings), settings) | elements | measured


def _rows(figures: Sequence[Figures], subjects: int, settings: EvaluationSettings) -> tuple[ComparisonRow, ...]:
    shared = [name for name in figures[0] if all(name in of_run for of_run in figures)]
    found = [estimates({name: of_run[name] for name in shared}, subjects, settings) for of_run in figures]
    differences = _differences(shared, figures, subjects, settings)
    tests = [(name, run) for name in shared for run in range(1, len(figures)) if figures[0][name].tested]
    raw = [paired_p(figures[run][name], figures[0][name], subjects) for name, run in tests]
    p_values = dict(zip(tests, holm(raw)))
    return tuple(
        ComparisonRow(
            metric=name,
            unit=figures[0][name].unit,
            figures=tuple(of_run[name] for of_run in found),
            differences=(None, *(differences[name, run] for run in range(1, len(figures)))),
            p_values=(None, *(p_values.get((name, run)) for run in range(1, len(figures)))),
            lower_is_better=figures[0][name].lower_is_better,
        )
        for name in shared
    )


def _differences(
    shared: Sequence[str], figures: Sequence[Figures], subjects: int, settings: EvaluationSettings
) -> dict[tuple[str, int], Estimate | None]:
    pairs = {
        (name, run): difference_of(figures[run][name], figures[0][name], subjects)
        for name in shared
        for run in range(1, len(figures))
    }
    found = estimates(pairs, subjects, settings)
    return {key: None if figure.value is None else figure for key, figure in found.items()}


def difference_of(figure: Figure, reference: Figure, subjects: int) -> Figure:
    """Return how much larger a figure is than another, on the same resample of subjects."""
    return replace(figure, statistic=_minus(figure, reference), n=subjects)


def _minus(figure: Figure, reference: Figure) -> Statistic:
    return lambda weights: figure.statistic(weights) - reference.statistic(weights)


def paired_p(figure: Figure, reference: Figure, subjects: int) -> float | None:
    """Return the p-value of Wilcoxon's signed-rank test on the subjects' own differences."""
    return signed_rank_p(metrics.per_subject(_minus(figure, reference), subjects))


def unlike_notes(
    runs: Sequence[StoredRun], titles: Sequence[str], common: SharedCases, *, repeats: int = 1
) -> list[str]:
    """Say which cases the runs do not share, and where they were scored by different labels."""
    counted = " (each counted once a seed)" if repeats > 1 else ""
    notes = [
        f"{title}: {len(run.cases) - len(common.ids)} of its {len(run.cases)} cases{counted} were not scored by all."
        for run, title in zip(runs, titles)
        if len(run.cases) > len(common.ids)
    ]
    changed = sum(not _same_labels(runs, case) for case in common.ids)
    if changed:
        notes.append(f"The labels of {changed} cases{counted} differ between the runs, so they were not scored alike.")
    return notes


def missing_notes(runs: Sequence[StoredRun], titles: Sequence[str], common: SharedCases) -> list[str]:
    """Say where a run of quantities gives no value of one: its figures lack these, and those of the others do not."""
    notes = []
    for run, title in zip(runs, titles, strict=True):
        for quantity in run.schema.quantities if not len(run.schema) else ():
            own = [row for row in shared_readings(run, common) if row.name == quantity.name]
            failed = sum(row.failed for row in own)
            if failed:
                notes.append(
                    f"{title}: no value of {quantity.label} in {failed} of {len(own)}; its figures lack these."
                )
    return notes


def _notes(
    runs: Sequence[StoredRun],
    titles: Sequence[str],
    subjects: int,
    rows: Sequence[ComparisonRow],
    settings: EvaluationSettings,
) -> list[str]:
    notes = [
        f"{title} was evaluated with other settings; its figures here follow those of this table."
        for run, title in zip(runs, titles)
        if run.settings != settings
    ]
    if any(run.elements and _matching(run.settings) != _matching(settings) for run in runs):
        notes.append("Elements of chains were matched by each run's own settings, which differ.")
    if subjects < FEW_SUBJECTS:
        notes.append(f"Only {subjects} subjects are shared: intervals may be too narrow, and tests have little power.")
    for index, title in enumerate(titles[1:], start=1):
        known = [row for row in rows if row.differences[index] is not None]
        open_ = [row.metric for row in known if _includes_zero(row.differences[index])]
        if open_:
            clear = [row.metric for row in known if row.metric not in open_]
            notes.append(f"{title}: the difference from {titles[0]} may be zero in {_some(open_, clear)}.")
    tested = sum(p is not None for row in rows for p in row.p_values)
    if tested > 1:
        notes.append(f"P-values are corrected after Holm for the {tested} tests of this table.")
    return notes


def _some(those: Sequence[str], others: Sequence[str]) -> str:
    """Name figures or, where they are many, the first of them, how many there are, and the others if these are few."""
    if len(those) <= _NAMED:
        return ", ".join(those)
    apart = f", all but {', '.join(others)}" if 0 < len(others) <= _NAMED else ""
    return f"{', '.join(those[:_FIRST])}, ... ({len(those)} of {len(those) + len(others)} figures{apart})"


def _matching(settings: EvaluationSettings) -> tuple[float, float | None]:
    return settings.match_within, settings.presence_threshold


def _includes_zero(difference: Estimate | None) -> bool:
    if difference is None or difference.low is None or difference.high is None:
        return False
    return difference.low <= 0.0 <= difference.high


def _same_labels(runs: Sequence[StoredRun], case: str) -> bool:
    """Compare positions regardless of order: exchangeable points were matched to each run's own prediction."""
    sets = [run.points[case].true for run in runs]
    order = [np.lexsort(points.T) for points in sets]
    first = sets[0][order[0]]
    return all(np.allclose(first, points[o], atol=1e-6, equal_nan=True) for points, o in zip(sets, order))
