"""Declared distributions from which phantoms draw."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from scipy.special import ndtr, ndtri

from bregma.config import Config
from bregma.phantoms.base import Rng


class TruncatedNormal(Config):
    """A normal distribution between two bounds."""

    mean: float
    """Mean of the normal distribution before it is cut."""
    sd: float = Field(gt=0)
    """Its standard deviation."""
    low: float
    high: float

    @model_validator(mode="after")
    def _bounds_near_mean(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.low > self.mean + 5 * self.sd or self.high < self.mean - 5 * self.sd:
            raise ValueError("the bounds lie more than five standard deviations from the mean")
        return self

    def draw(self, rng: Rng) -> float:
        """Return one number, by inversion, so that every draw takes one number from the stream."""
        low, high = ndtr([(self.low - self.mean) / self.sd, (self.high - self.mean) / self.sd])
        value = self.mean + self.sd * float(ndtri(low + (high - low) * rng.random()))
        return min(max(value, self.low), self.high)
