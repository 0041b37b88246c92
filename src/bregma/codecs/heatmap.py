"""Heatmap codec: a Gaussian a landmark; decoded by argmax, DARK, local or full soft-argmax.

Cell ``j`` of a map of stride ``s`` is centred at input pixel ``(j + 0.5) * s - 0.5``; this is the only
place where cells become pixels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bregma.codecs.base import Decoded, Labels, Target, no_covariance, presence_of
from bregma.config import Config
from bregma.types import SIGMOID_OFFSET, OutputSpec

_FIRST_SPREAD = 0.02
"""Standard deviation that an output of 0 stands for, as a fraction of the input's longer side."""
_LOG_RANGE = 6.0
"""How far the logarithm of a predicted standard deviation may go from there: a factor of 400 either way."""


class HeatmapCodecConfig(Config):
    """Settings of the heatmap codec."""

    name: Literal["heatmap"] = "heatmap"
    sigma_px: float = Field(default=2.0, gt=0)
    """Standard deviation of the target Gaussian, in input pixels."""
    activation: Literal["softmax", "linear", "sigmoid"] = "softmax"
    """``softmax``: a map is a probability over its cells (cross-entropy); ``linear``: its values are regressed;
    ``sigmoid``: each cell is a logit of its own (focal loss)."""
    decoder: Literal["argmax", "dark", "local_soft_argmax", "soft_argmax"] = "local_soft_argmax"
    """How a map becomes a point."""
    radius_sigma: float = Field(default=4.0, gt=0)
    """Half-width of the local soft-argmax window, in target standard deviations."""
    presence: bool = False
    """Learn whether a landmark is on the image at all."""
    spread: bool = False
    """Let the network predict a standard deviation in x and in y for every point, which takes the place of the width
    that its map shows (train it with the ``gaussian_nll`` loss)."""


class HeatmapCodec:
    """Gaussian maps, one a landmark."""

    def __init__(self, config: HeatmapCodecConfig, landmarks: int, map_stride: int) -> None:
        self.config = config
        self.landmarks = landmarks
        self.stride = map_stride
        self.sigma_cells = config.sigma_px / map_stride

    @property
    def outputs(self) -> OutputSpec:
        """One map a landmark, with ``presence`` (N) and ``spread`` (2N) where they are learned."""
        vectors = {"presence": self.landmarks} if self.config.presence else {}
        if self.config.spread:
            vectors["spread"] = 2 * self.landmarks
        return OutputSpec(self.landmarks, vectors)

    def encode(self, labels: Labels) -> Target:
        """Draw a Gaussian with peak 1 at every placed point; the rest stay zero and are masked by the losses."""
        x_BN, y_BN = self._to_cells(labels.points_in).unbind(-1)
        rows, columns = (n // self.stride for n in labels.shape)
        gx = self._gaussian(x_BN, columns)
        gy = self._gaussian(y_BN, rows) * labels.placed[..., None]
        return Target(labels, maps=gy[..., :, None] * gx[..., None, :])

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Differentiable points ``(B, N, 2)``: the mean over the whole map."""
        del shape
        return self._to_pixels(_moments(self._probability(outputs["maps"].float()))[0])

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Lower factors ``(B, N, 2, 2)`` of the predicted covariances, in input pixels: σx and σy on the diagonal.

        Raises:
            ConfigError: ``spread`` is off.
        """
        if not self.config.spread:
            raise no_covariance("set codec.spread=true")
        log_sigma = outputs["spread"].float().unflatten(1, (self.landmarks, 2))
        # Bounded, so that one wild output gives neither a likelihood without bound nor one of no use.
        bounded = _LOG_RANGE * torch.tanh(log_sigma / _LOG_RANGE)
        return torch.diag_embed(bounded.exp() * (_FIRST_SPREAD * max(shape)))

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read points, covariances (the predicted ones, or else the map's second moments) and presence."""
        maps = outputs["maps"].float()
        p = self._probability(maps)
        peak = _argmax(maps)
        match self.config.decoder:
            case "argmax":
                cells = peak
            case "dark":
                cells = _dark(p if self.config.activation == "softmax" else self._heights(maps), peak, self.sigma_cells)
            case "local_soft_argmax":
                cells = self._local_mean(p, peak)
            case "soft_argmax":
                cells = _untruncate(_moments(p)[0], p.shape, None, self.sigma_cells)
        # The factor is diagonal, so that its square is the covariance.
        cov = self.cholesky(outputs, shape) ** 2 if self.config.spread else self._covariance(p, cells)
        return Decoded(self._to_pixels(cells), cov, presence_of(outputs, cells))

    def _probability(self, maps_BNHW: Tensor) -> Tensor:
        if self.config.activation == "softmax":
            return maps_BNHW.flatten(2).softmax(-1).view_as(maps_BNHW)
        positive = self._heights(maps_BNHW)
        # The floor of a regressed map is noise, not probability. Near a peak it stays, with the Gaussian's own tail:
        # a tail cut unevenly to the left and right would shift the mean.
        high = (positive >= 0.05 * positive.amax((2, 3), keepdim=True)).to(positive.dtype)
        reach = max(1, math.ceil(1.5 * self.sigma_cells))
        kept = positive * functional.max_pool2d(high, 2 * reach + 1, stride=1, padding=reach)
        return kept / kept.sum((2, 3), keepdim=True).clamp(min=1e-12)

    def _heights(self, maps_BNHW: Tensor) -> Tensor:
        if self.config.activation == "sigmoid":
            return (maps_BNHW + SIGMOID_OFFSET).sigmoid()
        return maps_BNHW.clamp(min=0)

    def _local_mean(self, p: Tensor, peak: Tensor) -> Tensor:
        radius = max(1.0, self.config.radius_sigma * self.sigma_cells)
        window = _window(p.shape, peak, radius)
        inside = p * window
        inside = inside / inside.sum((2, 3), keepdim=True).clamp(min=1e-12)
        return _untruncate(_moments(inside)[0], p.shape, (peak, radius), self.sigma_cells)

    def _covariance(self, p: Tensor, cells: Tensor) -> Tensor:
        """Second moments about the decoded point, less the target's own width, not below a cell's quantisation.

        A network trained on Gaussian targets learns the posterior convolved with that Gaussian, so its variance is
        taken off again.
        """
        mean, cov = _moments(p)
        away = cells - mean
        cov = cov + away[..., :, None] * away[..., None, :]
        cov = (cov - self.sigma_cells**2 * torch.eye(2, device=p.device)) * self.stride**2
        return _at_least(cov, self.stride**2 / 12)

    def _gaussian(self, centre: Tensor, cells: int) -> Tensor:
        grid = torch.arange(cells, device=centre.device, dtype=centre.dtype)
        return torch.exp(-0.5 * ((grid - centre[..., None]) / self.sigma_cells) ** 2)

    def _to_cells(self, points_in: Tensor) -> Tensor:
        return (points_in + 0.5) / self.stride - 0.5

    def _to_pixels(self, cells: Tensor) -> Tensor:
        return (cells + 0.5) * self.stride - 0.5


def _argmax(maps_BNHW: Tensor) -> Tensor:
    """Cell ``(B, N, 2)`` of one joint maximum; x and y never come from different maxima."""
    width = maps_BNHW.shape[-1]
    flat = maps_BNHW.flatten(2).argmax(-1)
    return torch.stack([flat % width, torch.div(flat, width, rounding_mode="floor")], dim=-1).to(torch.float32)


def _moments(p_BNHW: Tensor) -> tuple[Tensor, Tensor]:
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


def _window(shape: torch.Size, centre: Tensor, radius: float) -> Tensor:
    rows = torch.arange(shape[2], device=centre.device, dtype=centre.dtype)
    columns = torch.arange(shape[3], device=centre.device, dtype=centre.dtype)
    in_y = (rows - centre[..., 1:]).abs() <= radius
    in_x = (columns - centre[..., :1]).abs() <= radius
    return in_y[..., :, None] & in_x[..., None, :]


def _untruncate(mean: Tensor, shape: torch.Size, window: tuple[Tensor, float] | None, sigma: float) -> Tensor:
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
        axes.append(_solve_centre(grid, mask, seen, sigma))
    return torch.cat(axes, dim=-1)


def _solve_centre(grid: Tensor, mask: Tensor, seen: Tensor, sigma: float) -> Tensor:
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


def _dark(p_BNHW: Tensor, peak: Tensor, sigma: float) -> Tensor:
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
    offsets = torch.arange(-radius, radius + 1, device=p_BNHW.device, dtype=p_BNHW.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = p_BNHW.flatten(0, 1)[:, None]
    blurred = functional.conv2d(flat, kernel[None, None, None, :], padding=(0, radius))
    blurred = functional.conv2d(blurred, kernel[None, None, :, None], padding=(radius, 0)).view_as(p_BNHW)
    limit = torch.tensor([p_BNHW.shape[3], p_BNHW.shape[2]], device=peak.device) - 1 - 2 * radius
    inside = ((peak >= 2 * radius) & (peak <= limit)).all(-1)
    return torch.where(inside[..., None, None], blurred, p_BNHW)


class _Sampler:
    """Reads a map at small offsets from one cell a landmark."""

    def __init__(self, maps_BNHW: Tensor, x: Tensor, y: Tensor) -> None:
        self.flat = maps_BNHW.flatten(2)
        self.width = maps_BNHW.shape[3]
        self.x, self.y = x.long(), y.long()

    def __call__(self, dx: int, dy: int) -> Tensor:
        index = (self.y + dy) * self.width + self.x + dx
        return self.flat.gather(2, index[..., None])[..., 0]


def _at_least(cov: Tensor, floor: float) -> Tensor:
    """Raise the eigenvalues of covariances ``(..., 2, 2)`` to ``floor``."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=floor)[..., None, :]) @ vectors.transpose(-1, -2)
