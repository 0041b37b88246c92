"""Delimited text read strictly: every fault names its file and row."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bregma.errors import LabelError
from bregma.geometry import Array

DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        path: the file.
        number: the row as a spreadsheet counts it, from 1, the header included.
        fields: the texts, stripped of surrounding blanks.
        header: column names; empty where the file has none.
    """

    path: Path
    number: int
    fields: tuple[str, ...]
    header: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The file and row, for messages."""
        return f"{self.path}, row {self.number}"

    def text(self, column: str) -> str:
        """Return the text in a column of that name.

        Raises:
            LabelError: no such column.
        """
        require_columns(self.header, [column], where=self.path)
        return self.fields[self.header.index(column)]

    def number_in(self, column: str) -> float:
        """Return the number in a column of that name, where there has to be one."""
        return parse_number(self.text(column), where=self.where, column=column, fix="correct the value")


def parse_number(
    text: str,
    *,
    where: str,
    column: str,
    decimal: str = ".",
    fix: str = "correct the value, or leave the field empty where nothing is known",
) -> float:
    """Read a finite decimal number.

    Raises:
        LabelError: anything else, ``nan`` and ``inf`` included; names the row and column.
    """
    if _NUMBER.fullmatch(text.replace(decimal, ".")):
        value = float(text.replace(decimal, "."))
        if math.isfinite(value):
            return value
    raise LabelError(
        f"the column '{column}' does not hold a number",
        where=where,
        expected="a finite decimal number",
        got=repr(text),
        fix=fix,
    )


def read_rows(
    path: Path, *, header: bool = True, delimiter: str | None = None, width: int | None = None, layout: str = ""
) -> list[Row]:
    """Read all rows of a delimited file; blank lines are passed over.

    Args:
        path: a UTF-8 file, with or without a byte-order mark.
        header: whether the first row names the columns.
        delimiter: one character; None finds it out from the first line.
        width: number of fields that each row must have; None takes the first row's.
        layout: what a row holds, in words, for messages.

    Raises:
        LabelError: missing, empty, not text, two columns of one name, or a row with the wrong number of fields.
    """
    text = _read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    table = list(_records(path, text, delimiter or sniff_delimiter(first)))
    names: tuple[str, ...] = table[0][1] if header and table else ()
    _refuse_twins(path, names)
    rows = [Row(path, number, fields, names) for number, fields in table[1 if header else 0 :]]
    if not rows:
        raise LabelError("holds no rows", where=path, expected="one row for each labelled image")
    _check_widths(rows, width or len(table[0][1]), layout)
    return rows


def sniff_delimiter(line: str) -> str:
    """Return the delimiter that occurs most often in a line; a comma where there is none."""
    return max(DELIMITERS, key=line.count)


def points_from(row: Row, texts: Sequence[str]) -> Array:
    """Read ``x, y, x, y, ...`` as points ``(N, 2)``."""
    values = [parse_number(t, where=row.where, column=f"{'xy'[i % 2]} of point {i // 2}") for i, t in enumerate(texts)]
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def named_points(row: Row, names: Sequence[str]) -> Array:
    """Read the columns ``<name>_x`` and ``<name>_y`` as points ``(N, 2)``; every one must hold a number."""
    values = [[row.number_in(f"{name}_{axis}") for axis in "xy"] for name in names]
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def require_columns(header: Sequence[str], wanted: Sequence[str], *, where: str | Path) -> None:
    """Refuse a table that lacks a column.

    Raises:
        LabelError: names the column and the ones that are there.
    """
    for column in wanted:
        if column not in header:
            shown = ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")
            raise LabelError(f"the column '{column}' is missing", where=where, got=f"the columns {shown}")


def refuse_duplicates(rows: Sequence[Row], keys: Sequence[str], *, what: str = "the image") -> None:
    """Refuse a key that occurs in two rows.

    Raises:
        LabelError: names both rows.
    """
    first: dict[str, int] = {}
    for row, key in zip(rows, keys):
        if key in first:
            raise LabelError(
                f"{what} '{key}' already occurs in row {first[key]}",
                where=row.where,
                expected="one row each",
                fix="keep the right one of the two rows",
            )
        first[key] = row.number


def by_key(rows: Sequence[Row], column: str) -> Mapping[str, Row]:
    """Index rows by the text in a column, which must differ from row to row."""
    keys = [row.text(column) for row in rows]
    refuse_duplicates(rows, keys)
    return dict(zip(keys, rows))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"cannot be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise LabelError("is not UTF-8 text", where=path, fix="save the table as 'CSV UTF-8'") from error


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
    try:
        for number, fields in enumerate(reader, start=1):
            if any(field.strip() for field in fields):
                yield number, tuple(field.strip() for field in fields)
    except csv.Error as error:
        raise LabelError(f"is not a delimited table ({error})", where=f"{path}, line {reader.line_num}") from error


def _refuse_twins(path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if name and names.count(name) > 1:
            raise LabelError(f"the column '{name}' occurs {names.count(name)} times", where=f"{path}, row 1")


def _check_widths(rows: Sequence[Row], width: int, layout: str) -> None:
    for row in rows:
        if len(row.fields) != width:
            expected = f"{width} fields" + (f" ({layout})" if layout else "")
            raise LabelError(
                "has the wrong number of fields", where=row.where, expected=expected, got=str(len(row.fields))
            )
