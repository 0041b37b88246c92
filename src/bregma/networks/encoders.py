"""Encoders from timm: feature pyramids of any input size, with published weights where they can be had."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import field_validator
from torch import nn

from bregma.errors import ConfigError
from bregma.files import sha256_file
from bregma.networks._timm import import_timm
from bregma.networks.base import NetworkConfig
from bregma.networks.pretrained import (
    SETTING,
    is_weight_file,
    load_weights,
    published_tags,
    published_weights,
    read_weights,
)

log = logging.getLogger(__name__)


class EncoderConfig(NetworkConfig):
    """Settings of every network that is built over a timm encoder."""

    encoder: str = "resnet18"
    """Any timm model that gives a feature pyramid; ``bregma info --encoders TEXT`` lists them."""
    pretrained: str = "none"
    """First weights: ``none``; ``auto``, timm's published ones where they can be had; a tag of these, such as
    ``a1_in1k``; or a file of weights, ``.safetensors``, ``.pt`` or ``.pth``."""

    @field_validator("pretrained", mode="before")
    @classmethod
    def _read_switch(cls, given: object) -> object:
        # Before weights had names, the setting was a switch; bundles of that time still say so.
        return {True: "auto", False: "none"}[given] if isinstance(given, bool) else given


def resolve_pretrained(config: EncoderConfig) -> tuple[EncoderConfig, str | None]:
    """Settle which weights an encoder starts from, and fetch them if they are published ones.

    Returns:
        the settings with ``pretrained`` as it will be honoured, never ``auto``; and the reason, where there is more
        to say than that it was asked for.

    Raises:
        ConfigError: no such encoder, tag or file, or weights asked for by name that cannot be had.
    """
    _check_known(config.encoder)
    if config.pretrained == "none":
        return config, None
    if is_weight_file(config.pretrained):
        path = _path(config)
        read_weights(path)
        return config, f"the file's SHA-256 begins with {sha256_file(path)[:12]}"
    if config.pretrained == "auto":
        return _resolve_auto(config)
    _published(config.encoder, config.pretrained)
    return config, None


def _resolve_auto(config: EncoderConfig) -> tuple[EncoderConfig, str]:
    tags = published_tags(config.encoder)
    why = "timm publishes none"
    if tags:
        try:
            published_weights(config.encoder, tags[0])
        except OSError as error:
            why = str(error)
        else:
            return config.model_copy(update={"pretrained": tags[0]}), "auto: timm's first choice of published weights"
    log.warning("%s=auto: no published weights of '%s' (%s); they start at random", SETTING, config.encoder, why)
    return config.model_copy(update={"pretrained": "none"}), f"auto: no published weights can be had ({why})"


def create_pyramid(config: EncoderConfig, in_channels: int, *, options: Mapping[str, str] | None = None) -> nn.Module:
    """Return an encoder whose ``feature_info`` tells channels and reductions of its features, finest first.

    Args:
        config: names the encoder and its first weights.
        in_channels: of the image.
        options: further arguments of timm's constructor, which one family of encoders has.

    Raises:
        ConfigError: no such encoder, no weights to start from, weights of another encoder, or no feature pyramid.
    """
    _check_known(config.encoder)
    if config.pretrained == "auto":
        config, _ = _resolve_auto(config)
    model = _create(config, in_channels, options or {})
    _check_pyramid(config, model, in_channels)
    if is_weight_file(config.pretrained):
        load_weights(model, read_weights(_path(config)), config.encoder)
    return model


def _create(config: EncoderConfig, in_channels: int, options: Mapping[str, str]) -> nn.Module:
    given: dict[str, Any] = {}
    if config.pretrained != "none" and not is_weight_file(config.pretrained):
        # timm knows how weights become those of one channel, and which published names differ from its own.
        weights = _published(config.encoder, config.pretrained)
        overlay = {"state_dict": weights}
        given = {"pretrained": True, "pretrained_cfg": config.pretrained, "pretrained_cfg_overlay": overlay}
    try:
        model = import_timm().create_model(config.encoder, features_only=True, in_chans=in_channels, **given, **options)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise _no_pyramid(config, str(error)) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"timm returned no network for '{config.encoder}'", where="network.encoder")
    for kept in (getattr(model, "pretrained_cfg", None), getattr(model, "default_cfg", None)):
        if isinstance(kept, dict):
            kept.pop("state_dict", None)  # A second copy of all weights.
    return model


def _published(encoder: str, tag: str) -> dict[str, torch.Tensor]:
    tags = published_tags(encoder)
    if tag not in tags:
        raise ConfigError(
            f"timm publishes no weights '{tag}' for '{encoder}'",
            where=SETTING,
            expected=", ".join(("auto", "none", *tags)) + " or a file",
        )
    try:
        return published_weights(encoder, tag)
    except OSError as error:
        raise ConfigError(
            f"the published weights '{tag}' of '{encoder}' cannot be had ({error})",
            where=SETTING,
            fix="connect to the network, give a file of weights, or set it to auto or none",
        ) from error


def _path(config: EncoderConfig) -> Path:
    return Path(config.pretrained).expanduser()


def _check_known(encoder: str) -> None:
    timm = import_timm()
    if not timm.is_model(encoder):
        near = timm.list_models(f"*{encoder.split('_')[0]}*")[:6]
        raise ConfigError(
            f"timm has no encoder '{encoder}'",
            where="network.encoder",
            expected=f"a timm model name, e.g. {', '.join(near or ['resnet18', 'resnet34'])}",
        )


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
