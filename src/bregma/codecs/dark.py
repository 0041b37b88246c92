"""DARK: a maximum between the cells of a map, by one Newton step on its logarithm; and the blur that it begins with.

Shape suffixes as in :mod:`bregma.codecs.cells`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dark(p_BNHW: Tensor, peak: Tensor, sigma: float) -> Tensor:
    """Distribution-aware refinement (Zhang et al., DARK, CVPR 2020): one Newton step on the log map at its maximum."""
    # A Gaussian sampled more coarsely than this is none any more; blurring with it would move the maximum.
    smooth = _smooth(p_BNHW, peak, sigma) if sigma >= 0.7 else p_BNHW
    # At the border the step is taken from the nearest cell that has neighbours on both sides.
    inner_x = peak[..., 0].clamp(1, p_BNHW.shape[3] - 2)
    inner_y = peak[..., 1].clamp(1, p_BNHW.shape[2] - 2)
    at = _Sampler(smooth.clamp(min=1e-30).log(), inner_x, inner_y)
    dx = 0.5 * (at(1, 0) - at(-1, 0))
    dy = 0.5 * (at(0, 1) - at(0, -1))
    xx = at(1, 0) - 2 * at(0, 0) + at(-1, 0)
    yy = at(0, 1) - 2 * at(0, 0) + at(0, -1)
    xy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    det = xx * yy - xy**2
    curved = (det > 1e-6) & (xx < 0)
    safe = torch.where(curved, det, 1.0)
    step = torch.stack([-(yy * dx - xy * dy) / safe, -(xx * dy - xy * dx) / safe], -1)
    refined = torch.stack([inner_x, inner_y], -1) + step
    # A Gaussian's maximum lies within half a cell of its highest cell; a longer way came from a ragged map.
    usable = curved & ((refined - peak).abs() < 0.75).all(-1)
    return torch.where(usable[..., None], refined, peak)


def _smooth(p_BNHW: Tensor, peak: Tensor, sigma: float) -> Tensor:
    """Blur with the target's own Gaussian, as DARK does; maps whose maximum the border would cut are left alone."""
    radius = max(1, round(3 * sigma))
    blurred = blur(p_BNHW, sigma, radius)
    limit = torch.tensor([p_BNHW.shape[3], p_BNHW.shape[2]], device=peak.device) - 1 - 2 * radius
    inside = ((peak >= 2 * radius) & (peak <= limit)).all(-1)
    return torch.where(inside[..., None, None], blurred, p_BNHW)


def blur(maps_BNHW: Tensor, sigma: float, radius: int) -> Tensor:
    """Blur maps with a Gaussian cut at ``radius`` cells; cells beyond the border are taken to be empty."""
    offsets = torch.arange(-radius, radius + 1, device=maps_BNHW.device, dtype=maps_BNHW.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = maps_BNHW.flatten(0, 1)[:, None]
    blurred = functional.conv2d(flat, kernel[None, None, None, :], padding=(0, radius))
    return functional.conv2d(blurred, kernel[None, None, :, None], padding=(radius, 0)).view_as(maps_BNHW)


class _Sampler:
    """Reads a map at small offsets from one cell a landmark."""

    def __init__(self, maps_BNHW: Tensor, x: Tensor, y: Tensor) -> None:
        self.flat = maps_BNHW.flatten(2)
        self.width = maps_BNHW.shape[3]
        self.x, self.y = x.long(), y.long()

    def __call__(self, dx: int, dy: int) -> Tensor:
        index = (self.y + dy) * self.width + self.x + dx
        return self.flat.gather(2, index[..., None])[..., 0]
