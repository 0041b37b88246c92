"""A light network for use in real time on a CPU: MobileNetV4's small convolutional encoder, a narrow decoder.

The encoder (Qin et al., ECCV 2024) is made of plain and depthwise convolutions and ReLU only, which CPUs compute
fastest for their number of parameters. The decoder adds the encoder's features, each brought to the same few channels,
from coarse to fine (Lin et al., feature pyramid networks, CVPR 2017), with depthwise separable convolutions. Maps lie
at 1/4 of the image, where the codec decodes between cells. Combination and widths are Bregma's own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from bregma.networks.base import Heads, Network, OutputSpec
from bregma.networks.encoders import EncoderConfig, create_pyramid


class LightConfig(EncoderConfig):
    """Settings of the light network."""

    name: Literal["light"] = "light"
    map_stride: Literal[1, 2, 4] = 4
    """Input pixels per cell of the output maps; finer ones cost time."""
    encoder: str = "mobilenetv4_conv_small"
    """Any timm model that gives a feature pyramid; ``bregma info --encoders TEXT`` lists them."""
    decoder_channels: int = Field(default=64, ge=4)
    """Channels of every step of the decoder."""


class Light(Network):
    """Light network for real time on a CPU: a mobile encoder, a narrow pyramid of separable convolutions."""

    parts: ClassVar = {"backbone": ("encoder",), "decoder": ("lateral", "joint"), "head": ("heads",)}

    def __init__(self, config: LightConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.encoder = create_pyramid(config, in_channels)
        info: Any = self.encoder.feature_info
        self.stride, deep = int(info.reduction()[-1]), int(info.channels()[-1])
        width = config.decoder_channels
        used = [n for n, r in zip(info.channels(), info.reduction(), strict=True) if r >= config.map_stride]
        steps = (self.stride // config.map_stride).bit_length() - 1
        self.lateral = nn.ModuleList(_project(n, width) for n in used[::-1] if outputs.maps)
        self.joint = nn.ModuleList(_separable(width) for _ in range(steps) if outputs.maps)
        self.heads = Heads(outputs, map_channels=width, deep_channels=deep)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        features: list[Tensor] = self.encoder(image_BCHW)[::-1]
        if not self.outputs.maps:
            return self.heads(None, features[0])
        first, *finer = (project(x) for project, x in zip(self.lateral, features))
        x = first
        for step, join in enumerate(self.joint):
            x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = join(x + finer[step] if step < len(finer) else x)
        return self.heads(x, features[0])


def _project(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


def _separable(channels: int) -> nn.Sequential:
    """Return two depthwise 5 × 5 convolutions, each mixed by a pointwise one."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            *_project(channels, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
