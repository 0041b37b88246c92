"""Reading what the user points at: labelled datasets, or images without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bregma.datasets import read_dataset
from bregma.errors import ImageError, InputError, LabelError
from bregma.io import Plane, find_images, open_image
from bregma.prediction.failure import Failure
from bregma.types import Case, Dataset


@dataclass(frozen=True)
class DataOptions:
    """How a labelled dataset is read; see :func:`bregma.datasets.read_dataset`."""

    format: str = "auto"
    schema: str | Path | None = None
    images: Path | None = None
    labels: str | None = None
    columns: Path | None = None
    strict: bool = False


def load_data(data: str | Path | Dataset, options: DataOptions | None = None) -> Dataset:
    """Return a dataset, reading it where a path is given.

    Raises:
        LabelError: the labels cannot be read, or there are no cases.
    """
    dataset = data if isinstance(data, Dataset) else read_dataset(data, **_given(options or DataOptions()))
    if not dataset.cases:
        raise LabelError("holds no cases", where=dataset.name)
    return dataset


def load_images(
    inputs: Iterable[str | Path], *, spacing: tuple[float, float] | None = None, plane: Plane | None = None
) -> tuple[list[Case], list[Failure]]:
    """Return a case for every image among files and folders, and the files that cannot be opened.

    Args:
        inputs: files and folders, searched in depth.
        spacing: millimetres per pixel along x and y, where the user knows better than the files.
        plane: of volumes, that in which their slices lie.

    Raises:
        ImageError: nothing is there at all.
        ConfigError: ``spacing`` is none.
    """
    paths = [(root, path) for root in map(Path, inputs) for path in find_images(root)]
    if not paths:
        raise ImageError("there are no images", where=", ".join(str(p) for p in inputs) or None)
    cases: dict[str, Case] = {}
    failures = []
    for root, path in paths:
        name = path.relative_to(root).as_posix() if root.is_dir() else path.name
        name = name if name not in cases else path.as_posix()
        try:
            image, frame = open_image(path, spacing=spacing, plane=plane)
            cases[name] = Case(name, name, image, frame)
        except InputError as error:
            failures.append(Failure(name, str(error)))
    return list(cases.values()), failures


def _given(options: DataOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}
