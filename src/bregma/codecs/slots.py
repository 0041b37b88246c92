"""Slots codec: elements of a repeated structure in a fixed number of places, filled from the first visible one on.

This is how a published spine project has it: ten vertebrae of four corners give 40 maps, the first four of which show
the topmost vertebra of the image, whichever that is. It suits sets in which every image shows the same number of
elements, e.g. the seventeen vertebrae of a whole spine. Where that number varies, one vertebra more at the top moves
all others to other maps; the chain codec has no slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bregma.codecs.base import Decoded, Labels, Target
from bregma.codecs.chain_landmarks import Landmarks
from bregma.codecs.chain_layout import Layout, layout_of
from bregma.codecs.heatmap import HeatmapCodec, HeatmapCodecConfig
from bregma.config import Config
from bregma.errors import ConfigError
from bregma.geometry import Array
from bregma.instances import Instance
from bregma.schema import LandmarkSchema
from bregma.types import OutputSpec

_THERE = 0.5
"""Presence from which a part counts as being on the image."""


class SlotsCodecConfig(Config):
    """Settings of the slots codec."""

    name: Literal["slots"] = "slots"
    chain: str | None = None
    """The schema's chain; None where it has only one."""
    slots: int | None = Field(default=None, ge=1)
    """For how many elements there is room; further ones of an image are left out. None is as many as the chain has
    levels; 10 in the published spine project."""
    sigma_px: float = Field(default=2.0, gt=0)
    """Standard deviation of the target Gaussian, in input pixels."""
    activation: Literal["softmax", "linear", "sigmoid"] = "softmax"
    """As for the heatmap codec."""
    decoder: Literal["argmax", "dark", "local_soft_argmax", "soft_argmax"] = "local_soft_argmax"
    """How a map becomes a point."""
    radius_sigma: float = Field(default=4.0, gt=0)
    """Half-width of the local soft-argmax window, in target standard deviations."""


class SlotsCodec:
    """A map and a presence for each part of each slot, and for each landmark that belongs to no level of the chain.

    Raises:
        ConfigError: no schema, or one without such a chain.
    """

    def __init__(
        self, config: SlotsCodecConfig, landmarks: int, map_stride: int, schema: LandmarkSchema | None = None
    ) -> None:
        if schema is None or len(schema) != landmarks:
            raise ConfigError("the slots codec needs the schema whose chain it is for", where="model.codec")
        self.config = config
        self.landmarks = landmarks
        self.layout: Layout = layout_of(schema, config.chain)
        self.levels = tuple(self.layout.columns_at(rank) for rank in range(len(self.layout.chain.levels)))
        """The landmark of each part, for all levels, the anchor too; -1 where a level lacks the part."""
        self.slots = config.slots or len(self.levels)
        self.others = self.layout.singles[len(self.layout.anchor_parts) :]
        own = HeatmapCodecConfig(
            sigma_px=config.sigma_px,
            activation=config.activation,
            decoder=config.decoder,
            radius_sigma=config.radius_sigma,
            presence=True,
        )
        self.maps = HeatmapCodec(own, self.slots * len(self.layout.parts) + len(self.others), map_stride)

    @property
    def outputs(self) -> OutputSpec:
        """Maps and ``presence``: the parts of the first slot, those of the second, …, then the other landmarks."""
        inner = self.maps.outputs
        return OutputSpec(inner.maps, inner.vectors, renumbered=True)

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Draw the elements in the slots that they fill; the target's labels are in the order of the slots."""
        return self.maps.encode(self.in_slots(labels), outputs)

    def in_slots(self, labels: Labels) -> Labels:
        """Return labels in the order of the slots: elements with half of their parts placed fill them in order.

        A part of an empty slot is known not to be on the image, unless there are levels of which nobody said whether
        they are.
        """
        device = labels.points_in.device
        columns = torch.tensor(self.levels, device=device)
        has, at = columns >= 0, columns.clamp(min=0)
        placed = (labels.placed[:, at] > 0) & has
        filling = 2 * placed.sum(-1) >= has.sum(-1)
        # A stable sort keeps the order of the chain among the levels that fill slots.
        level = (~filling).int().argsort(dim=1, stable=True)[:, : self.slots]
        level = torch.nn.functional.pad(level, (0, self.slots - level.shape[1]))
        filled = torch.arange(self.slots, device=device) < filling.sum(1, keepdim=True)
        complete = ((labels.known[:, at] > 0) | ~has).all(-1).all(-1)

        def chosen(values: Tensor) -> Tensor:
            index = level[(...,) + (None,) * (values.ndim - 2)].expand(-1, -1, *values.shape[2:])
            return values.gather(1, index)

        there = filled[..., None] & chosen(placed)
        said = chosen((labels.known[:, at] > 0) | ~has)
        present = filled[..., None] & chosen((labels.present[:, at] > 0) & has)
        known = torch.where(filled[..., None], said, complete[:, None, None])
        rest = list(self.others)

        def joined(own: Tensor, all_: Tensor) -> Tensor:
            return torch.cat([own.flatten(1, 2).to(all_.dtype), all_[:, rest]], 1)

        return Labels(
            joined(chosen(labels.points_in[:, at]), labels.points_in),
            joined(there, labels.placed),
            joined(present, labels.present),
            joined(known, labels.known),
            labels.shape,
        )

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Return differentiable points ``(B, M, 2)`` of all maps, in the order of the slots."""
        return self.maps.points(outputs, shape)

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Nothing of the kind is predicted.

        Raises:
            ConfigError: always.
        """
        return self.maps.cholesky(outputs, shape)

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read the slots that are filled; landmarks of levels that are not named among them have presence 0."""
        read = self.maps.decode(outputs, shape)
        arrays = [t.cpu().double().numpy() for t in (read.mean_in, read.cov_in, read.presence)]
        images = [self._decode_one(m, c, p, shape) for m, c, p in zip(*arrays, strict=True)]
        mean, cov, presence = (
            torch.from_numpy(np.stack([getattr(found, name) for found, _ in images])).to(read.mean_in)
            for name in ("mean", "cov", "presence")
        )
        return Decoded(mean, cov, presence, instances=tuple(instances for _, instances in images))

    def _decode_one(
        self, mean: Array, cov: Array, presence: Array, shape: tuple[int, int]
    ) -> tuple[Landmarks, tuple[Instance, ...]]:
        count = self.slots * len(self.layout.parts)
        by_slot = presence[:count].reshape(self.slots, -1)
        kept = np.flatnonzero(2 * (by_slot >= _THERE).sum(axis=1) >= by_slot.shape[1])
        instances = []
        for slot, (rank, sure) in zip(kept, self._named(by_slot[kept]), strict=True):
            if rank is None or 0 <= rank < len(self.levels):
                own = slice(slot * by_slot.shape[1], (slot + 1) * by_slot.shape[1])
                instances.append(self._instance(mean[own], cov[own], presence[own], rank, sure))
        filled = Landmarks(self.landmarks, shape)
        filled.put_elements(instances, self.layout)
        filled.put(self.others, mean[count:], cov[count:], presence[count:])
        return filled, tuple(instances)

    def _named(self, presence: Array) -> Sequence[tuple[int | None, float]]:
        """Return the level of each filled slot, counted from the anchor, and how sure it is."""
        chain, anchor = self.layout.chain, self.layout.anchor
        if not chain.named:
            return [(None, 0.0)] * len(presence)
        if anchor is None:
            # Without one, as many elements as there are levels are all of them.
            whole = len(presence) == len(self.levels)
            sure = float(presence.mean(axis=1).min()) if whole else 0.0
            return [(rank if whole else None, sure) for rank in range(len(presence))]
        likeness = self._like_anchor(presence)
        if not len(likeness) or likeness.max() < _THERE:
            return [(None, 0.0)] * len(presence)
        at = int(likeness.argmax())
        return [(anchor + slot - at, float(likeness[at])) for slot in range(len(presence))]

    def _like_anchor(self, presence: Array) -> Array:
        """Return how surely each slot ``(K, P)`` shows the anchor: the parts that it has, and none that it lacks.

        An anchor with all parts cannot be told from any other level.
        """
        has = np.array(self.levels[self.layout.anchor or 0]) >= 0
        if has.all():
            return np.zeros(len(presence))
        return np.asarray(np.where(has, presence, 1 - presence).min(axis=1)) if len(presence) else np.zeros(0)

    def _instance(self, points: Array, cov: Array, presence: Array, rank: int | None, sure: float) -> Instance:
        level = None if rank is None else self.layout.chain.levels[rank]
        own = range(len(points)) if rank is None else [i for i, c in enumerate(self.levels[rank]) if c >= 0]
        at = list(own)
        parts = tuple(self.layout.parts[i] for i in at)
        probability = float(presence[at].mean())
        return Instance(
            self.layout.chain.name, parts, points[at], cov[at], presence[at], probability, level, sure if level else 0.0
        )
