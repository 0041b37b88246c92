"""How bone mineral density, age and marrow fat go together in a simulated patient, and how well the first can be read.

Marrow fat rises as bone is lost and with age (Schwartz et al., J Clin Endocrinol Metab 2013; 98:2294-2300), which is
why the T1 signal of the marrow tells something about bone (Ehresman et al., Spine J 2020; 20:1117-1124). With
independent standard normals ``b``, ``a``, ``e``, and ``d_l`` for each of the five lumbar levels::

    density  = 120 + 35 b                                   mg/cm3
    age      = 55 + 14 (r b + sqrt(1 - r^2) a)              years,  r = -0.55
    fat_l    = 0.46 - 0.070 b + 0.035 (age - 55) / 14 + spread e + level_spread d_l

The mean over the levels carries all that the image knows of the density, so the share of its variance that any reader
can explain has a closed form, see :func:`best_r2`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from bregma.config import Config
from bregma.phantoms.base import Rng

LEVELS = ("L1", "L2", "L3", "L4", "L5")
DENSITY_MEAN, DENSITY_SD = 120.0, 35.0
AGE_MEAN, AGE_SD = 55.0, 14.0
FAT_MEAN, FAT_PER_DENSITY, FAT_PER_AGE = 0.46, -0.070, 0.035
AGE_CORRELATION = -0.55


class DensitySettings(Config):
    """What separates marrow fat from bone mineral density."""

    spread: float = Field(default=0.03, ge=0, le=0.1)
    """Deviation of the fat fraction among patients of equal density and age."""
    level_spread: float = Field(default=0.012, ge=0, le=0.05)
    """Deviation of the fat fraction among the levels of one patient."""


@dataclass(frozen=True)
class Marrow:
    """The bone and marrow of one patient.

    Attributes:
        density: trabecular bone mineral density in mg/cm3.
        age: years.
        fat: fat fraction of the marrow by level, 0 to 1.
    """

    density: float
    age: float
    fat: dict[str, float]


def sample_marrow(rng: Rng, settings: DensitySettings) -> Marrow:
    """Draw one patient; draws beyond three deviations are brought back to three."""
    b, a, e, *levels = np.clip(rng.standard_normal(3 + len(LEVELS)), -3.0, 3.0)
    age = AGE_CORRELATION * b + math.sqrt(1 - AGE_CORRELATION**2) * a
    mean = FAT_MEAN + FAT_PER_DENSITY * b + FAT_PER_AGE * age + settings.spread * e
    fat = {level: float(mean + settings.level_spread * d) for level, d in zip(LEVELS, levels, strict=True)}
    return Marrow(float(DENSITY_MEAN + DENSITY_SD * b), float(AGE_MEAN + AGE_SD * age), fat)


def best_r2(settings: DensitySettings, *, age_known: bool = False) -> float:
    """Return the coefficient of determination that no reader of the image can exceed in the long run.

    It is the squared (multiple) correlation of the density with the mean fat fraction and, where ``age_known``, the
    age. Noise, coil shading and blur can only lower what is reached.
    """
    noise = settings.spread**2 + settings.level_spread**2 / len(LEVELS)
    if age_known:
        # Given the age, density keeps the variance 1 - r^2, and fat tells of it through its own slope alone.
        left = 1 - AGE_CORRELATION**2
        return 1 - left * noise / (FAT_PER_DENSITY**2 * left + noise) if noise else 1.0
    slope = FAT_PER_DENSITY + FAT_PER_AGE * AGE_CORRELATION
    return slope**2 / (slope**2 + FAT_PER_AGE**2 * (1 - AGE_CORRELATION**2) + noise)
