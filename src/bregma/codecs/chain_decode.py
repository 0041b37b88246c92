"""Elements of a chain read from the maps of one image: as many as there are, none twice.

Positions are in cells, ``(x, y)``. Shape suffixes: P parts, I candidates, H and W rows and columns of the maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bregma.codecs.cells import at_least, centre_of, moments
from bregma.geometry import Array

_SEARCH = 0.5
"""Radius in which a part is looked for about where the field puts it, in mean distances of a part from the centre."""
_SAME = 0.7
"""Two centres nearer than this, in the same distance, are one element."""
_UNSEEN = 0.25
"""Standard deviation of a part that its map does not show, in the same distance."""


@dataclass(frozen=True)
class Reading:
    """How maps are read.

    Attributes:
        sigma: standard deviation of a part's Gaussian in cells.
        radius: half-width of the window about a maximum in which a point is averaged, in cells.
        threshold: height from which a maximum counts.
        most: how many candidates are looked at.
        way_share: share of the way that leads to a part in the part's place; the rest is the peak's.
    """

    sigma: float
    radius: float
    threshold: float
    most: int
    way_share: float = 0.0

    def probability(self, height: float) -> float:
        """Turn a height into a probability that is one half at the threshold: its odds over the threshold's."""
        height = min(max(height, 0.0), 1.0)
        up, down = height * (1 - self.threshold), (1 - height) * self.threshold
        return up / (up + down)


@dataclass(frozen=True)
class Found:
    """One element.

    Attributes:
        points: ``(P, 2)``.
        cov: ``(P, 2, 2)``.
        heights: ``(P,)`` of the maps at the parts.
        score: height of the centre and of the parts together, 0..1.
        link: ``(2,)`` the way to the centre of the next level.
        size: mean distance of a part from the centre.
    """

    points: Array
    cov: Array
    heights: Array
    score: float
    link: Array
    size: float

    @property
    def centre(self) -> Array:
        """Mean ``(2,)`` of the parts."""
        return np.asarray(self.points.mean(axis=0))


def maxima(heights: Tensor) -> Tensor:
    """Return which cells of maps ``(K, H, W)`` no neighbour exceeds."""
    return heights >= functional.max_pool2d(heights[None], 3, stride=1, padding=1)[0]


def find(parts: Tensor, centre: Tensor, ways: Tensor, reading: Reading) -> list[Found]:
    """Find the elements of one image, the surest first.

    Args:
        parts: ``(P, H, W)`` heights in 0..1.
        centre: ``(H, W)`` heights.
        ways: ``(P + 1, 2, H, W)`` ways in cells from each cell to the parts and to the next centre.
        reading: how to read them.
    """
    cells = _candidates(centre, reading)
    if not len(cells):
        return []
    x, y = cells.unbind(-1)
    count = len(parts)
    expected = _led_to(cells, centre, ways).cpu().numpy().astype(np.float64)
    height = centre[y, x].cpu().numpy().astype(np.float64)
    seeds = _apart(expected[:, :count])
    if not len(seeds):
        return []
    expected, height = expected[seeds], height[seeds]
    points, cov, heights = _parts(parts, expected[:, :count], reading)
    found = [
        Found(
            points[i],
            cov[i],
            heights[i],
            _score(height[i], heights[i], points[i], (parts.shape[1], parts.shape[2]), reading),
            expected[i, count] - points[i].mean(axis=0),
            _size(expected[i, :count]),
        )
        for i in range(len(seeds))
    ]
    return _once(sorted((one for one in found if one.score >= reading.threshold), key=lambda one: -one.score))


def read_peaks(maps: Tensor, which: NDArray[np.intp], peaks: NDArray[np.intp], reading: Reading) -> tuple[Array, Array]:
    """Return means ``(M, 2)`` and covariances ``(M, 2, 2)`` about cells ``(M, 2)``.

    Args:
        maps: ``(K, H, W)``.
        which: ``(M,)`` the map of each cell.
        peaks: the cells.
        reading: how to read them.
    """
    if not len(peaks):
        return np.zeros((0, 2)), np.zeros((0, 2, 2))
    at = torch.as_tensor(peaks, device=maps.device)
    seen, masks = _windows(maps, torch.as_tensor(which, device=maps.device), at, int(reading.radius))
    share = seen / seen.sum((1, 2), keepdim=True).clamp(min=1e-12)
    means, spreads = (each[0] for each in moments(share[None]))
    grid = torch.arange(share.shape[1], device=maps.device, dtype=maps.dtype)
    axes = [centre_of(grid, mask, means[:, i : i + 1], reading.sigma) for i, mask in enumerate(masks)]
    # The target's own width is no doubt about the place; a cell's quantisation is.
    spreads = at_least(spreads - reading.sigma**2 * torch.eye(2, device=maps.device), 1 / 12)
    points = at + torch.cat(axes, -1) - int(reading.radius)
    return points.cpu().double().numpy(), spreads.cpu().double().numpy()


def _windows(maps: Tensor, which: Tensor, at: Tensor, radius: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return windows ``(M, D, D)`` about cells of maps, 0 beyond the border, and masks ``(M, D)`` of what is inside.

    Reading means from whole maps, one for each peak, would take most of the time of a prediction.
    """
    reach = torch.arange(-radius, radius + 1, device=maps.device)
    height, width = maps.shape[1:]
    columns, rows = at[:, :1] + reach, at[:, 1:] + reach
    in_x, in_y = (((c >= 0) & (c < n)).to(maps.dtype) for c, n in ((columns, width), (rows, height)))
    columns, rows = columns.clamp(0, width - 1), rows.clamp(0, height - 1)
    seen = maps[which[:, None, None], rows[:, :, None], columns[:, None]]
    return seen * in_y[:, :, None] * in_x[:, None], (in_x, in_y)


def _candidates(centre: Tensor, reading: Reading) -> Tensor:
    """Cells ``(I, 2)`` of the highest maxima above the threshold, highest first."""
    y, x = (maxima(centre[None])[0] & (centre >= reading.threshold)).nonzero(as_tuple=True)
    order = centre[y, x].argsort(descending=True)[: reading.most]
    return torch.stack([x[order], y[order]], -1)


def _led_to(cells: Tensor, centre: Tensor, ways: Tensor) -> Tensor:
    """Return where the ways lead ``(I, K, 2)``: the mean of each cell and the eight about it, weighed as centres."""
    reach = torch.arange(-1, 2, device=cells.device)
    steps = torch.cartesian_prod(reach, reach)
    columns, rows = (cells[:, None] + steps).unbind(-1)
    columns, rows = columns.clamp(0, centre.shape[1] - 1), rows.clamp(0, centre.shape[0] - 1)
    weight = centre[rows, columns]
    ends = torch.stack([columns, rows], -1) + ways[:, :, rows, columns].permute(0, 2, 3, 1)
    share = weight / weight.sum(1, keepdim=True)
    return (ends * share[..., None]).sum(2).movedim(0, 1)


def _size(parts: Array) -> float:
    return max(1.0, float(np.linalg.norm(parts - parts.mean(axis=0), axis=1).mean()))


def _apart(expected: Array) -> list[int]:
    """Indices of candidates ``(I, P, 2)``, best first, without those too near to a better one."""
    kept: list[int] = []
    centres, sizes = expected.mean(axis=1), [_size(parts) for parts in expected]
    for i in range(len(expected)):
        limit = _SAME * sizes[i]
        if all(np.linalg.norm(centres[i] - centres[j]) > min(limit, _SAME * sizes[j]) for j in kept):
            kept.append(i)
    return kept


def _parts(maps: Tensor, expected: Array, reading: Reading) -> tuple[Array, Array, Array]:
    """Find every part ``(I, P)`` near where it is expected; one that no map shows stays there, widely spread."""
    top = maxima(maps).cpu().numpy()
    seen = maps.cpu().numpy()
    sizes = np.array([_size(parts) for parts in expected])
    cov = np.eye(2) * np.maximum(_UNSEEN * sizes, 1.0)[:, None, None, None] ** 2
    points, cov = expected.copy(), np.repeat(cov, expected.shape[1], axis=1)
    heights = np.zeros(expected.shape[:2])
    hits: list[tuple[int, int]] = []
    peaks: list[tuple[int, int]] = []
    for i, part in np.ndindex(*expected.shape[:2]):
        peak = _near(seen[part], top[part], expected[i, part], float(_SEARCH * sizes[i]))
        heights[i, part] = 0.0 if peak is None else float(seen[part][peak[1], peak[0]])
        if peak is not None and heights[i, part] >= reading.threshold:
            hits.append((i, part))
            peaks.append(peak)
    rows, columns = np.array(hits, dtype=np.intp).reshape(-1, 2).T
    at = np.array(peaks, dtype=np.intp).reshape(-1, 2)
    points[rows, columns], cov[rows, columns] = read_peaks(maps, columns, at, reading)
    # Both see the same part, and err by themselves; what they differ by is doubt.
    away = expected - points
    cov += reading.way_share * (1 - reading.way_share) * away[..., :, None] * away[..., None, :]
    return points + reading.way_share * away, cov, heights


def _near(heights: NDArray[np.float32], top: NDArray[np.bool_], at: Array, radius: float) -> tuple[int, int] | None:
    """Return the maximum of a map near a place: high and near, or None within the radius."""
    reach = max(2.0, radius)
    low = np.maximum(np.floor(at - reach).astype(int), 0)
    high = np.minimum(np.ceil(at + reach).astype(int) + 1, (heights.shape[1], heights.shape[0]))
    if (high <= low).any():
        return None
    box = (slice(low[1], high[1]), slice(low[0], high[0]))
    rows, columns = np.mgrid[box]
    away = (columns - at[0]) ** 2 + (rows - at[1]) ** 2
    weight = np.where(top[box] & (away <= reach**2), heights[box] * np.exp(-2 * away / reach**2), 0.0)
    if weight.max() <= 0:
        return None
    y, x = np.unravel_index(int(weight.argmax()), weight.shape)
    return int(x + low[0]), int(y + low[1])


def _score(centre: float, heights: Array, points: Array, size: tuple[int, int], reading: Reading) -> float:
    """Geometric mean of the centre's height and the mean height of the parts that should be on the image.

    0 where fewer than half of the parts are seen: then nothing but the centre speaks for the element.
    """
    seen = heights >= reading.threshold
    if 2 * seen.sum() < len(heights):
        return 0.0
    # A part on the very border may be read a little beyond it.
    inside = seen | ((points >= -0.5) & (points <= np.array([size[1], size[0]]) - 0.5)).all(axis=1)
    return float(np.sqrt(centre * heights[inside].mean()))


def _once(found: list[Found]) -> list[Found]:
    """Drop elements that share half of their seen parts with a surer one, or stand where it stands."""
    kept: list[Found] = []
    for one in found:
        if not any(_same(one, other) for other in kept):
            kept.append(one)
    return kept


def _same(one: Found, other: Found) -> bool:
    shared = np.linalg.norm(one.points - other.points, axis=1) < 1.0
    near = np.linalg.norm(one.centre - other.centre) < _SAME * min(one.size, other.size)
    return bool(near or 2 * shared.sum() >= len(shared))
