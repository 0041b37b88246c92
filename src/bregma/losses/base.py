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
        target_maps: Gaussians, with peak 1 unless their width is learned, or None.
        points: predicted points ``(B, N, 2)`` in input pixels.
        target_points: true points.
        cholesky: lower factors ``(B, N, 2, 2)`` of predicted covariances, or None.
        placed: ``(B, N)`` 1 where the point has a known position.
        presence: presence logits ``(B, N)``, or None.
        present: ``(B, N)`` 1 where the landmark is on the image.
        known: ``(B, N)`` 1 where ``present`` is known.
        schema: the anatomy whose landmarks these are.
        sigma: ``(B, N)`` standard deviations of the target's Gaussians in cells, where they are learned, or None.
        cells: ``(B, K, H, W)`` mask of the cells that the labels judge, or None for all of placed landmarks' maps.
        peaks: ``(B, K, H, W)`` mask of the cells that hold a point, or None for every map's highest.
        fields: predicted values ``(B, F, H, W)``, or None.
        target_fields: true values.
        field_cells: mask of the cells that have one.
        counts: ``(B, K)`` 1 for maps that count, where landmarks share maps; otherwise None.
        values: predicted quantities ``(B, T)`` of the whole image, standardised, or None.
        log_variance: logarithms of their predicted variances, or None.
        target_values: true quantities, standardised.
        values_known: ``(B, T)`` 1 where these are known.
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
    sigma: Tensor | None = None
    cells: Tensor | None = None
    peaks: Tensor | None = None
    fields: Tensor | None = None
    target_fields: Tensor | None = None
    field_cells: Tensor | None = None
    counts: Tensor | None = None
    values: Tensor | None = None
    log_variance: Tensor | None = None
    target_values: Tensor | None = None
    values_known: Tensor | None = None

    @property
    def counted(self) -> Tensor:
        """Which maps ``(B, K)`` count: those of placed landmarks, or those with a cell that the labels judge."""
        if self.counts is not None:
            return self.counts
        return self.placed if self.cells is None else self.cells.any((2, 3)).to(self.placed.dtype)

    def over_cells(self, values: Tensor) -> Tensor:
        """Mean ``(B, K)`` of ``(B, K, H, W)`` over the cells of each map that the labels judge."""
        if self.cells is None:
            return values.mean((2, 3))
        return (values * self.cells).sum((2, 3)) / self.cells.sum((2, 3)).clamp(min=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries that count; 0 where none does, with a gradient of 0."""
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def pseudo_huber(error: Tensor, softness: float) -> Tensor:
    """``√(e² + s²) - s`` (Charbonnier et al., ICIP 1994): quadratic below ``s``, linear with slope 1 beyond."""
    return (error**2 + softness**2).sqrt() - softness
