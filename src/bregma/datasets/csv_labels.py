"""Landmarks in a CSV table of one's own: wide (one row an image) or long (one row a landmark).

Which column holds what is declared (``columns=``, or a file ``<table>.columns.yaml`` beside the table) or guessed from
the header; a guess is logged. An empty field is a landmark that nobody labelled. ``nan`` is not a number here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bregma.datasets.columns import Columns, guess_columns, load_columns
from bregma.datasets.generic import schema_from_names
from bregma.datasets.records import ImageFolder, Record, assemble, case_ids, or_none, unnamed_images, with_splits
from bregma.datasets.tables import Row, parse_number, read_rows, refuse_duplicates, require_columns
from bregma.errors import LabelError
from bregma.io import ImageOptions
from bregma.schema import LandmarkSchema
from bregma.types import Dataset, LandmarkSet, Status, Tag

log = logging.getLogger(__name__)

_SUFFIXES = (".csv", ".tsv")


def detect(root: Path) -> bool:
    """Tell whether this is a table, or a folder with one table that names images and landmarks."""
    try:
        table = table_in(root)
        if declared_beside(table) is None:
            guess_columns(read_rows(table))
    except LabelError:
        return False
    return True


def table_in(root: Path, name: str | None = None) -> Path:
    """Return the table: ``root`` itself, the named file in it, or its only table.

    Raises:
        LabelError: there is no table, or more than one.
    """
    if root.is_file() and root.suffix.lower() in _SUFFIXES:
        return root
    if name is not None and (root / name).is_file():
        return root / name
    tables = sorted(path for path in root.glob("*") if path.suffix.lower() in _SUFFIXES) if root.is_dir() else []
    if name is None and len(tables) == 1:
        return tables[0]
    raise LabelError(
        f"there is no table '{name}'" if name else "the folder does not hold one label table",
        where=root,
        expected="one .csv or .tsv file",
        got=", ".join(path.name for path in tables[:5]) or "none",
        fix="name the table itself, or choose it (labels=...)",
    )


def declared_beside(table: Path) -> Path | None:
    """Return the declaration file that lies beside a table, if there is one."""
    names = (table.with_suffix(f".columns{suffix}") for suffix in (".yaml", ".yml", ".json"))
    return next((path for path in names if path.is_file()), None)


def columns_of(table: Path, schema: LandmarkSchema | None = None) -> Columns:
    """Return the declaration beside a table, or a guess at it, to be shown to the user before anything is read.

    Raises:
        LabelError: the table cannot be read or understood.
        ConfigError: the declaration beside it is not valid.
    """
    beside = declared_beside(table)
    return guess_columns(read_rows(table), schema) if beside is None else load_columns(beside)


def read(
    root: Path,
    *,
    schema: LandmarkSchema | None = None,
    images: Path | None = None,
    labels: str | None = None,
    columns: Columns | Mapping[str, Any] | str | Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a table.

    Args:
        root: the table, or the folder that holds it.
        schema: the anatomy; None makes a bare one from the landmarks' names, with nothing to measure.
        images: the folder of the images where it is not the table's.
        labels: the table's name, where the folder holds several.
        columns: the declaration; None takes the one beside the table, or guesses.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a table or row that cannot be read or understood; names it.
        ConfigError: a declaration that is not valid.
    """
    table = table_in(root, labels)
    declared = columns_of(table, schema) if columns is None else load_columns(columns)
    log.info("%s is read as: %s", table, declared.describe().replace("\n", "; "))
    rows = read_rows(table, delimiter=declared.delimiter)
    require_columns(rows[0].header, declared.used(), where=table)
    schema = schema or schema_from_names(_landmarks(rows, declared), name=table.stem, where=table)
    groups = _groups(rows, declared)
    ids = (
        [_same(g, declared.case) for g in groups]
        if declared.case
        else case_ids([g[0].text(declared.image) for g in groups])
    )
    refuse_duplicates([group[0] for group in groups], ids, what="the case")
    dataset = assemble(
        (_record(group, declared, schema, case) for group, case in zip(groups, ids)),
        ImageFolder(images or table.parent),
        name=table.stem,
        schema=schema,
        strict=strict,
        spacing_source="sidecar",
    )
    used = [case.image.path for case in dataset if case.image.path is not None]
    dataset = _with_unnamed(dataset, unnamed_images(used, [row.text(declared.image) for row in rows]))
    if declared.split is None:
        return dataset
    named = {case: _same(group, declared.split) for group, case in zip(groups, ids)}
    return with_splits(dataset, {case: split for case, split in named.items() if split})


def _with_unnamed(dataset: Dataset, images: Sequence[Path]) -> Dataset:
    """Return the dataset with a note of images that lie beside those of the table and have no row in it."""
    if not images:
        return dataset
    some = ", ".join(path.name for path in images[:5]) + (", ..." if len(images) > 5 else "")
    who = "1 image file has" if len(images) == 1 else f"{len(images)} image files have"
    return replace(dataset, problems=(*dataset.problems, f"{who} no row in the table: {some}"))


def _landmarks(rows: Sequence[Row], columns: Columns) -> list[str]:
    if columns.layout == "wide":
        return list(columns.points)
    return list(dict.fromkeys(row.text(columns.landmark or "") for row in rows))


def _groups(rows: Sequence[Row], columns: Columns) -> list[list[Row]]:
    """Gather the rows of each image (of each case, where cases are named), in order of first appearance."""
    key = columns.case or columns.image
    if columns.layout == "wide":
        refuse_duplicates(rows, [row.text(key) for row in rows])
        return [[row] for row in rows]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.text(key), []).append(row)
    for group in groups.values():
        refuse_duplicates(group, [row.text(columns.landmark or "") for row in group], what="the landmark")
    return list(groups.values())


def _record(group: Sequence[Row], columns: Columns, schema: LandmarkSchema, case: str) -> Record:
    row = group[0]
    marks = _wide(row, columns, schema) if columns.layout == "wide" else _long(group, columns, schema)
    targets = {name: _optional(group, name, columns) for name in columns.targets}
    return Record(
        id=case,
        subject=(_same(group, columns.subject) if columns.subject else "") or case,
        image=_same(group, columns.image),
        where=row.where,
        landmarks=or_none(marks),
        fractions=columns.units == "fractions",
        origin=columns.origin,
        spacing=_spacing(group, columns),
        targets={name: value for name, value in targets.items() if value is not None},
        tags={name: _tag(text) for name in columns.tags if (text := _same(group, name))},
        options=ImageOptions(frame=_frame(group, columns), plane=columns.plane),
    )


def _spacing(group: Sequence[Row], columns: Columns) -> tuple[float, float] | None:
    if columns.spacing is None:
        return None
    x, y = (_optional(group, name, columns) for name in columns.spacing)
    if (x is None) != (y is None):
        raise LabelError("has a spacing along one axis only", where=group[0].where, fix="fill in both, or neither")
    return None if x is None or y is None else (x, y)


def _frame(group: Sequence[Row], columns: Columns) -> int | None:
    text = _same(group, columns.frame) if columns.frame else ""
    if text and not text.isdecimal():
        raise LabelError("the frame is not a number from 0", where=group[0].where, got=repr(text))
    return int(text) if text else None


def _wide(row: Row, columns: Columns, schema: LandmarkSchema) -> LandmarkSet:
    points, status = np.zeros((len(schema), 2)), np.full(len(schema), Status.UNLABELLED)
    for name, used in columns.points.items():
        index = schema.index(name)
        points[index], status[index] = _point(row, used[0], used[1], used[2] if len(used) == 3 else None, columns)
    return LandmarkSet(points, status)


def _long(group: Sequence[Row], columns: Columns, schema: LandmarkSchema) -> LandmarkSet:
    points, status = np.zeros((len(schema), 2)), np.full(len(schema), Status.UNLABELLED)
    for row in group:
        name = row.text(columns.landmark or "")
        if name not in schema.names:
            raise LabelError(
                f"'{name}' is not a landmark of the schema '{schema.name}'",
                where=row.where,
                expected=f"one of {', '.join(schema.names[:8])}" + (", ..." if len(schema) > 8 else ""),
            )
        index = schema.index(name)
        points[index], status[index] = _point(row, columns.x, columns.y, columns.status, columns)
    return LandmarkSet(points, status)


def _point(row: Row, x: str, y: str, status: str | None, columns: Columns) -> tuple[tuple[float, float], Status]:
    texts = row.text(x), row.text(y)
    state = _status(row, status, filled=any(texts))
    if state > Status.OCCLUDED:
        return (0.0, 0.0), state
    if not all(texts):
        raise LabelError(
            f"a labelled point lacks a coordinate in '{x if not texts[0] else y}'",
            where=row.where,
            fix="fill in both coordinates, or leave both fields empty",
        )
    numbers = [parse_number(t, where=row.where, column=c, decimal=columns.decimal) for t, c in zip(texts, (x, y))]
    return (numbers[0], numbers[1]), state


def _status(row: Row, column: str | None, *, filled: bool) -> Status:
    text = row.text(column) if column else ""
    if not text:
        return Status.VISIBLE if filled else Status.UNLABELLED
    if text.upper() not in Status.__members__:
        known = ", ".join(status.name.lower() for status in Status)
        raise LabelError(f"unknown status in the column '{column}'", where=row.where, expected=known, got=repr(text))
    return Status[text.upper()]


def _same(group: Sequence[Row], column: str) -> str:
    """Return the text that all rows of an image have in a column."""
    text = group[0].text(column)
    for row in group[1:]:
        if row.text(column) != text:
            raise LabelError(
                f"the rows of one image disagree in the column '{column}'",
                where=row.where,
                expected=f"{text!r}, as in row {group[0].number}",
                got=repr(row.text(column)),
            )
    return text


def _optional(group: Sequence[Row], column: str, columns: Columns) -> float | None:
    text = _same(group, column)
    return parse_number(text, where=group[0].where, column=column, decimal=columns.decimal) if text else None


def _tag(text: str) -> Tag:
    """Read a tag as what it looks like; texts such as ``007`` stay texts."""
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if repr(value) == text and math.isfinite(value):
            return value
    return text
