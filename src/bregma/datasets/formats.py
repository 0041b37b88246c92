"""The tables of label formats, and reading through them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bregma.datasets import ceph_xray, chest_xray, fetal_head_us, hand_xray, spine_ap_xray, spine_mri
from bregma.errors import ConfigError, LabelError
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
)

DATASETS: dict[str, Format] = {entry.name: entry for entry in _FORMATS}


def read_dataset(
    root: str | Path,
    *,
    format: str = "auto",
    schema: str | Path | LandmarkSchema | None = None,
    images: str | Path | None = None,
    labels: str | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a labelled dataset.

    Args:
        root: the dataset's folder, or its label file for formats that keep all labels in one.
        format: a name of :data:`DATASETS`, or ``auto`` to find out.
        schema: the anatomy: a built-in name, a YAML file, or a schema; None takes the format's own.
        images: the folder of the images where it is not the usual one.
        labels: which of several published labellings to read, for formats that have them.
        strict: refuse missing or broken images instead of listing them in ``Dataset.problems``.

    Raises:
        LabelError: no such folder, an unknown layout, or a label file that cannot be read; names file and row.
        ImageError: ``strict``, and an image is missing or broken.
        ConfigError: an unknown format, or an option that this format does not have.
    """
    path = _existing(root)
    entry = _entry(detect_format(path) if format == "auto" else format)
    given: dict[str, Any] = {
        "schema": load_schema(schema) if isinstance(schema, str | Path) else schema,
        "images": None if images is None else _existing(images),
        "labels": labels,
        "strict": strict or None,
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
        LabelError: none fits; lists the ones that are known.
    """
    path = _existing(root)
    for name, entry in DATASETS.items():
        if entry.detect(path):
            return name
    raise LabelError(
        "the label format is not recognised",
        where=path,
        expected=f"one of {', '.join(DATASETS)}",
        fix="name the format (format=...), or write the labels as a CSV table: image, <landmark>_x, <landmark>_y, ...",
    )


def _entry(name: str) -> Format:
    if name not in DATASETS:
        raise ConfigError(f"there is no label format '{name}'", expected=f"auto or one of {', '.join(DATASETS)}")
    return DATASETS[name]


def _existing(root: str | Path) -> Path:
    path = Path(root).expanduser()
    if not path.exists():
        raise LabelError("is not there", where=path, expected="a dataset's folder or label file")
    return path
