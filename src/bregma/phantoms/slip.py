"""How vertebral slips are spread over simulated patients.

The slip is the offset of the upper vertebra's inferior-posterior corner along the lower one's superior endplate, in
percent of that endplate's length; positive goes forward. Meyerding, Surg Gynecol Obstet 1932; 54:371-377.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from bregma.config import Config
from bregma.phantoms.base import Rng
from bregma.phantoms.sampling import TruncatedNormal

PAIRS = ("T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")
"""Neighbours between which a slip is defined."""
MEYERDING_EDGES = (5.0, 25.0, 50.0, 75.0, 100.0)
"""Percent at which the grades I to V begin; a slip below the first counts as none."""
_HIGH_GRADE_LEVELS = {"L5-S1": 0.8, "L4-L5": 0.2}


class SlipSettings(Config):
    """How vertebral slips are spread over patients.

    A patient has at most one slipped level (now and then a second one of grade I). The slip of a slipped level is
    uniform over its grade; every other level stays close to zero.
    """

    grade_weights: tuple[float, float, float, float, float] = (0.30, 0.32, 0.22, 0.12, 0.04)
    """Share of patients whose worst level has Meyerding grade 0, I, II, III, IV."""
    level_weights: dict[str, float] = Field(default={"L5-S1": 0.44, "L4-L5": 0.40, "L3-L4": 0.10, "L2-L3": 0.06})
    """Where a slip of grade I or II sits; grades III and IV occur at L5-S1 (four in five) and L4-L5 only."""
    margin_percent: float = Field(default=1.5, ge=0, lt=2.5)
    """No slip is drawn closer than this to an edge between two grades, so that every grade is beyond dispute."""
    sound_sd_percent: float = Field(default=1.2, gt=0)
    """Deviation of levels that have not slipped."""
    backward_share: float = Field(default=0.08, ge=0, le=1)
    """Share of the grade I slips that go backwards (retrolisthesis, negative)."""
    second_share: float = Field(default=0.05, ge=0, le=1)
    """Share of slipped patients with a second level of grade I."""

    @field_validator("grade_weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) < 0 or sum(value) <= 0:
            raise ValueError("weights must not be negative and not all zero")
        return value

    @field_validator("level_weights")
    @classmethod
    def _levels(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = set(value) - set(PAIRS)
        if unknown or not value or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError(f"needs non-negative weights, not all zero, for levels among {', '.join(PAIRS)}")
        return value

    def range_of(self, grade: int) -> tuple[float, float]:
        """Return the ends, in percent, between which slips of ``grade`` (0 to 4) lie."""
        low = -MEYERDING_EDGES[0] if grade == 0 else MEYERDING_EDGES[grade - 1]
        return low + self.margin_percent, MEYERDING_EDGES[grade] - self.margin_percent


def sample_slips(rng: Rng, settings: SlipSettings) -> dict[str, float]:
    """Draw the slip of every pair in percent of the lower endplate."""
    low, high = settings.range_of(0)
    sound = TruncatedNormal(mean=0.0, sd=settings.sound_sd_percent, low=low, high=high)
    slips = {pair: sound.draw(rng) for pair in PAIRS}
    weights = np.asarray(settings.grade_weights) / sum(settings.grade_weights)
    grade = int(rng.choice(5, p=weights))
    backward, second, *sizes = (float(value) for value in rng.random(4))
    if grade == 0:
        return slips
    level = _slipped_level(rng, settings, grade)
    sign = -1.0 if grade == 1 and backward < settings.backward_share else 1.0
    slips[level] = sign * _between(settings.range_of(grade), sizes[0])
    if second < settings.second_share:
        slips["L3-L4" if level == "L4-L5" else "L4-L5"] = _between(settings.range_of(1), sizes[1])
    return slips


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])


def _slipped_level(rng: Rng, settings: SlipSettings, grade: int) -> str:
    weights = settings.level_weights if grade <= 2 else _HIGH_GRADE_LEVELS
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def meyerding(slip_percent: float) -> int:
    """Return the Meyerding grade, 0 to 5, of a slip by its magnitude."""
    return int(np.searchsorted(MEYERDING_EDGES, abs(slip_percent), side="right"))
