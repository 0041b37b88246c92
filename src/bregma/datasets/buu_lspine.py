"""Lumbar radiographs of BUU-LSPINE, lateral (``LA``) and AP (``AP``).

Layout: ``LA/<number>-<sex>-<age>Y1.jpg`` and ``AP/<number>-<sex>-<age>Y0.jpg``, each with a CSV file of its name: one
endplate a row, ``x1, y1, x2, y2, label`` in pixels, from the upper endplate of L1 to the lower one of L5 and, on
lateral images, the sacral endplate. A row's two ends come in no dependable order.

Lateral images were published facing left; where the sacral endplate slopes clearly, its slope decides. A label other
than 0 marks a displaced vertebra.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bregma.datasets.records import ImageFolder, Record, assemble
from bregma.datasets.tables import Row, points_from, read_rows
from bregma.datasets.vertebrae import canonical, faces_left
from bregma.errors import ConfigError, LabelError
from bregma.geometry import Array
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet, Status, Tag

LICENSE = "Research use, under the end-user agreement of Burapha University."
CITATION = (
    "Klinwichit P, Yookwan W, Limchareon S, Chinnasarn K, Jang JS, Onuean A. BUU-LSPINE: a Thai open lumbar spine "
    "dataset for spondylolisthesis detection. Appl Sci 2023;13(15):8646."
)

View = Literal["LA", "AP"]
_SCHEMAS: Mapping[str, str] = {"LA": "lumbar_lateral", "AP": "spine_ap"}
_LEVELS = ("L1", "L2", "L3", "L4", "L5")
_ENDS: Mapping[str, tuple[str, str, str, str]] = {
    "LA": ("sup_ant", "sup_post", "inf_ant", "inf_post"),
    "AP": ("TL", "TR", "BL", "BR"),
}
_NAME = re.compile(r"(?P<subject>\d+)-(?P<sex>[FM])-(?P<age>\d+)Y[01]")


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return any(_NAME.fullmatch(path.stem) for view in _SCHEMAS for path in (root / view).glob("*.csv"))


def read(
    root: Path,
    *,
    schema: LandmarkSchema | None = None,
    images: Path | None = None,
    labels: str = "LA",
    strict: bool = False,
) -> Dataset:
    """Read the images of one view.

    Args:
        root: the folder that holds ``LA/`` and ``AP/``.
        schema: the anatomy; None takes ``lumbar_lateral`` for ``LA``, and for ``AP`` ``spine_ap``, whose thoracic
            vertebrae stay unlabelled.
        images: the folder of the images where it is not the labels'.
        labels: the view, ``LA`` or ``AP``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a label file that cannot be read; names it and its row.
        ConfigError: another view.
    """
    if labels not in _SCHEMAS:
        raise ConfigError("is not a view", where="labels", expected="LA or AP", got=repr(labels))
    schema = schema or load_schema(_SCHEMAS[labels])
    files = sorted((root / labels).glob("*.csv"))
    return assemble(
        (_record(path, labels, schema) for path in files),
        ImageFolder(images or root / labels),
        name=f"buu_lspine_{labels.lower()}",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )


def subject_of(stem: str) -> str:
    """Return the person that an image's name stands for; images with other names are a person each."""
    match = _NAME.fullmatch(stem)
    return match["subject"] if match else stem


def _record(path: Path, view: str, schema: LandmarkSchema) -> Record:
    rows = [
        row for row in read_rows(path, header=False, width=5, layout="x1, y1, x2, y2, label") if not _is_header(row)
    ]
    wanted = 2 * len(_LEVELS) + (view == "LA")
    if len(rows) != wanted:
        raise LabelError(
            "does not have one row for each endplate", where=path, expected=f"{wanted} rows", got=str(len(rows))
        )
    plates = [_left_first(points_from(row, row.fields[:4])) for row in rows]
    match = _NAME.fullmatch(path.stem)
    tags: dict[str, Tag] = {"displaced": any(float(row.fields[4]) != 0 for row in rows if row.fields[4])}
    if match:
        tags |= {"sex": match["sex"], "age": int(match["age"])}
    return Record(
        id=path.stem,
        subject=subject_of(path.stem),
        image=path.stem,
        where=str(path),
        landmarks=_marks(plates, view, schema),
        tags=tags,
    )


def _is_header(row: Row) -> bool:
    return row.number == 1 and row.fields[0].lower() == "x1"


def _left_first(plate: Array) -> Array:
    return plate if plate[0, 0] <= plate[1, 0] else plate[::-1]


def _marks(plates: Sequence[Array], view: str, schema: LandmarkSchema) -> LandmarkSet:
    bodies = canonical(np.concatenate(plates[: 2 * len(_LEVELS)]).reshape(-1, 4, 2)).reshape(-1, 2, 2)
    plates = [*bodies, *plates[2 * len(_LEVELS) :]]
    if view == "LA" and faces_left(plates[-1][0], plates[-1][1]) is False:
        plates = [plate[::-1] for plate in plates]
    ends = _ENDS[view]
    names = [f"{level}_{end}" for level in _LEVELS for end in ends]
    if view == "LA":
        names += [f"S1_{end}" for end in ends[:2]]
    points, status = np.zeros((len(schema), 2)), np.full(len(schema), Status.UNLABELLED)
    for name, point in zip(names, np.concatenate(plates)):
        points[schema.index(name)], status[schema.index(name)] = point, Status.VISIBLE
    return LandmarkSet(points, status)
