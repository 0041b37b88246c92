"""Mid-sagittal lumbar MRI of MyoSegmenTUM with vertebral corners derived from the published masks.

Layout: ``corners.csv`` (image, then the x, y columns of each corner of L1 to L5), ``midsagittal/*.png`` with pixels of
1 mm, and, where they are present, ``targets.csv`` with each vertebral body's volume in cm³ and ``volumes/*.nii.gz``.
Corners are those of minimum-area boxes around the masks, not points that a reader placed; a few lie just outside the
image. A schema without landmarks asks for the volumes and for what is measured of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bregma.datasets.records import ImageFolder, Record, assemble, image_stem
from bregma.datasets.tables import Row, by_key, named_points, read_rows
from bregma.io import ImageOptions
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet

LICENSE = "Free use with citation of the authors."
CITATION = (
    "Burian E, Rohrmeier A, Schlaeger S, et al. Lumbar muscle and vertebral bodies segmentation of chemical shift "
    "encoding-based water-fat MRI: the reference database MyoSegmenTUM spine. BMC Musculoskelet Disord 2019;20:152."
)

_CORNERS, _TARGETS = "corners.csv", "targets.csv"
_SPACING_MM = (1.0, 1.0)
_SAME_SUBJECT = {"sub-19": "sub-18", "sub-33": "sub-32", "sub-53": "sub-51", "sub-54": "sub-52"}
"""Scans whose stored image and labels equal those of another one; they count as one subject, so no split parts them."""


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return (root / _CORNERS).is_file() and (root / "midsagittal").is_dir()


def read(
    root: Path, *, schema: LandmarkSchema | None = None, images: Path | None = None, strict: bool = False
) -> Dataset:
    """Read the dataset; targets are the published volumes, by their column names.

    Args:
        root: the dataset's folder.
        schema: the anatomy; None takes the built-in ``lumbar_mri``. One without landmarks reads the volumes.
        images: the folder of the images where it is not ``root/midsagittal``, or ``root/volumes``.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a row that cannot be read; names it.
    """
    schema = schema or load_schema("lumbar_mri")
    if len(schema):
        rows = by_key(read_rows(root / _CORNERS), "image")
        targets = by_key(read_rows(root / _TARGETS), "subject") if (root / _TARGETS).is_file() else {}
        records = [_record(name, row, targets, schema) for name, row in rows.items()]
    else:
        records = [_volume(name, row) for name, row in by_key(read_rows(root / _TARGETS), "file").items()]
    return assemble(
        records,
        ImageFolder(images or root / ("midsagittal" if len(schema) else "volumes")),
        name="spine_mri",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )


def _record(name: str, row: Row, targets: Mapping[str, Row], schema: LandmarkSchema) -> Record:
    subject = image_stem(name)
    return Record(
        id=subject,
        subject=_SAME_SUBJECT.get(subject, subject),
        image=name,
        where=row.where,
        landmarks=LandmarkSet(named_points(row, schema.names)),
        spacing=_SPACING_MM,
        targets=_volumes(targets[subject]) if subject in targets else {},
    )


def _volume(name: str, row: Row) -> Record:
    subject = row.text("subject")
    return Record(
        id=subject,
        subject=_SAME_SUBJECT.get(subject, subject),
        image=name,
        where=row.where,
        targets=_volumes(row),
        options=ImageOptions(plane="sagittal"),
    )


def _volumes(row: Row) -> dict[str, float]:
    columns = [column for column in row.header if column.endswith("_cm3") and row.text(column)]
    return {column: row.number_in(column) for column in columns}
