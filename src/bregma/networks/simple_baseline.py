"""SimpleBaseline (Xiao, Wu, Wei, ECCV 2018): an encoder, and transposed convolutions from its last features to maps.

The paper stops after three steps up, at maps of 1/4 (``map_stride=4``: 34.0 M parameters for ResNet-50 at 17 maps).
Five steps give maps as large as the image (``map_stride=1``). For those, 38.15 M are published for ResNet-50 at 40
maps. With three input channels this network has 36,103,784; with ResNet-50's classification layer (2048 × 1000 + 1000),
on which no map depends and which is left out here, it would have 38,152,784.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from bregma.networks.base import Heads, Network, OutputSpec
from bregma.networks.encoders import EncoderConfig, create_pyramid


class SimpleBaselineConfig(EncoderConfig):
    """Settings of SimpleBaseline."""

    name: Literal["simple_baseline"] = "simple_baseline"
    encoder: str = "resnet50"
    """Any timm model that gives a feature pyramid; ResNet-50, 101 and 152 in the paper."""
    map_stride: Literal[1, 2, 4] = 4
    """Input pixels per cell of the output maps: 4 in the paper, by three steps up; 2 takes four and 1 takes five."""
    decoder_channels: int = Field(default=256, ge=4)
    """Channels of every step up; 256 in the paper."""


class SimpleBaseline(Network):
    """An encoder and a chain of transposed convolutions, without skips."""

    parts: ClassVar = {"backbone": ("encoder",), "decoder": ("up",), "head": ("heads",)}

    def __init__(self, config: SimpleBaselineConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.encoder = create_pyramid(config, in_channels)
        info: Any = self.encoder.feature_info
        self.stride, deep = int(info.reduction()[-1]), int(info.channels()[-1])
        steps = (self.stride // config.map_stride).bit_length() - 1 if outputs.maps else 0
        width = config.decoder_channels
        self.up = nn.Sequential(*(_step_up(deep if step == 0 else width, width) for step in range(steps)))
        self.heads = Heads(outputs, map_channels=width if steps else deep, deep_channels=deep)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        deep: Tensor = self.encoder(image_BCHW)[-1]
        return self.heads(self.up(deep), deep)


def _step_up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice the rows and columns, by a transposed 4 × 4 convolution with the paper's initial weights."""
    convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    nn.init.normal_(convolution.weight, std=0.001)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
