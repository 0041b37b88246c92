"""Terms that need the schema: symmetry about the midline, lengths of edges, and the shape of chains.

They look at points in input pixels. A pair, an edge or a level of a chain counts only if all its points are placed.

Shape suffixes: B batch, N landmarks, P mirror pairs, M midline points, E edges, L levels, K neighbouring levels.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bregma.errors import ConfigError
from bregma.losses.base import LossInput, LossTerm, masked_mean, pseudo_huber
from bregma.schema import LandmarkSchema

Names = tuple[str, ...]
MIN_LENGTH_PX = 1.0
"""Lengths below a pixel are not told apart, so that ratios and logarithms of them stay finite."""


class SymmetryConfig(LossTerm):
    """Distance of a point, mirrored at the axis through the predicted midline points, from its partner."""

    name: Literal["symmetry"] = "symmetry"
    midline: tuple[str, ...] = ()
    """Landmarks that the axis is fitted to; none named: all that have no mirror partner."""
    leave_out: tuple[str, ...] = ()
    """Landmarks whose pair is not symmetric, although a flip swaps their names; e.g. the borders of the heart."""
    softness_px: float = Field(default=1.0, gt=0)
    """Distance below which the term is quadratic."""


class DistanceConfig(LossTerm):
    """Difference between the predicted and the true length of the schema's edges."""

    name: Literal["distance"] = "distance"
    relative: bool = True
    """Divide by the true length; otherwise differences are in input pixels, as in the terms on points."""
    softness: float = Field(default=0.05, gt=0)
    """Difference below which the term is quadratic: a share of the true length or, where not relative, input pixels."""


class AnatomicalConfig(LossTerm):
    """Order, endplate angle, aspect and spacing along the schema's chains, against those of the truth."""

    name: Literal["anatomical"] = "anatomical"
    order: float = Field(default=1.0, ge=0)
    """Weight of levels that do not follow each other."""
    parallel: float = Field(default=1.0, ge=0)
    """Weight of endplates less, or more, parallel than the true ones."""
    aspect: float = Field(default=1.0, ge=0)
    """Weight of the ratio of a vertebra's height to its width."""
    spacing: float = Field(default=1.0, ge=0)
    """Weight of the distance between neighbours."""
    least_step: float = Field(default=0.5, gt=0, lt=1)
    """Share of the true step to the next level from which levels count as in order."""
    softness: float = Field(default=0.1, gt=0)
    """Relative error (or angle in radians) below which each part is quadratic."""

    @model_validator(mode="after")
    def _check(self) -> AnatomicalConfig:
        if not (self.order or self.parallel or self.aspect or self.spacing):
            raise ValueError("order, parallel, aspect and spacing are all 0, so the term does nothing")
        return self


def symmetry(config: SymmetryConfig, x: LossInput) -> Tensor:
    """``√(|M(l) - r|² + s²) - s`` with ``M`` the reflection at the axis; mean over placed pairs, in input pixels.

    It is 0 exactly if the pair's midpoint is on the axis and the pair perpendicular to it: ``|M(l) - r|`` has twice the
    midpoint's distance from the axis as one component, and the pair's extent along the axis as the other. The axis is
    the total least squares line through the predicted midline points; on an image with fewer than two of them, through
    the midpoints of the pairs; where these are fewer than two as well, the image adds nothing.
    """
    points = x.points()
    ends = _index(x.schema.names, symmetric_pairs(config, x.schema), points.device)
    left, right = points[:, ends[:, 0]], points[:, ends[:, 1]]
    both = x.placed[:, ends[:, 0]] * x.placed[:, ends[:, 1]]
    line = _index(x.schema.names, (midline_of(config, x.schema),), points.device)[0]
    on_line = x.placed[:, line]
    enough = (on_line.sum(1, keepdim=True) >= 2).to(both.dtype)
    candidates = torch.cat([points[:, line], 0.5 * (left + right)], 1)
    weights = torch.cat([on_line * enough, both * (1 - enough)], 1)
    counts = both * (weights.sum(1, keepdim=True) >= 2)
    gap = _reflect(left, candidates, weights) - right
    return masked_mean(((gap**2).sum(-1) + config.softness_px**2).sqrt() - config.softness_px, counts)


def distance(config: DistanceConfig, x: LossInput) -> Tensor:
    """``√(e² + s²) - s`` with ``e`` = predicted less true length, divided by the latter; mean over placed edges."""
    ends = _index(x.schema.names, x.schema.edges, x.placed.device)
    predicted, true = (_length(p[:, ends[:, 1]] - p[:, ends[:, 0]]) for p in (x.points(), x.target_points))
    error = predicted - true
    if config.relative:
        error = error / true.clamp(min=MIN_LENGTH_PX)
    both = x.placed[:, ends[:, 0]] * x.placed[:, ends[:, 1]]
    return masked_mean(pseudo_huber(error, config.softness), both)


def anatomical(config: AnatomicalConfig, x: LossInput) -> Tensor:
    """Weighted sum of four means of ``√(e² + s²) - s``, each with an ``e`` without a unit that is 0 at the truth.

    Between neighbouring levels, whose places are the means of their points and whose steps are ``t`` (true) and ``p``:
    *order*, ``e = max(0, least_step - p·t / t·t)``; *spacing*, ``e = ln(|p| / |t|)``. In a level of four points, two an
    endplate: *parallel*, ``e = 2 sin(½ (a - b))``, with ``a`` and ``b`` the predicted and the true angle between the
    endplates; *aspect*, ``e`` = logarithm of the predicted over the true ratio of height (between the endplates'
    middles) to width (mean length of the endplates). A wedged, slipped or fractured vertebra is compared with itself,
    so it is never drawn towards the usual shape.
    """
    points = x.points()
    return _between_levels(config, x, points) + _within_levels(config, x, points)


def midline_of(config: SymmetryConfig, schema: LandmarkSchema) -> Names:
    """Return the landmarks that the axis is fitted to."""
    paired = {name for pair in schema.mirror_pairs for name in pair}
    return config.midline or tuple(name for name in schema.names if name not in paired)


def symmetric_pairs(config: SymmetryConfig, schema: LandmarkSchema) -> tuple[Names, ...]:
    """Return the mirror pairs that the term compares."""
    return tuple(pair for pair in schema.mirror_pairs if not set(pair) & set(config.leave_out))


def chain_levels(schema: LandmarkSchema) -> tuple[tuple[Names, ...], ...]:
    """Return the landmarks of every level of every chain."""
    return tuple(
        tuple(tuple(chain.landmark_name(level, part) for part in chain.parts_of(level)) for level in chain.levels)
        for chain in schema.chains
    )


def check_anatomy(term: LossTerm, schema: LandmarkSchema, where: str) -> None:
    """Refuse a term that finds nothing to look at in the schema.

    Raises:
        ConfigError: names the setting.
    """
    match term:
        case SymmetryConfig():
            _check_symmetry(term, schema, where)
        case DistanceConfig() if not schema.edges:
            raise _nothing("distance", schema, "edges", where)
        case AnatomicalConfig():
            _check_anatomical(term, schema, where)


def _check_symmetry(config: SymmetryConfig, schema: LandmarkSchema, where: str) -> None:
    for setting in ("midline", "leave_out"):
        for name in getattr(config, setting):
            if name not in schema.names:
                known = ", ".join(schema.names)
                raise ConfigError(
                    f"'{name}' is not a landmark of the schema '{schema.name}'",
                    where=f"{where}.{setting}",
                    expected=f"one of {known}",
                )
    pairs = symmetric_pairs(config, schema)
    if not pairs:
        raise _nothing("symmetry", schema, "mirror_pairs", where)
    if len(pairs) < 2 and len(midline_of(config, schema)) < 2:
        raise _nothing(
            "symmetry", schema, "an axis: two landmarks without a mirror partner, or two mirror_pairs", where
        )


def _check_anatomical(config: AnatomicalConfig, schema: LandmarkSchema, where: str) -> None:
    levels = chain_levels(schema)
    follow = any(len(chain) > 1 for chain in levels) and (config.order or config.spacing)
    stand = any(len(level) == 4 for chain in levels for level in chain) and (config.parallel or config.aspect)
    if not (follow or stand):
        raise _nothing("anatomical", schema, "chains with levels to compare", where)


def _nothing(name: str, schema: LandmarkSchema, what: str, where: str) -> ConfigError:
    return ConfigError(
        f"the loss '{name}' has nothing to act on",
        where=where,
        expected=f"a schema that declares {what}",
        got=f"the schema '{schema.name}' without",
        fix="leave the term out, or declare them in the schema",
    )


def _between_levels(config: AnatomicalConfig, x: LossInput, points: Tensor) -> Tensor:
    groups = chain_levels(x.schema)
    parts, real = _padded(x.schema.names, tuple(level for chain in groups for level in chain), points.device)
    upper, lower = _neighbours(tuple(len(chain) for chain in groups), points.device)
    complete = x.placed[:, parts].amin(-1)
    places, true_places = (_mean(p[:, parts], real) for p in (points, x.target_points))
    step, true = (p[:, lower] - p[:, upper] for p in (places, true_places))
    counts = complete[:, upper] * complete[:, lower]
    advance = (step * true).sum(-1) / (true**2).sum(-1).clamp(min=MIN_LENGTH_PX**2)
    late = (config.least_step - advance).clamp(min=0)
    stretch = _log_length(step) - _log_length(true)
    order, spacing = (masked_mean(pseudo_huber(e, config.softness), counts) for e in (late, stretch))
    return config.order * order + config.spacing * spacing


def _within_levels(config: AnatomicalConfig, x: LossInput, points: Tensor) -> Tensor:
    bodies = tuple(level for chain in chain_levels(x.schema) for level in chain if len(level) == 4)
    if not bodies:
        return points.new_zeros(())
    corners = _index(x.schema.names, bodies, points.device)
    counts = x.placed[:, corners].amin(-1)
    (turn, ratio), (true_turn, true_ratio) = (_body(p[:, corners]) for p in (points, x.target_points))
    tilt = torch.linalg.vector_norm(turn - true_turn, dim=-1)
    parallel, aspect = (masked_mean(pseudo_huber(e, config.softness), counts) for e in (tilt, ratio - true_ratio))
    return config.parallel * parallel + config.aspect * aspect


def _body(corners_BL42: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``(B, L, 2)`` of the angle between the endplates, and the logarithm of height over width.

    The first two points of a level are one endplate, the last two the other, from the same side to the same side.
    """
    a, b, c, d = corners_BL42.unbind(2)
    upper, lower = b - a, d - c
    # A tenth of a pixel in the divisor bounds the gradient where an endplate's two ends fell together.
    u, v = (plate / ((plate**2).sum(-1, keepdim=True) + 1e-2).sqrt() for plate in (upper, lower))
    turn = torch.stack([(u * v).sum(-1), u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]], -1)
    height = 0.5 * ((c + d) - (a + b))
    width = 0.5 * (_length(upper) + _length(lower))
    return turn, _log_length(height) - 0.5 * (width**2 + MIN_LENGTH_PX**2).log()


def _reflect(moved_BP2: Tensor, through_BM2: Tensor, weights_BM: Tensor) -> Tensor:
    """Reflect points at the total least squares line through weighted others.

    The line's direction enters by the cosine and sine of twice its angle, which follow from the second moments without
    an eigenvector; points that spread alike in all directions have no line, and there nothing becomes infinite.
    """
    total = weights_BM.sum(1).clamp(min=1.0)[:, None]
    centre = (through_BM2 * weights_BM[..., None]).sum(1, keepdim=True) / total[..., None]
    dx, dy = (through_BM2 - centre).unbind(-1)
    difference = ((dx**2 - dy**2) * weights_BM).sum(1, keepdim=True) / total
    product = (2 * dx * dy * weights_BM).sum(1, keepdim=True) / total
    # The constant, in px⁴, is that of a spread of a tenth of a pixel.
    spread = (difference**2 + product**2 + 1e-4).sqrt()
    cos2, sin2 = difference / spread, product / spread
    x, y = (moved_BP2 - centre).unbind(-1)
    return centre + torch.stack([cos2 * x + sin2 * y, sin2 * x - cos2 * y], -1)


def _mean(points_BLX2: Tensor, real_LX: Tensor) -> Tensor:
    return (points_BLX2 * real_LX[..., None]).sum(-2) / real_LX.sum(-1)[:, None]


def _length(vectors: Tensor) -> Tensor:
    """Length, with a gradient at no length; the constant is that of a hundredth of a pixel."""
    return ((vectors**2).sum(-1) + 1e-4).sqrt()


def _log_length(vectors: Tensor) -> Tensor:
    return 0.5 * ((vectors**2).sum(-1) + MIN_LENGTH_PX**2).log()


@lru_cache(maxsize=32)
def _index(names: Names, groups: tuple[Names, ...], device: torch.device) -> Tensor:
    """Positions of named landmarks, one row a group."""
    place = {name: index for index, name in enumerate(names)}
    return torch.tensor([[place[name] for name in group] for group in groups], dtype=torch.long, device=device)


@lru_cache(maxsize=32)
def _padded(names: Names, groups: tuple[Names, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of named landmarks, one row a group, and 0 where a short row repeats its first."""
    longest = max(len(group) for group in groups)
    index = _index(names, tuple(group + group[:1] * (longest - len(group)) for group in groups), device)
    real = torch.tensor([[float(i < len(group)) for i in range(longest)] for group in groups], device=device)
    return index, real


@lru_cache(maxsize=32)
def _neighbours(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return ``(2, K)``: positions of levels and of those that follow them in the same chain."""
    pairs: list[tuple[int, int]] = []
    start = 0
    for length in lengths:
        pairs += pairwise(range(start, start + length))
        start += length
    return torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).T
