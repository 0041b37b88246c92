"""From elements of a chain to the landmarks of the schema: those of levels that are named among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
        """Put the parts of the elements that have a name or, where levels have none, of all in their order."""
        for place, one in enumerate(instances):
            self.put(columns_of(one, place, layout), one.points, one.cov, one.presence)


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
