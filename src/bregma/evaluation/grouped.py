"""Measurements that are scored together, image by image: the symmetric mean absolute percentage error of a group."""

from __future__ import annotations

from collections.abc import Sequence

from bregma import metrics
from bregma.evaluation.figures import Figure
from bregma.evaluation.tables import Reading
from bregma.schema import LandmarkSchema

NOT_PREDICTED = 100.0
"""SMAPE in % of an image on which some of the group was not predicted: the most that it can be."""


def group_figures(rows: Sequence[Reading], subjects: int, schema: LandmarkSchema) -> dict[str, Figure]:
    """Return ``<group>_smape`` of every group of measurements among the readings.

    The error of an image is ``100 Σ|a - b| / Σ(|a| + |b|)`` over the measurements of the group, predicted a and true b;
    the figure is its mean over images. An image on which a measurement of the labels is not known is left out.

    Source: Wang et al., Med Image Anal 2021; 72:102115 (AASCE 2019).
    """
    figures = {}
    for group in dict.fromkeys(spec.group for spec in schema.measurements if spec.group):
        members = {spec.name for spec in schema.measurements if spec.group == group}
        images: dict[str, list[Reading]] = {}
        for row in rows:
            if row.name in members:
                images.setdefault(row.case_id, []).append(row)
        known = [own for own in images.values() if all(row.true is not None for row in own)]
        if known:
            errors = [image_smape(own) for own in known]
            statistic = metrics.mean_statistic(errors, [own[0].subject for own in known], subjects)
            figures[f"{group}_smape"] = Figure(statistic, len(known), "%", tested=True)
    return figures


def image_smape(rows: Sequence[Reading]) -> float:
    """Return the SMAPE in % of one image's readings, all of which have a true value; 0 where all are zero."""
    pairs = [(row.predicted, row.true) for row in rows if row.predicted is not None and row.true is not None]
    if len(pairs) < len(rows):
        return NOT_PREDICTED
    total = sum(abs(a) + abs(b) for a, b in pairs)
    return 100.0 * sum(abs(a - b) for a, b in pairs) / total if total > 0 else 0.0
