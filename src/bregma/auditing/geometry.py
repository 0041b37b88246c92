"""Labels against the shape that other labels have: displaced points, exchanged ones, mirror images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bregma.auditing.evidence import ALARM_TIMES, Evidence, are_known
from bregma.auditing.shapes import Posed, RobustShapes, ShapeFit, lay_over, learn_robust_shapes, pose
from bregma.auditing.symmetry import common_exchanges, equivalent_orders
from bregma.errors import InputError
from bregma.geometry import Array
from bregma.schema import LandmarkSchema

_SURE = 2 * ALARM_TIMES
"""A whole exchange is claimed where the labels as they stand deviate so much and the exchanged ones do not."""


def geometric_evidence(points: Array, schema: LandmarkSchema) -> tuple[Evidence, ...]:
    """Compare every shape with the half of the shapes that agree best.

    Args:
        points: ``(C, N, 2)`` labels, NaN where there is none; as long along x as along y.
        schema: tells which orders and mirror images mean the same.

    Returns:
        Evidence of displaced points and of exchanged ones; nothing where fewer than 10 shapes have 4 points, or a
        landmark is labelled too rarely.
    """
    orders = equivalent_orders(schema)
    posed = pose(points, orders, mirror=schema.flip == "keep")
    if posed is None:
        return ()
    try:
        shapes = learn_robust_shapes(posed)
    except InputError:
        return ()
    return _Comparison(points, schema, posed, shapes).evidence()


class _Comparison:
    """Fits of all shapes, and what they say."""

    def __init__(self, points: Array, schema: LandmarkSchema, posed: Posed, shapes: RobustShapes) -> None:
        self.points, self.schema, self.posed, self.shapes = points, schema, posed, shapes
        self.times = np.zeros(points.shape[:2])
        self.exchanged = np.zeros(points.shape[:2])
        self.expected = np.full(points.shape, np.nan)
        self.reasons: dict[tuple[int, int], str] = {}

    def evidence(self) -> tuple[Evidence, ...]:
        for row in np.flatnonzero(np.isfinite(self.posed.misfit)):
            self._judge(int(row))
        return (
            Evidence("geometry", self.times, self.expected, {}),
            Evidence("exchange", self.exchanged, self.expected, self.reasons),
        )

    def _judge(self, row: int) -> None:
        fit = self.shapes.fit(self.posed.points[row])
        times = self.shapes.times(fit.contradiction, self.posed.points[row], fit.expected)
        order = self.posed.order[row]
        self.times[row, order] = times
        self.expected[row, order] = self._on_image(row, fit.expected)
        if times.max() < ALARM_TIMES:
            return
        self._explain_by_whole_exchange(row, float(times.max()))
        for a, b in _exchanged_pairs(self.posed.points[row], fit):
            self._name_pair(row, int(order[a]), int(order[b]), float(max(times[a], times[b])))

    def _explain_by_whole_exchange(self, row: int, worst: float) -> None:
        """Where exchanging whole sets, or left and right, makes an impossible shape a usual one, say so."""
        if worst < _SURE:
            return
        here = np.flatnonzero(are_known(self.points[row]))
        for exchange in common_exchanges(self.schema):
            if self._worst_of(self.points[row][exchange.order]) < ALARM_TIMES:
                moved = here[exchange.order[here] != here]
                self.expected[row, moved] = self.points[row, exchange.order[moved]]
                self._claim(row, moved, worst, f"exchanged: {exchange.words}")
                return
        if self.schema.flip != "keep" and self._worst_of(self.points[row] * (-1.0, 1.0)) < ALARM_TIMES:
            self.expected[row, here] = np.nan
            self._claim(row, here, worst, "the labels are those of the mirror image")

    def _claim(self, row: int, landmarks: NDArray[np.intp], worst: float, reason: str) -> None:
        self.exchanged[row, landmarks] = worst
        self.reasons.update({(row, int(index)): reason for index in landmarks})

    def _worst_of(self, points: Array) -> float:
        """Return the worst deviation of a shape ``(N, 2)`` laid over the standard anew."""
        orders = equivalent_orders(self.schema)
        laid = lay_over(points, self.posed.standard, orders, mirror=self.schema.flip == "keep")
        fit = self.shapes.fit(laid)
        return float(self.shapes.times(fit.contradiction, laid, fit.expected).max())

    def _name_pair(self, row: int, a: int, b: int, worst: float) -> None:
        names = self.schema.names
        for index, other in ((a, b), (b, a)):
            self.exchanged[row, index] = max(self.exchanged[row, index], worst)
            self.reasons.setdefault((row, index), f"exchanged with {names[other]}")

    def _on_image(self, row: int, laid: Array) -> Array:
        """Return places in the standard's coordinates as places in the image, in the order they were laid over."""
        points = self.points[row][self.posed.order[row]]
        if self.posed.turned[row]:
            points = points * (-1.0, 1.0)
        placed = self.posed.points[row]
        both = np.flatnonzero(are_known(points) & are_known(placed))
        z, w = (p[:, 0] + 1j * p[:, 1] for p in (points[both], placed[both]))
        far = int(np.argmax(np.abs(w - w[0])))
        turn = (z[far] - z[0]) / (w[far] - w[0])
        there = turn * (laid[:, 0] + 1j * laid[:, 1] - w[0]) + z[0]
        return np.stack([-there.real if self.posed.turned[row] else there.real, there.imag], axis=-1)


def _exchanged_pairs(shape: Array, fit: ShapeFit) -> Iterator[tuple[int, int]]:
    """Yield pairs of points that lie nearer to each other's expected place than to their own, both of them far off."""
    suspects = np.flatnonzero(fit.set_aside)
    for k, a in enumerate(suspects):
        for b in suspects[k + 1 :]:
            own = np.linalg.norm(shape[[a, b]] - fit.expected[[a, b]], axis=1)
            other = np.linalg.norm(shape[[a, b]] - fit.expected[[b, a]], axis=1)
            if (other < own / 2).all():
                yield int(a), int(b)
