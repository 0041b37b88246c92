"""Published equations and charts as data: a quantity read off another one, and a quantity's centile at an age."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from bregma.config import Config

CurveName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Curve(Config):
    """A sum of terms ``coefficient * x**power * ln(x)**log_power``."""

    terms: tuple[tuple[FiniteFloat, FiniteFloat, Annotated[int, Field(ge=0)]], ...] = Field(min_length=1)
    """Coefficient, power of x and power of ln(x) of each term, as published."""
    log: bool = False
    """The sum is the natural logarithm of the result."""


class Steps(Config):
    """A value that changes at edges: ``values[i]`` holds from ``edges[i-1]`` up to, and without, ``edges[i]``."""

    edges: tuple[FiniteFloat, ...] = ()
    values: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fit(self) -> Steps:
        if len(self.values) != len(self.edges) + 1:
            raise ValueError("needs one value more than it has edges")
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("the edges must ascend")
        return self


class Range(Config):
    """From ``low`` to ``high``, both included."""

    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _ascend(self) -> Range:
        if self.low >= self.high:
            raise ValueError("'low' must lie below 'high'")
        return self


class Formula(Config):
    """A published equation that reads one quantity off another, e.g. gestational age off a head circumference."""

    name: CurveName
    label: str = ""
    offset: FiniteFloat = 0.0
    """The equation's x is ``offset + scale`` times the length in mm."""
    scale: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """0.1 for an equation in centimetres."""
    curve: Curve
    unit: Literal["wk", "d"]
    """What the equation gives."""
    valid: Range
    """Results, in the equation's unit, for which it was fitted; beyond them there is no result."""
    standard_error: Steps | None = None
    """Standard deviation of the true value about the result, by the result, in the equation's unit."""
    convention: str = ""
    """How the length must have been measured, e.g. ``outer to outer``."""
    source: str
    """Where the equation, its range and its standard error come from."""


class Chart(Config):
    """Published mean and standard deviation of a quantity by another one that is known independently."""

    name: CurveName
    label: str = ""
    by: CurveName
    """The case's target that holds the independent quantity, e.g. ``gestational_age_wk``."""
    valid: Range
    """Where the chart was fitted, in the units of ``by``."""
    mean: Curve
    """In mm."""
    sd: Curve
    """In mm."""
    convention: str = ""
    """How the length must have been measured."""
    source: str
    """Where the chart comes from."""
