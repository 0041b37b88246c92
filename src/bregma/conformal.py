"""Intervals of predicted quantities from how far predictions of other subjects were off.

Split conformal prediction (Papadopoulos et al., ECML 2002; Lei et al., J Am Stat Assoc 2018; 113:1094-1111): if a new
subject is like those whose residuals are known, and these were not learned from, the interval of half the width of
their ceil((n + 1) level)-th smallest residual holds the true value at least that often. Residuals of a cross-validation
stand in for those of a part that was kept away; the same count then holds nearly (the jackknife of Barber et al., Ann
Stat 2021; 49:486-507).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bregma.errors import InputError
from bregma.geometry import Array

LEVEL = 0.95
"""Coverage of the intervals."""


@dataclass(frozen=True)
class Conformal:
    """What is known of the residuals of one quantity.

    Attributes:
        residuals: ``(K,)`` absolute ones; of a length or an area in pixels of the network's input.
        weights: ``(K,)``, those of a subject add up to 1.
        source: where they come from, in words.
    """

    residuals: Array
    weights: Array
    source: str

    def __post_init__(self) -> None:
        for name in ("residuals", "weights"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        fit = self.residuals.ndim == 1 and self.residuals.shape == self.weights.shape
        if not (fit and np.isfinite(self.residuals).all() and (self.residuals >= 0).all() and (self.weights > 0).all()):
            raise InputError("the residuals of a quantity are none", got=self.source)

    def half_width(self, level: float = LEVEL) -> float | None:
        """Return half the width of the interval; None where the subjects are too few for it (19 for 95 %)."""
        order = np.argsort(self.residuals)
        share = np.cumsum(self.weights[order])
        needed = np.ceil(np.round((share[-1] + 1) * level, 9)) if share.size else np.inf
        reached = np.flatnonzero(share >= needed - 1e-9)
        return float(self.residuals[order[reached[0]]]) if reached.size else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"residuals": self.residuals.tolist(), "weights": self.weights.tolist(), "source": self.source}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Conformal:
        """Rebuild from ``to_dict``.

        Raises:
            InputError: it is not as written.
        """
        try:
            return cls(data["residuals"], data["weights"], str(data["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("holds no residuals as Bregma writes them", got=str(error)) from error


def conformal(residuals: Sequence[float] | Array, subjects: Sequence[str], source: str) -> Conformal:
    """Return what residuals of some subjects tell; each subject counts once.

    Args:
        residuals: signed or absolute, NaN where there is none.
        subjects: of the residuals.
        source: where they come from, in words; ``{n}`` becomes the number of subjects.
    """
    given = np.abs(np.asarray(residuals, dtype=np.float64))
    known = np.isfinite(given)
    own = [subject for subject, there in zip(subjects, known, strict=True) if there]
    weights = np.array([1.0 / own.count(subject) for subject in own])
    return Conformal(given[known], weights, source.replace("{n}", str(len(set(own)))))
