"""Lateral cephalograms of the ISBI 2015 challenge, 19 landmarks, read by two doctors.

Layout: ``train_senior.csv`` and ``train_junior.csv`` (image_path, then the columns ``1_x``, ``1_y`` to ``19_x``,
``19_y`` in pixels) and the images in ``cepha400/``. The senior's reading becomes the landmarks, the junior's the
observer ``junior``.

The challenge's images have 1935 × 2400 pixels of 0.1 mm; copies of another size have the same field of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bregma.datasets.records import ImageFolder, Record, assemble, image_stem
from bregma.datasets.tables import Row, by_key, named_points, read_rows
from bregma.geometry import Frame
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet

LICENSE = "Research use, under the terms of the ISBI 2015 cephalometric challenge."
CITATION = (
    "Wang CW, Huang CT, Hsieh MC, et al. Evaluation and comparison of anatomical landmark detection methods for "
    "cephalometric X-ray images: a grand challenge. IEEE Trans Med Imaging 2015;34(9):1890-1900. "
    "Wang CW, Huang CT, Lee JH, et al. A benchmark for comparison of dental radiography analysis algorithms. Med Image "
    "Anal 2016;31:63-76."
)

_SENIOR, _JUNIOR = "train_senior.csv", "train_junior.csv"
_FIELD_OF_VIEW_MM = 240.0


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return (root / _SENIOR).is_file()


def read(
    root: Path, *, schema: LandmarkSchema | None = None, images: Path | None = None, strict: bool = False
) -> Dataset:
    """Read the dataset.

    Args:
        root: the dataset's folder.
        schema: the anatomy; None takes the built-in ``cephalometric``.
        images: the folder of the images where it is not ``root/cepha400``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a row that cannot be read; names it.
    """
    schema = schema or load_schema("cephalometric")
    columns = [str(number) for number in range(1, len(schema) + 1)]
    senior = by_key(read_rows(root / _SENIOR), "image_path")
    junior = by_key(read_rows(root / _JUNIOR), "image_path") if (root / _JUNIOR).is_file() else {}
    return assemble(
        (_record(name, row, junior, columns) for name, row in senior.items()),
        ImageFolder(images or root / "cepha400"),
        name="ceph_xray",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )


def _record(name: str, row: Row, junior: Mapping[str, Row], columns: list[str]) -> Record:
    stem = image_stem(name)
    return Record(
        id=stem,
        subject=stem,
        image=name,
        where=row.where,
        landmarks=LandmarkSet(named_points(row, columns)),
        spacing=_spacing,
        observers={"junior": LandmarkSet(named_points(junior[name], columns))} if name in junior else {},
    )


def _spacing(frame: Frame) -> tuple[float, float]:
    spacing = _FIELD_OF_VIEW_MM / frame.height
    return spacing, spacing
