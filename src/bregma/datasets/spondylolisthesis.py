"""Lateral lumbar radiographs of the Spondylolisthesis Vertebral Landmark set (Mendeley Data 5jdfdgp762).

Layout: ``Train/Keypointrcnn_data/images/{train,val}/`` and ``labels/{train,val}/``. Each image has a label file of its
name, in one of two encodings: JSON with ``boxes`` (left, top, right, bottom) and ``keypoints`` (four
``[x, y, visible]`` a vertebra) in pixels, or a YOLO-pose text line a vertebra (class, box, 4 × x, y, visible) in
fractions. The order of the corners differs between them, so that it is found by geometry.

Levels are not published. They are counted upwards from S1, on the assumption of five lumbar vertebrae, and only where
the lowest vertebra tapers as S1 does and its endplate slopes enough to tell front from back. Images where this is not
so are set aside, unless ``lowest`` says which level the lowest vertebra is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bregma.datasets.buu_lspine import subject_of
from bregma.datasets.generic import entry, finite
from bregma.datasets.records import ImageFolder, Record, assemble, with_splits
from bregma.datasets.tables import parse_number
from bregma.datasets.vertebrae import faces_left, in_order, is_sacral
from bregma.errors import ConfigError, ImageError, LabelError
from bregma.files import read_json
from bregma.geometry import Array
from bregma.io import read_frame
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet, Status

LICENSE = "CC BY 4.0; part of the images come from BUU-LSPINE, which has terms of its own."
CITATION = (
    "Reyes K. Spondylolisthesis Vertebral Landmark. Mendeley Data, version 1, 2025. doi:10.17632/5jdfdgp762.1. "
    "Klinwichit P, Yookwan W, Limchareon S, et al. BUU-LSPINE: a Thai open lumbar spine dataset for spondylolisthesis "
    "detection. Appl Sci 2023;13(15):8646."
)

Lowest = Literal["S1", "L5"]
_SPLITS = ("train", "val")
_FOLDERS = ("", "Keypointrcnn_data", "Train/Keypointrcnn_data", "Dataset/Train/Keypointrcnn_data")
_YOLO_FIELDS = 5 + 4 * 3


class _UnnamedError(LabelError):
    """A well-formed label file whose vertebrae cannot be named."""


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return _base(root) is not None


def read(
    root: Path,
    *,
    schema: LandmarkSchema | None = None,
    images: Path | None = None,
    lowest: Lowest | None = None,
    strict: bool = False,
) -> Dataset:
    """Read the dataset; its splits are the published folders.

    Args:
        root: the dataset's folder, or the one that holds ``images/`` and ``labels/``.
        schema: the anatomy; None takes the built-in ``lumbar_lateral``.
        images: the folder that holds ``train/`` and ``val/`` where it is not the usual one.
        lowest: the level of the lowest vertebra of every image; None finds S1 by its shape.
        strict: refuse missing or broken images, and images whose levels cannot be told, instead of setting them aside.

    Raises:
        LabelError: a label file that cannot be read; names it.
        ConfigError: another level than S1 or L5.
    """
    if lowest not in (None, "S1", "L5"):
        raise ConfigError("cannot be the lowest level", where="lowest", expected="S1 or L5", got=repr(lowest))
    base = _base(root)
    if base is None:
        raise LabelError("does not hold the published folders", where=root, expected="labels/train and images/train")
    schema = schema or load_schema("lumbar_lateral")
    folder = ImageFolder(images or base / "images")
    records, splits, problems = [], {}, []
    for path in _label_files(base):
        try:
            records.append(_record(path, folder, schema, lowest))
            splits[path.stem] = path.parent.name
        except (_UnnamedError, ImageError) as error:
            if strict:
                raise
            problems.append(str(error))
    dataset = assemble(
        records,
        folder,
        name="spondylolisthesis",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
        problems=problems,
    )
    return with_splits(dataset, splits)


def _base(root: Path) -> Path | None:
    return next((root / f for f in _FOLDERS if (root / f / "labels" / "train").is_dir()), None)


def _label_files(base: Path) -> list[Path]:
    folders = [base / "labels" / split for split in _SPLITS]
    return [path for folder in folders for path in sorted(folder.glob("*")) if path.suffix in {".json", ".txt"}]


def _record(path: Path, images: ImageFolder, schema: LandmarkSchema, lowest: Lowest | None) -> Record:
    image = images.find(f"{path.parent.name}/{path.stem}", where=str(path))
    if path.suffix == ".json":
        quads = _json_quads(path)
    else:
        frame = read_frame(image)
        quads = [quad * [frame.width, frame.height, 1.0] for quad in _yolo_quads(path)]
    return Record(
        id=path.stem,
        subject=subject_of(path.stem),
        image=str(image.relative_to(images.root)),
        where=str(path),
        landmarks=_named(quads, schema, lowest, path),
    )


def _json_quads(path: Path) -> list[Array]:
    data = read_json(path)
    boxes, keypoints = (entry(data, key, list, where=str(path)) for key in ("boxes", "keypoints"))
    if len(boxes) != len(keypoints):
        raise LabelError("boxes and vertebrae differ in number", where=path, got=f"{len(boxes)} and {len(keypoints)}")
    return [_quad(points, f"{path}, vertebra {number}") for number, points in enumerate(keypoints, start=1)]


def _quad(points: Any, where: str) -> Array:
    if not isinstance(points, list) or len(points) != 4 or any(not isinstance(p, list) or len(p) != 3 for p in points):
        raise LabelError("does not have four corners", where=where, expected="four [x, y, visible]", got=str(points))
    return np.array([[finite(value, where=where, what="a corner") for value in point] for point in points])


def _yolo_quads(path: Path) -> list[Array]:
    quads = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, row {number}"
        if len(fields) != _YOLO_FIELDS:
            expected = f"{_YOLO_FIELDS} (class, box, four x, y, visible)"
            raise LabelError("has the wrong number of fields", where=where, expected=expected, got=str(len(fields)))
        values = [parse_number(text, where=where, column=str(i + 1)) for i, text in enumerate(fields)]
        quads.append(np.array(values[5:]).reshape(4, 3))
    return quads


def _named(quads: Sequence[Array], schema: LandmarkSchema, lowest: Lowest | None, path: Path) -> LandmarkSet:
    """Name the levels upwards from the lowest vertebra and turn left and right into front and back."""
    complete = [quad[:, :2] for quad in quads if (quad[:, 2] > 0).all()]
    if len(complete) < len(quads) or len(quads) < 2:
        raise _UnnamedError("has corners that are not labelled, or a single vertebra", where=path)
    try:
        ordered = in_order(complete)
    except LabelError as error:
        raise _UnnamedError(error.problem, where=path, expected=error.expected, got=error.got) from error
    bottom = lowest or ("S1" if is_sacral(ordered[-1]) else None)
    plate = ordered[-1][2:] if bottom == "L5" else ordered[-1][:2]
    left = faces_left(plate[0], plate[1])
    if bottom is None or left is None:
        reason = "is S1" if bottom is None else "faces left or right"
        raise _UnnamedError(
            f"it cannot be told whether the lowest vertebra {reason}",
            where=path,
            fix="give its level (lowest=...)" if bottom is None else None,
        )
    return _marks(ordered, schema, bottom, left=left)


def _marks(ordered: Sequence[Array], schema: LandmarkSchema, bottom: str, *, left: bool) -> LandmarkSet:
    chain = schema.chain("vertebrae")
    levels = chain.levels[: chain.levels.index(bottom) + 1]
    front, back = (0, 1) if left else (1, 0)
    parts = {"sup_ant": front, "sup_post": back, "inf_ant": 2 + front, "inf_post": 2 + back}
    points, status = np.zeros((len(schema), 2)), np.full(len(schema), Status.UNLABELLED)
    for level, quad in zip(reversed(levels), reversed(ordered)):
        for part in chain.parts_of(level):
            index = schema.index(chain.landmark_name(level, part))
            points[index], status[index] = quad[parts[part]], Status.VISIBLE
    return LandmarkSet(points, status)
