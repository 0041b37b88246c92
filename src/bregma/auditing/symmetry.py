"""Orders of the landmarks that mean the same, and exchanges that labellers make by mistake."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice, permutations, product

import numpy as np
from numpy.typing import NDArray

from bregma.schema import LandmarkSchema

MOST_ORDERS = 64
"""Larger groups of exchangeable points are tried in this many orders only."""


@dataclass(frozen=True)
class Exchange:
    """Landmarks that are taken for one another.

    Attributes:
        words: what was exchanged, for a reader.
        order: ``(N,)``; ``points[order]`` undoes it.
    """

    words: str
    order: NDArray[np.intp]


def equivalent_orders(schema: LandmarkSchema) -> NDArray[np.intp]:
    """Return the orders ``(K, N)`` of the landmarks that mean the same labels, the schema's own first.

    Points of an exchangeable set may stand in any order within the set.
    """
    sets = [[schema.index(name) for name in members] for members in schema.exchangeable]
    orders = []
    for choice in islice(product(*(permutations(members) for members in sets)), MOST_ORDERS):
        order = np.arange(len(schema))
        for members, chosen in zip(sets, choice, strict=True):
            order[members] = chosen
        orders.append(order)
    return np.array(orders, dtype=np.intp)


def common_exchanges(schema: LandmarkSchema) -> tuple[Exchange, ...]:
    """Return exchanges that concern many points at once: two exchangeable sets, or all left with all right."""
    found = []
    for first, second in combinations(schema.exchangeable, 2):
        if len(first) == len(second):
            found.append(_exchange(schema, tuple(zip(first, second, strict=True))))
    if len(schema.mirror_pairs) > 1:
        pairs = _exchange(schema, schema.mirror_pairs)
        found.append(Exchange("left and right", pairs.order))
    return tuple(found)


def _exchange(schema: LandmarkSchema, pairs: tuple[tuple[str, str], ...]) -> Exchange:
    order = np.arange(len(schema))
    for a, b in pairs:
        order[[schema.index(a), schema.index(b)]] = schema.index(b), schema.index(a)
    words = " and ".join(", ".join(names) for names in zip(*pairs, strict=True))
    return Exchange(words, order)
