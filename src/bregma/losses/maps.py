"""Terms on maps: ``(B, N, H, W)`` outputs against Gaussians with peak 1; averaged over placed landmarks."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bregma.errors import ConfigError
from bregma.losses.base import LossInput, LossTerm, masked_mean
from bregma.types import SIGMOID_OFFSET


class MSEConfig(LossTerm):
    """Mean squared error of maps."""

    name: Literal["mse"] = "mse"


class WeightedMSEConfig(LossTerm):
    """Mean squared error of maps that counts the few cells near a landmark more than the background."""

    name: Literal["weighted_mse"] = "weighted_mse"
    threshold: float = Field(default=0.1, gt=0, lt=1)
    """Target value from which a cell counts as key."""
    background: float = Field(default=0.05, gt=0)
    """Weight of the cells below the threshold."""
    key: float = Field(default=5.0, gt=0)
    """Weight of the cells from the threshold on. All three defaults are those of a published spine project."""


class PeakConfig(LossTerm):
    """Mean squared error of a map's cells near its target's peak alone; Bregma's own, to be added to another term."""

    name: Literal["peak"] = "peak"
    share: float = Field(default=0.5, gt=0, lt=1)
    """Cells whose target is at least this share of the map's highest count; 0.5 reaches 1.18 standard deviations."""


class AdaptiveWingConfig(LossTerm):
    """Adaptive wing loss on maps (Wang, Bo, Fuxin, ICCV 2019)."""

    name: Literal["adaptive_wing"] = "adaptive_wing"
    omega: float = Field(default=14.0, gt=0)
    """Height of the logarithmic part; all four defaults are the paper's."""
    theta: float = Field(default=0.5, gt=0)
    """Error from which the loss is linear."""
    epsilon: float = Field(default=1.0, gt=0)
    """Error at which the logarithm begins to bend."""
    alpha: float = Field(default=2.1, ge=2)
    """Power on the background; on the peak it is one less, below 1 of which the gradient at no error has no bound."""


class FocalConfig(LossTerm):
    """Focal loss on logits, milder beside a peak (Law and Deng, CornerNet, ECCV 2018; Zhou et al., CenterNet, 2019)."""

    name: Literal["focal"] = "focal"
    alpha: float = Field(default=2.0, ge=1)
    """Power with which cells that are right already count less; 2 in both papers."""
    beta: float = Field(default=4.0, ge=0)
    """Power with which cells near a landmark count less as background; 4 in both papers."""


class CrossEntropyConfig(LossTerm):
    """Cross-entropy between the softmax over a map's cells and the normalised Gaussian."""

    name: Literal["cross_entropy"] = "cross_entropy"


class KLConfig(LossTerm):
    """Kullback-Leibler divergence of the softmax over a map's cells from the normalised Gaussian; 0 when they agree."""

    name: Literal["kl"] = "kl"


def mse(config: MSEConfig, x: LossInput) -> Tensor:
    """Mean over cells of ``(p - t)²``, averaged over placed landmarks."""
    del config
    maps, target = _maps(x)
    return masked_mean(x.over_cells((maps - target) ** 2), x.counted)


def weighted_mse(config: WeightedMSEConfig, x: LossInput) -> Tensor:
    """Mean over cells of ``w (p - t)²`` with ``w`` = ``key`` where ``t >= threshold`` and ``background`` elsewhere."""
    maps, target = _maps(x)
    weight = torch.where(target >= config.threshold, config.key, config.background)
    return masked_mean(x.over_cells(weight * (maps - target) ** 2), x.counted)


def peak(config: PeakConfig, x: LossInput) -> Tensor:
    """Mean of ``(p - t)²`` over the cells where ``t >= share * max t``."""
    maps, target = _maps(x)
    near = target >= config.share * target.amax((2, 3), keepdim=True)
    if x.cells is not None:
        near = near & x.cells & (target > 0)
    error = (near * (maps - target) ** 2).sum((2, 3)) / near.sum((2, 3)).clamp(min=1)
    return masked_mean(error, near.any((2, 3)) * x.counted)


def adaptive_wing(config: AdaptiveWingConfig, x: LossInput) -> Tensor:
    """Equation 3 of Wang et al. 2019: logarithmic below θ with a power set by the target, linear beyond."""
    maps, target = _maps(x)
    error = (maps - target).abs()
    power = config.alpha - target
    ratio = config.theta / config.epsilon
    slope = config.omega / (1 + ratio**power) * power * ratio ** (power - 1) / config.epsilon
    offset = config.theta * slope - config.omega * torch.log1p(ratio**power)
    near = config.omega * torch.log1p((error.clamp(max=config.theta) / config.epsilon) ** power)
    loss = torch.where(error < config.theta, near, slope * error - offset)
    return masked_mean(x.over_cells(loss), x.counted)


def focal(config: FocalConfig, x: LossInput) -> Tensor:
    """Equation 1 of CenterNet with ``p`` = sigmoid of the map (plus ``SIGMOID_OFFSET``), summed over cells.

    ``-(1 - p)^α ln p`` in the cell nearest to the landmark, ``-(1 - t)^β p^α ln(1 - p)`` in every other, over the
    number of landmarks of the map. The papers round a landmark to a cell; here the Gaussian keeps its place between
    cells, and its highest cell is the positive one.
    """
    maps, target = _maps(x)
    logits = maps + SIGMOID_OFFSET
    centre = _highest(target) if x.peaks is None else x.peaks
    hit = (-logits).sigmoid() ** config.alpha * functional.logsigmoid(logits)
    false_alarm = (1 - target) ** config.beta * logits.sigmoid() ** config.alpha * functional.logsigmoid(-logits)
    loss = -torch.where(centre, hit, false_alarm)
    if x.cells is not None:
        loss = loss * x.cells
    return masked_mean(loss.sum((2, 3)) / centre.sum((2, 3)).clamp(min=1), x.counted)


def cross_entropy(config: CrossEntropyConfig, x: LossInput) -> Tensor:
    """``-Σ q log softmax(p)`` with ``q`` the target normalised to sum 1; nats a landmark."""
    del config
    return masked_mean(_cross_entropy(x), x.counted)


def kl(config: KLConfig, x: LossInput) -> Tensor:
    """``Σ q (log q - log softmax(p))``: the cross-entropy less the target's own entropy, with the same gradient."""
    del config
    _, target = _maps(x)
    q = target.flatten(2) / _total(target)[..., None]
    return masked_mean(_cross_entropy(x) + torch.xlogy(q, q).sum(-1), x.counted)


def _cross_entropy(x: LossInput) -> Tensor:
    maps, target = _maps(x)
    log_p = functional.log_softmax(maps.flatten(2), dim=-1)
    # Normalising the sum instead of the target saves a pass over maps, on which this loss spends its time.
    return -(target.flatten(2) * log_p).sum(-1) / _total(target)


def _highest(target: Tensor) -> Tensor:
    flat = target.flatten(2)
    empty = torch.zeros_like(flat, dtype=torch.bool)
    return empty.scatter_(2, flat.argmax(-1, keepdim=True), True).view_as(target)


def _total(target: Tensor) -> Tensor:
    return target.sum((2, 3)).clamp(min=1e-12)


def _maps(x: LossInput) -> tuple[Tensor, Tensor]:
    if x.maps is None or x.target_maps is None:
        raise ConfigError("the codec gives no maps for a loss on maps", where="loss")
    return x.maps.to(x.target_maps.dtype), x.target_maps
