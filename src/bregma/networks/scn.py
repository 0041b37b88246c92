"""SpatialConfiguration-Net (Payer, Štern, Bischof, Urschler, Medical Image Analysis 54, 2019; 207-219).

A local-appearance network finds candidates, a spatial-configuration network at low resolution says which of them fits
the other landmarks, and the product of the two is the heatmap. All weights start as in He et al. 2015 and all biases at
0; the authors' public code draws those of the two layers that end in heatmaps from a normal distribution of 0.0001.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bregma.errors import ConfigError
from bregma.networks.base import Heads, Network, NetworkConfig
from bregma.types import OutputSpec

_LEVELS = 4
_SPATIAL_STRIDE = 8


class SCNConfig(NetworkConfig):
    """Settings of the SpatialConfiguration-Net."""

    name: Literal["scn"] = "scn"
    map_stride: Literal[1] = 1
    channels: int = Field(default=64, ge=4)
    """Channels of every inner convolution."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout between the convolutions of the local-appearance network."""


class SCN(Network):
    """Local appearance × spatial configuration, both over all landmarks."""

    parts: ClassVar = {"backbone": ("appearance",), "head": ("local", "spatial", "heads")}

    def __init__(self, config: SCNConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        if not outputs.maps:
            raise ConfigError("the network 'scn' gives maps only", where="network.name", fix="choose a heatmap codec")
        self.outputs, self.map_stride, self.stride = outputs, 1, _SPATIAL_STRIDE
        width, maps = config.channels, outputs.maps
        self.appearance = LocalAppearance(in_channels, width, config.dropout)
        self.local = nn.Conv2d(width, maps, 5, padding=2)
        self.spatial = nn.Sequential(
            nn.Conv2d(maps, width, 15, padding=7),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 15, padding=7),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 15, padding=7),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, maps, 15, padding=7),
            nn.Tanh(),
        )
        self.heads = Heads(replace(outputs, maps=0), map_channels=width, deep_channels=width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        features, deep = self.appearance(image_BCHW)
        local = self.local(features)
        coarse = self.spatial(functional.avg_pool2d(local, _SPATIAL_STRIDE))
        spatial = functional.interpolate(coarse, size=local.shape[-2:], mode="bicubic", align_corners=False)
        return {"maps": local * spatial, **self.heads(None, deep)}


class LocalAppearance(nn.Module):
    """A U-Net that adds instead of concatenating: two convolutions down and one across at every level."""

    def __init__(self, in_channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(
                *_conv(in_channels if level == 0 else width, width), nn.Dropout(dropout), *_conv(width, width)
            )
            for level in range(_LEVELS)
        )
        self.across = nn.ModuleList(nn.Sequential(*_conv(width, width)) for _ in range(_LEVELS))

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return features at full resolution, and those of the deepest level."""
        levels = []
        x = image_BCHW
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else functional.avg_pool2d(x, 2))
            levels.append(x)
        out = self.across[-1](levels[-1])
        for skip, block in zip(levels[-2::-1], list(self.across)[-2::-1], strict=True):
            up = functional.interpolate(out, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            out = block(skip) + up
        return out, levels[-1]


def _conv(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 5, padding=2), nn.LeakyReLU(0.1)
