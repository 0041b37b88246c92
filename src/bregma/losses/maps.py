"""Losses: named terms, each masked to landmarks that have a position, combined by weight.

Terms on maps compare ``(B, N, H, W)`` outputs with Gaussian targets of peak 1; terms on points compare points in input
pixels, read from any codec's outputs differentiably. A landmark without a known position adds nothing to any term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bregma.config import Config
from bregma.errors import ConfigError
from bregma.types import OutputSpec


class LossTerm(Config):
    """What every term has."""

    weight: float = Field(default=1.0, gt=0)
    """Factor in the weighted sum."""


class MSEConfig(LossTerm):
    """Mean squared error of maps."""

    name: Literal["mse"] = "mse"


class WeightedMSEConfig(LossTerm):
    """Mean squared error of maps that counts the few cells near a landmark more than the background."""

    name: Literal["weighted_mse"] = "weighted_mse"
    threshold: float = Field(default=0.1, gt=0, lt=1)
    """Target value from which a cell counts as key."""
    background: float = Field(default=0.05, gt=0)
    key: float = Field(default=5.0, gt=0)


class AdaptiveWingConfig(LossTerm):
    """Adaptive wing loss on maps (Wang, Bo, Fuxin, ICCV 2019)."""

    name: Literal["adaptive_wing"] = "adaptive_wing"
    omega: float = Field(default=14.0, gt=0)
    theta: float = Field(default=0.5, gt=0)
    epsilon: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=2.1, ge=2)
    """Power on the background; on the peak it is one less, below 1 of which the gradient at no error has no bound."""


class CrossEntropyConfig(LossTerm):
    """Cross-entropy between the softmax over a map's cells and the normalised Gaussian."""

    name: Literal["cross_entropy"] = "cross_entropy"


class WingConfig(LossTerm):
    """Wing loss on points (Feng et al., CVPR 2018), per coordinate, in input pixels."""

    name: Literal["wing"] = "wing"
    width: float = Field(default=10.0, gt=0)
    epsilon: float = Field(default=2.0, gt=0)


class GaussianNLLConfig(LossTerm):
    """Negative log-likelihood of points under the codec's predicted covariance, in input pixels."""

    name: Literal["gaussian_nll"] = "gaussian_nll"


class PresenceConfig(LossTerm):
    """Binary cross-entropy of the presence logits, over landmarks whose presence is known."""

    name: Literal["presence"] = "presence"


AnyLossConfig = Annotated[
    MSEConfig
    | WeightedMSEConfig
    | AdaptiveWingConfig
    | CrossEntropyConfig
    | WingConfig
    | GaussianNLLConfig
    | PresenceConfig,
    Field(discriminator="name"),
]


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


def mse(config: MSEConfig, x: LossInput) -> Tensor:
    """Mean over cells of ``(p - t)²``, averaged over placed landmarks."""
    del config
    maps, target = _maps(x)
    return _masked(((maps - target) ** 2).mean((2, 3)), x.placed)


def weighted_mse(config: WeightedMSEConfig, x: LossInput) -> Tensor:
    """Mean over cells of ``w (p - t)²`` with ``w`` = ``key`` where ``t >= threshold`` and ``background`` elsewhere."""
    maps, target = _maps(x)
    weight = torch.where(target >= config.threshold, config.key, config.background)
    return _masked((weight * (maps - target) ** 2).mean((2, 3)), x.placed)


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
    return _masked(loss.mean((2, 3)), x.placed)


def cross_entropy(config: CrossEntropyConfig, x: LossInput) -> Tensor:
    """``-Σ q log softmax(p)`` with ``q`` the target normalised to sum 1; nats a landmark."""
    del config
    maps, target = _maps(x)
    log_p = functional.log_softmax(maps.flatten(2), dim=-1)
    # Normalising the sum instead of the target saves a pass over maps, on which this loss spends its time.
    total = target.sum((2, 3)).clamp(min=1e-12)
    return _masked(-(target.flatten(2) * log_p).sum(-1) / total, x.placed)


def wing(config: WingConfig, x: LossInput) -> Tensor:
    """``w ln(1 + |d| / ε)`` for ``|d| < w``, else ``|d| - C`` with C so that the two meet; mean of x and y."""
    error = (x.points() - x.target_points).abs()
    constant = config.width - config.width * math.log1p(config.width / config.epsilon)
    near = config.width * torch.log1p(error / config.epsilon)
    return _masked(torch.where(error < config.width, near, error - constant).mean(-1), x.placed)


def gaussian_nll(config: GaussianNLLConfig, x: LossInput) -> Tensor:
    """``½ dᵀ Σ⁻¹ d + ½ ln det Σ`` a point (without the constant), with ``Σ = L Lᵀ``."""
    del config
    factor = x.cholesky()
    away = (x.points() - x.target_points)[..., None]
    white = torch.linalg.solve_triangular(factor, away, upper=False)[..., 0]
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _masked(0.5 * (white**2).sum(-1) + log_det, x.placed)


def presence(config: PresenceConfig, x: LossInput) -> Tensor:
    """Binary cross-entropy, averaged over landmarks whose presence is known."""
    del config
    if x.presence is None:
        raise ConfigError("the codec gives no presence", where="loss 'presence'", fix="set codec.presence=true")
    return _masked(
        functional.binary_cross_entropy_with_logits(x.presence.to(x.present.dtype), x.present, reduction="none"),
        x.known,
    )


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": mse,
    "weighted_mse": weighted_mse,
    "adaptive_wing": adaptive_wing,
    "cross_entropy": cross_entropy,
    "wing": wing,
    "gaussian_nll": gaussian_nll,
    "presence": presence,
}

_NEEDS = {
    "mse": "maps",
    "weighted_mse": "maps",
    "adaptive_wing": "maps",
    "cross_entropy": "maps",
    "gaussian_nll": "cholesky",
    "presence": "presence",
}
_NEEDS_ACTIVATION = {"mse": "linear", "weighted_mse": "linear", "adaptive_wing": "linear", "cross_entropy": "softmax"}


def check_terms(terms: Sequence[LossTerm], outputs: OutputSpec, activation: str | None) -> None:
    """Refuse terms that the codec cannot feed, before any training.

    Raises:
        ConfigError: no terms, a term whose output the codec does not give, or maps of the wrong kind for it.
    """
    if not terms:
        raise ConfigError("there is no loss", where="loss", expected="at least one term")
    for term in terms:
        name: str = term.name  # type: ignore[attr-defined]
        needs = _NEEDS.get(name)
        if needs and needs not in outputs.names:
            raise ConfigError(
                f"the loss '{name}' needs the output '{needs}'",
                where="loss",
                got=f"a codec that gives {', '.join(outputs.names)}",
                fix="choose a codec that gives it, or another loss",
            )
        wanted = _NEEDS_ACTIVATION.get(name)
        if wanted and activation != wanted:
            raise ConfigError(
                f"the loss '{name}' trains maps with codec.activation={wanted}",
                where="loss",
                got=f"codec.activation={activation}",
                fix=f"set codec.activation={wanted}, or choose another loss",
            )


def total_loss(terms: Sequence[LossTerm], x: LossInput) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum and each term's unweighted value."""
    values: dict[str, Tensor] = {}
    total = x.target_points.new_zeros(())
    for term in terms:
        name: str = term.name  # type: ignore[attr-defined]
        value = LOSSES[name](term, x)
        values[name] = value.detach()
        total = total + term.weight * value
    return total, values


def _maps(x: LossInput) -> tuple[Tensor, Tensor]:
    if x.maps is None or x.target_maps is None:
        raise ConfigError("the codec gives no maps for a loss on maps", where="loss")
    return x.maps.to(x.target_maps.dtype), x.target_maps


def _masked(values_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Mean over the landmarks that count; 0 where none does, with a gradient of 0."""
    return (values_BN * mask_BN).sum() / mask_BN.sum().clamp(min=1.0)
