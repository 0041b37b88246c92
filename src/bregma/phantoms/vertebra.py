"""Parts of a lumbar vertebra and of the sacrum as shapes, shared by the projections and the slices that show them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from bregma.geometry import Array
from bregma.phantoms.drawing import Image, smooth_outline, window
from bregma.phantoms.spine import Spine

PEDICLE = smooth_outline(((-2, 3), (6, 4), (13, 5), (13, 12), (6, 12), (-2, 13)))
SUPERIOR_PROCESS = smooth_outline(((9, 8), (9, -2), (11, -9), (15, -8), (17, 0), (17, 10), (13, 14)))
INFERIOR_PROCESS = smooth_outline(
    ((10, 6), (18, 4), (22, 14), (23, 26), (22, 36), (18, 41), (15, 38), (15, 28), (12, 18))
)
SPINOUS_PROCESS = smooth_outline(
    ((18, 10), (28, 10), (40, 13), (50, 18), (53, 26), (49, 34), (40, 33), (30, 28), (20, 25))
)
"""Outlines ``(N, 2)`` of the posterior elements in a vertebra's own millimetres, see :func:`local_frame`."""


@dataclass(frozen=True)
class BodyEdges:
    """Signed distances in pixels, positive inside, from the four sides of a vertebral body.

    Attributes:
        rows: rows of the window in which the distances hold.
        columns: its columns.
        front: ``(h, w)`` distance from the anterior wall.
        back: from the posterior wall.
        top: from the superior endplate.
        bottom: from the inferior endplate.
    """

    rows: slice
    columns: slice
    front: Image
    back: Image
    top: Image
    bottom: Image


def body_edges(
    shape: tuple[int, int], corners: ArrayLike, pixel_mm: float, waist_mm: float, hollow_mm: float
) -> BodyEdges:
    """Measure distances from the outline of a body that passes exactly through ``corners``.

    Args:
        shape: the image.
        corners: ``(4, 2)`` in pixels, in the order of ``spine.PARTS``.
        pixel_mm: millimetres per pixel.
        waist_mm: depth to which the anterior wall is hollowed between its corners; the posterior one 0.6 of it.
        hollow_mm: depth to which the endplates are hollowed.
    """
    quad = np.asarray(corners, dtype=np.float32)
    rows, columns = window(shape, quad, 3)
    s, t = _unit_square(quad, rows, columns)
    depth = 0.5 * (math.dist(quad[0], quad[1]) + math.dist(quad[2], quad[3]))
    height = 0.5 * (math.dist(quad[0], quad[2]) + math.dist(quad[1], quad[3]))
    waist = np.float32(4 * waist_mm / pixel_mm / depth) * np.clip(t * (1 - t), 0, None)
    hollow = np.float32(4 * hollow_mm / pixel_mm / height) * np.clip(s * (1 - s), 0, None)
    front, back = (s - waist) * depth, (1 - s - np.float32(0.6) * waist) * depth
    return BodyEdges(rows, columns, front, back, (t - hollow) * height, (1 - t - hollow) * height)


def _unit_square(quad: Image, rows: slice, columns: slice) -> tuple[Image, Image]:
    """Return, for a window of pixels, the position from front to back and from top to bottom of the body, 0 to 1."""
    square = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    h = cv2.getPerspectiveTransform(quad, square).astype(np.float32)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    w = h[2, 0] * x + h[2, 1] * y + h[2, 2]
    return (h[0, 0] * x + h[0, 1] * y + h[0, 2]) / w, (h[1, 0] * x + h[1, 1] * y + h[1, 2]) / w


def sacral_bodies(spine: Spine) -> list[Array]:
    """Return the corners of the sacral bodies S1 to S5, each ``(4, 2)`` in the order of ``spine.PARTS``."""
    anterior, posterior = spine.sacrum
    bodies, size = [], spine.parameters.size
    angle = spine.parameters.sacral_slope_deg
    for height, depth, turn in ((30, 23, 3), (25, 17, 8), (21, 14, 2), (18, 11, -14), (15, 9, -22)):
        turned = math.radians(angle + turn / 2)
        down = np.array([math.sin(turned), math.cos(turned)])
        angle += turn
        along = np.array([-math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        lower_post = posterior + size * height * down - 0.12 * size * height * np.array([down[1], -down[0]])
        lower_ant = lower_post + size * depth * along
        bodies.append(np.array([anterior, posterior, lower_ant, lower_post]))
        anterior, posterior = lower_ant + 0.8 * size * down, lower_post + 0.8 * size * down
    return bodies


def local_frame(corners: Array) -> Array:
    """Return the matrix from a vertebra's own millimetres (origin at its superior-posterior corner) to the spine's.

    There, x runs backwards along the endplates and y down.
    """
    back = (corners[1] - corners[0]) + (corners[3] - corners[2])
    c, s = back / np.hypot(*back)
    return np.array([[c, -s, corners[1][0]], [s, c, corners[1][1]], [0.0, 0.0, 1.0]])


def sacral_crest(spine: Spine) -> Array:
    """Outline of the fused laminae and spinous processes behind the sacral canal."""
    wall = np.array([corners[1] for corners in sacral_bodies(spine)])
    along = np.gradient(wall, axis=0)
    behind = np.column_stack([along[:, 1], -along[:, 0]]) / np.hypot(*along.T)[:, None]
    size = spine.parameters.size
    inner = wall + size * np.array([13.0, 11.0, 9.0, 6.0, 3.0])[:, None] * behind
    outer = wall + size * np.array([25.0, 26.0, 21.0, 13.0, 6.0])[:, None] * behind
    return smooth_outline(np.concatenate([inner, outer[::-1]]))
