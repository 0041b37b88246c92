"""Terms on fields: values that a codec asks for at some cells, such as the way from a centre to a part."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bregma.errors import ConfigError
from bregma.losses.base import LossInput, LossTerm, masked_mean


class OffsetConfig(LossTerm):
    """Smooth L1 loss (Girshick, Fast R-CNN, ICCV 2015) on the ways of the chain codec, in tenths of the longer side."""

    name: Literal["offset"] = "offset"
    beta: float = Field(default=0.1, gt=0)
    """Error from which the loss is linear, in units of the field: 0.1 is a hundredth of the input's longer side."""


def offset(config: OffsetConfig, x: LossInput) -> Tensor:
    """``½ d² / β`` for ``|d| < β``, else ``|d| - ½ β``; mean of the cells that have a value."""
    if x.fields is None or x.target_fields is None or x.field_cells is None:
        raise ConfigError("the codec gives no fields", where="loss 'offset'", fix="set model.codec.name=chain")
    error = (x.fields.to(x.target_fields.dtype) - x.target_fields).abs()
    near = 0.5 * error**2 / config.beta
    return masked_mean(torch.where(error < config.beta, near, error - 0.5 * config.beta), x.field_cells)
