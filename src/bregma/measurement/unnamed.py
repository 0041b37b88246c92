"""Elements of a chain that could not be named, measured by their place counted from below.

A slip needs to know which vertebrae are neighbours, not what they are called. The elements found on an image therefore
stand in for a schema of their own, whose levels are their places: its measurements are those of the anatomy that are
repeated along the chain.

What is looked for along the whole chain, as the Cobb angles are, needs the order alone; but elements without a name may
be any ones, so that those at the ends may be missing. It is measured only where the anatomy says that every image shows
the chain whole, so that their number tells how many are missing, and is referred with its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array
from bregma.instances import Instance
from bregma.schema import Chain, Landmark, LandmarkSchema, MeasurementSpec
from bregma.types import Measurement, Prediction

_NEIGHBOURS = 1.9
"""Distance of two centres, in heights of the two bodies, from which another one has room between them: a body and a
disc are about 1.3 heights, two of each about 2.6."""
_USUAL = 1.5
"""The same in the image's usual distances, for elements without endplates."""
_LACKING = 0.25
"""Share of a whole chain's levels of which more may not be missing where something is looked for along it."""


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
        usual: how many levels the anatomy's chain has.
    """

    schema: LandmarkSchema
    points: Array
    cov: Array
    present: NDArray[np.bool_]
    names: dict[str, str]
    unnamed: frozenset[str]
    apart: frozenset[str]
    usual: int

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

    def in_order(self, found: Sequence[Measurement]) -> Iterator[Measurement]:
        """Yield what was looked for along the elements in their order, where it has a value, as referred.

        There is no interval where elements are missing: what they would have changed is not known.
        """
        count = len(self.names)
        why = f"{count} of {self.usual} elements were found, and one that is missing could have been the end"
        if count >= self.usual:
            why = f"of the {count} elements found {len(self.unnamed)} could not be named"
        for one in found:
            if one.value is None or one.ends is None:
                continue
            said = "; ".join(part for part in (f"measured in their order: {why}", self._in_words(one.reason)) if part)
            upper, lower = one.ends
            referred = replace(one, status="refer", reason=said, ends=(self.names[upper], self.names[lower]))
            if count < self.usual:
                referred = replace(referred, interval=None, interval_level=None, grade_probabilities=None)
            yield referred

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
        own = _found(chain, prediction, threshold)
        if chain.named and any(one.level is None for one in own):
            along = tuple(spec for spec in schema.measurements if spec.is_repeated and spec.along == chain.name)
            yield _stand_in(schema, chain, own, threshold, along)


def whole_stand_ins(schema: LandmarkSchema, prediction: Prediction, threshold: float) -> Iterator[StandIn]:
    """Yield one for each chain that every image shows whole and along which something is looked for.

    It holds what was found of it, with or without a name, in its order; there is none where too much is missing. The
    arguments are those of :func:`stand_ins`.
    """
    for chain in schema.chains if prediction.instances is not None else ():
        along = tuple(spec for spec in schema.measurements if spec.between is not None and spec.along == chain.name)
        own = [one for one in _found(chain, prediction, threshold) if one.parts == tuple(chain.parts)]
        enough = (1 - _LACKING) * len(chain.levels) <= len(own) <= len(chain.levels)
        if along and chain.is_whole and enough:
            yield _stand_in(schema, chain, own, threshold, along, by_name=True)


def points_by_place(schema: LandmarkSchema, prediction: Prediction, threshold: float) -> dict[str, Array]:
    """Return the parts ``(2,)`` of elements without a name, as the ``uses`` of measurements call them."""
    points: dict[str, Array] = {}
    for chain in schema.chains if prediction.instances is not None else ():
        own = _found(chain, prediction, threshold)
        for level, one in zip(_places(len(own)), own, strict=True):
            named = zip(one.parts, one.points, strict=True) if one.level is None else ()
            points |= {chain.landmark_name(level, part): point for part, point in named}
    return points


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


def _found(chain: Chain, prediction: Prediction, threshold: float) -> list[Instance]:
    return [one for one in prediction.instances or () if one.chain == chain.name and one.probability >= threshold]


def _places(count: int) -> list[str]:
    return [f"from_below_{place}" for place in range(count, 0, -1)]


def _stand_in(
    schema: LandmarkSchema,
    chain: Chain,
    own: Sequence[Instance],
    threshold: float,
    along: tuple[MeasurementSpec, ...],
    *,
    by_name: bool = False,
) -> StandIn:
    """Make elements levels of their own: called by their place or, if ``by_name``, by the name that they have."""
    words = [f"{_ordinal(place)}{_FROM_BELOW}" for place in range(len(own), 0, -1)]
    named = [(one.level if by_name else None) for one in own]
    levels = tuple(name or place for name, place in zip(named, _places(len(own)), strict=True))
    landmarks = tuple(
        Landmark(name=chain.landmark_name(level, part), label=f"{part}, {word}")
        for word, level, one in zip(words, levels, own, strict=True)
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
        names={level: name or word for level, name, word in zip(levels, named, words, strict=True)},
        unnamed=frozenset(level for level, one in zip(levels, own) if one.level is None),
        apart=frozenset(level for level, gap in zip(levels, _gaps(chain, own)) if gap),
        usual=len(chain.levels),
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
