"""The pen that measurements are drawn with: lines with a dark edge, arcs, and words that find room beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bregma.geometry import Array
from bregma.report.canvas import MEASURE, SHADE, Canvas, Colour, LabelPlacer, text_size

_ARC_POINTS = 32


@dataclass(frozen=True)
class MeasurePen:
    """What a drawing needs: the picture, room for words, and sizes in picture pixels.

    Words are kept back until :meth:`finish`, so that they keep clear of everything that is drawn.
    """

    canvas: Canvas
    placer: LabelPlacer
    text_px: int
    stroke: float
    colour: Colour = MEASURE
    words: list[tuple[Array, str, Colour]] = field(default_factory=list)

    def holds(self, point: Array) -> bool:
        """Tell whether a point lies on the picture."""
        height, width = self.canvas.shape
        return bool(0 <= point[0] < width and 0 <= point[1] < height)

    def line(self, start: Array, end: Array, *, weight: float = 1.0) -> None:
        """Draw a solid line."""
        self.placer.avoid(start, end, 4 * self.stroke)
        self.canvas.line([start, end], SHADE, (1.4 + 1.2 * weight) * self.stroke, alpha=0.5)
        self.canvas.line([start, end], self.colour, 1.2 * weight * self.stroke)

    def length(self, start: Array, end: Array) -> None:
        """Draw a solid line with a tick at either end."""
        self.line(start, end)
        along = end - start
        size = float(np.hypot(*along))
        if size > 0:
            tick = np.array([-along[1], along[0]]) * (0.3 * self.text_px / size)
            for stop in (start, end):
                self.canvas.line([stop - tick, stop + tick], self.colour, 1.2 * self.stroke)

    def dashes(self, start: Array, end: Array) -> None:
        """Draw a dashed line."""
        if float(np.hypot(*(end - start))) < self.stroke:
            return
        self.placer.avoid(start, end, 3 * self.stroke)
        self.canvas.dashes(start, end, self.colour, self.stroke, dash=5 * self.stroke)

    def curve(self, points: Array) -> None:
        """Draw a solid curve ``(P, 2)``."""
        for start, end in zip(points[:-1:4], points[4::4]):
            self.placer.avoid(start, end, 4 * self.stroke)
        self.canvas.line(points, SHADE, 2.6 * self.stroke, alpha=0.5)
        self.canvas.line(points, self.colour, 1.2 * self.stroke)

    def fill(self, points: Array) -> None:
        """Shade a polygon ``(P, 2)``."""
        self.canvas.polygon(points, self.colour, alpha=0.2)

    def arc(self, centre: Array, first: Array, second: Array, radius: float) -> Array:
        """Draw an arc from one direction to another, the shorter way, and return its middle."""
        start, end = np.arctan2(first[1], first[0]), np.arctan2(second[1], second[0])
        turn = (end - start + np.pi) % (2 * np.pi) - np.pi
        angles = start + np.linspace(0.0, turn, _ARC_POINTS)
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self.canvas.line(points, self.colour, self.stroke)
        return np.asarray(points[_ARC_POINTS // 2])

    def write(self, near: Array, text: str) -> None:
        """Keep words to be written near a point."""
        self.words.append((near, text, self.colour))

    def finish(self) -> None:
        """Write the words that were kept, each where there is room."""
        for near, text, colour in self.words:
            size = text_size(text, self.text_px, bold=True)
            self.canvas.text(self.placer.place(near, size, 0.6 * self.text_px), text, colour, self.text_px, bold=True)
        self.words.clear()
