"""The list of suspects as a file, which a training reads to leave labels out or to trust them less."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
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
_FIX = "give a table as bregma inspect --audit writes it"


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


def read_label_weights(path: str | Path, schema: LandmarkSchema, images: Collection[str]) -> dict[str, Array]:
    """Read the suggested weights of labels: case id to ``(N,)``, 1 where the file says nothing.

    Only the columns ``case``, ``landmark`` and ``weight`` are needed, so a person may write or edit the file; an empty
    ``landmark`` means all of the case, and an empty ``weight`` is 0. Of several rows for a label the least counts.

    Args:
        path: of the table.
        schema: the anatomy whose landmarks it names.
        images: ids of the cases that there are.

    Raises:
        LabelError: the file cannot be read, lacks a column, is about other images, or has a row that makes no sense;
            names the row.
    """
    source = Path(path)
    rows = _rows(source)
    _refuse_other_images(source, rows, images)
    weights: dict[str, Array] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{source}, row {line}"
        known = weights.setdefault(_text(row["case"]), np.ones(len(schema)))
        chosen = _landmarks(_text(row["landmark"]), schema, where)
        known[chosen] = np.minimum(known[chosen], _weight(_text(row["weight"]), where))
    return weights


def _rows(source: Path) -> list[dict[str, str | None]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            rows: list[dict[str, str | None]] = list(reader)
            columns = reader.fieldnames or ()
    except OSError as error:
        raise LabelError(f"cannot be read ({error.strerror})", where=source, fix=_FIX) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError("is not a CSV table in UTF-8", where=source, fix=_FIX) from error
    missing = [name for name in ("case", "landmark", "weight") if name not in columns]
    if missing:
        raise LabelError(
            f"lacks the column '{missing[0]}'",
            where=source,
            expected=", ".join(COLUMNS),
            got=", ".join(columns) or "an empty file",
            fix=_FIX,
        )
    return rows


def _refuse_other_images(source: Path, rows: Sequence[Mapping[str, str | None]], images: Collection[str]) -> None:
    unknown = [(line, _text(row["case"])) for line, row in enumerate(rows, start=2) if _text(row["case"]) not in images]
    if not unknown:
        return
    line, case = unknown[0]
    raise LabelError(
        "is about other images" if len(unknown) == len(rows) else "names an image that the data do not have",
        where=f"{source}, row {line}",
        expected="the id of an image of these data",
        got=repr(case),
        fix="give the table that the audit of these data wrote, or remove the row",
    )


def _text(field: str | None) -> str:
    return (field or "").strip()


def _landmarks(name: str, schema: LandmarkSchema, where: str) -> list[int]:
    if not name:
        return list(range(len(schema)))
    if name not in schema.names:
        raise LabelError(
            f"there is no landmark '{name}'", where=where, expected=f"a landmark of the schema '{schema.name}'"
        )
    return [schema.index(name)]


def _weight(text: str, where: str) -> float:
    try:
        weight = float(text) if text else 0.0
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1:
        raise LabelError("the weight is not valid", where=where, expected="a number from 0 to 1", got=repr(text))
    return weight
