"""An evaluation as files that a spreadsheet, a statistics package and a comparison of runs can read.

    metrics.json        {name: {value, low, high, n, unit}}
    human.json          the same for the second reader; only where there is one
    evaluation.json     name, schema, settings and notes
    cases.csv           one row an image, worst first
    points.csv          one row a landmark of an image
    landmarks.csv       one row a landmark
    measurements.csv    one row a measurement of an image
    elements.csv        one row an element of a chain, labelled or given; only for anatomies with a chain

Numbers are written unrounded; an empty cell means that there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bregma.errors import InputError
from bregma.evaluation.csv_tables import Row, number, read_table, write_table
from bregma.evaluation.element_files import save_elements
from bregma.files import read_json, write_json
from bregma.results import CaseResult, Estimate, Evaluation
from bregma.types import Measurement, Status

CASE_COLUMNS = ("id", "subject", "height", "width", "ipe_px", "max_px", "scored", "outliers")
POINT_COLUMNS = (
    "case",
    "landmark",
    "status",
    "true_x",
    "true_y",
    "predicted_x",
    "predicted_y",
    "error_px",
    "error_mm",
    "sd_px",
    "presence",
)
_MORE_POINT_COLUMNS = ("view_spread_px", "flag")
"""Not needed to compare runs, so that evaluations from before these were written can still be read."""
MEASUREMENT_COLUMNS = (
    "case",
    "measurement",
    "label",
    "level",
    "unit",
    "predicted",
    "low",
    "high",
    "true",
    "predicted_grade",
    "true_grade",
    "status",
    "reason",
)
_MORE_MEASUREMENT_COLUMNS = ("predicted_ends", "true_ends")
LANDMARK_COLUMNS = (
    "landmark",
    "label",
    "unit",
    "n",
    "outliers",
    *(f"{figure}{end}" for figure in ("mre", "median", "p95") for end in ("", "_low", "_high")),
)


@dataclass(frozen=True)
class CaseRow:
    """A row of ``cases.csv``.

    Attributes:
        id: the case.
        subject: its subject.
        shape: rows and columns of its image.
        ipe_px: mean error of the image, or None where nothing was scored.
        max_px: largest error, or None.
        scored: number of scored landmarks.
        outliers: number of outliers among them.
        tags: the case's tags, as text.
    """

    id: str
    subject: str
    shape: tuple[int, int]
    ipe_px: float | None
    max_px: float | None
    scored: int
    outliers: int
    tags: Mapping[str, str]


def save_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write an evaluation into ``folder``, each file all or nothing.

    Raises:
        RunError: the folder cannot be written.
    """
    root = Path(folder)
    write_json(root / "metrics.json", {name: figure.to_dict() for name, figure in evaluation.metrics.items()})
    if evaluation.human:
        write_json(root / "human.json", {name: figure.to_dict() for name, figure in evaluation.human.items()})
    else:
        (root / "human.json").unlink(missing_ok=True)
    about = {
        "name": evaluation.name,
        "schema": evaluation.schema.to_dict(),
        "settings": dict(evaluation.settings),
        "notes": list(evaluation.notes),
    }
    write_json(root / "evaluation.json", about)
    tags = sorted({f"tag_{tag}" for result in evaluation.cases for tag in result.tags})
    write_table(root / "cases.csv", (*CASE_COLUMNS, *tags), map(_case_row, evaluation.cases))
    write_table(root / "points.csv", (*POINT_COLUMNS, *_MORE_POINT_COLUMNS), _point_rows(evaluation))
    write_table(root / "landmarks.csv", LANDMARK_COLUMNS, _landmark_rows(evaluation))
    write_table(
        root / "measurements.csv",
        (*MEASUREMENT_COLUMNS, *_MORE_MEASUREMENT_COLUMNS),
        _measurement_rows(evaluation.cases),
    )
    if evaluation.schema.chains:
        save_elements(root / "elements.csv", evaluation.cases)


def load_metrics(folder: str | Path, *, human: bool = False) -> dict[str, Estimate]:
    """Read ``metrics.json``, or ``human.json`` (empty where there is none).

    Raises:
        InputError: the file is missing or holds something else.
    """
    path = Path(folder) / ("human.json" if human else "metrics.json")
    if human and not path.exists():
        return {}
    data = read_json(path)
    try:
        return {str(name): Estimate.from_dict(figure) for name, figure in data.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            "is not a table of metrics",
            where=path,
            expected="{name: {value, low, high, n, unit}}",
            fix="evaluate the run again",
        ) from error


def load_cases(folder: str | Path) -> tuple[CaseRow, ...]:
    """Read ``cases.csv``.

    Raises:
        InputError: the file is missing, or a column or row is not as written by :func:`save_evaluation`.
    """
    path = Path(folder) / "cases.csv"
    return tuple(_read_case(row, f"{path}, line {line}") for line, row in read_table(path, CASE_COLUMNS))


def _read_case(row: Mapping[str, str], where: str) -> CaseRow:
    height, width, scored, bad = (number(row[key], where) or 0.0 for key in ("height", "width", "scored", "outliers"))
    if min(height, width) < 1:
        raise InputError("an image needs rows and columns", where=where, got=f"{height:g} x {width:g}")
    return CaseRow(
        id=row["id"],
        subject=row["subject"],
        shape=(int(height), int(width)),
        ipe_px=number(row["ipe_px"], where),
        max_px=number(row["max_px"], where),
        scored=int(scored),
        outliers=int(bad),
        tags={key.removeprefix("tag_"): text for key, text in row.items() if key.startswith("tag_") and text},
    )


def _case_row(result: CaseResult) -> Row:
    known = result.errors_px[result.scored]
    return {
        "id": result.case.id,
        "subject": result.case.subject,
        "height": result.case.frame.height,
        "width": result.case.frame.width,
        "ipe_px": result.ipe_px,
        "max_px": float(known.max()) if known.size else None,
        "scored": int(result.scored.sum()),
        "outliers": result.outliers,
        **{f"tag_{name}": value for name, value in result.tags.items()},
    }


def _point_rows(evaluation: Evaluation) -> Iterator[Row]:
    for result in evaluation.cases:
        for index, name in enumerate(evaluation.schema.names):
            yield _point_row(result, index, name)


def _point_row(result: CaseResult, index: int, name: str) -> Row:
    prediction, placed = result.prediction, bool(result.truth.labelled[index])
    true_x, true_y = result.truth.points[index].tolist() if placed else (None, None)
    scored = bool(result.scored[index])
    return {
        "case": result.case.id,
        "landmark": name,
        "status": Status(result.truth.status[index]).name.lower(),
        "true_x": true_x,
        "true_y": true_y,
        "predicted_x": float(prediction.mean[index, 0]),
        "predicted_y": float(prediction.mean[index, 1]),
        "error_px": float(result.errors_px[index]) if scored else None,
        "error_mm": float(result.errors_mm[index]) if scored and result.errors_mm is not None else None,
        # Root of the mean variance of x and y: the spread along one axis.
        "sd_px": float(np.sqrt(np.trace(prediction.cov[index]) / 2.0)),
        "presence": float(prediction.presence[index]),
        "view_spread_px": None if prediction.view_spread is None else float(prediction.view_spread[index]),
        "flag": prediction.flags[index] if prediction.flags else None,
    }


def _landmark_rows(evaluation: Evaluation) -> Iterator[Row]:
    for row in evaluation.landmarks:
        figures: dict[str, Any] = {}
        for name, figure in (("mre", row.mre), ("median", row.median), ("p95", row.p95)):
            figures |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        yield {
            "landmark": row.name,
            "label": row.label,
            "unit": row.mre.unit,
            "n": row.mre.n,
            "outliers": row.outliers,
            **figures,
        }


def _measurement_rows(results: Iterable[CaseResult]) -> Iterator[Row]:
    for result in results:
        predicted = {(m.name, m.level): m for m in result.measured}
        for true in result.true_measured:
            found = predicted.get((true.name, true.level))
            low, high = found.interval if found is not None and found.interval is not None else (None, None)
            yield {
                "case": result.case.id,
                "measurement": true.name,
                "label": true.label,
                "level": true.level,
                "unit": true.unit,
                "predicted": None if found is None or found.unit != true.unit else found.value,
                "low": low,
                "high": high,
                "true": true.value,
                "predicted_grade": None if found is None else found.grade,
                "true_grade": true.grade,
                "status": "missing_landmark" if found is None else found.status,
                "reason": "" if found is None else found.reason,
                "predicted_ends": None if found is None else _ends(found),
                "true_ends": _ends(true),
            }


def _ends(measurement: Measurement) -> str | None:
    """Return the end vertebrae of a curve, e.g. ``T5-L1``."""
    return "-".join(measurement.ends) if measurement.ends else None
