"""Shapes laid over one another by similarity, robustly, to see which points lie where others do not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array

FEWEST_SHAPES = 10
FEWEST_POINTS = 4
USUAL_TIMES = 6.0
USUAL_SHARE = 0.05

_ROUNDS = 5
_WEIGHT_ROUNDS = 10


def unusual_points(points: Array) -> Iterator[tuple[int, int, float, float]]:
    """Yield points that lie far from where the rest of their shape suggests.

    Every shape is laid over the median shape by the similarity that minimises the sum of distances, so that single bad
    points do not pull it along (iteratively reweighted least squares; Larsen 2008, "L1 generalized Procrustes 2D shape
    alignment"). A landmark's usual distance is the median over shapes of what remains.

    Args:
        points: ``(C, N, 2)``, NaN where there is no label.

    Yields:
        Image, landmark, how many times the landmark's usual distance it is off, and how far as a share of the median
        shape's size (root mean square distance from its centre), for points beyond 6 times and 5 %. Nothing where
        there are fewer than 10 shapes with at least 4 points.
    """
    z = points[..., 0] + 1j * points[..., 1]
    usable = np.isfinite(z).sum(axis=1) >= FEWEST_POINTS
    if usable.sum() < FEWEST_SHAPES:
        return
    rows = np.flatnonzero(usable)
    share = residuals(z[rows])
    usual = _median(share, axis=0)
    times = share / np.maximum(usual, 1e-6)
    bad = np.nan_to_num(times) > USUAL_TIMES
    bad &= np.nan_to_num(share) > USUAL_SHARE
    for row, column in zip(*np.nonzero(bad)):
        yield int(rows[row]), int(column), float(times[row, column]), float(share[row, column])


def mirrored(points: Array) -> NDArray[np.bool_]:
    """Tell which shapes fit the one with most points better as mirror images, i.e. face the other way.

    Args:
        points: ``(C, N, 2)``, NaN where there is no label.

    Returns:
        ``(C,)``; False where fewer than 4 points are known.
    """
    z = points[..., 0] + 1j * points[..., 1]
    known = np.isfinite(z)
    if not len(z) or known.sum(axis=1).max() < FEWEST_POINTS:
        return np.zeros(len(z), dtype=np.bool_)
    reference = _normalised(z[int(np.argmax(known.sum(axis=1)))])
    usable = known.sum(axis=1) >= FEWEST_POINTS
    plain, turned = (_misfit(align(shapes, reference), reference) for shapes in (z, -z.conj()))
    return np.asarray(usable & (turned < plain))


def _misfit(z: NDArray[np.complex128], reference: NDArray[np.complex128]) -> Array:
    away = np.abs(z - reference)
    return np.asarray(np.nansum(away, axis=1))


def residuals(z: NDArray[np.complex128]) -> Array:
    """Return the distances ``(C, N)`` of shapes from their median shape after alignment, as shares of its size.

    Args:
        z: shapes ``(C, N)`` as complex numbers x + iy, NaN where there is no label.
    """
    known = np.isfinite(z)
    most = int(np.argmax(known.sum(axis=1)))
    reference = _normalised(z[most])
    laid = z
    for _ in range(_ROUNDS):
        # Landmarks that the first reference lacks enter it as soon as another shape has placed them.
        laid = align(z, reference)
        reference = _normalised(_median(laid.real, axis=0) + 1j * _median(laid.imag, axis=0))
    return np.abs(align(z, reference) - reference)


def align(z: NDArray[np.complex128], reference: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Lay shapes ``(C, N)`` over a reference ``(N,)`` by scale, rotation and shift with the least sum of distances.

    The reference is fitted to each shape and the fit undone: the least sum of distances forgives bad points in what is
    fitted to, not in what is fitted.
    """
    known = np.isfinite(z) & np.isfinite(reference)
    source, target = np.where(known, reference, 0.0), np.where(known, z, 0.0)
    weights = known.astype(np.float64)
    moved = z
    for _ in range(_WEIGHT_ROUNDS):
        turn, shift = _fit(source, target, weights)
        moved = (z - shift) / turn
        off = np.abs(np.where(known, moved - reference, 0.0))
        weights = known / np.maximum(off, 1e-3)
    return moved


def _fit(
    source: NDArray[np.complex128], target: NDArray[np.complex128], weights: Array
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Weighted least squares of ``target ≈ a source + b``: complex a (scale, rotation) and b, each ``(C, 1)``."""
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    from_centre = (weights * source).sum(axis=1, keepdims=True) / total
    to_centre = (weights * target).sum(axis=1, keepdims=True) / total
    p, q = source - from_centre, target - to_centre
    spread = np.maximum((weights * np.abs(p) ** 2).sum(axis=1, keepdims=True), 1e-12)
    a = (weights * q * p.conj()).sum(axis=1, keepdims=True) / spread
    # A shape whose points all coincide has no scale to undo.
    a = np.where(np.abs(a) > 1e-9, a, 1.0)
    return a, to_centre - a * from_centre


def _normalised(shape: NDArray[np.complex128]) -> NDArray[np.complex128]:
    known = shape[np.isfinite(shape)]
    centred = shape - known.mean()
    size = float(np.sqrt((np.abs(known - known.mean()) ** 2).mean()))
    return np.asarray(centred / max(size, 1e-12))


def _median(values: Array, axis: int) -> Array:
    with warnings.catch_warnings():
        # A landmark that nobody labelled has no median, and stays NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=axis))
