"""From elements of a chain to the landmarks of the schema: those of levels that are named, or suggested, among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bregma.codecs.chain_layout import Layout
from bregma.geometry import Array
from bregma.instances import Instance


class Landmarks:
    """The N landmarks of a schema on one image; those that nobody puts may be anywhere on it, and are not there.

    Attributes:
        mean: ``(N, 2)``.
        cov: ``(N, 2, 2)``.
        presence: ``(N,)``.
    """

    def __init__(self, count: int, shape: tuple[int, int]) -> None:
        size = np.array([shape[1], shape[0]], dtype=np.float64)
        self.mean = np.repeat((size[None] - 1) / 2, count, axis=0)
        self.cov = np.repeat(np.diag(size**2 / 12)[None], count, axis=0)
        self.presence = np.zeros(count)

    def put(self, columns: Sequence[int], points: Array, cov: Array, presence: Array) -> None:
        """Put as many landmarks as there are columns; -1 stands for none."""
        for row, column in enumerate(columns):
            if column >= 0:
                self.mean[column], self.cov[column], self.presence[column] = points[row], cov[row], presence[row]

    def put_elements(self, instances: Iterable[Instance], layout: Layout) -> None:
        """Put the parts of the elements that have a name or, where levels have none, of all in their order.

        Of a chain that every image shows whole the others are somewhere too: an element without a name is put, as not
        there, at the most probable level that is free, and a level without an element where its neighbours suggest it.
        """
        elements = list(instances)
        for place, one in enumerate(elements):
            self.put(columns_of(one, place, layout), one.points, one.cov, one.presence)
        if layout.chain.is_whole and len(elements) > 1:
            self._put_rest(elements, layout)

    def _put_rest(self, elements: Sequence[Instance], layout: Layout) -> None:
        ranks = {level: rank for rank, level in enumerate(layout.chain.levels)}
        step = np.median(np.diff([one.centre for one in elements], axis=0), axis=0)
        one_off = float(step @ step) * np.eye(2)
        placed = {ranks[one.level]: one.points for one in elements if one.level is not None}
        nameless = [one for one in elements if one.level is None and one.level_shares]
        for one in sorted(nameless, key=lambda one: -max(one.level_shares.values())):
            free = [level for level in one.level_shares if ranks[level] not in placed]
            if free:
                rank = ranks[max(free, key=one.level_shares.__getitem__)]
                placed[rank] = one.points
                self.put(layout.columns_at(rank), one.points, one.cov + one_off, np.zeros(len(one.points)))
        if not placed:
            return
        for rank in set(ranks.values()) - placed.keys():
            points = _suggested(rank, placed, step)
            away = min(abs(other - rank) for other in placed)
            spread = np.repeat(one_off[None] * away**2, len(points), axis=0)
            self.put(layout.columns_at(rank), points, spread, np.zeros(len(points)))


def _suggested(rank: int, placed: Mapping[int, Array], step: Array) -> Array:
    """Return the parts of a level on straight lines between its neighbours or, beyond an end, so many steps on."""
    below = max((other for other in placed if other < rank), default=None)
    above = min((other for other in placed if other > rank), default=None)
    if below is not None and above is not None:
        share = (rank - below) / (above - below)
        return np.asarray((1 - share) * placed[below] + share * placed[above])
    end = next(other for other in (below, above) if other is not None)
    return np.asarray(placed[end] + (rank - end) * step)


def columns_of(one: Instance, place: int, layout: Layout) -> tuple[int, ...]:
    """Return the landmark of each part of an element, the ``place``-th of its image; -1 where it has none."""
    levels = layout.chain.levels
    if not layout.chain.named:
        rank = place if place < len(levels) else None
    else:
        rank = None if one.level is None else levels.index(one.level)
    if rank is None:
        return (-1,) * len(one.parts)
    own = dict(zip(layout.parts, layout.columns_at(rank), strict=True))
    return tuple(own[part] for part in one.parts)
