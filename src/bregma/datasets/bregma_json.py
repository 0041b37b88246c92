"""Bregma's own dataset file, ``dataset.json``: everything a dataset holds, pixels excepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bregma.datasets.exporting import image_references
from bregma.datasets.generic import entry, finite, json_in
from bregma.datasets.records import ImageFolder, Record, assemble
from bregma.errors import ConfigError, InputError, LabelError
from bregma.files import read_json, write_json
from bregma.geometry import Frame
from bregma.io import FileImage, ImageOptions
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import Case, Dataset, LandmarkSet, Tag

FILE = "dataset.json"
FORMAT = "bregma-dataset"
VERSION = 1
_KEYS = {"format", "version", "schema", "cases"}


def detect(root: Path) -> bool:
    """Tell whether this is such a file, or a folder that holds just one of them."""
    try:
        path = json_in(root, _KEYS, "Bregma dataset")
    except InputError:
        return False
    return bool(read_json(path)["format"] == FORMAT)


def read(
    root: Path,
    *,
    schema: LandmarkSchema | None = None,
    images: Path | None = None,
    labels: str | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a dataset file.

    Args:
        root: the file, or the folder that holds it.
        schema: the anatomy; None takes the one in the file.
        images: the folder from which the images' paths count where it is not the file's.
        labels: the file's name, where the folder holds several.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: an entry that cannot be read or does not fit; names the file and the case.
    """
    path = root / labels if labels is not None else json_in(root, _KEYS, "Bregma dataset")
    data = read_json(path)
    _check_version(data, path)
    items = entry(data, "cases", list, where=str(path))
    frames = {}
    records = []
    for number, item in enumerate(items, start=1):
        record, frame = _record(item, path, number)
        records.append(record)
        frames[record.id] = frame
    dataset = assemble(
        records,
        ImageFolder(images or path.parent),
        name=str(data.get("name") or path.parent.name),
        schema=schema or _schema(data["schema"], path),
        strict=strict,
        license=str(data.get("license", "")),
        citation=str(data.get("citation", "")),
        problems=[str(problem) for problem in data.get("problems", ())],
    )
    cases = tuple(replace(case, frame=frames[case.id]) for case in dataset)
    present = {case.id for case in dataset}
    splits = {name: tuple(i for i in ids if i in present) for name, ids in _splits(data, set(frames), path).items()}
    return replace(dataset, cases=cases, splits=splits)


def write(dataset: Dataset, out: Path) -> Path:
    """Write ``dataset.json``; returns its path. Images in memory are written beside it, all others are referred to."""
    references = image_references(dataset.cases, out)
    data = {
        "format": FORMAT,
        "version": VERSION,
        "name": dataset.name,
        "license": dataset.license,
        "citation": dataset.citation,
        "problems": list(dataset.problems),
        "schema": dataset.schema.to_dict(),
        "splits": {name: list(ids) for name, ids in dataset.splits.items()},
        "cases": [_case(case, image) for case, image in zip(dataset, references)],
    }
    write_json(out / FILE, data)
    return out / FILE


def _check_version(data: Any, path: Path) -> None:
    if entry(data, "format", str, where=str(path)) != FORMAT:
        raise LabelError("is not a Bregma dataset", where=path, expected=FORMAT, got=str(data["format"]))
    if entry(data, "version", int, where=str(path)) > VERSION:
        raise LabelError(
            "was written by a later version of Bregma",
            where=path,
            expected=f"version {VERSION} or earlier",
            got=str(data["version"]),
            fix="update Bregma",
        )


def _schema(data: Any, path: Path) -> LandmarkSchema:
    return load_schema(data) if isinstance(data, str) else schema_from_dict(data, where=f"{path}, schema")


def _record(item: Any, path: Path, number: int) -> tuple[Record, Frame]:
    name = entry(item, "id", str, where=f"{path}, case number {number}")
    where = f"{path}, case '{name}'"
    frame = _frame(entry(item, "frame", dict, where=where), where)
    record = Record(
        id=name,
        subject=entry(item, "subject", str, where=where),
        image=entry(item, "image", str, where=where),
        where=where,
        landmarks=None if item.get("landmarks") is None else _marks(item["landmarks"], where),
        targets={key: finite(v, where=where, what=f"the target '{key}'") for key, v in item.get("targets", {}).items()},
        tags={key: _tag(key, value, where) for key, value in item.get("tags", {}).items()},
        observers={key: _marks(marks, where) for key, marks in item.get("observers", {}).items()},
        shape=frame.shape,
        options=_options(item.get("read", {}), where),
    )
    return record, frame


def _marks(data: Any, where: str) -> LandmarkSet:
    points, status = entry(data, "points", list, where=where), entry(data, "status", list, where=where)
    if len(points) != len(status):
        raise LabelError("points and status differ in number", where=where, got=f"{len(points)} and {len(status)}")
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise LabelError("holds something that is not a point", where=where, expected="[x, y]", got=str(point))
        for value in point:
            finite(value, where=where, what="a coordinate")
    return LandmarkSet.from_dict(data)


def _tag(name: str, value: Any, where: str) -> Tag:
    if isinstance(value, str | int | float | bool):
        return value
    raise LabelError(f"the tag '{name}' is not a plain value", where=where, got=type(value).__name__)


def _frame(data: dict[str, Any], where: str) -> Frame:
    try:
        return Frame.from_dict(data)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise LabelError(f"the frame cannot be read ({error})", where=where) from error


def _options(data: Mapping[str, Any], where: str) -> ImageOptions:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    try:
        return ImageOptions(**values)
    except (TypeError, ConfigError) as error:
        raise LabelError(f"the entry 'read' cannot be used ({error})", where=where) from error


def _splits(data: Mapping[str, Any], known: set[str], path: Path) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for name, ids in (entry(data, "splits", dict, where=str(path)) if "splits" in data else {}).items():
        unknown = [case for case in ids if case not in known] if isinstance(ids, list) else [ids]
        if unknown:
            raise LabelError(f"the split '{name}' names a case that is not there", where=path, got=str(unknown[0]))
        splits[name] = ids
    return splits


def _case(case: Case, image: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": case.id,
        "subject": case.subject,
        "image": image,
        "frame": case.frame.to_dict(),
        "landmarks": None if case.landmarks is None else case.landmarks.to_dict(),
        "targets": dict(case.targets),
        "tags": dict(case.tags),
        "observers": {name: marks.to_dict() for name, marks in case.observers.items()},
    }
    chosen = _chosen(case)
    return data | {"read": chosen} if chosen else data


def _chosen(case: Case) -> dict[str, Any]:
    """Return the choices with which an image is read, where they are not the usual ones."""
    if not isinstance(case.image, FileImage):
        return {}
    usual = asdict(ImageOptions())
    return {key: value for key, value in asdict(case.image.options).items() if value != usual[key]}
