"""What a network should answer for the elements of a chain: maps, fields, and which of their cells anybody can judge.

Shape suffixes: B batch, L levels that share maps, P parts, H and W rows and columns of the maps. Positions are in
cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bregma.codecs.base import Labels
from bregma.codecs.cells import bell, to_cells
from bregma.codecs.chain_layout import Layout
from bregma.geometry import Array

UNIT = 0.1
"""What a field of 1 means, as a share of the input's longer side: about a vertebra's half height on lumbar images."""
_OWN = 1.1
"""Radius about a labelled element that certainly shows it, in distances of its farthest part from its centre."""


@dataclass(frozen=True)
class Elements:
    """The labelled elements of a batch, in cells.

    Attributes:
        parts: ``(B, L, P, 2)``.
        placed: ``(B, L, P)`` whether the part has a position.
        centre: ``(B, L, 2)`` mean of the placed parts.
        drawn: ``(B, L)`` whether the level counts as an element on the image: half of its parts at least.
        unknown: ``(B, L)`` levels with a part of which nobody said whether it is there.
    """

    parts: Tensor
    placed: Tensor
    centre: Tensor
    drawn: Tensor
    unknown: Tensor


def elements_of(labels: Labels, layout: Layout, stride: int) -> Elements:
    """Gather labels level by level."""
    device = labels.points_in.device
    columns = torch.tensor(layout.columns, device=device)
    has, at = columns >= 0, columns.clamp(min=0)
    parts = to_cells(labels.points_in[:, at], stride)
    placed = (labels.placed[:, at] > 0) & has
    unknown = ((labels.known[:, at] == 0) & has).any(-1)
    least = torch.tensor([layout.least_parts(row) for row in range(len(layout.ranks))], device=device)
    count = placed.sum(-1)
    centre = (parts * placed[..., None]).sum(2) / count.clamp(min=1)[..., None]
    return Elements(parts, placed, centre, (count >= least) & ~unknown, unknown)


def anchor_of(labels: Labels, layout: Layout, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the anchor's centre ``(B, 2)``, whether half of it is placed, and whether a part is unknown, ``(B,)``."""
    at = list(layout.singles[: len(layout.anchor_parts)])
    placed, unknown = labels.placed[:, at] > 0, (labels.known[:, at] == 0).any(1)
    count = placed.sum(1)
    centre = (to_cells(labels.points_in[:, at], stride) * placed[..., None]).sum(1) / count.clamp(min=1)[:, None]
    return centre, 2 * count >= len(at), unknown


def draw(points: Tensor, placed: Tensor, size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    """Draw points ``(B, L, K, 2)`` of one map each: the highest of its Gaussians, and the cell nearest to each.

    Returns:
        maps ``(B, K, H, W)`` with peaks of 1, and a mask of the same shape with the cells that hold a point.
    """
    batch, levels, kinds = placed.shape
    maps = points.new_zeros(batch, kinds, *size)
    for level in range(levels):
        x, y = points[:, level].unbind(-1)
        gy = bell(y, size[0], sigma) * placed[:, level, :, None]
        maps = torch.maximum(maps, gy[..., :, None] * bell(x, size[1], sigma)[..., None, :])
    peaks = torch.zeros_like(maps, dtype=torch.bool)
    image, level_at, kind = placed.nonzero(as_tuple=True)
    cell = points[image, level_at, kind].round().long()
    peaks[image, kind, cell[:, 1].clamp(0, size[0] - 1), cell[:, 0].clamp(0, size[1] - 1)] = True
    return maps, peaks


def fields(
    elements: Elements, following: tuple[Tensor, Tensor], size: tuple[int, int], radius: float
) -> tuple[Tensor, Tensor]:
    """Return the ways ``(B, 2P + 2, H, W)`` from cells near a centre to its parts and to the next centre, and a mask.

    Args:
        elements: in cells.
        following: centre ``(B, L, 2)`` of the level after each, and whether it is known, ``(B, L)``.
        size: rows and columns of the maps.
        radius: how far from a centre the ways are taught, in cells.
    """
    batch, levels, _ = elements.placed.shape
    device, dtype = elements.centre.device, elements.centre.dtype
    rows, columns = (torch.arange(n, device=device, dtype=dtype) for n in size)
    owner = torch.full((batch, *size), -1, device=device)
    nearest = torch.full((batch, *size), radius, device=device)
    for level in range(levels):
        x, y = elements.centre[:, level].unbind(-1)
        away = torch.hypot(columns - x[:, None, None], rows[:, None] - y[:, None, None])
        own = (away <= nearest) & elements.drawn[:, level, None, None]
        nearest, owner = torch.where(own, away, nearest), torch.where(own, level, owner)
    ends = torch.cat([elements.parts, following[0][:, :, None]], 2)
    taught = torch.cat([elements.placed, following[1][:, :, None]], 2) & elements.drawn[..., None]
    count = ends.shape[2]
    ways = torch.zeros(batch, *size, count, 2, dtype=dtype, device=device)
    mask = torch.zeros(batch, *size, count, dtype=torch.bool, device=device)
    image, row, column = (owner >= 0).nonzero(as_tuple=True)
    level_at = owner[image, row, column]
    mask[image, row, column] = taught[image, level_at]
    way = ends[image, level_at] - torch.stack([columns[column], rows[row]], -1)[:, None]
    ways[image, row, column] = way * taught[image, level_at][..., None]
    return ways.permute(0, 3, 4, 1, 2).flatten(1, 2), mask.permute(0, 3, 1, 2).repeat_interleave(2, 1)


def judged(
    elements: Elements, anchor: tuple[Tensor, Tensor, Tensor] | None, layout: Layout, size: tuple[int, int]
) -> Tensor:
    """Return which cells ``(B, H, W)`` the labels say anything about.

    A cell belongs to the level whose centre is nearest; centres of levels without a position are taken from the
    neighbours'. Where nobody labelled a level, its cells are not judged. Nor are those beyond the end that lies away
    from the anchor, if that last level is on the image: there may be more elements than the schema declares.
    """
    whole = torch.ones(len(elements.drawn), *size, dtype=torch.bool, device=elements.centre.device)
    for image in range(len(whole)):
        centres, unknown = _along(elements, anchor, layout, image)
        if unknown.any():
            whole[image] = _cells_known(elements, image, centres, unknown, size)
    return whole


def _along(
    elements: Elements, anchor: tuple[Tensor, Tensor, Tensor] | None, layout: Layout, image: int
) -> tuple[Array, Array]:
    """Centres of all levels and of one more at either end ``(T + 2, 2)``, and which of them nobody can judge."""
    count = len(layout.chain.levels)
    centres, unknown = np.full((count, 2), np.nan), np.zeros(count, dtype=bool)
    ranks = list(layout.ranks)
    drawn = elements.drawn[image].cpu().numpy()
    unknown[ranks] = elements.unknown[image].cpu().numpy()
    centres[ranks] = np.where(drawn[:, None], elements.centre[image].cpu().numpy(), np.nan)
    if anchor is not None and layout.anchor is not None:
        unknown[layout.anchor] = bool(anchor[2][image])
        if bool(anchor[1][image]):
            centres[layout.anchor] = anchor[0][image].cpu().numpy()
    placed = np.isfinite(centres[:, 0])
    open_ended = [
        layout.anchor is not None and layout.anchor != end and bool(placed[end] or unknown[end])
        for end in (0, count - 1)
    ]
    return _everywhere(centres, placed), np.array([open_ended[0], *unknown, open_ended[1]])


def _everywhere(centres: Array, placed: Array) -> Array:
    """Fill centres ``(T, 2)`` in between and one beyond each end by straight lines; NaN with fewer than two placed."""
    at = np.flatnonzero(placed)
    wanted = np.arange(-1, len(centres) + 1)
    if len(at) < 2:
        return np.full((len(wanted), 2), np.nan)
    filled = np.stack([np.interp(wanted, at, centres[at, axis]) for axis in (0, 1)], axis=1)
    for end, neighbour in ((at[0], at[1]), (at[-1], at[-2])):
        slope = (centres[end] - centres[neighbour]) / (end - neighbour)
        beyond = wanted < end if neighbour > end else wanted > end
        filled[beyond] = centres[end] + slope * (wanted[beyond] - end)[:, None]
    return filled


def _cells_known(elements: Elements, image: int, centres: Array, unknown: Array, size: tuple[int, int]) -> Tensor:
    device = elements.centre.device
    rows, columns = (torch.arange(n, device=device, dtype=elements.centre.dtype) for n in size)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    known = torch.zeros(size, dtype=torch.bool, device=device)
    if np.isfinite(centres).all():
        towards = torch.as_tensor(centres, dtype=grid.dtype, device=device)
        nearest = torch.cdist(grid.flatten(0, 1), towards).argmin(1).view(size)
        known = ~torch.as_tensor(unknown, device=device)[nearest]
    for level in elements.drawn[image].nonzero()[:, 0]:
        centre, placed = elements.centre[image, level], elements.placed[image, level]
        reach = (elements.parts[image, level][placed] - centre).norm(dim=-1).max() * _OWN
        known |= (grid - centre).norm(dim=-1) <= reach
    return known
