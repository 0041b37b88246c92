"""Heatmap codec: a Gaussian a landmark; decoded by argmax, DARK, local or full soft-argmax.

Landmarks that cannot be told apart share a map, and are decoded from it together (:mod:`bregma.codecs.exchangeable`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bregma.codecs.base import Candidates, Decoded, Labels, Target, no_covariance, no_shared_points, presence_of
from bregma.codecs.cells import argmax, at_least, bell, moments, to_cells, to_pixels, untruncate, window
from bregma.codecs.dark import blur, dark
from bregma.codecs.exchangeable import (
    EXTRA,
    Placed,
    Sharing,
    countable,
    distinct_peaks,
    highest_cells,
    mixture,
    nowhere,
    one_each,
    sorted_presence,
)
from bregma.config import Config
from bregma.errors import ConfigError
from bregma.types import SIGMOID_OFFSET, OutputSpec

_FIRST_SPREAD = 0.02
"""Standard deviation that an output of 0 stands for, as a fraction of the input's longer side."""
_LOG_RANGE = 6.0
"""How far the logarithm of a predicted standard deviation may go from there: a factor of 400 either way."""

LEAST_CELLS = 0.375
"""Standard deviation in cells that no learned width falls to: narrower Gaussians show their place in one cell alone."""
_TOTAL = 100.0
"""Sum of the cells of a target of learned width: γ of Payer et al. 2019 in their public code for radiographs."""


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
    learn_sigma: bool = False
    """Learn a width of its own for the target of every landmark, wider where the network is less certain, from a start
    at ``sigma_px`` (Payer et al., Medical Image Analysis 54, 2019; train it with ``mse`` and ``heatmap_width``).
    Targets then have the sum 100 instead of the peak 1."""
    exchangeable: Literal["shared", "separate"] = "shared"
    """``shared``: the points of a set that the schema calls exchangeable share one map and are decoded together;
    ``separate``: every point has a map of its own, in the order of the labels, as if that meant something."""
    outline: bool = True
    """Learn a map more of every outline that the schema declares, a ridge drawn through its points' labels, and place
    these points where it runs."""
    smooth_px: float = Field(default=0.0, ge=0)
    """Standard deviation, in input pixels, of a Gaussian by which maps are smoothed before they are decoded; 0 leaves
    them as they are."""


class HeatmapCodec:
    """Gaussian maps, one a landmark or one a set of landmarks that cannot be told apart.

    Args:
        config: its settings.
        landmarks: their number.
        map_stride: of the network's maps.
        sharing: which landmarks share a map; None for a map each.

    Raises:
        ConfigError: a width with no room to learn, or a decoder that cannot tell several points apart.
    """

    def __init__(
        self, config: HeatmapCodecConfig, landmarks: int, map_stride: int, sharing: Sharing | None = None
    ) -> None:
        self.config = config
        self.sharing = sharing or one_each(landmarks)
        self.landmarks = landmarks
        self.stride = map_stride
        self.sigma_cells = config.sigma_px / map_stride
        self.seen_cells = math.hypot(config.sigma_px, config.smooth_px) / map_stride
        """Standard deviation of the target in a map that was smoothed."""
        if config.learn_sigma and self.sigma_cells < 2 * LEAST_CELLS:
            raise ConfigError(
                "a width this narrow leaves no room to learn",
                where="codec.sigma_px",
                expected=f"at least {2 * LEAST_CELLS * map_stride:g}, {2 * LEAST_CELLS:g} cells of the maps",
                got=f"{config.sigma_px:g}",
            )
        if self.sharing.sets and config.decoder == "soft_argmax":
            raise ConfigError(
                "the mean over a whole map cannot tell the points apart that share it",
                where="codec.decoder",
                got=config.decoder,
                fix="choose local_soft_argmax, or set codec.exchangeable=separate",
            )

    @property
    def outputs(self) -> OutputSpec:
        """K maps, one a landmark or set, with ``presence`` (N), ``spread`` (2K) and the constant ``sigma`` (K)."""
        vectors = {"presence": self.landmarks} if self.config.presence else {}
        if self.config.spread:
            vectors["spread"] = 2 * self.sharing.maps
        constants = {"sigma": self.sharing.maps} if self.config.learn_sigma else {}
        return OutputSpec(self.sharing.maps, vectors, constants, shared=len(self.sharing.sets))

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Draw a Gaussian at every placed point; the rest stay zero and are masked by the losses.

        Its peak is 1. Where the width is learned, it is ``γ / (2πσ²) exp(-d² / 2σ²)`` with γ = 100 and σ in cells, as
        Payer et al. have it, and differentiable in the width among the outputs.
        """
        x_BN, y_BN = to_cells(labels.points_in, self.stride).unbind(-1)
        rows, columns = (n // self.stride for n in labels.shape)
        sigma_BK = self.learned_cells(outputs, labels.points_in) if self.config.learn_sigma else None
        sigma_BN = None if sigma_BK is None else sigma_BK[:, self.sharing.map_of]
        width = self.sigma_cells if sigma_BN is None else sigma_BN[..., None]
        gx = bell(x_BN, columns, width)
        gy = bell(y_BN, rows, width) * labels.placed[..., None]
        if sigma_BN is not None:
            gy = gy * (_TOTAL / (2 * math.pi * sigma_BN**2))[..., None]
        maps_BNHW = gy[..., :, None] * gx[..., None, :]
        if not self.sharing.sets:
            return Target(labels, maps_BNHW, sigma_BK)
        return self._shared_target(labels, maps_BNHW, sigma_BK)

    def _shared_target(self, labels: Labels, maps_BNHW: Tensor, sigma_BK: Tensor | None) -> Target:
        """Merge what the members of a set would have been drawn as, whatever their order."""
        softmax = self.config.activation == "softmax"
        present, known = sorted_presence(labels.present, labels.known, self.sharing)
        return Target(
            replace(labels, present=present, known=known),
            mixture(maps_BNHW, self.sharing, probability=softmax),
            sigma_BK,
            peaks=highest_cells(maps_BNHW, self.sharing) if self.config.activation == "sigmoid" else None,
            counts=countable(labels.placed, labels.known, self.sharing),
        )

    def learned_cells(self, outputs: Mapping[str, Tensor] | None, like: Tensor) -> Tensor:
        """Return the learned widths ``(B, K)`` in cells; those of an untrained network where there are no outputs."""
        raw_BK = like.new_zeros((len(like), self.sharing.maps)) if outputs is None else outputs["sigma"].float()
        return LEAST_CELLS + (self.sigma_cells - LEAST_CELLS) * raw_BK.exp()

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Differentiable points ``(B, N, 2)``: the mean over the whole map.

        Raises:
            ConfigError: landmarks share maps, of which the mean is none of them.
        """
        del shape
        if self.sharing.sets:
            raise no_shared_points()
        return to_pixels(moments(self.probability(outputs["maps"].float()))[0], self.stride)

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Lower factors ``(B, N, 2, 2)`` of the predicted covariances, in input pixels: σx and σy on the diagonal.

        Raises:
            ConfigError: ``spread`` is off.
        """
        if not self.config.spread:
            raise no_covariance("set codec.spread=true")
        log_sigma = outputs["spread"].float().unflatten(1, (self.sharing.maps, 2))[:, self.sharing.map_of]
        # Bounded, so that one wild output gives neither a likelihood without bound nor one of no use.
        bounded = _LOG_RANGE * torch.tanh(log_sigma / _LOG_RANGE)
        return torch.diag_embed(bounded.exp() * (_FIRST_SPREAD * max(shape)))

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read points, covariances (the predicted ones, or else the map's second moments) and presence.

        Points that share a map come from left to right; the presence of each is its share of their mass, unless
        presence was learned.
        """
        if self.config.learn_sigma:
            return self._decode_each(outputs, shape)
        maps = outputs["maps"].float()
        p, heights = self._smoothed(self.probability(maps)), self._smoothed(self._heights(maps))
        spread = self.cholesky(outputs, shape) ** 2 if self.config.spread else None
        if not self.sharing.sets:
            # Of the maps as they are: the values of a probability may be too small to tell apart.
            mean, cov = self._read(p, heights, argmax(p if self.config.smooth_px else maps))
            return Decoded(mean, cov if spread is None else spread, presence_of(outputs, mean))
        return self._decode_shared(p, heights, outputs, shape, spread)

    def _read(self, p: Tensor, heights: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points ``(B, M, 2)`` and covariances of M maps of one point each, in input pixels."""
        match self.config.decoder:
            case "argmax":
                cells = peak
            case "dark":
                cells = dark(p if self.config.activation == "softmax" else heights, peak, self.seen_cells)
            case "local_soft_argmax":
                cells = self._local_mean(p, peak)
            case "soft_argmax":
                cells = untruncate(moments(p)[0], p.shape, None, self.seen_cells)
        return to_pixels(cells, self.stride), self._covariance(p, cells)

    def _decode_shared(
        self, p: Tensor, heights: Tensor, outputs: dict[str, Tensor], shape: tuple[int, int], spread: Tensor | None
    ) -> Decoded:
        found = Placed.nowhere(len(p), self.landmarks, shape, like=p)
        singles = [k for k, _ in self.sharing.singles]
        if singles:
            own = p[:, singles]
            found.put([n for _, n in self.sharing.singles], *self._read(own, heights[:, singles], argmax(own)))
        learned = presence_of(outputs, found.mean)
        found.presence.copy_(learned)
        candidates = []
        for k, members in self.sharing.sets:
            own_spread = None if spread is None else spread[:, members[0]]
            one = self._candidates(p[:, k], heights[:, k], members, shape, own_spread)
            one = replace(one, presence=learned[:, list(members)] if self.config.presence else None)
            found.choose(one)
            candidates.append(one)
        return Decoded(found.mean, found.cov, found.presence, candidates=tuple(candidates))

    def _candidates(
        self,
        p_BHW: Tensor,
        heights_BHW: Tensor,
        members: tuple[int, ...],
        shape: tuple[int, int],
        spread: Tensor | None,
    ) -> Candidates:
        """Read all distinct peaks of a shared map as if each had a map of its own."""
        radius = max(1.0, self.config.radius_sigma * self.seen_cells)
        peaks = distinct_peaks(p_BHW, len(members) + EXTRA, self.seen_cells, radius)
        there = peaks.mass > 0
        own = peaks.own / peaks.mass.clamp(min=1e-30)[..., None, None]
        mean, cov = self._read(own, heights_BHW[:, None].expand_as(own), peaks.cell)
        middle, anywhere = nowhere(shape, like=mean)
        mean = torch.where(there[..., None], mean, middle)
        cov = cov if spread is None else spread[:, None].expand_as(cov)
        return Candidates(members, mean, torch.where(there[..., None, None], cov, anywhere), peaks.mass)

    def _decode_each(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read every map as a codec of its own learned width would."""
        maps = outputs["maps"]
        found = Placed.nowhere(len(maps), self.landmarks, shape, like=maps)
        candidates: list[Candidates] = []
        # The same for all images of a batch.
        for k, cells in enumerate(self.learned_cells(outputs, maps)[0].tolist()):
            members = list(self.sharing.members[k])
            own = {"maps": maps[:, k : k + 1]}
            if self.config.spread:
                own["spread"] = outputs["spread"][:, 2 * k : 2 * k + 2]
            if "presence" in outputs:
                own["presence"] = outputs["presence"][:, members]
            config = self.config.model_copy(update={"sigma_px": cells * self.stride, "learn_sigma": False})
            alone = Sharing((tuple(range(len(members))),))
            one = HeatmapCodec(config, len(members), self.stride, alone).decode(own, shape)
            found.put(members, one.mean_in, one.cov_in, one.presence)
            candidates += [replace(c, members=tuple(members)) for c in one.candidates]
        return Decoded(found.mean, found.cov, found.presence, candidates=tuple(candidates))

    def _smoothed(self, maps_BKHW: Tensor) -> Tensor:
        """Blur maps as asked; cells beyond the border are taken to be empty."""
        if self.config.smooth_px == 0:
            return maps_BKHW
        sigma = self.config.smooth_px / self.stride
        return blur(maps_BKHW, sigma, max(1, math.ceil(3 * sigma)))

    def probability(self, maps_BNHW: Tensor) -> Tensor:
        """Return maps ``(B, N, H, W)`` of the network as probabilities that sum to one over their cells."""
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
        radius = max(1.0, self.config.radius_sigma * self.seen_cells)
        inside = p * window(p.shape, peak, radius)
        inside = inside / inside.sum((2, 3), keepdim=True).clamp(min=1e-12)
        return untruncate(moments(inside)[0], p.shape, (peak, radius), self.seen_cells)

    def _covariance(self, p: Tensor, cells: Tensor) -> Tensor:
        """Second moments about the decoded point, less the target's own width, not below a cell's quantisation.

        A network trained on Gaussian targets learns the posterior convolved with that Gaussian, so its variance is
        taken off again.
        """
        mean, cov = moments(p)
        away = cells - mean
        cov = cov + away[..., :, None] * away[..., None, :]
        cov = (cov - self.seen_cells**2 * torch.eye(2, device=p.device)) * self.stride**2
        return at_least(cov, self.stride**2 / 12)
