"""The list of suspects as a file, which a training reads to leave labels out or to trust them less."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bregma.auditing.audit import Suspect
from bregma.errors import LabelError
from bregma.files import write_text
from bregma.geometry import Array
from bregma.schema import LandmarkSchema

COLUMNS = ("case", "landmark", "score", "weight", "expected_x", "expected_y", "reason")
LEAST_LISTED = 0.05
"""Scores below this are not listed."""


def write_suspects(path: str | Path, suspects: Sequence[Suspect]) -> Path:
    """Write one row a label, worst first; return the path.

    Raises:
        RunError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for s in suspects:
        place = ("", "") if s.expected is None else (f"{s.expected[0]:.2f}", f"{s.expected[1]:.2f}")
        writer.writerow([s.case_id, s.landmark, f"{s.score:.6f}", f"{s.weight:.6f}", *place, s.reason])
    write_text(path, text.getvalue())
    return Path(path)


def read_label_weights(path: str | Path, schema: LandmarkSchema) -> dict[str, Array]:
    """Read the suggested weights of labels: case id to ``(N,)``, 1 where the file says nothing.

    Only the columns ``case``, ``landmark`` and ``weight`` are needed, so a person may write or edit the file; an empty
    ``landmark`` means all of the case, and an empty ``weight`` is 0. Of several rows for a label the least counts.

    Raises:
        LabelError: the file cannot be read, lacks a column, or has a row that makes no sense; names the row.
    """
    source = Path(path)
    try:
        with source.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            rows = list(reader)
            columns = reader.fieldnames or ()
    except OSError as error:
        raise LabelError(f"cannot be read ({error.strerror})", where=source) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError("is not a CSV table in UTF-8", where=source) from error
    missing = [name for name in ("case", "landmark", "weight") if name not in columns]
    if missing:
        raise LabelError(
            f"lacks the column '{missing[0]}'",
            where=source,
            expected=", ".join(COLUMNS),
            got=", ".join(columns),
            fix="give a file written by bregma inspect --audit",
        )
    weights: dict[str, Array] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{source}, row {line}"
        case = (row["case"] or "").strip()
        if not case:
            raise LabelError("names no case", where=where)
        known = weights.setdefault(case, np.ones(len(schema)))
        chosen = _landmarks(row["landmark"], schema, where)
        known[chosen] = np.minimum(known[chosen], _weight(row["weight"], where))
    return weights


def _landmarks(name: str | None, schema: LandmarkSchema, where: str) -> list[int]:
    name = (name or "").strip()
    if not name:
        return list(range(len(schema)))
    if name not in schema.names:
        raise LabelError(
            f"there is no landmark '{name}'", where=where, expected=f"a landmark of the schema '{schema.name}'"
        )
    return [schema.index(name)]


def _weight(text: str | None, where: str) -> float:
    text = (text or "").strip()
    try:
        weight = float(text) if text else 0.0
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1:
        raise LabelError("the weight is not valid", where=where, expected="a number from 0 to 1", got=repr(text))
    return weight
