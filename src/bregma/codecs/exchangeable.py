"""Maps that several landmarks share because nothing tells these apart, and the peaks by which they are told apart.

The two ends of a diameter come in no order that an image shows. With a map each, what one map is to show on an image
depends on how somebody happened to number the ends, and a flipped image contradicts itself; with one map for both there
is nothing to confuse. Its target is the mixture of what the members would have been drawn as, and it is decoded to
members jointly: distinct peaks, each with the cells around it that are more likely its own than another's.

Shape suffixes: B batch, K maps, N landmarks, C candidates, H and W rows and columns; cells are ``(x, y)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from bregma.codecs.base import Candidates
from bregma.codecs.cells import moments, window
from bregma.errors import ConfigError
from bregma.exchange import presence_of_share, sets_of
from bregma.schema import LandmarkSchema

SADDLE = 0.85
"""Two maxima are one blob if the map between them stays above this share of the lower one. Two equal Gaussians are told
apart from a distance of 2.5 standard deviations on."""
EXTRA = 4
"""Peaks beyond the number of members that are kept as candidates, should the anatomy speak for one of them."""
_POOL = 3
"""Maxima looked at for each candidate: several may turn out to be one blob."""
_STEPS = 16
_ROUNDS = 8


@dataclass(frozen=True)
class Sharing:
    """Which landmarks each map shows.

    Attributes:
        members: positions of the landmarks of every map; a map of one landmark has one.
    """

    members: tuple[tuple[int, ...], ...]

    @property
    def maps(self) -> int:
        """Number of maps."""
        return len(self.members)

    @cached_property
    def sets(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The maps of several landmarks, each with its members."""
        return tuple((k, own) for k, own in enumerate(self.members) if len(own) > 1)

    @cached_property
    def singles(self) -> tuple[tuple[int, int], ...]:
        """The maps of one landmark, each with that landmark."""
        return tuple((k, own[0]) for k, own in enumerate(self.members) if len(own) == 1)

    @cached_property
    def map_of(self) -> tuple[int, ...]:
        """The map of every landmark."""
        return tuple(k for _, k in sorted((n, k) for k, own in enumerate(self.members) for n in own))


def one_each(landmarks: int) -> Sharing:
    """Return the layout in which every landmark has a map of its own."""
    return Sharing(tuple((n,) for n in range(landmarks)))


def sharing_of(schema: LandmarkSchema, landmarks: int) -> Sharing:
    """Return the layout in which the members of each exchangeable set share a map, at the place of their first.

    Raises:
        ConfigError: a flip would exchange a member of a set with a landmark of another, but not the whole sets.
    """
    sets = sets_of(schema)
    _check_flips(schema, sets)
    later = {n for members in sets for n in members[1:]}
    first = {members[0]: members for members in sets}
    return Sharing(tuple(first.get(n, (n,)) for n in range(landmarks) if n not in later))


def _check_flips(schema: LandmarkSchema, sets: Sequence[tuple[int, ...]]) -> None:
    known = {frozenset(members) for members in sets}
    for members in sets:
        mirrored = frozenset(schema.flip_permutation[n] for n in members)
        if mirrored not in known:
            names = ", ".join(schema.names[n] for n in members)
            raise ConfigError(
                "mirror_pairs and exchangeable contradict each other: a flip makes other points of these",
                where=f"schema '{schema.name}'",
                expected=f"partners of {names} that are exchangeable themselves",
                fix="declare them so, or set codec.exchangeable=separate",
            )


def mixture(maps_BNHW: Tensor, sharing: Sharing, *, probability: bool) -> Tensor:
    """Return the targets ``(B, K, H, W)`` of shared maps from those of their members, the absent ones of which are 0.

    Args:
        maps_BNHW: what every landmark alone would have been drawn as.
        sharing: which landmarks share a map.
        probability: add members up, each with an equal share even where the border cuts it, for maps that are
            probabilities over their cells; otherwise take the highest, so that a peak stays 1.
    """
    return torch.stack([_merge(maps_BNHW[:, list(own)], probability) for own in sharing.members], 1)


def _merge(maps_BnHW: Tensor, probability: bool) -> Tensor:
    if maps_BnHW.shape[1] == 1:
        return maps_BnHW[:, 0]
    if not probability:
        return maps_BnHW.amax(1)
    total = maps_BnHW.sum((2, 3), keepdim=True)
    whole = total.amax(1, keepdim=True)
    return (maps_BnHW * (whole / total.clamp(min=1e-12))).sum(1)


def countable(placed_BN: Tensor, known_BN: Tensor, sharing: Sharing) -> Tensor:
    """Return which maps ``(B, K)`` count: those of which a member is placed and none may be anywhere.

    A member that is known not to be on the input leaves the rest to be learned; one that nobody labelled might be
    anywhere, so that a map without it would teach that it is not there.
    """
    return torch.stack(
        [placed_BN[:, list(own)].amax(1) * _all_known(placed_BN, known_BN, own) for own in sharing.members], 1
    )


def _all_known(placed_BN: Tensor, known_BN: Tensor, own: Sequence[int]) -> Tensor:
    return torch.maximum(placed_BN[:, list(own)], known_BN[:, list(own)]).amin(1)


def sorted_presence(present_BN: Tensor, known_BN: Tensor, sharing: Sharing) -> tuple[Tensor, Tensor]:
    """Return presence, and whether it is known, with that of each set's k-th member saying that there are k of them.

    With one member that is there and one that nobody labelled, it is known that there is one, and not if there are two.
    """
    present, known = present_BN.clone(), known_BN.clone()
    for _, own in sharing.sets:
        index = list(own)
        least = (present_BN[:, index] * known_BN[:, index]).sum(1, keepdim=True)
        most = least + (1 - known_BN[:, index]).sum(1, keepdim=True)
        rank = torch.arange(1, len(index) + 1, device=present_BN.device)
        present[:, index] = (rank <= least).to(present.dtype)
        known[:, index] = ((rank <= least) | (rank > most)).to(known.dtype)
    return present, known


def highest_cells(maps_BNHW: Tensor, sharing: Sharing) -> Tensor:
    """Return a mask ``(B, K, H, W)`` of the cell of shared maps that is nearest to each point drawn."""
    flat = maps_BNHW.flatten(2)
    top, where = flat.max(-1, keepdim=True)
    each = torch.zeros_like(flat, dtype=torch.bool).scatter_(2, where, top > 0).view_as(maps_BNHW)
    return torch.stack([each[:, list(own)].any(1) for own in sharing.members], 1)


@dataclass(frozen=True)
class Peaks:
    """Distinct peaks of one map, those with most of its mass first.

    Attributes:
        cell: ``(B, C, 2)`` the highest cell of each.
        own: ``(B, C, H, W)`` what of the map belongs to each.
        mass: ``(B, C)`` its sum; 0 where there is no such peak.
    """

    cell: Tensor
    own: Tensor
    mass: Tensor


def distinct_peaks(p_BHW: Tensor, count: int, sigma_cells: float, radius: float) -> Peaks:
    """Return ``count`` distinct peaks of maps that sum to one.

    Maxima between which the map does not sink (:data:`SADDLE`) are one blob. Where blobs overlap, a mixture of
    Gaussians of the target's width, fitted by expectation-maximisation, says how much of a cell belongs to which.

    Args:
        p_BHW: maps in 0..1.
        count: how many peaks; the mass of those that a map does not have is 0.
        sigma_cells: standard deviation of the target.
        radius: half-width of the window that a peak reaches, in cells.
    """
    cell, height = _maxima(p_BHW, _POOL * count, sigma_cells)
    kept = _without_shoulders(p_BHW, cell, height)
    # Blobs before the maxima that turned out to be parts of one.
    rank = torch.where(kept, height, -1.0).argsort(dim=1, descending=True, stable=True)[:, :count]
    cell, kept = cell.gather(1, rank[..., None].expand(-1, -1, 2)), kept.gather(1, rank)
    own = _shares(p_BHW, cell, kept, sigma_cells, radius)
    mass = own.sum((2, 3))
    order = mass.argsort(dim=1, descending=True, stable=True)
    index = order[..., None, None].expand_as(own)
    return Peaks(cell.gather(1, order[..., None].expand(-1, -1, 2)), own.gather(1, index), mass.gather(1, order))


def _maxima(p_BHW: Tensor, count: int, sigma_cells: float) -> tuple[Tensor, Tensor]:
    """Return cells ``(B, Q, 2)`` and heights ``(B, Q)`` of the highest local maxima; a height of 0 is none."""
    reach = max(1, round(sigma_cells))
    around = functional.max_pool2d(p_BHW[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
    flat = torch.where(p_BHW == around, p_BHW, 0.0).flatten(1)
    height, index = flat.topk(min(count, flat.shape[1]), dim=1)
    width = p_BHW.shape[2]
    return torch.stack([index % width, torch.div(index, width, rounding_mode="floor")], -1).to(p_BHW.dtype), height


def _without_shoulders(p_BHW: Tensor, cell_BQ2: Tensor, height_BQ: Tensor) -> Tensor:
    """Return which maxima ``(B, Q)`` are blobs of their own, and no part of a higher one."""
    along = torch.linspace(0, 1, _STEPS + 1, device=p_BHW.device, dtype=p_BHW.dtype)[:, None]
    start, end = cell_BQ2[:, :, None, None], cell_BQ2[:, None, :, None]
    x, y = (start + along * (end - start)).round().long().unbind(-1)
    index = y * p_BHW.shape[2] + x
    saddle = p_BHW.flatten(1).gather(1, index.flatten(1)).view_as(index).amin(-1)
    joined = saddle >= SADDLE * torch.minimum(height_BQ[:, :, None], height_BQ[:, None, :])
    kept = height_BQ > 0
    for q in range(1, kept.shape[1]):
        kept[:, q] &= ~(joined[:, q, :q] & kept[:, :q]).any(1)
    return kept


def _shares(p_BHW: Tensor, cell_BC2: Tensor, kept_BC: Tensor, sigma_cells: float, radius: float) -> Tensor:
    """Return what of the map belongs to each blob: within its window, in proportion to its Gaussian there."""
    near = window(torch.Size((*cell_BC2.shape[:2], *p_BHW.shape[1:])), cell_BC2, radius) & kept_BC[..., None, None]
    rows = torch.arange(p_BHW.shape[1], device=p_BHW.device, dtype=p_BHW.dtype)
    columns = torch.arange(p_BHW.shape[2], device=p_BHW.device, dtype=p_BHW.dtype)
    width = max(sigma_cells, 0.5)
    centre, weight = cell_BC2, kept_BC.to(p_BHW.dtype)
    own = torch.zeros(near.shape, device=p_BHW.device, dtype=p_BHW.dtype)
    for _ in range(_ROUNDS):
        dx, dy = columns - centre[..., :1], rows - centre[..., 1:]
        distance = dy[..., :, None] ** 2 + dx[..., None, :] ** 2
        score = weight.clamp(min=1e-30).log()[..., None, None] - distance / (2 * width**2)
        score = score.masked_fill(~near, -torch.inf)
        # A cell in no window is nobody's: its softmax over nothing is no number.
        own = p_BHW[:, None] * torch.where(near, score.softmax(1), 0.0)
        weight = own.sum((2, 3))
        mean = moments(own / weight.clamp(min=1e-30)[..., None, None])[0]
        centre = torch.where((weight > 0)[..., None], mean, centre)
    return own


def nowhere(shape: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``(2,)`` and covariance ``(2, 2)`` of a point that may be anywhere on an input."""
    size = like.new_tensor([shape[1], shape[0]])
    return (size - 1) / 2, torch.diag(size**2 / 12)


@dataclass(frozen=True)
class Placed:
    """Landmarks in input pixels as they are found, one set after the other.

    Attributes:
        mean: ``(B, N, 2)``.
        cov: ``(B, N, 2, 2)``.
        presence: ``(B, N)``.
    """

    mean: Tensor
    cov: Tensor
    presence: Tensor

    @classmethod
    def nowhere(cls, images: int, landmarks: int, shape: tuple[int, int], like: Tensor) -> Placed:
        """Return landmarks of which nothing is known yet."""
        middle, anywhere = nowhere(shape, like)
        return cls(
            middle.repeat(images, landmarks, 1),
            anywhere.repeat(images, landmarks, 1, 1),
            like.new_ones((images, landmarks)),
        )

    def put(self, members: Sequence[int], mean: Tensor, cov: Tensor, presence: Tensor | None = None) -> None:
        """Set landmarks; their presence stays 1 without any."""
        index = list(members)
        self.mean[:, index], self.cov[:, index] = mean, cov
        if presence is not None:
            self.presence[:, index] = presence

    def choose(self, candidates: Candidates) -> None:
        """Set the members of a set to the candidates with most mass, from left to right."""
        count = len(candidates.members)
        mean, cov, mass = candidates.mean_in[:, :count], candidates.cov_in[:, :count], candidates.mass[:, :count]
        presence = presence_by_mass(mass) if candidates.presence is None else candidates.presence
        order = from_left(mean)
        self.put(
            candidates.members,
            mean.gather(1, order[..., None].expand_as(mean)),
            cov.gather(1, order[..., None, None].expand_as(cov)),
            presence.gather(1, order),
        )


def presence_by_mass(mass_Bn: Tensor) -> Tensor:
    """Return how likely members are there at all, ``(B, n)`` in 0..1, from their share of the members' mass.

    1 for an equal share or more, one half for a tenth of it (:func:`~bregma.exchange.presence_of_share`), 0 for none.
    """
    equal = mass_Bn.mean(1, keepdim=True)
    share = torch.where(equal > 0, mass_Bn / equal.clamp(min=1e-30), 0.0).clamp(max=1.0)
    return presence_of_share(share)


def from_left(points_Bn2: Tensor) -> Tensor:
    """Return the order ``(B, n)`` of points from left to right, then from top to bottom."""
    by_y = points_Bn2[..., 1].argsort(dim=1, stable=True)
    return by_y.gather(1, points_Bn2[..., 0].gather(1, by_y).argsort(dim=1, stable=True))
