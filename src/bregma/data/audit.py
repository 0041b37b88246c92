"""What looks wrong in a dataset, before anything is learned from it.

A finding is a reason to look, not a verdict: an unusual label may be an unusual patient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bregma.data.shapes import mirrored, unusual_points
from bregma.data.split import Split
from bregma.errors import BregmaError
from bregma.types import Case, Dataset

Severity = Literal["error", "warning", "note"]
Kind = Literal[
    "unreadable_image",
    "size_mismatch",
    "non_finite_pixels",
    "constant_image",
    "duplicate_image",
    "subject_in_two_parts",
    "point_outside_image",
    "coincident_points",
    "same_labels",
    "unusual_point",
    "conflicting_targets",
    "constant_target",
    "left_out",
    "no_labels",
    "no_spacing",
]

COINCIDENT_PX = 0.01
"""Two landmarks nearer than this are one position entered twice."""


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong.

    Attributes:
        kind: what sort of thing.
        severity: ``error`` spoils training or evaluation, ``warning`` wants a look, ``note`` is to be known.
        sentence: for a reader.
        case_id: the case, or None for the dataset as a whole.
        landmark: the landmark's name, or None.
        score: size of the problem within its kind; larger is worse.
    """

    kind: Kind
    severity: Severity
    sentence: str
    case_id: str | None = None
    landmark: str | None = None
    score: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return dict(vars(self))


def find_problems(
    dataset: Dataset, split: Split | Mapping[str, Sequence[str]] | None = None, *, read_images: bool = True
) -> tuple[Finding, ...]:
    """List what looks wrong, worst first.

    Labels that are not finite or of the wrong number never get this far: the core types refuse them, and readers list
    the rows that they left out in ``Dataset.problems``, which are repeated here.

    Args:
        dataset: cases to check.
        split: parts to check for shared subjects and images; by default the split published with the dataset.
        read_images: whether to read every image; without it only labels and frames are checked.
    """
    parts = dataset.splits if split is None else split.parts if isinstance(split, Split) else split
    part_of: dict[str, set[str]] = {}
    for name, ids in parts.items():
        for case in ids:
            part_of.setdefault(case, set()).add(name)
    found = [
        *_subject_findings(dataset, part_of),
        *(_image_findings(dataset.cases, part_of) if read_images else ()),
        *_label_findings(dataset),
        *_repeated_labels(dataset.cases),
        *_unusual_findings(dataset),
        *target_findings(dataset),
        *_dataset_findings(dataset),
    ]
    severities, kinds = get_args(Severity), get_args(Kind)
    return tuple(
        sorted(found, key=lambda f: (severities.index(f.severity), kinds.index(f.kind), -f.score, f.case_id or ""))
    )


def _subject_findings(dataset: Dataset, part_of: Mapping[str, set[str]]) -> Iterator[Finding]:
    parts: dict[str, set[str]] = {}
    for case in dataset:
        parts.setdefault(case.subject, set()).update(part_of.get(case.id, ()))
    for subject, names in parts.items():
        if len(names) > 1:
            sentence = f"The subject {subject} lies in {' and '.join(sorted(names))}, so one knows the other."
            yield Finding("subject_in_two_parts", "error", sentence)


def _image_findings(cases: Iterable[Case], part_of: Mapping[str, set[str]]) -> Iterator[Finding]:
    first: dict[bytes, Case] = {}
    for case in cases:
        try:
            pixels = case.image.load()
        except BregmaError as error:
            yield Finding("unreadable_image", "error", f"The image cannot be read: {error}.", case.id)
            continue
        yield from _pixel_findings(case, pixels)
        twin = first.setdefault(_digest(pixels), case)
        if twin is not case:
            yield _twin_finding(case, twin, part_of)


def _pixel_findings(case: Case, pixels: NDArray[Any]) -> Iterator[Finding]:
    if pixels.shape != case.frame.shape:
        sentence = f"The image has {pixels.shape} pixels, its frame says {case.frame.shape}; labels may not fit it."
        yield Finding("size_mismatch", "error", sentence, case.id)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        yield Finding("non_finite_pixels", "error", "The image holds values that are not finite.", case.id)
    elif pixels.size == 0 or pixels.min() == pixels.max():
        yield Finding("constant_image", "error", "All pixels of the image are equal.", case.id)


def _digest(pixels: NDArray[Any]) -> bytes:
    about = f"{pixels.dtype} {pixels.shape}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(pixels).tobytes()).digest()


def _twin_finding(case: Case, twin: Case, part_of: Mapping[str, set[str]]) -> Finding:
    parts = part_of.get(case.id, set()) | part_of.get(twin.id, set())
    sentence = f"The image is the same as that of {twin.id}"
    if len(parts) > 1:
        sentence += f", and they lie in {' and '.join(sorted(parts))}"
    elif case.subject != twin.subject:
        sentence += ", which belongs to another subject"
    serious = len(parts) > 1 or case.subject != twin.subject
    return Finding("duplicate_image", "error" if serious else "warning", sentence + ".", case.id)


def _label_findings(dataset: Dataset) -> Iterator[Finding]:
    names = dataset.schema.names
    for case in dataset:
        if case.landmarks is None:
            continue
        points, placed = case.landmarks.points, np.flatnonzero(case.landmarks.labelled)
        centre = np.array([case.frame.width - 1, case.frame.height - 1]) / 2.0
        half = np.array([case.frame.width, case.frame.height]) / 2.0
        for index in placed[~case.frame.contains(points[placed])]:
            beyond = float((np.abs(points[index] - centre) - half).max())
            sentence = f"{names[index]} lies {beyond:.1f} px outside the image but is not marked as outside."
            yield Finding("point_outside_image", "warning", sentence, case.id, names[index], beyond)
        for i, j in _coincident(points, placed):
            sentence = f"{names[i]} and {names[j]} have the same position."
            yield Finding("coincident_points", "warning", sentence, case.id, names[j])


def _coincident(points: NDArray[np.float64], placed: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    for i, j in combinations(placed.tolist(), 2):
        if np.hypot(*(points[i] - points[j])) < COINCIDENT_PX:
            yield i, j


def _repeated_labels(cases: Iterable[Case]) -> Iterator[Finding]:
    """Labels that are equal to the last digit on two images were copied, except for a single point."""
    first: dict[bytes, Case] = {}
    for case in cases:
        if case.landmarks is None or case.landmarks.labelled.sum() < 2:
            continue
        twin = first.setdefault(case.landmarks.points.tobytes() + case.landmarks.status.tobytes(), case)
        if twin is not case:
            yield Finding("same_labels", "warning", f"The labels are exactly those of {twin.id}.", case.id)


def _unusual_findings(dataset: Dataset) -> Iterator[Finding]:
    labelled = [(case.id, case.landmarks) for case in dataset if case.landmarks is not None]
    if not labelled:
        return
    points = np.array([np.where(m.labelled[:, None], m.points, np.nan) for _, m in labelled])
    if dataset.schema.flip == "keep":
        # An anatomy that may face either side is compared with its kind, not with its mirror image.
        points[mirrored(points)] *= (-1.0, 1.0)
    free = {dataset.schema.index(name) for group in dataset.schema.exchangeable for name in group}
    fixed = np.array([index for index in range(len(dataset.schema)) if index not in free], dtype=np.intp)
    for row, column, times, share in unusual_points(points[:, fixed]):
        name = dataset.schema.names[fixed[column]]
        sentence = (
            f"{name} lies {100 * share:.0f} % of the shape's size from where the other landmarks suggest it, "
            f"{times:.0f} times the usual distance."
        )
        yield Finding("unusual_point", "warning", sentence, labelled[row][0], name, times)


def target_findings(dataset: Dataset) -> Iterator[Finding]:
    """Yield subjects whose images have different values of a quantity, and quantities that do not differ at all."""
    for quantity in dataset.schema.quantities:
        by_subject: dict[str, dict[float, str]] = {}
        for case in dataset:
            if quantity.name in case.targets:
                by_subject.setdefault(case.subject, {}).setdefault(case.targets[quantity.name], case.id)
        several = {subject: values for subject, values in by_subject.items() if len(values) > 1}
        if several:
            subject, values = next(iter(several.items()))
            example = ", ".join(f"{value:g} ({case})" for value, case in values.items())
            people = "1 subject has" if len(several) == 1 else f"{len(several)} subjects have"
            sentence = f"{people} images with different values of {quantity.name}"
            sentence = f"{sentence}, such as {subject}: {example}."
            first = next(iter(values.values()))
            severity: Severity = "error" if quantity.per == "subject" else "warning"
            yield Finding("conflicting_targets", severity, sentence, first, score=len(several))
        every = {value for values in by_subject.values() for value in values}
        if len(by_subject) > 1 and len(every) == 1:
            sentence = f"All {len(by_subject)} subjects have the same {quantity.name}, {every.pop():g}."
            yield Finding("constant_target", "error", sentence)


def _dataset_findings(dataset: Dataset) -> Iterator[Finding]:
    for problem in dataset.problems:
        yield Finding("left_out", "note", problem)
    empty = sum(not _says_something(dataset, case) for case in dataset)
    if empty:
        yield Finding("no_labels", "note", f"{empty} of {len(dataset)} images have no labels.", score=empty)
    bare = sum(case.frame.spacing is None for case in dataset)
    if bare:
        sentence = f"{bare} of {len(dataset)} images have no trusted spacing: their lengths are given in pixels."
        yield Finding("no_spacing", "note", sentence, score=bare)


def _says_something(dataset: Dataset, case: Case) -> bool:
    """Tell whether a case has a label or, where the anatomy has no landmarks, a quantity."""
    if len(dataset.schema):
        return case.landmarks is not None and bool(case.landmarks.labelled.any())
    return any(quantity.name in case.targets for quantity in dataset.schema.quantities)
