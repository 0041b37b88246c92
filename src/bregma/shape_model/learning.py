"""Shape models learned on labelled images, whatever the pose, the order of exchangeable points, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import InputError
from bregma.exchange import Sets, order_rounds
from bregma.geometry import Array
from bregma.shape_model.model import ShapeModel
from bregma.shape_model.pose import isotropic, split_space, without_pose
from bregma.types import Case

MIN_CASES = 10
"""Fewer shapes than this say too little about how shapes vary."""
_LEARNING_ROUNDS = 100
_ORDERING_ROUNDS = 5


def learn_shape_model(points: ArrayLike, labelled: ArrayLike | None = None, sets: Sets = ()) -> ShapeModel:
    """Learn a shape model.

    Args:
        points: ``(M, N, 2)`` configurations in isotropic coordinates.
        labelled: ``(M, N)``; the rest is missing. Configurations with fewer than three different points are not used.
        sets: positions of the landmarks that cannot be told apart, and so may come in any order.

    Raises:
        InputError: too few configurations, or a landmark that none of them has, or none together with others.
    """
    x = np.array(points, dtype=np.float64)
    known = np.ones(x.shape[:2], dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    x[~known] = np.nan
    usable = _distinct(x) >= 3
    x, known = x[usable], known[usable]
    if len(x) < MIN_CASES:
        raise InputError(
            "a shape model needs more labelled images",
            expected=f"at least {MIN_CASES} with three or more different points",
            got=str(len(x)),
        )
    if not known.any(axis=0).all():
        missing = ", ".join(map(str, np.flatnonzero(~known.any(axis=0))))
        raise InputError("some landmarks are labelled on no image", got=f"landmarks {missing}")
    mean = _first_mean(x)
    if sets:
        x, mean = _put_in_order(x, sets, mean)
        known = np.isfinite(x[..., 0])
    cov = np.eye(2 * len(mean))
    for _ in range(_LEARNING_ROUNDS):
        mean = _normalised(mean)
        aligned = _align(x, mean)
        shift, new = _expect_and_maximise(aligned - mean, known, cov, mean)
        settled = np.allclose(new, cov, rtol=0, atol=1e-4 * np.trace(cov) / len(cov))
        mean, cov = mean + shift, new
        if settled:
            break
    return ShapeModel(*_full_rank(mean, cov), len(x))


def shape_model_of(cases: Sequence[Case], sets: Sets = ()) -> ShapeModel | None:
    """Learn a shape model on labelled cases; None where a landmark is labelled on too few of them, or on none together
    with others. ``sets`` are those of :func:`learn_shape_model`.
    """
    marked = [(case.landmarks, isotropic(case.frame)) for case in cases if case.landmarks is not None]
    if not marked:
        return None
    points = np.stack([marks.points * factors for marks, factors in marked])
    labelled = np.stack([marks.labelled for marks, _ in marked])
    if points.shape[1] < 3 or (labelled[labelled.sum(axis=1) >= 3].sum(axis=0) < MIN_CASES).any():
        return None
    try:
        return learn_shape_model(points, labelled, sets)
    except InputError:
        return None


def _first_mean(x: Array) -> Array:
    """Begin from the fullest configuration; where it lacks a point, from the middle of all that have it."""
    fullest = x[np.isfinite(x[..., 0]).sum(axis=1).argmax()]
    here = np.isfinite(fullest[:, 0])
    near = x[_distinct(np.where(here[:, None], x, np.nan)) >= 2]
    aligned = _align(near, fullest)
    apart = np.isnan(aligned[..., 0]).all(axis=0)
    if apart.any():
        raise InputError(
            "some landmarks are never labelled together with the others",
            got=f"landmarks {', '.join(map(str, np.flatnonzero(apart)))}",
        )
    return np.asarray(np.where(here[:, None], fullest, np.nanmedian(aligned, axis=0)))


def _put_in_order(x: Array, sets: Sets, mean: Array) -> tuple[Array, Array]:
    """Return configurations ``(M, N, 2)`` with exchangeable points in the order that is nearest to their common mean,
    and that mean.
    """
    for _ in range(_ORDERING_ROUNDS):
        before, x = x, _nearest_orders(x, mean, sets)
        if np.array_equal(before, x, equal_nan=True):
            break
        mean = np.asarray(np.nanmean(_align(x, mean), axis=0))
    return x, mean


def _nearest_orders(x: Array, mean: Array, sets: Sets) -> Array:
    for orders in order_rounds(x.shape[1], sets):
        away = np.stack([np.nansum((_align(x[:, order], mean) - mean) ** 2, axis=(1, 2)) for order in orders])
        # A later order has to be better, not only as good: which way round a symmetric shape stands does not matter.
        best = np.where(away.min(axis=0) < (1 - 1e-9) * away[0], away.argmin(axis=0), 0)
        x = np.take_along_axis(x, np.stack(orders)[best][..., None], axis=1)
    return x


def _align(x: Array, target: Array) -> Array:
    """Return configurations ``(M, N, 2)`` in the pose nearest to the target's, by least squares over common points.

    A zoom is found that maps the target onto the shape and then undone: fitted the other way round, shapes with
    large deviations would shrink.
    """
    z, w = x[..., 0] + 1j * x[..., 1], target[:, 0] + 1j * target[:, 1]
    both = np.isfinite(z) & np.isfinite(w)
    count = both.sum(axis=1, keepdims=True)
    z0, w0 = (np.where(both, v, 0).sum(axis=1, keepdims=True) / count for v in (z, w))
    to, fro = (np.where(both, v, 0) for v in (z - z0, w - w0))
    turn = (fro.conj() * to).sum(axis=1, keepdims=True) / (abs(fro) ** 2).sum(axis=1, keepdims=True)
    moved = (z - z0) / turn + w0
    return np.stack([moved.real, moved.imag], axis=-1)


def _distinct(x: Array) -> NDArray[np.int_]:
    """Return how many different known points each configuration has."""
    return np.array([len(np.unique(shape[np.isfinite(shape[:, 0])], axis=0)) for shape in x])


def _expect_and_maximise(away: Array, known: Array, cov: Array, mean: Array) -> tuple[Array, Array]:
    """One step for deviations ``(M, N, 2)`` of which only some points are known, and whose pose is free.

    Deviations are ``A θ + U c``: U spans what a pose cannot explain, and only c has a spread ``(2N - 4, 2N - 4)``.
    Were the pose held fixed, it would explain away the more of the deviations the fewer points are known.

    Returns:
        the shift of the mean ``(N, 2)`` and the new covariance ``(2N, 2N)``.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    pose, free = split_space(mean)
    spread = free.T @ cov @ free
    found, unsure = np.zeros((len(away), free.shape[1])), np.zeros_like(spread)
    for pattern in np.unique(known, axis=0):
        rows, have = (known == pattern).all(axis=1), np.repeat(pattern, 2)
        total = free[have] @ spread @ free[have].T
        inverse = np.linalg.inv(total + (1e-9 * np.trace(spread) + 1e-14) * np.eye(len(total)))
        rest, _ = without_pose(inverse, pose[have])
        to_free = spread @ free[have].T @ rest
        found[rows] = away[rows].reshape(rows.sum(), -1)[:, have] @ to_free.T
        unsure += rows.sum() * (spread - to_free @ free[have] @ spread)
    centre = found.mean(axis=0)
    around = found - centre
    new = (around.T @ around + unsure) / len(found)
    shrink = float(ledoit_wolf_shrinkage(around, assume_centered=True))
    new = (1 - shrink) * new + shrink * np.trace(new) / len(new) * np.eye(len(new))
    return (free @ centre).reshape(-1, 2), free @ (new + new.T) @ free.T / 2


def _full_rank(mean: Array, cov: Array) -> tuple[Array, Array]:
    """Return mean and covariance in units of the mean's size.

    A free pose makes the covariance along poses immaterial; the mean variance there lets the whole be inverted.
    """
    size = _size(mean - mean.mean(axis=0))
    pose, free = split_space(mean)
    cov = cov + np.trace(cov) / free.shape[1] * pose @ pose.T
    return _normalised(mean), cov / size**2


def _normalised(mean: Array) -> Array:
    centred = mean - mean.mean(axis=0)
    return np.asarray(centred / _size(centred))


def _size(centred: Array) -> float:
    return float(np.sqrt((centred**2).sum(axis=1).mean()))
