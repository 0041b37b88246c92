"""Networks: one a file, behind one contract (:mod:`bregma.networks.base`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from bregma.networks.base import Network, OutputSpec
from bregma.networks.scn import SCN, SCNConfig
from bregma.networks.timm_unet import TimmUNet, TimmUNetConfig
from bregma.networks.unet import UNet, UNetConfig

AnyNetworkConfig = Annotated[UNetConfig | TimmUNetConfig | SCNConfig, Field(discriminator="name")]

NETWORKS: dict[str, tuple[type, Callable[..., Network]]] = {
    "unet": (UNetConfig, UNet),
    "timm_unet": (TimmUNetConfig, TimmUNet),
    "scn": (SCNConfig, SCN),
}


def build_network(
    config: UNetConfig | TimmUNetConfig | SCNConfig, outputs: OutputSpec, *, in_channels: int = 1
) -> Network:
    """Build the network that a config describes, with the heads that a codec needs."""
    _, network = NETWORKS[config.name]
    return network(config, outputs, in_channels)


__all__ = ["NETWORKS", "AnyNetworkConfig", "Network", "OutputSpec", "build_network"]
