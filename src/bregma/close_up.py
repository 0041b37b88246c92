"""Close-ups of the elements of a chain: each seen by itself, upright and at one size, by a second network.

The first network finds the elements on the whole image, where each is a few dozen pixels; the second one sees nothing
but one of them and its neighbours' edges, turned so that its endplates run along the rows. Coarse to fine in two steps
is the usual way to place landmarks on large radiographs (e.g. Zhong et al., MICCAI 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bregma import geometry
from bregma.config import Config
from bregma.errors import ConfigError
from bregma.geometry import Array, Frame
from bregma.schema import Chain, Landmark, LandmarkSchema, Outline
from bregma.unrolled import SAMPLES

CORNERS = 4
_LEAST_SHARE = 0.4
"""A body flatter than this share of its width is one whose height is not known."""
_MARGIN = 4
"""Pixels of the original image beyond what a close-up shows, for its filter."""


class RefineConfig(Config):
    """A second network that looks again: at every element of a chain, or along the outline of a schema without chains.

    An element is seen in a close-up, and what both networks say is averaged. The band about an outline is unrolled, and
    its landmarks lie where the second network sees it run.
    """

    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget of its training, after that of the first network; None trains as long as is planned."""
    size: int = Field(default=96, ge=32, le=512, multiple_of=32)
    """Rows and columns of its input; of elements."""
    span: float = Field(default=3.0, gt=1, le=10)
    """Side of what it sees, in sizes of the element (the square root of its width times its height)."""
    chain: str | None = None
    """Of which chain; the only one by default, or else the only outline."""
    set: tuple[str, ...] = ()
    """Single settings of its training, ``a.b=value``, over those that Bregma gives it."""


@dataclass(frozen=True)
class CloseUp:
    """What a close-up shows.

    Attributes:
        matrix: from pixels of the original image to its own.
        element: size of the element in its pixels.
    """

    matrix: Array
    element: float


def chain_of(schema: LandmarkSchema, config: RefineConfig) -> Chain:
    """Return the chain whose elements are looked at again.

    Raises:
        ConfigError: there is none, or its elements do not have four corners.
    """
    found = [chain for chain in schema.chains if config.chain in (None, chain.name)]
    if len(found) != 1 or len(found[0].parts) != CORNERS:
        raise ConfigError(
            "close-ups are made of the elements of one chain",
            where="refine.chain",
            expected="a chain whose elements have four corners",
            got=", ".join(f"{chain.name} ({len(chain.parts)} parts)" for chain in schema.chains) or "no chain",
        )
    return found[0]


def looked_at(schema: LandmarkSchema, config: RefineConfig) -> Chain | Outline:
    """Return the chain whose elements are looked at again or, of a schema without chains, the outline.

    Raises:
        ConfigError: there is neither, several, or a setting that only elements have.
    """
    if schema.chains:
        return chain_of(schema, config)
    if len(schema.outlines) != 1:
        raise ConfigError(
            f"the schema '{schema.name}' has nothing to be looked at again",
            where="refine",
            expected="one outline, or a chain whose elements have four corners",
            got=f"no chain and {len(schema.outlines)} outlines",
            fix="declare an outline in the schema, or set refine=null",
        )
    usual = RefineConfig()
    idle = [name for name in ("size", "span", "chain") if getattr(config, name) != getattr(usual, name)]
    if idle:
        raise ConfigError(
            "this is a setting of close-ups of a chain's elements, and the schema declares an outline",
            where=f"refine.{idle[0]}",
            fix="leave it out",
        )
    return schema.outlines[0]


def close_up_schema(schema: LandmarkSchema, config: RefineConfig) -> LandmarkSchema:
    """Return the anatomy that the second network knows.

    Raises:
        ConfigError: see :func:`looked_at`.
    """
    what = looked_at(schema, config)
    return element_schema(schema, what) if isinstance(what, Chain) else line_schema(schema, what)


def line_schema(schema: LandmarkSchema, outline: Outline) -> LandmarkSchema:
    """Return the anatomy of an unrolled outline: samples of the line that it is."""
    return LandmarkSchema(
        name=f"{schema.name}_{outline.name}",
        title=f"The outline '{outline.name}', unrolled",
        landmarks=tuple(Landmark(name=f"row_{n:02d}", label=f"Sample {n + 1}") for n in range(SAMPLES)),
    )


def element_schema(schema: LandmarkSchema, chain: Chain) -> LandmarkSchema:
    """Return the anatomy of a single element: its parts, which a flip swaps as it does on the whole image."""
    level = next(level for level in chain.levels if chain.parts_of(level) == tuple(chain.parts))
    index = {part: schema.index(chain.landmark_name(level, part)) for part in chain.parts}
    partner = {part: schema.flip_permutation[i] for part, i in index.items()}
    pairs = [(a, b) for a in index for b in index if a < b and partner[a] == index[b]]
    return LandmarkSchema(
        name=f"{schema.name}_element",
        title=f"One element of '{chain.name}'",
        landmarks=tuple(Landmark(name=part, label=label) for part, label in chain.parts.items()),
        mirror_pairs=tuple(pairs),
        flip=schema.flip,
    )


def close_up_of(corners: Array, frame: Frame, config: RefineConfig) -> CloseUp | None:
    """Return the close-up of an element ``(4, 2)``: the ends of its upper endplate, then those of the lower one.

    Pixels that are not square are made so first. None stands for corners that have no extent.
    """
    aspect = 1.0 if frame.spacing is None else frame.spacing[1] / frame.spacing[0]
    square = geometry.scale(1.0, aspect)
    p = geometry.apply(square, corners)
    across = (p[1] - p[0] + p[3] - p[2]) / 2
    down = (p[2] + p[3] - p[0] - p[1]) / 2
    width, height = float(np.hypot(*across)), float(np.hypot(*down))
    if width < 1.0:
        return None
    size = np.sqrt(width * max(height, _LEAST_SHARE * width))
    angle = np.degrees(np.arctan2(across[1], across[0]))
    # Of the two ways to lay the endplates along the rows, the one that has the lower one below.
    if across[0] * down[1] - across[1] * down[0] < 0:
        angle += 180.0
    centre, middle = p.mean(axis=0), (config.size - 1) / 2
    matrix = geometry.compose(
        square,
        geometry.translate(-centre[0], -centre[1]),
        geometry.rotate(-angle),
        geometry.scale(config.size / (config.span * size)),
        geometry.translate(middle, middle),
    )
    return CloseUp(matrix, config.size / config.span)


def render(image: NDArray[Any], close_up: CloseUp, size: int, *, fill: float) -> NDArray[np.float32]:
    """Return what a close-up shows of an image ``(H, W)``, ``(size, size)``; beyond the image there is ``fill``."""
    edge = np.array([[-1, -1], [size, -1], [-1, size], [size, size]], dtype=np.float64)
    seen = geometry.apply(geometry.invert(close_up.matrix), edge)
    reach = _MARGIN + 3 * max(1.0, 1.0 / geometry.mean_scale(close_up.matrix))
    low = np.clip(np.floor(seen.min(axis=0) - reach).astype(int), 0, None)
    high = np.clip(np.ceil(seen.max(axis=0) + reach).astype(int) + 1, 0, [image.shape[1], image.shape[0]])
    if (high <= low).any():
        return np.full((size, size), fill, dtype=np.float32)
    part = image[low[1] : high[1], low[0] : high[0]]
    matrix = geometry.compose(geometry.translate(float(low[0]), float(low[1])), close_up.matrix)
    return geometry.warp(part, matrix, (size, size), fill=fill)
