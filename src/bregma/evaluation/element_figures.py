"""The figures of chains: how many elements were found and how many invented, what they were called, how near they lie.

Every one is a ratio of counts that are summed over images. ``bregma.evaluation.figures`` lists their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bregma import metrics
from bregma.evaluation.elements import missed_elements
from bregma.evaluation.figures import Figure
from bregma.geometry import Array
from bregma.results import CaseResult, ElementResult
from bregma.schema import LandmarkSchema
from bregma.types import Case


@dataclass(frozen=True)
class ImageElements:
    """The elements of one image.

    Attributes:
        subject: index of its subject.
        long_side: of the image, in px.
        elements: what became of each.
    """

    subject: int
    long_side: float
    elements: tuple[ElementResult, ...]


def image_elements(
    schema: LandmarkSchema, results: Sequence[CaseResult], failed: Sequence[Case], subjects: Mapping[str, int]
) -> list[ImageElements]:
    """Collect the elements of scored images, and those of images without a prediction, which are all missed."""
    missed = [(case, missed_elements(schema, case.landmarks)) for case in failed if case.landmarks is not None]
    each = [*((result.case, result.elements) for result in results), *missed]
    return [ImageElements(subjects[case.subject], float(max(case.frame.shape)), found) for case, found in each]


def element_figures(
    images: Sequence[ImageElements], subjects: int, schema: LandmarkSchema, *, at_size: int | None = None
) -> dict[str, Figure]:
    """Return the figures of every chain of a schema, in the order in which to show them.

    Args:
        images: scored images; those without a prediction have missed elements only.
        subjects: number of subjects.
        schema: the anatomy.
        at_size: also give distances in the pixels of images with this long side.
    """
    figures: dict[str, Figure] = {}
    for chain in schema.chains:
        own = [
            ImageElements(image.subject, image.long_side, tuple(e for e in image.elements if e.chain == chain.name))
            for image in images
        ]
        counts = _Counts([image for image in own if any(e.outcome != "unjudged" for e in image.elements)], subjects)
        if counts.images:
            found = _detection(counts) | (_naming(counts) if chain.named else {}) | _distances(counts, at_size)
            figures |= {f"{chain.name}_{name}": figure for name, figure in found.items()}
    return figures


class _Counts:
    """Sums over the elements of each image, and ratios of them over subjects."""

    def __init__(self, images: Sequence[ImageElements], subjects: int) -> None:
        self.images = images
        self._subject = [image.subject for image in images]
        self._subjects = subjects

    def each(self, value: Callable[[ElementResult], float]) -> Array:
        """Return the sum ``(C,)`` of a value over the elements of each image."""
        return np.array([sum(value(e) for e in image.elements) for image in self.images], dtype=np.float64)

    def share(self, top: Array, bottom: Array, *, lower_is_better: bool, tested: bool = False) -> Figure:
        """Return a ratio in %."""
        statistic = metrics.ratio_statistic(100.0 * top, bottom, self._subject, self._subjects)
        return Figure(statistic, round(float(bottom.sum())), "%", tested=tested, lower_is_better=lower_is_better)

    def mean(self, total: ArrayLike, corners: Array, unit: str) -> Figure:
        """Return the mean distance of corners."""
        statistic = metrics.ratio_statistic(total, corners, self._subject, self._subjects)
        return Figure(statistic, round(float(corners.sum())), unit)


def _detection(counts: _Counts) -> dict[str, Figure]:
    matched, missed, invented = (
        counts.each(lambda e, outcome=outcome: float(e.outcome == outcome))  # type: ignore[misc]
        for outcome in ("matched", "missed", "invented")
    )
    every = np.ones(len(counts.images))
    return {
        "recall": counts.share(matched, matched + missed, lower_is_better=False),
        "precision": counts.share(matched, matched + invented, lower_is_better=False),
        "f1": counts.share(2 * matched, 2 * matched + missed + invented, lower_is_better=False, tested=True),
        "invented_images": counts.share((invented > 0) * every, every, lower_is_better=True, tested=True),
        "missed_images": counts.share((missed > 0) * every, every, lower_is_better=True),
    }


def _naming(counts: _Counts) -> dict[str, Figure]:
    right, wrong, unnamed = (
        counts.each(lambda e, naming=naming: float(e.naming == naming))  # type: ignore[misc]
        for naming in ("right", "wrong", "unnamed")
    )
    matched, every = right + wrong + unnamed, np.ones(len(counts.images))
    return {
        "level_right": counts.share(right, matched, lower_is_better=False, tested=True),
        "level_wrong": counts.share(wrong, matched, lower_is_better=True),
        "level_unnamed": counts.share(unnamed, matched, lower_is_better=True),
        "shifted_images": counts.share((wrong > 0) * every, every, lower_is_better=True),
    }


def _distances(counts: _Counts, at_size: int | None) -> dict[str, Figure]:
    corners, slots = counts.each(lambda e: e.corners), counts.each(lambda e: e.slot_corners)
    in_px = counts.each(lambda e: e.corners * (e.error_px or 0.0))
    slot_px = counts.each(lambda e: e.slot_corners * (e.slot_px or 0.0))
    figures = {}
    if _all_in_mm(counts.images):
        figures["mre_mm"] = counts.mean(counts.each(lambda e: e.corners * (e.error_mm or 0.0)), corners, "mm")
        figures["slots_mre_mm"] = counts.mean(counts.each(lambda e: e.slot_corners * (e.slot_mm or 0.0)), slots, "mm")
    figures |= {"mre_px": counts.mean(in_px, corners, "px"), "slots_mre_px": counts.mean(slot_px, slots, "px")}
    if at_size is not None:
        scale = at_size / np.array([image.long_side for image in counts.images])
        figures[f"mre_px_at_{at_size}"] = counts.mean(in_px * scale, corners, "px")
        figures[f"slots_mre_px_at_{at_size}"] = counts.mean(slot_px * scale, slots, "px")
    return figures


def _all_in_mm(images: Sequence[ImageElements]) -> bool:
    compared = [e for image in images for e in image.elements if e.slot_corners]
    return bool(compared) and all(e.slot_mm is not None for e in compared)
