"""Shapes that occur, and points reconciled with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import InputError
from bregma.exchange import Order, Sets, order_rounds
from bregma.geometry import Array
from bregma.shape_model.pose import pose_basis, split_space, without_pose

_ROUNDS = 10
_LEAST_NOISE = 1e-9
"""In squared pixels, so that a stiff shape and a point that is sure of itself leave an equation that can be solved."""
_DEGREES = 4.0
"""Degrees of freedom of the t distribution by which a point that contradicts the others loses weight."""


@dataclass(frozen=True)
class ShapeModel:
    """Mean and spread of aligned configurations.

    Attributes:
        mean: ``(N, 2)``, centred, with a root mean square distance of 1 from the centre.
        cov: ``(2N, 2N)`` covariance of the deviations from it, interleaved.
        cases: how many configurations it was learned on.
    """

    mean: Array
    cov: Array
    cases: int

    def __post_init__(self) -> None:
        for name in ("mean", "cov"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        size = 2 * len(self.mean)
        if self.mean.shape != (size // 2, 2) or self.cov.shape != (size, size):
            raise InputError(
                "the shape model contradicts itself",
                expected="a mean of (N, 2) and a covariance of (2N, 2N)",
                got=f"{self.mean.shape} and {self.cov.shape}",
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.cov).all()):
            raise InputError("the shape model is not finite")

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"ShapeModel({len(self)} landmarks, {self.cases} cases)"

    def fit(self, points: ArrayLike, cov: ArrayLike, *, weight: float = 1.0, robust: bool = True) -> Fit:
        """Reconcile observed points with the shapes that occur.

        Args:
            points: ``(N, 2)``, isotropic coordinates.
            cov: ``(N, 2, 2)`` covariance of each point's error, in the same units squared.
            weight: multiplies ``cov`` where it is weighed against the shape; 1 trusts it, less holds the points
                closer to where they were seen. Errors that the points share (a whole side moved along) are not
                told by ``cov``, and make less than 1 the better choice.
            robust: let points that contradict the others lose weight, as under a t distribution.

        Raises:
            InputError: wrong shapes, or a weight that is not positive.
        """
        p, noise = self._checked(points, cov)
        if not weight > 0:
            raise InputError("the weight of the observations' covariance must be positive", got=str(weight))
        noise = weight * noise + _LEAST_NOISE * np.eye(2)
        softer = np.ones(len(self))
        basis = pose_basis(self.mean)
        theta = _solve_least_squares(basis, p)
        for _ in range(_ROUNDS):
            solved = _solve(p, noise, softer, self._posed_cov(theta), basis)
            before, softer = softer, np.maximum(1.0, (_DEGREES + solved.contradiction) / (_DEGREES + 2))
            settled = np.allclose(solved.theta, theta, rtol=1e-6, atol=1e-9)
            theta = solved.theta
            if not robust:
                softer = before
            if settled and np.allclose(softer, before, rtol=1e-3):
                break
        return Fit(solved.points, solved.contradiction)

    def contradiction(self, points: ArrayLike, cov: ArrayLike) -> Array:
        """Return how strongly each point contradicts the others: ``(N,)`` squared Mahalanobis distances.

        Each is the distance between a point and its prediction from all the others; under the model it follows a χ²
        distribution with 2 degrees of freedom. Arguments as of :meth:`fit`.
        """
        return self.fit(points, cov, robust=False).contradiction

    def distances(self, points: ArrayLike, cov: ArrayLike) -> Array:
        """Return how unlike the shapes that occur whole configurations are: ``(M,)`` squared Mahalanobis distances.

        Under the model they follow a χ² distribution with 2N - 4 degrees of freedom; the pose is free.

        Args:
            points: ``(M, N, 2)``, isotropic coordinates.
            cov: ``(M, N, 2, 2)`` covariance of each point's error, in the same units squared.
        """
        p = np.asarray(points, dtype=np.float64).reshape(-1, 2 * len(self))
        noise = np.asarray(cov, dtype=np.float64).reshape(-1, len(self), 2, 2) + _LEAST_NOISE * np.eye(2)
        basis = pose_basis(self.mean)
        theta = p @ np.linalg.pinv(basis).T
        turn = np.einsum("mi,ijk->mjk", theta[:, :2], [np.eye(2), [[0.0, -1.0], [1.0, 0.0]]])
        spread = self.cov.reshape(len(self), 2, len(self), 2)
        total = np.einsum("mij,njkl,mol->mniko", turn, spread, turn, optimize=True)
        each = np.arange(len(self))
        total[:, each, :, each] += noise.transpose(1, 0, 2, 3)
        inverse = np.linalg.inv(total.reshape(-1, 2 * len(self), 2 * len(self)))
        seen = inverse @ basis
        inner = np.linalg.solve(basis.T @ seen, (seen.transpose(0, 2, 1) @ p[..., None]))[..., 0]
        whole = np.einsum("mi,mij,mj->m", p, inverse, p)
        return np.asarray(np.maximum(whole - np.einsum("mi,mij,mj->m", p, seen, inner), 0.0))

    def order(self, points: ArrayLike, cov: ArrayLike, sets: Sets) -> Order:
        """Return ``order (N,)`` such that ``points[order]`` has exchangeable points in the likeliest order.

        Args:
            points: ``(N, 2)``, isotropic coordinates.
            cov: ``(N, 2, 2)``.
            sets: positions of the landmarks that cannot be told apart.
        """
        p, noise = self._checked(points, cov)
        best = np.arange(len(self))
        for orders in order_rounds(len(self), sets) if sets else ():
            tried = np.stack([best[order] for order in orders])
            best = tried[int(self.distances(p[tried], noise[tried]).argmin())]
        return best

    def modes(self, count: int) -> tuple[Array, Array]:
        """Return how shapes vary most, poses apart: the strongest principal components (Cootes et al.).

        Args:
            count: how many; fewer where there are not so many.

        Returns:
            ``(K, N, 2)`` displacements of the mean by one standard deviation, and the share ``(K,)`` of all variance
            that each explains.
        """
        _, free = split_space(self.mean)
        values, vectors = np.linalg.eigh(free.T @ self.cov @ free)
        values = np.maximum(values[::-1], 0.0)
        kept = min(count, len(values))
        away = (free @ vectors[:, ::-1])[:, :kept] * np.sqrt(values[:kept])
        return away.T.reshape(kept, -1, 2), values[:kept] / max(float(values.sum()), 1e-300)

    def _checked(self, points: ArrayLike, cov: ArrayLike) -> tuple[Array, Array]:
        p, noise = np.asarray(points, dtype=np.float64), np.asarray(cov, dtype=np.float64)
        if p.shape != (len(self), 2) or noise.shape != (len(self), 2, 2):
            raise InputError(
                "the points do not fit the shape model",
                expected=f"({len(self)}, 2) with covariances ({len(self)}, 2, 2)",
                got=f"{p.shape} with {noise.shape}",
            )
        return p, noise

    def _posed_cov(self, theta: Array) -> Array:
        """Return the covariance of the deviations, turned and zoomed as the pose says."""
        turn = np.kron(np.eye(len(self)), [[theta[0], -theta[1]], [theta[1], theta[0]]])
        return np.asarray(turn @ self.cov @ turn.T)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"mean": self.mean.tolist(), "cov": self.cov.tolist(), "cases": self.cases}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ShapeModel:
        """Rebuild from ``to_dict``.

        Raises:
            InputError: the data are not those of a shape model.
        """
        try:
            return cls(np.array(data["mean"], np.float64), np.array(data["cov"], np.float64), int(data["cases"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"is not a shape model ({error})") from error


@dataclass(frozen=True)
class Fit:
    """Points reconciled with a shape model.

    Attributes:
        points: ``(N, 2)``.
        contradiction: ``(N,)`` see :meth:`ShapeModel.contradiction`.
    """

    points: Array
    contradiction: Array


@dataclass(frozen=True)
class _Solved:
    points: Array
    theta: Array
    contradiction: Array


def _solve(p: Array, noise: Array, softer: Array, cov: Array, basis: Array) -> _Solved:
    """Solve for a given pose of the covariance; ``softer`` multiplies each point's noise."""
    softened = noise * softer[:, None, None]
    inverse = np.linalg.inv(cov + _block_diagonal(softened))
    # Its blocks give each point's distance from its prediction by all others without solving N times (Dubrule 1983,
    # doi:10.1007/BF01033233).
    rest, to_theta = without_pose(inverse, basis)
    theta, left = to_theta @ p.ravel(), rest @ p.ravel()
    others = np.linalg.inv(_diagonal_blocks(rest))
    away = np.einsum("nij,nj->ni", others, left.reshape(-1, 2))
    spread = others - softened + noise
    contradiction = np.einsum("ni,nij,nj->n", away, np.linalg.inv(spread), away)
    return _Solved((basis @ theta + cov @ left).reshape(-1, 2), theta, contradiction)


def _solve_least_squares(basis: Array, p: Array) -> Array:
    return np.asarray(np.linalg.lstsq(basis, p.ravel(), rcond=None)[0], dtype=np.float64)


def _block_diagonal(blocks: Array) -> Array:
    count = len(blocks)
    matrix = np.zeros((count, 2, count, 2))
    matrix[np.arange(count), :, np.arange(count), :] = blocks
    return matrix.reshape(2 * count, 2 * count)


def _diagonal_blocks(matrix: NDArray[np.floating]) -> Array:
    count = len(matrix) // 2
    blocks = matrix.reshape(count, 2, count, 2)[np.arange(count), :, np.arange(count), :]
    return np.asarray(blocks, dtype=np.float64)
