"""The figures of a dataset that ``inspect`` draws, from whatever tags, targets, labels and measurements it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bregma.data.audit import Finding
from bregma.data.fingerprint import Fingerprint
from bregma.errors import BregmaError
from bregma.files import atomic_path
from bregma.report import contact_sheet, draw_overlay, save_png
from bregma.report.dataset_figures import Panel, label_counts, panel_figure, shape_figure
from bregma.report.sheet import grouped_sheet
from bregma.report.words import number, short_labels, unit_suffix
from bregma.schema import LandmarkSchema
from bregma.types import Case, Dataset, Measurement, Status, Tag
from bregma.workflows.dataset_statistics import (
    Measured,
    counts_of,
    in_words,
    is_category,
    is_number,
    measured_quantities,
    measurement_panels,
    shape_statistics,
    tag_panels,
    values_by_name,
    worst_of_each,
)
from bregma.workflows.track import Track

Tile = tuple[Any, str]
Groups = dict[str, list[tuple[Case, str]]]
"""Heading to cases with captions."""

MOST_PANELS = 24
"""Distributions of one figure; a dataset with more shows the first."""
_MOST_ROWS, _ROW_IMAGES, _MOST_SHEETS = 6, 6, 4
_TILE_PX = 420


def draw_dataset_figures(
    dataset: Dataset,
    found: Fingerprint,
    findings: Iterable[Finding],
    folder: Path,
    *,
    images: int,
    track: Track,
    seed: int = 0,
) -> tuple[Path, ...]:
    """Draw what the dataset has into a folder; what it lacks has no figure. Returns the files.

    Args:
        dataset: cases whose images can be read.
        found: its fingerprint.
        findings: what looks wrong; images with an unusual point do not enter the statistics of shapes.
        folder: where to write.
        images: number of random samples.
        track: wraps the iteration over the samples.
        seed: of the samples.

    Raises:
        RunError: the folder cannot be written.
    """
    measured = list(measured_quantities(dataset))
    unusual = {finding.case_id for finding in findings if finding.kind == "unusual_point"}
    shapes = shape_statistics(dataset, unusual)
    plots = {
        "demographics": _panels(tag_panels(dataset)),
        "label_counts": _label_counts(dataset.schema, found),
        "shape": None if shapes is None else shape_figure(shapes),
        "measurements": _panels(measurement_panels(dataset.schema, measured)),
    }
    files = [_write(folder / f"{name}.png", data) for name, data in plots.items() if data is not None]
    order = [dataset.cases[i] for i in np.random.default_rng(seed).permutation(len(dataset))]
    chosen = order[:images]
    tiles = list(track((case_tile(dataset.schema, case, case.id) for case in chosen), len(chosen), "draw samples"))
    files.append(save_png(folder / "samples.png", contact_sheet(tiles, columns=6)))
    sheets = {**tag_groups(order), **grade_groups(dataset.schema, measured, order)}
    for name, groups in sheets.items():
        rows = {heading: [case_tile(dataset.schema, *item) for item in row] for heading, row in groups.items()}
        files.append(save_png(folder / f"samples_by_{_file_name(name)}.png", grouped_sheet(rows)))
    return tuple(files)


def case_tile(schema: LandmarkSchema, case: Case, caption: str) -> Tile:
    """Return an image with its labels drawn, black where it cannot be read, and its caption."""
    try:
        image = case.image.load()
    except BregmaError:
        image = np.zeros(case.frame.shape, dtype=np.uint8)
    return draw_overlay(image, schema=schema, truth=case.landmarks, size=_TILE_PX, legend=False), caption


def _write(path: Path, data: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def _panels(panels: Iterable[Panel]) -> bytes | None:
    shown = list(panels)[:MOST_PANELS]
    return panel_figure(shown) if shown else None


def _label_counts(schema: LandmarkSchema, found: Fingerprint) -> bytes | None:
    if not found.labelled:
        return None
    states = [state.name.lower() for state in Status]
    counts = {state: [int(getattr(mark, state)) for mark in found.landmarks] for state in states}
    bare = found.images - sum(counts[state][0] for state in states)
    # Images without any labels are in no landmark's counts.
    counts[Status.UNLABELLED.name.lower()] = [count + bare for count in counts[Status.UNLABELLED.name.lower()]]
    return label_counts(short_labels(schema), counts)


def tag_groups(order: Sequence[Case]) -> dict[str, Groups]:
    """Return, for each tag that divides the images into a few kinds, some images of each kind."""
    sheets: dict[str, Groups] = {}
    for name, values in values_by_name(case.tags for case in order).items():
        counts = counts_of(values) if is_category(values) else {}
        if 2 <= len(counts) <= _MOST_ROWS and len(sheets) < _MOST_SHEETS:
            sheets[name] = {
                f"{in_words(name)}: {kind} ({count})": [
                    (case, case.id) for case in order if name in case.tags and _same(case.tags[name], kind)
                ][:_ROW_IMAGES]
                for kind, count in counts.items()
            }
    return sheets


def _same(value: Tag, kind: str) -> bool:
    return kind in (str(value), f"{float(value):g}" if is_number(value) else "")


def grade_groups(schema: LandmarkSchema, measured: Iterable[Measured], order: Sequence[Case]) -> dict[str, Groups]:
    """Return, for each grade scale that divides the images, some images of every grade, from normal to severe."""
    place = {case.id: i for i, case in enumerate(order)}
    sheets = {}
    for quantity in measured:
        if quantity.spec.grade is None:
            continue
        scale = schema.grade(quantity.spec.grade)
        worst = sorted(worst_of_each(quantity, scale), key=lambda item: place[item[0].id])
        groups = {}
        for grade in dict.fromkeys(scale.labels):
            alike = [item for item in worst if item[1].grade == grade]
            if alike:
                heading = f"{scale.label or in_words(scale.name)}: {grade} ({len(alike)})"
                groups[heading] = [(case, _caption(case, found)) for case, found in alike[:_ROW_IMAGES]]
        if len(groups) > 1:
            sheets[f"{quantity.spec.name}_grade"] = groups
    return sheets


def _caption(case: Case, found: Measurement) -> str:
    level = f"{found.level} " if found.level else ""
    return f"{case.id}: {level}{number(found.value, found.unit)}{unit_suffix(found.unit)}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)
