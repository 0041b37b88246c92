"""Encoders from timm: feature pyramids of any input size, with published weights where they can be had."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bregma.errors import ConfigError
from bregma.networks._timm import import_timm
from bregma.networks.base import NetworkConfig


class EncoderConfig(NetworkConfig):
    """Settings of every network that is built over a timm encoder."""

    encoder: str = "resnet18"
    """Any timm model that gives a feature pyramid; ``bregma info --encoders TEXT`` lists them."""
    pretrained: bool = False
    """Start from timm's published weights (needs them in the local cache, or a network connection)."""


def create_pyramid(config: EncoderConfig, in_channels: int, *, options: Mapping[str, str] | None = None) -> nn.Module:
    """Return an encoder whose ``feature_info`` tells channels and reductions of its features, finest first.

    Args:
        config: names the encoder and its first weights.
        in_channels: of the image.
        options: further arguments of timm's constructor, which one family of encoders has.

    Raises:
        ConfigError: no such encoder, no weights to start from, or no feature pyramid.
    """
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
            config.encoder,
            features_only=True,
            pretrained=config.pretrained,
            in_chans=in_channels,
            **(options or {}),
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


def _check_pyramid(config: EncoderConfig, encoder: nn.Module, in_channels: int) -> None:
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


def _no_pyramid(config: EncoderConfig, why: str) -> ConfigError:
    return ConfigError(
        f"the encoder '{config.encoder}' gives no feature pyramid for inputs of any size ({why})",
        where="network.encoder",
        fix="choose a convolutional or hierarchical encoder",
    )
