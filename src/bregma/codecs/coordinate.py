"""Coordinate codec: direct regression of points in 0..1, with an optional predicted covariance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from bregma.codecs.base import Decoded, Labels, Target, no_covariance, presence_of
from bregma.config import Config
from bregma.types import OutputSpec


class CoordinateCodecConfig(Config):
    """Settings of the coordinate codec."""

    name: Literal["coordinate"] = "coordinate"
    covariance: bool = False
    """Let the network predict a covariance a point (train it with the ``gaussian_nll`` loss)."""
    presence: bool = False
    """Learn whether a landmark is on the image at all."""


class CoordinateCodec:
    """Points as ``2N`` numbers: 0 is the outer edge of the first pixel, 1 that of the last.

    A sigmoid alone could not reach a point on the border, so its range is stretched by 5 % on either side.
    """

    margin = 0.05

    def __init__(self, config: CoordinateCodecConfig, landmarks: int, map_stride: int) -> None:
        del map_stride
        self.config = config
        self.landmarks = landmarks

    @property
    def outputs(self) -> OutputSpec:
        """``points`` (2N), with ``cholesky`` (3N) and ``presence`` (N) where they are learned."""
        vectors = {"points": 2 * self.landmarks}
        if self.config.covariance:
            vectors["cholesky"] = 3 * self.landmarks
        if self.config.presence:
            vectors["presence"] = self.landmarks
        return OutputSpec(0, vectors)

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """The labels themselves are the target."""
        del outputs
        return Target(labels)

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Differentiable points ``(B, N, 2)`` in input pixels."""
        raw = outputs["points"].float().unflatten(1, (self.landmarks, 2))
        unit = raw.sigmoid() * (1 + 2 * self.margin) - self.margin
        return unit * _size(shape, unit) - 0.5

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Lower factors ``(B, N, 2, 2)`` of the predicted covariances, in input pixels.

        Raises:
            ConfigError: ``covariance`` is off.
        """
        if not self.config.covariance:
            raise no_covariance("set codec.covariance=true")
        raw = outputs["cholesky"].float().unflatten(1, (self.landmarks, 3))
        scale = max(shape)
        # Softplus around 2 % of the input's size: a sensible first guess of a landmark's uncertainty.
        diagonal = torch.nn.functional.softplus(raw[..., :2]) * (0.03 * scale) + 1e-3
        lower = raw[..., 2] * (0.03 * scale)
        zero = torch.zeros_like(lower)
        top = torch.stack([diagonal[..., 0], zero], -1)
        bottom = torch.stack([lower, diagonal[..., 1]], -1)
        return torch.stack([top, bottom], -2)

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read points; the covariance is the predicted one, or else a pixel's own quantisation (1/12 px²)."""
        mean = self.points(outputs, shape)
        if self.config.covariance:
            factor = self.cholesky(outputs, shape)
            cov = factor @ factor.transpose(-1, -2)
        else:
            cov = (torch.eye(2, device=mean.device) / 12).expand(*mean.shape[:2], 2, 2)
        return Decoded(mean, cov, presence_of(outputs, mean))


def _size(shape: tuple[int, int], like: Tensor) -> Tensor:
    return torch.tensor([shape[1], shape[0]], device=like.device, dtype=like.dtype)
