"""Vertebrae and their corners put into anatomical order by geometry alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bregma.errors import LabelError
from bregma.geometry import Array

SACRAL_TAPER = 0.8
"""Lower over upper endplate length below which a body is taken for S1: about 1 at L5, about 2/3 at S1."""
LEAST_STEP = 1 / 3
"""Distance of neighbours, in median distances of that spine, below which two vertebrae lie on one another: the upper
thoracic ones, which are the smallest, come to about one half."""
CLEAR_SLOPE_DEG = 10.0
"""Slope of the lumbosacral endplate from which the side that faces forward is clear; a sacral slope is about 40°."""


def in_order(quads: Sequence[Array]) -> list[Array]:
    """Sort vertebrae cranial to caudal and the corners of each.

    Args:
        quads: ``(4, 2)`` corners each, in any order.

    Returns:
        ``(4, 2)`` each: superior left, superior right, inferior left, inferior right as seen on the image.

    Raises:
        LabelError: four points that are not the corners of a convex quadrilateral.
    """
    ordered = sorted(quads, key=lambda quad: float(quad[:, 1].mean()))
    centres = np.array([quad.mean(axis=0) for quad in ordered])
    return [_corners(quad, tangent) for quad, tangent in zip(ordered, _tangents(centres))]


def canonical(quads: Array) -> Array:
    """Return named vertebrae ``(L, 4, 2)`` with their corners in the order of the spine, whatever the file's order is.

    The names are given to vertebrae from above downwards, and to corners as in :func:`in_order`. Where two vertebrae
    lie on one another, as when one was marked twice, it cannot be told which is which, and all of them keep the order
    in which they came; so do four points that are not the corners of a body.
    """
    order = np.argsort(quads[:, :, 1].mean(axis=1), kind="stable")
    centres = quads[order].mean(axis=1)
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    if len(steps) and steps.min() < LEAST_STEP * np.median(steps):
        return quads
    return np.array([_if_body(quad, tangent) for quad, tangent in zip(quads[order], _tangents(centres))])


def is_sacral(quad: Array) -> bool:
    """Tell whether ordered corners taper as S1 does, and no lumbar vertebra."""
    upper, lower = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[2])
    return bool(lower < SACRAL_TAPER * upper)


def faces_left(left: Array, right: Array) -> bool | None:
    """Tell from an endplate at the lumbosacral junction whether the person faces left on the image.

    The endplates of L5 and S1 slope down to the front. None where the slope is too small to tell.
    """
    slope = math.degrees(math.atan2(left[1] - right[1], abs(right[0] - left[0])))
    return None if abs(slope) < CLEAR_SLOPE_DEG else slope > 0


def _tangents(centres: Array) -> Array:
    """Return the spine's direction at each vertebra, from its neighbours; a single one is taken to stand upright."""
    return np.asarray(np.gradient(centres, axis=0)) if len(centres) > 1 else np.array([[0.0, 1.0]])


def _if_body(quad: Array, tangent: Array) -> Array:
    try:
        return _corners(quad, tangent)
    except LabelError:
        return quad


def _corners(quad: Array, tangent: Array) -> Array:
    """Order four corners so that the way from the upper to the lower edge agrees best with the spine's direction."""
    around = quad - quad.mean(axis=0)
    # With y down, growing angles turn clockwise: upper left, upper right, lower right, lower left.
    cycle = quad[np.argsort(np.arctan2(around[:, 1], around[:, 0]))]
    _refuse_degenerate(cycle)
    turns = [np.roll(cycle, -k, axis=0) for k in range(4)]
    best = max(turns, key=lambda turn: _agreement(turn, tangent))
    return best[[0, 1, 3, 2]]


def _agreement(turn: Array, tangent: Array) -> float:
    across = turn[2:].mean(axis=0) - turn[:2].mean(axis=0)
    return float(across @ tangent / np.linalg.norm(across))


def _refuse_degenerate(cycle: Array) -> None:
    sides = np.roll(cycle, -1, axis=0) - cycle
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    if not (turns > 0).all():
        raise LabelError(
            "four points do not form the corners of a vertebra",
            expected="a convex quadrilateral",
            got=str(np.round(cycle, 1).tolist()),
        )
