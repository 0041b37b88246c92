"""Codecs: how landmarks become a network's target, and how its output becomes landmarks again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bregma.codecs.base import Codec, Decoded, Labels, Target
from bregma.codecs.coordinate import CoordinateCodec, CoordinateCodecConfig
from bregma.codecs.heatmap import HeatmapCodec, HeatmapCodecConfig

AnyCodecConfig = Annotated[HeatmapCodecConfig | CoordinateCodecConfig, Field(discriminator="name")]

CODECS: dict[str, tuple[type, type]] = {
    "heatmap": (HeatmapCodecConfig, HeatmapCodec),
    "coordinate": (CoordinateCodecConfig, CoordinateCodec),
}


def build_codec(config: HeatmapCodecConfig | CoordinateCodecConfig, landmarks: int, map_stride: int) -> Codec:
    """Build the codec that a config describes, for a number of landmarks and the stride of the network's maps."""
    _, codec = CODECS[config.name]
    built: Codec = codec(config, landmarks, map_stride)
    return built


__all__ = ["CODECS", "AnyCodecConfig", "Codec", "Decoded", "Labels", "Target", "build_codec"]
