"""Cells and pixels, and what several codecs read from maps: maxima, moments, and means that a border or window cut.

Cell ``j`` of a map of stride ``s`` is centred at input pixel ``(j + 0.5) * s - 0.5``; this is the only place where
cells become pixels. Shape suffixes: B batch, N maps, H and W rows and columns; cells are ``(x, y)``.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from bregma.geometry import Array

_Cells = TypeVar("_Cells", Tensor, Array)


def to_cells(points_in: Tensor, stride: int) -> Tensor:
    """Return where points in input pixels lie among the cells of maps of a stride."""
    return (points_in + 0.5) / stride - 0.5


def to_pixels(cells: _Cells, stride: int) -> _Cells:
    """Return the input pixels of places among the cells of maps of a stride."""
    return (cells + 0.5) * stride - 0.5


def bell(centre: Tensor, cells: int, sigma_cells: float | Tensor) -> Tensor:
    """Return Gaussians ``(..., cells)`` with peak 1 about centres ``(...)``, along one axis."""
    grid = torch.arange(cells, device=centre.device, dtype=centre.dtype)
    return torch.exp(-0.5 * ((grid - centre[..., None]) / sigma_cells) ** 2)


def argmax(maps_BNHW: Tensor) -> Tensor:
    """Cell ``(B, N, 2)`` of one joint maximum; x and y never come from different maxima."""
    width = maps_BNHW.shape[-1]
    flat = maps_BNHW.flatten(2).argmax(-1)
    return torch.stack([flat % width, torch.div(flat, width, rounding_mode="floor")], dim=-1).to(torch.float32)


def moments(p_BNHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(B, N, 2)`` and covariance ``(B, N, 2, 2)`` in cells of maps that sum to one."""
    rows = torch.arange(p_BNHW.shape[2], device=p_BNHW.device, dtype=p_BNHW.dtype)
    columns = torch.arange(p_BNHW.shape[3], device=p_BNHW.device, dtype=p_BNHW.dtype)
    px, py = p_BNHW.sum(2), p_BNHW.sum(3)
    x, y = (px * columns).sum(-1), (py * rows).sum(-1)
    dx, dy = columns - x[..., None], rows - y[..., None]
    xx, yy = (px * dx**2).sum(-1), (py * dy**2).sum(-1)
    xy = torch.einsum("bnhw,bnh,bnw->bn", p_BNHW, dy, dx)
    cov = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)
    return torch.stack([x, y], -1), cov


def window(shape: torch.Size, centre: Tensor, radius: float) -> Tensor:
    """Mask ``(B, N, H, W)`` of the cells within ``radius`` of cells ``(B, N, 2)`` along either axis."""
    rows = torch.arange(shape[2], device=centre.device, dtype=centre.dtype)
    columns = torch.arange(shape[3], device=centre.device, dtype=centre.dtype)
    in_y = (rows - centre[..., 1:]).abs() <= radius
    in_x = (columns - centre[..., :1]).abs() <= radius
    return in_y[..., :, None] & in_x[..., None, :]


def untruncate(mean: Tensor, shape: torch.Size, window: tuple[Tensor, float] | None, sigma: float) -> Tensor:
    """Undo the pull towards the inside that a window (or the map's border) gives the mean of a cut Gaussian.

    Solves, per axis, for the centre whose Gaussian of width ``sigma``, summed over the same cells, has the mean that
    was seen (Newton; the derivative of that mean is its variance / sigma²). Away from borders nothing changes.
    """
    axes = []
    for axis, cells in ((0, shape[3]), (1, shape[2])):
        grid = torch.arange(cells, device=mean.device, dtype=mean.dtype)
        seen = mean[..., axis : axis + 1]
        mask = torch.ones_like(grid - seen)
        if window is not None:
            mask = ((grid - window[0][..., axis : axis + 1]).abs() <= window[1]).to(mean.dtype)
        axes.append(centre_of(grid, mask, seen, sigma))
    return torch.cat(axes, dim=-1)


def centre_of(grid: Tensor, mask: Tensor, seen: Tensor, sigma: float) -> Tensor:
    """Return the centre ``(..., 1)`` of the Gaussian whose mean over the cells that count is ``seen``.

    Args:
        grid: ``(C,)`` cells along one axis.
        mask: ``(..., C)`` 1 for cells that count.
        seen: ``(..., 1)``.
        sigma: standard deviation of the Gaussian in cells.
    """
    centre = seen.clone()
    for _ in range(12):
        weight = torch.exp(-0.5 * ((grid - centre) / sigma) ** 2) * mask
        weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
        expected = (weight * grid).sum(-1, keepdim=True)
        variance = (weight * (grid - expected) ** 2).sum(-1, keepdim=True)
        step = (seen - expected) * sigma**2 / variance.clamp(min=1e-4 * sigma**2)
        centre = centre + step.clamp(-0.5 * sigma, 0.5 * sigma)
    # A map that is no Gaussian must not be extrapolated far: one target width beyond what was seen at most, or a little
    # over half a cell, which is how far a point on the input's edge lies from what narrow targets show of it.
    far = max(sigma, 0.6)
    return torch.maximum(torch.minimum(centre, seen + far), seen - far)


def at_least(cov: Tensor, floor: float) -> Tensor:
    """Raise the eigenvalues of covariances ``(..., 2, 2)`` to ``floor``."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=floor)[..., None, :]) @ vectors.transpose(-1, -2)
