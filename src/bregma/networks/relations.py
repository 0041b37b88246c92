"""How landmarks belong together, as the anatomy's schema declares it: same part, neighbouring parts, distant."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bregma.schema import LandmarkSchema


class Relation(IntEnum):
    """How close two landmarks are."""

    SAME = 0
    """One part: a level of a chain, the ends of an edge, or points that cannot be told apart."""
    NEIGHBOUR = 1
    """Adjacent levels of a chain, left and right partners, or two edges apart."""
    DISTANT = 2
    """Everything else."""


_STEPS = {Relation.SAME: 1, Relation.NEIGHBOUR: 2, Relation.DISTANT: 3}
"""Length of a link in the graph, on which paths of up to 1 are the same part and of up to 2 neighbours."""


def relations(schema: LandmarkSchema) -> NDArray[np.int64]:
    """Return the :class:`Relation` of every pair of landmarks, ``(N, N)``, symmetric.

    Within a chain the levels alone decide: equal, adjacent, or further apart. All other pairs are judged by the
    shortest path over declared links: one step for an edge, for two points of one level and for exchangeable points,
    two for adjacent levels and for mirror partners. A landmark is in the same part as itself.
    """
    inside = dict(_chain_links(schema))
    length = np.full((len(schema), len(schema)), 3 * len(schema) + 3, dtype=np.int64)
    np.fill_diagonal(length, 0)
    for (i, j), relation in _declared_links(schema):
        if (i, j) not in inside:
            length[i, j] = length[j, i] = min(length[i, j], _STEPS[relation])
    for (i, j), relation in inside.items():
        length[i, j] = _STEPS[relation]
    for middle in range(len(schema)):  # Floyd and Warshall
        length = np.minimum(length, length[:, middle, None] + length[None, middle, :])
    classes = np.searchsorted([_STEPS[Relation.SAME], _STEPS[Relation.NEIGHBOUR]], length)
    for (i, j), relation in inside.items():
        classes[i, j] = relation
    return classes.astype(np.int64)


def _chain_links(schema: LandmarkSchema) -> Iterator[tuple[tuple[int, int], Relation]]:
    """Yield both directions of every pair within a chain."""
    for chain in schema.chains:
        level_of = {
            schema.index(chain.landmark_name(level, part)): number
            for number, level in enumerate(chain.levels)
            for part in chain.parts_of(level)
        }
        for i, upper in level_of.items():
            for j, lower in level_of.items():
                if i != j:
                    yield (i, j), Relation(min(abs(upper - lower), int(Relation.DISTANT)))


def _declared_links(schema: LandmarkSchema) -> Iterator[tuple[tuple[int, int], Relation]]:
    """Yield edges, exchangeable points and mirror partners, each pair once."""
    for a, b in schema.edges:
        yield (schema.index(a), schema.index(b)), Relation.SAME
    for group in schema.exchangeable:
        for number, a in enumerate(group):
            for b in group[number + 1 :]:
                yield (schema.index(a), schema.index(b)), Relation.SAME
    for a, b in schema.mirror_pairs:
        yield (schema.index(a), schema.index(b)), Relation.NEIGHBOUR


__all__ = ["Relation", "relations"]
