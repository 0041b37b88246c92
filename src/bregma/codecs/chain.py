"""Chain codec: elements of a repeated structure, such as vertebrae, of which an image shows any number.

Every part has one map for all elements, with a peak at each; a map of centres tells how many elements there are, and
fields lead from a centre to its parts and to the next centre. There are no slots to fill: an element that is not on the
image has no peak. Levels are named from the anchor where it is visible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bregma.codecs.base import EXTENT, Decoded, Labels, Target, no_covariance
from bregma.codecs.cells import to_cells, to_pixels
from bregma.codecs.chain_decode import Found, Reading, find, read_peaks
from bregma.codecs.chain_landmarks import Landmarks
from bregma.codecs.chain_layout import Layout, layout_of
from bregma.codecs.chain_naming import Named, Node, arrange, name
from bregma.codecs.chain_target import UNIT, anchor_of, draw, elements_of, fields, judged
from bregma.codecs.chain_whole import name_whole
from bregma.codecs.places import Places
from bregma.config import Config
from bregma.errors import ConfigError
from bregma.geometry import Array
from bregma.instances import Instance
from bregma.schema import LandmarkSchema
from bregma.types import SIGMOID_OFFSET, OutputSpec

_FAINT = 0.2
"""Share of the threshold from which a peak is looked at where the number of elements is known."""
_LEAST_SHARE = 0.01
"""Probability of a level below which an element does not mention it."""
_NEIGHBOURS = 1.5 * math.sqrt(2)
"""Distance in cells within which the eight cells about that of a centre lie, wherever in its cell the centre is."""
_LEAST_CELLS = 0.75
"""Standard deviation in cells below which a Gaussian between four cells would hardly show on any of them."""


class ChainCodecConfig(Config):
    """Settings of the chain codec."""

    name: Literal["chain"] = "chain"
    chain: str | None = None
    """The schema's chain; None where it has only one."""
    sigma_px: float = Field(default=2.0, gt=0)
    """Standard deviation of the Gaussian at a part, in input pixels; 0.75 cells of the maps at least. That at a centre,
    which need not be found as exactly, is twice as wide."""
    activation: Literal["sigmoid", "linear"] = "sigmoid"
    """``sigmoid``: each cell is a logit of its own (focal loss); ``linear``: its values are regressed. There are many
    peaks a map, or none, so that a map is no probability over its cells."""
    threshold: float = Field(default=0.1, gt=0, lt=1)
    """Height of a map from which a peak counts, and presence is one half. CenterNet's usual 0.3 misses vertebrae cut by
    the border; from 0.05 down some are invented (docs/benchmarks.md)."""
    radius_sigma: float = Field(default=3.0, gt=0)
    """Half-width of the window in which a point is averaged, in standard deviations of the target."""
    way_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the way from an element's centre in a part's place; the rest is the peak's on the part's map. A way sees
    the element as a whole: a share of it makes angles steadier where edges are blurred or loosely labelled, and worse
    where they are sharp (docs/benchmarks.md)."""
    by_place: bool = True
    """Whether, where a chain is named by its number alone, names also follow from where its levels lie on the training
    images. Turn it off where images are to be cut in another way than these are."""
    places: Places | None = None
    """Where the levels lie on an image; learned from the training images, where ``by_place`` asks for it."""


class ChainCodec:
    """Maps of parts and of centres with the ways between them, for any number of elements.

    Raises:
        ConfigError: no schema, or one without such a chain.
    """

    def __init__(
        self, config: ChainCodecConfig, landmarks: int, map_stride: int, schema: LandmarkSchema | None = None
    ) -> None:
        if schema is None or len(schema) != landmarks:
            raise ConfigError("the chain codec needs the schema whose chain it is for", where="model.codec")
        self.config = config
        self.landmarks = landmarks
        self.stride = map_stride
        self.layout: Layout = layout_of(schema, config.chain)
        self.sigma_cells = max(config.sigma_px / map_stride, _LEAST_CELLS)
        levels = len(self.layout.chain.levels)
        if config.places is not None and len(config.places.mean) != levels:
            raise ConfigError(
                f"the chain '{self.layout.chain.name}' has other levels than its places",
                where="model.codec.places",
                expected=f"{levels} means",
                got=str(len(config.places.mean)),
            )

    @property
    def outputs(self) -> OutputSpec:
        """A map a part, one of centres and one a single landmark; then two fields for every way."""
        return OutputSpec(self.layout.maps + self.layout.fields, fields=self.layout.fields, renumbered=True)

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Draw every element that the labels place, and say which cells they judge."""
        del outputs
        layout, size = self.layout, (labels.shape[0] // self.stride, labels.shape[1] // self.stride)
        elements = elements_of(labels, layout, self.stride)
        anchor = anchor_of(labels, layout, self.stride) if layout.anchor is not None else None
        singles = list(layout.singles)
        drawn = [
            draw(elements.parts, elements.placed, size, self.sigma_cells),
            draw(elements.centre[:, :, None], elements.drawn[:, :, None], size, 2 * self.sigma_cells),
            draw(
                to_cells(labels.points_in[:, None, singles], self.stride),
                labels.placed[:, None, singles] > 0,
                size,
                self.sigma_cells,
            ),
        ]
        whole = judged(elements, anchor, layout, size)
        known = (labels.known[:, singles] > 0)[..., None, None].expand(-1, -1, *size)
        shared = whole[:, None].expand(-1, len(layout.parts) + 1, -1, -1)
        following = self._following(elements.centre, elements.drawn, anchor)
        ways, mask = fields(elements, following, size, max(_NEIGHBOURS, 2 * self.sigma_cells))
        return Target(
            labels,
            maps=torch.cat([maps for maps, _ in drawn], 1),
            peaks=torch.cat([peaks for _, peaks in drawn], 1),
            cells=torch.cat([shared, known], 1),
            fields=ways * (self.stride / (UNIT * max(labels.shape))),
            field_cells=mask,
        )

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """There are no points to be had before the elements are told apart.

        Raises:
            ConfigError: always.
        """
        del outputs, shape
        raise ConfigError(
            "the chain codec gives no points that a loss could act on",
            where="loss",
            fix="train it with losses on maps and 'offset'",
        )

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Nothing of the kind is predicted.

        Raises:
            ConfigError: always.
        """
        del outputs, shape
        raise no_covariance("choose another loss: the chain codec reads covariances from its maps")

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Find the elements of every image; landmarks of levels that are not named among them have presence 0."""
        heights = self._heights(outputs["maps"][:, : self.layout.maps].float())
        ways = outputs["maps"][:, self.layout.maps :].float() * (UNIT * max(shape) / self.stride)
        whole = torch.tensor([-0.5, -0.5, shape[1] - 0.5, shape[0] - 0.5]).expand(len(heights), 4)
        extent = outputs.get(EXTENT, whole).cpu().double().numpy()
        images = [self._decode_one(*each, shape) for each in zip(heights, ways, extent, strict=True)]
        mean, cov, presence = (
            torch.from_numpy(np.stack([arrays[i] for arrays, _ in images])).float().to(heights.device) for i in range(3)
        )
        return Decoded(mean, cov, presence, instances=tuple(found for _, found in images))

    def _following(
        self, centre: Tensor, drawn: Tensor, anchor: tuple[Tensor, Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the centre ``(B, L, 2)`` of the next level of each, and whether it is on the image ``(B, L)``."""
        rows = {rank: row for row, rank in enumerate(self.layout.ranks)}
        to, known = torch.zeros_like(centre), torch.zeros_like(drawn)
        for row, rank in enumerate(self.layout.ranks):
            if rank + 1 in rows:
                to[:, row], known[:, row] = centre[:, rows[rank + 1]], drawn[:, rows[rank + 1]]
            elif anchor is not None and rank + 1 == self.layout.anchor:
                to[:, row], known[:, row] = anchor[0], anchor[1]
        return to, known

    def _heights(self, maps: Tensor) -> Tensor:
        return (maps + SIGMOID_OFFSET).sigmoid() if self.config.activation == "sigmoid" else maps.clamp(0, 1)

    def _decode_one(
        self, heights: Tensor, ways: Tensor, extent: Array, shape: tuple[int, int]
    ) -> tuple[tuple[Array, Array, Array], tuple[Instance, ...]]:
        layout, count = self.layout, len(self.layout.parts)
        # Candidates beyond twice the levels could only come from maps that show nothing yet.
        reading = Reading(
            self.sigma_cells,
            max(1.0, self.config.radius_sigma * self.sigma_cells),
            self.config.threshold,
            2 * len(layout.chain.levels) + 8,
            self.config.way_share,
        )
        paired = ways.unflatten(0, (layout.ways, 2))
        seen = replace(reading, threshold=_FAINT * reading.threshold) if self.layout.chain.is_whole else reading
        found = find(heights[:count], heights[count], paired, seen)
        singles = _Singles(heights[count + 1 :], reading)
        instances = []
        for named in self._named(found, singles, reading, extent):
            instance = self._anchor(singles) if named.index < 0 else self._element(found[named.index], reading)
            instances.append(self._with_level(instance, named))
        filled = Landmarks(self.landmarks, shape)
        filled.put_elements(instances, layout)
        self._put_others(filled, singles)
        return (filled.mean, filled.cov, filled.presence), tuple(instances)

    def _named(self, found: Sequence[Found], singles: _Singles, reading: Reading, extent: Array) -> list[Named]:
        levels = len(self.layout.chain.levels)
        if self.layout.chain.is_whole:
            sure = [reading.probability(one.score) for one in found]
            nodes = [Node(i, one.centre, one.link, sure[i]) for i, one in enumerate(found)]
            return name_whole(nodes, levels=levels, misfit_NR=self._misplaced(found, extent))
        nodes = [Node(i, one.centre, one.link, one.score) for i, one in enumerate(found)]
        last = self.layout.anchor == levels - 1
        ordered = arrange([*nodes, *self._anchor_node(singles)], anchor_last=last)
        return name(ordered, levels=levels, anchor=self.layout.anchor)

    def _misplaced(self, found: Sequence[Found], extent: Array) -> Array | None:
        """Return what each rank costs an element for lying elsewhere on the image than on the training images."""
        places = self.config.places
        if places is None or not self.config.by_place or not found:
            return None
        axis = "xy".index(places.axis)
        at = to_pixels(np.array([one.centre[axis] for one in found]), self.stride)
        return places.misfit((at - extent[axis]) / max(float(extent[axis + 2] - extent[axis]), 1e-6))

    def _with_level(self, instance: Instance, named: Named) -> Instance:
        if named.there is not None:
            # With the element all its parts are there, however faint their maps.
            presence = np.full(len(instance.presence), named.there)
            instance = replace(instance, probability=named.there, presence=presence)
        levels = self.layout.chain.levels if self.layout.chain.named else ()
        level = None if named.rank is None or not levels else levels[named.rank]
        shares = {name: share for name, share in zip(levels, named.shares) if share >= _LEAST_SHARE}
        probability = 0.0 if level is None else named.probability
        return replace(instance, level=level, level_probability=probability, level_shares=shares)

    def _element(self, one: Found, reading: Reading) -> Instance:
        probability = reading.probability(one.score)
        presence = [min(probability, reading.probability(height)) for height in one.heights]
        return self._instance(self.layout.parts, one.points, one.cov, np.array(presence), probability)

    def _anchor(self, singles: _Singles) -> Instance:
        own = slice(0, len(self.layout.anchor_parts))
        presence = singles.presence[own]
        there = float(presence[self._anchor_seen(singles)].mean())
        return self._instance(self.layout.anchor_parts, singles.points[own], singles.cov[own], presence, there)

    def _instance(
        self, parts: tuple[str, ...], points: Array, cov: Array, presence: Array, probability: float
    ) -> Instance:
        """Return an instance in input pixels."""
        points_in = to_pixels(points, self.stride)
        return Instance(self.layout.chain.name, parts, points_in, cov * self.stride**2, presence, probability)

    def _anchor_node(self, singles: _Singles) -> list[Node]:
        own, seen = slice(0, len(self.layout.anchor_parts)), self._anchor_seen(singles)
        if self.layout.anchor is None or 2 * seen.sum() < len(seen):
            return []
        centre = singles.points[own][seen].mean(axis=0)
        return [Node(-1, centre, None, float(singles.presence[own][seen].mean()))]

    def _anchor_seen(self, singles: _Singles) -> NDArray[np.bool_]:
        """Return which parts of the anchor their maps show; the others may be anywhere."""
        return np.asarray(singles.heights[: len(self.layout.anchor_parts)] >= self.config.threshold)

    def _put_others(self, filled: Landmarks, singles: _Singles) -> None:
        rest = slice(len(self.layout.anchor_parts), None)
        points_in = to_pixels(singles.points[rest], self.stride)
        filled.put(self.layout.singles[rest], points_in, singles.cov[rest] * self.stride**2, singles.presence[rest])


class _Singles:
    """Landmarks with a map of their own, in cells: each the highest point of its map."""

    def __init__(self, maps: Tensor, reading: Reading) -> None:
        flat = maps.flatten(1)
        top = flat.argmax(1) if len(maps) else torch.zeros(0, dtype=torch.long)
        cells = torch.stack([top % maps.shape[2], torch.div(top, maps.shape[2], rounding_mode="floor")], -1)
        self.heights = flat.amax(1).cpu().double().numpy() if len(maps) else np.zeros(0)
        self.points, self.cov = read_peaks(maps, np.arange(len(maps)), cells.cpu().numpy(), reading)
        self.presence = np.array([reading.probability(height) for height in self.heights])
