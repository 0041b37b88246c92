"""Gradient descent as the settings ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bregma.training.settings import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, groups: Sequence[dict[str, Any]], device: torch.device, precision: str
) -> torch.optim.Optimizer:
    """Return an optimizer over groups of parameters."""
    # A fused optimizer would take the loss scale off gradients by itself, after they were clipped.
    fused = device.type in ("cpu", "cuda") and precision != "16-mixed"
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused}
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, **common)
        case "adam":
            return torch.optim.Adam(groups, **common)
        case "sgd":
            return torch.optim.SGD(groups, **common, momentum=config.momentum, nesterov=config.nesterov)
