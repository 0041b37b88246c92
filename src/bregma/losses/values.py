"""Terms on quantities of whole images, in standard deviations of the training subjects.

Shape suffixes: B batch, T quantities.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bregma.errors import ConfigError
from bregma.losses.base import LossInput, LossTerm


class ValueHuberConfig(LossTerm):
    """Huber's loss (Ann Math Stat 1964; 35:73-101): squared near 0, linear beyond ``beta``."""

    name: Literal["value_huber"] = "value_huber"
    beta: float = Field(default=0.5, gt=0)
    """In standard deviations of the training subjects."""


class ValueMSEConfig(LossTerm):
    """Mean squared error."""

    name: Literal["value_mse"] = "value_mse"


class ValueNLLConfig(LossTerm):
    """Negative log-likelihood of a normal distribution whose variance is predicted too (Nix and Weigend, ICNN 1994)."""

    name: Literal["value_nll"] = "value_nll"


def value_huber(term: ValueHuberConfig, x: LossInput) -> Tensor:
    """Return the mean over known quantities, divided by ``beta`` as a smooth L1 loss."""
    predicted, true, known = _pairs(x)
    return _mean(functional.smooth_l1_loss(predicted, true, beta=term.beta, reduction="none"), known)


def value_mse(term: ValueMSEConfig, x: LossInput) -> Tensor:
    """Return the mean over known quantities."""
    del term
    predicted, true, known = _pairs(x)
    return _mean((predicted - true) ** 2, known)


def value_nll(term: ValueNLLConfig, x: LossInput) -> Tensor:
    """Return the mean over known quantities, without the constant ``ln(2π) / 2``."""
    del term
    predicted, true, known = _pairs(x)
    if x.log_variance is None:
        raise ConfigError("the codec predicts no variance", where="loss", fix="set model.codec.variance=true")
    return _mean(0.5 * ((predicted - true) ** 2 * (-x.log_variance).exp() + x.log_variance), known)


def _pairs(x: LossInput) -> tuple[Tensor, Tensor, Tensor]:
    if x.values is None or x.target_values is None or x.values_known is None:
        raise ConfigError("the codec gives no values", where="loss", fix="set model.codec.name=scalar")
    # What is not known may hold anything.
    return x.values, x.target_values.nan_to_num(), x.values_known


def _mean(loss_BT: Tensor, known_BT: Tensor) -> Tensor:
    return (loss_BT * known_BT).sum() / known_BT.sum().clamp(min=1)
