"""Curve codec: a line that runs down the input from its first row to its last, with landmarks along it.

One map for all landmarks: in every row a probability over its columns. Landmark n lies in the middle of the n-th of N
equal parts of the rows. This is what a band that was unrolled about an outline shows (:mod:`bregma.unrolled`).

Shape suffixes: B batch, N landmarks, H and W rows and columns of the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bregma.codecs.base import Decoded, Labels, Target, no_covariance
from bregma.codecs.cells import bell, to_cells
from bregma.config import Config
from bregma.errors import ConfigError
from bregma.types import OutputSpec


class CurveCodecConfig(Config):
    """Settings of the curve codec."""

    name: Literal["curve"] = "curve"
    sigma_px: float = Field(default=1.5, gt=0)
    """Standard deviation of the target across the line, in input pixels."""
    activation: Literal["softmax"] = "softmax"
    """Maps are probabilities over cells."""


class CurveCodec:
    """A line down the rows.

    Args:
        config: its settings.
        landmarks: samples of the line.
        map_stride: of the network's map.
    """

    def __init__(self, config: CurveCodecConfig, landmarks: int, map_stride: int) -> None:
        self.config, self.landmarks, self.stride = config, landmarks, map_stride
        self.sigma_cells = config.sigma_px / map_stride

    @property
    def outputs(self) -> OutputSpec:
        """One map, which all landmarks share."""
        return OutputSpec(1)

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Draw a ridge with peak 1 along the line, straight between its samples; it counts where all are placed.

        Raises:
            ConfigError: rows that cannot be shared, or landmarks that lie in other rows than theirs.
        """
        del outputs
        rows, columns = (n // self.stride for n in labels.shape)
        self._check(rows)
        part = labels.shape[0] / self.landmarks
        if (labels.placed * (labels.points_in[..., 1] - self._middles(labels.points_in, part)).abs()).max() > part:
            raise ConfigError(
                "a landmark of a line lies in other rows than its own",
                where="model.codec",
                expected="samples down the rows of an unrolled outline, and no augmentation that moves them",
                fix="choose the codec heatmap, or set the geometric settings of augment to 0",
            )
        x_BN = to_cells(labels.points_in, self.stride)[..., 0]
        ridge = bell(_in_rows(x_BN, rows), columns, self.sigma_cells)[:, None]
        whole_B1 = labels.placed.amin(1, keepdim=True)
        return Target(labels, ridge * whole_B1[..., None, None], counts=whole_B1)

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Return the mean column of every part of the rows, at its middle, ``(B, N, 2)`` in input pixels."""
        return self._read(outputs, shape)[0]

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Refuse: what a map shows of its certainty is not learned.

        Raises:
            ConfigError: always.
        """
        raise no_covariance("choose the codec heatmap or coordinate")

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read the line; across it the covariance is that of the map's rows, along it that of a part of the rows."""
        mean, variance = self._read(outputs, shape)
        along = torch.full_like(variance, (shape[0] / self.landmarks) ** 2 / 12)
        return Decoded(mean, torch.diag_embed(torch.stack([variance, along], -1)), torch.ones_like(variance))

    def _read(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return points, and the variance across them beyond the target's own width, in input pixels."""
        p_BHW = outputs["maps"][:, 0].float().softmax(-1)
        rows = p_BHW.shape[1]
        self._check(rows)
        grid = torch.arange(p_BHW.shape[2], device=p_BHW.device, dtype=p_BHW.dtype)
        mean_BH = (p_BHW * grid).sum(-1)
        variance_BH = (p_BHW * (grid - mean_BH[..., None]) ** 2).sum(-1)
        x, variance = (value.unflatten(1, (self.landmarks, -1)).mean(-1) for value in (mean_BH, variance_BH))
        y = self._middles(x, shape[0] / self.landmarks)
        # What is left of a map that is sure is where in a cell the line runs.
        beyond = (variance - self.sigma_cells**2).clamp(min=1 / 12) * self.stride**2
        return torch.stack([(x + 0.5) * self.stride - 0.5, y.expand_as(x)], -1), beyond

    def _middles(self, like: Tensor, part: float) -> Tensor:
        """Return the rows ``(N,)`` in whose middle the landmarks lie."""
        return part * (torch.arange(self.landmarks, device=like.device, dtype=like.dtype) + 0.5) - 0.5

    def _check(self, rows: int) -> None:
        if rows % self.landmarks:
            raise ConfigError(
                "the rows of the map cannot be shared among the landmarks",
                where="codec",
                expected=f"a multiple of {self.landmarks} rows",
                got=str(rows),
            )


def _in_rows(samples_BN: Tensor, rows: int) -> Tensor:
    """Return values ``(B, H)`` in all rows, straight between samples in the middle of equal parts of them."""
    return torch.nn.functional.interpolate(samples_BN[:, None], rows, mode="linear", align_corners=False)[:, 0]
