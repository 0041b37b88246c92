"""The pose of a configuration, free and linear, and what is left when it is taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bregma.geometry import Array, Frame


def isotropic(frame: Frame) -> Array:
    """Return what to multiply x and y by, so that a unit is as long along both; 1 and 1 without a spacing."""
    if frame.spacing is None:
        return np.ones(2)
    spacing = np.asarray(frame.spacing, dtype=np.float64)
    return np.asarray(spacing / np.sqrt(spacing.prod()))


def pose_basis(mean: Array) -> Array:
    """Return A ``(2N, 4)``: columns for the zoomed cosine and sine of the turn, and the shifts along x and y."""
    x, y = mean.T
    one, zero = np.ones(len(mean)), np.zeros(len(mean))
    return np.stack([[x, y], [-y, x], [one, zero], [zero, one]]).transpose(2, 1, 0).reshape(-1, 4)


def split_space(mean: Array) -> tuple[Array, Array]:
    """Return orthonormal bases of what poses explain ``(2N, 4)``, and of the rest ``(2N, 2N - 4)``."""
    basis = pose_basis(mean)
    q = np.asarray(np.linalg.qr(basis, mode="complete").Q, dtype=np.float64)
    return q[:, : basis.shape[1]], q[:, basis.shape[1] :]


def without_pose(inverse: NDArray[np.floating], basis: Array) -> tuple[Array, Array]:
    """Return what is left of an inverse covariance when the pose is free, and the matrix that estimates the pose."""
    to_theta = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse)
    return np.asarray(inverse - inverse @ basis @ to_theta), np.asarray(to_theta)
