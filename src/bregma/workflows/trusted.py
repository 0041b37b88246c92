"""Labels that a training does not learn from, or only now and then, because an audit or a person doubts them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bregma.auditing.files import read_label_weights
from bregma.errors import LabelError
from bregma.geometry import Array
from bregma.recipe import DataConfig
from bregma.types import Case, Dataset, LandmarkSet, Status

log = logging.getLogger(__name__)

_ROUNDING = 1e-6
"""The table's numbers have six decimals."""


@dataclass(frozen=True)
class TrustedLabels:
    """The training part without labels that are doubted too much.

    Attributes:
        cases: those with a label left.
        trust: case id to ``(N,)``, the share of a label's views in which it is seen; cases that are missing are
            trusted.
        labels_left_out: labels that nothing is learned from.
        cases_left_out: cases of which no label is left.
        labels_down_weighted: labels seen in some of their views only.
        threshold: score from which labels are left out, or None where no table was given.
    """

    cases: tuple[Case, ...]
    trust: Mapping[str, Array]
    labels_left_out: int = 0
    cases_left_out: int = 0
    labels_down_weighted: int = 0
    threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {
            "threshold": self.threshold,
            "labels_left_out": self.labels_left_out,
            "cases_left_out": self.cases_left_out,
            "labels_down_weighted": self.labels_down_weighted,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report of the training has to say; nothing where all labels are trusted."""
        if self.threshold is None:
            return ()
        text = (
            f"{self.labels_left_out} training labels that the table of suspects scores {self.threshold:g} or more were "
            f"left out, and with them {self.cases_left_out} whole images"
        )
        doubted = f"; {self.labels_down_weighted} others were down-weighted" if self.labels_down_weighted else ""
        return (f"{text}{doubted}.",)


def trusted_labels(
    cases: Sequence[Case], dataset: Dataset, settings: DataConfig, table: str | Path | None
) -> TrustedLabels:
    """Apply a table of suspects to the training part.

    Args:
        cases: the labelled cases of that part.
        dataset: all cases; the table may name any of them.
        settings: of the recipe.
        table: the file to read; without one, or without ``exclude`` in the settings, all labels are trusted.

    Raises:
        LabelError: the table does not fit the data, or leaves nothing to learn from.
    """
    if settings.exclude is None or table is None:
        return TrustedLabels(tuple(cases), {})
    weights = read_label_weights(table, dataset.schema, {case.id for case in dataset})
    limit = 1 - settings.threshold + _ROUNDING
    kept, trust, left_out, doubted = [], {}, 0, 0
    for case in cases:
        weight = weights.get(case.id)
        if weight is None or case.landmarks is None:
            kept.append(case)
            continue
        here, out = case.landmarks.labelled, weight <= limit
        left_out += int((here & out).sum())
        if (here & ~out).any():
            kept.append(replace(case, landmarks=_without(case.landmarks, out)))
        if settings.down_weight and (here & ~out & (weight < 1)).any():
            trust[case.id] = weight
            doubted += int((here & ~out & (weight < 1)).sum())
    if not kept:
        raise LabelError(
            "leaves no label to learn from",
            where=table,
            fix=f"raise data.threshold above {settings.threshold:g}, or look at the table",
        )
    found = TrustedLabels(tuple(kept), trust, left_out, len(cases) - len(kept), doubted, settings.threshold)
    log.info("%s", *found.notes)
    return found


def _without(marks: LandmarkSet, out: Any) -> LandmarkSet:
    """Return labels of which some are taken for not given; a status that has no position stays."""
    status = np.where(marks.labelled & out, Status.UNLABELLED, marks.status)
    return LandmarkSet(marks.points, status)
