"""Writing CSV tables, wide or long, with their declaration beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bregma.config import save_yaml
from bregma.datasets.columns import Columns
from bregma.datasets.exporting import image_references, marks_of
from bregma.errors import RunError
from bregma.files import write_text
from bregma.schema import LandmarkSchema
from bregma.types import Case, Dataset, Status

FILE = "labels.csv"


def write_wide(dataset: Dataset, out: Path) -> Path:
    """Write ``labels.csv`` with one row an image; returns its path."""
    points = {name: (f"{name}_x", f"{name}_y", f"{name}_status") for name in dataset.schema.names}
    columns = Columns(layout="wide", points=points, **_roles(dataset))
    header = [column for used in points.values() for column in used]
    return _write(dataset, out, columns, header, _wide_fields)


def write_long(dataset: Dataset, out: Path) -> Path:
    """Write ``labels.csv`` with one row a landmark of an image; returns its path."""
    columns = Columns(layout="long", landmark="landmark", status="status", **_roles(dataset))
    return _write(dataset, out, columns, ["landmark", "x", "y", "status"], _long_fields)


def _roles(dataset: Dataset) -> dict[str, Any]:
    """Return the columns that a dataset needs beside its points."""
    return {
        "image": "image",
        "case": "case",
        "subject": "subject",
        "split": "split" if dataset.splits else None,
        "spacing": ("spacing_x", "spacing_y") if any(case.frame.spacing for case in dataset) else None,
        "targets": tuple(dict.fromkeys(name for case in dataset for name in case.targets)),
        "tags": tuple(dict.fromkeys(name for case in dataset for name in case.tags)),
    }


def _write(
    dataset: Dataset,
    out: Path,
    columns: Columns,
    point_columns: Sequence[str],
    fields: Callable[[Case, LandmarkSchema], list[list[str]]],
) -> Path:
    path = out / FILE
    common = ["image", "case", "subject", *(["split"] if columns.split else []), *(columns.spacing or ())]
    header = [*common, *columns.targets, *columns.tags, *point_columns]
    _refuse_clash(header, path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    splits = {case: name for name, ids in dataset.splits.items() for case in ids}
    for case, image in zip(dataset, image_references(dataset.cases, out)):
        start = _common(case, image, splits.get(case.id, ""), columns)
        writer.writerows([*start, *rest] for rest in fields(case, dataset.schema))
    write_text(path, text.getvalue())
    save_yaml(path.with_suffix(".columns.yaml"), columns.model_copy(update={"delimiter": ","}).to_dict())
    return path


def _common(case: Case, image: str, split: str, columns: Columns) -> list[str]:
    fields = [image, case.id, case.subject]
    if columns.split:
        fields.append(split)
    if columns.spacing:
        fields += ["", ""] if case.frame.spacing is None else [repr(value) for value in case.frame.spacing]
    fields += [repr(float(case.targets[name])) if name in case.targets else "" for name in columns.targets]
    return fields + [_tag(case.tags[name]) if name in case.tags else "" for name in columns.tags]


def _wide_fields(case: Case, schema: LandmarkSchema) -> list[list[str]]:
    return [[text for row in _points(case, schema) for text in row]]


def _long_fields(case: Case, schema: LandmarkSchema) -> list[list[str]]:
    return [[name, *row] for name, row in zip(schema.names, _points(case, schema))]


def _points(case: Case, schema: LandmarkSchema) -> list[list[str]]:
    """Return x, y and status of every landmark; coordinates only where there are some."""
    marks = marks_of(case, schema)
    states = [Status(value) for value in marks.status]
    return [
        [*([repr(x), repr(y)] if state <= Status.OCCLUDED else ["", ""]), state.name.lower()]
        for (x, y), state in zip(marks.points.tolist(), states)
    ]


def _tag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_clash(header: Sequence[str], path: Path) -> None:
    for name in header:
        if header.count(name) > 1:
            raise RunError(
                f"two columns would be called '{name}'",
                where=path,
                fix="write another format, such as bregma_json, which keeps targets and tags apart",
            )
