"""Points that cannot be told apart, such as the two ends of a diameter: their sets, and the orders they may be in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array
from bregma.schema import LandmarkSchema

if TYPE_CHECKING:
    from torch import Tensor

Sets = tuple[tuple[int, ...], ...]
Order = NDArray[np.int_]

_DOUBT = 0.125
MOST_ORDERS = 200
"""Beyond so many orders of all sets together, one set after the other is put in its best order."""


def sets_of(schema: LandmarkSchema) -> Sets:
    """Return the positions of each exchangeable set's members, in schema order."""
    return tuple(tuple(sorted(schema.index(name) for name in members)) for members in schema.exchangeable)


Share = TypeVar("Share", Array, "Tensor")


def presence_of_share(share: Share) -> Share:
    """Return how likely a member of a set is there at all, given its mass over an equal share of it, both in 0..1.

    A peak with a tenth of what would be its share is as likely none as one; nothing but the order of such figures is
    known before they are calibrated.
    """
    return (1 + _DOUBT) * share / (share + _DOUBT)


def geometric_order(points: Array, sets: Sets) -> Order:
    """Return ``order (N,)`` such that ``points[order]`` has every set from left to right, then from top to bottom.

    Any rule that looks at nothing but the points would do; what matters is that equal images are answered alike.
    """
    order = np.arange(len(points))
    for members in sets:
        index = np.array(members)
        order[index] = index[np.lexsort((points[index, 1], points[index, 0]))]
    return order


def matching_order(points: Array, reference: Array, sets: Sets, usable: NDArray[np.bool_] | None = None) -> Order:
    """Return ``order (N,)`` such that ``points[order]`` has the least sum of distances to ``reference``.

    Args:
        points: ``(N, 2)``.
        reference: ``(N, 2)``.
        sets: of exchangeable points.
        usable: ``(N, N)`` which point may have a say at which place of the reference; None for all.
    """
    from scipy.optimize import linear_sum_assignment

    order = np.arange(len(points))
    for members in sets:
        index = np.array(members)
        cost = np.linalg.norm(reference[index][:, None] - points[index][None], axis=2)
        if usable is not None:
            cost = np.where(usable[np.ix_(index, index)].T, cost, 0.0)
        rows, columns = linear_sum_assignment(cost)
        order[index[rows]] = index[columns]
    return order


def orders_of(count: int, sets: Sets) -> Iterator[Order]:
    """Yield every order ``(count,)`` in which the members of all sets may stand; the given one comes first."""
    for chosen in product(*(permutations(members) for members in sets)):
        order = np.arange(count)
        for members, placed in zip(sets, chosen, strict=True):
            order[list(members)] = placed
        yield order


def order_rounds(count: int, sets: Sets) -> Sequence[Sequence[Order]]:
    """Return the orders to choose among: all at once or, where these are too many, those of one set after another.

    Of a set that alone has too many, the orders that differ from the one at hand by one exchange.
    """
    if math.prod(math.factorial(len(members)) for members in sets) <= MOST_ORDERS:
        return [list(orders_of(count, sets))]
    few = [math.factorial(len(members)) <= MOST_ORDERS for members in sets]
    return [
        list(orders_of(count, (members,)) if small else _exchanges(count, members))
        for members, small in zip(sets, few, strict=True)
    ]


def _exchanges(count: int, members: tuple[int, ...]) -> Iterator[Order]:
    yield np.arange(count)
    for i, j in combinations(members, 2):
        order = np.arange(count)
        order[[i, j]] = j, i
        yield order
