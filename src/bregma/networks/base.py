"""The contract between networks and codecs, and the parts that all networks share.

Shape suffixes: B batch, C channels, H and W rows and columns, K maps, V vector length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bregma.config import Config
from bregma.errors import ConfigError
from bregma.types import OutputSpec

CONSTANTS = "constants"
"""The part of a network that holds the outputs that do not depend on the image, and the submodule that they are in."""


class NetworkConfig(Config):
    """Settings that every network has."""

    usual_codec: ClassVar[str] = "heatmap"
    """The codec that the plan chooses for the network where a recipe names none."""

    map_stride: Literal[1, 2, 4] = 2
    """Input pixels per cell of the output maps."""


class Network(nn.Module):
    """``forward(image (B, 1, H, W)) -> {name: tensor}``.

    ``"maps"`` is ``(B, K, H / map_stride, W / map_stride)``; every vector and every constant is ``(B, V)``. H and W
    must be multiples of ``stride``.
    """

    stride: int
    map_stride: int
    outputs: OutputSpec
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"head": ("heads",)}
    """Names that training phases use for groups of direct submodules; ``body`` is whatever is in no group. The
    constants of any network are the part ``constants``."""

    uses_schema: ClassVar[bool] = False
    """Whether the constructor takes the anatomy, as ``schema``."""

    def part_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of every part that has some; each parameter is in exactly one."""
        owner = {child: part for part, children in self.parts.items() for child in children}
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            path = name.split(".")
            part = CONSTANTS if CONSTANTS in path else owner.get(path[0], "body")
            found.setdefault(part, []).append(parameter)
        return found

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Refuse an input size that the network cannot halve evenly.

        Raises:
            ConfigError: names the size that is needed.
        """
        height, width = shape[-2:]
        if height % self.stride or width % self.stride:
            near = [max(self.stride, round(n / self.stride) * self.stride) for n in (height, width)]
            raise ConfigError(
                f"the network halves its input down to 1/{self.stride} and cannot take {height} x {width}",
                where="preprocess.size",
                expected=f"multiples of {self.stride}, e.g. {near[0]} x {near[1]}",
            )


class ConvBlock(nn.Sequential):
    """Two 3 × 3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*conv_bn_relu(in_channels, out_channels), *conv_bn_relu(out_channels, out_channels))


def refuse_maps(name: str, outputs: OutputSpec) -> None:
    """Refuse a codec that asks for maps, of a network that gives vectors only.

    Raises:
        ConfigError: names the codecs that fit.
    """
    if outputs.maps:
        raise ConfigError(
            f"the network '{name}' gives vectors only, and the codec (heatmap, for example) asks for maps",
            where="network.name",
            expected="the codec 'coordinate', or 'scalar' for quantities",
            fix="set model.codec.name=coordinate, or choose a network that gives maps",
        )


def conv_bn_relu(in_channels: int, out_channels: int, *, bias: bool = False) -> tuple[nn.Module, ...]:
    """One 3 × 3 convolution with batch normalisation and ReLU."""
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Heads(nn.Module):
    """Output heads: a 1 × 1 convolution for maps, pooled linear layers for vectors, weights for constants."""

    def __init__(self, outputs: OutputSpec, map_channels: int, deep_channels: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(map_channels, outputs.maps, 1) if outputs.maps else None
        self.vectors = nn.ModuleDict({name: nn.Linear(deep_channels, size) for name, size in outputs.vectors.items()})
        self.constants = Constants(outputs)
        if self.maps is not None:
            nn.init.normal_(self.maps.weight, std=0.01)
            nn.init.zeros_(self.maps.bias)  # type: ignore[arg-type]

    def forward(self, features_BCHW: Tensor | None, deep_BCHW: Tensor) -> dict[str, Tensor]:
        """Return all outputs from the finest decoder features and the deepest encoder features."""
        out: dict[str, Tensor] = {}
        if self.maps is not None and features_BCHW is not None:
            out["maps"] = self.maps(features_BCHW)
        if self.vectors:
            pooled_BC = deep_BCHW.mean(dim=(2, 3))
            out |= {name: head(pooled_BC) for name, head in self.vectors.items()}
        return out | self.constants.repeated(len(deep_BCHW))


class Constants(nn.ParameterDict):
    """The outputs that are the same for every image; a network keeps them in a submodule called ``constants``."""

    def __init__(self, outputs: OutputSpec) -> None:
        super().__init__({name: nn.Parameter(torch.zeros(size)) for name, size in outputs.constants.items()})

    def repeated(self, images: int) -> dict[str, Tensor]:
        """Return every constant ``(B, V)``, repeated for a number of images."""
        return {name: value.expand(images, -1) for name, value in self.items()}


def upsample_to(x_BCHW: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly to the rows and columns of ``like``."""
    return torch.nn.functional.interpolate(x_BCHW, size=like.shape[-2:], mode="bilinear", align_corners=False)


__all__ = [
    "CONSTANTS",
    "Constants",
    "ConvBlock",
    "Heads",
    "Network",
    "NetworkConfig",
    "OutputSpec",
    "conv_bn_relu",
    "refuse_maps",
    "upsample_to",
]
