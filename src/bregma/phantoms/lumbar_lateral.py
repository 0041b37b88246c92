"""A lateral lumbar radiograph with a vertebral slip of exactly known size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bregma import geometry
from bregma.config import Config
from bregma.geometry import Array
from bregma.phantoms import drawing
from bregma.phantoms.base import Difficulty, Phantom, PhantomSettings, Rng
from bregma.phantoms.slip import SlipSettings, meyerding, sample_slips
from bregma.phantoms.spine import Spine, SpineSettings, build_spine, opening_deg, sample_spine
from bregma.phantoms.spine_xray import BodyLook, spine_attenuation, surroundings

LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")
FOV_MM = {"fixed": (290.0, 290.0), "varying": (255.0, 325.0), "wild": (200.0, 390.0), "partial": (100.0, 330.0)}
"""Range of the image's height in millimetres."""


class LateralNuisance(Config):
    """What makes a radiograph hard to read; the defaults are the medium difficulty."""

    photons: float = Field(default=2500.0, gt=0)
    """Quanta that a pixel of average density collects; fewer mean more noise."""
    contrast: float = Field(default=0.9, gt=0)
    """Factor on the attenuation of bone."""
    scatter: float = Field(default=0.30, ge=0, lt=1)
    """Share of scattered radiation."""
    blur_px: float = Field(default=0.7, ge=0)
    """Deviation of the point-spread function, for 512 rows."""
    gas: float = Field(default=7.0, ge=0)
    """Mean number of gas bubbles."""
    clutter: float = Field(default=1.0, ge=0)
    """Weight of ribs and iliac wings."""
    tilt_mm: float = Field(default=0.5, ge=0)
    """Largest spread of endplates that are not seen edge on."""
    grid_probability: float = Field(default=0.2, ge=0, le=1)
    """How often the stripes of an anti-scatter grid show."""
    collimation_probability: float = Field(default=0.7, ge=0, le=1)
    """How often the field is collimated; corners are never cut off."""
    marker_probability: float = Field(default=0.7, ge=0, le=1)
    """How often a lead side marker shows."""
    rotation_deg: float = Field(default=6.0, ge=0)
    """Deviation of the rotation in the image plane."""
    exposure: float = Field(default=0.15, ge=0)
    """Spread of the display's window and gamma."""


NUISANCE: dict[Difficulty, LateralNuisance] = {
    "easy": LateralNuisance(
        photons=8000.0,
        contrast=1.15,
        scatter=0.15,
        blur_px=0.5,
        gas=2.0,
        clutter=0.6,
        tilt_mm=0.0,
        grid_probability=0.0,
        rotation_deg=3.0,
        exposure=0.05,
    ),
    "medium": LateralNuisance(),
    "hard": LateralNuisance(
        photons=700.0,
        contrast=0.7,
        scatter=0.5,
        blur_px=1.1,
        gas=16.0,
        clutter=1.3,
        tilt_mm=1.2,
        grid_probability=0.5,
        rotation_deg=9.0,
        exposure=0.3,
    ),
}
"""Difficulty to nuisance."""


class LumbarLateralSettings(PhantomSettings):
    """Settings of the lateral lumbar radiograph."""

    fov: Literal["fixed", "varying", "wild", "partial"] = "varying"
    """How much the field of view and the spine's place in it vary; the sacrum always stays in the image, T12 and at
    times L1 do not. With ``partial`` the image may end anywhere above L4, so that the topmost vertebra differs from one
    image to the next."""
    facing: Literal["left", "right", "either"] = "either"
    """Where the patient looks."""
    slip: SlipSettings = SlipSettings()
    """How slips are spread over patients."""
    spine: SpineSettings = SpineSettings()
    """How size, lordosis and disc heights are spread over patients."""
    nuisance: LateralNuisance | None = None
    """Replaces the nuisance that the difficulty stands for."""

    @property
    def resolved_nuisance(self) -> LateralNuisance:
        """The nuisance in force."""
        return self.nuisance or NUISANCE[self.difficulty]


@dataclass(frozen=True)
class LateralView:
    """Where the spine lies in the image.

    Attributes:
        to_px: matrix from the spine's millimetres to pixels.
        spacing: millimetres per pixel.
        facing: where the patient looks.
    """

    to_px: Array
    spacing: float
    facing: Literal["left", "right"]


def draw_lumbar_lateral(settings: LumbarLateralSettings, subject_rng: Rng, image_rng: Rng) -> Phantom:
    """Draw one lateral lumbar radiograph.

    The landmarks are the corners of T12 to L5 and the endplate of S1. Targets: ``slip_percent_<pair>`` of the six
    levels, ``slip_percent_max`` (the one of largest magnitude, signed), ``meyerding_grade`` of it (0 to 5) and
    ``lumbar_lordosis`` (degrees, L1 to S1).
    """
    slips = sample_slips(subject_rng, settings.slip)
    spine = build_spine(sample_spine(subject_rng, slips, settings.spine))
    view = sample_view(image_rng, settings, spine)
    pixels = render(image_rng, settings, spine, view)
    names, corners = spine.landmarks(LEVELS)
    placed = geometry.apply(view.to_px, corners)
    worst = max(slips, key=lambda pair: abs(slips[pair]))
    grade = meyerding(slips[worst])
    targets = {f"slip_percent_{pair}": slip for pair, slip in slips.items()}
    targets |= {"slip_percent_max": slips[worst], "meyerding_grade": float(grade)}
    targets["lumbar_lordosis"] = opening_deg(spine.bodies["L1"][:2], spine.sacrum)
    return Phantom(
        pixels=pixels,
        points={name: (float(x), float(y)) for name, (x, y) in zip(names, placed, strict=True)},
        spacing=(view.spacing, view.spacing),
        targets=targets,
        tags={"facing": view.facing, "slipped_level": worst if grade else "none", "difficulty": settings.difficulty},
    )


def sample_view(rng: Rng, settings: LumbarLateralSettings, spine: Spine) -> LateralView:
    """Draw the pose; both ends of the sacral endplate stay at least 4 % away from the border."""
    rows, columns = settings.size
    zoom, turn, aside, down, side = rng.random(), rng.standard_normal(), rng.random(), rng.random(), rng.random()
    low, high = FOV_MM[settings.fov]
    spacing = settings.spacing or (low + zoom * (high - low)) / rows
    facing: Literal["left", "right"] = "left" if side < 0.5 else "right"
    if settings.facing != "either":
        facing = settings.facing
    mirror = geometry.scale(1.0 if facing == "left" else -1.0, 1.0)
    degrees = float(np.clip(turn, -2.5, 2.5)) * settings.resolved_nuisance.rotation_deg
    placed = geometry.compose(mirror, geometry.rotate(degrees), geometry.scale(1 / spacing))
    corners = geometry.apply(placed, spine.landmarks(LEVELS[1:])[1])
    spread = {"fixed": 0.01, "varying": 0.05, "wild": 0.14, "partial": 0.1}[settings.fov]
    x = columns * (0.5 + spread * (2 * aside - 1)) - (corners[:, 0].min() + corners[:, 0].max()) / 2
    y = rows * (0.81 + spread * (2 * down - 1))
    return LateralView(_keep_sacrum(placed, (x, y), spine.sacrum, settings.size), spacing, facing)


def _keep_sacrum(placed: Array, shift: tuple[float, float], sacrum: Array, shape: tuple[int, int]) -> Array:
    """Complete the matrix by the shift, changed where the sacral endplate would leave the image."""
    matrix = geometry.compose(placed, geometry.translate(*shift))
    ends = geometry.apply(matrix, sacrum)
    size = np.array([shape[1], shape[0]])
    over = np.minimum(0.96 * size - ends.max(axis=0), 0) + np.maximum(0.04 * size - ends.min(axis=0), 0)
    return geometry.compose(matrix, geometry.translate(*over))


def render(rng: Rng, settings: LumbarLateralSettings, spine: Spine, view: LateralView) -> NDArray[np.uint8]:
    """Expose and process the radiograph: attenuation, scatter, blur, quantum noise, collimation, display."""
    n = settings.resolved_nuisance
    shape = settings.size
    look = BodyLook(
        waist_mm=rng.uniform(1.0, 2.2), hollow_mm=rng.uniform(0.8, 2.0), tilt_mm=rng.uniform(0, 1) * n.tilt_mm
    )
    bone = spine_attenuation(shape, spine, view.to_px, look)
    bone *= 1 + 0.10 * drawing.correlated_noise(rng, shape, max(shape[0] / 64, 2), octaves=2)
    around = surroundings(rng, shape, spine, view.to_px, gas=n.gas, clutter=n.clutter)
    total = around + np.float32(n.contrast) * bone
    total -= np.float32(np.median(total[::8, ::8]))
    direct = drawing.add_scatter(np.exp(-total), n.scatter, shape[0] / 10)
    direct = drawing.blur(direct, n.blur_px * shape[0] / 512)
    if rng.random() < n.grid_probability:
        direct = drawing.grid_lines(direct, rng.uniform(2.3, 5.0), rng.choice([0.0, 90.0]) + rng.normal(0, 1.5), 0.02)
    density = -np.log(np.maximum(drawing.quantum_noise(rng, direct, n.photons), 1e-3))
    return _process(rng, n, density, geometry.apply(view.to_px, spine.landmarks(LEVELS)[1]))


def _process(rng: Rng, n: LateralNuisance, density: drawing.Image, corners: Array) -> NDArray[np.uint8]:
    """Even out slow density, window, add marker and shutters as a radiography console does."""
    shape = (density.shape[0], density.shape[1])
    even = rng.uniform(0.45, 0.75)
    density = density - np.float32(even) * drawing.blur(density, shape[0] / 9)
    low, high = np.percentile(density[::6, ::6], (10.0, 99.8))
    spread = high - low
    low, high = low - n.exposure * spread * rng.uniform(-0.3, 1.0), high + n.exposure * spread * rng.uniform(0.0, 1.0)
    if rng.random() < n.marker_probability:
        origin = _marker_place(rng, shape, corners)
        density = drawing.write_marker(density, str(rng.choice(["L", "R"])), origin, shape[0] / 20, float(high))
    image = drawing.to_display(
        density, float(low), float(high), gamma=float(np.exp(n.exposure * rng.standard_normal()))
    )
    if rng.random() < n.collimation_probability:
        field = _field(rng, shape, corners)
        image = np.round(drawing.collimate(image.astype(np.float32), field, 0.0)).astype(np.uint8)
    return image


def _marker_place(rng: Rng, shape: tuple[int, int], corners: Array) -> tuple[int, int]:
    """Lower left corner of a marker at the top or bottom, on that side of the spine where there is more room."""
    size = shape[0] / 20
    left, right = corners[:, 0].min() - 2 * size, corners[:, 0].max() + size
    low, high = (right, shape[1] - 1.5 * size) if shape[1] - right > left else (0.5 * size, left)
    row = shape[0] * rng.choice([0.08, 0.95])
    return int(low + rng.random() * max(high - low, 0.0)), int(row)


def _field(rng: Rng, shape: tuple[int, int], corners: Array) -> Array:
    """Corners of a collimated field that leaves every landmark in it."""
    inside = np.clip(corners, 0, np.array(shape[::-1]) - 1)
    margin = rng.uniform(0.08, 0.3, 2) * shape[1]
    left, right = inside[:, 0].min() - margin[0], inside[:, 0].max() + margin[1]
    top = -10.0 if rng.random() < 0.6 else min(inside[:, 1].min() - 0.04 * shape[0], 0.06 * shape[0])
    bottom = max(inside[:, 1].max() + rng.uniform(0.05, 0.3) * shape[0], 0.9 * shape[0])
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return geometry.apply(geometry.rotate(rng.normal(0, 0.8), about=(shape[1] / 2, shape[0] / 2)), box)
