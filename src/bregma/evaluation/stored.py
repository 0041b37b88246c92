"""A saved evaluation read back into the tables from which figures are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bregma.config import validate
from bregma.errors import InputError
from bregma.evaluation.csv_tables import number, read_table
from bregma.evaluation.element_files import load_elements
from bregma.evaluation.files import MEASUREMENT_COLUMNS, POINT_COLUMNS, CaseRow, load_cases
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.tables import (
    PointTable,
    Reading,
    extents,
    reference_scales,
)
from bregma.files import read_json
from bregma.geometry import Array
from bregma.results import ElementResult
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import Status


@dataclass(frozen=True)
class CasePoints:
    """The points of one stored image: all ``(N,)`` or ``(N, 2)``, NaN where there is none."""

    status: Array
    true: Array
    errors_px: Array
    errors_mm: Array
    presence: Array


_NO_POINTS = CasePoints(*(np.zeros(shape) for shape in ((0,), (0, 2), (0,), (0,), (0,))))


@dataclass(frozen=True)
class StoredRun:
    """A saved evaluation.

    Attributes:
        name: its heading.
        schema: the anatomy.
        settings: with which it was scored.
        cases: rows of ``cases.csv`` by case id.
        points: points by case id.
        readings: rows of ``measurements.csv``, one an image; their subjects are not numbered yet.
        elements: rows of ``elements.csv`` by case id; empty for an anatomy without a chain.
    """

    name: str
    schema: LandmarkSchema
    settings: EvaluationSettings
    cases: dict[str, CaseRow]
    points: dict[str, CasePoints]
    readings: tuple[Reading, ...]
    elements: Mapping[str, tuple[ElementResult, ...]] = field(default_factory=dict)


def load_run(folder: str | Path) -> StoredRun:
    """Read what ``save_evaluation`` wrote.

    Raises:
        InputError: a file is missing or not as written.
    """
    root = Path(folder)
    about = read_json(root / "evaluation.json")
    if not isinstance(about, dict) or not {"name", "schema", "settings"} <= about.keys():
        raise InputError("is not an evaluation", where=root / "evaluation.json", expected="name, schema and settings")
    where = str(root / "evaluation.json")
    schema = schema_from_dict(about["schema"], where=where)
    cases = {case.id: case for case in load_cases(root)}
    return StoredRun(
        name=str(about["name"]),
        schema=schema,
        settings=validate(EvaluationSettings, about["settings"], where=where),
        cases=cases,
        points=_load_points(root / "points.csv", schema) if len(schema) else dict.fromkeys(cases, _NO_POINTS),
        readings=tuple(_load_readings(root / "measurements.csv")),
        elements=load_elements(root / "elements.csv"),
    )


def pooled(runs: Sequence[StoredRun], name: str) -> StoredRun:
    """Take evaluations of one recipe under several seeds as one, in which every image occurs once a seed.

    Means are those over seeds, and resampling by subject keeps the repeats of an image together, so that seeds never
    pass for subjects.
    """
    cases: dict[str, CaseRow] = {}
    points: dict[str, CasePoints] = {}
    readings: list[Reading] = []
    elements: dict[str, tuple[ElementResult, ...]] = {}
    for seed, run in enumerate(runs, start=1):
        cases |= {seed_case(case, seed): replace(row, id=seed_case(case, seed)) for case, row in run.cases.items()}
        points |= {seed_case(case, seed): found for case, found in run.points.items()}
        readings += [replace(row, case_id=seed_case(row.case_id, seed), seed=seed) for row in run.readings]
        elements |= {seed_case(case, seed): found for case, found in run.elements.items()}
    return StoredRun(name, runs[0].schema, runs[0].settings, cases, points, tuple(readings), elements)


def comparable(runs: Sequence[StoredRun]) -> tuple[StoredRun, ...]:
    """Return the runs, all as runs of quantities where some are nothing else: so a number that was read from the whole
    image can be held against the same one measured on landmarks.

    Raises:
        InputError: the runs differ in their landmarks, or a run measured none of the others' quantities.
    """
    without = [run for run in runs if not len(run.schema)]
    if not without or len(without) == len(runs):
        for run in runs:
            if run.schema.names != runs[0].schema.names:
                raise InputError(
                    "the landmarks are not those of the first run", where=run.name, expected=str(runs[0].schema)
                )
        return tuple(runs)
    return tuple(run if not len(run.schema) else _as_quantities(run, without[0].schema) for run in runs)


def _as_quantities(run: StoredRun, schema: LandmarkSchema) -> StoredRun:
    wanted = {quantity.name for quantity in schema.quantities}
    readings = tuple(row for row in run.readings if row.name in wanted and row.level is None)
    if not readings:
        raise InputError(
            "has no measurement in common with the others", where=run.name, expected=", ".join(sorted(wanted))
        )
    return replace(run, schema=schema, points=dict.fromkeys(run.cases, _NO_POINTS), readings=readings, elements={})


def seed_case(case: str, seed: int) -> str:
    """Return the id under which :func:`pooled` holds an image of its ``seed``-th evaluation, from 1."""
    return f"{case} (seed {seed})"


def table_of(
    run: StoredRun, ids: Sequence[str], labelled: Any, subjects: dict[str, int], settings: EvaluationSettings
) -> PointTable:
    """Return the points of the cases ``ids``, scored only where ``labelled (C, N)``.

    Args:
        run: a saved evaluation.
        ids: cases that it holds.
        labelled: points that are to be scored.
        subjects: subject to index.
        settings: presence threshold and reference length to score by.
    """
    points = [run.points[case] for case in ids]
    labelled = np.asarray(labelled, dtype=bool).reshape(len(points), -1)
    errors_px = np.where(labelled, [p.errors_px for p in points], np.nan)
    errors_mm = np.where(labelled, [p.errors_mm for p in points], np.nan)
    true = np.where(labelled[..., None], [p.true for p in points], np.nan)
    reference = run.schema.reference_length if settings.reference_length else None
    scales = None
    if reference is not None:
        ends = (run.schema.index(reference[0]), run.schema.index(reference[1]), reference[2])
        scales = reference_scales(np.array([p.true for p in points]), ends)
    return PointTable(
        subjects=len(subjects),
        subject=np.array([subjects[run.cases[case].subject] for case in ids], dtype=np.intp),
        labelled=labelled,
        outside=np.array([p.status for p in points]) == Status.OUTSIDE,
        given=np.array([p.presence for p in points]) >= (settings.presence_threshold or 0.0),
        long_side=np.array([max(run.cases[case].shape) for case in ids], dtype=np.float64),
        extent=extents(true),
        errors_px=errors_px,
        errors_mm=errors_mm if np.isfinite(errors_mm[labelled]).all() else None,
        errors_mm_ref=None if scales is None else errors_px * scales[:, None],
    )


def _load_points(path: Path, schema: LandmarkSchema) -> dict[str, CasePoints]:
    columns = ("true_x", "true_y", "error_px", "error_mm", "presence")
    states = {state.name.lower(): float(state) for state in Status}
    values: dict[str, Array] = {}
    for line, row in read_table(path, POINT_COLUMNS):
        where = f"{path}, line {line}"
        if row["landmark"] not in schema.names or row["status"] not in states:
            raise InputError("unknown landmark or status", where=where, got=f"{row['landmark']}, {row['status']}")
        cells = [number(row[column], where) for column in columns]
        table = values.setdefault(row["case"], np.full((len(schema), 1 + len(columns)), np.nan))
        table[schema.index(row["landmark"])] = [states[row["status"]], *(np.nan if c is None else c for c in cells)]
    for case, table in values.items():
        if np.isnan(table[:, [0, -1]]).any():
            raise InputError(f"the case '{case}' lacks rows", where=path, expected=f"{len(schema)} landmarks")
    return {case: CasePoints(t[:, 0], t[:, 1:3], t[:, 3], t[:, 4], t[:, 5]) for case, t in values.items()}


def _load_readings(path: Path) -> Iterable[Reading]:
    for line, row in read_table(path, MEASUREMENT_COLUMNS):
        where = f"{path}, line {line}"
        yield Reading(
            case_id=row["case"],
            subject=-1,
            name=row["measurement"],
            label=row["label"],
            level=row["level"] or None,
            unit=row["unit"],
            predicted=number(row["predicted"], where),
            true=number(row["true"], where),
            predicted_grade=row["predicted_grade"] or None,
            true_grade=row["true_grade"] or None,
        )
