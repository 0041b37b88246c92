"""Labels against where the image suggests them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bregma.auditing.appearance import FEWEST_IMAGES, Pixels, Template, congeal, working_image
from bregma.auditing.evidence import Evidence, are_known, best_order, sizes, times_usual
from bregma.auditing.shapes import Posed
from bregma.geometry import Array

_ALIKE = 0.15
"""A mean shape this near to its own mirror image (in half extents) is taken for symmetric."""


def image_evidence(
    images: Sequence[NDArray[np.generic]], points: Array, factors: Array, posed: Posed, orders: NDArray[np.intp]
) -> Evidence | None:
    """Compare labels with the places that the image suggests; see :mod:`bregma.auditing.appearance`.

    Args:
        images: pixels of the C cases.
        points: ``(C, N, 2)`` labels in pixels, NaN where there is none.
        factors: ``(C, 2)`` what makes pixels as long along x as along y.
        posed: the shapes over their standard.
        orders: equivalent orders ``(K, N)``.

    Returns:
        None with fewer than 20 images whose labels have 4 points.
    """
    usable = np.flatnonzero(np.isfinite(posed.misfit))
    if len(usable) < FEWEST_IMAGES:
        return None
    frame = Template.of(posed.standard)
    views = [_View(images[row], points[row], factors[row], bool(posed.turned[row])) for row in usable.tolist()]
    ordered = np.array([view.points[posed.order[row]] for view, row in zip(views, usable)])
    starts = [frame.pose(posed.standard, shape) for shape in ordered]
    good = usable_half(posed.misfit[usable], starts)
    begin = np.array([starts[int(good[0])] if start is None else start for start in starts])
    centred = (posed.standard - np.nanmean(posed.standard, axis=0)) @ frame.turn.T / frame.half
    flips = _flips(centred, orders)
    found = congeal([view.image for view in views], begin, good, [flip.signs for flip in flips])
    places = _symmetric(_places(frame, ordered, found.poses, centred, orders, good), flips)
    expected = frame.on_image(places, found.poses)
    return _compared(points, usable, views, expected, orders)


class _View:
    """A small image as it is laid over the others, and the way back."""

    def __init__(self, pixels: NDArray[np.generic], points: Array, factors: Array, turned: bool) -> None:
        self.image: Pixels
        self.image, self.scale = working_image(pixels, factors)
        self.turned = turned
        self.right = self.image.shape[1] - 1.0
        if turned:
            self.image = np.ascontiguousarray(cv2.flip(self.image, 1), dtype=np.float32)
        self.points = self._mirrored((points + 0.5) * self.scale - 0.5)

    def back(self, points: Array) -> Array:
        """Return points of the small image as points of the original."""
        return np.asarray((self._mirrored(points) + 0.5) / self.scale - 0.5)

    def _mirrored(self, points: Array) -> Array:
        return np.stack([self.right - points[..., 0], points[..., 1]], axis=-1) if self.turned else points


def usable_half(misfit: Array, starts: Sequence[Array | None]) -> NDArray[np.intp]:
    """Return the half of the shapes that agree best, of those that have a pose."""
    posable = np.array([start is not None for start in starts])
    order = np.argsort(np.where(posable, misfit, np.inf), kind="stable")
    return order[: max(1, int(posable.sum()) // 2)]


@dataclass(frozen=True)
class _Flip:
    """A mirror image that means the same: ``shape[order]`` is nearly ``shape * signs``."""

    signs: tuple[int, int]
    order: NDArray[np.intp]


def _flips(shape: Array, orders: NDArray[np.intp]) -> tuple[_Flip, ...]:
    """Return the signs of x and y under which the mean shape is itself again, in an equivalent order."""
    known = are_known(shape)
    found = [_Flip((1, 1), orders[0])]
    for signs in ((1, -1), (-1, 1), (-1, -1)):
        away = np.linalg.norm(shape[orders] - shape * signs, axis=-1)[:, known].max(axis=1)
        if away.min() < _ALIKE:
            found.append(_Flip(signs, orders[int(np.argmin(away))]))
    return tuple(found)


def _symmetric(places: Array, flips: Sequence[_Flip]) -> Array:
    """Return the mean of places ``(N, 2)`` over the mirror images that mean the same, as the template is, too."""
    return np.asarray(np.mean([places[flip.order] * flip.signs for flip in flips], axis=0))


def _places(
    frame: Template, ordered: Array, poses: Array, shape: Array, orders: NDArray[np.intp], good: NDArray[np.intp]
) -> Array:
    """Return the landmarks' places in the template ``(N, 2)``: medians over images with usual labels."""
    seen = frame.in_template(ordered, poses)[good]
    known = are_known(seen)
    laid = []
    for places, here in zip(seen, known):
        away = np.where(here, np.linalg.norm(places[orders] - shape, axis=-1), 0.0)
        laid.append(places[orders[int(np.argmin(np.nan_to_num(away, nan=9.0).max(axis=1)))]])
    stacked = np.array(laid).reshape(len(laid), -1)
    medians = [np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan for column in stacked.T]
    return np.array(medians).reshape(-1, 2)


def _compared(
    points: Array, usable: NDArray[np.intp], views: Sequence[_View], expected: Array, orders: NDArray[np.intp]
) -> Evidence:
    all_expected = np.full(points.shape, np.nan)
    labelled = are_known(points)
    for row, view, places in zip(usable, views, expected):
        all_expected[row] = best_order(points[row], view.back(places), labelled[row], orders)
    whole = are_known(all_expected)
    share = np.linalg.norm(points - all_expected, axis=-1) / sizes(all_expected, whole)[:, None]
    return Evidence("image", times_usual(share, share), all_expected, {})
