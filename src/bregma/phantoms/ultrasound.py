"""B-mode ultrasound: a sector of beams, scatterers of random phase blurred by the pulse, compression, scan conversion.

Fields are float32 ``(SAMPLES, BEAMS)``: depth below the probe's face downwards, beams from left to right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bregma.phantoms.base import Rng
from bregma.phantoms.drawing import Image

BEAMS = 256
SAMPLES = 448
DYNAMIC_RANGE_DB = 60.0


@dataclass(frozen=True)
class Sector:
    """The fan that a convex probe insonates.

    Attributes:
        apex: virtual apex, where the beams would meet, in px.
        spacing: mm per px.
        face_mm: radius of the probe's face.
        depth_mm: from the face to the end of the beams.
        half_angle: radians.
    """

    apex: tuple[float, float]
    spacing: float
    face_mm: float
    depth_mm: float
    half_angle: float

    @property
    def step_mm(self) -> float:
        """Distance between samples along a beam."""
        return self.depth_mm / (SAMPLES - 1)

    def beams(self) -> tuple[Image, Image]:
        """Return the direction of every beam: x and y of unit vectors, ``(1, BEAMS)``."""
        theta = np.linspace(-self.half_angle, self.half_angle, BEAMS, dtype=np.float32)[None]
        return np.sin(theta), np.cos(theta)

    def depth(self) -> Image:
        """Return the depth of every sample in mm, ``(SAMPLES, 1)``."""
        return np.linspace(0, self.depth_mm, SAMPLES, dtype=np.float32)[:, None]

    def places(self, origin: tuple[float, float]) -> tuple[Image, Image]:
        """Return x and y of every sample in mm from the pixel ``origin``."""
        radius = self.depth() + np.float32(self.face_mm)
        (dx, dy), (ox, oy) = self.beams(), (np.subtract(self.apex, origin) * self.spacing).astype(np.float32)
        return ox + radius * dx, oy + radius * dy


def texture(cells: tuple[int, int], rng: Rng) -> Image:
    """Return smooth noise of about unit variance with so many cells along depth and across."""
    coarse = rng.standard_normal(cells).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (BEAMS, SAMPLES), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def envelope(scatter: Image, coherent: Image, passed: Image, speckle: float, rng: Rng) -> Image:
    """Return the magnitude of the echo after the pulse has blurred it.

    Scatterers return random phases, so that their envelope is Rayleigh distributed and forms speckle; a smooth
    interface returns one phase.

    Args:
        scatter: amplitude of the scatterers.
        coherent: amplitude of smooth interfaces.
        passed: share of the amplitude that reaches the sample and comes back.
        speckle: share of random phase; 0 gives the noise-free echo, blurred by next to nothing.
        rng: the image's.
    """
    clean = _blur((scatter + coherent) * passed, 0.8, 0.8)
    if speckle == 0:
        return clean
    shape = scatter.shape
    arriving, steady = scatter * passed, _blur(coherent * passed, 0.8, 0.8)
    real, imaginary = (_pulse(arriving * rng.standard_normal(shape, dtype=np.float32)) for _ in range(2))
    floor = np.float32(0.0015 * speckle) * np.abs(rng.standard_normal(shape, dtype=np.float32))
    mixed = np.float32(speckle) * np.hypot(real + steady, imaginary) + np.float32(1 - speckle) * clean + floor
    return np.asarray(mixed, dtype=np.float32)


def _blur(field: Image, across: float, along: float) -> Image:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigmaX=across, sigmaY=along), dtype=np.float32)


def _pulse(field: Image) -> Image:
    """Blur white scatterers and keep their power; the beam is narrowest half way down, at its focus."""
    along, narrow, wide = 1.1, 1.1, 1.9
    away = np.abs(np.linspace(-1, 1, len(field), dtype=np.float32))[:, None]
    near_focus = _blur(field, narrow, along) * np.float32(2 * math.sqrt(math.pi * along * narrow))
    off_focus = _blur(field, wide, along) * np.float32(2 * math.sqrt(math.pi * along * wide))
    return (1 - away) * near_focus + away * off_focus


def compress(echo: Image, gain_db: float) -> NDArray[np.uint8]:
    """Return grey levels of the echo in decibels; 1 comes out nearly white at a gain of 0.

    The square on top of the logarithm is the scanner's grey map: it darkens fluid and brightens bone.
    """
    level = 20 * np.log10(np.maximum(echo, np.float32(1e-6))) + np.float32(gain_db + DYNAMIC_RANGE_DB - 8)
    grey = np.clip(level / np.float32(DYNAMIC_RANGE_DB), 0, 1)
    return np.asarray(np.round(255 * grey * grey), dtype=np.uint8)


def scan_convert(beams: Image, sector: Sector, shape: tuple[int, int]) -> Image:
    """Resample beams and depth onto the pixel grid ``(H, W)``; 0 outside the sector."""
    x = (np.arange(shape[1]) - sector.apex[0]).astype(np.float32)[None, :]
    y = (np.arange(shape[0]) - sector.apex[1]).astype(np.float32)[:, None]
    beam = (np.arctan2(x, y) / np.float32(sector.half_angle) + 1) * np.float32((BEAMS - 1) / 2)
    depth_mm = np.sqrt(x * x + y * y) * np.float32(sector.spacing) - np.float32(sector.face_mm)
    sample = depth_mm / np.float32(sector.step_mm)
    return np.asarray(cv2.remap(beams, beam, sample, cv2.INTER_LINEAR, borderValue=0), dtype=np.float32)
