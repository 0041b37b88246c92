"""Fetal head ultrasound frames of HC18 with the ends of both diameters.

Layout: ``Head_Train.csv`` (image_name and the x, y columns of ``ofd_1``, ``ofd_2``, ``bpd_1``, ``bpd_2``),
``pixel_size_and_HC.csv`` (file name, millimetres per pixel, head circumference in mm) and ``images/``. A second,
careless labelling of the same frames, ``Head_Train_unreviewed.csv``, serves to try out label audits.

The two ends of a diameter come in no fixed order. Several frames may show one fetus: ``010_HC`` and ``010_2HC``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bregma.datasets.records import ImageFolder, Record, assemble, image_stem
from bregma.datasets.tables import Row, by_key, named_points, read_rows, refuse_duplicates
from bregma.errors import ConfigError, LabelError
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset, LandmarkSet

LICENSE = "Images: CC BY 4.0 (HC18). Landmarks: CC BY-NC-SA 4.0 (multi-centre fetal biometry set)."
CITATION = (
    "van den Heuvel TLA, de Bruijn D, de Korte CL, van Ginneken B. Automated measurement of fetal head circumference "
    "using 2D ultrasound images. PLoS ONE 2018;13(8):e0200412. "
    "Di Vece C, Mao Z, Avisdris N, et al. A multi-centre, multi-device benchmark dataset for landmark-based "
    "comprehensive fetal biometry. arXiv:2512.16710, 2025."
)

_LABELS = {"reviewed": "Head_Train.csv", "unreviewed": "Head_Train_unreviewed.csv"}
_SIZES = "pixel_size_and_HC.csv"
_SPACING, _HC = "pixel size(mm)", "head circumference (mm)"


def detect(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return (root / _LABELS["reviewed"]).is_file() and (root / _SIZES).is_file()


def read(
    root: Path,
    *,
    schema: LandmarkSchema | None = None,
    images: Path | None = None,
    labels: str = "reviewed",
    strict: bool = False,
) -> Dataset:
    """Read the dataset; the target ``hc_mm`` is the published head circumference.

    Args:
        root: the dataset's folder.
        schema: the anatomy; None takes the built-in ``fetal_head``.
        images: the folder of the images where it is not ``root/images``.
        labels: ``reviewed``, or ``unreviewed`` for the careless labelling.
        strict: refuse missing or broken images instead of setting them aside.

    Raises:
        LabelError: a row that cannot be read, or an image without a pixel size; names it.
        ConfigError: another labelling than these two.
    """
    if labels not in _LABELS:
        raise ConfigError(f"there is no labelling '{labels}'", where="labels", expected=f"one of {', '.join(_LABELS)}")
    schema = schema or load_schema("fetal_head")
    sizes = by_key(read_rows(root / _SIZES), "filename")
    rows = read_rows(root / _LABELS[labels])
    refuse_duplicates(rows, [row.text("image_name") for row in rows])
    return assemble(
        (_record(row, sizes, schema) for row in rows),
        ImageFolder(images or root / "images"),
        name="fetal_head_us",
        schema=schema,
        strict=strict,
        license=LICENSE,
        citation=CITATION,
    )


def _record(row: Row, sizes: Mapping[str, Row], schema: LandmarkSchema) -> Record:
    name = row.text("image_name")
    if name not in sizes:
        raise LabelError(f"the image '{name}' has no row in {_SIZES}", where=row.where, fix="add its pixel size")
    spacing = sizes[name].number_in(_SPACING)
    return Record(
        id=image_stem(name),
        subject=name.split("_")[0],
        image=name,
        where=row.where,
        landmarks=LandmarkSet(named_points(row, schema.names)),
        spacing=(spacing, spacing),
        targets={"hc_mm": sizes[name].number_in(_HC)},
    )
