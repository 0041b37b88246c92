"""Frontal chest radiographs with 15 landmarks: COVID-19, viral pneumonia and normal.

Layout: ``coordenadas_train.csv`` and ``coordenadas_val.csv`` without a header, one image a row (a running number, 15
x, y pairs in pixels, the image's name), and the images in ``dataset/<class>/``. Points were placed on a 64 × 64 grid
over 299 × 299 pixels, so that they carry about ±2.3 px of rounding.

The class is the part of the name before its number: ``COVID``, ``Normal`` or ``Viral Pneumonia``.
"""

from __future__ import annotations

from pathlib import Path

from bregma.datasets.records import ImageFolder, Record, assemble, with_splits
from bregma.datasets.tables import Row, points_from, read_rows, refuse_duplicates
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet

LICENSE = "Research use, under the terms of the COVID-19 Radiography Database."
CITATION = (
    "Ayala-Raggi SE, Cruz-Ovando RA, Reyes-Cocoletzi L, Barreto-Flores A. Accurate recognition of pneumonia and "
    "COVID-19 by geometric shape normalization of lung region using automatic landmark detection and piecewise affine "
    "warping. arXiv:2606.29715, 2026. "
    "Chowdhury MEH, Rahman T, Khandakar A, et al. Can AI help in screening viral and COVID-19 pneumonia? IEEE Access "
    "2020;8:132665-132676. "
    "Rahman T, Khandakar A, Qiblawey Y, et al. Exploring the effect of image enhancement techniques on COVID-19 "
    "detection using chest X-ray images. Comput Biol Med 2021;132:104319."
)

_SPLITS = ("train", "val", "test")


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return any(_labels(root, split).is_file() for split in _SPLITS)


def read(
    root: Path, *, schema: LandmarkSchema | None = None, images: Path | None = None, strict: bool = False
) -> Dataset:
    """Read the dataset; its splits are the published files.

    Args:
        root: the dataset's folder.
        schema: the anatomy; None takes the built-in ``chest``.
        images: the folder that holds the class folders where it is not ``root/dataset``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a row that cannot be read; names it.
    """
    schema = schema or load_schema("chest")
    tables = {split: _rows(_labels(root, split), schema) for split in _SPLITS if _labels(root, split).is_file()}
    rows = [row for table in tables.values() for row in table]
    refuse_duplicates(rows, [row.fields[-1] for row in rows])
    dataset = assemble(
        (_record(row) for row in rows),
        ImageFolder(images or root / "dataset"),
        name="chest_xray",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )
    return with_splits(dataset, {row.fields[-1]: split for split, table in tables.items() for row in table})


def _labels(root: Path, split: str) -> Path:
    return root / f"coordenadas_{split}.csv"


def _rows(path: Path, schema: LandmarkSchema) -> list[Row]:
    layout = f"a number, {len(schema)} x, y pairs and a name"
    return read_rows(path, header=False, width=2 + 2 * len(schema), layout=layout)


def _record(row: Row) -> Record:
    _, *texts, name = row.fields
    diagnosis = name.rpartition("-")[0] or name
    return Record(
        id=name,
        subject=name,
        image=name,
        where=row.where,
        landmarks=LandmarkSet(points_from(row, texts)),
        tags={"diagnosis": diagnosis},
    )
