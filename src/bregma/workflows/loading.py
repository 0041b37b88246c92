"""Reading what the user points at: labelled datasets, or images without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bregma.datasets import read_dataset
from bregma.errors import ImageError, InputError, LabelError
from bregma.geometry import Frame
from bregma.io import Plane, VolumeImage, find_images, open_image, series_among
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
        plane: of volumes, that in which their slices lie; the files of a DICOM series in one folder are then one
            volume, called by its first file.

    Raises:
        ImageError: nothing is there at all.
        ConfigError: ``spacing`` is none.
    """
    paths = [(root, path, files) for root in map(Path, inputs) for path, files in _found(root, plane)]
    if not paths:
        raise ImageError("there are no images", where=", ".join(str(p) for p in inputs) or None)
    cases: dict[str, Case] = {}
    failures = []
    for root, path, files in paths:
        name = path.relative_to(root).as_posix() if root.is_dir() else path.name
        name = name if name not in cases else path.as_posix()
        try:
            if files > 1 and plane is not None:
                volume = VolumeImage(path, plane)
                own = volume.read_frame()
                frame = own if spacing is None else Frame(own.shape, spacing, "user")
                cases[name] = Case(name, name, volume, frame)
                continue
            image, frame = open_image(path, spacing=spacing, plane=plane)
            cases[name] = Case(name, name, image, frame)
        except InputError as error:
            failures.append(Failure(name, str(error)))
    return list(cases.values()), failures


def _found(root: Path, plane: Plane | None) -> list[tuple[Path, int]]:
    """Return the images at a place; where volumes are wanted, one file for each DICOM series and how many it has."""
    files = find_images(root)
    return [(file, 1) for file in files] if plane is None else series_among(files)


def _given(options: DataOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}
