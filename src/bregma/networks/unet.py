"""Plain U-Net (Ronneberger, Fischer, Brox, MICCAI 2015) with batch normalisation and bilinear up-sampling."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bregma.errors import ConfigError
from bregma.networks.base import ConvBlock, Heads, Network, NetworkConfig, OutputSpec, upsample_to


class UNetConfig(NetworkConfig):
    """Settings of the plain U-Net."""

    name: Literal["unet"] = "unet"
    base_channels: int = Field(default=32, ge=4, le=256)
    """Channels at full resolution; doubled at each level down."""
    levels: int = Field(default=5, ge=2, le=7)
    """Resolutions, the full one included."""
    max_channels: int = Field(default=512, ge=8)
    """Channels are not doubled beyond this."""


class UNet(Network):
    """Plain U-Net; the decoder stops at the resolution of the maps."""

    parts: ClassVar = {"backbone": ("down",), "decoder": ("up",), "head": ("heads",)}

    def __init__(self, config: UNetConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.stride = 2 ** (config.levels - 1)
        widths = [min(config.base_channels * 2**level, config.max_channels) for level in range(config.levels)]
        self.down = nn.ModuleList(
            ConvBlock(in_channels if level == 0 else widths[level - 1], width) for level, width in enumerate(widths)
        )
        self.pool = nn.MaxPool2d(2)
        finest = config.map_stride.bit_length() - 1
        if finest >= config.levels:
            raise ConfigError(
                f"a U-Net of {config.levels} resolutions has none at 1/{config.map_stride}",
                where="network.levels",
                expected=f"{finest + 1} or more",
            )
        steps = range(config.levels - 2, finest - 1, -1) if outputs.maps else range(0)
        self.up_levels = tuple(steps)
        self.up = nn.ModuleList(ConvBlock(widths[level + 1] + widths[level], widths[level]) for level in steps)
        self.heads = Heads(outputs, map_channels=widths[finest], deep_channels=widths[-1])

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        skips: list[Tensor] = []
        x = image_BCHW
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        deep = x
        for level, block in zip(self.up_levels, self.up, strict=True):
            skip = skips[level]
            x = block(torch.cat([upsample_to(x, skip), skip], dim=1))
        return self.heads(x, deep)
