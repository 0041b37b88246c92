"""Axial fetal-head ultrasound: a skull ellipse of known size, insonated by a convex probe.

The image is formed as a scanner forms it: echogenicity and attenuation are laid out in beams and depth, scatterers
with random phase are blurred by the pulse, the envelope is compressed to decibels, and the sector is scan-converted.
Speckle, shadows behind the skull and drop-out where it runs along the beam follow from that.

Diameters are taken **outer to outer**: both ends of the OFD and of the BPD lie on the outer border of the skull, as in
the INTERGROWTH-21st protocol, and the head circumference is the perimeter of the outer ellipse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.special import ellipe

from bregma.config import Config
from bregma.phantoms.base import Difficulty, Phantom, PhantomSettings, Rng
from bregma.phantoms.drawing import Image
from bregma.phantoms.sampling import TruncatedNormal
from bregma.phantoms.ultrasound import Sector, compress, envelope, scan_convert, texture


class HeadNuisance(Config):
    """What makes a fetal head hard to measure; the defaults are the medium difficulty."""

    speckle: float = Field(default=0.9, ge=0, le=1)
    """Share of the echo that comes with random phase; 0 gives the noise-free echo."""
    rotation_deg: float = Field(default=20.0, ge=0)
    """Deviation of the head's rotation in the image plane; 80 degrees are never exceeded."""
    skull_loss_db_mm: float = Field(default=1.6, ge=0)
    """Attenuation in bone, there and back; it shadows what lies deeper and the sides of the skull."""
    gaps: int = Field(default=2, ge=0)
    """Number of places where the skull's echo is missing (sutures, fontanelles, poor contact)."""
    offset: float = Field(default=0.05, ge=0)
    """Deviation of the head's place from the middle, as a share of the image."""
    clutter: float = Field(default=1.0, ge=0)
    """Strength of near-field haze and of structures outside the head."""


NUISANCE: dict[Difficulty, HeadNuisance] = {
    "easy": HeadNuisance(speckle=0.8, rotation_deg=8.0, skull_loss_db_mm=0.8, gaps=0, offset=0.02, clutter=0.5),
    "medium": HeadNuisance(),
    "hard": HeadNuisance(speckle=0.95, rotation_deg=45.0, skull_loss_db_mm=2.6, gaps=5, offset=0.08, clutter=1.8),
}
"""Difficulty to nuisance."""


class FetalHeadSettings(PhantomSettings):
    """Settings of the fetal-head ultrasound."""

    size: tuple[int, int] = (384, 512)
    """Rows and columns of the image; one number stands for a square."""
    ordered: bool = False
    """Name the ends by their place (``ofd_1`` left of ``ofd_2``, ``bpd_1`` above ``bpd_2``) instead of at random, as
    sonographers do."""
    gestation_weeks: tuple[float, float] = (15.0, 38.0)
    """Range of gestational age, drawn uniformly."""
    cephalic_index: TruncatedNormal = TruncatedNormal(mean=0.78, sd=0.035, low=0.70, high=0.87)
    """How BPD / OFD is spread over fetuses."""
    nuisance: HeadNuisance | None = None
    """Replaces the nuisance that the difficulty stands for."""

    @field_validator("gestation_weeks")
    @classmethod
    def _within_pregnancy(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 12 <= value[0] <= value[1] <= 42:
            raise ValueError(f"needs two ascending weeks from 12 to 42, not {value[0]} and {value[1]}")
        return value

    @property
    def resolved_nuisance(self) -> HeadNuisance:
        """The nuisance in force."""
        return self.nuisance or NUISANCE[self.difficulty]


@dataclass(frozen=True)
class Head:
    """A head's size in mm: semi-axes of the outer ellipse and thickness of the skull's echo."""

    weeks: float
    a: float
    b: float
    skull: float


@dataclass(frozen=True)
class HeadView:
    """Where the head lies in the image: its centre in px, its long axis in degrees from x towards y."""

    centre: tuple[float, float]
    degrees: float
    sector: Sector

    @property
    def axis(self) -> tuple[float, float]:
        """Unit vector along the OFD."""
        return math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))


def draw_fetal_head(settings: FetalHeadSettings, subject_rng: Rng, image_rng: Rng) -> Phantom:
    """Draw one axial image of a fetal head; targets are ``bpd_mm``, ``ofd_mm`` and ``hc_mm``."""
    nuisance = settings.resolved_nuisance
    head = sample_head(settings, subject_rng)
    view = _sample_view(settings, nuisance, head, image_rng)
    echo = scan_convert(_echo(head, view, nuisance, image_rng), view.sector, settings.size)
    return Phantom(
        pixels=compress(echo, float(image_rng.uniform(-4, 4))),
        points=_points(head, view, None if settings.ordered else image_rng),
        spacing=(view.sector.spacing, view.sector.spacing),
        targets={"bpd_mm": 2 * head.b, "ofd_mm": 2 * head.a, "hc_mm": ellipse_perimeter(head.a, head.b)},
        tags={"gestation_weeks": head.weeks, "rotation_deg": view.degrees},
    )


def ellipse_perimeter(a: float, b: float) -> float:
    """Return the perimeter of an ellipse with semi-axes ``a`` and ``b``: ``4 a E(1 - b²/a²)``."""
    major, minor = max(a, b), min(a, b)
    return float(4 * major * ellipe(1 - (minor / major) ** 2))


def sample_head(settings: FetalHeadSettings, rng: Rng) -> Head:
    """Draw a fetus: its age, then its OFD about the mean of that age, then its cephalic index."""
    weeks = float(rng.uniform(*settings.gestation_weeks))
    ofd = _mean_ofd_mm(weeks) * TruncatedNormal(mean=1.0, sd=0.04, low=0.92, high=1.08).draw(rng)
    index = settings.cephalic_index.draw(rng)
    return Head(weeks, ofd / 2, index * ofd / 2, skull=float(rng.uniform(0.024, 0.036)) * ofd)


def _mean_ofd_mm(weeks: float) -> float:
    """Mean occipito-frontal diameter by gestational age, a fractional polynomial close to the INTERGROWTH-21st curve.

    Source: Papageorghiou et al., Lancet 2014;384:869-879 (form of the curve; coefficients rounded).
    """
    return -12.41 + 0.6263 * weeks**2 - 0.1481 * weeks**2 * math.log(weeks)


def _sample_view(settings: FetalHeadSettings, nuisance: HeadNuisance, head: Head, rng: Rng) -> HeadView:
    """Place the head wholly inside the image, as sonographers do, and the probe above it."""
    height, width = settings.size
    degrees = float(np.clip(rng.normal(0, nuisance.rotation_deg), -80, 80))
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    reach = np.array([math.hypot(head.a * c, head.b * s), math.hypot(head.a * s, head.b * c)])
    fill = float(rng.uniform(0.6, 0.9))
    spacing = settings.spacing or float(2 * (reach / (width, height)).max() / fill)
    room = np.maximum(0.48 - reach / (width, height) / spacing, 0)
    shift = np.clip(rng.normal(0, nuisance.offset, 2), -room, room)
    x, y = (0.5 + shift) * (np.array([width, height]) - 1)
    face_mm, half_angle = float(rng.uniform(40, 60)), math.radians(float(rng.uniform(32, 42)))
    face_y_mm = min(y * spacing - reach[1] - rng.uniform(0.05, 0.5) * head.b - 4, 0.12 * height * spacing)
    apex = (float(x + rng.normal(0, 0.04) * width), float(face_y_mm - face_mm) / spacing)
    depth_mm = float(rng.uniform(0.98, 1.25) * height * spacing - face_y_mm)
    return HeadView((float(x), float(y)), degrees, Sector(apex, spacing, face_mm, depth_mm, half_angle))


def _points(head: Head, view: HeadView, rng: Rng | None) -> dict[str, tuple[float, float]]:
    """Return the four ends in px; ``rng`` swaps the two of a diameter at random."""
    c, s = view.axis
    ends = {}
    for name, length, (dx, dy) in (("ofd", head.a, (c, s)), ("bpd", head.b, (-s, c))):
        along = np.array([dx, dy]) * length / view.sector.spacing
        first, second = view.centre - along, view.centre + along
        if rng is not None and rng.random() < 0.5:
            first, second = second, first
        ends[f"{name}_1"] = (float(first[0]), float(first[1]))
        ends[f"{name}_2"] = (float(second[0]), float(second[1]))
    return ends


@dataclass(frozen=True)
class _Grid:
    """Places of the samples relative to the head, ``(SAMPLES, BEAMS)``.

    Attributes:
        u: along the OFD, mm.
        v: along the BPD, mm.
        outside: distance to the outer ellipse in mm, positive outside; first order, so exact where it is 0.
        incidence: cosine of the angle between the beam and the skull's normal, 0 to 1.
        depth: mm below the probe's face, ``(SAMPLES, 1)``.
        step: mm between samples.
    """

    u: Image
    v: Image
    outside: Image
    incidence: Image
    depth: Image
    step: float


def _grid(head: Head, view: HeadView) -> _Grid:
    x, y = view.sector.places(view.centre)
    beam_x, beam_y = view.sector.beams()
    c, s = (np.float32(part) for part in view.axis)
    u, v = c * x + s * y, c * y - s * x
    normal_u, normal_v = u / np.float32(head.a**2), v / np.float32(head.b**2)
    norm = np.sqrt(normal_u**2 + normal_v**2) + np.float32(1e-6)
    outside = np.asarray((normal_u * u + normal_v * v - 1) / (2 * norm), dtype=np.float32)
    cosine = (normal_u * (c * beam_x + s * beam_y) + normal_v * (c * beam_y - s * beam_x)) / norm
    incidence = np.asarray(np.abs(cosine), dtype=np.float32)
    return _Grid(u, v, outside, incidence, view.sector.depth(), view.sector.step_mm)


def _echo(head: Head, view: HeadView, nuisance: HeadNuisance, rng: Rng) -> Image:
    """Return the envelope that comes back, before compression."""
    grid = _grid(head, view)
    skull = _skull(grid, head, nuisance.gaps, rng)
    tissue = _tissue(grid, head, nuisance.clutter, rng) + _brain(grid, head, nuisance.clutter, rng)
    scatter = tissue * (1 - np.float32(0.8) * np.minimum(skull, 1)) + np.float32(0.3) * skull
    passed = _transmission(grid, head, nuisance.skull_loss_db_mm)
    return envelope(scatter, np.float32(0.85) * skull, passed, nuisance.speckle, rng)


def skull_profile(outside: Image, thickness: float) -> Image:
    """Return the skull's echo across its wall: half of its peak on the outer and on the inner border.

    Args:
        outside: distance to the outer border in mm, positive outside.
        thickness: of the wall, mm.
    """
    across = (outside + thickness / 2) / (thickness / 2)
    return np.asarray(np.exp2(-(across**4)), dtype=np.float32)


def _skull(grid: _Grid, head: Head, gaps: int, rng: Rng) -> Image:
    angle = np.arctan2(grid.v / np.float32(head.b), grid.u / np.float32(head.a))
    strength = (0.07 + 0.93 * grid.incidence**2) * (1 + 0.2 * texture((24, 24), rng))
    for _ in range(gaps):
        away = np.cos(angle - np.float32(rng.uniform(-math.pi, math.pi)))
        strength *= 1 - np.float32(0.85) * np.exp((away - 1) * np.float32(rng.uniform(120, 500)))
    return np.asarray(2.2 * strength * skull_profile(grid.outside, head.skull), dtype=np.float32)


def _step(x: NDArray[np.floating]) -> Image:
    """Return a smooth step from 0 (below -1) to 1 (above 1)."""
    t = np.clip(0.5 + 0.5 * x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _tissue(grid: _Grid, head: Head, clutter: float, rng: Rng) -> Image:
    """Return the echogenicity outside the head: abdominal and uterine wall around a pocket of fluid."""
    room = head.a * rng.uniform(0.10, 0.5, 2)
    shift = head.a * rng.uniform(-0.25, 0.25)
    pocket = np.sqrt(((grid.u - shift) / (head.a + room[0])) ** 2 + (grid.v / (head.b + room[1])) ** 2) - 1
    wall = _step((pocket + 0.10 * texture((6, 5), rng)) / 0.07)
    layers = 1 + 0.5 * texture((40, 6), rng) + 0.3 * texture((12, 12), rng)
    near = np.exp(-grid.depth / np.float32(0.25 * head.b))
    bright = np.clip(layers, 0.15, None) * (0.10 + 0.12 * clutter * rng.uniform(0.3, 1) + 0.25 * near)
    return np.asarray(_step(grid.outside / 0.8) * (0.012 * clutter + wall * bright), dtype=np.float32)


def _brain(grid: _Grid, head: Head, clutter: float, rng: Rng) -> Image:
    """Return the echogenicity inside: parenchyma, falx, cavum, thalami, ventricle with choroid plexus, and haze."""
    u, v = grid.u / np.float32(head.a), grid.v / np.float32(head.b)
    if rng.random() < 0.5:
        u = -u
    base = 0.03 * np.clip(1 + 0.45 * texture((14, 12), rng) + 0.35 * texture((30, 24), rng), 0.1, None)
    for side in (-1, 1):
        base -= 0.03 * _blob(u + 0.08, v - np.float32(0.17 * side), 0.16, 0.11)
        base -= 0.035 * _blob(u + 0.5, v - np.float32(0.34 * side), 0.15, 0.08)
        base += 0.26 * _blob(u + 0.50, v - np.float32(0.38 * side), 0.11, 0.075) * np.float32(rng.uniform(0.2, 1))
        base += 0.35 * _blob(u - 0.5, v - np.float32(0.24 * side), 0.10, 0.012) * np.float32(rng.uniform(0.2, 1))
        base += 0.35 * _blob(u + 0.45, v - np.float32(0.26 * side), 0.20, 0.012) * np.float32(rng.uniform(0.2, 1))
    base += _midline(u, v, rng)
    haze = 0.10 * clutter * np.exp(-np.clip(-grid.outside, 0, None) / np.float32(0.3 * head.b))
    haze *= 0.5 - 0.5 * np.tanh(v * 4)
    inside = _step(-(grid.outside + np.float32(head.skull)) / 0.8)
    return np.asarray(inside * (np.clip(base, 0.004, None) + haze), dtype=np.float32)


def _midline(u: Image, v: Image, rng: Rng) -> Image:
    """Return the broken falx echo with the two leaves of the cavum in its anterior third."""
    broken = np.clip(0.45 + 0.7 * texture((3, 18), rng), 0, 1.2)
    thin = np.exp(-((v / np.float32(0.013)) ** 2))
    falx = thin * _step((0.72 - np.abs(u)) / 0.12) * (1 - _blob(u - 0.45, v, 0.13, 9))
    leaves = sum(_blob(u - 0.45, v - np.float32(y), 0.12, 0.011) for y in (-0.055, 0.055))
    cavum = _blob(u - 0.45, v, 0.10, 0.04)
    return np.asarray(0.5 * broken * falx + 0.5 * leaves - 0.05 * cavum, dtype=np.float32)


def _blob(u: Image, v: Image, su: float, sv: float) -> Image:
    """Return an elliptic patch, flat inside and soft at its border."""
    r2 = (u / np.float32(su)) ** 2 + (v / np.float32(sv)) ** 2
    return np.asarray(np.exp(-(r2 * r2)), dtype=np.float32)


def _transmission(grid: _Grid, head: Head, loss_db_mm: float) -> Image:
    """Return the share of the amplitude left on the way to a sample and back, after the scanner's gain over depth."""
    bone = skull_profile(grid.outside, head.skull) * np.float32(loss_db_mm)
    lost = np.minimum((np.cumsum(bone, axis=0) - bone) * np.float32(grid.step), np.float32(26.0))
    return np.asarray(np.exp(lost * np.float32(-math.log(10) / 20)), dtype=np.float32)
