"""``elements.csv``: what became of every element of a chain, one row each, written and read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args

from bregma.errors import InputError
from bregma.evaluation.csv_tables import Row, number, read_table, write_table
from bregma.results import CaseResult, ElementOutcome, ElementResult

_FIELDS = tuple(field.name for field in fields(ElementResult))
ELEMENT_COLUMNS = ("case", *_FIELDS, "naming")
_COUNTS = ("corners", "slot_corners")
_NUMBERS = ("probability", "level_probability", "error_px", "error_mm", "slot_px", "slot_mm")


def save_elements(path: Path, results: Iterable[CaseResult]) -> None:
    """Write the elements of scored images."""
    write_table(path, ELEMENT_COLUMNS, _rows(results))


def load_elements(path: Path) -> dict[str, tuple[ElementResult, ...]]:
    """Read elements by case id; none where there is no file, as of an anatomy without a chain.

    Raises:
        InputError: the file holds something else; names the line.
    """
    found: dict[str, tuple[ElementResult, ...]] = {}
    for line, row in read_table(path, ELEMENT_COLUMNS) if path.exists() else ():
        found[row["case"]] = (*found.get(row["case"], ()), _element(row, f"{path}, line {line}"))
    return found


def _rows(results: Iterable[CaseResult]) -> Iterator[Row]:
    for result in results:
        for element in result.elements:
            values = {name: getattr(element, name) for name in _FIELDS}
            yield {"case": result.case.id, "naming": element.naming, **values}


def _element(row: Mapping[str, str], where: str) -> ElementResult:
    if row["outcome"] not in get_args(ElementOutcome):
        expected = f"one of {', '.join(get_args(ElementOutcome))}"
        raise InputError("unknown outcome", where=where, expected=expected, got=repr(row["outcome"]))
    values = {name: number(row[name], where) for name in (*_COUNTS, *_NUMBERS)}
    return ElementResult(
        chain=row["chain"],
        outcome=cast(ElementOutcome, row["outcome"]),
        true_level=row["true_level"] or None,
        given_level=row["given_level"] or None,
        probability=values["probability"],
        level_probability=values["level_probability"],
        corners=int(values["corners"] or 0),
        error_px=values["error_px"],
        error_mm=values["error_mm"],
        slot_corners=int(values["slot_corners"] or 0),
        slot_px=values["slot_px"],
        slot_mm=values["slot_mm"],
    )
