"""Vertebrae that do not lie as their names say: out of order along the chain, or with corners that change sides.

A number made of such corners would look like any other, so measurements that touch them are referred instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array
from bregma.schema import Chain, LandmarkSchema

_OBLIQUE = -0.5
"""Cosine between a vertebra's own axis and the way to the next one below which the next lies on the wrong side. Even a
vertebra that has slipped off the one below it stays within these 120 degrees; one in the wrong place lies opposite."""


@dataclass(frozen=True)
class _Body:
    """What is known of one level: its centre, and its directions ``(2,)`` where enough corners are present."""

    level: str
    centre: Array
    down: Array | None
    across: Array | None
    crossed: bool


def disorder(schema: LandmarkSchema, points: Array, present: NDArray[np.bool_]) -> dict[str, str]:
    """Return the landmarks that cannot be trusted to be what they are called, each with the reason.

    Two neighbours of a chain are out of order where the way from the upper to the lower one leads against the upper
    one's own direction from its superior to its inferior endplate (or the lower one's); without endplates the chain's
    usual step stands for it. Corners have changed sides where two endplates that follow each other run in opposite
    directions. Levels that are absent are passed over.

    Args:
        schema: the anatomy; chains whose parts are four are taken as its conventions say: the two ends of the upper
            endplate, then those of the lower one from the same side.
        points: ``(N, 2)``.
        present: ``(N,)`` mask of landmarks that have a position.
    """
    found: dict[str, str] = {}
    for chain in schema.chains:
        for levels, reason in _faults(_bodies(schema, chain, points, present)):
            for level in levels:
                for part in chain.parts_of(level):
                    found.setdefault(chain.landmark_name(level, part), reason)
    return found


def _faults(bodies: list[_Body]) -> Iterator[tuple[tuple[str, ...], str]]:
    for body in bodies:
        if body.crossed:
            yield (body.level,), f"the two endplates of {body.level} run in opposite directions"
    steps = [lower.centre - upper.centre for upper, lower in pairwise(bodies)]
    usual = np.median(steps, axis=0) if steps else np.zeros(2)
    for (upper, lower), step in zip(pairwise(bodies), steps):
        own = [body.down for body in (upper, lower) if body.down is not None] or [usual]
        if any(_cosine(step, down) < _OBLIQUE for down in own):
            yield (upper.level, lower.level), f"{upper.level} and {lower.level} are out of order"
        elif upper.across is not None and lower.across is not None and _cosine(upper.across, lower.across) < 0:
            yield (upper.level, lower.level), f"the corners of {upper.level} and {lower.level} lie on opposite sides"


def _bodies(schema: LandmarkSchema, chain: Chain, points: Array, present: NDArray[np.bool_]) -> list[_Body]:
    bodies = []
    for level in chain.levels:
        index = {part: schema.index(chain.landmark_name(level, part)) for part in chain.parts_of(level)}
        placed = {part: points[i] for part, i in index.items() if present[i]}
        if placed:
            bodies.append(_body(level, tuple(chain.parts), placed))
    return bodies


def _body(level: str, parts: tuple[str, ...], placed: dict[str, Array]) -> _Body:
    centre = np.mean(list(placed.values()), axis=0)
    ends = [tuple(placed[part] for part in pair if part in placed) for pair in (parts[:2], parts[2:])]
    plates = [plate for plate in ends if len(plate) == 2] if len(parts) == 4 else []
    across = [plate[1] - plate[0] for plate in plates]
    down = np.mean(plates[1], axis=0) - np.mean(plates[0], axis=0) if len(plates) == 2 else None
    crossed = len(across) == 2 and _cosine(across[0], across[1]) < 0
    return _Body(level, centre, down, np.sum(across, axis=0) if across else None, crossed)


def _cosine(u: Array, v: Array) -> float:
    """Return the cosine between two directions; 0, which settles nothing, where one has no length."""
    length = float(np.hypot(*u) * np.hypot(*v))
    return float(u @ v) / length if length > 0 else 0.0
