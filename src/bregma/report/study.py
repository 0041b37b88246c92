"""A study as one HTML page, a table to paste and the arms' learning curves together."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bregma.files import write_text
from bregma.report import words
from bregma.report.page import svg, write_page
from bregma.report.sections import comparison_rows
from bregma.report.study_figures import METRICS, arms_together
from bregma.results import ArmResult, Breakdown, StudyTable
from bregma.schema import LandmarkSchema


@dataclass(frozen=True)
class StudyRun:
    """One training of a study.

    Attributes:
        arm: its arm.
        seed: of the training.
        folder: of the run, within that of the study.
        parameters: of the network.
        minutes: time in training steps.
        trained_per_s: images a second in training.
        predicted_per_s: images a second in prediction, one view each.
        history: one row a validation.
    """

    arm: str
    seed: int
    folder: str
    parameters: int
    minutes: float
    trained_per_s: float
    predicted_per_s: float
    history: tuple[Mapping[str, float], ...]

    def best_epoch(self, metric: str) -> int | None:
        """Return the epoch at which a metric was least, or None where it was not logged."""
        rows = [row for row in self.history if metric in row]
        return int(min(rows, key=lambda row: row[metric])["epoch"]) if rows else None

    @property
    def best_error_epoch(self) -> int | None:
        """The epoch at which the validation error was least, of landmarks or of quantities."""
        return next((best for metric in METRICS if (best := self.best_epoch(metric)) is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the history, which lies in the run's folder."""
        data = {name: value for name, value in asdict(self).items() if name != "history"}
        return {**data, "best_loss_epoch": self.best_epoch("val_loss"), "best_error_epoch": self.best_error_epoch}


@dataclass(frozen=True)
class ArmRow:
    """What the rows of an arm say; what its trainings cost are means over them."""

    result: ArmResult
    report: str | None
    parameters: int
    minutes: float
    trained_per_s: float
    predicted_per_s: float
    best_epochs: str


def write_study(
    root: Path,
    table: StudyTable,
    runs: Sequence[StudyRun],
    *,
    schema: LandmarkSchema | None = None,
    reports: Mapping[str, str] | None = None,
) -> Path:
    """Write ``study.html``, ``comparison.csv`` and, if anything was trained, ``curves.svg`` into a study's folder.

    Args:
        root: the folder.
        table: the comparison.
        runs: the trainings behind it.
        schema: for the names of landmarks and measurements in words.
        reports: arm to the report of its evaluation, within the folder.

    Returns:
        the page's path.

    Raises:
        RunError: a file cannot be written.
    """
    rows = [
        _row(arm, [run for run in runs if run.arm == arm.name], (reports or {}).get(arm.name)) for arm in table.arms
    ]
    curves = arms_together({arm.name: _histories(runs, arm.name) for arm in table.arms})
    if curves is None:
        (root / "curves.svg").unlink(missing_ok=True)
    else:
        write_text(root / "curves.svg", curves.decode())
    _write_csv(root / "comparison.csv", table, rows)
    return write_page(
        root / "study.html",
        "study.html.j2",
        title=table.title,
        lead=f"{words.plural(len(table.arms), 'recipe')}, {words.plural(len(runs), 'training')}, compared on "
        f"{words.plural(table.comparison.cases, 'image')} of {words.plural(table.comparison.subjects, 'subject')}.",
        notes=table.notes,
        unit=table.unit,
        tiers=[f"{tier:g}" for tier in table.tiers],
        seeded=len(table.arms[0].seed_mres) > 1,
        reference=table.arms[0].name,
        rows=rows,
        curves=[]
        if curves is None
        else [
            svg(
                curves,
                "Validation error of every arm, by images seen and by minutes",
                "One line a training, with a dot where its error is least.",
            )
        ],
        error="MRE" if table.quantity is None else "MAE",
        errors="Radial errors" if table.quantity is None else f"Absolute errors of {table.quantity}",
        counted="points" if table.quantity is None else "values",
        breakdowns=[*table.tags, _in_words(table.landmarks, schema)],
        arms=[arm.name for arm in table.arms],
        ranks=_ranks(table.landmarks, len(table.arms)) if table.quantity is None else None,
        comparison=comparison_rows(table.comparison, schema),
        test=table.comparison.test,
        runs=runs,
    )


def _row(arm: ArmResult, runs: Sequence[StudyRun], report: str | None) -> ArmRow:
    said = [f"{_or_none(run.best_epoch('val_loss'))} / {_or_none(run.best_error_epoch)}" for run in runs]
    return ArmRow(
        result=arm,
        report=report,
        parameters=runs[0].parameters,
        minutes=statistics.fmean(run.minutes for run in runs),
        trained_per_s=statistics.fmean(run.trained_per_s for run in runs),
        predicted_per_s=statistics.fmean(run.predicted_per_s for run in runs),
        best_epochs=", ".join(said),
    )


def _or_none(value: int | None) -> str:
    return words.NOTHING if value is None else str(value)


def _histories(runs: Sequence[StudyRun], arm: str) -> list[tuple[Mapping[str, float], ...]]:
    return [run.history for run in runs if run.arm == arm]


def _in_words(landmarks: Breakdown, schema: LandmarkSchema | None) -> Breakdown:
    if schema is None:
        return landmarks
    labels = dict(zip(schema.names, words.short_labels(schema), strict=True))
    labels |= {quantity.name: quantity.label for quantity in schema.quantities}
    return Breakdown(landmarks.name, {labels.get(name, name): row for name, row in landmarks.rows.items()})


def _ranks(landmarks: Breakdown, arms: int) -> list[str]:
    """Return, for each arm, its mean rank over landmarks and on how many of them it is best; equal arms share both."""
    known = [[figure.value for figure in row if figure.value is not None] for row in landmarks.rows.values()]
    errors = np.array([row for row in known if len(row) == arms]).reshape(-1, arms)
    if not len(errors):
        return [words.NOTHING] * arms
    ranks = rankdata(errors, axis=1).mean(axis=0)
    best = (errors == errors.min(axis=1, keepdims=True)).sum(axis=0)
    return [f"{rank:.1f}, best on {count}" for rank, count in zip(ranks, best, strict=True)]


def _write_csv(path: Path, table: StudyTable, rows: Sequence[ArmRow]) -> None:
    columns = ["arm", "unit", "mre", "low", "high", "seed_mres", "difference", "difference_low", "difference_high", "p"]
    columns += ["median", *(f"below_{tier:g}" for tier in table.tiers)]
    columns += ["parameters", "minutes", "trained_per_s", "predicted_per_s", "best_loss_and_mre_epoch"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        arm, difference = row.result, row.result.difference
        values: list[Any] = [arm.name, table.unit, arm.mre.value, arm.mre.low, arm.mre.high]
        values += [" ".join(map(str, arm.seed_mres))]
        values += ["", "", ""] if difference is None else [difference.value, difference.low, difference.high]
        values += [arm.p_value, arm.median.value, *(tier.value for tier in arm.tiers)]
        values += [row.parameters, row.minutes, row.trained_per_s, row.predicted_per_s, row.best_epochs]
        writer.writerow(values)
    write_text(path, out.getvalue())
