"""Terms on points in input pixels, read from any codec's outputs differentiably, and on their presence.

Each is averaged over placed landmarks (presence: over those whose presence is known). ``d`` is prediction less truth.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bregma.errors import ConfigError
from bregma.losses.base import LossInput, LossTerm, masked_mean


class WingConfig(LossTerm):
    """Wing loss on points (Feng et al., CVPR 2018), per coordinate, in input pixels."""

    name: Literal["wing"] = "wing"
    width: float = Field(default=10.0, gt=0)
    """Error in input pixels from which the loss is linear; 10 in the paper."""
    epsilon: float = Field(default=2.0, gt=0)
    """Curvature of its logarithmic part; 2 in the paper."""


class SmoothL1Config(LossTerm):
    """Smooth L1 loss on points (Girshick, Fast R-CNN, ICCV 2015), per coordinate, in input pixels."""

    name: Literal["smooth_l1"] = "smooth_l1"
    beta: float = Field(default=1.0, gt=0)
    """Error in input pixels from which the loss is linear, with slope 1; 1 in the paper."""


class HuberConfig(LossTerm):
    """Huber's loss on points (Annals of Mathematical Statistics 1964), per coordinate, in input pixels."""

    name: Literal["huber"] = "huber"
    delta: float = Field(default=1.0, gt=0)
    """Error in input pixels from which the loss is linear, with slope ``delta``."""


class EuclideanConfig(LossTerm):
    """Mean radial distance of points, in input pixels: the error that is reported."""

    name: Literal["euclidean"] = "euclidean"


class L1Config(LossTerm):
    """Mean absolute error of points, per coordinate, in input pixels."""

    name: Literal["l1"] = "l1"


class L2Config(LossTerm):
    """Mean squared error of points, per coordinate, in input pixels squared."""

    name: Literal["l2"] = "l2"


class GaussianNLLConfig(LossTerm):
    """Negative log-likelihood of points under the codec's predicted covariance, in input pixels."""

    name: Literal["gaussian_nll"] = "gaussian_nll"


class PresenceConfig(LossTerm):
    """Binary cross-entropy of the presence logits, over landmarks whose presence is known."""

    name: Literal["presence"] = "presence"


def wing(config: WingConfig, x: LossInput) -> Tensor:
    """``w ln(1 + |d| / ε)`` for ``|d| < w``, else ``|d| - C`` with C so that the two meet; mean of x and y."""
    error = _away(x).abs()
    constant = config.width - config.width * math.log1p(config.width / config.epsilon)
    near = config.width * torch.log1p(error / config.epsilon)
    return masked_mean(torch.where(error < config.width, near, error - constant).mean(-1), x.placed)


def smooth_l1(config: SmoothL1Config, x: LossInput) -> Tensor:
    """``½ d² / β`` for ``|d| < β``, else ``|d| - ½ β``; mean of x and y."""
    error = _away(x).abs()
    near = 0.5 * error**2 / config.beta
    return masked_mean(torch.where(error < config.beta, near, error - 0.5 * config.beta).mean(-1), x.placed)


def huber(config: HuberConfig, x: LossInput) -> Tensor:
    """``½ d²`` for ``|d| < δ``, else ``δ (|d| - ½ δ)``; mean of x and y."""
    error = _away(x).abs()
    far = config.delta * (error - 0.5 * config.delta)
    return masked_mean(torch.where(error < config.delta, 0.5 * error**2, far).mean(-1), x.placed)


def euclidean(config: EuclideanConfig, x: LossInput) -> Tensor:
    """``√(dx² + dy²)``; its gradient where there is no error is 0."""
    del config
    return masked_mean(torch.linalg.vector_norm(_away(x), dim=-1), x.placed)


def l1(config: L1Config, x: LossInput) -> Tensor:
    """``|d|``; mean of x and y."""
    del config
    return masked_mean(_away(x).abs().mean(-1), x.placed)


def l2(config: L2Config, x: LossInput) -> Tensor:
    """``d²``; mean of x and y."""
    del config
    return masked_mean((_away(x) ** 2).mean(-1), x.placed)


def gaussian_nll(config: GaussianNLLConfig, x: LossInput) -> Tensor:
    """``½ dᵀ Σ⁻¹ d + ½ ln det Σ`` a point (without the constant), with ``Σ = L Lᵀ``."""
    del config
    factor = x.cholesky()
    white = torch.linalg.solve_triangular(factor, _away(x)[..., None], upper=False)[..., 0]
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return masked_mean(0.5 * (white**2).sum(-1) + log_det, x.placed)


def presence(config: PresenceConfig, x: LossInput) -> Tensor:
    """Binary cross-entropy, averaged over landmarks whose presence is known."""
    del config
    if x.presence is None:
        raise ConfigError("the codec gives no presence", where="loss 'presence'", fix="set codec.presence=true")
    return masked_mean(
        functional.binary_cross_entropy_with_logits(x.presence.to(x.present.dtype), x.present, reduction="none"),
        x.known,
    )


def _away(x: LossInput) -> Tensor:
    return x.points() - x.target_points
