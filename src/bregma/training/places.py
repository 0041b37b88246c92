"""Where the levels of a chain usually lie, learned from the labels of the training part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from bregma.codecs.chain import ChainCodecConfig
from bregma.codecs.chain_layout import Layout, layout_of
from bregma.codecs.places import usual_places
from bregma.geometry import Array
from bregma.schema import LandmarkSchema
from bregma.training.plan import Planned
from bregma.training.settings import Plan
from bregma.types import Case, Status

LEAST_IMAGES = 20
"""Images with a whole chain from which its places are learned; fewer do not tell how they vary."""


def with_places(planned: Planned, schema: LandmarkSchema, cases: Sequence[Case]) -> Planned:
    """Return the plan with the places of the levels of a chain that every image shows whole, where its codec asks.

    There are none along an axis that a mirrored image turns round, nor from fewer than 20 images.

    Args:
        planned: a plan whose codec may be one of chains, without places.
        schema: the anatomy.
        cases: the training part, and nothing else.
    """
    codec = planned.plan.model.codec
    if not isinstance(codec, ChainCodecConfig) or codec.places is not None or not codec.by_place:
        return planned
    layout = layout_of(schema, codec.chain)
    if not layout.chain.is_whole or len(layout.chain.levels) < 2:
        return planned
    centres = list(_centres(cases, layout))
    if len(centres) < LEAST_IMAGES:
        return planned
    across, down = np.abs(np.median([own[-1] - own[0] for own in centres], axis=0))
    axis: Literal["x", "y"] = "x" if across > down else "y"
    if axis == "x" and schema.flip != "never":
        return planned
    data = planned.plan.to_dict()
    found = usual_places(centres, axis).to_dict()
    data["model"]["codec"]["places"] = found
    reason = f"median and spread over {len(centres)} training images that are labelled whole"
    return Planned(Plan.model_validate(data), {**planned.reasons, **{f"model.codec.places.{x}": reason for x in found}})


def _centres(cases: Sequence[Case], layout: Layout) -> Iterator[Array]:
    """Yield the centres ``(R, 2)`` of every image whose levels are all labelled, as shares of its width and height."""
    columns = [[c for c in layout.columns_at(rank) if c >= 0] for rank in range(len(layout.chain.levels))]
    for case in cases:
        marks = case.landmarks
        if marks is not None and (marks.status[np.concatenate(columns)] <= Status.OCCLUDED).all():
            centres = np.array([marks.points[own].mean(axis=0) for own in columns])
            yield (centres + 0.5) / case.frame.shape[::-1]
