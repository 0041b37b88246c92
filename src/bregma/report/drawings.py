"""How measurements are drawn: one function a primitive, in picture pixels, which are square in the patient.

A drawing knows the roles of its primitive and nothing of any anatomy. What is measured is solid, what only leads to it
is dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bregma.geometry import Array
from bregma.report.measure_pen import MeasurePen

Points = Mapping[str, Array]
Drawing = Callable[[MeasurePen, Points, str], None]
Line = tuple[Array, Array]

_ELLIPSE_POINTS = 120
_TINY = 1e-9


def draw_lengths(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw each pair of points as a length between two ticks."""
    places = list(points.values())
    for start, end in zip(places[::2], places[1::2]):
        pen.length(start, end)
    pen.write((places[0] + places[1]) / 2, text)


def draw_from_middle(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the length from a point to the middle of two others; a length that it is divided by is solid as well."""
    middle = (points["a"] + points["b"]) / 2
    pen.dashes(points["a"], points["b"])
    pen.length(points["point"], middle)
    if "c" in points:
        pen.length(points["c"], points["d"])
    pen.write((points["point"] + middle) / 2, text)


def draw_perpendicular(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw a line, dashed as far as the foot, and the distance of a point from it."""
    foot = _foot(points["point"], (points["a"], points["b"]))
    pen.dashes(points["a"], points["b"])
    pen.dashes(points["b"], foot)
    pen.length(points["point"], foot)
    pen.write((points["point"] + foot) / 2, text)


def draw_widths(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw each pair's extent along the rows, half way between the two points."""
    places = list(points.values())
    for a, b in zip(places[::2], places[1::2]):
        row = (a[1] + b[1]) / 2
        start, end = np.array([a[0], row]), np.array([b[0], row])
        pen.dashes(a, start)
        pen.dashes(b, end)
        pen.length(start, end)
    pen.write((places[0] + places[1]) / 2, text)


def draw_slip(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the lower endplate, the perpendicular from the upper posterior corner, and the slip between, heavily."""
    posterior, anterior = points["lower_posterior"], points["lower_anterior"]
    foot = _foot(points["upper_posterior"], (posterior, anterior))
    pen.line(posterior, anterior)
    pen.dashes(points["upper_posterior"], foot)
    pen.line(posterior, foot, weight=3.0)
    pen.write(foot, text)


def draw_ellipse(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the ellipse that has the lengths of both diameters, about their middle and along the first one."""
    a, b, c, d = (points[role] for role in "abcd")
    centre, along = (a + b + c + d) / 4, (b - a) / 2
    long = float(np.hypot(*along))
    across = np.array([-along[1], along[0]]) * float(np.hypot(*(d - c))) / (2 * max(long, _TINY))
    turn = np.linspace(0.0, 2 * np.pi, _ELLIPSE_POINTS)[:, None]
    outline = centre + np.cos(turn) * along + np.sin(turn) * across
    pen.curve(outline)
    pen.write(outline[int(np.argmin(outline[:, 1]))], text)


def draw_area(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the outline of an area and shade what it holds."""
    corners = np.stack(list(points.values()))
    pen.fill(corners)
    pen.curve(np.vstack([corners, corners[:1]]))
    pen.write(corners.mean(axis=0), text)


def draw_gap(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw two lines, dashed, and the distances between their fronts and between their backs."""
    pen.dashes(points["upper_back"], points["upper_front"])
    pen.dashes(points["lower_back"], points["lower_front"])
    for side in ("front", "back"):
        pen.length(points[f"upper_{side}"], points[f"lower_{side}"])
    pen.write((points["upper_front"] + points["lower_front"]) / 2, text)


def draw_asymmetry(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the midline fitted through the axis points, and the distance of either side from it."""
    axis = np.stack([point for role, point in points.items() if role.startswith("axis")])
    centre = axis.mean(axis=0)
    direction = np.linalg.svd(axis - centre)[2][0]
    reach = (axis - centre) @ direction
    pen.dashes(centre + reach.min() * direction, centre + reach.max() * direction)
    for side in ("left", "right"):
        pen.length(points[side], _foot(points[side], (centre, centre + direction)))
    pen.write((points["left"] + points["right"]) / 2, text)


def draw_vertex_angle(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw both arms of an angle and the arc between them."""
    vertex, a, b = points["vertex"], points["a"], points["b"]
    pen.line(vertex, a)
    pen.line(vertex, b)
    radius = min(0.35 * _least_length(a - vertex, b - vertex), 4.0 * pen.text_px)
    pen.write(pen.arc(vertex, a - vertex, b - vertex, radius), text)


def draw_vertex_difference(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the arm that both angles share, dashed, and the angle between the two others."""
    pen.dashes(points["vertex"], points["reference"])
    vertex, a, b = points["vertex"], points["a"], points["b"]
    pen.line(vertex, a)
    pen.line(vertex, b)
    radius = 0.8 * _least_length(a - vertex, b - vertex)
    pen.write(pen.arc(vertex, a - vertex, b - vertex, radius), text)


def draw_slope(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw a line, the image's row through its back end, and the angle between them."""
    back, along = points["back"], points["front"] - points["back"]
    row = np.array([np.copysign(float(np.hypot(*along)), along[0]), 0.0])
    pen.line(back, points["front"])
    pen.dashes(back, back + row)
    pen.write(pen.arc(back, along, row, 0.7 * float(np.hypot(*along))), text)


def draw_line_angle(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the angle between each two lines of two points each; the value stands at the first one."""
    places = list(points.values())
    lines = list(zip(places[::2], places[1::2]))
    for first, second, words in zip(lines[::2], lines[1::2], (text, "")):
        _angle_between(pen, first, second, words)


def draw_opening(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the angle between an upper and a lower line, each from back to front."""
    upper, lower = ((points[f"{side}_back"], points[f"{side}_front"]) for side in ("upper", "lower"))
    _angle_between(pen, upper, lower, text)


def draw_direction_and_opening(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw both angles that are added up; their sum stands at the first one."""
    _angle_between(pen, (points["a"], points["b"]), (points["c"], points["d"]), text)
    draw_opening(pen, points, "")


def draw_axis_angle(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the axes of two vertebrae through their middles, over three times their width, and the angle between."""
    lines = []
    for level in ("upper", "lower"):
        left = (points[f"{level}_top_left"] + points[f"{level}_bottom_left"]) / 2
        right = (points[f"{level}_top_right"] + points[f"{level}_bottom_right"]) / 2
        lines.append((2 * left - right, 2 * right - left))
    _angle_between(pen, lines[0], lines[1], text)


def _angle_between(pen: MeasurePen, first: Line, second: Line, text: str) -> None:
    """Draw two lines and the angle at their crossing or, where it lies off the picture, a bracket on its side."""
    pen.line(*first)
    pen.line(*second)
    crossing = _crossing(first, second)
    if crossing is None or not pen.holds(crossing):
        _bracket(pen, first, second, text)
        return
    for line in (first, second):
        pen.dashes(crossing, min(line, key=lambda end: float(np.hypot(*(end - crossing)))))
    arms = [(start + end) / 2 - crossing for start, end in (first, second)]
    if _least_length(*arms) < 2 * pen.text_px:
        arms = [end - start for start, end in (first, second)]
    radius = min(0.6 * _least_length(*arms), 5.0 * pen.text_px)
    middle = pen.arc(crossing, arms[0], arms[1], radius)
    if text:
        pen.write(middle, text)


def _bracket(pen: MeasurePen, first: Line, second: Line, text: str) -> None:
    """Join the ends of two lines on the side on which they draw together."""
    gaps = [(first[0], second[0]), (first[1], second[1])]
    if float((first[1] - first[0]) @ (second[1] - second[0])) < 0:
        gaps = [(first[0], second[1]), (first[1], second[0])]
    start, end = min(gaps, key=lambda gap: float(np.hypot(*(gap[1] - gap[0]))))
    pen.dashes(start, end)
    if text:
        pen.write((start + end) / 2, text)


def _crossing(first: Line, second: Line) -> Array | None:
    u, v = first[1] - first[0], second[1] - second[0]
    cross = float(u[0] * v[1] - u[1] * v[0])
    if abs(cross) < 1e-6 * max(float(np.hypot(*u) * np.hypot(*v)), _TINY):
        return None
    step = second[0] - first[0]
    return np.asarray(first[0] + u * float(step[0] * v[1] - step[1] * v[0]) / cross)


def _foot(point: Array, line: Line) -> Array:
    """Return the foot of the perpendicular from a point onto the endless line through two others."""
    start, along = line[0], line[1] - line[0]
    return np.asarray(start + along * float((point - start) @ along) / max(float(along @ along), _TINY))


def _least_length(*vectors: Array) -> float:
    return min(float(np.hypot(*vector)) for vector in vectors)


DRAWINGS: dict[str, Drawing] = {
    "distance": draw_lengths,
    "directed_distance": lambda pen, points, text: draw_lengths(pen, {r: points[r] for r in "ab"}, text),
    "mean_distance": draw_lengths,
    "distance_ratio": draw_lengths,
    "distance_deficit": draw_lengths,
    "midpoint_distance": draw_from_middle,
    "midpoint_distance_ratio": draw_from_middle,
    "perpendicular_distance": draw_perpendicular,
    "horizontal_width": draw_widths,
    "horizontal_width_ratio": draw_widths,
    "slip_length": draw_slip,
    "slip_ratio": draw_slip,
    "ellipse_perimeter": draw_ellipse,
    "quadrilateral_area": draw_area,
    "height_index": draw_gap,
    "midline_asymmetry": draw_asymmetry,
    "vertex_angle": draw_vertex_angle,
    "vertex_angle_difference": draw_vertex_difference,
    "slope_angle": draw_slope,
    "line_angle": draw_line_angle,
    "direction_angle": draw_line_angle,
    "direction_angle_plus_opening": draw_direction_and_opening,
    "opening_angle": draw_opening,
    "axis_angle": draw_axis_angle,
}
"""The drawing of every primitive of ``bregma.measurement``."""
