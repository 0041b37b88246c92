"""An encoder–decoder over any timm encoder: the encoder's feature pyramid, a U-Net decoder with skips."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bregma.errors import ConfigError
from bregma.networks.base import ConvBlock, Heads, Network, OutputSpec, upsample_to
from bregma.networks.encoders import EncoderConfig, create_pyramid


class TimmUNetConfig(EncoderConfig):
    """Settings of the encoder–decoder over a timm encoder."""

    name: Literal["timm_unet"] = "timm_unet"
    decoder_channels: tuple[int, ...] = Field(default=(256, 128, 64, 64, 32), min_length=1)
    """Channels of the decoder, deepest first; as many as there are steps up are used."""


class TimmUNet(Network):
    """U-Net decoder over a timm encoder."""

    parts: ClassVar = {"backbone": ("encoder", "stem"), "decoder": ("up",), "head": ("heads",)}

    def __init__(self, config: TimmUNetConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.encoder = create_pyramid(config, in_channels)
        info: Any = self.encoder.feature_info
        reductions, channels = list(info.reduction()), list(info.channels())
        self.stride = int(reductions[-1])
        if config.map_stride < reductions[0] and outputs.maps:
            # No encoder feature is as fine as the maps: a shallow stem at full resolution supplies the missing skips.
            missing = [s for s in (1, 2, 4) if config.map_stride <= s < reductions[0]]
            self.stem: nn.Module | None = ConvBlock(in_channels, 16)
            reductions, channels = missing + reductions, [16] * len(missing) + channels
            self.stem_strides = missing
        else:
            self.stem, self.stem_strides = None, []
        used = [i for i, r in enumerate(reductions[:-1]) if r >= config.map_stride] if outputs.maps else []
        self.skip_order = used[::-1]
        widths = _decoder_widths(config, len(used))
        blocks, current = [], channels[-1]
        for index, width in zip(self.skip_order, widths, strict=True):
            blocks.append(ConvBlock(current + channels[index], width))
            current = width
        self.up = nn.ModuleList(blocks)
        self.heads = Heads(outputs, map_channels=current, deep_channels=channels[-1])

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        features: list[Tensor] = list(self.encoder(image_BCHW))
        deep = x = features[-1]
        if self.stem is not None:
            fine = self.stem(image_BCHW)
            features = [fine if s == 1 else nn.functional.avg_pool2d(fine, s) for s in self.stem_strides] + features
        for index, block in zip(self.skip_order, self.up, strict=True):
            skip = features[index]
            x = block(torch.cat([upsample_to(x, skip), skip], dim=1))
        return self.heads(x, deep)


def _decoder_widths(config: TimmUNetConfig, steps: int) -> tuple[int, ...]:
    widths = config.decoder_channels[:steps]
    if len(widths) < steps:
        raise ConfigError(
            f"the decoder takes {steps} steps up from '{config.encoder}' to maps at 1/{config.map_stride}",
            where="network.decoder_channels",
            expected=f"{steps} numbers or more",
            got=str(len(widths)),
        )
    return widths
