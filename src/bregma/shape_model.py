"""Shape model: how landmarks lie to each other, learned on training subjects, whatever the pose.

A configuration of N landmarks is taken as ``x = A θ + e``: the mean shape in a free pose (similarity: shift, turn and
zoom, which are linear in θ, so that A is ``(2N, 4)``), plus a deviation ``e`` of known covariance. Coordinates are
interleaved: x0, y0, x1, y1, … They must be isotropic; :func:`isotropic` gives the factors for an image.

Given points ``p = x + n`` with noise of covariance C, the best linear unbiased prediction of x is
``A θ̂ + S V⁻¹ (p - A θ̂)`` with ``V = S + C`` and θ̂ by generalised least squares (Goldberger 1962,
doi:10.1080/01621459.1962.10480665). Mean and covariance S are those of a point distribution model (Cootes, Taylor,
Cooper & Graham 1995, doi:10.1006/cviu.1995.1004) whose shapes were aligned by generalised Procrustes analysis (Gower
1975, doi:10.1007/BF02291478); missing points are filled by expectation-maximisation (Dempster, Laird & Rubin 1977), and
the covariance is shrunk (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).

Points that cannot be told apart stand in no order that means anything: configurations are learned, and judged, in the
order of each set that fits the model best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import InputError
from bregma.exchange import Order, Sets, order_rounds
from bregma.geometry import Array, Frame
from bregma.types import Case, Prediction

MIN_CASES = 10
"""Fewer shapes than this say too little about how shapes vary."""
_ROUNDS = 10
_LEARNING_ROUNDS = 100
_ORDERING_ROUNDS = 5
_LEAST_NOISE = 1e-9
"""In squared pixels, so that a stiff shape and a point that is sure of itself leave an equation that can be solved."""
_PRESENT = 0.5
"""A landmark that is more likely not there cannot be in the wrong place."""
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
        basis = _pose_basis(self.mean)
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
        basis = _pose_basis(self.mean)
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
        _, free = _split_space(self.mean)
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
        aligned = _align_all(x, mean)
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


def reconcile(prediction: Prediction, model: ShapeModel, *, weight: float, sets: Sets = ()) -> Prediction:
    """Return a prediction whose points were reconciled with the shapes that occur; see :meth:`ShapeModel.fit`.

    Each stays where it stands among the points, whatever order of the exchangeable ``sets`` was the likeliest.

    The covariances stay the network's own. Those that follow from the fit would be narrower, but only if the points
    erred independently; where they err together, intervals of that width miss the truth too often.
    """
    factors = isotropic(prediction.frame)
    points, cov = prediction.mean * factors, prediction.cov * np.outer(factors, factors)
    order = model.order(points, weight * cov, sets)
    fit = model.fit(points[order], cov[order], weight=weight)
    mean = np.empty_like(points)
    mean[order] = fit.points / factors
    return replace(prediction, mean=mean)


def flag_outliers(prediction: Prediction, model: ShapeModel, *, limit: float, sets: Sets = ()) -> Prediction:
    """Return a prediction that says which points contradict the others; none is moved.

    A point is flagged where it lies more than ``limit`` standard deviations from where the others and the shapes that
    occur say it is, the others counting the less the more they are contradicted themselves (:meth:`ShapeModel.fit`).
    """
    factors = isotropic(prediction.frame)
    points, cov = prediction.mean * factors, prediction.cov * np.outer(factors, factors)
    order = model.order(points, cov, sets)
    away = np.empty(len(model))
    away[order] = np.sqrt(model.fit(points[order], cov[order]).contradiction)
    reasons = (f"{sd:.1f} standard deviations from where the other points say it is" for sd in away)
    doubtful = (away > limit) & (prediction.presence >= _PRESENT)
    return replace(prediction, flags=tuple(why if bad else "" for bad, why in zip(doubtful, reasons, strict=True)))


def isotropic(frame: Frame) -> Array:
    """Return what to multiply x and y by, so that a unit is as long along both; 1 and 1 without a spacing."""
    if frame.spacing is None:
        return np.ones(2)
    spacing = np.asarray(frame.spacing, dtype=np.float64)
    return np.asarray(spacing / np.sqrt(spacing.prod()))


def _pose_basis(mean: Array) -> Array:
    """Return A ``(2N, 4)``: columns for the zoomed cosine and sine of the turn, and the shifts along x and y."""
    x, y = mean.T
    one, zero = np.ones(len(mean)), np.zeros(len(mean))
    return np.stack([[x, y], [-y, x], [one, zero], [zero, one]]).transpose(2, 1, 0).reshape(-1, 4)


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
    rest, to_theta = _without_pose(inverse, basis)
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


def _first_mean(x: Array) -> Array:
    """Begin from the fullest configuration; where it lacks a point, from the middle of all that have it."""
    fullest = x[np.isfinite(x[..., 0]).sum(axis=1).argmax()]
    here = np.isfinite(fullest[:, 0])
    near = x[_distinct(np.where(here[:, None], x, np.nan)) >= 2]
    aligned = _align_all(near, fullest)
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
        mean = np.asarray(np.nanmean(_align_all(x, mean), axis=0))
    return x, mean


def _nearest_orders(x: Array, mean: Array, sets: Sets) -> Array:
    for orders in order_rounds(x.shape[1], sets):
        away = np.stack([np.nansum((_align_all(x[:, order], mean) - mean) ** 2, axis=(1, 2)) for order in orders])
        # A later order has to be better, not only as good: which way round a symmetric shape stands does not matter.
        best = np.where(away.min(axis=0) < (1 - 1e-9) * away[0], away.argmin(axis=0), 0)
        x = np.take_along_axis(x, np.stack(orders)[best][..., None], axis=1)
    return x


def _align_all(x: Array, target: Array) -> Array:
    """Do what :func:`_align` does for configurations ``(M, N, 2)`` at once."""
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


def _align(shape: Array, target: Array) -> Array:
    """Return a configuration in the pose nearest to the target's, by least squares over the points of both.

    A zoom is found that maps the target onto the shape and then undone: fitted the other way round, shapes with
    large deviations would shrink.
    """
    return np.asarray(_align_all(shape[None], target)[0])


def _expect_and_maximise(away: Array, known: Array, cov: Array, mean: Array) -> tuple[Array, Array]:
    """One step for deviations ``(M, N, 2)`` of which only some points are known, and whose pose is free.

    Deviations are ``A θ + U c``: U spans what a pose cannot explain, and only c has a spread ``(2N - 4, 2N - 4)``.
    Were the pose held fixed, it would explain away the more of the deviations the fewer points are known.

    Returns:
        the shift of the mean ``(N, 2)`` and the new covariance ``(2N, 2N)``.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    pose, free = _split_space(mean)
    spread = free.T @ cov @ free
    found, unsure = np.zeros((len(away), free.shape[1])), np.zeros_like(spread)
    for pattern in np.unique(known, axis=0):
        rows, have = (known == pattern).all(axis=1), np.repeat(pattern, 2)
        total = free[have] @ spread @ free[have].T
        inverse = np.linalg.inv(total + (1e-9 * np.trace(spread) + 1e-14) * np.eye(len(total)))
        rest, _ = _without_pose(inverse, pose[have])
        to_free = spread @ free[have].T @ rest
        found[rows] = away[rows].reshape(rows.sum(), -1)[:, have] @ to_free.T
        unsure += rows.sum() * (spread - to_free @ free[have] @ spread)
    centre = found.mean(axis=0)
    around = found - centre
    new = (around.T @ around + unsure) / len(found)
    shrink = float(ledoit_wolf_shrinkage(around, assume_centered=True))
    new = (1 - shrink) * new + shrink * np.trace(new) / len(new) * np.eye(len(new))
    return (free @ centre).reshape(-1, 2), free @ (new + new.T) @ free.T / 2


def _split_space(mean: Array) -> tuple[Array, Array]:
    """Return orthonormal bases of what poses explain ``(2N, 4)``, and of the rest ``(2N, 2N - 4)``."""
    basis = _pose_basis(mean)
    q = np.asarray(np.linalg.qr(basis, mode="complete").Q, dtype=np.float64)
    return q[:, : basis.shape[1]], q[:, basis.shape[1] :]


def _without_pose(inverse: NDArray[np.floating], basis: Array) -> tuple[Array, Array]:
    """Return what is left of an inverse covariance when the pose is free, and the matrix that estimates the pose."""
    to_theta = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse)
    return np.asarray(inverse - inverse @ basis @ to_theta), np.asarray(to_theta)


def _full_rank(mean: Array, cov: Array) -> tuple[Array, Array]:
    """Return mean and covariance in units of the mean's size.

    A free pose makes the covariance along poses immaterial; the mean variance there lets the whole be inverted.
    """
    size = _size(mean - mean.mean(axis=0))
    pose, free = _split_space(mean)
    cov = cov + np.trace(cov) / free.shape[1] * pose @ pose.T
    return _normalised(mean), cov / size**2


def _normalised(mean: Array) -> Array:
    centred = mean - mean.mean(axis=0)
    return np.asarray(centred / _size(centred))


def _size(centred: Array) -> float:
    return float(np.sqrt((centred**2).sum(axis=1).mean()))
