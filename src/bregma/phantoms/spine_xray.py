"""What a lumbar spine and its surroundings take from a lateral X-ray beam, in natural-log units of attenuation.

Shapes are given in the spine's millimetres (see :mod:`bregma.phantoms.spine`) and drawn through one matrix to pixels.
Bodies are elliptical cylinders seen from the side, with a thin dense shell; posterior elements are flat plates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from bregma import geometry
from bregma.geometry import Array
from bregma.phantoms.base import Rng
from bregma.phantoms.drawing import Image, correlated_noise, curve, ellipse_chord, polygon, ramp, smooth_outline, window
from bregma.phantoms.spine import Spine
from bregma.phantoms.vertebra import (
    INFERIOR_PROCESS,
    PEDICLE,
    SPINOUS_PROCESS,
    SUPERIOR_PROCESS,
    body_edges,
    local_frame,
    sacral_bodies,
    sacral_crest,
)

_ILIUM = (
    (-112, 96),
    (-104, 40),
    (-84, 6),
    (-52, -20),
    (-14, -33),
    (20, -27),
    (44, -4),
    (50, 22),
    (36, 40),
    (8, 62),
    (-6, 130),
    (-90, 140),
)
_RIB = ((10, 4), (24, 8), (33, 20), (30, 44), (12, 76), (-22, 106), (-66, 130), (-112, 146))
_LUNG = (
    (-150, -360),
    (90, -360),
    (84, -262),
    (66, -214),
    (30, -194),
    (-8, -204),
    (-60, -226),
    (-120, -214),
    (-160, -190),
)


_ILIUM_OUTLINE = smooth_outline(_ILIUM)
_RIB_LINE = smooth_outline(_RIB)[: 8 * (len(_RIB) - 1)]
_RIBS = (("T9", 1.0), ("T10", 1.0), ("T11", 0.75), ("T12", 0.5))
"""Level of a rib and how much of the full line it has."""
_PLATES = ((PEDICLE, 0.22), (SUPERIOR_PROCESS, 0.16), (INFERIOR_PROCESS, 0.20), (SPINOUS_PROCESS, 0.15))


@dataclass(frozen=True)
class BodyLook:
    """How a vertebral body looks, beyond its four corners.

    Attributes:
        spongy: attenuation through the middle of the body.
        wall: extra attenuation of the anterior and posterior wall.
        endplate: extra attenuation of the endplates.
        waist_mm: depth to which the walls are hollowed between the corners.
        hollow_mm: depth to which the endplates are hollowed.
        shell_mm: distance over which wall and endplate fade into the body.
        tilt_mm: spread of an endplate seen a little from above or below; its middle stays where it is.
    """

    spongy: float = 0.30
    wall: float = 0.20
    endplate: float = 0.32
    waist_mm: float = 1.8
    hollow_mm: float = 1.4
    shell_mm: float = 0.9
    tilt_mm: float = 0.0


def add_body(canvas: Image, corners: ArrayLike, pixel_mm: float, look: BodyLook) -> None:
    """Add one vertebral body to ``canvas``.

    The outline passes exactly through the corners ``(4, 2)`` (pixels, in the order of ``spine.PARTS``); between them it
    is hollowed. On the outline a pixel holds half of the edge's attenuation.
    """
    edges = body_edges((canvas.shape[0], canvas.shape[1]), corners, pixel_mm, look.waist_mm, look.hollow_mm)
    front, back, top, bottom = edges.front, edges.back, edges.top, edges.bottom
    spread = np.float32(1 + 2 * look.tilt_mm / pixel_mm)
    mask = ramp(front) * ramp(back) * ramp(top / spread) * ramp(bottom / spread)
    across = (front - back) / np.maximum(front + back, np.float32(1.0))
    chord = np.maximum(ellipse_chord(across, 1.0, power=4.0), np.float32(0.35))
    fade = np.float32(pixel_mm / look.shell_mm)
    shell = np.exp(-fade * np.clip(front, 0, None)) + np.exp(-fade * np.clip(back, 0, None))
    plates = np.exp(-fade / spread * np.clip(top, 0, None)) + np.exp(-fade / spread * np.clip(bottom, 0, None))
    body = look.spongy * chord + look.wall * shell + look.endplate / math.sqrt(spread) * plates * chord
    canvas[edges.rows, edges.columns] += mask * body


def spine_attenuation(shape: tuple[int, int], spine: Spine, to_px: Array, look: BodyLook) -> Image:
    """Draw all vertebral bodies, the sacrum and the posterior elements."""
    pixel_mm = 1.0 / geometry.mean_scale(to_px)
    total = np.zeros(shape, dtype=np.float32)
    for corners in spine.bodies.values():
        add_body(total, geometry.apply(to_px, corners), pixel_mm, look)
    for index, corners in enumerate(sacral_bodies(spine)):
        part = look if index == 0 else _fused(look)
        add_body(total, geometry.apply(to_px, corners), pixel_mm, part)
    _add_posterior_elements(total, spine, to_px)
    return total


def _fused(look: BodyLook) -> BodyLook:
    return BodyLook(0.7 * look.spongy, 0.8 * look.wall, 0.2 * look.endplate, 1.0, 0.5, look.shell_mm, look.tilt_mm)


def _add_posterior_elements(canvas: Image, spine: Spine, to_px: Array) -> None:
    size = spine.parameters.size
    for level, corners in spine.bodies.items():
        frame = geometry.compose(geometry.scale(size * (0.85 if level == "L5" else 1.0)), local_frame(corners), to_px)
        for outline, value in _PLATES:
            _add_plate(canvas, geometry.apply(frame, outline), value)
    _add_plate(canvas, geometry.apply(to_px, sacral_crest(spine)), 0.2)


def _add_plate(canvas: Image, outline: Array, value: float) -> None:
    """Add a flat piece of bone with a dense rim."""
    rows, columns = window((canvas.shape[0], canvas.shape[1]), outline, 2)
    part = canvas[rows, columns]
    if part.size:
        local = outline - (columns.start, rows.start)
        shape = (part.shape[0], part.shape[1])
        rim = curve(shape, local, 2.0, closed=True)
        part += np.float32(value) * polygon(shape, local) * (np.float32(0.75) + np.float32(0.5) * rim)


def surroundings(rng: Rng, shape: tuple[int, int], spine: Spine, to_px: Array, *, gas: float, clutter: float) -> Image:
    """Draw soft tissue, lung, bowel gas (about ``gas`` bubbles), pelvis and ribs (weighted by ``clutter``)."""
    small = (max(2, shape[0] // 2), max(2, shape[1] // 2))
    to_small = geometry.compose(to_px, geometry.resize(shape, small))
    soft = _soft_tissue(rng, small, spine, to_small) - _gas(rng, small, to_small, gas)
    large = cv2.resize(soft, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, dtype=np.float32) + np.float32(clutter) * _overlying_bone(rng, shape, spine, to_px)


def _soft_tissue(rng: Rng, shape: tuple[int, int], spine: Spine, to_px: Array) -> Image:
    """Elliptical trunk, denser pelvis, aerated lung bases and uneven tissue."""
    back = geometry.invert(to_px).astype(np.float32)
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x_mm = back[0, 0] * x + back[0, 1] * y + back[0, 2]
    y_mm = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    front, behind = rng.uniform(120, 175), rng.uniform(72, 100)
    centres = np.array([corners.mean(axis=0) for corners in spine.bodies.values()])
    bend = np.interp(y_mm.ravel(), centres[:, 1], centres[:, 0]).reshape(shape).astype(np.float32)
    middle = 0.45 * bend + 0.55 * centres[:, 0].mean() + (behind - front) / 2
    chord = ellipse_chord(x_mm - cv2.blur(middle, (1, shape[0] // 6)), (front + behind) / 2, power=2.6)
    pelvis = rng.uniform(0.25, 0.5) / (1 + np.exp(-(y_mm + rng.uniform(-10, 20)) / 16))
    lift = rng.uniform(-25, 30)
    lung = cv2.GaussianBlur(
        polygon(shape, geometry.apply(to_px, smooth_outline(np.add(_LUNG, (0, lift))))), (0, 0), 1.5
    )
    uneven = 0.06 * correlated_noise(rng, shape, shape[0] / 6, octaves=4) * chord
    aerated = rng.uniform(0.25, 0.45) * lung * np.minimum(2 * chord, 1)
    return np.asarray(2.0 * chord + pelvis - aerated + uneven, dtype=np.float32)


def _gas(rng: Rng, shape: tuple[int, int], to_px: Array, amount: float) -> Image:
    """Bubbles of bowel gas in front of the spine, now and then over it."""
    total = np.zeros(shape, dtype=np.float32)
    count = rng.poisson(amount)
    centres = np.column_stack([rng.normal(-88, 26, count), rng.normal(-70, 55, count)])
    for centre, radius in zip(centres, rng.gamma(5.0, 2.0, count) + 3, strict=True):
        angles = np.arange(0, 2 * math.pi, math.pi / 5)
        lobes = radius * (1 + 0.22 * rng.standard_normal(len(angles)))
        stretch, depth = rng.uniform(0.7, 1.5), rng.uniform(0.12, 0.3)
        outline = centre + np.column_stack([lobes * np.cos(angles) * stretch, lobes * np.sin(angles) / stretch])
        total += np.float32(depth) * polygon(shape, geometry.apply(to_px, smooth_outline(outline)))
    return np.asarray(cv2.GaussianBlur(total, (0, 0), 1.6), dtype=np.float32)


def _overlying_bone(rng: Rng, shape: tuple[int, int], spine: Spine, to_px: Array) -> Image:
    """Both iliac wings and the lowest ribs of both sides."""
    scale = geometry.mean_scale(to_px)
    total = np.zeros(shape, dtype=np.float32)
    lift, turn = rng.uniform(-8, 12), rng.normal(0, 5)
    for side in (-1.0, 1.0):
        shift = geometry.translate(side * rng.uniform(0, 5), lift + side * rng.uniform(1, 5))
        size = geometry.scale(spine.parameters.size * (1 + 0.03 * side))
        outline = geometry.apply(geometry.compose(size, geometry.rotate(turn), shift, to_px), _ILIUM_OUTLINE)
        total += 0.07 * polygon(shape, outline) + 0.11 * curve(shape, outline, 1.8 * scale, closed=True)
        for level, part in _RIBS:
            bend = geometry.compose(
                geometry.rotate(rng.normal(0, 4) + 3 * side), geometry.scale(rng.uniform(0.85, 1.1))
            )
            frame = geometry.compose(bend, local_frame(spine.bodies[level]), to_px)
            line = geometry.apply(frame, _RIB_LINE[: int(part * len(_RIB_LINE))])
            total += 0.14 * curve(shape, line, 8 * scale) - 0.06 * curve(shape, line, 5 * scale)
    return np.asarray(cv2.GaussianBlur(total, (0, 0), max(0.5 * scale, 0.4)), dtype=np.float32)
