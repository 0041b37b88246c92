"""The contract of a codec: how landmarks become a network's target, and how its output becomes landmarks again.

Shape suffixes: B batch, N landmarks, K maps, H and W rows and columns of the maps. Points are in pixels of the
network's input (``_in``), with the centre of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bregma.errors import ConfigError
from bregma.types import OutputSpec


@dataclass(frozen=True)
class Labels:
    """A batch of labels as a codec takes them.

    Attributes:
        points_in: ``(B, N, 2)``.
        placed: ``(B, N)``, 1 where the point has a known position on the input, else 0.
        present: ``(B, N)``, 1 where the landmark is on the image, 0 where it is known not to be.
        known: ``(B, N)``, 1 where somebody said whether it is on the image.
        shape: rows and columns of the input.
    """

    points_in: Tensor
    placed: Tensor
    present: Tensor
    known: Tensor
    shape: tuple[int, int]

    def to(self, device: torch.device) -> Labels:
        """Move all tensors to a device."""
        points, placed, present, known = (
            t.to(device, non_blocking=True) for t in (self.points_in, self.placed, self.present, self.known)
        )
        return Labels(points, placed, present, known, self.shape)


@dataclass(frozen=True)
class Target:
    """What losses compare a network's outputs with.

    Attributes:
        labels: the labels themselves.
        maps: ``(B, N, H, W)`` Gaussians with peak 1, for map codecs; None for others.
    """

    labels: Labels
    maps: Tensor | None = None


@dataclass(frozen=True)
class Decoded:
    """Landmarks read from a network's outputs, in input pixels.

    Attributes:
        mean_in: ``(B, N, 2)``.
        cov_in: ``(B, N, 2, 2)`` in input px².
        presence: ``(B, N)`` in 0..1.
    """

    mean_in: Tensor
    cov_in: Tensor
    presence: Tensor


class Codec(Protocol):
    """Encode and decode, for any network that can produce the outputs asked for."""

    @property
    def outputs(self) -> OutputSpec:
        """The outputs that the network must give."""
        ...

    def encode(self, labels: Labels) -> Target:
        """Turn labels into a training target."""
        ...

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Return differentiable points ``(B, N, 2)`` in input pixels, for losses on coordinates."""
        ...

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Return lower factors ``(B, N, 2, 2)`` of the covariances that the network predicts, in input pixels.

        Raises:
            ConfigError: it was not asked to predict any.
        """
        ...

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read landmarks, their covariance and presence from the outputs."""
        ...


def no_covariance(fix: str) -> ConfigError:
    """Return the error for a covariance that was never predicted, with the setting that makes the codec ask for it."""
    return ConfigError("the codec predicts no covariance", where="codec", fix=fix)


def presence_of(outputs: dict[str, Tensor], like: Tensor) -> Tensor:
    """Return the probability of presence ``(B, N)``: the network's own, or 1 where it was never taught absence."""
    if "presence" in outputs:
        return outputs["presence"].float().sigmoid()
    return torch.ones(like.shape[:2], device=like.device)
