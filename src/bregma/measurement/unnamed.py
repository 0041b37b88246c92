"""Elements of a chain that could not be named, measured by their place counted from below.

A slip needs to know which vertebrae are neighbours, not what they are called. The elements found on an image therefore
stand in for a schema of their own, whose levels are their places: its measurements are those of the anatomy that are
repeated along the chain. What is looked for along the whole chain, as the Cobb angles are, is not measured on it: an
element without a name may be any one, so that those at the ends may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array
from bregma.instances import Instance
from bregma.schema import Chain, Landmark, LandmarkSchema
from bregma.types import Measurement, Prediction

_NEIGHBOURS = 1.9
"""Distance of two centres, in heights of the two bodies, from which another one has room between them: a body and a
disc are about 1.3 heights, two of each about 2.6."""
_USUAL = 1.5
"""The same in the image's usual distances, for elements without endplates."""


@dataclass(frozen=True)
class StandIn:
    """The elements of one chain as landmarks of a schema of their own.

    Attributes:
        schema: its levels are places counted from below.
        points: ``(N, 2)`` in px.
        cov: ``(N, 2, 2)`` in px².
        present: ``(N,)``.
        names: level to its place in words, e.g. ``2nd from below``.
        unnamed: levels whose element has no name.
        apart: levels between which and the next one another element has room.
    """

    schema: LandmarkSchema
    points: Array
    cov: Array
    present: NDArray[np.bool_]
    names: dict[str, str]
    unnamed: frozenset[str]
    apart: frozenset[str]

    def placed(self, found: Sequence[Measurement]) -> Iterator[Measurement]:
        """Yield the measurements that rest on an unnamed element, under the words for their places.

        One between elements that are no neighbours is referred instead.
        """
        for one in found:
            levels = (one.level or "").split("-")
            if not self.unnamed & set(levels):
                continue
            if len(levels) == 2 and levels[0] in self.apart:
                yield self._referred(one, levels)
            else:
                yield replace(one, level=self._words(levels), reason=self._in_words(one.reason))

    def _in_words(self, reason: str) -> str:
        for level in sorted(self.names, key=len, reverse=True):
            reason = reason.replace(level, self.names[level])
        return reason

    def _words(self, levels: Sequence[str]) -> str:
        if len(levels) == 1:
            return self.names[levels[0]]
        upper, lower = (self.names[level] for level in levels)
        return f"{upper.removesuffix(_FROM_BELOW)}-{lower}"

    def _referred(self, one: Measurement, levels: Sequence[str]) -> Measurement:
        where = self._words(levels)
        reason = f"{where} lie so far apart that they may be no neighbours"
        return Measurement(one.name, one.label, None, one.unit, "refer", reason, level=where, code=one.code)


_FROM_BELOW = " from below"


def stand_ins(schema: LandmarkSchema, prediction: Prediction, threshold: float) -> Iterator[StandIn]:
    """Yield one for each chain of which some element on the image has no name, though the chain has names.

    Args:
        schema: the anatomy.
        prediction: from a model that finds elements; others fill slots, which all have names.
        threshold: elements and parts less probable than this are not there.
    """
    for chain in schema.chains if prediction.instances is not None else ():
        own = [one for one in prediction.instances or () if one.chain == chain.name and one.probability >= threshold]
        if chain.named and any(one.level is None for one in own):
            yield _stand_in(schema, chain, own, threshold)


def unnamed_reason(schema: LandmarkSchema, prediction: Prediction, threshold: float, missing: Measurement) -> str:
    """Return what to add to the reason of a measurement without its landmarks: that elements could not be named."""
    along = {spec.name: spec.along for spec in schema.measurements}
    for chain in schema.chains:
        own = {chain.landmark_name(level, part) for level in chain.levels for part in chain.parts_of(level)}
        if chain.named and (along.get(missing.name) == chain.name or own & set(missing.uses)):
            found = (one for one in prediction.instances or () if one.chain == chain.name)
            count = sum(one.level is None and one.probability >= threshold for one in found)
            return f"; {count} found on the image could not be named" if count else ""
    return ""


def _stand_in(schema: LandmarkSchema, chain: Chain, own: Sequence[Instance], threshold: float) -> StandIn:
    levels = tuple(f"from_below_{place}" for place in range(len(own), 0, -1))
    landmarks = tuple(
        Landmark(name=chain.landmark_name(level, part), label=f"{part}, {_ordinal(place)}{_FROM_BELOW}")
        for place, level, one in zip(range(len(own), 0, -1), levels, own)
        for part in one.parts
    )
    places = chain.model_copy(
        update={
            "levels": levels,
            "partial": {level: one.parts for level, one in zip(levels, own) if one.parts != tuple(chain.parts)},
            "optional": (),
            "anchor": None,
            "codes": {},
        }
    )
    along = tuple(spec for spec in schema.measurements if spec.is_repeated and spec.along == chain.name)
    return StandIn(
        schema=LandmarkSchema(
            name=schema.name,
            title=schema.title,
            landmarks=landmarks,
            chains=(places,),
            measurements=along,
            grades=schema.grades,
            formulas=schema.formulas,
            charts=schema.charts,
        ),
        points=np.concatenate([one.points for one in own]),
        cov=np.concatenate([one.cov for one in own]),
        present=np.concatenate([one.presence >= threshold for one in own]),
        names={level: f"{_ordinal(place)}{_FROM_BELOW}" for place, level in zip(range(len(own), 0, -1), levels)},
        unnamed=frozenset(level for level, one in zip(levels, own) if one.level is None),
        apart=frozenset(level for level, gap in zip(levels, _gaps(chain, own)) if gap),
    )


def _ordinal(place: int) -> str:
    ending = "th" if 10 <= place % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _gaps(chain: Chain, own: Sequence[Instance]) -> list[bool]:
    """Tell of each element but the last whether another one has room between it and the next."""
    steps = [float(np.hypot(*(lower.centre - upper.centre))) for upper, lower in pairwise(own)]
    heights = [_height(one) if len(chain.parts) == len(one.parts) == 4 else None for one in own]
    usual = float(np.median(steps)) if steps else 0.0
    gaps = []
    for step, pair in zip(steps, pairwise(heights)):
        known = [height for height in pair if height]
        gaps.append(step > _NEIGHBOURS * float(np.mean(known)) if known else step > _USUAL * usual)
    return gaps


def _height(one: Instance) -> float:
    """Return the distance of the middles of the two endplates."""
    return float(np.hypot(*(one.points[2:].mean(axis=0) - one.points[:2].mean(axis=0))))
