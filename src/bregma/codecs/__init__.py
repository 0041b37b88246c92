"""Codecs: how landmarks become a network's target, and how its output becomes landmarks again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bregma.codecs.base import Codec, Decoded, Labels, Target
from bregma.codecs.chain import ChainCodec, ChainCodecConfig
from bregma.codecs.coordinate import CoordinateCodec, CoordinateCodecConfig
from bregma.codecs.curve import CurveCodec, CurveCodecConfig
from bregma.codecs.exchangeable import sharing_of
from bregma.codecs.heatmap import HeatmapCodec, HeatmapCodecConfig
from bregma.codecs.outline import with_outlines
from bregma.codecs.scalar import ScalarCodec, ScalarCodecConfig
from bregma.codecs.slots import SlotsCodec, SlotsCodecConfig
from bregma.schema import LandmarkSchema

AnyCodecConfig = Annotated[
    HeatmapCodecConfig
    | CoordinateCodecConfig
    | ChainCodecConfig
    | SlotsCodecConfig
    | ScalarCodecConfig
    | CurveCodecConfig,
    Field(discriminator="name"),
]

CODECS: dict[str, tuple[type, type]] = {
    "heatmap": (HeatmapCodecConfig, HeatmapCodec),
    "coordinate": (CoordinateCodecConfig, CoordinateCodec),
    "chain": (ChainCodecConfig, ChainCodec),
    "slots": (SlotsCodecConfig, SlotsCodec),
    "scalar": (ScalarCodecConfig, ScalarCodec),
    "curve": (CurveCodecConfig, CurveCodec),
}


def build_codec(
    config: AnyCodecConfig,
    landmarks: int,
    map_stride: int,
    schema: LandmarkSchema | None = None,
) -> Codec:
    """Build the codec that a config describes.

    Args:
        config: of one of :data:`CODECS`.
        landmarks: their number.
        map_stride: of the network's maps.
        schema: the anatomy, for codecs that know how landmarks repeat.

    Raises:
        ConfigError: a codec that does not fit the schema, or lacks it.
    """
    if isinstance(config, ChainCodecConfig):
        return ChainCodec(config, landmarks, map_stride, schema)
    if isinstance(config, SlotsCodecConfig):
        return SlotsCodec(config, landmarks, map_stride, schema)
    if isinstance(config, ScalarCodecConfig):
        return ScalarCodec(config, schema)
    if isinstance(config, HeatmapCodecConfig):
        shared = config.exchangeable == "shared" and schema is not None
        sharing = sharing_of(schema, landmarks) if schema and shared else None
        return with_outlines(HeatmapCodec(config, landmarks, map_stride, sharing), schema)
    _, codec = CODECS[config.name]
    built: Codec = codec(config, landmarks, map_stride)
    return built


__all__ = ["CODECS", "AnyCodecConfig", "Codec", "Decoded", "Labels", "Target", "build_codec"]
