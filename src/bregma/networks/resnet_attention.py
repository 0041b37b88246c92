"""U-Net over ResNet-34 with the attention of CBAM (Woo, Park, Lee, Kweon, ECCV 2018).

Published for the head's circumference in fetal ultrasound: ResNet-34, channel attention (average and maximum pooling
through one MLP, reduction 16) on three skips, one 7 × 7 spatial attention before the head, about 24.1 M parameters.

Inferred here, because it is not published: the three skips are the deepest ones (1/16, 1/8 and 1/4 of the image, 256,
128 and 64 channels), the skip of 1/2 is passed on as it is, steps up are bilinear, and the decoder's channels are
chosen so that the number of parameters is the published one: 24,043,814 with three input channels at 4 maps of 1/2.

Shape suffixes: B batch, C channels, H and W rows and columns.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bregma.errors import ConfigError
from bregma.networks.base import ConvBlock, Heads, Network, OutputSpec, upsample_to
from bregma.networks.encoders import EncoderConfig, create_pyramid

_ATTENDED_SKIPS = 3
_LEAST_HIDDEN = 4  # What 64 channels have at reduction 16; fewer units could all be dead from the start.


class ResNetAttentionConfig(EncoderConfig):
    """Settings of the ResNet-34 U-Net with attention."""

    name: Literal["resnet_attention"] = "resnet_attention"
    encoder: str = "resnet34"
    """Any timm model that gives a feature pyramid; ResNet-34 as published."""
    decoder_channels: tuple[int, ...] = Field(default=(224, 128, 64, 32, 16), min_length=1)
    """Channels of the decoder, deepest first, as many as there are steps up; inferred from 24.1 M parameters."""
    reduction: int = Field(default=16, ge=1)
    """Channels of a skip for each hidden unit of its channel attention: 16, as published."""


class ResNetAttention(Network):
    """ResNet-34 U-Net with CBAM: skips are weighted by channel, the last features by place."""

    parts: ClassVar = {"backbone": ("encoder",), "decoder": ("up", "spatial"), "head": ("heads",)}

    def __init__(self, config: ResNetAttentionConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.encoder = create_pyramid(config, in_channels)
        info: Any = self.encoder.feature_info
        deep = int(info.channels()[-1])
        self.stride = int(info.reduction()[-1])
        self.skips = _skip_channels(info, config.map_stride) if outputs.maps else []
        self.up = nn.ModuleList()
        current = deep
        for step, (channels, width) in enumerate(zip(self.skips, _widths(config, len(self.skips)), strict=True)):
            self.up.append(StepUp(current, channels, width, config.reduction if step < _ATTENDED_SKIPS else None))
            current = width
        self.spatial = SpatialAttention() if outputs.maps else None
        self.heads = Heads(outputs, map_channels=current, deep_channels=deep)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        *features, deep = self.encoder(image_BCHW)
        x = deep
        for channels, step in zip(self.skips, self.up, strict=True):
            x = step(x, features.pop() if channels else None)
        return self.heads(x if self.spatial is None else self.spatial(x), deep)


class StepUp(nn.Module):
    """Twice the rows and columns, joined with a skip where the encoder has one."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, reduction: int | None) -> None:
        super().__init__()
        self.attention: nn.Module = nn.Identity()
        if skip_channels and reduction is not None:
            self.attention = ChannelAttention(skip_channels, reduction)
        self.convolutions = ConvBlock(in_channels + skip_channels, out_channels)

    def forward(self, x_BCHW: Tensor, skip_BCHW: Tensor | None) -> Tensor:
        """Return the features at twice the resolution of ``x_BCHW``."""
        if skip_BCHW is None:
            finer = nn.functional.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=False)
            return self.convolutions(finer)
        joined = torch.cat([upsample_to(x_BCHW, skip_BCHW), self.attention(skip_BCHW)], dim=1)
        return self.convolutions(joined)


class ChannelAttention(nn.Module):
    """Weigh channels by what is in them anywhere (CBAM, equation 2)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(_LEAST_HIDDEN, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``x_BCHW`` with every channel times its weight in 0..1."""
        mean, largest = x_BCHW.mean(dim=(2, 3), keepdim=True), x_BCHW.amax(dim=(2, 3), keepdim=True)
        return x_BCHW * torch.sigmoid(self.mlp(mean) + self.mlp(largest))


class SpatialAttention(nn.Module):
    """Weigh places by the mean and the maximum over channels around them (CBAM, equation 3)."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``x_BCHW`` with every place times its weight in 0..1."""
        summary = torch.cat([x_BCHW.mean(dim=1, keepdim=True), x_BCHW.amax(dim=1, keepdim=True)], dim=1)
        return x_BCHW * torch.sigmoid(self.convolution(summary))


def _skip_channels(info: Any, map_stride: int) -> list[int]:
    """Return the channels of the skip at every step up to the maps, deepest first; 0 where there is none."""
    found = dict(zip(info.reduction(), info.channels(), strict=True))
    steps = (info.reduction()[-1] // map_stride).bit_length() - 1
    return [int(found.get(info.reduction()[-1] >> step, 0)) for step in range(1, steps + 1)]


def _widths(config: ResNetAttentionConfig, steps: int) -> tuple[int, ...]:
    if len(config.decoder_channels) < steps:
        raise ConfigError(
            f"the decoder takes {steps} steps up from '{config.encoder}' to maps at 1/{config.map_stride}",
            where="network.decoder_channels",
            expected=f"{steps} numbers or more",
            got=str(len(config.decoder_channels)),
        )
    return config.decoder_channels[:steps]
