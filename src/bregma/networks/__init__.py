"""Networks: one a file, behind one contract (:mod:`bregma.networks.base`)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from bregma.networks.base import Network, NetworkConfig, OutputSpec
from bregma.networks.coordinate_net import CoordinateNet, CoordinateNetConfig
from bregma.networks.hrnet import HRNet, HRNetConfig
from bregma.networks.light import Light, LightConfig
from bregma.networks.maht import MAHTConfig, MAHTNet
from bregma.networks.resnet_attention import ResNetAttention, ResNetAttentionConfig
from bregma.networks.scn import SCN, SCNConfig
from bregma.networks.simple_baseline import SimpleBaseline, SimpleBaselineConfig
from bregma.networks.simple_cnn import SimpleCNN, SimpleCNNConfig
from bregma.networks.timm_unet import TimmUNet, TimmUNetConfig
from bregma.networks.unet import UNet, UNetConfig
from bregma.schema import LandmarkSchema

AnyNetworkConfig = Annotated[
    UNetConfig
    | TimmUNetConfig
    | SCNConfig
    | SimpleBaselineConfig
    | HRNetConfig
    | MAHTConfig
    | ResNetAttentionConfig
    | CoordinateNetConfig
    | LightConfig
    | SimpleCNNConfig,
    Field(discriminator="name"),
]

NETWORKS: dict[str, tuple[type[NetworkConfig], Any]] = {
    "unet": (UNetConfig, UNet),
    "timm_unet": (TimmUNetConfig, TimmUNet),
    "scn": (SCNConfig, SCN),
    "simple_baseline": (SimpleBaselineConfig, SimpleBaseline),
    "hrnet": (HRNetConfig, HRNet),
    "maht": (MAHTConfig, MAHTNet),
    "resnet_attention": (ResNetAttentionConfig, ResNetAttention),
    "coordinate_net": (CoordinateNetConfig, CoordinateNet),
    "light": (LightConfig, Light),
    "simple_cnn": (SimpleCNNConfig, SimpleCNN),
}


def build_network(
    config: NetworkConfig, outputs: OutputSpec, *, in_channels: int = 1, schema: LandmarkSchema | None = None
) -> Network:
    """Build the network that a config describes, with the heads that a codec needs.

    Args:
        config: of one of :data:`NETWORKS`.
        outputs: what the codec needs.
        in_channels: of the image.
        schema: the anatomy, for networks that know which landmarks are neighbours; they are not told where the maps
            are not those of the landmarks.

    Raises:
        ConfigError: settings that do not fit each other.
    """
    name: str = config.name  # type: ignore[attr-defined]
    _, network = NETWORKS[name]
    known = {"schema": None if outputs.renumbered else schema} if network.uses_schema else {}
    return network(config, outputs, in_channels, **known)


__all__ = ["NETWORKS", "AnyNetworkConfig", "Network", "OutputSpec", "build_network"]
