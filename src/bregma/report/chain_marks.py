"""Elements of chains on an overlay: each with its level, the ones without a name dashed and grey."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bregma.geometry import Array, apply
from bregma.instances import Instance
from bregma.report.canvas import INK, PREDICTION, SHADE, Canvas, Colour, LabelPlacer, text_size
from bregma.schema import LandmarkSchema

UNNAMED = INK
"""Grey, and light enough to be seen on a dark image."""
_SURE = 0.95
"""A level that is less probable is written with its probability."""


@dataclass(frozen=True)
class ChainPen:
    """What drawing elements needs: the picture, room for text, the map from image to picture, and sizes."""

    canvas: Canvas
    placer: LabelPlacer
    matrix: Array
    text_px: int
    stroke: float

    def dashed(self, corners: Array) -> None:
        """Draw the outline of an element, and a small mark at each part."""
        ring = ring_order(corners)
        for start, end in zip(ring, np.roll(ring, -1, axis=0)) if len(ring) > 2 else [(ring[0], ring[-1])]:
            self.canvas.line([start, end], SHADE, 2.6 * self.stroke, alpha=0.6)
            self.canvas.dashes(start, end, UNNAMED, 1.6 * self.stroke, dash=4 * self.stroke)
        for corner in corners:
            self.canvas.disc(corner, 3.2 * self.stroke, SHADE)
            self.canvas.disc(corner, 2.2 * self.stroke, UNNAMED)

    def write(self, corners: Array, text: str, colour: Colour) -> None:
        """Write a level beside its element, on the side where there is room."""
        size = text_size(text, self.text_px, bold=True)
        half = 0.5 * float(np.ptp(corners[:, 0]))
        at = self.placer.place(corners.mean(axis=0), size, half + 0.5 * self.text_px)
        self.canvas.text(at, text, colour, self.text_px, bold=True)


def draw_elements(pen: ChainPen, schema: LandmarkSchema, elements: Iterable[Instance]) -> None:
    """Draw what landmarks do not show: outlines of elements without a name, and the levels of the others.

    Elements with a name are landmarks too, and are drawn as such. In a chain whose levels have no names nothing is
    missing, so that nothing is added.
    """
    for one in elements:
        if not schema.chain(one.chain).named:
            continue
        corners = apply(pen.matrix, one.points)
        if one.level is None:
            pen.dashed(corners)
            pen.write(corners, "unnamed", UNNAMED)
        else:
            sure = one.level_probability
            pen.write(corners, one.level if sure >= _SURE else f"{one.level} {100 * sure:.0f} %", PREDICTION)


def ring_order(corners: Array) -> Array:
    """Order corners ``(K, 2)`` by their angle about the centre, so that an outline does not cross itself."""
    arms = corners - corners.mean(axis=0)
    return np.asarray(corners[np.argsort(np.arctan2(arms[:, 1], arms[:, 0]))])
