"""How measurements are drawn on an overlay: one function a kind of primitive, lines by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bregma.geometry import Array
from bregma.report.canvas import MEASURE, SHADE, Canvas, LabelPlacer, text_size
from bregma.report.words import number, unit_suffix
from bregma.schema import LandmarkSchema, MeasurementSpec, expand
from bregma.types import Measurement

Points = Mapping[str, Array]


@dataclass(frozen=True)
class MeasurePen:
    """What a drawing needs: the picture, room for text, and sizes in picture pixels."""

    canvas: Canvas
    placer: LabelPlacer
    text_px: int
    stroke: float

    def line(self, start: Array, end: Array) -> None:
        """Draw a solid line with a dark edge."""
        self.placer.avoid(start, end, 4 * self.stroke)
        self.canvas.line([start, end], SHADE, 2.6 * self.stroke, alpha=0.5)
        self.canvas.line([start, end], MEASURE, 1.2 * self.stroke)

    def dashes(self, start: Array, end: Array) -> None:
        """Draw a dashed line."""
        self.placer.avoid(start, end, 4 * self.stroke)
        self.canvas.dashes(start, end, MEASURE, self.stroke, dash=5 * self.stroke)

    def arc(self, points: Array) -> None:
        """Draw a thin open curve ``(P, 2)``."""
        self.canvas.line(points, MEASURE, self.stroke)

    def write(self, near: Array, text: str) -> None:
        """Write the value near a point."""
        size = text_size(text, self.text_px, bold=True)
        self.canvas.text(self.placer.place(near, size, 0.6 * self.text_px), text, MEASURE, self.text_px, bold=True)


Drawing = Callable[[MeasurePen, Points, str], None]


def draw_lines(pen: MeasurePen, points: Points, text: str) -> None:
    """Join the points two by two (a length, a ratio, an angle between lines), or in a row if their number is odd."""
    places = list(points.values())
    if len(places) % 2:
        for start, end in pairwise(places):
            pen.line(start, end)
    else:
        for start, end in zip(places[::2], places[1::2]):
            pen.line(start, end)
    if places:
        pen.write(np.mean(places[:2], axis=0), text)


def draw_slip(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the lower endplate and how far the upper posterior corner lies along it (Taillard's ratio)."""
    slipped, posterior, anterior = points["slipped"], points["posterior"], points["anterior"]
    foot = _foot(slipped, posterior, anterior)
    pen.line(posterior, anterior)
    pen.line(posterior, foot)
    pen.dashes(slipped, foot)
    pen.write(foot, text)


def draw_vertex_angle(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw both arms of an angle and the arc between them."""
    vertex, a, b = points["vertex"], points["a"], points["b"]
    pen.line(vertex, a)
    pen.line(vertex, b)
    arms = np.stack([a - vertex, b - vertex])
    lengths = np.hypot(arms[:, 0], arms[:, 1])
    if lengths.min() > 0:
        radius = min(0.35 * float(lengths.min()), 4.0 * pen.text_px)
        start, end = np.arctan2(arms[:, 1], arms[:, 0])
        turn = (end - start + np.pi) % (2 * np.pi) - np.pi
        angles = start + np.linspace(0.0, turn, 24)
        pen.arc(vertex + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    pen.write(vertex, text)


def draw_perpendicular(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw a line, dashed, and the distance of a point from it."""
    foot = _foot(points["point"], points["a"], points["b"])
    pen.dashes(points["a"], points["b"])
    pen.line(points["point"], foot)
    pen.write(points["point"], text)


def draw_outline(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw the outline of an area."""
    corners = list(points.values())
    for start, end in zip(corners, [*corners[1:], corners[0]]):
        pen.line(start, end)
    pen.write(np.mean(corners, axis=0), text)


def draw_widths(pen: MeasurePen, points: Points, text: str) -> None:
    """Draw each pair's horizontal extent at the height of its first point."""
    places = list(points.values())
    for start, end in zip(places[::2], places[1::2]):
        level = np.array([end[0], start[1]])
        pen.line(start, level)
        pen.dashes(level, end)
    pen.write((places[0] + places[1]) / 2, text)


DRAWINGS: dict[str, Drawing] = {
    "slip_ratio": draw_slip,
    "slip_length": draw_slip,
    "vertex_angle": draw_vertex_angle,
    "vertex_angle_difference": draw_vertex_angle,
    "perpendicular_distance": draw_perpendicular,
    "quadrilateral_area": draw_outline,
    "horizontal_width": draw_widths,
    "horizontal_width_ratio": draw_widths,
}
"""Primitive of ``bregma.measurement`` to drawing; every other primitive is drawn by ``draw_lines``."""


def draw_measurements(
    pen: MeasurePen, schema: LandmarkSchema, measurements: Sequence[Measurement], points: Points
) -> None:
    """Draw every measurement that has a value and all of its landmarks among ``points``."""
    specs = {spec.name: spec for spec in schema.measurements}
    for measurement in measurements:
        if measurement.value is None or any(name not in points for name in measurement.uses):
            continue
        spec = specs.get(measurement.name)
        roles = _roles(schema, spec, measurement) if spec else {name: name for name in measurement.uses}
        placed = {role: points[name] for role, name in roles.items() if name in points}
        drawing = DRAWINGS.get(spec.primitive, draw_lines) if spec else draw_lines
        if len(placed) == len(roles):
            drawing(pen, placed, measurement_text(measurement))


def measurement_text(measurement: Measurement) -> str:
    """Return place, value, unit and grade in a few words, e.g. ``L4-L5 31.2 % (II)``."""
    value = number(measurement.value, measurement.unit) + unit_suffix(measurement.unit)
    grade = f" ({measurement.grade})" if measurement.grade else ""
    return f"{measurement.level + ' ' if measurement.level else ''}{value}{grade}"


def _roles(schema: LandmarkSchema, spec: MeasurementSpec, measurement: Measurement) -> dict[str, str]:
    for level, names in expand(schema, spec):
        if level == measurement.level:
            return names
    return {name: name for name in measurement.uses}


def _foot(point: Array, start: Array, end: Array) -> Array:
    """Return the foot of the perpendicular from ``point`` onto the line through two others."""
    along = end - start
    return np.asarray(start + along * float((point - start) @ along) / max(float(along @ along), 1e-12))
