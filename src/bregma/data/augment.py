"""Random changes of a training sample: parameters are drawn first, then applied, so that each can be replayed.

All geometry (fit to the input, rotation, scale, shift, flip, elastic) is one map, through which the image is resampled
once; points go through the same map. Intensities are changed afterwards, on the resampled image in 0..1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bregma import geometry
from bregma.config import Config
from bregma.geometry import Array

Image = NDArray[np.float32]

_STEEPEST = 0.28
"""Elastic displacements never differ more between control points, as a share of their distance. OpenCV's cubic kernel
(a = -3/4) is at most 1.75 times as steep along an axis, for values 1.375 times as large across it, so that over both
axes the field's slope stays below 0.28 * 1.75 * 1.375 * sqrt(2) < 1: the image does not fold."""
_MOST_ROUNDS, _STILL_PX = 200, 2e-4
"""A step of that length, with each at most 0.95 of the one before, ends within 0.004 px of the solution."""
_STEEPEST_FIELD = 0.95
"""Likewise for a whole field, whose slope is known: neighbouring displacements differ by less than their distance."""


class AugmentConfig(Config):
    """Ranges from which each training sample's changes are drawn; 0 switches a change off."""

    rotation_deg: float = Field(default=15.0, ge=0, le=180)
    """Rotation, uniform in ± this many degrees."""
    scale: float = Field(default=0.15, ge=0, lt=1)
    """Zoom, log-uniform between 1 / (1 + scale) and 1 + scale."""
    anisotropy: float = Field(default=0.05, ge=0, lt=1)
    """Extra stretch of x against y, log-uniform likewise."""
    shift: float = Field(default=0.05, ge=0, lt=1)
    """Shift along each axis, uniform in ± this share of the input's size."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a left/right flip; the schema says which landmarks swap names."""
    elastic: float = Field(default=0.0, ge=0, le=0.1)
    """Elastic displacement (twice its standard deviation), as a share of the input's size; weakened where the image
    would fold."""
    elastic_cells: int = Field(default=4, ge=2, le=16)
    """Control points of the elastic grid along each axis."""
    elastic_alpha: float = Field(default=0.0, ge=0, le=10_000)
    """Elastic displacement as published (Simard et al., ICDAR 2003), instead of ``elastic``: numbers uniform in ±1 a
    pixel, smoothed by a Gaussian of ``elastic_sigma``, times this. The displacement's standard deviation is
    0.163 * alpha / sigma pixels: 1.6 px for 50 and 5, unless the image would fold and the field is weakened, which
    these two need by about a sixth."""
    elastic_sigma: float = Field(default=5.0, ge=1, le=200)
    """Standard deviation of that Gaussian, in input pixels."""
    gamma: float = Field(default=0.4, ge=0, lt=4)
    """Tone curve exponent, log-uniform between 1 / (1 + gamma) and 1 + gamma."""
    contrast: float = Field(default=0.25, ge=0, lt=1)
    """Contrast about the mean, uniform in 1 ± contrast."""
    brightness: float = Field(default=0.1, ge=0, lt=1)
    """Additive shift, uniform in ± brightness."""
    histogram: float = Field(default=0.0, ge=0, le=1)
    """Probability of a random monotone tone curve, as between detectors and their processing."""
    noise: float = Field(default=0.02, ge=0, lt=1)
    """Standard deviation of added noise, uniform from 0."""
    blur_px: float = Field(default=0.0, ge=0, le=10)
    """Gaussian blur in input pixels, uniform from 0."""
    cutout: float = Field(default=0.0, ge=0, le=1)
    """Probability that one rectangle (a tenth to a third of each side) is covered with a flat grey."""
    slice_shift: int = Field(default=0, ge=0, le=15)
    """Slices by which the middle one of a volume moves to either side, uniform; its landmarks stay where they are."""

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        if self.elastic > 0 and self.elastic_alpha > 0:
            raise ValueError("elastic and elastic_alpha are two ways to say one thing; set one of them to 0")
        return self


@dataclass(frozen=True)
class Geometric:
    """Drawn geometry: an affine map within the input, and elastic control points ``(G, G', 2)`` in input pixels,
    as many as there are pixels where the field is known everywhere.
    """

    matrix: Array
    flip: bool
    control: NDArray[np.float32] | None


@dataclass(frozen=True)
class Photometric:
    """Drawn intensity changes, with the seed of their noise."""

    gamma: float
    contrast: float
    brightness: float
    curve: NDArray[np.float32] | None
    noise: float
    blur_px: float
    box: tuple[float, float, float, float, float] | None
    seed: int


def sample_geometric(config: AugmentConfig, shape: tuple[int, int], rng: np.random.Generator) -> Geometric:
    """Draw a geometric change for an input of ``shape``."""
    height, width = shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    zoom = _log_uniform(rng, config.scale)
    stretch = math.sqrt(_log_uniform(rng, config.anisotropy))
    angle = rng.uniform(-config.rotation_deg, config.rotation_deg)
    dx, dy = rng.uniform(-config.shift, config.shift, 2) * (width, height)
    flip = bool(rng.random() < config.flip)
    matrix = geometry.compose(
        geometry.flip_horizontal(width) if flip else geometry.identity(),
        geometry.scale(zoom * stretch, zoom / stretch, about=centre),
        geometry.rotate(angle, about=centre),
        geometry.translate(dx, dy),
    )
    control = None
    if config.elastic > 0:
        size = (config.elastic_cells, config.elastic_cells, 2)
        control = _without_folds(rng.normal(0.0, 0.5 * config.elastic * max(shape), size), shape)
    elif config.elastic_alpha > 0:
        control = _smoothed_noise(config.elastic_alpha, config.elastic_sigma, shape, rng)
    return Geometric(matrix, flip, control)


def sample_photometric(config: AugmentConfig, rng: np.random.Generator) -> Photometric:
    """Draw intensity changes."""
    curve = None
    if rng.random() < config.histogram:
        curve = np.concatenate([[0.0], np.cumsum(rng.dirichlet(np.full(8, 3.0)))]).astype(np.float32)
    box = None
    if rng.random() < config.cutout:
        h, w = rng.uniform(0.1, 0.33, 2)
        box = (rng.uniform(0, 1 - w), rng.uniform(0, 1 - h), w, h, rng.uniform(0, 1))
    return Photometric(
        gamma=_log_uniform(rng, config.gamma),
        contrast=1 + rng.uniform(-config.contrast, config.contrast),
        brightness=rng.uniform(-config.brightness, config.brightness),
        curve=curve,
        noise=rng.uniform(0, config.noise),
        blur_px=rng.uniform(0, config.blur_px),
        box=box,
        seed=int(rng.integers(2**32)),
    )


NO_CHANGE = Geometric(geometry.identity(), flip=False, control=None)
"""The geometry of validation and prediction."""


def apply_geometric(
    image: NDArray[Any], base: Array, change: Geometric, shape: tuple[int, int], *, fill: float = 0.0
) -> Image:
    """Resample an image ``(H, W)`` once: through ``base`` (original to input), then ``change``, onto ``shape``."""
    matrix = geometry.compose(base, change.matrix)
    if change.control is None:
        return geometry.warp(image, matrix, shape, fill=fill)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    field = displacement(change.control, shape)
    inverse = geometry.invert(matrix).astype(np.float32)
    x, y = columns + field[..., 0], rows + field[..., 1]
    source_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
    source_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
    source = geometry.low_pass(image, matrix)
    out = cv2.remap(source, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return np.asarray(out, dtype=np.float32)


def apply_to_points(points: Array, base: Array, change: Geometric, shape: tuple[int, int]) -> Array:
    """Map points ``(N, 2)`` of the original image to the changed input, to 0.01 px where there is an elastic part.

    The output pixel ``u`` shows what lies at ``u + d(u)`` of the affine image; so a point ``v`` there is found by
    iterating ``u = v - d(u)``, which converges because neighbouring displacements differ by less than their distance
    (:func:`sample_geometric` sees to it), fast unless it is by hardly less.
    """
    target = geometry.apply(geometry.compose(base, change.matrix), points)
    if change.control is None:
        return target
    field = displacement(change.control, shape)
    u = target.copy()
    for _ in range(_MOST_ROUNDS):
        before, u = u, target - _bilinear(field, u)
        if np.abs(u - before).max(initial=0.0) < _STILL_PX:
            break
    return u


def displacement(control: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Spread control displacements ``(G, G', 2)`` smoothly over ``shape``; returns ``(H, W, 2)`` in pixels."""
    field = cv2.resize(control, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field, dtype=np.float32)


def apply_photometric(image: Image, change: Photometric) -> Image:
    """Change intensities of an image in 0..1; the result stays in 0..1."""
    out = np.asarray(np.power(image, np.float32(change.gamma)), dtype=np.float32)
    if change.curve is not None:
        out = np.interp(out, np.linspace(0, 1, len(change.curve)), change.curve).astype(np.float32)
    mean = np.float32(out.mean())
    out = (out - mean) * np.float32(change.contrast) + mean + np.float32(change.brightness)
    if change.blur_px > 0.3:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), change.blur_px), dtype=np.float32)
    if change.noise > 0:
        out = out + _noise(out.shape, change.seed) * np.float32(change.noise)
    if change.box is not None:
        _cover(out, change.box)
    return np.clip(out, 0.0, 1.0, out=out)


def _noise(shape: tuple[int, ...], seed: int) -> Image:
    """Standard normal noise: a stretch of a long table, because drawing it anew is half a sample's work."""
    count = math.prod(shape)
    table = _noise_table(max(20, count.bit_length() + 1))
    start = seed % (len(table) - count)
    return table[start : start + count].reshape(shape)


@functools.lru_cache(maxsize=1)
def _noise_table(bits: int) -> Image:
    return np.random.default_rng(0).standard_normal(2**bits, dtype=np.float32)


def _cover(image: Image, box: tuple[float, float, float, float, float]) -> None:
    height, width = image.shape
    x, y, w, h, grey = box
    image[int(y * height) : int((y + h) * height), int(x * width) : int((x + w) * width)] = grey


def _without_folds(control: Array, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Weaken control displacements until neighbours differ by at most ``_STEEPEST`` of their distance."""
    cell = np.array([shape[1], shape[0]]) / control.shape[1]
    steepest = max(
        float(np.linalg.norm(np.diff(control, axis=1), axis=-1).max() / cell[0]),
        float(np.linalg.norm(np.diff(control, axis=0), axis=-1).max() / cell[1]),
    )
    return np.asarray(control * min(1.0, _STEEPEST / max(steepest, 1e-9)), dtype=np.float32)


def _smoothed_noise(
    alpha: float, sigma: float, shape: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw a field ``(H, W, 2)`` of smoothed noise, and weaken it until it does not fold.

    It is drawn and smoothed on a grid of half its sigma, which is fine enough to hold all of it. A cell of ``c`` pixels
    a side has the mean of ``c²`` numbers, whose deviation is a ``c``-th of one's.
    """
    cells = np.array([max(2, math.ceil(side / max(1.0, sigma / 2))) for side in shape])
    cell_y, cell_x = np.array(shape) / cells
    # Drawn beyond the border too, so that the field there is like that anywhere.
    margin = math.ceil(3 * sigma / min(cell_x, cell_y))
    noise = rng.uniform(-1.0, 1.0, (*(cells + 2 * margin), 2)) * (alpha / math.sqrt(cell_x * cell_y))
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), sigma / cell_x, sigmaY=sigma / cell_y)
    # Linear between the cells: OpenCV's cubic kernel would make a smooth field half as steep again.
    field = cv2.resize(smooth[margin:-margin, margin:-margin], (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(field * np.float32(min(1.0, _STEEPEST_FIELD / max(_steepest(field), 1e-9))), dtype=np.float32)


def _steepest(field: NDArray[Any]) -> float:
    """Return a bound on how much displacements ``(H, W, 2)``, bilinear between pixels, differ per distance."""
    along_x, along_y = (np.einsum("ijk,ijk->ij", d, d) for d in (np.diff(field, axis=1), np.diff(field, axis=0)))
    x = np.maximum(along_x[:-1], along_x[1:])
    y = np.maximum(along_y[:, :-1], along_y[:, 1:])
    return math.sqrt(float((x + y).max(initial=0.0)))


def _log_uniform(rng: np.random.Generator, spread: float) -> float:
    limit = math.log1p(spread)
    return math.exp(rng.uniform(-limit, limit))


def _bilinear(field: NDArray[np.float32], points: Array) -> Array:
    height, width = field.shape[:2]
    x = np.clip(points[:, 0], 0, width - 1.001)
    y = np.clip(points[:, 1], 0, height - 1.001)
    j, i = x.astype(int), y.astype(int)
    fx, fy = (x - j)[:, None], (y - i)[:, None]
    top = field[i, j] * (1 - fx) + field[i, j + 1] * fx
    bottom = field[i + 1, j] * (1 - fx) + field[i + 1, j + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float64)
