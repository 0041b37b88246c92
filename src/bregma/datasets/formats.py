"""The tables of label formats, and reading and writing through them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from bregma.datasets import (
    bregma_json,
    buu_lspine,
    ceph_xray,
    chest_xray,
    coco,
    csv_export,
    csv_labels,
    fetal_head_us,
    hand_xray,
    labelme,
    spine_ap_xray,
    spine_mri,
    spondylolisthesis,
)
from bregma.datasets.columns import Columns
from bregma.errors import ConfigError, LabelError, RunError
from bregma.files import read_json
from bregma.schema import LandmarkSchema, load_schema
from bregma.types import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """A label format that can be read.

    Attributes:
        name: its name in the table and on the command line.
        title: what it is, for a reader.
        read: ``read(root, *, schema, images, strict, ...) -> Dataset``.
        detect: whether a folder or file has this layout; it looks at names, and at contents only where it must.
        schema: the built-in anatomy that it is read with, unless another is given; None where the user names one.
        license: the terms of a published set; empty for general formats.
        citation: what to cite for a published set.
    """

    name: str
    title: str
    read: Callable[..., Dataset]
    detect: Callable[[Path], bool]
    schema: str | None = None
    license: str = ""
    citation: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that ``read`` honours."""
        return tuple(inspect.signature(self.read).parameters)[1:]


def _published(name: str, title: str, module: ModuleType, schema: str) -> Format:
    return Format(name, title, module.read, module.detect, schema, module.LICENSE, module.CITATION)


_FORMATS = (
    _published("hand_xray", "hand radiographs, 37 landmarks (Digital Hand Atlas)", hand_xray, "hand"),
    _published("chest_xray", "frontal chest radiographs, 15 landmarks", chest_xray, "chest"),
    _published("fetal_head_us", "fetal head ultrasound, OFD and BPD (HC18)", fetal_head_us, "fetal_head"),
    _published("spine_ap_xray", "whole-spine AP radiographs, T1 to L5 (AASCE 2019)", spine_ap_xray, "spine_ap"),
    _published("ceph_xray", "lateral cephalograms, 19 landmarks (ISBI 2015)", ceph_xray, "cephalometric"),
    _published("spine_mri", "mid-sagittal lumbar MRI, L1 to L5 (MyoSegmenTUM)", spine_mri, "lumbar_mri"),
    _published(
        "spondylolisthesis",
        "lateral lumbar radiographs, T12 to S1 (Mendeley Data)",
        spondylolisthesis,
        "lumbar_lateral",
    ),
    _published("buu_lspine", "lumbar radiographs, L1 to S1 (BUU-LSPINE)", buu_lspine, "lumbar_lateral"),
    Format("bregma_json", "Bregma's own dataset.json, without loss", bregma_json.read, bregma_json.detect),
    Format("coco", "COCO keypoints, one instance an image", coco.read, coco.detect),
    Format("labelme", "LabelMe, one JSON file with point shapes an image", labelme.read, labelme.detect),
    Format("csv", "CSV table, one row an image or one row a landmark", csv_labels.read, csv_labels.detect),
)

DATASETS: dict[str, Format] = {entry.name: entry for entry in _FORMATS}
"""Every format that can be read; detection goes from the special to the general."""


Holds = Literal["unlabelled", "occluded", "outside", "subject", "spacing", "splits", "targets", "tags", "observers"]


@dataclass(frozen=True)
class Exporter:
    """A label format that can be written.

    Attributes:
        name: its name in the table and on the command line.
        title: what it is, for a reader.
        write: ``write(dataset, folder) -> path``; the path of what was written.
        reader: the format that reads it back.
        holds: what comes back beside case ids, images and points; all else is lost in this format.
    """

    name: str
    title: str
    write: Callable[[Dataset, Path], Path]
    reader: str
    holds: frozenset[Holds]


_PLAIN: frozenset[Holds] = frozenset({"unlabelled", "occluded", "subject", "spacing"})
_TABLE: frozenset[Holds] = _PLAIN | {"outside", "splits", "targets", "tags"}

_EXPORTERS = (
    Exporter("bregma_json", "Bregma's own dataset.json", bregma_json.write, "bregma_json", _TABLE | {"observers"}),
    Exporter("csv", "CSV table, one row an image", csv_export.write_wide, "csv", _TABLE),
    Exporter("csv_long", "CSV table, one row a landmark", csv_export.write_long, "csv", _TABLE),
    Exporter("coco", "COCO keypoints", coco.write, "coco", _PLAIN),
    Exporter("labelme", "LabelMe, one JSON file an image", labelme.write, "labelme", _PLAIN),
)

EXPORTERS: dict[str, Exporter] = {entry.name: entry for entry in _EXPORTERS}
"""Every format that can be written."""


def read_dataset(
    root: str | Path,
    *,
    format: str = "auto",
    schema: str | Path | LandmarkSchema | None = None,
    images: str | Path | None = None,
    labels: str | None = None,
    columns: Columns | Mapping[str, Any] | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a labelled dataset.

    Args:
        root: the dataset's folder, or its label file for formats that keep all labels in one.
        format: a name of :data:`DATASETS`, or ``auto`` to find out (``csv`` where ``columns`` are given).
        schema: the anatomy: a built-in name, a YAML file, or a schema; None takes the format's own.
        images: the folder of the images where it is not the usual one.
        labels: which of several published labellings to read, for formats that have them.
        columns: which column of a CSV table holds what; None takes the declaration beside it, or guesses.
        options: settings that only this format has, by name.
        strict: refuse missing or broken images instead of listing them in ``Dataset.problems``.

    Raises:
        LabelError: no such folder, an unknown layout, or a label file that cannot be read; names file and row.
        ImageError: ``strict``, and an image is missing or broken.
        ConfigError: an unknown format, or an option that this format does not have.
    """
    path = _existing(root)
    anatomy = load_schema(schema) if isinstance(schema, str | Path) else schema
    if format == "auto":
        format = _detected(path, anatomy) if columns is None else "csv"
    entry = _entry(format)
    given: dict[str, Any] = {
        "schema": anatomy,
        "images": None if images is None else _existing(images),
        "labels": labels,
        "columns": columns,
        "strict": strict or None,
        **(options or {}),
    }
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in entry.options:
            raise ConfigError(
                f"the format '{entry.name}' has no option '{option}'", expected=f"one of {', '.join(entry.options)}"
            )
    dataset = entry.read(path, **chosen)
    log.info("read %s as %s: %d cases of %d subjects", path, entry.name, len(dataset), len(dataset.subjects))
    return dataset


def detect_format(root: str | Path) -> str:
    """Return the name of the format that a folder or file has; the first match in the order of the table.

    Raises:
        InputError: none fits; names the fault where there is but one label file, or lists the formats.
    """
    path = _existing(root)
    for name, entry in DATASETS.items():
        if entry.detect(path):
            return name
    _name_the_fault(path)
    raise LabelError(
        "the label format is not recognised",
        where=path,
        expected=f"one of {', '.join(DATASETS)}",
        fix="name the format (format=...), or write the labels as a CSV table: image, <landmark>_x, <landmark>_y, ...",
    )


def _detected(path: Path, schema: LandmarkSchema | None) -> str:
    try:
        return detect_format(path)
    except LabelError:
        if schema is None or len(schema):
            raise
        # A table of quantities has no columns that would give it away.
        return "csv"


def _name_the_fault(path: Path) -> None:
    """Read the only label file that there is, for the fault that kept it from being recognised."""
    suffixes = {".json", ".csv", ".tsv"}
    files = [path] if path.is_file() else [file for file in path.glob("*") if file.suffix.lower() in suffixes]
    if len(files) == 1 and files[0].suffix.lower() == ".json":
        read_json(files[0])
    elif len(files) == 1 and files[0].suffix.lower() in suffixes:
        csv_labels.columns_of(files[0])


def write_dataset(dataset: Dataset, out: str | Path, format: str, *, overwrite: bool = False) -> Path:
    """Write a dataset's labels; images on disk are referred to, images in memory are written beside the labels.

    Args:
        dataset: what to write.
        out: the folder, which is made.
        format: a name of :data:`EXPORTERS`; its ``holds`` says what the format can hold.
        overwrite: write into a folder that already holds something.

    Returns:
        What was written: the label file, or the folder for formats with one file an image.

    Raises:
        ConfigError: an unknown format.
        RunError: the folder holds something already, or cannot be written.
    """
    if format not in EXPORTERS:
        raise ConfigError(f"the format '{format}' cannot be written", expected=f"one of {', '.join(EXPORTERS)}")
    folder = Path(out).expanduser()
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError("is not empty", where=folder, fix="choose another folder, or allow it (overwrite=True)")
    return EXPORTERS[format].write(dataset, folder)


def _entry(name: str) -> Format:
    if name not in DATASETS:
        raise ConfigError(f"there is no label format '{name}'", expected=f"auto or one of {', '.join(DATASETS)}")
    return DATASETS[name]


def _existing(root: str | Path) -> Path:
    path = Path(root).expanduser()
    if not path.exists():
        raise LabelError("is not there", where=path, expected="a dataset's folder or label file")
    return path
