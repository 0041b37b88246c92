"""A small convolutional network for numbers of whole images, trained from scratch.

As published beside ResNet-18 for bone density from MRI: four blocks of a 3 × 3 convolution, batch normalisation, ReLU
and 2 × 2 maximum, then the mean over the image and a linear layer. Channels and dropout are not given there; here they
double from block to block, and half of the pooled features are dropped in training.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from bregma.networks.base import Constants, Network, NetworkConfig, OutputSpec, conv_bn_relu, refuse_maps


class SimpleCNNConfig(NetworkConfig):
    """Settings of the small convolutional network."""

    usual_codec: ClassVar[str] = "coordinate"

    name: Literal["simple_cnn"] = "simple_cnn"
    map_stride: Literal[1] = 1
    """There are no maps, and nothing else to choose."""
    channels: tuple[int, ...] = Field(default=(32, 64, 128, 256), min_length=1)
    """Channels of each block."""
    dropout: float = Field(default=0.5, ge=0, lt=1)


class SimpleCNN(Network):
    """Blocks of convolution and maximum, the mean over the image, a linear layer an output."""

    parts: ClassVar = {"backbone": ("encoder",), "head": ("heads",)}

    def __init__(self, config: SimpleCNNConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        refuse_maps("simple_cnn", outputs)
        self.outputs, self.map_stride = outputs, config.map_stride
        self.stride = 2 ** len(config.channels)
        widths = (in_channels, *config.channels)
        self.encoder = nn.Sequential(
            *(nn.Sequential(*conv_bn_relu(before, after), nn.MaxPool2d(2)) for before, after in pairwise(widths))
        )
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1], size) for name, size in outputs.vectors.items()})
        self.constants = Constants(outputs)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the vectors that the codec asked for."""
        self.check_size(image_BCHW.shape)
        hidden: Tensor = self.dropout(self.encoder(image_BCHW).mean(dim=(2, 3)))
        return {name: head(hidden) for name, head in self.heads.items()} | self.constants.repeated(len(hidden))
