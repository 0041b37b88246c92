"""Elements of chains, found against labelled ones: which is which, whatever they are called.

A landmark of a repeated structure is its level and its part, so that one vertebra passed over shifts every name below
it. Here elements are first matched by where they lie, then it is asked how they are called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bregma import metrics
from bregma.geometry import Array, Frame
from bregma.instances import Instance
from bregma.results import ElementOutcome, ElementResult
from bregma.schema import Chain, LandmarkSchema
from bregma.types import LandmarkSet, Prediction, Status

GIVEN = 0.5
"""Share of an element's parts that must be labelled, or given in slots, for it to count as an element."""


@dataclass(frozen=True)
class Labelled:
    """An element of a chain as the labels have it.

    Attributes:
        rank: position of its level in the chain.
        parts: names of its K labelled parts.
        points: ``(K, 2)`` in px.
        due: whether it has to be found: half of its parts are labelled, and its size can be told.
        size: its diagonal, the largest distance between two labelled parts, in px.
    """

    rank: int
    parts: tuple[str, ...]
    points: Array
    due: bool
    size: float


def match_elements(
    schema: LandmarkSchema,
    truth: LandmarkSet,
    prediction: Prediction,
    *,
    within: float,
    presence_threshold: float | None,
    frame: Frame,
) -> tuple[ElementResult, ...]:
    """Return what became of every labelled and every given element of the schema's chains, in the order of the chain.

    Labelled and given elements are matched one to one, as many as possible and then as near as possible (Hungarian
    method), where their centres lie within ``within`` diagonals of the labelled one. An element with fewer than half
    of its parts labelled need not be found, and may be. A given element that is matched to none is invented, unless it
    lies where levels are unlabelled: nobody then said that there is none.

    The slot figures compare elements as systems with fixed slots do. A model that fills slots is compared slot by slot.
    Of a model that finds elements, the first given one is compared with the first labelled one, and so on, from the
    top. A labelled one for which none is left, or a part that the slot lacks, is compared with the image's centre: the
    evaluation of the published spine landmark project (``mohamednourdine/spondylolisthesis-maht-net``) puts a slot
    without a peak there.

    Args:
        schema: the anatomy.
        truth: labels of the image.
        prediction: its instances are taken, or, where it has none, the slots in which it gives half of the parts.
        within: largest distance of a match in diagonals.
        presence_threshold: what is less probable is not given; None takes everything as given.
        frame: the image's frame.
    """
    threshold = presence_threshold or 0.0
    found: list[ElementResult] = []
    for chain in schema.chains:
        labelled = labelled_elements(schema, chain, truth)
        given = given_elements(schema, chain, prediction, threshold)
        pairs = _pairs(labelled, given, within)
        excused = _excused(labelled, _unknown(schema, chain, truth), given, set(pairs.values()))
        # Who finds an element that need not be found must not fall behind by one slot for it.
        spare = excused | {j for i, j in pairs.items() if not labelled[i].due}
        slots = _Slots(schema, chain, prediction, [one for j, one in enumerate(given) if j not in spare])
        found += [*_absent(schema, chain, truth), *_results(chain, labelled, given, pairs, excused, slots, frame)]
    return tuple(found)


def missed_elements(schema: LandmarkSchema, truth: LandmarkSet) -> tuple[ElementResult, ...]:
    """Return the elements of an image for which there is no prediction at all; no distance can be said of them."""
    found: list[ElementResult] = []
    for chain in schema.chains:
        found += _absent(schema, chain, truth)
        for one in labelled_elements(schema, chain, truth):
            level = chain.levels[one.rank] if chain.named else None
            found.append(ElementResult(chain.name, "missed" if one.due else "unjudged", level))
    return tuple(found)


def labelled_elements(schema: LandmarkSchema, chain: Chain, truth: LandmarkSet) -> list[Labelled]:
    """Return the levels of which any part is labelled, in the order of the chain."""
    found = []
    for rank, level in enumerate(chain.levels):
        own = chain.parts_of(level)
        index = {part: schema.index(chain.landmark_name(level, part)) for part in own}
        parts = tuple(part for part in own if truth.labelled[index[part]])
        if parts:
            points = truth.points[[index[part] for part in parts]]
            found.append(Labelled(rank, parts, points, 2 * len(parts) >= len(own), _diagonal(points)))
    return _with_sizes(found)


def given_elements(
    schema: LandmarkSchema, chain: Chain, prediction: Prediction, threshold: float
) -> tuple[Instance, ...]:
    """Return a prediction's elements of a chain in order; of slots, those of which half of the parts are given."""
    if prediction.instances is not None:
        own = (one for one in prediction.instances if one.chain == chain.name)
        return tuple(one for one in own if one.probability >= threshold)
    slots = (_slot(schema, chain, level, prediction) for level in chain.levels)
    return tuple(one for one in slots if (one.presence >= threshold).mean() >= GIVEN)


def _slot(schema: LandmarkSchema, chain: Chain, level: str, prediction: Prediction) -> Instance:
    parts = chain.parts_of(level)
    index = [schema.index(chain.landmark_name(level, part)) for part in parts]
    presence = prediction.presence[index]
    return Instance(
        chain.name,
        parts,
        prediction.mean[index],
        prediction.cov[index],
        presence,
        float(presence.mean()),
        level if chain.named else None,
    )


def _with_sizes(elements: list[Labelled]) -> list[Labelled]:
    """Give elements of a single labelled part the others' usual size, or else their usual distance.

    One that is alone has no size, so that nothing can be said to lie near it; it need not be found.
    """
    sizes = [one.size for one in elements if one.size > 0]
    centres = np.array([one.points.mean(axis=0) for one in elements]).reshape(-1, 2)
    usual = float(np.median(sizes)) if sizes else 0.0
    if not sizes and len(elements) > 1:
        usual = float(np.median(np.hypot(*np.diff(centres, axis=0).T)))
    return [
        one if one.size > 0 else Labelled(one.rank, one.parts, one.points, one.due and usual > 0, usual)
        for one in elements
    ]


def _diagonal(points: Array) -> float:
    return float(np.hypot(*(points[:, None] - points[None]).reshape(-1, 2).T).max())


def _pairs(labelled: Sequence[Labelled], given: Sequence[Instance], within: float) -> dict[int, int]:
    """Return which labelled element is which given one, by their positions in the two lists."""
    if not labelled or not given:
        return {}
    distance = np.array([[_distance(one, other) for other in given] for one in labelled])
    limit = np.array([within * one.size for one in labelled])[:, None]
    near = (distance <= limit) & (limit > 0)
    # One match more outweighs all distances, which are at most one each.
    cost = np.where(near, np.divide(distance, limit, out=np.zeros_like(distance), where=near), 1.0 + len(labelled))
    rows, columns = linear_sum_assignment(cost)
    return {int(i): int(j) for i, j in zip(rows, columns) if near[i, j]}


def _distance(one: Labelled, other: Instance) -> float:
    """Return how far apart the centres of the parts lie that both have; infinity where they share none."""
    own, its = _shared(one, other)
    return float(np.hypot(*(own.mean(axis=0) - its.mean(axis=0)))) if len(own) else np.inf


def _shared(one: Labelled, other: Instance) -> tuple[Array, Array]:
    parts = [part for part in one.parts if part in other.parts]
    return (
        one.points[[one.parts.index(part) for part in parts]],
        other.points[[other.parts.index(part) for part in parts]],
    )


def _unknown(schema: LandmarkSchema, chain: Chain, truth: LandmarkSet) -> set[int]:
    """Return the ranks of levels without a label of which nobody said that they are not there."""
    unknown = set()
    for rank, level in enumerate(chain.levels):
        status = truth.status[[schema.index(chain.landmark_name(level, part)) for part in chain.parts_of(level)]]
        if (status == Status.UNLABELLED).any() and not (status <= Status.OCCLUDED).any():
            unknown.add(rank)
    return unknown


def _absent(schema: LandmarkSchema, chain: Chain, truth: LandmarkSet) -> list[ElementResult]:
    anything = labelled_elements(schema, chain, truth) or _unknown(schema, chain, truth)
    return [] if anything else [ElementResult(chain.name, "absent")]


def _excused(labelled: Sequence[Labelled], unknown: set[int], given: Sequence[Instance], matched: set[int]) -> set[int]:
    """Return the given elements that may be unlabelled ones: the surest, as many as levels are unlabelled there."""
    room = Counter(_gap(labelled, rank) for rank in unknown)
    excused = set()
    for j in sorted(set(range(len(given))) - matched, key=lambda j: -given[j].probability):
        gap = _place(labelled, given[j].centre)
        if room[gap] > 0:
            room[gap] -= 1
            excused.add(j)
    return excused


def _gap(labelled: Sequence[Labelled], rank: int) -> int:
    return sum(one.rank < rank for one in labelled)


def _place(labelled: Sequence[Labelled], centre: Array) -> int:
    """Return how many labelled elements come before a place: those up to the nearest, by the chain's way there."""
    if not labelled:
        return 0
    centres = np.array([one.points.mean(axis=0) for one in labelled])
    # A single element does not show the way of its chain; images are taken with the head up.
    way = np.gradient(centres, axis=0) if len(centres) > 1 else np.array([[0.0, 1.0]])
    nearest = int(np.hypot(*(centres - centre).T).argmin())
    return nearest + int((centre - centres[nearest]) @ way[nearest] > 0)


class _Slots:
    """What a model has in the slot of a labelled element."""

    def __init__(self, schema: LandmarkSchema, chain: Chain, prediction: Prediction, given: Sequence[Instance]) -> None:
        self._fixed = prediction.instances is None
        self._all = [_slot(schema, chain, level, prediction) for level in chain.levels] if self._fixed else list(given)

    def compare(self, one: Labelled, place: int, frame: Frame) -> tuple[Array, Array]:
        """Return labelled points and those in the slot: of the level, or the ``place``-th from the top.

        A part that the slot lacks, or all of a slot that is not there, is taken to be at the image's centre.
        """
        at = one.rank if self._fixed else place
        there = np.tile((np.array([frame.width, frame.height]) - 1) / 2, (len(one.parts), 1))
        if at < len(self._all):
            own = dict(zip(self._all[at].parts, self._all[at].points))
            there = np.array([own.get(part, centre) for part, centre in zip(one.parts, there)])
        return one.points, there


def _results(
    chain: Chain,
    labelled: Sequence[Labelled],
    given: Sequence[Instance],
    pairs: dict[int, int],
    excused: set[int],
    slots: _Slots,
    frame: Frame,
) -> Iterator[ElementResult]:
    place = 0
    for i, one in enumerate(labelled):
        other = given[pairs[i]] if i in pairs else None
        level = chain.levels[one.rank] if chain.named else None
        if not one.due:
            yield _result(chain, "unjudged", level, other)
            continue
        own, its = (one.points[:0], one.points[:0]) if other is None else _shared(one, other)
        there, slot = slots.compare(one, place, frame)
        place += 1
        yield ElementResult(
            chain.name,
            "missed" if other is None else "matched",
            level,
            *_said(other),
            len(own),
            *_mean_errors(own, its, frame),
            len(there),
            *_mean_errors(there, slot, frame),
        )
    for j, other in enumerate(given):
        if j not in pairs.values():
            yield _result(chain, "unjudged" if j in excused else "invented", None, other)


def _result(chain: Chain, outcome: ElementOutcome, level: str | None, other: Instance | None) -> ElementResult:
    return ElementResult(chain.name, outcome, level, *_said(other))


def _said(other: Instance | None) -> tuple[str | None, float | None, float | None]:
    if other is None:
        return None, None, None
    # A model with fixed slots says which level it means, and not how sure it is of that.
    return other.level, other.probability, other.level_probability or None


def _mean_errors(true: Array, given: Array | NDArray[np.float64], frame: Frame) -> tuple[float | None, float | None]:
    in_px = metrics.mean_radial_error(metrics.radial_errors(given, true))
    if frame.spacing is None:
        return in_px, None
    return in_px, metrics.mean_radial_error(metrics.radial_errors(given, true, spacing=frame.spacing))
