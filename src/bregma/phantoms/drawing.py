"""Drawing tools that phantoms share: exact anti-aliased shapes, projected thickness, and the ways an image degrades.

Images are float32 ``(H, W)``; points ``(x, y)`` in pixels, with the centre of the top-left pixel at ``(0, 0)``.
Functions that take an ``Rng`` draw all their numbers in one fixed order, so that a seed gives one image.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.geometry import Array
from bregma.phantoms.base import Rng

Image = NDArray[np.float32]


def pixel_grid(shape: tuple[int, int]) -> tuple[Image, Image]:
    """Return the coordinates ``x`` ``(1, W)`` and ``y`` ``(H, 1)`` of the pixel centres, ready to broadcast."""
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    return x, y


def ramp(distance_px: NDArray[np.floating]) -> Image:
    """Turn a signed distance in pixels (positive inside) into the covered share of a pixel, 0 to 1."""
    return np.asarray(np.clip(distance_px + np.float32(0.5), 0.0, 1.0), dtype=np.float32)


def smooth_outline(points: ArrayLike, *, per_segment: int = 8) -> Array:
    """Return a closed curve ``(N * per_segment, 2)`` through the points ``(N, 2)``: a uniform Catmull-Rom spline.

    Source: E. Catmull, R. Rom, "A class of local interpolating splines", 1974.
    """
    p1 = np.asarray(points, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = np.arange(per_segment)[:, None, None] / per_segment
    curve = p1 + 0.5 * ((p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return np.asarray(curve.transpose(1, 0, 2).reshape(-1, 2))


def polygon(shape: tuple[int, int], points: ArrayLike) -> Image:
    """Return the share of every pixel that a simple polygon ``(N, 2)`` covers, exact to rounding.

    Every edge is cut where it crosses a pixel border; each piece adds the signed area to its right, and a running sum
    along the rows gives the coverage (the accumulation buffer of font rasterisers). Edges to the right of the image
    count for nothing and edges to the left of it for all, so the polygon may reach beyond the image.
    """
    corners = np.asarray(points, dtype=np.float64)
    rows, columns = window(shape, corners, 1)
    canvas = np.zeros(shape, dtype=np.float32)
    part = canvas[rows, columns]
    if part.size:
        origin = np.array([columns.start, rows.start]) - 0.5
        part[:] = _coverage(part.shape[0], part.shape[1], corners - origin)
    return canvas


def window(shape: tuple[int, int], points: ArrayLike, margin: float) -> tuple[slice, slice]:
    """Return the rows and columns that hold all ``points`` ``(N, 2)`` and ``margin`` pixels around them.

    Drawing a small thing into its window costs a fraction of drawing it on the whole image; the window is empty where
    the thing lies outside.
    """
    p = np.asarray(points, dtype=np.float64)
    low = np.clip(np.floor(p.min(axis=0) - margin), 0, shape[::-1]).astype(int)
    high = np.clip(np.ceil(p.max(axis=0) + margin) + 1, low, shape[::-1]).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _coverage(height: int, width: int, corners: Array) -> Image:
    """Coverage of the cells of a grid whose corner is at ``(0, 0)``."""
    a, b = _cut_at_pixel_borders(corners, np.roll(corners, -1, axis=0))
    middle = (a + b) / 2
    row, column = np.floor(middle[:, 1]), np.floor(middle[:, 0])
    drop = np.where((row >= 0) & (row < height), b[:, 1] - a[:, 1], 0.0)
    share = np.where(column < 0, 1.0, 1.0 - (middle[:, 0] - column))
    index = np.clip(row, 0, height - 1).astype(np.intp) * (width + 2) + np.clip(column, 0, width).astype(np.intp)
    total = height * (width + 2)
    cover = np.bincount(index, drop * share, total) + np.bincount(index + 1, drop * (1 - share), total)
    coverage = np.abs(np.cumsum(cover.reshape(height, width + 2), axis=1)[:, :width])
    return np.minimum(coverage, 1.0).astype(np.float32)


def _cut_at_pixel_borders(start: Array, end: Array) -> tuple[Array, Array]:
    """Split edges at whole coordinates; return the ends of the pieces, each inside one pixel."""
    low, high = np.minimum(start, end), np.maximum(start, end)
    first = np.floor(low) + 1
    counts = np.maximum(np.ceil(high) - first, 0).astype(np.intp)
    edges, times = [np.arange(len(start))] * 2, [np.zeros(len(start)), np.ones(len(start))]
    for axis in (0, 1):
        edge = np.repeat(np.arange(len(start)), counts[:, axis])
        nth = np.arange(len(edge)) - np.repeat(np.cumsum(counts[:, axis]) - counts[:, axis], counts[:, axis])
        edges.append(edge)
        times.append((first[edge, axis] + nth - start[edge, axis]) / (end[edge, axis] - start[edge, axis]))
    edge, time = np.concatenate(edges), np.concatenate(times)
    order = np.lexsort((time, edge))
    edge, time = edge[order], time[order]
    spot = start[edge] + time[:, None] * (end - start)[edge]
    inside = edge[:-1] == edge[1:]
    return spot[:-1][inside], spot[1:][inside]


def curve(shape: tuple[int, int], points: ArrayLike, width_px: float, *, closed: bool = False) -> Image:
    """Return the coverage of a line of even width along the points ``(N, 2)``, with soft edges."""
    line = np.asarray(points, dtype=np.float64)
    canvas = np.zeros(shape, dtype=np.uint8)
    fixed = np.round(np.clip(line, -1e5, 1e5) * 16).astype(np.int32)
    thickness = max(1, round(width_px))
    cv2.polylines(canvas, [fixed], closed, 255, thickness, cv2.LINE_AA, 4)
    coverage = canvas.astype(np.float32) / np.float32(255)
    return coverage * np.float32(min(1.0, width_px / thickness))


def ellipse_chord(offset: NDArray[np.floating], half_width: float, *, power: float = 2.0) -> Image:
    """Return the relative path length of rays through an elliptical cross-section at a signed offset from its middle.

    ``sqrt(1 - |offset / half_width|^power)``, 0 outside; ``power`` above 2 gives a flatter, box-like section.
    Multiply by the section's extent along the ray.
    """
    u = np.abs(np.asarray(offset, dtype=np.float32)) / np.float32(half_width)
    return np.sqrt(np.clip(1.0 - u**power, 0.0, None)).astype(np.float32)


def ellipsoid_thickness(
    shape: tuple[int, int], centre: tuple[float, float], half_axes: tuple[float, float], degrees: float = 0.0
) -> Image:
    """Return the relative path length of rays through an ellipsoid, 1 at its centre, 0 outside.

    ``half_axes`` are in pixels; ``degrees`` turns the first axis from x towards y.
    """
    x, y = pixel_grid(shape)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (c * dx + s * dy) / np.float32(half_axes[0])
    v = (c * dy - s * dx) / np.float32(half_axes[1])
    return np.sqrt(np.clip(1.0 - u * u - v * v, 0.0, None)).astype(np.float32)


def blur(image: NDArray[np.floating], sigma_px: float) -> Image:
    """Gaussian blur; wide ones are done on a smaller grid, where they cost little."""
    source = np.asarray(image, dtype=np.float32)
    if sigma_px <= 0:
        return source
    step = int(sigma_px // 4)
    if step < 2:
        out = cv2.GaussianBlur(source, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(out, dtype=np.float32)
    height, width = source.shape
    small = cv2.resize(source, (max(2, width // step), max(2, height // step)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px * small.shape[1] / width, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def correlated_noise(rng: Rng, shape: tuple[int, int], length_px: float, *, octaves: int = 1) -> Image:
    """Return smooth noise of about unit deviation whose structures are ``length_px`` wide, halved at every octave."""
    total = np.zeros(shape, dtype=np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        step = max(length_px / 2**octave, 1.0)
        grid = (max(2, math.ceil(shape[0] / step) + 2), max(2, math.ceil(shape[1] / step) + 2))
        coarse = rng.standard_normal(grid, dtype=np.float32)
        total += np.float32(weight) * cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
        norm += weight**2
        weight /= 2
    return total / np.float32(0.88 * math.sqrt(norm))


def quantum_noise(rng: Rng, intensity: NDArray[np.floating], photons: float) -> Image:
    """Return ``intensity`` (1 = unattenuated) as counted by a detector that meets ``photons`` a pixel at 1.

    The Poisson count is drawn as a normal of equal mean and variance, which is close above some twenty photons.
    """
    mean = np.asarray(intensity, dtype=np.float32)
    noise = rng.standard_normal(mean.shape, dtype=np.float32)
    counted = mean + noise * np.sqrt(np.maximum(mean, 0.0) / np.float32(photons))
    return np.asarray(np.maximum(counted, 0.0), dtype=np.float32)


def add_scatter(intensity: NDArray[np.floating], fraction: float, sigma_px: float) -> Image:
    """Mix in the share ``fraction`` of radiation that was scattered over ``sigma_px``."""
    direct = np.asarray(intensity, dtype=np.float32)
    return np.float32(1 - fraction) * direct + np.float32(fraction) * blur(direct, sigma_px)


def collimate(image: Image, corners: ArrayLike, leak: float) -> Image:
    """Dim an intensity image to ``leak`` outside the collimated field, a polygon ``(N, 2)``."""
    field = polygon((image.shape[0], image.shape[1]), corners)
    return image * (np.float32(leak) + np.float32(1 - leak) * field)


def grid_lines(image: Image, period_px: float, angle_deg: float, strength: float) -> Image:
    """Multiply by the stripes of a stationary anti-scatter grid."""
    x, y = pixel_grid((image.shape[0], image.shape[1]))
    turn = math.radians(angle_deg)
    phase = (math.cos(turn) * x + math.sin(turn) * y) * np.float32(2 * math.pi / period_px)
    return np.asarray(image * (1 + np.float32(strength) * np.sin(phase)), dtype=np.float32)


def write_marker(image: Image, text: str, origin: tuple[int, int], height_px: float, value: float) -> Image:
    """Return the image with a lead marker: ``text`` whose lower left corner is at ``origin``, drawn with ``value``."""
    mask = np.zeros(image.shape, dtype=np.uint8)
    thick = max(1, round(height_px / 8))
    cv2.putText(mask, text, origin, cv2.FONT_HERSHEY_SIMPLEX, height_px / 21, 255, thick, cv2.LINE_AA)
    share = mask.astype(np.float32) / np.float32(255)
    return np.asarray(image * (1 - share) + share * np.float32(value), dtype=np.float32)


def to_display(image: NDArray[np.floating], low: float, high: float, *, gamma: float = 1.0) -> NDArray[np.uint8]:
    """Map ``low`` to 0 and ``high`` to 255 through a power law."""
    unit = np.clip((np.asarray(image, dtype=np.float32) - low) / max(high - low, 1e-6), 0.0, 1.0)
    return np.asarray(np.round(unit ** np.float32(gamma) * 255), dtype=np.uint8)
