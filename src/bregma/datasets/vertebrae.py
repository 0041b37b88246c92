"""Corners of vertebrae on lateral images put into anatomical order by geometry alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bregma.errors import LabelError
from bregma.geometry import Array

SACRAL_TAPER = 0.8
"""Lower over upper endplate length below which a body is taken for S1: about 1 at L5, about 2/3 at S1."""
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
    # The local direction of the spine, from the neighbours; a single vertebra is taken to stand upright.
    tangents = np.gradient(centres, axis=0) if len(centres) > 1 else np.array([[0.0, 1.0]])
    return [_corners(quad, tangent) for quad, tangent in zip(ordered, tangents)]


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
