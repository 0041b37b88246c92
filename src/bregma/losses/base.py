"""The contract of a loss term: what it may look at, and how it leaves out landmarks that nobody placed.

Shape suffixes: B batch, N landmarks, H and W rows and columns of the maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from bregma.config import Config
from bregma.schema import LandmarkSchema


class LossTerm(Config):
    """What every term has."""

    weight: float = Field(default=1.0, gt=0)
    """Factor in the weighted sum."""


@dataclass(frozen=True)
class LossInput:
    """Everything that a term may look at.

    Attributes:
        maps: predicted maps ``(B, N, H, W)`` as the network gives them, or None.
        target_maps: Gaussians with peak 1, or None.
        points: predicted points ``(B, N, 2)`` in input pixels.
        target_points: true points.
        cholesky: lower factors ``(B, N, 2, 2)`` of predicted covariances, or None.
        placed: ``(B, N)`` 1 where the point has a known position.
        presence: presence logits ``(B, N)``, or None.
        present: ``(B, N)`` 1 where the landmark is on the image.
        known: ``(B, N)`` 1 where ``present`` is known.
        schema: the anatomy whose landmarks these are.
    """

    maps: Tensor | None
    target_maps: Tensor | None
    points: Callable[[], Tensor]
    target_points: Tensor
    cholesky: Callable[[], Tensor]
    placed: Tensor
    presence: Tensor | None
    present: Tensor
    known: Tensor
    schema: LandmarkSchema


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries that count; 0 where none does, with a gradient of 0."""
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def pseudo_huber(error: Tensor, softness: float) -> Tensor:
    """``√(e² + s²) - s`` (Charbonnier et al., ICIP 1994): quadratic below ``s``, linear with slope 1 beyond."""
    return (error**2 + softness**2).sqrt() - softness
