"""LabelMe: one JSON file an image with a point shape for each landmark, whose label is the landmark's name.

LabelMe counts from the corner of the top-left pixel (its canvas runs from 0 to the width), so that pixel centres lie at
0.5. A point with the flag ``occluded`` is occluded; landmarks without a point are unlabelled. There is no word for a
landmark outside the image, nor for targets, tags, observers or splits. The entries ``case``, ``subject`` and
``spacing`` are Bregma's additions, which LabelMe keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bregma.datasets.exporting import file_name, image_references, marks_of
from bregma.datasets.generic import entry, finite, schema_from_names
from bregma.datasets.records import ImageFolder, Record, assemble, case_ids, or_none
from bregma.errors import InputError, LabelError
from bregma.files import read_json, write_json
from bregma.schema import LandmarkSchema
from bregma.types import Case, Dataset, LandmarkSet, Status

log = logging.getLogger(__name__)

CORNER = 0.5
_KEYS = {"shapes", "imagePath"}

Shapes = list[Mapping[str, Any]]


def detect(root: Path) -> bool:
    """Tell whether a folder's first JSON file is LabelMe's."""
    first = next(iter(sorted(root.glob("*.json"))), None) if root.is_dir() else None
    try:
        return first is not None and set(read_json(first)) >= _KEYS
    except (InputError, TypeError):
        return False


def read(
    root: Path, *, schema: LandmarkSchema | None = None, images: Path | None = None, strict: bool = False
) -> Dataset:
    """Read a folder of LabelMe files.

    Args:
        root: the folder of the JSON files.
        schema: the anatomy; None makes a bare one from the labels in order of appearance.
        images: the folder of the images where it is not ``root``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a file that cannot be read, a label that is no landmark, or one that occurs twice; names the file.
    """
    files = {path: read_json(path) for path in sorted(root.glob("*.json"))}
    shapes = {path: _points(data, path) for path, data in files.items() if _is_labelme(data)}
    if not shapes:
        raise LabelError("holds no LabelMe files", where=root, expected="one .json file for each image")
    labels = dict.fromkeys(entry(s, "label", str, where=str(path)) for path, found in shapes.items() for s in found)
    schema = schema or schema_from_names(list(labels), name=root.name, where=root)
    ids = case_ids([entry(files[path], "imagePath", str, where=str(path)) for path in shapes])
    return assemble(
        (_record(files[path], found, path, case, schema) for (path, found), case in zip(shapes.items(), ids)),
        ImageFolder(images or root),
        name=root.name,
        schema=schema,
        strict=strict,
        spacing_source="sidecar",
    )


def write(dataset: Dataset, out: Path) -> Path:
    """Write one JSON file a case; returns the folder."""
    names: set[str] = set()
    for case, image in zip(dataset, image_references(dataset.cases, out)):
        write_json(out / f"{file_name(case.id, names)}.json", _file(case, image, dataset.schema))
    return out


def _is_labelme(data: Any) -> bool:
    return isinstance(data, Mapping) and set(data) >= _KEYS


def _points(data: Any, path: Path) -> Shapes:
    shapes = entry(data, "shapes", list, where=str(path))
    points = [shape for shape in shapes if entry(shape, "shape_type", str, where=str(path)) == "point"]
    if len(points) < len(shapes):
        log.info("%s: %d shapes that are not points are passed over", path, len(shapes) - len(points))
    return points


def _record(data: Mapping[str, Any], shapes: Shapes, path: Path, case: str, schema: LandmarkSchema) -> Record:
    where = str(path)
    name = str(data.get("case") or case)
    shape = (data.get("imageHeight"), data.get("imageWidth"))
    spacing = [finite(v, where=where, what="the spacing") for v in data.get("spacing") or ()]
    return Record(
        id=name,
        subject=str(data.get("subject") or name),
        image=entry(data, "imagePath", str, where=where),
        where=where,
        landmarks=or_none(_marks(shapes, schema, where)),
        origin=CORNER,
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 else None,
        shape=(shape[0], shape[1]) if isinstance(shape[0], int) and isinstance(shape[1], int) else None,
    )


def _marks(shapes: Shapes, schema: LandmarkSchema, where: str) -> LandmarkSet:
    points, status = np.zeros((len(schema), 2)), np.full(len(schema), Status.UNLABELLED)
    for shape in shapes:
        label = entry(shape, "label", str, where=where)
        if label not in schema.names:
            raise LabelError(f"'{label}' is not a landmark of the schema '{schema.name}'", where=where)
        index = schema.index(label)
        if status[index] != Status.UNLABELLED:
            raise LabelError(f"the landmark '{label}' is there twice", where=where, fix="remove the wrong one")
        points[index] = _point(entry(shape, "points", list, where=where), label, where)
        status[index] = Status.OCCLUDED if (shape.get("flags") or {}).get("occluded") else Status.VISIBLE
    return LandmarkSet(points, status)


def _point(points: Sequence[Any], label: str, where: str) -> list[float]:
    if len(points) != 1 or not isinstance(points[0], list) or len(points[0]) != 2:
        raise LabelError(f"the landmark '{label}' is not one point", where=where, expected="[[x, y]]", got=str(points))
    return [finite(value, where=where, what=f"a coordinate of '{label}'") for value in points[0]]


def _file(case: Case, image: str, schema: LandmarkSchema) -> dict[str, Any]:
    marks = marks_of(case, schema)
    data: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            _shape(name, point, occluded=state == Status.OCCLUDED)
            for name, point, state in zip(schema.names, marks.points.tolist(), marks.status)
            if state <= Status.OCCLUDED
        ],
        "imagePath": image,
        "imageData": None,
        "imageHeight": case.frame.height,
        "imageWidth": case.frame.width,
        "case": case.id,
        "subject": case.subject,
    }
    return data if case.frame.spacing is None else data | {"spacing": list(case.frame.spacing)}


def _shape(name: str, point: Sequence[float], *, occluded: bool) -> dict[str, Any]:
    return {
        "label": name,
        "points": [[point[0] + CORNER, point[1] + CORNER]],
        "group_id": None,
        "description": "",
        "shape_type": "point",
        "flags": {"occluded": True} if occluded else {},
    }
