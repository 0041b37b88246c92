"""U-Net (Ronneberger, Fischer, Brox, MICCAI 2015) with batch normalisation and bilinear up-sampling.

Two published landmark networks are settings of it; the original paper has neither batch normalisation nor padding, and
up-samples with learned 2 × 2 convolutions.

- *17.27 M parameters at 40 maps*: ``base_channels=64, max_channels=1024, decoder="halved", map_stride=1,
  dropout_down=(0.2, 0.2, 0.3, 0.4), dropout_up=(0.3, 0.2, 0.1, 0.0)``. 17,265,512 for three input channels, 17,264,360
  for one. The source does not say which kind of dropout, nor where: here it takes whole channels, after each block.
- *7,788,740 parameters at 4 maps*, four blocks down and three up: ``base_channels=64, levels=4, bias=True,
  map_stride=1``. The number is met exactly by three input channels, convolutions with a bias although normalisation
  follows, up-sampling without weights, and skips joined at full width. A one-channel image saves 2 · 9 · 64 = 1,152.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bregma.errors import ConfigError
from bregma.networks.base import Heads, Network, NetworkConfig, OutputSpec, conv_bn_relu, upsample_to


class UNetConfig(NetworkConfig):
    """Settings of the U-Net."""

    name: Literal["unet"] = "unet"
    base_channels: int = Field(default=32, ge=4, le=256)
    """Channels at full resolution; doubled at each level down. 64 in both published networks."""
    levels: int = Field(default=5, ge=2, le=7)
    """Resolutions, the full one included."""
    max_channels: int = Field(default=512, ge=8)
    """Channels are not doubled beyond this."""
    decoder: Literal["full", "halved"] = "full"
    """Channels on the way up: ``full`` gives every level as many as on the way down; ``halved`` hands on as many as the
    next finer level has and does not double the deepest one, as the 17.27 M U-Net does because bilinear up-sampling
    cannot halve them."""
    bias: bool = False
    """Convolutions have a bias beside the normalisation's, as in the U-Net of 7,788,740 parameters."""
    dropout_down: tuple[float, ...] = ()
    """Probability that a channel is dropped after each level below the full resolution, finest first; empty for none.
    0.2, 0.2, 0.3, 0.4 in the 17.27 M U-Net."""
    dropout_up: tuple[float, ...] = ()
    """The same on the way up, deepest first; steps beyond the resolution of the maps are not used. 0.3, 0.2, 0.1, 0.0
    in the 17.27 M U-Net."""


class UNet(Network):
    """U-Net; the decoder stops at the resolution of the maps."""

    parts: ClassVar = {"backbone": ("down",), "decoder": ("up",), "head": ("heads",)}

    def __init__(self, config: UNetConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.stride = 2 ** (config.levels - 1)
        finest = _finest_level(config)
        widths = _encoder_widths(config)
        dropout_down = (0.0, *_dropout(config, "dropout_down"))
        self.down = nn.ModuleList(
            _block(in_channels if level == 0 else widths[level - 1], width, width, config.bias, dropout_down[level])
            for level, width in enumerate(widths)
        )
        self.pool = nn.MaxPool2d(2)
        self.up_levels = tuple(range(config.levels - 2, finest - 1, -1)) if outputs.maps else ()
        self.up = nn.ModuleList()
        current = widths[-1]
        for level, rate in zip(self.up_levels, _dropout(config, "dropout_up"), strict=False):
            out = widths[max(level - 1, 0)] if config.decoder == "halved" else widths[level]
            self.up.append(_block(current + widths[level], widths[level], out, config.bias, rate))
            current = out
        self.heads = Heads(outputs, map_channels=current, deep_channels=widths[-1])

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


def _finest_level(config: UNetConfig) -> int:
    finest = config.map_stride.bit_length() - 1
    if finest >= config.levels:
        raise ConfigError(
            f"a U-Net of {config.levels} resolutions has none at 1/{config.map_stride}",
            where="network.levels",
            expected=f"{finest + 1} or more",
        )
    return finest


def _encoder_widths(config: UNetConfig) -> list[int]:
    widths = [min(config.base_channels * 2**level, config.max_channels) for level in range(config.levels)]
    if config.decoder == "halved":
        widths[-1] = widths[-2]
    return widths


def _dropout(config: UNetConfig, setting: Literal["dropout_down", "dropout_up"]) -> tuple[float, ...]:
    """Return one probability for each of the ``levels - 1`` steps down or up."""
    steps = config.levels - 1
    rates: tuple[float, ...] = getattr(config, setting) or (0.0,) * steps
    if len(rates) != steps or not all(0 <= rate < 1 for rate in rates):
        raise ConfigError(
            f"a U-Net of {config.levels} resolutions takes {steps} steps {setting.removeprefix('dropout_')}",
            where=f"network.{setting}",
            expected=f"{steps} probabilities from 0 up to, and without, 1; or none",
            got=", ".join(map(str, rates)),
        )
    return rates


def _block(in_channels: int, middle: int, out_channels: int, bias: bool, dropout: float) -> nn.Sequential:
    """Two 3 × 3 convolutions; dropout comes last, so that weights keep their names whether or not there is any."""
    layers = [*conv_bn_relu(in_channels, middle, bias=bias), *conv_bn_relu(middle, out_channels, bias=bias)]
    return nn.Sequential(*layers, *([nn.Dropout2d(dropout)] if dropout else []))
