"""``inspect``, ``convert`` and ``phantom``: looking at data, changing its format, making it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bregma.auditing.audit import LabelAudit
from bregma.config import validate
from bregma.data.audit import Finding, find_problems
from bregma.data.fingerprint import Fingerprint, fingerprint
from bregma.datasets import write_dataset
from bregma.errors import ConfigError, LabelError
from bregma.files import write_json, write_text
from bregma.phantoms import make_phantoms, phantom_settings
from bregma.phantoms.base import Difficulty
from bregma.recipe import with_settings
from bregma.report import contact_sheet, save_png
from bregma.types import Dataset
from bregma.workflows.auditing import audit_dataset, write_audit
from bregma.workflows.dataset_figures import case_tile, draw_dataset_figures
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.phantom_volumes import check_volumes, write_phantom_volumes
from bregma.workflows.track import Track, untracked

SHEET_IMAGES = 24


@dataclass(frozen=True)
class Inspection:
    """What looking at a dataset gave.

    Attributes:
        dataset: as it was read.
        fingerprint: the dataset in numbers.
        findings: what looks wrong, worst first.
        sheet: the contact sheet, or None where nothing was written.
        figures: the other pictures written: tags, labels, shapes, measurements, and samples.
        audit: the labels' audit, or None where it was not asked for.
        audit_files: its table and its sheet.
    """

    dataset: Dataset
    fingerprint: Fingerprint
    findings: tuple[Finding, ...]
    sheet: Path | None
    figures: tuple[Path, ...] = ()
    audit: LabelAudit | None = None
    audit_files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "fingerprint": self.fingerprint.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
            "sheet": None if self.sheet is None else str(self.sheet),
            "figures": [str(path) for path in self.figures],
            "suspects": None if self.audit is None else [suspect.to_dict() for suspect in self.audit.suspects()],
            "audit": [str(path) for path in self.audit_files],
        }


def inspect(
    data: str | Path | Dataset,
    *,
    out: str | Path | None = None,
    options: DataOptions | None = None,
    images: int = SHEET_IMAGES,
    audit: bool = False,
    predictions: Sequence[str | Path] = (),
    track: Track = untracked,
) -> Inspection:
    """Describe a dataset, list what looks wrong, and draw its labels and what it consists of.

    Args:
        data: a labelled dataset, or its folder or label file.
        out: a folder for ``fingerprint.json``, ``findings.csv``, ``findings.json``, ``contact_sheet.png``, and a
            figure of each thing that the dataset has (:func:`draw_dataset_figures`).
        options: how to read ``data``.
        images: tiles of the sheet: cases with findings first, then an even sample of the rest.
        audit: whether to judge every label too; with ``out`` this writes ``audit.csv``, ``audit.json`` and
            ``audit_sheet.png``.
        predictions: for the audit, predictions of models that did not learn from the cases in them.
        track: wraps the iteration over the tiles.

    Raises:
        ConfigError: predictions without an audit.
        LabelError: the labels, or all of the images, cannot be read.
        SchemaError, SplitError: predictions of another anatomy, or of images that their model was trained on.
        RunError: ``out`` cannot be written.
    """
    if predictions and not audit:
        raise ConfigError("predictions serve the audit of labels", where="predictions", fix="ask for the audit too")
    dataset = load_data(data, options)
    findings = find_problems(dataset)
    readable = _readable(dataset, findings)
    if not readable.cases:
        raise LabelError("none of the images can be read", where=dataset.name, got=findings[0].sentence)
    found = fingerprint(readable)
    sheet: Path | None = None
    figures: tuple[Path, ...] = ()
    if out is not None:
        folder = Path(out)
        write_json(folder / "fingerprint.json", found.to_dict())
        write_json(folder / "findings.json", [finding.to_dict() for finding in findings])
        write_text(folder / "findings.csv", _findings_csv(findings))
        tiles = list(track(_tiles(dataset, findings, images), min(images, len(dataset)), "draw"))
        sheet = save_png(folder / "contact_sheet.png", contact_sheet(tiles, columns=6))
        figures = draw_dataset_figures(readable, found, findings, folder, images=images, track=track)
    audited = audit_dataset(dataset, predictions) if audit else None
    audit_files: tuple[Path, ...] = ()
    if audited is not None and out is not None:
        audit_files = write_audit(audited, Path(out), images=images, track=track)
    return Inspection(dataset, found, findings, sheet, figures, audited, audit_files)


def convert(
    data: str | Path | Dataset,
    out: str | Path,
    format: str,
    *,
    options: DataOptions | None = None,
    overwrite: bool = False,
) -> tuple[Path, Dataset]:
    """Write a dataset's labels in another format; returns what was written and what was read.

    Raises:
        ConfigError: an unknown format.
        LabelError: the labels cannot be read.
        RunError: the folder holds something already, or cannot be written.
    """
    dataset = load_data(data, options)
    return write_dataset(dataset, out, format, overwrite=overwrite), dataset


def phantom(
    name: str,
    out: str | Path,
    *,
    count: int = 16,
    seed: int = 0,
    size: int | None = None,
    difficulty: Difficulty | None = None,
    images_per_subject: int = 1,
    overrides: Sequence[str] = (),
    sheet_only: bool = False,
    volumes: bool = False,
) -> Dataset:
    """Make simulated images with exact truth; writes images, ``dataset.json`` and a contact sheet.

    With ``volumes``, whole stacks of slices are written as NIfTI, with a table of their quantities (``labels.csv``),
    the declaration of its columns (``columns.yaml``) and the schema of the quantities (``schema.yaml``).

    Args:
        name: a row of ``PHANTOMS``.
        out: the folder to write.
        count: number of images.
        seed: different seeds share no subject.
        size: rows and columns.
        difficulty: easy, medium or hard.
        images_per_subject: images that show one subject.
        overrides: single settings of the phantom, ``a.b=value``.
        sheet_only: write the contact sheet alone.
        volumes: write volumes in place of single images.

    Raises:
        ConfigError: an unknown phantom or setting, or volumes of an anatomy that has none.
        RunError: the folder holds something already, or cannot be written.
    """
    if volumes:
        check_volumes(name, Path(out))
    usual = phantom_settings(name)
    data, given = with_settings(usual.to_dict(), {}, overrides)
    settings = validate(type(usual), data, where=f"phantom '{name}'", lines=given)
    dataset = make_phantoms(
        *(name, count),
        seed=seed,
        size=size,
        difficulty=difficulty,
        images_per_subject=images_per_subject,
        settings=settings,
    )
    if volumes:
        write_phantom_volumes(
            name,
            dataset,
            Path(out),
            seed=seed,
            images_per_subject=images_per_subject,
            size=size,
            difficulty=difficulty,
            settings=settings,
        )
    elif not sheet_only:
        write_dataset(dataset, out, "bregma_json")
    tiles = list(_tiles(dataset, (), SHEET_IMAGES))
    save_png(Path(out) / "contact_sheet.png", contact_sheet(tiles, columns=6))
    return dataset


def _readable(dataset: Dataset, findings: Sequence[Finding]) -> Dataset:
    broken = {finding.case_id for finding in findings if finding.kind == "unreadable_image"}
    kept = tuple(case for case in dataset if case.id not in broken)
    return Dataset(dataset.name, dataset.schema, kept)


def _tiles(dataset: Dataset, findings: Sequence[Finding], most: int) -> Iterator[tuple[Any, str]]:
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding.case_id is not None:
            reasons.setdefault(finding.case_id, finding.kind.replace("_", " "))
    rest = [case for case in dataset if case.id not in reasons]
    suspects = [case for case in dataset if case.id in reasons][: max(most // 2, most - len(rest))]
    sample = [rest[i] for i in np.linspace(0, len(rest) - 1, most - len(suspects)).astype(int)] if rest else []
    chosen = {case.id: case for case in (*suspects, *sample)}
    for case in chosen.values():
        reason = reasons.get(case.id)
        yield case_tile(dataset.schema, case, case.id if reason is None else f"{case.id}: {reason}")


def _findings_csv(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["severity", "kind", "case", "landmark", "score", "sentence"])
    for f in findings:
        writer.writerow([f.severity, f.kind, f.case_id or "", f.landmark or "", f"{f.score:.6g}", f.sentence])
    return text.getvalue()
