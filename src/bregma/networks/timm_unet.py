"""An encoder–decoder over any timm encoder: the encoder's feature pyramid, a U-Net decoder with skips."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bregma.errors import ConfigError
from bregma.networks._timm import import_timm
from bregma.networks.base import ConvBlock, Heads, Network, NetworkConfig, OutputSpec, upsample_to


class TimmUNetConfig(NetworkConfig):
    """Settings of the encoder–decoder over a timm encoder."""

    name: Literal["timm_unet"] = "timm_unet"
    encoder: str = "resnet18"
    """Any timm model that gives a feature pyramid; ``bregma info --encoders TEXT`` lists them."""
    pretrained: bool = False
    """Start from timm's published weights (needs them in the local cache, or a network connection)."""
    decoder_channels: tuple[int, ...] = Field(default=(256, 128, 64, 64, 32), min_length=1)
    """Channels of the decoder, deepest first; as many as there are steps up are used."""


class TimmUNet(Network):
    """U-Net decoder over a timm encoder."""

    def __init__(self, config: TimmUNetConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        self.encoder = _create_encoder(config, in_channels)
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


def _create_encoder(config: TimmUNetConfig, in_channels: int) -> nn.Module:
    timm = import_timm()
    if not timm.is_model(config.encoder):
        near = timm.list_models(f"*{config.encoder.split('_')[0]}*")[:6]
        raise ConfigError(
            f"timm has no encoder '{config.encoder}'",
            where="network.encoder",
            expected=f"a timm model name, e.g. {', '.join(near or ['resnet18', 'resnet34'])}",
        )
    if config.pretrained and not timm.is_model_pretrained(config.encoder):
        raise ConfigError(
            f"timm publishes no weights for '{config.encoder}'",
            where="network.pretrained",
            fix="choose another encoder, or set network.pretrained=false",
        )
    try:
        model = timm.create_model(
            config.encoder, features_only=True, pretrained=config.pretrained, in_chans=in_channels
        )
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise _no_pyramid(config, str(error)) from error
    except OSError as error:
        raise ConfigError(
            f"the published weights of '{config.encoder}' cannot be had ({error})",
            where="network.pretrained",
            fix="connect to the network, or set network.pretrained=false",
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"timm returned no network for '{config.encoder}'", where="network.encoder")
    _check_pyramid(config, model, in_channels)
    return model


def _check_pyramid(config: TimmUNetConfig, encoder: nn.Module, in_channels: int) -> None:
    """Refuse an encoder whose features do not halve step by step, or that takes one input size only."""
    info: Any = encoder.feature_info
    reductions, channels = list(info.reduction()), list(info.channels())
    if reductions[0] not in (1, 2, 4, 8) or any(fine * 2 != coarse for fine, coarse in pairwise(reductions)):
        raise _no_pyramid(config, f"its features lie at 1/{', 1/'.join(map(str, reductions))}")
    rows, columns = 2 * reductions[-1], 3 * reductions[-1]
    encoder.eval()
    try:
        with torch.no_grad():
            features = encoder(torch.zeros(1, in_channels, rows, columns))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _no_pyramid(config, f"at {rows} x {columns}: {error}") from error
    finally:
        encoder.train()
    expected = [(1, c, rows // r, columns // r) for c, r in zip(channels, reductions, strict=True)]
    if [tuple(f.shape) for f in features] != expected:
        raise _no_pyramid(config, "its features are not as large as it says")


def _no_pyramid(config: TimmUNetConfig, why: str) -> ConfigError:
    return ConfigError(
        f"the encoder '{config.encoder}' gives no feature pyramid for inputs of any size ({why})",
        where="network.encoder",
        fix="choose a convolutional or hierarchical encoder",
    )
