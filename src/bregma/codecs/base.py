"""The contract of a codec: how landmarks become a network's target, and how its output becomes landmarks again.

Shape suffixes: B batch, N landmarks, K maps, H and W rows and columns of the maps. Points are in pixels of the
network's input (``_in``), with the centre of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from bregma.errors import ConfigError
from bregma.instances import Instance
from bregma.types import OutputSpec

EXTENT = "extent"
"""``(B, 4)`` the left, upper, right and lower edge of each image in input pixels: the rest of the input is padding."""


@dataclass(frozen=True)
class Labels:
    """A batch of labels as a codec takes them.

    Attributes:
        points_in: ``(B, N, 2)``.
        placed: ``(B, N)``, 1 where the point has a known position on the input, else 0.
        present: ``(B, N)``, 1 where the landmark is on the image, 0 where it is known not to be.
        known: ``(B, N)``, 1 where somebody said whether it is on the image.
        shape: rows and columns of the input.
        values: ``(B, T)`` the schema's quantities; a length or an area in pixels of the input.
        values_known: ``(B, T)`` 1 where the quantity is known.
    """

    points_in: Tensor
    placed: Tensor
    present: Tensor
    known: Tensor
    shape: tuple[int, int]
    values: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    values_known: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def to(self, device: torch.device) -> Labels:
        """Move all tensors to a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "shape"}
        return replace(self, **{name: t.to(device, non_blocking=True) for name, t in tensors.items()})


@dataclass(frozen=True)
class Target:
    """What losses compare a network's outputs with.

    A codec may draw K maps instead of one a landmark; it then says by ``cells`` which of them count. Of the output
    ``maps``, the first K channels are maps and the following F are fields.

    Attributes:
        labels: the labels themselves.
        maps: ``(B, N, H, W)`` Gaussians, for map codecs; None for others. Their peak is 1, unless ``sigma`` is learned.
        sigma: ``(B, N)`` standard deviations of the Gaussians in cells, where they are learned; None otherwise.
        cells: ``(B, K, H, W)`` mask of the cells that the labels say anything about; None for all cells of the maps of
            placed landmarks.
        peaks: ``(B, K, H, W)`` mask of the cells that hold a point; None for the highest cell of every map.
        fields: ``(B, F, H, W)`` values to be regressed, or None.
        field_cells: ``(B, F, H, W)`` mask of the cells where they are.
        counts: ``(B, K)`` 1 for maps that count, where landmarks share maps; None for those of placed landmarks, or
            those with a cell that the labels judge.
        values: ``(B, T)`` standardised quantities, for codecs of whole images.
        values_known: ``(B, T)`` 1 where they are known.
    """

    labels: Labels
    maps: Tensor | None = None
    sigma: Tensor | None = None
    cells: Tensor | None = None
    peaks: Tensor | None = None
    fields: Tensor | None = None
    field_cells: Tensor | None = None
    counts: Tensor | None = None
    values: Tensor | None = None
    values_known: Tensor | None = None


@dataclass(frozen=True)
class DecodedValues:
    """Quantities read from a network's outputs.

    Attributes:
        columns: positions of the T quantities among the schema's.
        mean: ``(B, T)``, lengths and areas in pixels of the input.
        sd: ``(B, T)`` standard deviations, or None where none are predicted.
    """

    columns: tuple[int, ...]
    mean: Tensor
    sd: Tensor | None


@dataclass(frozen=True)
class Candidates:
    """Where the points of a set that cannot be told apart may be: distinct peaks, those with most mass first.

    Attributes:
        members: positions of the set's landmarks.
        mean_in: ``(B, C, 2)`` in input pixels; anywhere where there is no such peak.
        cov_in: ``(B, C, 2, 2)`` in input px².
        mass: ``(B, C)`` share of the map's mass; 0 where there is no such peak.
        presence: ``(B, n)`` learned probability that there are at least 1, 2, … n of them; None where their mass tells.
    """

    members: tuple[int, ...]
    mean_in: Tensor
    cov_in: Tensor
    mass: Tensor
    presence: Tensor | None = None


@dataclass(frozen=True)
class OutlineMap:
    """Where an outline runs, as a network sees it.

    Attributes:
        ends: positions of the landmarks at the ends of the ellipse's first axis, and of its second.
        p: ``(B, H, W)`` probability over cells.
        stride: of the map.
        sigma_cells: standard deviation, across the outline, of what the network was trained on.
    """

    ends: tuple[int, int, int, int]
    p: Tensor
    stride: int
    sigma_cells: float


@dataclass(frozen=True)
class Decoded:
    """Landmarks read from a network's outputs, in input pixels.

    Attributes:
        mean_in: ``(B, N, 2)``.
        cov_in: ``(B, N, 2, 2)`` in input px².
        presence: ``(B, N)`` in 0..1.
        instances: of each image, the elements of its chain in order, for codecs that tell them apart.
        candidates: of each set of landmarks that share a map, all the places that they may be at.
        outlines: of each outline that has a map, where it runs.
        values: quantities of the whole image, for codecs that read some.
    """

    mean_in: Tensor
    cov_in: Tensor
    presence: Tensor
    instances: tuple[tuple[Instance, ...], ...] | None = None
    candidates: tuple[Candidates, ...] = ()
    outlines: tuple[OutlineMap, ...] = ()
    values: DecodedValues | None = None


class Codec(Protocol):
    """Encode and decode, for any network that can produce the outputs asked for."""

    @property
    def outputs(self) -> OutputSpec:
        """The outputs that the network must give."""
        ...

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Turn labels into a training target, differentiable in any learned constant that it depends on.

        Without outputs, constants are those of an untrained network.
        """
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
        """Read landmarks, their covariance and presence from the outputs.

        Beside these may stand, called :data:`EXTENT`, where the images lie in the input.
        """
        ...


def no_covariance(fix: str) -> ConfigError:
    """Return the error for a covariance that was never predicted, with the setting that makes the codec ask for it."""
    return ConfigError("the codec predicts no covariance", where="codec", fix=fix)


def no_shared_points() -> ConfigError:
    """Return the error for a loss on points that share a map, which are several and in no order."""
    return ConfigError(
        "losses on points cannot act on landmarks that share a map",
        where="loss",
        fix="choose losses on maps, or set codec.exchangeable=separate",
    )


def presence_of(outputs: dict[str, Tensor], like: Tensor) -> Tensor:
    """Return the probability of presence ``(B, N)``: the network's own, or 1 where it was never taught absence."""
    if "presence" in outputs:
        return outputs["presence"].float().sigmoid()
    return torch.ones(like.shape[:2], device=like.device)
