"""Primitives of heads, chests and faces: midlines, midpoints and directions.

They keep the rules of :mod:`bregma.measurement.primitives`: all leading axes are sample axes, and the answer is NaN
where the geometry is degenerate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bregma.geometry import Array
from bregma.measurement.primitives import (
    _TINY,
    Primitive,
    _angle,
    _cross,
    _divide,
    _dot,
    _middle,
    _norm,
    _vector,
    distance,
    opening_angle,
)


def midpoint_distance(point: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """Distance of ``point`` from the middle of ``ab``, e.g. the length of the carpus; NaN where they coincide.

    Source: Poznanski et al., Radiology 1978; 129:661-668 (middle of the radial growth plate to the third metacarpal).
    """
    return distance(point, _middle(a, b))


def midpoint_distance_ratio(point: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Distance of ``point`` from the middle of ``ab``, divided by the length of ``cd``."""
    return _divide(midpoint_distance(point, a, b), distance(c, d))


def directed_distance(a: ArrayLike, b: ArrayLike, back: ArrayLike, front: ArrayLike) -> Array:
    """Length of ``ab``, positive where ``b`` does not lie behind ``a`` along the way from ``back`` to ``front``.

    Source: Wang et al., Med Image Anal 2016; 31:63-76 (modified Wits appraisal: the distance between the incisal edges
    with the sign of their horizontal order). The direction to the front takes the place of the image's rows.
    """
    forwards = _vector(back, front)
    step = _vector(a, b)
    sign = np.where(_dot(step, forwards) < 0, -1.0, 1.0)
    return np.where(_norm(forwards) > _TINY, sign * _norm(step), np.nan)


def direction_angle(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Angle between the directions from ``a`` to ``b`` and from ``c`` to ``d``, 0 to 180 degrees."""
    first, second = _vector(a, b), _vector(c, d)
    return _angle(np.abs(_cross(first, second)), _dot(first, second), first, second)


def direction_angle_plus_opening(
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike,
    d: ArrayLike,
    upper_front: ArrayLike,
    upper_back: ArrayLike,
    lower_front: ArrayLike,
    lower_back: ArrayLike,
) -> Array:
    """A :func:`direction_angle` and an :func:`opening_angle` added up, e.g. the overbite depth indicator.

    Source: Kim, Angle Orthod 1974; 44:586-611.
    """
    opening = opening_angle(upper_front, upper_back, lower_front, lower_back)
    return np.asarray(direction_angle(a, b, c, d) + opening)


def midline_asymmetry(
    left: ArrayLike,
    right: ArrayLike,
    axis_1: ArrayLike,
    axis_2: ArrayLike,
    axis_3: ArrayLike,
    axis_4: ArrayLike,
    axis_5: ArrayLike,
) -> Array:
    """How much farther ``left`` lies from a midline than ``right``, in shares of the width between them.

    (l - r) / (l + r) of the distances l and r from the line fitted through five points by total least squares: 0 where
    the two lie equally far on either side; beyond -1 or 1 where both lie on one side.
    """
    points = [np.asarray(point, dtype=np.float64) for point in (axis_1, axis_2, axis_3, axis_4, axis_5)]
    axis = np.stack(np.broadcast_arrays(*points))
    centre, normal = axis.mean(axis=0), _normal(axis)
    to_left, to_right = _dot(_vector(centre, left), normal), _dot(_vector(centre, right), normal)
    width = to_left - to_right
    return _divide((to_left + to_right) * np.sign(width), np.abs(width))


def _normal(points: Array) -> Array:
    """Return the unit normal ``(..., 2)`` of the line nearest to points ``(P, ..., 2)``; NaN where none is nearest."""
    apart = points - points.mean(axis=0)
    x, y = apart[..., 0], apart[..., 1]
    sine, cosine = 2 * (x * y).sum(axis=0), (x * x - y * y).sum(axis=0)
    turn = np.where(np.hypot(sine, cosine) > _TINY, np.arctan2(sine, cosine) / 2, np.nan)
    return np.stack([-np.sin(turn), np.cos(turn)], axis=-1)


SHAPES: dict[str, Primitive] = {
    "midpoint_distance": Primitive(midpoint_distance, ("point", "a", "b"), "length"),
    "directed_distance": Primitive(directed_distance, ("a", "b", "back", "front"), "length"),
    "midpoint_distance_ratio": Primitive(midpoint_distance_ratio, ("point", "a", "b", "c", "d"), "ratio"),
    "midline_asymmetry": Primitive(
        midline_asymmetry, ("left", "right", "axis_1", "axis_2", "axis_3", "axis_4", "axis_5"), "ratio"
    ),
    "direction_angle": Primitive(direction_angle, ("a", "b", "c", "d"), "angle"),
    "direction_angle_plus_opening": Primitive(
        direction_angle_plus_opening,
        ("a", "b", "c", "d", "upper_front", "upper_back", "lower_front", "lower_back"),
        "angle",
    ),
}
"""The primitives of this module by the name that schemas use."""
