"""Landmarks, their uncertainty and measurements, drawn on the image they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import ImageError
from bregma.geometry import Array, apply, apply_cov, resize
from bregma.measurement.unnamed import points_by_place
from bregma.report.canvas import (
    DOUBT,
    ERROR,
    PREDICTION,
    SHADE,
    TRUTH,
    Canvas,
    Colour,
    LabelPlacer,
    Rgb,
    drawn_shape,
    text_size,
    window,
)
from bregma.report.chain_marks import ChainPen, draw_elements, ring_order
from bregma.report.legend import Entry, legend_strip
from bregma.report.measure_marks import draw_measurements
from bregma.report.measure_pen import MeasurePen
from bregma.report.words import short_labels
from bregma.schema import LandmarkSchema
from bregma.types import LandmarkSet, Measurement, Prediction

_CHI2_95_2DOF = 5.991464547107979
_ELLIPSE_POINTS = 48
_SQUARE = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


@dataclass(frozen=True)
class _Marks:
    """Points in picture pixels and which of them are drawn."""

    points: Array
    drawn: NDArray[np.bool_]
    colour: Colour


def overlay_matrix(shape: tuple[int, int], size: int, spacing: tuple[float, float] | None = None) -> Array:
    """Return the map from pixels of an image of ``shape`` to pixels of its overlay whose long side is ``size``."""
    return resize(shape, drawn_shape(shape, size, spacing))


def draw_overlay(
    image: NDArray[Any],
    *,
    schema: LandmarkSchema,
    truth: LandmarkSet | None = None,
    prediction: Prediction | None = None,
    measurements: Sequence[Measurement] = (),
    errors: ArrayLike | None = None,
    error_unit: str = "px",
    size: int = 900,
    title: str = "",
    spacing: tuple[float, float] | None = None,
    label_worst: int = 3,
    min_presence: float = 0.5,
    mark_scale: float = 1.0,
    least_aspect: float = 0.0,
    legend: bool = True,
) -> Rgb:
    """Draw an image with labels, predictions, or both.

    The picture is windowed between percentiles and resized so that its long side is ``size``; the image starts at the
    picture's top-left corner (see ``overlay_matrix``), title and legend follow below it. Labels are rings, predictions
    dots with their 95 % region, joined by the error; flagged ones stand in a red square. Landmarks that are outside or
    unlabelled, and predictions whose presence is below ``min_presence``, are not drawn.

    Args:
        image: ``(H, W)``, any number type.
        schema: names, edges and chains.
        truth: labels in pixels of ``image``.
        prediction: predictions in pixels of ``image``.
        measurements: drawn where they have a value, at the predicted landmarks (or the labels without a prediction).
        errors: ``(N,)`` errors to rank and label the worst points by, NaN where not scored; the distance on the image
            in px when left out.
        error_unit: unit of ``errors``.
        size: long side of the picture in pixels.
        title: a line below the image.
        spacing: mm per pixel along x and y, for pixels that are not square; the prediction's frame when left out.
        label_worst: how many of the worst points get their name and error written.
        min_presence: least probability of presence of a prediction that is drawn.
        mark_scale: factor on the size of marks and text, for pictures that are shown reduced.
        least_aspect: least ratio of width to height; a narrower picture gets an empty margin on its right, so that
            there is room for text.
        legend: whether to explain the marks below the image.

    Returns:
        uint8 ``(H', W', 3)`` RGB.

    Raises:
        ImageError: the image is not ``(H, W)``, or labels or predictions do not fit the schema.
    """
    grey = window(image)
    for what in (truth, prediction):
        if what is not None and len(what) != len(schema):
            raise ImageError("landmarks do not fit the schema", expected=str(len(schema)), got=str(len(what)))
    if spacing is None and prediction is not None:
        spacing = prediction.frame.spacing
    shape = (int(grey.shape[0]), int(grey.shape[1]))
    inner = drawn_shape(shape, size, spacing)
    canvas = Canvas(grey, inner, margin=max(0, round(least_aspect * inner[0]) - inner[1]))
    scene = _Scene(canvas, schema, overlay_matrix(shape, size, spacing), size * mark_scale)
    true_marks = None if truth is None else scene.marks(truth.points, truth.labelled, TRUTH)
    predicted = None
    if prediction is not None:
        predicted = scene.marks(prediction.mean, prediction.presence >= min_presence, PREDICTION)
    scene.draw(true_marks, predicted, None if prediction is None else prediction.cov)
    if prediction is not None and predicted is not None:
        scene.mark_doubtful(predicted, prediction.flags or ())
    if true_marks is not None and predicted is not None:
        scene.label_worst(true_marks, predicted, errors, error_unit, label_worst)
    base = predicted or true_marks
    if base is not None and prediction is not None and prediction.instances is not None:
        chain_pen = ChainPen(scene.canvas, scene.placer(base), scene.matrix, scene.text_px, scene.stroke)
        draw_elements(chain_pen, schema, prediction.instances)
    if base is not None:
        points = {name: base.points[i] for i, name in enumerate(schema.names) if base.drawn[i]}
        if prediction is not None:
            placed = points_by_place(schema, prediction, min_presence)
            points |= {name: apply(scene.matrix, point[None])[0] for name, point in placed.items()}
        pen = MeasurePen(scene.canvas, scene.placer(base), scene.text_px, scene.stroke)
        draw_measurements(pen, schema, measurements, points)
    picture = scene.canvas.finish()
    entries = list(_legend(truth, prediction, measurements)) if legend else []
    strip = legend_strip(picture.shape[1], title, entries, scene.text_px)
    return picture if strip is None else np.vstack([picture, strip])


class _Scene:
    """Sizes of all marks for one picture, and the order in which they are drawn."""

    def __init__(self, canvas: Canvas, schema: LandmarkSchema, matrix: Array, size: float) -> None:
        self.canvas = canvas
        self.schema = schema
        self.matrix = matrix
        self.stroke = max(1.0, size / 640)
        self.text_px = max(11, round(size / 52))
        self._size = size
        self._radius = size / 160
        self._placer: LabelPlacer | None = None

    def marks(self, points: Array, drawn: NDArray[np.bool_], colour: Colour) -> _Marks:
        """Move points to picture pixels and shrink the markers where points lie close together."""
        there = apply(self.matrix, points)
        self._radius = min(self._radius, max(self._size / 400, 0.3 * _typical_gap(there[drawn])))
        return _Marks(there, np.asarray(drawn, dtype=bool), colour)

    def placer(self, marks: _Marks) -> LabelPlacer:
        """Return the one keeper of label room, clear of the given marks."""
        if self._placer is None:
            self._placer = LabelPlacer(self.canvas.shape, list(marks.points[marks.drawn]), self._radius)
        return self._placer

    def draw(self, truth: _Marks | None, predicted: _Marks | None, cov: Array | None) -> None:
        """Draw everything but text and measurements, faint things first."""
        for marks in (truth, predicted):
            if marks is not None:
                self._outlines(marks)
        if predicted is not None and cov is not None:
            self._regions(predicted, cov)
        if truth is not None:
            for point in truth.points[truth.drawn]:
                self.canvas.ring(point, self._radius, SHADE, 2.2 * self.stroke)
                self.canvas.ring(point, self._radius, TRUTH, 1.2 * self.stroke)
        if truth is not None and predicted is not None:
            for i, j in _pairs(self.schema, truth, predicted):
                self.canvas.line([truth.points[i], predicted.points[j]], SHADE, 2.4 * self.stroke, alpha=0.6)
                self.canvas.line([truth.points[i], predicted.points[j]], ERROR, 1.1 * self.stroke)
        if predicted is not None:
            for point in predicted.points[predicted.drawn]:
                self.canvas.disc(point, 0.62 * self._radius + 0.7 * self.stroke, SHADE)
                self.canvas.disc(point, 0.62 * self._radius, PREDICTION)

    def mark_doubtful(self, predicted: _Marks, flags: Sequence[str]) -> None:
        """Put a square about every point that is flagged."""
        for i, why in enumerate(flags):
            if why and predicted.drawn[i]:
                corners = predicted.points[i] + 1.9 * self._radius * _SQUARE
                self.canvas.line(corners, SHADE, 3.0 * self.stroke, alpha=0.6, closed=True)
                self.canvas.line(corners, DOUBT, 1.6 * self.stroke, closed=True)

    def label_worst(self, truth: _Marks, predicted: _Marks, errors: ArrayLike | None, unit: str, count: int) -> None:
        """Write name and error beside the points with the largest errors."""
        partner = dict(_pairs(self.schema, truth, predicted))
        if errors is None:
            undo = np.linalg.inv(self.matrix[:2, :2])
            apart = {i: (predicted.points[j] - truth.points[i]) @ undo.T for i, j in partner.items()}
            sizes, unit = {i: float(np.hypot(*step)) for i, step in apart.items()}, "px"
        else:
            known = np.asarray(errors, dtype=np.float64)
            sizes = {i: float(known[i]) for i in partner if np.isfinite(known[i])}
        placer, names = self.placer(predicted), short_labels(self.schema)
        for i in sorted(sizes, key=lambda i: -sizes[i])[:count]:
            text = f"{names[i]} {sizes[i]:.1f} {unit}"
            at = placer.place(predicted.points[partner[i]], text_size(text, self.text_px), 1.6 * self._radius + 2)
            self.canvas.text(at, text, ERROR, self.text_px)

    def _outlines(self, marks: _Marks) -> None:
        for first, second in self.schema.edges:
            pair = [self.schema.index(first), self.schema.index(second)]
            if marks.drawn[pair].all():
                self.canvas.line(marks.points[pair], marks.colour, self.stroke, alpha=0.55)
        for indices in _chain_levels(self.schema):
            corners = marks.points[[i for i in indices if marks.drawn[i]]]
            if len(corners) > 1:
                self.canvas.line(ring_order(corners), marks.colour, self.stroke, alpha=0.6, closed=len(corners) > 2)

    def _regions(self, predicted: _Marks, cov: Array) -> None:
        for i in np.flatnonzero(predicted.drawn):
            outline = predicted.points[i] + _ellipse(apply_cov(self.matrix, cov[i]))
            self.canvas.polygon(outline, PREDICTION, alpha=0.16)
            self.canvas.line(outline, PREDICTION, 0.8 * self.stroke, alpha=0.75, closed=True)


def _legend(
    truth: LandmarkSet | None, prediction: Prediction | None, measurements: Sequence[Measurement]
) -> Iterator[Entry]:
    if truth is not None:
        yield Entry("ring", "label")
    if prediction is not None:
        yield Entry("dot", "prediction")
        if any(prediction.flags or ()):
            yield Entry("doubt", "doubtful")
        if np.any(prediction.cov):
            yield Entry("region", "95 % region" if prediction.calibration != "none" else "95 % region, uncalibrated")
    if truth is not None and prediction is not None:
        yield Entry("error", "error")
    if any(m.value is not None for m in measurements):
        yield Entry("measure", "measurement")


def _pairs(schema: LandmarkSchema, truth: _Marks, predicted: _Marks) -> Iterator[tuple[int, int]]:
    """Yield (label, prediction) to join; points that cannot be told apart are joined the shortest way."""
    free = set(range(len(schema)))
    for group in schema.exchangeable:
        indices = [schema.index(name) for name in group]
        if truth.drawn[indices].all() and predicted.drawn[indices].all():
            free -= set(indices)
            yield from zip(indices, _shortest(indices, truth.points, predicted.points))
    yield from ((i, i) for i in sorted(free) if truth.drawn[i] and predicted.drawn[i])


def _shortest(indices: list[int], truth: Array, predicted: Array) -> tuple[int, ...]:
    return min(
        permutations(indices),
        key=lambda order: float(np.linalg.norm(truth[indices] - predicted[list(order)], axis=1).sum()),
    )


def _chain_levels(schema: LandmarkSchema) -> Iterator[list[int]]:
    for chain in schema.chains:
        for level in chain.levels:
            yield [schema.index(chain.landmark_name(level, part)) for part in chain.parts_of(level)]


def _ellipse(cov: Array) -> Array:
    """Return the outline ``(P, 2)`` about the origin that holds 95 % of a normal distribution."""
    values, axes = np.linalg.eigh(cov)
    angle = np.linspace(0.0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(circle * np.sqrt(np.maximum(values, 0.0) * _CHI2_95_2DOF) @ axes.T)


def _typical_gap(points: Array) -> float:
    """Return the median distance from a point to its nearest neighbour, or infinity for fewer than two points."""
    if len(points) < 2:
        return float("inf")
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(np.median(apart.min(axis=1)))
