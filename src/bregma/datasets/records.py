"""From label rows to cases: finding images, reading their headers, and setting aside the ones that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bregma.errors import ImageError, LabelError
from bregma.geometry import Frame, SpacingSource
from bregma.io import IMAGE_SUFFIXES, ImageOptions, find_images, open_image
from bregma.schema import LandmarkSchema
from bregma.types import Case, Dataset, LandmarkSet, Status, Tag

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a label file says about one image.

    Attributes:
        id: the case.
        subject: the person.
        image: the image's name as the label file gives it.
        where: file and row, for messages.
        landmarks: the points; None where there are none.
        fractions: the points are fractions of the image's width and height, not pixels.
        origin: the coordinate, in pixels, that the label file gives to the centre of the top-left pixel.
        spacing: millimetres per pixel along x and y, or how they follow from the image's size; None leaves what the
            image itself says.
        targets: clinical quantities.
        tags: further facts.
        observers: further readings of the same points.
        shape: rows and columns of the image on which the points were placed, where the label file says so.
        options: how to read the image.
    """

    id: str
    subject: str
    image: str
    where: str
    landmarks: LandmarkSet | None = None
    fractions: bool = False
    origin: float = 0.0
    spacing: tuple[float, float] | Callable[[Frame], tuple[float, float]] | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)
    observers: Mapping[str, LandmarkSet] = field(default_factory=dict)
    shape: tuple[int, int] | None = None
    options: ImageOptions = field(default_factory=ImageOptions)


class ImageFolder:
    """The images beneath a folder, found by path, by file name, or by name without suffix.

    A path from elsewhere (``D:/study/a/1.png``) is found by its file name where the folder that it names agrees, or
    where the image lies directly in the images' folder.
    """

    def __init__(self, root: Path, *, within: Sequence[str] = ()) -> None:
        """Look beneath ``root``, or only in its subfolders ``within``."""
        self.root = root
        self.roots = tuple(root / name for name in within) or (root,)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in (path for root in self.roots for path in find_images(root)):
            for key in {path.name, image_stem(path.name)}:
                found.setdefault(key, []).append(path)
        return found

    def find(self, name: str, *, where: str) -> Path:
        """Return the image that a label file calls ``name``; a DICOM series is called by its folder.

        Raises:
            ImageError: there is none, or more than one.
        """
        name = name.replace("\\", "/")
        direct = self.root / name
        if direct.is_file():
            return direct
        found = [path for path in self._candidates(Path(name).name) if self._agrees(path, Path(name))]
        if len(found) == 1:
            return found[0]
        if not found:
            if name.strip("./") and direct.is_dir():
                return direct
            raise ImageError(
                f"the image '{name}' is not there",
                where=where,
                expected=f"a file of that name beneath {self.root}",
                fix="add the image, remove the row, or say where the images lie (images=...)",
            )
        raise ImageError(
            f"'{name}' could be several images",
            where=where,
            got=", ".join(str(path.relative_to(self.root)) for path in found[:3]),
            fix="give the path from the images' folder instead of the bare name",
        )

    def _candidates(self, name: str) -> list[Path]:
        return self._by_name.get(name, []) if self.root.is_dir() else []

    def _agrees(self, path: Path, name: Path) -> bool:
        """Tell whether the folder in which an image lies may be the one that a label file means."""
        named = name.parent.name
        return named in {"", ".", ".."} or path.parent.name == named or path.parent == self.root


def image_stem(name: str) -> str:
    """Return a name without its image suffix; a name such as a DICOM UID, which has none, stays whole."""
    suffix = next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)] or name


def unnamed_images(used: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Return the images that lie beside used ones and that a label file does not name.

    Only files with an image's suffix are looked at, and no folders of DICOM series.

    Args:
        used: paths of images.
        names: how the label file calls images, those that cannot be used included.
    """
    paths = list(used)
    own = set(paths)
    known = {(path.parent.name, path.name) for path in (PurePosixPath(name.replace("\\", "/")) for name in names)}
    folders = sorted({path.parent for path in paths if path.is_file()})
    files = (path for folder in folders for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    images = (path for path in files if image_stem(path.name) != path.name and path not in own)
    return [path for path in images if not _names(known, path)]


def _names(known: Container[tuple[str, str]], path: Path) -> bool:
    """Tell whether a label file may mean an image: by its name, and by its folder's where it gives one."""
    return any(
        (folder, name) in known for folder in ("", path.parent.name) for name in (path.name, image_stem(path.name))
    )


def case_ids(images: Sequence[str]) -> list[str]:
    """Return an id for each image name: the name without suffix, or the whole name where that would clash."""
    stems = [image_stem(image.replace("\\", "/")) for image in images]
    return stems if len(set(stems)) == len(stems) else list(images)


def or_none(marks: LandmarkSet) -> LandmarkSet | None:
    """Return None for an image on which nobody labelled anything."""
    return None if (marks.status == Status.UNLABELLED).all() else marks


def assemble(
    records: Iterable[Record],
    images: ImageFolder,
    *,
    name: str,
    schema: LandmarkSchema,
    strict: bool,
    spacing_source: SpacingSource = "dataset",
    license: str = "",
    citation: str = "",
    problems: Sequence[str] = (),
) -> Dataset:
    """Open every record's image and make a dataset of the ones that can be opened.

    Raises:
        ImageError: ``strict``, and an image is missing or cannot be read.
        LabelError: not one image can be used.
        SchemaError: the labels do not fit the schema.
    """
    cases: list[Case] = []
    faults = list(problems)
    for record in records:
        try:
            cases.append(_open(record, images, spacing_source))
        except ImageError as error:
            if strict:
                raise
            faults.append(str(error))
    _report(name, cases, faults, images)
    return Dataset(name, schema, tuple(cases), license=license, citation=citation, problems=tuple(faults))


def with_splits(dataset: Dataset, split_of: Mapping[str, str]) -> Dataset:
    """Return the dataset with published splits, given the split of each case id; absent cases are passed over."""
    splits: dict[str, list[str]] = {}
    for case in dataset:
        if case.id in split_of:
            splits.setdefault(split_of[case.id], []).append(case.id)
    return replace(dataset, splits={split: tuple(ids) for split, ids in splits.items()})


def _open(record: Record, images: ImageFolder, spacing_source: SpacingSource) -> Case:
    image, frame = open_image(images.find(record.image, where=record.where), **_choices(record.options))
    if record.shape is not None and record.shape != frame.shape:
        raise LabelError(
            f"the labels were made on another size of the image '{record.image}'",
            where=record.where,
            expected=f"{record.shape[1]} x {record.shape[0]} pixels",
            got=f"{frame.width} x {frame.height}",
            fix="use the image on which the points were placed, or export the labels for this one",
        )
    if record.spacing is not None:
        frame = Frame(frame.shape, _spacing(record, frame), spacing_source)
    return Case(
        id=record.id,
        subject=record.subject,
        image=image,
        frame=frame,
        landmarks=None if record.landmarks is None else _in_pixels(record.landmarks, record, frame),
        targets=record.targets,
        tags=record.tags,
        observers={
            who: marks for who, reading in record.observers.items() if (marks := _in_pixels(reading, record, frame))
        },
    )


def _in_pixels(marks: LandmarkSet, record: Record, frame: Frame) -> LandmarkSet:
    size = np.array([frame.width, frame.height]) if record.fractions else 1.0
    return LandmarkSet(marks.points * size - record.origin, marks.status)


def _spacing(record: Record, frame: Frame) -> tuple[float, float] | None:
    spacing = record.spacing(frame) if callable(record.spacing) else record.spacing
    if spacing is not None and min(spacing) <= 0:
        expected = "two positive numbers, millimetres per pixel along x and y"
        raise LabelError("the spacing cannot be used", where=record.where, expected=expected, got=str(spacing))
    return spacing


def _choices(options: ImageOptions) -> dict[str, Any]:
    return asdict(options)


def _report(name: str, cases: Sequence[Case], faults: Sequence[str], images: ImageFolder) -> None:
    if not cases:
        raise LabelError(
            "not one labelled image can be used",
            where=images.root,
            got=faults[0] if faults else "no labels",
            fix="check that the images lie beneath this folder, or say where they are (images=...)",
        )
    if faults:
        log.warning("%s: %d of %d cases left out; first: %s", name, len(faults), len(cases) + len(faults), faults[0])
