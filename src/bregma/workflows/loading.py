"""Reading what the user points at: labelled datasets, or images without labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bregma.datasets import read_dataset
from bregma.datasets.columns import subject_columns
from bregma.datasets.tables import read_rows
from bregma.errors import ImageError, InputError, LabelError
from bregma.geometry import Frame
from bregma.io import Plane, VolumeImage, find_images, open_image, series_among
from bregma.prediction.failure import Failure
from bregma.types import Case, Dataset, Tag

_NAMED = 5
"""How many images a note names before it stops."""
_ALONE = "Images that the table of subjects does not name, each a subject of its own"
_LOST = "Images that the table of subjects names and that are not there, or not alone in being called so"


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


def with_subjects(
    cases: Sequence[Case], table: str | Path, failures: Sequence[Failure] = ()
) -> tuple[list[Case], list[str]]:
    """Return images with the subjects and tags that a table gives them, and notes on what does not fit.

    An image goes by its path or the end of it, or by that of its folder (a DICOM series), if no other image can be
    meant. One that the table does not name stays a subject of its own. Columns beside these two become tags.

    Args:
        cases: images from :func:`load_images`.
        table: delimited text with a header; columns such as ``image`` and ``subject``.
        failures: images that could not be opened; the table may name them.

    Raises:
        LabelError: the table cannot be read, has no such columns, or gives an image two subjects.
    """
    rows = read_rows(Path(table))
    image, subject = subject_columns(rows[0].header, where=table)
    names = _called({case.id: case.image.path or Path(case.id) for case in cases})
    failed = _called({failure.case_id: Path(failure.case_id) for failure in failures})
    further = [column for column in rows[0].header if column not in (image, subject)]
    found: dict[str, str] = {}
    tags: dict[str, dict[str, Tag]] = {}
    unknown = []
    for row in rows:
        name = PurePosixPath(row.text(image).replace("\\", "/")).as_posix()
        meant, who = names.get(name, set()), row.text(subject)
        if not who:
            raise LabelError("the subject is empty", where=row.where, expected="who the image is of")
        if len(meant) != 1:
            unknown += [f"{name} (could be several)"] if meant else [name] if name not in failed else []
            continue
        (case,) = meant
        if found.setdefault(case, who) != who:
            raise LabelError(
                f"the image '{case}' is given two subjects", where=row.where, expected=found[case], got=who
            )
        tags[case] = {column: text for column in further if (text := row.text(column))}
    alone = [case.id for case in cases if case.id not in found]
    notes = [
        f"{what} ({len(some)}): {', '.join(some[:_NAMED])}{', ...' if len(some) > _NAMED else ''}."
        for what, some in ((_ALONE, alone), (_LOST, unknown))
        if some
    ]
    return [
        replace(case, subject=found[case.id], tags={**case.tags, **tags[case.id]}) if case.id in found else case
        for case in cases
    ], notes


def _called(paths: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return every end of each path, and of the folders that it leads through, with the images that it may mean."""
    meant: dict[str, set[str]] = defaultdict(set)
    for case, path in paths.items():
        for whole in (path, path.parent):
            for start in range(len(whole.parts)):
                meant[PurePosixPath(*whole.parts[start:]).as_posix()].add(case)
    return meant


def _found(root: Path, plane: Plane | None) -> list[tuple[Path, int]]:
    """Return the images at a place; where volumes are wanted, one file for each DICOM series and how many it has."""
    files = find_images(root)
    return [(file, 1) for file in files] if plane is None else series_among(files)


def _given(options: DataOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}
