"""The price of a wide target: what keeps a learned heatmap width from growing without end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from bregma.errors import ConfigError
from bregma.losses.base import LossInput, LossTerm, masked_mean
from bregma.types import OutputSpec

_BALANCED = "mse"
"""The loss on maps that draws a width up, as the price draws it down."""


class HeatmapWidthConfig(LossTerm):
    """Price of the learned width of a target, the term ``α‖σ‖²`` of Payer et al., Medical Image Analysis 54, 2019."""

    name: Literal["heatmap_width"] = "heatmap_width"
    weight: float = Field(default=20.0, gt=0)
    """α. 20 is the value of the authors' public code for radiographs (cephalograms, with γ = 100 as here). No width is
    drawn above ``(γ² / 4πα)^(1/4)`` cells, 2.51 for these, which is where an untrained network leaves it."""


def heatmap_width(config: HeatmapWidthConfig, x: LossInput) -> Tensor:
    """``σ² / (H W)`` with σ in cells, averaged over placed landmarks.

    The paper adds ``α‖σ‖²`` to a sum over cells; beside ``mse``, a mean over cells, both are divided by their number,
    so that α means the same.
    """
    del config
    if x.sigma is None or x.target_maps is None:
        raise ConfigError("the codec learns no width", where="loss", fix="set codec.learn_sigma=true")
    rows, columns = x.target_maps.shape[2:]
    # Maps of outlines, which follow those of landmarks, have no width to learn.
    return masked_mean(x.sigma**2, x.counted[:, : x.sigma.shape[1]]) / (rows * columns)


def check_width(names: Sequence[str], map_losses: Sequence[str], outputs: OutputSpec) -> None:
    """Refuse losses that would let a learned width vanish or grow without end.

    Args:
        names: of all terms.
        map_losses: of those on maps.
        outputs: what the codec asks for.

    Raises:
        ConfigError: a width is learned, and its price is missing or is set against another loss than ``mse``.
    """
    if "sigma" not in outputs.constants:
        return
    if "heatmap_width" not in names:
        raise ConfigError(
            "a learned width without a price grows without end",
            where="loss",
            expected="the terms 'mse' and 'heatmap_width'",
            fix="add {name: heatmap_width}, or set codec.learn_sigma=false",
        )
    if list(map_losses) != [_BALANCED]:
        raise ConfigError(
            "the price of a learned width is in balance with the squared error of maps alone",
            where="loss",
            expected=f"'{_BALANCED}' as the only loss on maps",
            got=", ".join(map_losses) or "none",
            fix="choose it, or set codec.learn_sigma=false",
        )
