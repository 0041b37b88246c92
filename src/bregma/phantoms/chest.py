"""Frontal chest radiograph of a known cardiothoracic ratio, as a ray-sum of soft tissue, air and bone.

The patient's axis is upright in the image, so that the horizontal widths of the radiologist's definition (Danzer, Am J
Med Sci 1919; 157:513-521) are those of the anatomy. Right is the patient's right, on the left of the image.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.interpolate import PchipInterpolator

from bregma.config import Config
from bregma.geometry import Array
from bregma.phantoms.base import Difficulty, Phantom, PhantomSettings, Rng
from bregma.phantoms.chest_anatomy import Chest, ChestView, Lung, chest_points, sample_chest
from bregma.phantoms.drawing import (
    Image,
    add_scatter,
    blur,
    correlated_noise,
    ellipse_chord,
    ellipsoid_thickness,
    quantum_noise,
    ramp,
    to_display,
    write_marker,
)
from bregma.phantoms.sampling import TruncatedNormal

SOFT_TISSUE = 0.019
"""Linear attenuation of soft tissue, 1/mm, at the mean energy behind a chest filter (about 70 keV)."""
BONE = 0.05
"""Linear attenuation of bone, 1/mm."""
AERATION = 0.78
"""Share of the lung that is air."""
MURRAY = 2.0 ** (-1 / 3)
"""Width of either of two equal daughter vessels over the mother's (Murray, Proc Natl Acad Sci 1926; 12:207-214)."""
CTR_POINTS = ("heart_right", "heart_left", "thorax_inner_right", "thorax_inner_left")


class ChestNuisance(Config):
    """What makes a chest radiograph hard to read; the defaults are the medium difficulty."""

    photons: float = Field(default=8000.0, gt=0)
    """Quanta that a pixel would collect without the patient; fewer mean more noise."""
    scatter: float = Field(default=0.12, ge=0, lt=1)
    """Share of scattered radiation."""
    opacity: float = Field(default=0.15, ge=0, le=1)
    """Strength of patchy shadows in the lungs, 1 as in severe pneumonia."""
    cables: int = Field(default=0, ge=0)
    """Number of cables that lie over the chest."""
    offset: float = Field(default=0.03, ge=0)
    """Deviation of the chest's place from the middle, as a share of the image."""
    exposure: float = Field(default=0.12, ge=0)
    """Spread of the display's window and gamma."""


NUISANCE: dict[Difficulty, ChestNuisance] = {
    "easy": ChestNuisance(photons=20000.0, scatter=0.08, opacity=0.0, offset=0.01, exposure=0.03),
    "medium": ChestNuisance(),
    "hard": ChestNuisance(photons=3000.0, scatter=0.25, opacity=0.7, cables=3, offset=0.05, exposure=0.25),
}
"""Difficulty to nuisance."""


class ChestSettings(PhantomSettings):
    """Settings of the frontal chest radiograph."""

    cardiothoracic_ratio: TruncatedNormal = TruncatedNormal(mean=0.48, sd=0.06, low=0.36, high=0.66)
    """How the ratio is spread over patients."""
    thoracic_width_mm: TruncatedNormal = TruncatedNormal(mean=285.0, sd=20.0, low=245.0, high=325.0)
    """How the greatest inner width is spread over patients."""
    nuisance: ChestNuisance | None = None
    """Replaces the nuisance that the difficulty stands for."""

    @property
    def resolved_nuisance(self) -> ChestNuisance:
        """The nuisance in force."""
        return self.nuisance or NUISANCE[self.difficulty]


def draw_chest_ctr(settings: ChestSettings, subject_rng: Rng, image_rng: Rng) -> Phantom:
    """Draw one frontal chest radiograph with the points of schema ``chest_ctr``.

    Targets are ``cardiothoracic_ratio``, ``cardiac_width_mm`` and ``thoracic_width_mm``.
    """
    nuisance = settings.resolved_nuisance
    chest = sample_chest(settings.cardiothoracic_ratio, settings.thoracic_width_mm, subject_rng)
    view = _sample_view(settings, nuisance, chest, image_rng)
    attenuation = _soft_tissue(chest, view, nuisance, image_rng) + _bones(chest, view, subject_rng)
    return Phantom(
        pixels=_expose(attenuation, view, nuisance, image_rng),
        points=chest_points(chest, view),
        spacing=(view.spacing, view.spacing),
        targets={
            "cardiothoracic_ratio": chest.ratio,
            "cardiac_width_mm": chest.right.heart + chest.left.heart,
            "thoracic_width_mm": chest.right.width + chest.left.width,
        },
        tags={"opacity": nuisance.opacity},
    )


def draw_chest(settings: ChestSettings, subject_rng: Rng, image_rng: Rng) -> Phantom:
    """Draw one frontal chest radiograph with the fifteen points of schema ``chest``."""
    full = draw_chest_ctr(settings, subject_rng, image_rng)
    points = {name: point for name, point in full.points.items() if name not in CTR_POINTS}
    return Phantom(full.pixels, points, full.spacing, full.targets, full.tags)


def _sample_view(settings: ChestSettings, nuisance: ChestNuisance, chest: Chest, rng: Rng) -> ChestView:
    height, width = settings.size
    room = float(rng.uniform(1.12, 1.32))
    across = (chest.right.width + chest.left.width) * room / width
    along = chest.base_level * (room + 0.08) / height
    spacing = settings.spacing or max(across, along)
    dx, dy = np.clip(rng.normal(0, nuisance.offset, 2), -0.05, 0.05)
    margin = height - chest.base_level / spacing
    top = (0.45 + dy) * margin
    return ChestView((height, width), spacing, (width - 1) / 2 + dx * width * (room - 1), top)


def _soft_tissue(chest: Chest, view: ChestView, nuisance: ChestNuisance, rng: Rng) -> Image:
    """Return the attenuation of the body without its bones, air taken out."""
    x, y = view.grid()
    thickness = _body(chest, x, y)
    air = np.zeros(view.shape, dtype=np.float32)
    for lung, sign in ((chest.right, -1), (chest.left, 1)):
        columns = slice(None, max(0, math.ceil(view.axis))) if sign < 0 else slice(max(0, math.ceil(view.axis)), None)
        air[:, columns] = _lung_air(chest, lung, sign * x[:, columns], y, view.spacing)
    vessels = _vessels(chest, view, rng)
    patches = correlated_noise(rng, view.shape, 0.16 * view.shape[1], octaves=4)
    clouds = np.float32(nuisance.opacity) * np.clip(0.15 + 0.4 * patches, 0, 0.75)
    air *= (1 - clouds) * (1 - vessels)
    air += _airway(chest, view) + _stomach(chest, view, rng)
    return (thickness - np.float32(AERATION) * air) * np.float32(SOFT_TISSUE)


def _body(chest: Chest, x: Image, y: Image) -> Image:
    """Return the path through torso, neck, shoulders and arms in mm."""
    torso = max(chest.right.width, chest.left.width) + chest.wall
    levels = (-90, -55, -30, -12, 15, 60, 130, 260, 420)
    widths = (52, 58, 80, torso * 0.85, torso + 38, torso + 40, torso + 4, torso, torso - 4)
    depths = (0.52, 0.55, 0.66, 0.74, 0.8, 0.9, 1.0, 1.08, 1.15)
    half = PchipInterpolator(levels, widths)(np.clip(y, levels[0], levels[-1])).astype(np.float32)
    depth = chest.depth * PchipInterpolator(levels, depths)(np.clip(y, levels[0], levels[-1])).astype(np.float32)
    u2 = (x.astype(np.float32) / half) ** 2
    trunk = depth * np.sqrt(np.clip(1 - u2 * u2, 0, None))
    middle = torso + 42 + 0.16 * (y - 40)
    v = (np.abs(x) - middle) / 46
    arm = 90 * np.sqrt(np.clip(1 - v * v, 0, None)) * np.clip((y - 10) / 30, 0, 1)
    return np.maximum(trunk, arm).astype(np.float32)


def _lung_air(chest: Chest, lung: Lung, x: Image, y: Image, spacing: float) -> Image:
    """Return the path through one lung in mm; ``x`` is the distance from the axis."""
    across = (x / lung.outer(y)).astype(np.float32) ** 2
    section = np.sqrt(np.clip(1 - across * across * across, 0, None))
    border, share = lung.inner(y).astype(np.float32), lung.height_share(y)
    inner = x / border
    heart = np.clip(0.72 + 0.3 * share, 0.7, 0.97).astype(np.float32) * np.sqrt(np.clip(1 - inner * inner, 0, None))
    # Between the apices there is neck, and no lung before or behind it.
    neck = np.clip(2 - share / 0.07, 0, 1).astype(np.float32) * ramp((border - x) / np.float32(spacing))
    below = ((y - lung.diaphragm(x)) / spacing).astype(np.float32)
    # Lung in the recess behind the dome darkens the liver's upper border.
    recess = np.float32(0.26) * np.exp(np.maximum(below, 0) * np.float32(-spacing / 22.0))
    recess = recess * np.clip((lung.base[1] - y) / 12, 0, 1).astype(np.float32)
    open_share = ramp(-below) * (1 - recess) + recess
    cupola = ramp((y - lung.apex[1]) / spacing)
    return np.asarray(0.86 * chest.depth * section * (1 - heart) * (1 - neck) * open_share * cupola, dtype=np.float32)


def _draw(view: ChestView, curves: Array, width_mm: float, canvas: NDArray[np.uint8] | None = None) -> Image:
    """Return the coverage of curves ``(N, K, 2)`` in mm, all of one width, on top of what ``canvas`` holds."""
    canvas = np.zeros(view.shape, dtype=np.uint8) if canvas is None else canvas
    px = np.array([view.axis, view.top]) + curves / view.spacing
    fixed = np.round(np.clip(px, -4000, 8000) * 16).astype(np.int32)
    cv2.polylines(canvas, list(fixed), False, 255, max(1, round(width_mm / view.spacing)), cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / np.float32(255)


def _vessels(chest: Chest, view: ChestView, rng: Rng) -> Image:
    """Return the share of the lung that pulmonary vessels fill: trees that thin out from the hila."""
    canvas = np.zeros(view.shape, dtype=np.uint8)
    hila = [(sign * 38.0, 0.45 * lung.base[1]) for lung, sign in ((chest.right, -1), (chest.left, 1))]
    ends = np.repeat(np.array(hila), 9, axis=0)
    fan = np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.1, 9)
    angles, width = np.concatenate([math.pi - fan, fan]), 5.5
    while width > 1.5:
        bends = angles[:, None] + np.cumsum(rng.normal(0, 0.12, (len(angles), 5)), axis=1)
        steps = rng.uniform(0.8, 1.5, (len(angles), 1)) * (3.0 + 1.1 * width)
        moves = np.cumsum(np.stack([steps * np.cos(bends), steps * np.sin(bends)], axis=2), axis=1)
        paths = np.concatenate([ends[:, None], ends[:, None] + moves], axis=1)
        sharp = _draw(view, paths, width, canvas)
        fork = rng.uniform(0.25, 0.5, len(angles))
        angles = np.concatenate([bends[:, -1] - fork, bends[:, -1] + fork])
        ends, width = np.tile(paths[:, -1], (2, 1)), width * MURRAY
    return np.float32(0.08) * blur(sharp, 0.8 / view.spacing) + np.float32(0.07) * blur(sharp, 9 / view.spacing)


def _airway(chest: Chest, view: ChestView) -> Image:
    """Return the path through trachea and main bronchi in mm."""
    carina = 0.33 * chest.left.base[1]
    canvas = np.zeros(view.shape, dtype=np.uint8)
    _draw(view, np.array([[(2, -120), (1, 0), (-2, carina)]]), 17.0, canvas)
    bronchi = [
        _bezier([(-2, carina - 2), (0.5 * x, carina + 0.45 * y), (x, carina + y)]) for x, y in ((-34, 24), (44, 30))
    ]
    return np.float32(15) * blur(_draw(view, np.array(bronchi), 11.0, canvas), 3.0 / view.spacing)


def _stomach(chest: Chest, view: ChestView, rng: Rng) -> Image:
    """Return the path through the gas bubble below the left dome, in mm; some stomachs have none."""
    size = float(rng.uniform(-0.6, 1.0))
    if size <= 0:
        return np.zeros(view.shape, dtype=np.float32)
    axes = ((14 + 16 * size) / view.spacing, (8 + 8 * size) / view.spacing)
    top = chest.left.base[1] - chest.left.dome
    centre = view.place(0.55 * chest.left.width, top + 12 + 10 * size)
    return np.float32(70 * size) * ellipsoid_thickness(view.shape, centre, axes, float(rng.uniform(-20, 20)))


def _bones(chest: Chest, view: ChestView, rng: Rng) -> Image:
    """Return the attenuation of ribs, clavicles, scapulae and spine beyond that of the tissue they replace."""
    posterior, anterior = _ribs(chest, rng)
    total = _tubes(view, posterior, 10.0, 15.0) + _tubes(view, anterior, 13.0, 9.0)
    total += _tubes(view, _girdle(chest, rng), 13.0, 17.0) + _spine(chest, view)
    return total * np.float32(BONE - SOFT_TISSUE)


def _tubes(view: ChestView, curves: Array, width: float, bone_mm: float) -> Image:
    """Return the path through hollow bones along the curves in mm: denser where rays graze the cortex."""
    outer, inner = _draw(view, curves, width), _draw(view, curves, width - 3.6)
    return np.float32(bone_mm) * blur(outer - np.float32(0.5) * inner, 0.7 / view.spacing)


def _bezier(points: ArrayLike) -> Array:
    """Return a quadratic or cubic Bezier curve ``(24, 2)``."""
    t = np.linspace(0, 1, 24)[:, None]
    control = list(np.asarray(points, dtype=np.float64))
    while len(control) > 1:
        control = [(1 - t) * a + t * b for a, b in pairwise(control)]
    return np.asarray(control[0])


def _ribs(chest: Chest, rng: Rng) -> tuple[Array, Array]:
    posterior: list[Array] = []
    anterior: list[Array] = []
    for lung, sign in ((chest.right, -1), (chest.left, 1)):
        for k in range(10):
            y = lung.apex[1] - 2 + k * lung.base[1] / 10.6 + float(rng.normal(0, 0.8))
            drop = (12 + 7.0 * min(k, 6)) * lung.base[1] / 270
            edge = float(lung.outer(max(y + drop, lung.apex[1] + 14))) + 4.5
            posterior.append(_bezier([(sign * 16, y), (sign * 0.72 * edge, y - 14), (sign * (edge + 2), y + drop)]))
            if 0 < k < 8:
                end = (sign * (26 + 5 * max(0, k - 3)), y + drop + 40 + 5 * k)
                turn = (sign * (edge + 6), y + drop + 34)
                anterior.append(_bezier([(sign * (edge + 1.5), y + drop), turn, (0.6 * turn[0], end[1] + 4), end])[:17])
    return np.array(posterior), np.array(anterior)


def _girdle(chest: Chest, rng: Rng) -> Array:
    """Return clavicles, the scapulae's borders and the humeri."""
    curves = []
    for lung, sign in ((chest.right, -1), (chest.left, 1)):
        w, lift = lung.width, float(rng.uniform(-12, 8))
        curves.append(
            _bezier([(sign * 14, 30 + lift), (sign * 0.4 * w, 32 + lift), (sign * 0.7 * w, -24), (sign * 1.12 * w, -8)])
        )
        curves.append(_bezier([(sign * 1.12 * w, 8), (sign * 1.0 * w, 60), (sign * 0.98 * w, 140)]))
        curves.append(_bezier([(sign * 0.72 * w, -6), (sign * 0.95 * w, 4), (sign * 1.15 * w, -4)]))
        curves.append(_bezier([(sign * 1.26 * w, 14), (sign * 1.34 * w, 90), (sign * 1.42 * w, 260)]))
    return np.array(curves)


def _spine(chest: Chest, view: ChestView) -> Image:
    """Return the path through the spine's bone in mm: bodies with discs between them, pedicles, spinous processes."""
    x, y = view.grid()
    period = chest.left.base[1] / 11.5
    phase = (y / period) % 1.0
    body = 0.55 + 0.45 * np.clip((np.abs(phase - 0.5) - 0.5 + 0.16) * -16, 0, 1)
    shape = ellipse_chord(x, 19.0, power=4.0) * body.astype(np.float32)
    pedicles = np.exp(-(((np.abs(x) - 12.5) / 3.2) ** 2)) * np.exp(-(((phase - 0.36) / 0.13) ** 2))
    process = np.exp(-((x / 2.6) ** 2)) * np.exp(-(((phase - 0.75) / 0.2) ** 2))
    return np.asarray(11.0 * shape + 6.0 * pedicles + 5.0 * process, dtype=np.float32)


def _expose(attenuation: Image, view: ChestView, nuisance: ChestNuisance, rng: Rng) -> NDArray[np.uint8]:
    """Return the displayed image: scatter, quantum noise, logarithm, window."""
    attenuation = attenuation + np.float32(0.5) * _cables(view, nuisance.cables, rng)
    intensity = add_scatter(np.exp(-np.maximum(attenuation, 0)), nuisance.scatter, 0.08 * view.shape[1])
    counted = quantum_noise(rng, intensity, nuisance.photons)
    density = -np.log(np.maximum(counted, 1e-4))
    low, high = np.percentile(density[::8, ::8], [6, 99])
    spread = float(high - low)
    low = low - spread * float(rng.uniform(0.0, nuisance.exposure)) - 0.12 * spread
    high = high + spread * float(rng.uniform(0.0, nuisance.exposure)) + 0.04 * spread
    marker = (round(0.05 * view.shape[1]), round(0.12 * view.shape[0]))
    marked = write_marker(density, "R", marker, 0.05 * view.shape[0], float(high))
    return to_display(marked, float(low), float(high), gamma=float(rng.uniform(0.85, 1.2)))


def _cables(view: ChestView, count: int, rng: Rng) -> Image:
    """Return the coverage of ECG cables across the chest."""
    if count == 0:
        return np.zeros(view.shape, dtype=np.float32)
    spots = rng.uniform(-0.1, 1.1, (count, 4, 2)) * (view.shape[1], view.shape[0])
    control = (spots - (view.axis, view.top)) * view.spacing
    return _draw(view, np.array([_bezier(cable) for cable in control]), 2.2)
