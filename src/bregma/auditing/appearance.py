"""Where the image suggests the landmarks, from what other images look like around theirs.

All images are laid over one another in the frame that their landmarks span, and their median is a template of the
anatomy. Every image is then laid over the template anew, by shift, turn and two zooms (along and across the mean
shape), begun from its own labels and from poses of other images; this maximises the correlation with the template
(Gauss-Newton on the normalised images: Evangelidis & Psarakis 2008, doi:10.1109/TPAMI.2008.113). Template and poses
are found in turns (congealing: Learned-Miller 2006, doi:10.1109/TPAMI.2006.34). The landmarks' places in the template
are medians over the images, so a third of wrong labels does not move them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bregma.auditing.evidence import are_known
from bregma.geometry import Array

Pixels = NDArray[np.float32]

FEWEST_IMAGES = 20
"""Fewer images than this make a template that each of them still shows through."""
GRID = 48
_REACH = 1.4
"""The template's half side, as a multiple of the mean shape's half extent."""
_LEAST_ASPECT = 0.3
"""Shapes that are narrower (a column of vertebrae) get a template at least so wide."""
_WORK_PX = 256
_BLUR = 1.0
_CANDIDATES, _STARTS, _ROUNDS, _STEPS = 48, 4, 2, 12


@dataclass(frozen=True)
class Template:
    """The frame of the mean shape and how to sample images in it.

    Attributes:
        turn: ``(2, 2)`` rotation from the standard's coordinates to its principal axes.
        half: half extent ``(2,)`` of the mean shape along these axes.
    """

    turn: Array
    half: Array

    @classmethod
    def of(cls, standard: Array) -> Template:
        """Return the frame of a standard shape ``(N, 2)``."""
        centred = standard - np.nanmean(standard, axis=0)
        known = centred[are_known(centred)]
        _, _, axes = np.linalg.svd(known, full_matrices=False)
        turn = np.array([axes[0], (-axes[0, 1], axes[0, 0])])
        half = np.abs(known @ turn.T).max(axis=0)
        return cls(turn, np.maximum(half, _LEAST_ASPECT * half.max()))

    def pose(self, shape: Array, image: Array) -> Array | None:
        """Return the pose ``(5,)`` (centre x and y, angle, logarithms of two half extents) of points on an image.

        Args:
            shape: ``(N, 2)`` standard shape.
            image: ``(N, 2)`` the same points on the image, NaN where there is no label.
        """
        both = are_known(image) & are_known(shape)
        if both.sum() < 3:
            return None
        u = (shape[both] - np.nanmean(shape, axis=0)) @ self.turn.T
        z, w = image[both] @ (1, 1j), u @ (1, 1j)
        spread = np.vdot(w - w.mean(), w - w.mean()).real
        turn = np.vdot(w - w.mean(), z - z.mean()) / spread
        if not abs(turn) > 0:
            return None
        angle = float(np.angle(turn))
        v = _rotated(image[both], -angle)
        zooms = [_slope(u[:, k], v[:, k], abs(turn)) for k in range(2)]
        centre = _rotated((v - u * zooms).mean(axis=0), angle)
        return np.array([*centre, angle, *np.log(self.half * zooms)])

    def on_image(self, places: Array, poses: Array) -> Array:
        """Return template coordinates ``(N, 2)`` (1 at the half extent) as points of images: ``(C, N, 2)``."""
        scaled = places[None] * np.exp(poses[:, None, 3:])
        return np.asarray(_rotated(scaled, poses[:, None, 2]) + poses[:, None, :2])

    def in_template(self, points: Array, poses: Array) -> Array:
        """Undo :meth:`on_image` for points ``(C, N, 2)``."""
        return np.asarray(_rotated(points - poses[:, None, :2], -poses[:, None, 2]) / np.exp(poses[:, None, 3:]))


def _rotated(points: Array, angle: float | Array) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], axis=-1)


def _slope(u: Array, v: Array, usual: float) -> float:
    """Return the zoom along one axis, held near that of the whole where the points say little about it."""
    du, dv = u - u.mean(), v - v.mean()
    spread = float(du @ du)
    zoom = float(du @ dv) / spread if spread > 1e-9 else usual
    return float(np.clip(zoom, usual / 2, usual * 2))


def working_image(pixels: NDArray[np.generic], factors: Array) -> tuple[Pixels, Array]:
    """Return a small blurred image with square pixels, and the factors ``(2,)`` from the original's pixels to its own.

    Grey values are clipped and scaled by percentiles, so that images of different devices are alike.
    """
    image = np.nan_to_num(pixels.astype(np.float32))
    height, width = image.shape
    shrink = min(1.0, _WORK_PX / max(width * factors[0], height * factors[1]))
    size = (max(1, round(width * factors[0] * shrink)), max(1, round(height * factors[1] * shrink)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (1, 99))
    small = np.clip((small - low) / max(float(high - low), 1e-9), 0, 1)
    scale = np.array([size[0] / width, size[1] / height])
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR), dtype=np.float32), scale


_AXIS = np.linspace(-_REACH, _REACH, GRID)
_X, _Y = (grid.astype(np.float64) for grid in np.meshgrid(_AXIS, _AXIS))
_DISC = (_X**2 + _Y**2) < _REACH**2


def sample(image: Pixels, pose: Array) -> Pixels:
    """Return the part of an image that a pose puts into the template: ``(GRID, GRID)``."""
    a, b = np.exp(pose[3:])
    c, s = np.cos(pose[2]), np.sin(pose[2])
    x, y = pose[0] + c * a * _X - s * b * _Y, pose[1] + s * a * _X + c * b * _Y
    mapped = cv2.remap(
        image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(mapped, dtype=np.float32)


def normalised(patch: Array | Pixels) -> Array:
    """Return the pixels of a patch within the disc, with mean 0 and norm 1."""
    values = np.asarray(patch, dtype=np.float64)[_DISC]
    values = values - values.mean()
    return np.asarray(values / (np.linalg.norm(values) + 1e-6))


def refine(image: Pixels, pose: Array, template: Array) -> tuple[Array, float]:
    """Return the pose near ``pose`` at which the image correlates best with a template, and the correlation.

    Args:
        image: of :func:`working_image`.
        pose: ``(5,)`` as of :meth:`Template.pose`.
        template: as of :func:`normalised`.
    """
    patch = sample(image, pose)
    seen = normalised(patch)
    score, damping = float(seen @ template), 1e-2
    for _ in range(_STEPS):
        slopes = _slopes(patch, pose)
        hessian = slopes.T @ slopes
        ridge = damping * np.diag(np.diag(hessian)) + 1e-9 * np.eye(5)
        limit = 0.1 * np.array([np.exp(pose[3]), np.exp(pose[4]), 1.0, 1.0, 1.0])
        change = np.clip(np.linalg.solve(hessian + ridge, slopes.T @ (template - seen)), -limit, limit)
        tried = sample(image, pose + change)
        gain = float(normalised(tried) @ template) - score
        if gain > 0:
            pose, patch, score, damping = pose + change, tried, score + gain, max(damping / 5, 1e-4)
            seen = normalised(patch)
        else:
            damping *= 10
        if 0 < gain < 1e-4 or damping > 10:
            break
    return pose, score


def _slopes(patch: Pixels, pose: Array) -> Array:
    """Return the derivatives ``(P, 5)`` of the normalised patch with respect to the pose.

    The patch is I(c + R diag(a, b) u), so its own gradient is diag(a, b) R' ∇I.
    """
    across, along = np.gradient(patch.astype(np.float64), _AXIS[1] - _AXIS[0])
    a, b = np.exp(pose[3:])
    c, s = np.cos(pose[2]), np.sin(pose[2])
    g, h = along / a, across / b
    raw = np.stack([c * g - s * h, s * g + c * h, h * a * _X - g * b * _Y, along * _X, across * _Y])[:, _DISC]
    raw -= raw.mean(axis=1, keepdims=True)
    values = patch.astype(np.float64)[_DISC]
    values = values - values.mean()
    norm = float(np.linalg.norm(values)) + 1e-6
    unit = values / norm
    return np.asarray((raw - np.outer(raw @ unit, unit)).T / norm)


@dataclass(frozen=True)
class Congealed:
    """Images laid over their template.

    Attributes:
        poses: ``(C, 5)``.
        correlation: ``(C,)`` with the template.
    """

    poses: Array
    correlation: Array


def congeal(
    images: Sequence[Pixels], poses: Array, good: NDArray[np.intp], flips: Sequence[tuple[int, int]]
) -> Congealed:
    """Find the pose of every image by turns with the template.

    Args:
        images: of :func:`working_image`.
        poses: ``(C, 5)`` from the labels.
        good: images whose labels begin the template and whose poses are tried on the others.
        flips: signs along the template's axes under which the anatomy's labels mean the same; ``(1, 1)`` among them.
    """
    template = _template(images, poses, good, flips)
    tried = poses[good[np.unique(np.linspace(0, len(good) - 1, _CANDIDATES).astype(int))]]
    correlation = np.zeros(len(images))
    for turn in range(_ROUNDS):
        found = [_search(image, pose, template, tried if turn == 0 else ()) for image, pose in zip(images, poses)]
        poses, correlation = np.array([pose for pose, _ in found]), np.array([score for _, score in found])
        likely = np.flatnonzero(correlation >= np.quantile(correlation, 0.3))
        template = _template(images, poses, likely, flips)
    return Congealed(poses, correlation)


def _search(image: Pixels, pose: Array, template: Array, tried: Sequence[Array] | Array) -> tuple[Array, float]:
    first = sorted(tried, key=lambda other: -float(normalised(sample(image, other)) @ template))[:_STARTS]
    return max((refine(image, start, template) for start in (pose, *first)), key=lambda found: found[1])


def _template(
    images: Sequence[Pixels], poses: Array, rows: NDArray[np.intp], flips: Sequence[tuple[int, int]]
) -> Array:
    patches = np.zeros((len(rows), GRID, GRID))
    for k, row in enumerate(rows):
        patch = sample(images[row], poses[row])
        patches[k] = (patch - patch[_DISC].mean()) / (patch[_DISC].std() + 1e-6)
    middle = np.median(patches, axis=0)
    return normalised(np.mean([middle[::y, ::x] for x, y in flips], axis=0))
