"""Hand radiographs of the Digital Hand Atlas as published with SpatialConfiguration-Net.

Layout: ``all_coordinates.csv`` without a header, one image a row (its name without suffix, then 37 x, y pairs in
pixels), and the images in ``train/``, ``valid/`` and, where it is present, ``test/``.

The spacing was not published. The literature reports millimetres under the convention that the distance between
landmarks 0 and 4, the wrist's width, is 50 mm; the schema states it and it is applied only when asked for.
"""

from __future__ import annotations

from pathlib import Path

from bregma.datasets.records import ImageFolder, Record, assemble, with_splits
from bregma.datasets.tables import Row, points_from, read_rows, refuse_duplicates
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet

LICENSE = "Research use, under the terms of the Digital Hand Atlas."
CITATION = (
    "Gertych A, Zhang A, Sayre J, Pospiech-Kurkowska S, Huang HK. Bone age assessment of children using a digital hand "
    "atlas. Comput Med Imaging Graph 2007;31:322-331. "
    "Payer C, Stern D, Bischof H, Urschler M. Integrating spatial configuration into heatmap regression based CNNs for "
    "landmark localization. Med Image Anal 2019;54:207-219."
)

_LABELS = "all_coordinates.csv"
_SPLITS = ("train", "valid", "test")


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return (root / _LABELS).is_file()


def read(
    root: Path, *, schema: LandmarkSchema | None = None, images: Path | None = None, strict: bool = False
) -> Dataset:
    """Read the dataset; its splits are the published folders.

    Args:
        root: the dataset's folder.
        schema: the anatomy; None takes the built-in ``hand``.
        images: the folder that holds ``train/`` and ``valid/`` where it is not ``root``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a row that cannot be read; names it.
    """
    schema = schema or load_schema("hand")
    width = 1 + 2 * len(schema)
    rows = read_rows(root / _LABELS, header=False, width=width, layout=f"a name and {len(schema)} x, y pairs")
    refuse_duplicates(rows, [row.fields[0] for row in rows])
    base = images or root
    splits = tuple(split for split in _SPLITS if (base / split).is_dir())
    dataset = assemble(
        (_record(row) for row in rows),
        ImageFolder(base, within=splits),
        name="hand_xray",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )
    return with_splits(
        dataset, {c.id: c.image.path.parent.name for c in dataset if c.image.path is not None and splits}
    )


def _record(row: Row) -> Record:
    name, *texts = row.fields
    return Record(id=name, subject=name, image=name, where=row.where, landmarks=LandmarkSet(points_from(row, texts)))
