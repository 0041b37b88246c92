"""Sagittal T1-weighted slices through a lumbar spine: tissue painted over tissue, signal relative to that of fat.

Fat is bright, muscle and discs are grey, fluid is dark, cortical bone and flowing blood are nearly black; the marrow
lies between water and fat by its fat fraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bregma import geometry
from bregma.geometry import Array
from bregma.phantoms.base import Rng
from bregma.phantoms.drawing import Image, correlated_noise, polygon, ramp, smooth_outline
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

FAT, MARROW_WATER, DISC, MUSCLE, FLUID, CORD, CORTEX, BLOOD, ORGAN = 1.0, 0.26, 0.34, 0.36, 0.15, 0.30, 0.07, 0.10, 0.42
"""Signals of T1-weighted spin echo relative to subcutaneous fat."""
_HALF_WIDTH_MM = 24.0
_FLAT_MM = 5.0
"""So far from the midline the bodies look as they do in it, so that the truth of a slice a little aside is exact."""
_RIM_MM, _WAIST_MM, _HOLLOW_MM = 0.9, 1.6, 1.5


@dataclass(frozen=True)
class Habitus:
    """The soft tissue around a spine, in millimetres.

    Attributes:
        front: from the spine to the anterior skin.
        behind: from the spine to the posterior skin.
        fat_behind: thickness of the subcutaneous fat of the back.
        fat_front: thickness of the subcutaneous fat of the belly.
        canal: sagittal width of the spinal canal.
        visceral_fat: share of fat among the abdominal organs.
    """

    front: float
    behind: float
    fat_behind: float
    fat_front: float
    canal: float
    visceral_fat: float


def sample_habitus(rng: Rng) -> Habitus:
    """Draw the soft tissue of one adult."""
    return Habitus(
        front=rng.uniform(85, 150),
        behind=rng.uniform(68, 88),
        fat_behind=rng.gamma(5.0, 3.0) + 4,
        fat_front=rng.gamma(5.0, 4.0) + 5,
        canal=rng.uniform(14, 19),
        visceral_fat=rng.uniform(0.2, 0.7),
    )


def marrow_signal(fat: float) -> float:
    """Return the T1 signal of marrow of a given fat fraction relative to pure fat."""
    return (1 - fat) * MARROW_WATER + fat * FAT


def paint_slice(
    rng: Rng,
    shape: tuple[int, int],
    spine: Spine,
    habitus: Habitus,
    fat: Mapping[str, float],
    to_px: Array,
    lateral_mm: float,
) -> Image:
    """Paint the noise-free slice that lies ``lateral_mm`` beside the mid-sagittal plane.

    Args:
        rng: for organs and texture.
        shape: rows and columns.
        spine: the skeleton.
        habitus: the soft tissue.
        fat: marrow fat fraction by level, for L1 to L5; the other bones take their neighbour's.
        to_px: matrix from the spine's millimetres to pixels.
        lateral_mm: distance from the midline; bodies are half as wide as 24 mm each side.
    """
    mm = 1.0 / geometry.mean_scale(to_px)
    signal = _trunk(rng, shape, spine, habitus, to_px)
    across = max(abs(lateral_mm) - _FLAT_MM, 0.0) / (_HALF_WIDTH_MM * spine.parameters.size - _FLAT_MM)
    if abs(lateral_mm) < 11:
        _blend(signal, 0.9 * _vessel(shape, spine, to_px), BLOOD)
    if abs(lateral_mm) < habitus.canal * 0.62:
        _canal(signal, spine, habitus, to_px, abs(lateral_mm) / (habitus.canal * 0.62))
    _posterior_bone(signal, spine, fat, to_px, abs(lateral_mm))
    if across < 1:
        _anterior_column(signal, spine, fat, to_px, mm, across)
    texture = 1 + 0.05 * correlated_noise(rng, shape, 4.0 / mm, octaves=2)
    return np.asarray(np.maximum(signal * texture, 0), dtype=np.float32)


def _blend(canvas: Image, share: NDArray[Any], value: float | Image) -> None:
    canvas += share * (value - canvas)


def _trunk(rng: Rng, shape: tuple[int, int], spine: Spine, habitus: Habitus, to_px: Array) -> Image:
    """Skin, subcutaneous fat, back muscles with fatty streaks, and mottled abdominal organs."""
    canvas = np.full(shape, 0.004, dtype=np.float32)
    line = _column_line(spine)
    skin_behind = habitus.behind + 4 + 9 * np.sin((line[:, 1] + 40) / 45)
    calm = 0.75 * (line[:, 0].mean() - line[:, 0])
    skin_front = calm - habitus.front + 9 * ((line[:, 1] + 110) / 100) ** 2
    _blend(canvas, _between(shape, line, skin_front, skin_behind, to_px), 0.55)
    _blend(canvas, _between(shape, line, skin_front + 2, skin_behind - 2, to_px), FAT)
    mm = 1.0 / geometry.mean_scale(to_px)
    wild = correlated_noise(rng, shape, 26.0 / mm, octaves=4)
    inside = _between(shape, line, skin_front + habitus.fat_front, 0.0, to_px)
    fatty = np.clip(0.5 + 1.6 * (wild + 1.6 * (habitus.visceral_fat - 0.5)), 0, 1)
    _blend(canvas, inside, ORGAN + (0.9 * FAT - ORGAN) * fatty - 0.12 * np.clip(-wild - 0.8, 0, 1.5))
    streaks = np.clip(correlated_noise(rng, shape, 7.0 / mm, octaves=2) - 0.7, 0, 1)
    muscle = _between(shape, line, -2.0, skin_behind - habitus.fat_behind, to_px)
    _blend(canvas, muscle, np.asarray(MUSCLE + 0.45 * streaks, dtype=np.float32))
    return canvas


def _column_line(spine: Spine) -> Array:
    """Points ``(N, 2)`` down the posterior wall, from above T6 to below the sacrum."""
    walls = [corner for corners in spine.bodies.values() for corner in (corners[1], corners[3])]
    sacrum = [corners[part] for corners in sacral_bodies(spine) for part in (1, 3)]
    points = np.array([walls[0] + (0.0, -60.0), *walls, *sacrum, sacrum[-1] + (-5.0, 60.0)])
    y = np.linspace(points[0, 1], points[-1, 1], 96)
    x = np.interp(y, points[:, 1], points[:, 0])
    x = np.convolve(np.pad(x, 4, mode="edge"), np.full(9, 1 / 9), mode="valid")
    return np.column_stack([x, y])


def _between(shape: tuple[int, int], line: Array, front: Array | float, back: Array | float, to_px: Array) -> Image:
    """Coverage of the strip between two offsets (mm, positive to the back) along a line."""
    forth = np.column_stack([line[:, 0] + front, line[:, 1]])
    home = np.column_stack([line[:, 0] + back, line[:, 1]])
    return polygon(shape, geometry.apply(to_px, np.concatenate([forth, home[::-1]])))


def _vessel(shape: tuple[int, int], spine: Spine, to_px: Array) -> Image:
    """The aorta or vena cava in front of the spine; it leaves the plane at L4, where it divides."""
    walls = np.array([corner for level in list(spine.bodies)[:-1] for corner in spine.bodies[level][[0, 2]]])
    y = np.linspace(walls[0, 1] - 40, walls[-2, 1] + 15, 48)
    x = np.interp(y, walls[:, 1], walls[:, 0])
    x = 0.5 * (x + x.mean()) - 4
    half = 6.5 * np.sqrt(np.clip((y[-1] - y) / 40, 0, 1))
    strip = _between(shape, np.column_stack([x, y]), -7 - half, -7 + half, to_px)
    return np.asarray(cv2.GaussianBlur(strip, (0, 0), 1.2), dtype=np.float32)


def _canal(canvas: Image, spine: Spine, habitus: Habitus, to_px: Array, beside: float) -> None:
    """Epidural fat, dural sac and, down to L1, the cord; below it the roots lie at the back of the sac."""
    shape = (canvas.shape[0], canvas.shape[1])
    line = _column_line(spine)
    end = spine.sacrum[1, 1]
    taper = np.clip(1 - (line[:, 1] - end) / 45, 0.15, 1)
    width = habitus.canal * np.sqrt(max(1 - beside**2, 0.05)) * taper
    between_arches = 1.5 + 2.5 * np.clip(np.sin(line[:, 1] * (2 * np.pi / (36 * spine.parameters.size))), 0, 1)
    _blend(canvas, _between(shape, line, -0.5, width + between_arches, to_px), 0.75 * FAT)
    sac = line[:, 1] < end + 28
    _blend(canvas, _between(shape, line[sac], 1.0, width[sac] - 1.0, to_px), FLUID)
    cord = line[:, 1] < spine.bodies["L1"][3, 1]
    middle = 0.55 * width[cord]
    _blend(canvas, _between(shape, line[cord], middle - 3.5, middle + 3.5, to_px), CORD)
    roots = sac & ~cord
    _blend(canvas, 0.7 * _between(shape, line[roots], 0.6 * width[roots], 0.9 * width[roots], to_px), CORD)


def _posterior_bone(canvas: Image, spine: Spine, fat: Mapping[str, float], to_px: Array, beside: float) -> None:
    """Spinous processes near the midline; pedicles and articular processes further out."""
    size = spine.parameters.size
    if beside < 5:
        parts: tuple[Array, ...] = (SPINOUS_PROCESS,)
    elif 8 < beside < 20:
        parts = (PEDICLE, SUPERIOR_PROCESS, INFERIOR_PROCESS)
        foramina = _between((canvas.shape[0], canvas.shape[1]), _column_line(spine), 0.0, 12.0, to_px)
        _blend(canvas, foramina, 0.85 * FAT)
    else:
        return
    for level, corners in spine.bodies.items():
        frame = geometry.compose(geometry.scale(size * (0.85 if level == "L5" else 1.0)), local_frame(corners), to_px)
        for outline in parts:
            _bone(canvas, geometry.apply(frame, outline), marrow_signal(_fat_of(fat, level)))
    if beside < 5:
        _bone(canvas, geometry.apply(to_px, sacral_crest(spine)), marrow_signal(_fat_of(fat, "S1")))


def _fat_of(fat: Mapping[str, float], level: str) -> float:
    return fat.get(level, fat["L5"] if level.startswith("S") else fat["L1"])


def _bone(canvas: Image, outline: Array, value: float) -> None:
    shape = (canvas.shape[0], canvas.shape[1])
    cover = polygon(shape, outline)
    _blend(canvas, 0.85 * cover, CORTEX)
    inner = outline.mean(axis=0) + 0.88 * (outline - outline.mean(axis=0))
    _blend(canvas, polygon(shape, inner), value)


def _anterior_column(
    canvas: Image, spine: Spine, fat: Mapping[str, float], to_px: Array, mm: float, across: float
) -> None:
    """Discs first, then the bodies over them."""
    levels = [*spine.bodies, "S1"]
    sacral = sacral_bodies(spine)
    bodies = {**spine.bodies, **{f"S{i + 1}": corners for i, corners in enumerate(sacral)}}
    cut = {level: _beside(corners, across) for level, corners in bodies.items()}
    for upper, lower in pairwise(levels):
        _disc(canvas, geometry.apply(to_px, np.array([*cut[upper][2:], *cut[lower][:2]])), mm)
    for level, corners in cut.items():
        _body(canvas, geometry.apply(to_px, corners), mm, marrow_signal(_fat_of(fat, level)))


def _beside(corners: Array, across: float) -> Array:
    """Corners of the section through a body at a share ``across`` of its half width: shorter in front, and behind."""
    loss = 1 - np.sqrt(1 - across**2)
    ends = []
    for anterior, posterior in (corners[:2], corners[2:]):
        ends += [anterior + 0.55 * loss * (posterior - anterior), posterior - 0.2 * loss * (posterior - anterior)]
    return np.array(ends)


def _disc(canvas: Image, corners: Array, mm: float) -> None:
    """A disc that fills the hollows of both endplates and bulges a little; its ring is darker than its core."""
    shape = (canvas.shape[0], canvas.shape[1])
    upper_ant, upper_post, lower_ant, lower_post = corners
    out = 0.06 * (upper_ant - upper_post)
    up = (upper_ant + upper_post - lower_ant - lower_post) / 2
    up *= _HOLLOW_MM / mm / np.hypot(*up)
    front, back = (upper_ant + lower_ant) / 2 + out, (upper_post + lower_post) / 2 - out
    above, below = (upper_ant + upper_post) / 2 + 1.4 * up, (lower_ant + lower_post) / 2 - 1.4 * up
    outline = np.array([upper_ant, above, upper_post, back, lower_post, below, lower_ant, front])
    _blend(canvas, cv2.GaussianBlur(polygon(shape, smooth_outline(outline)), (0, 0), 0.6), 0.5 * DISC)
    middle = outline.mean(axis=0)
    core = smooth_outline(middle + 0.82 * (outline - middle))
    _blend(canvas, cv2.GaussianBlur(polygon(shape, core), (0, 0), 1.0), DISC)


def _body(canvas: Image, corners: Array, mm: float, value: float) -> None:
    """Dark cortical rim whose outer edge is the truth, marrow inside, and the basivertebral vein behind."""
    edges = body_edges((canvas.shape[0], canvas.shape[1]), corners, mm, _WAIST_MM, _HOLLOW_MM)
    sides = (edges.front, edges.back, edges.top, edges.bottom)
    outer, inner = np.ones_like(edges.front), np.ones_like(edges.front)
    for side in sides:
        outer *= ramp(side)
        inner *= ramp(side - np.float32(_RIM_MM / mm))
    part = canvas[edges.rows, edges.columns]
    _blend(part, outer, CORTEX)
    _blend(part, inner, value)
    vein = np.exp(-((edges.back * mm / 4) ** 2) - ((edges.top - edges.bottom) * mm / 5) ** 2)
    _blend(part, 0.5 * inner * vein, 0.75 * FAT)
