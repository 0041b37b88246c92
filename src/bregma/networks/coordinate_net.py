"""Coordinate regressor: an encoder, its pooled features, and a multilayer head that ends in coordinates.

Published for chest radiographs: any encoder, optional coordinate attention (Hou, Zhou, Feng, CVPR 2021) on its last
features, and a head 512 → 512 → 256 → 2N with ReLU and dropout 0.5, 0.25 and 0.125. The published sigmoid is a part of
the coordinate codec, which turns the head's numbers into pixels.

Inferred here: dropout precedes each of the three linear layers; an encoder whose last features are not 512 wide enters
the head with its own width; further vectors that a codec asks for (``cholesky``, ``presence``) are linear in the same
256 hidden features as the points, so that they add no hidden layers of their own.

Shape suffixes: B batch, C channels, H and W rows and columns.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bregma.networks.base import Constants, Network, OutputSpec, refuse_maps
from bregma.networks.encoders import EncoderConfig, create_pyramid

_HIDDEN = (512, 256)
_DROPOUT = (0.5, 0.25, 0.125)


class CoordinateNetConfig(EncoderConfig):
    """Settings of the coordinate regressor."""

    usual_codec: ClassVar[str] = "coordinate"

    name: Literal["coordinate_net"] = "coordinate_net"
    map_stride: Literal[1] = 1
    """There are no maps, and nothing else to choose."""
    attention: Literal["none", "coordinate"] = "none"
    """``coordinate`` weighs the encoder's last features by row and by column (Hou et al. 2021)."""


class CoordinateNet(Network):
    """Coordinate regressor: an encoder with a head of linear layers, for codecs without maps."""

    parts: ClassVar = {"backbone": ("encoder",), "head": ("attention", "trunk", "heads")}

    def __init__(self, config: CoordinateNetConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        refuse_maps("coordinate_net", outputs)
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.encoder = create_pyramid(config, in_channels)
        info: Any = self.encoder.feature_info
        self.stride, deep = int(info.reduction()[-1]), int(info.channels()[-1])
        self.attention = CoordinateAttention(deep) if config.attention == "coordinate" else nn.Identity()
        self.trunk = nn.Sequential(
            *_hidden(deep, _HIDDEN[0], _DROPOUT[0]), *_hidden(*_HIDDEN, _DROPOUT[1]), nn.Dropout(_DROPOUT[2])
        )
        self.heads = nn.ModuleDict({name: nn.Linear(_HIDDEN[1], size) for name, size in outputs.vectors.items()})
        self.constants = Constants(outputs)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the vectors that the codec asked for."""
        self.check_size(image_BCHW.shape)
        deep: Tensor = self.attention(self.encoder(image_BCHW)[-1])
        hidden = self.trunk(deep.mean(dim=(2, 3)))
        return {name: head(hidden) for name, head in self.heads.items()} | self.constants.repeated(len(hidden))


class CoordinateAttention(nn.Module):
    """Weigh features by their row and by their column, each seen across the whole image (Hou et al. 2021, figure 2c).

    Args:
        channels: of the features.
        reduction: channels for each hidden one; 32 in the paper, and never fewer than 8 hidden ones.
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.shared = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.rows = nn.Conv2d(hidden, channels, 1)
        self.columns = nn.Conv2d(hidden, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``x_BCHW`` times the weights in 0..1 of its row and of its column."""
        height, width = x_BCHW.shape[-2:]
        by_row_BCH1 = x_BCHW.mean(dim=3, keepdim=True)
        by_column_BCW1 = x_BCHW.mean(dim=2, keepdim=True).transpose(2, 3)
        hidden = self.shared(torch.cat([by_row_BCH1, by_column_BCW1], dim=2))
        rows, columns = hidden.split([height, width], dim=2)
        return x_BCHW * self.rows(rows).sigmoid() * self.columns(columns).sigmoid().transpose(2, 3)


def _hidden(in_features: int, out_features: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Dropout(dropout), nn.Linear(in_features, out_features), nn.ReLU(inplace=True)
