"""Where the levels of a chain usually lie on an image: what tells names where the number does not.

Images of a whole spine are cut to it, so that its first vertebra lies within a fraction of a vertebra of where it
always lies. Where one vertebra was missed, or one beyond the end was found, that says at which end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, FiniteFloat, PositiveFloat, model_validator

from bregma.config import Config
from bregma.geometry import Array

_MOST_TELLING = 9.0
"""Square of the most standard deviations that a step to the next level counts as: less than a sure element weighs."""
_LEAST_SD = 0.01
"""Standard deviation as a share of the image below which a few images would pretend to know it all."""
_TO_SD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


class Places(Config):
    """Where the centres of a chain's levels lie along one axis of an image, as shares of its size."""

    axis: Literal["x", "y"]
    mean: tuple[FiniteFloat, ...] = Field(min_length=2)
    """Of each level, first to last."""
    sd: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _check(self) -> Places:
        if len(self.sd) != len(self.mean):
            raise ValueError(f"{len(self.mean)} means and {len(self.sd)} standard deviations: one of each a level")
        return self

    def misfit(self, at_N: Array) -> Array:
        """Return what each rank ``(N, R)`` costs a node for lying elsewhere, as the logarithm of a probability ratio.

        All nodes of an image are off together, so that all ranks of a way weigh as much as the most telling of them
        does alone. One that is off by a level or more says nothing further: the image is cut in another way.

        Args:
            at_N: position of each node along the axis, as a share of the image.
        """
        mean_R, sd_R = np.array(self.mean), np.array(self.sd)
        telling_R = (np.gradient(mean_R) / sd_R) ** 2
        weight = min(float(telling_R.max()), _MOST_TELLING) / max(float(telling_R.sum()), 1e-12)
        off_NR = (np.asarray(at_N)[:, None] - mean_R) / sd_R
        return np.asarray(0.5 * weight * np.minimum(off_NR**2, telling_R))


def usual_places(centres: Sequence[Array], axis: Literal["x", "y"]) -> Places:
    """Return the median and the robust spread of the levels' places.

    Args:
        centres: ``(R, 2)`` of every image, as shares of its width and height.
        axis: along which.
    """
    at = np.stack(centres)[..., "xy".index(axis)]
    median = np.median(at, axis=0)
    sd = np.maximum(_TO_SD * np.median(np.abs(at - median), axis=0), _LEAST_SD)
    return Places(axis=axis, mean=tuple(map(float, median.round(4))), sd=tuple(map(float, sd.round(4))))
