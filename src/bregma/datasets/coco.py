"""COCO keypoints: one JSON file with ``images``, ``annotations`` and one category that names the keypoints.

Visibility 0 is unlabelled, 1 occluded, 2 visible. Pixel centres lie at whole numbers, as in COCO's own keypoints. One
instance an image. COCO has no word for a landmark outside the image, nor for targets, tags, observers or splits. The
entries ``case``, ``subject`` and ``spacing`` of an image are Bregma's additions, which other readers ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bregma.datasets.exporting import image_references, marks_of
from bregma.datasets.generic import entry, finite, json_in, schema_from_names
from bregma.datasets.records import ImageFolder, Record, assemble, case_ids, or_none
from bregma.errors import InputError, LabelError
from bregma.files import read_json, write_json
from bregma.schema import LandmarkSchema
from bregma.types import Case, Dataset, LandmarkSet, Status

FILE = "annotations.json"
_KEYS = {"images", "annotations", "categories"}
_STATUS = {0: Status.UNLABELLED, 1: Status.OCCLUDED, 2: Status.VISIBLE}
_VISIBILITY = {Status.VISIBLE: 2, Status.OCCLUDED: 1, Status.OUTSIDE: 0, Status.UNLABELLED: 0}


def detect(root: Path) -> bool:
    """Tell whether this is such a file, or a folder that holds just one of them."""
    try:
        json_in(root, _KEYS, "COCO")
    except InputError:
        return False
    return True


def read(
    root: Path,
    *,
    schema: LandmarkSchema | None = None,
    images: Path | None = None,
    labels: str | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a COCO keypoint file.

    Args:
        root: the file, or the folder that holds it.
        schema: the anatomy; the category's keypoints must bear its landmarks' names, in any order. None makes a bare
            one from the category.
        images: the folder of the images where it is not the file's.
        labels: the file's name, where the folder holds several.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: an entry that cannot be read or does not fit; names the file and the entry.
    """
    path = root / labels if labels is not None else json_in(root, _KEYS, "COCO")
    data = read_json(path)
    category = _category(data, path, schema)
    keypoints = [str(name) for name in entry(category, "keypoints", list, where=str(path))]
    schema = schema or schema_from_names(keypoints, name=path.stem, where=path, edges=_edges(category, keypoints, path))
    order = [keypoints.index(name) for name in schema.names]
    pictures = _by_id(entry(data, "images", list, where=str(path)), path)
    marks = _annotations(data, path, category, pictures, order)
    ids = case_ids([entry(p, "file_name", str, where=f"{path}, image {i}") for i, p in pictures.items()])
    return assemble(
        (_record(picture, case, marks, path) for picture, case in zip(pictures.values(), ids)),
        ImageFolder(images or path.parent),
        name=path.stem,
        schema=schema,
        strict=strict,
        spacing_source="sidecar",
    )


def write(dataset: Dataset, out: Path) -> Path:
    """Write ``annotations.json``; returns its path."""
    names = list(dataset.schema.names)
    references = image_references(dataset.cases, out)
    category = {
        "id": 1,
        "name": dataset.schema.name,
        "supercategory": "anatomy",
        "keypoints": names,
        "skeleton": [[names.index(a) + 1, names.index(b) + 1] for a, b in dataset.schema.edges],
    }
    data = {
        "info": {"description": dataset.name, "citation": dataset.citation},
        "licenses": [{"id": 1, "name": dataset.license}] if dataset.license else [],
        "images": [_image(case, file, i) for i, (case, file) in enumerate(zip(dataset, references), start=1)],
        "annotations": [
            _annotation(case, marks_of(case, dataset.schema), i) for i, case in enumerate(dataset, start=1)
        ],
        "categories": [category],
    }
    write_json(out / FILE, data)
    return out / FILE


def _category(data: Any, path: Path, schema: LandmarkSchema | None) -> Mapping[str, Any]:
    """Return the category that names keypoints; of several, the one that fits the schema."""
    known = [
        c for c in entry(data, "categories", list, where=str(path)) if isinstance(c, Mapping) and c.get("keypoints")
    ]
    fitting = known if schema is None else [c for c in known if set(c["keypoints"]) == set(schema.names)]
    if len(fitting) == 1:
        return dict(fitting[0])
    if schema is not None and len(known) == 1:
        missing = [name for name in schema.names if name not in known[0]["keypoints"]]
        extra = [str(name) for name in known[0]["keypoints"] if name not in schema.names]
        raise LabelError(
            f"the keypoints do not fit the schema '{schema.name}'; missing: {', '.join(missing[:6]) or 'none'}; "
            f"unknown: {', '.join(extra[:6]) or 'none'}",
            where=path,
            expected=f"{len(schema)} keypoints",
            got=str(len(known[0]["keypoints"])),
            fix="choose another schema, or rename the keypoints",
        )
    raise LabelError(
        "does not hold one category with keypoints",
        where=path,
        got=", ".join(str(c.get("name")) for c in known) or "none",
        fix="keep one of them, or give the schema that fits one (schema=...)",
    )


def _edges(category: Mapping[str, Any], keypoints: Sequence[str], path: Path) -> list[tuple[str, str]]:
    edges = []
    for pair in category.get("skeleton") or []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(p in range(1, len(keypoints) + 1) for p in pair)):
            raise LabelError("the skeleton names a keypoint that is not there", where=path, got=str(pair))
        edges.append((keypoints[pair[0] - 1], keypoints[pair[1] - 1]))
    return edges


def _by_id(pictures: Sequence[Any], path: Path) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for picture in pictures:
        number = entry(picture, "id", int, where=f"{path}, images")
        if number in found:
            raise LabelError(f"the image id {number} occurs twice", where=path)
        found[number] = picture
    return found


def _annotations(
    data: Any, path: Path, category: Mapping[str, Any], pictures: Mapping[int, Any], order: Sequence[int]
) -> dict[int, LandmarkSet]:
    marks: dict[int, LandmarkSet] = {}
    for number, item in enumerate(entry(data, "annotations", list, where=str(path)), start=1):
        where = f"{path}, annotation {item.get('id', number) if isinstance(item, Mapping) else number}"
        if entry(item, "category_id", int, where=where) != category.get("id"):
            continue
        image = entry(item, "image_id", int, where=where)
        if image not in pictures:
            raise LabelError(f"there is no image with the id {image}", where=where)
        if image in marks:
            raise LabelError(
                f"the image with the id {image} has a second instance",
                where=where,
                expected="one instance an image",
                fix="keep the right one, or cut the image into one for each instance",
            )
        marks[image] = _marks(entry(item, "keypoints", list, where=where), where, order)
    return marks


def _marks(values: Sequence[Any], where: str, order: Sequence[int]) -> LandmarkSet:
    if len(values) != 3 * len(order):
        raise LabelError(
            "has the wrong number of keypoint values",
            where=where,
            expected=f"{3 * len(order)} (x, y and visibility of {len(order)} keypoints)",
            got=str(len(values)),
        )
    numbers = np.array([finite(v, where=where, what=f"keypoint value {i + 1}") for i, v in enumerate(values)])
    triples = numbers.reshape(-1, 3)[list(order)]
    if not np.isin(triples[:, 2], list(_STATUS)).all():
        raise LabelError(
            "has an unknown visibility", where=where, expected="0, 1 or 2", got=str(triples[:, 2].tolist())
        )
    return LandmarkSet(triples[:, :2], [_STATUS[int(v)] for v in triples[:, 2]])


def _record(picture: Mapping[str, Any], case: str, marks: Mapping[int, LandmarkSet], path: Path) -> Record:
    where = f"{path}, image {picture['id']}"
    shape = (picture["height"], picture["width"]) if {"height", "width"} <= set(picture) else None
    spacing = [finite(v, where=where, what="the spacing") for v in picture.get("spacing") or ()]
    name = str(picture.get("case") or case)
    found = marks.get(picture["id"])
    return Record(
        id=name,
        subject=str(picture.get("subject") or name),
        image=picture["file_name"],
        where=where,
        landmarks=None if found is None else or_none(found),
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 else None,
        shape=shape,
    )


def _image(case: Case, file: str, number: int) -> dict[str, Any]:
    data: dict[str, Any] = {"id": number, "file_name": file, "width": case.frame.width, "height": case.frame.height}
    data |= {"case": case.id, "subject": case.subject}
    return data if case.frame.spacing is None else data | {"spacing": list(case.frame.spacing)}


def _annotation(case: Case, marks: LandmarkSet, number: int) -> dict[str, Any]:
    placed = marks.points[marks.labelled]
    low, high = (placed.min(axis=0), placed.max(axis=0)) if len(placed) else (np.zeros(2), np.zeros(2))
    width, height = (high - low).tolist()
    visibility = [_VISIBILITY[Status(s)] for s in marks.status]
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [v for p, seen in zip(marks.points.tolist(), visibility) for v in (*p, seen)],
        "num_keypoints": len(placed),
        "bbox": [*low.tolist(), width, height],
        "area": width * height,
        "iscrowd": 0,
    }
