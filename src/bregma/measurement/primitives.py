"""The geometry that measurements are made of.

Every function takes points ``(..., 2)`` in one unit for both axes (mm, or px where the spacing is not known) and
returns ``(...)``: lengths in that unit, areas in its square, ratios as plain numbers, angles in degrees. All leading
axes are sample axes. Where the geometry is degenerate (an angle with an arm of no length, a ratio to nothing) the
answer is NaN, never an infinity or a warning.

Image axes are x right, y down. No function depends on which way the anatomy faces unless it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bregma.geometry import Array

Kind = Literal["length", "area", "ratio", "angle"]

_TINY = 1e-9
"""Lengths below this (mm or px) are rounding, not anatomy."""


@dataclass(frozen=True)
class Primitive:
    """A row of ``PRIMITIVES``.

    Attributes:
        function: takes the roles as keyword arguments, points ``(..., 2)``, and returns ``(...)``.
        roles: the names of its points.
        kind: what it returns, which decides the unit.
    """

    function: Callable[..., Array]
    roles: tuple[str, ...]
    kind: Kind


def distance(a: ArrayLike, b: ArrayLike) -> Array:
    """Length of the segment ``ab``; NaN where they coincide, since two landmarks never are one point."""
    length = _norm(_vector(a, b))
    return np.where(length > _TINY, length, np.nan)


def mean_distance(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Mean of the lengths of ``ab`` and ``cd``, e.g. a disc's anterior and posterior height.

    Source: Dabbs and Dabbs, Spine 1990; 15:1366-1369 (disc height from two pairs of corners).
    """
    return np.asarray((_norm(_vector(a, b)) + _norm(_vector(c, d))) / 2)


def distance_ratio(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Length of ``ab`` divided by the length of ``cd``; NaN where ``cd`` has no length."""
    return _divide(distance(a, b), distance(c, d))


def distance_deficit(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """By what share of ``cd`` the length ``ab`` falls short of it; negative where it is longer.

    A vertebra's anterior height measured by its posterior one gives the height loss of a wedge deformity.

    Source: Genant et al., J Bone Miner Res 1993; 8:1137-1148.
    """
    return np.asarray(1 - distance_ratio(a, b, c, d))


def horizontal_width(a: ArrayLike, b: ArrayLike) -> Array:
    """Distance between ``a`` and ``b`` along the image's rows, whatever their heights."""
    return np.asarray(np.abs(_vector(a, b)[..., 0]))


def horizontal_width_ratio(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Horizontal width of ``ab`` divided by that of ``cd``, e.g. the cardiothoracic ratio.

    Source: Danzer, Am J Med Sci 1919; 157:513-521.
    """
    return _divide(horizontal_width(a, b), horizontal_width(c, d))


def perpendicular_distance(point: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """Distance of ``point`` from the endless line through ``a`` and ``b``; NaN where they coincide."""
    line = _vector(a, b)
    return _divide(np.abs(_cross(line, _vector(a, point))), _norm(line))


def slip_length(upper_posterior: ArrayLike, lower_anterior: ArrayLike, lower_posterior: ArrayLike) -> Array:
    """How far the upper vertebra has slipped along the endplate below it; positive is forward (anterolisthesis).

    The posterior-inferior corner of the upper vertebra is projected onto the line of the lower vertebra's superior
    endplate; the slip is the signed distance from that endplate's posterior corner to the foot of the perpendicular,
    towards its anterior corner. It does not matter to which side the spine faces.

    Source: Taillard, Acta Orthop Scand 1954; 24:115-144, on the endplate of Meyerding, Surg Gynecol Obstet 1932;
    54:371-377.
    """
    endplate = _vector(lower_posterior, lower_anterior)
    return _divide(_dot(_vector(lower_posterior, upper_posterior), endplate), _norm(endplate))


def slip_ratio(upper_posterior: ArrayLike, lower_anterior: ArrayLike, lower_posterior: ArrayLike) -> Array:
    """Slip (see :func:`slip_length`) divided by the length of the lower vertebra's superior endplate."""
    slip = slip_length(upper_posterior, lower_anterior, lower_posterior)
    return _divide(slip, distance(lower_posterior, lower_anterior))


def height_index(upper_front: ArrayLike, upper_back: ArrayLike, lower_front: ArrayLike, lower_back: ArrayLike) -> Array:
    """Height of the gap between an upper and a lower line in shares of their length, e.g. of a disc's endplates.

    The distances between the fronts and between the backs, added, divided by the lengths of the two lines, added.

    Source: Chen et al., J Clin Neurosci 2022; 103:153-162, the seventh of its methods.
    """
    heights = distance(upper_front, lower_front) + distance(upper_back, lower_back)
    return _divide(heights, distance(upper_front, upper_back) + distance(lower_front, lower_back))


def vertex_angle(a: ArrayLike, vertex: ArrayLike, b: ArrayLike) -> Array:
    """Angle at ``vertex`` between the arms to ``a`` and ``b``, 0 to 180 degrees."""
    first, second = _vector(vertex, a), _vector(vertex, b)
    return _angle(np.abs(_cross(first, second)), _dot(first, second), first, second)


def vertex_angle_difference(reference: ArrayLike, vertex: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """Angle from ``reference`` to ``a`` at ``vertex`` less the one to ``b``, e.g. ANB = SNA - SNB.

    Source: Steiner, Am J Orthod 1953; 39:729-755.
    """
    return np.asarray(vertex_angle(reference, vertex, a) - vertex_angle(reference, vertex, b))


def line_angle(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Acute angle between the endless lines ``ab`` and ``cd``, 0 to 90 degrees."""
    first, second = _vector(a, b), _vector(c, d)
    return _angle(np.abs(_cross(first, second)), np.abs(_dot(first, second)), first, second)


def opening_angle(
    upper_front: ArrayLike, upper_back: ArrayLike, lower_front: ArrayLike, lower_back: ArrayLike
) -> Array:
    """Signed angle between an upper and a lower line, positive where they draw apart towards the front.

    Applied to endplates it is the segmental or Cobb angle with lordosis positive. The sign comes from the two lines
    themselves (from where the lower one lies), so it is the same for a spine that faces left or right. NaN where a line
    has no length or where the lower line's middle lies on neither side of the upper line.

    Source: Cobb, Instr Course Lect 1948; 5:261-275, for the angle; the sign is that of lordosis.
    """
    upper, lower = _vector(upper_back, upper_front), _vector(lower_back, lower_front)
    downwards = _middle(lower_front, lower_back) - _middle(upper_front, upper_back)
    # The bisector of the two lines, not one of them, tells the side: it holds beyond 90 degrees as well.
    side = _cross(_unit(upper) + _unit(lower), downwards)
    signed = np.where(np.abs(side) > _TINY, np.sign(side), np.nan)
    return _angle(signed * _cross(upper, lower), _dot(upper, lower), upper, lower)


def slope_angle(front: ArrayLike, back: ArrayLike) -> Array:
    """Angle of the line from ``back`` to ``front`` to the rows of the image, positive where it falls to the front.

    Applied to the endplate of the sacrum it is the sacral slope. Image rows stand for the horizontal, so it holds for a
    patient who stands upright before an image that was not turned. It does not matter to which side the spine faces.

    Source: Legaye et al., Eur Spine J 1998; 7:99-103.
    """
    line = _vector(back, front)
    return np.where(_norm(line) > _TINY, np.degrees(np.arctan2(line[..., 1], np.abs(line[..., 0]))), np.nan)


def axis_angle(
    upper_top_left: ArrayLike,
    upper_top_right: ArrayLike,
    upper_bottom_left: ArrayLike,
    upper_bottom_right: ArrayLike,
    lower_top_left: ArrayLike,
    lower_top_right: ArrayLike,
    lower_bottom_left: ArrayLike,
    lower_bottom_right: ArrayLike,
) -> Array:
    """Angle between the transverse axes of two vertebrae, 0 to 180 degrees.

    The axis of a vertebra is the mean of its two endplates, each taken from left to right.

    Source: Cobb, Instr Course Lect 1948; 5:261-275, with axes in place of single endplates as in Wang et al., Med Image
    Anal 2021; 72:102115 (AASCE 2019).
    """
    upper = _vector(upper_top_left, upper_top_right) + _vector(upper_bottom_left, upper_bottom_right)
    lower = _vector(lower_top_left, lower_top_right) + _vector(lower_bottom_left, lower_bottom_right)
    return _angle(np.abs(_cross(upper, lower)), _dot(upper, lower), upper, lower)


def ellipse_perimeter(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Perimeter of the ellipse with the diameters ``ab`` and ``cd``, e.g. a head circumference from OFD and BPD.

    Ramanujan's second approximation: with semi-axes p, q and h = ((p - q) / (p + q))², it is
    π (p + q) (1 + 3 h / (10 + √(4 - 3 h))); its relative error is below 1e-7 for the shapes of a head. NaN where a
    diameter has no length.

    Source: Ramanujan, Quart J Pure Appl Math 1914; 45:350-372.
    """
    p, q = distance(a, b) / 2, distance(c, d) / 2
    h = np.asarray(_divide(p - q, p + q) ** 2)
    return np.asarray(np.pi * (p + q) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h))))


def quadrilateral_area(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Array:
    """Area inside the outline ``abcd``: half the cross product of its diagonals."""
    return np.asarray(np.abs(_cross(_vector(a, c), _vector(b, d))) / 2)


PRIMITIVES: dict[str, Primitive] = {
    "distance": Primitive(distance, ("a", "b"), "length"),
    "mean_distance": Primitive(mean_distance, ("a", "b", "c", "d"), "length"),
    "horizontal_width": Primitive(horizontal_width, ("a", "b"), "length"),
    "perpendicular_distance": Primitive(perpendicular_distance, ("point", "a", "b"), "length"),
    "slip_length": Primitive(slip_length, ("upper_posterior", "lower_anterior", "lower_posterior"), "length"),
    "ellipse_perimeter": Primitive(ellipse_perimeter, ("a", "b", "c", "d"), "length"),
    "quadrilateral_area": Primitive(quadrilateral_area, ("a", "b", "c", "d"), "area"),
    "distance_ratio": Primitive(distance_ratio, ("a", "b", "c", "d"), "ratio"),
    "distance_deficit": Primitive(distance_deficit, ("a", "b", "c", "d"), "ratio"),
    "height_index": Primitive(height_index, ("upper_front", "upper_back", "lower_front", "lower_back"), "ratio"),
    "horizontal_width_ratio": Primitive(horizontal_width_ratio, ("a", "b", "c", "d"), "ratio"),
    "slip_ratio": Primitive(slip_ratio, ("upper_posterior", "lower_anterior", "lower_posterior"), "ratio"),
    "vertex_angle": Primitive(vertex_angle, ("a", "vertex", "b"), "angle"),
    "vertex_angle_difference": Primitive(vertex_angle_difference, ("reference", "vertex", "a", "b"), "angle"),
    "line_angle": Primitive(line_angle, ("a", "b", "c", "d"), "angle"),
    "opening_angle": Primitive(opening_angle, ("upper_front", "upper_back", "lower_front", "lower_back"), "angle"),
    "slope_angle": Primitive(slope_angle, ("front", "back"), "angle"),
    "axis_angle": Primitive(
        axis_angle,
        (
            *("upper_top_left", "upper_top_right", "upper_bottom_left", "upper_bottom_right"),
            *("lower_top_left", "lower_top_right", "lower_bottom_left", "lower_bottom_right"),
        ),
        "angle",
    ),
}
"""The primitives of this module by the name that schemas use."""


def _vector(start: ArrayLike, end: ArrayLike) -> Array:
    return np.asarray(np.asarray(end, dtype=np.float64) - np.asarray(start, dtype=np.float64))


def _middle(a: ArrayLike, b: ArrayLike) -> Array:
    return np.asarray((np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64)) / 2)


def _norm(vector: Array) -> Array:
    return np.asarray(np.hypot(vector[..., 0], vector[..., 1]))


def _unit(vector: Array) -> Array:
    return _divide(vector, _norm(vector)[..., None])


def _dot(u: Array, v: Array) -> Array:
    return np.asarray(u[..., 0] * v[..., 0] + u[..., 1] * v[..., 1])


def _cross(u: Array, v: Array) -> Array:
    return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])


def _divide(numerator: Array, denominator: Array) -> Array:
    """Divide by a length; NaN where it is too small to mean anything."""
    top, bottom = np.broadcast_arrays(numerator, denominator)
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > _TINY))


def _angle(sine: Array, cosine: Array, first: Array, second: Array) -> Array:
    """Degrees of ``atan2(sine, cosine)``; NaN where one of the two directions has no length."""
    known = (_norm(first) > _TINY) & (_norm(second) > _TINY)
    return np.where(known, np.degrees(np.arctan2(sine, cosine)), np.nan)
