"""What the exporters share: where images are found from the labels, and images that are only in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bregma.errors import RunError
from bregma.files import atomic_path
from bregma.schema import LandmarkSchema
from bregma.types import Case, LandmarkSet, Status


def image_references(cases: Sequence[Case], folder: Path) -> list[str]:
    """Return each case's image as a path from ``folder``; images in memory are written to ``folder/images``.

    Raises:
        RunError: an image in memory that PNG cannot hold without loss.
    """
    names: set[str] = set()
    return [_reference(case, folder, names) for case in cases]


def file_name(text: str, taken: set[str]) -> str:
    """Return a safe file name (no suffix) for an id, another one for each call with the same set."""
    base = re.sub(r"[^\w.\-]+", "_", text).lstrip(".") or "case"
    name, number = base, 1
    while name.lower() in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name.lower())
    return name


def marks_of(case: Case, schema: LandmarkSchema) -> LandmarkSet:
    """Return a case's landmarks, all of them unlabelled where it has none."""
    if case.landmarks is not None:
        return case.landmarks
    return LandmarkSet(np.zeros((len(schema), 2)), np.full(len(schema), Status.UNLABELLED))


def _reference(case: Case, folder: Path, names: set[str]) -> str:
    if case.image.path is not None:
        return Path(os.path.relpath(case.image.path.resolve(), folder.resolve())).as_posix()
    name = f"images/{file_name(case.id, names)}.png"
    _write_png(case, folder / name)
    return name


def _write_png(case: Case, path: Path) -> None:
    pixels = case.image.load()
    if pixels.dtype not in (np.uint8, np.uint16):
        raise RunError(
            f"the image of case '{case.id}' cannot be written without loss",
            where=path,
            expected="8 or 16 bits a pixel",
            got=str(pixels.dtype),
            fix="save the image as a file of its own first",
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
