"""HRNetV2 (Sun et al., arXiv 1904.04514, 2019; Wang et al., IEEE TPAMI 43, 2021): four resolutions side by side.

The head is that of the papers' landmark detector: all four resolutions, up-sampled to 1/4 and joined, a 1 × 1
convolution with normalisation and ReLU, and a 1 × 1 convolution to the maps. With three input channels W18 has 9.66 M
parameters at 98 maps, as Open Model Zoo counts for its ``facial-landmarks-98-detection-0001``.
(HRNetV1 for human pose, 28.5 M for W32, reads the finest resolution only.)
Differences: maps finer than 1/4 are up-sampled bilinearly, which the papers leave to the decoding; vectors come from
the four resolutions, averaged over the image.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bregma.networks.base import Heads, Network, OutputSpec, upsample_to
from bregma.networks.encoders import EncoderConfig, create_pyramid

_FINEST = 4


class HRNetConfig(EncoderConfig):
    """Settings of HRNet."""

    name: Literal["hrnet"] = "hrnet"
    encoder: str = Field(default="hrnet_w32", pattern=r"^hrnet_")
    """``hrnet_w18``, ``hrnet_w32``, ``hrnet_w48``, or another HRNet of timm; the number is the finest resolution's
    channels."""
    map_stride: Literal[1, 2, 4] = 4
    """Input pixels per cell of the output maps: 4 in the papers; 2 and 1 up-sample those maps."""


class HRNet(Network):
    """HRNet with a head over all its resolutions."""

    parts: ClassVar = {"backbone": ("encoder",), "head": ("join", "heads")}

    def __init__(self, config: HRNetConfig, outputs: OutputSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.map_stride = config.map_stride
        # timm's other choice, "incre", widens each resolution with a part of the classifier.
        self.encoder = create_pyramid(config, in_channels, options={"feature_location": ""})
        info: Any = self.encoder.feature_info
        self.stride = int(info.reduction()[-1])
        width = sum(info.channels()[1:])
        self.join = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        if not outputs.maps:
            self.join = nn.Sequential()
        self.heads = Heads(outputs, map_channels=width, deep_channels=width)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for."""
        self.check_size(image_BCHW.shape)
        _, *features = self.encoder(image_BCHW)  # The first is the stem at 1/2.
        pooled_BC11 = torch.cat([feature.mean(dim=(2, 3), keepdim=True) for feature in features], dim=1)
        if not self.outputs.maps:
            return self.heads(None, pooled_BC11)
        joined = torch.cat([features[0], *(upsample_to(feature, features[0]) for feature in features[1:])], dim=1)
        out = self.heads(self.join(joined), pooled_BC11)
        if self.map_stride < _FINEST:
            scale = _FINEST // self.map_stride
            out["maps"] = functional.interpolate(out["maps"], scale_factor=scale, mode="bilinear", align_corners=False)
        return out
