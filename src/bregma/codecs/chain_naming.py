"""Elements of one image put in order along the chain, and named from the anchor.

A *link* is the way from an element to the centre of the next level as the network sees it. How far the next element
really is, in links of the elements thereabouts, tells whether a level was passed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bregma.geometry import Array

_SPREAD = 0.2
"""Standard deviation of the distance between neighbours in links, from which the odds of a level passed over follow."""
_TOO_NEAR, _ASIDE = 0.4, 0.75
"""A step that leads on by less than this, or aside by more, in links, is doubtful: it is one of a chain only where a
vertebra has slipped off the next."""
_FAR_ASIDE = 1.5
"""Aside by more than this is no step at all: a body is about as long as a link, and hardly slips farther."""
_DIRECT = 1.4
"""Two elements that are farther apart than this, in links, have one between them."""
_LEAST_NAMING = 0.5
"""A name that is less probable is not given."""


@dataclass(frozen=True)
class Node:
    """What naming knows of an element.

    Attributes:
        index: which element; -1 for the anchor.
        centre: ``(2,)``.
        link: ``(2,)`` to the next level, or None for the anchor.
        score: how sure it is, 0..1.
    """

    index: int
    centre: Array
    link: Array | None
    score: float


@dataclass(frozen=True)
class Named:
    """An element in its place.

    Attributes:
        index: which element; -1 for the anchor.
        rank: position among the chain's levels, or None where it cannot be named.
        probability: that the rank is right.
        there: probability that it is an element of the chain, where its neighbours were asked too; None where it alone
            says so.
        shares: ``(R,)`` probability of each rank; empty where a count from the anchor gives one alone.
    """

    index: int
    rank: int | None
    probability: float
    there: float | None = None
    shares: tuple[float, ...] = ()


def arrange(nodes: Sequence[Node], *, anchor_last: bool = False) -> list[Node]:
    """Return the elements in the order of the chain, without those that do not lie on it.

    Where two neighbours cannot follow each other, the less sure one is left out. Where that is only doubtful, one is
    left out without which its neighbours follow each other directly, or which is the last one.

    Args:
        nodes: in any order.
        anchor_last: the anchor is the last level. A vertebra that has slipped off it may lie lower.
    """
    if not nodes:
        return []
    direction = direction_of(nodes)
    ordered = sorted(nodes, key=lambda node: (anchor_last and node.index < 0, float(node.centre @ direction)))
    while (odd := _odd_one(ordered)) is not None:
        ordered = [node for node in ordered if node is not odd]
    return ordered


def name(ordered: Sequence[Node], *, levels: int, anchor: int | None) -> list[Named]:
    """Give ranks to ordered elements, counted from the anchor; without one on the image they have none.

    Args:
        ordered: from :func:`arrange`.
        levels: number of levels of the chain.
        anchor: rank of the anchor; None for a chain without one.

    Elements that would lie beyond the first or the last level are left out.
    """
    at = next((i for i, node in enumerate(ordered) if node.index < 0), None)
    if anchor is not None and at is not None:
        return _from_anchor(ordered, at, anchor, levels)
    return [Named(node.index, None, 0.0) for node in ordered]


def _from_anchor(ordered: Sequence[Node], at: int, anchor: int, levels: int) -> list[Named]:
    named = [Named(-1, anchor, 1.0)]
    for way in (-1, 1):
        rank, sure = anchor, ordered[at].score
        for i in range(at + way, -1 if way < 0 else len(ordered), way):
            steps, right = _step(ordered, min(i, i - way))
            rank, sure = rank + way * steps, sure * right
            if 0 <= rank < levels:
                given = sure >= _LEAST_NAMING
                named.append(Named(ordered[i].index, rank if given else None, sure if given else 0.0))
        if way < 0:
            named.reverse()
    return named


def _step(ordered: Sequence[Node], i: int) -> tuple[int, float]:
    """Return how many levels the ``i``-th step leads on, 1 for none passed over, and the probability of that."""
    distance = _led_on(ordered, i) / _usual(ordered, i)
    steps = np.arange(1, max(3, int(distance) + 3))
    odds = np.exp(-0.5 * ((distance - steps) ** 2 - (distance - steps).min() ** 2) / _SPREAD**2)
    odds /= odds.sum()
    best = int(odds.argmax())
    return int(steps[best]), float(odds[best])


def _led_on(ordered: Sequence[Node], i: int) -> float:
    """Return how far a step leads; the way aside, which a slip makes longer, counts by half."""
    way = ordered[i + 1].centre - ordered[i].centre
    lead = np.sum([node.link for node in ordered[max(0, i - 1) : i + 2] if node.link is not None] or [way], axis=0)
    along = float(way @ lead) / max(float(np.linalg.norm(lead)), 1e-6)
    aside = max(float(way @ way) - along**2, 0.0)
    return math.sqrt(along**2 + aside / 4)


def _usual(ordered: Sequence[Node], i: int) -> float:
    """Return the geometric mean of the links of both ends of a step and of the element before it.

    One alone may be misjudged, most of all the short one to an anchor of which only an endplate is seen.
    """
    links = [node.link for node in ordered[max(0, i - 1) : i + 2] if node.link is not None]
    lengths = [max(float(np.linalg.norm(link)), 1e-6) for link in links]
    return math.exp(sum(math.log(length) for length in lengths) / len(lengths)) if lengths else 1e-6


def _in_links(upper: Node, lower: Node) -> tuple[float, float]:
    """Return how far ``lower`` lies along the link that leads to it, and how far aside, in lengths of that link."""
    way = lower.centre - upper.centre
    link = upper.link
    if link is None:
        # The anchor has none; the next element's own is about as long.
        length = 0.0 if lower.link is None else float(np.linalg.norm(lower.link))
        return float(np.linalg.norm(way)) / max(length, 1e-6), 0.0
    squared = max(float(link @ link), 1e-6)
    along = float(way @ link) / squared
    return along, float(np.linalg.norm(way - along * link)) / squared**0.5


def _odd_one(ordered: Sequence[Node]) -> Node | None:
    """Return the element to be left out first."""
    for i, (upper, lower) in enumerate(pairwise(ordered)):
        along, aside = _in_links(upper, lower)
        if np.hypot(along, aside) < _TOO_NEAR or along < -_TOO_NEAR or aside > _FAR_ASIDE * max(1.0, along):
            return min(upper, lower, key=lambda node: node.score)
        spare = [node for at, node in ((i, upper), (i + 1, lower)) if _can_be_spared(ordered, at)]
        if spare and _is_doubtful(along, aside):
            return min(spare, key=lambda node: node.score)
    return None


def _is_doubtful(along: float, aside: float) -> bool:
    return along < _TOO_NEAR or aside > _ASIDE * max(1.0, along)


def _can_be_spared(ordered: Sequence[Node], at: int) -> bool:
    """Tell whether the chain goes on without an element as if it had never been there."""
    if ordered[at].index < 0:
        return False
    if at in (0, len(ordered) - 1):
        return True
    along, aside = _in_links(ordered[at - 1], ordered[at + 1])
    return not _is_doubtful(along, aside) and float(np.hypot(along, aside)) < _DIRECT


def direction_of(nodes: Sequence[Node]) -> Array:
    """Return the direction ``(2,)`` of the chain: the main axis of its centres, the way that the links lead."""
    links = [node.link for node in nodes if node.link is not None]
    lead = np.sum(links, axis=0) if links else np.array([0.0, 1.0])
    if len(nodes) < 3:
        return np.asarray(lead)
    centres = np.array([node.centre for node in nodes])
    axis = np.linalg.svd(centres - centres.mean(axis=0))[2][0]
    return np.asarray(axis if axis @ lead >= 0 else -axis)
