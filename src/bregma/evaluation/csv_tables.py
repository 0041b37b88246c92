"""Tables of an evaluation as CSV files; an empty cell means that there is no value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bregma.errors import InputError
from bregma.files import write_text

Cell = str | int | float | None
Row = dict[str, Cell]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Cell]]) -> None:
    """Write a CSV file, all or nothing; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of each row of a CSV file.

    Raises:
        InputError: the file cannot be read, lacks a column, or has a row of another length.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", where=path, got=str(error), fix="evaluate the run again") from error
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"lacks the column '{missing[0]}'", where=path, fix="evaluate the run again")
    for row in reader:
        if None in row or None in row.values():
            raise InputError("the row has not as many cells as the header", where=f"{path}, line {reader.line_num}")
        yield reader.line_num, row


def number(text: str, where: str) -> float | None:
    """Read a cell; an empty one is None.

    Raises:
        InputError: the cell holds something else than a number.
    """
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError("a cell is not a number", where=where, got=repr(text)) from error
