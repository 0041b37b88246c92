"""Shapes whose standard a third of wrong labels does not spoil.

The standard is found in two steps. A median shape comes from laying shapes over one another with the least sum of
distances, begun from that of several candidates which fits the better half best (least median of squares: Rousseeuw
1984, doi:10.1080/01621459.1984.10477105). Mean and covariance are then learned on the half of the shapes that deviate
least, repeatedly (concentration steps of the minimum covariance determinant: Rousseeuw & Van Driessen 1999,
doi:10.1080/00401706.1999.10485670).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bregma.auditing.evidence import ALARM_SHARE, ALARM_TIMES, are_known
from bregma.data.shapes import align
from bregma.geometry import Array
from bregma.shape_model import MIN_CASES, ShapeModel, learn_shape_model

Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]

FEWEST_POINTS = 4
"""With three, a pose explains so much that a wrong point cannot be told."""
_CANDIDATES, _ROUNDS, _CONCENTRATIONS = 12, 4, 4
_NOISE = 0.005
"""Least standard deviation of a point as a share of the shape's size: no labeller is more exact."""
_KEPT_SHARE = 0.5
"""So much of a shape must be left when points that contradict it are set aside."""


@dataclass(frozen=True)
class Posed:
    """Shapes in their best equivalent order, laid over the standard.

    Attributes:
        points: ``(C, N, 2)`` in the standard's coordinates (its size is 1), NaN where there is no label.
        order: ``(C, N)`` the order of the landmarks that was taken.
        turned: ``(C,)`` whether the mirror image was taken.
        misfit: ``(C,)`` median distance of the points from the standard; infinite with fewer than 4 of them.
        standard: ``(N, 2)``.
    """

    points: Array
    order: NDArray[np.intp]
    turned: Mask
    misfit: Array
    standard: Array


def pose(points: Array, orders: NDArray[np.intp], *, mirror: bool) -> Posed | None:
    """Lay shapes over their robust median shape, each in the order that fits best.

    Args:
        points: ``(C, N, 2)``, NaN where there is no label; as long along x as along y.
        orders: equivalent orders ``(K, N)``.
        mirror: whether a shape may be the mirror image of the others.

    Returns:
        None where fewer than 10 shapes have 4 points.
    """
    z = points[..., 0] + 1j * points[..., 1]
    usable = np.flatnonzero(np.isfinite(z).sum(axis=1) >= FEWEST_POINTS)
    if len(usable) < MIN_CASES:
        return None
    full = usable[np.isfinite(z[usable]).sum(axis=1) == np.isfinite(z[usable]).sum(axis=1).max()]
    starts = full[np.unique(np.linspace(0, len(full) - 1, _CANDIDATES).astype(int))]
    fits = [_Laid(z, _normalised(z[start]), orders, mirror) for start in starts]
    best = min(fits, key=lambda fit: float(np.median(fit.misfit[usable])))
    for _ in range(_ROUNDS):
        best = _Laid(z, _normalised(_median(best.moved[best.better_half(usable)])), orders, mirror)
    return Posed(_pairs(best.moved), best.order, best.turned, best.misfit, _pairs(best.standard))


class _Laid:
    """Shapes laid over a standard, in the order and orientation that fit best."""

    def __init__(self, z: Complex, standard: Complex, orders: NDArray[np.intp], mirror: bool) -> None:
        self.standard = standard
        self.misfit = np.full(len(z), np.inf)
        self.moved, self.order = z.copy(), np.tile(orders[0], (len(z), 1))
        self.turned = np.zeros(len(z), dtype=np.bool_)
        enough = np.isfinite(z).sum(axis=1) >= FEWEST_POINTS
        for turned in (False, True) if mirror else (False,):
            for order in orders:
                moved = align((-z.conj() if turned else z)[:, order], standard)
                away = np.abs(moved - standard)
                misfit = np.full(len(z), np.inf)
                misfit[enough] = np.nanmean(away[enough], axis=1)
                better = misfit < self.misfit
                self.misfit[better], self.moved[better] = misfit[better], moved[better]
                self.order[better], self.turned[better] = order, turned

    def better_half(self, usable: NDArray[np.intp]) -> NDArray[np.intp]:
        return usable[np.argsort(self.misfit[usable], kind="stable")[: max(MIN_CASES, len(usable) // 2)]]


def lay_over(shape: Array, standard: Array, orders: NDArray[np.intp], *, mirror: bool) -> Array:
    """Return one shape ``(N, 2)`` in the standard's coordinates, in the order and orientation that fit best."""
    z, w = (points[..., 0] + 1j * points[..., 1] for points in (shape[None], standard))
    return _pairs(_Laid(z, w, orders, mirror).moved[0])


@dataclass(frozen=True)
class ShapeFit:
    """How well one shape agrees with the standard.

    Attributes:
        contradiction: ``(N,)`` how strongly each point contradicts the others that agree (a squared Mahalanobis
            distance); NaN where there is no label.
        expected: ``(N, 2)`` where the others suggest each point, in the standard's coordinates.
        set_aside: ``(N,)`` points that had to be left out before the rest agreed.
    """

    contradiction: Array
    expected: Array
    set_aside: Mask


@dataclass(frozen=True)
class RobustShapes:
    """Mean and covariance of the half of the shapes that agrees best.

    Attributes:
        mean: ``(N, 2)`` in the standard's coordinates.
        cov: ``(2N, 2N)``.
        usual: ``(N,)`` median contradiction of each point.
    """

    mean: Array
    cov: Array
    usual: Array

    def fit(self, shape: Array) -> ShapeFit:
        """Set points aside, worst first, until the rest of a shape agrees.

        Args:
            shape: ``(N, 2)`` in the standard's coordinates, NaN where there is no label.
        """
        here = are_known(shape)
        least = max(3, int(np.ceil(_KEPT_SHARE * here.sum())))
        kept = here.copy()
        while True:
            contradiction, expected = self._contradictions(shape, kept)
            times = np.where(kept, self.times(contradiction, shape, expected), 0.0)
            worst = int(np.argmax(times))
            if times[worst] < ALARM_TIMES or kept.sum() <= least:
                break
            kept[worst] = False
        for index in np.flatnonzero(here & ~kept):
            with_it = kept.copy()
            with_it[index] = True
            one, place = self._contradictions(shape, with_it)
            contradiction[index], expected[index] = one[index], place[index]
        return ShapeFit(contradiction, expected, here & ~kept)

    def times(self, contradiction: Array, shape: Array, expected: Array) -> Array:
        """Return how many times its usual size each point's contradiction is, less for small distances."""
        away = np.nan_to_num(np.linalg.norm(shape - expected, axis=-1))
        times = np.sqrt(np.nan_to_num(contradiction) / np.maximum(self.usual, 1e-9))
        return np.asarray(times * np.minimum(1.0, away / ALARM_SHARE))

    def _contradictions(self, shape: Array, kept: Mask) -> tuple[Array, Array]:
        """Return contradictions and expected places of the kept points, NaN for others.

        With the precision P of deviations e whose pose is free, a point's contradiction is (Pe)ᵢ' Pᵢᵢ⁻¹ (Pe)ᵢ, and
        the others suggest it at e - Pᵢᵢ⁻¹ (Pe)ᵢ from its mean (conditional of a Gaussian; Rue & Held 2005, 2.2).
        """
        n = len(shape)
        contradiction, expected = np.full(n, np.nan), np.full((n, 2), np.nan)
        index = np.flatnonzero(kept)
        if len(index) < FEWEST_POINTS - 1:
            return contradiction, expected
        pairs = (2 * index[:, None] + np.arange(2)).ravel()
        precision = _free_precision(self.cov[np.ix_(pairs, pairs)], self.mean[index])
        away = (shape[index] - self.mean[index]).ravel()
        pull = (precision @ away).reshape(-1, 2)
        for k, point in enumerate(index):
            own = precision[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] + 1e-9 * np.eye(2)
            step = np.linalg.solve(own, pull[k])
            contradiction[point], expected[point] = pull[k] @ step, shape[point] - step
        return contradiction, expected


def learn_robust_shapes(posed: Posed) -> RobustShapes:
    """Learn how shapes vary on the half that agrees best.

    Raises:
        InputError: a landmark that too few shapes have.
    """
    distance = posed.misfit
    usable = np.flatnonzero(np.isfinite(distance))
    shapes = RobustShapes(posed.standard, np.eye(2 * len(posed.standard)), np.ones(len(posed.standard)))
    for _ in range(_CONCENTRATIONS):
        kept = usable[np.argsort(distance[usable], kind="stable")[: max(MIN_CASES, len(usable) // 2)]]
        known = are_known(posed.points[kept])
        model = learn_shape_model(np.nan_to_num(posed.points[kept]), known)
        shapes = RobustShapes(*_in_pose_of(model, posed.standard), shapes.usual)
        distance = np.full(len(distance), np.inf)
        distance[usable] = [_distance(shapes, posed.points[row]) for row in usable]
    found = np.array([shapes._contradictions(s, are_known(s))[0] for s in posed.points[usable]])
    return RobustShapes(shapes.mean, shapes.cov, np.nan_to_num(_column_medians(found), nan=1.0))


def _distance(shapes: RobustShapes, shape: Array) -> float:
    """Return a shape's squared Mahalanobis distance per degree of freedom that its pose leaves."""
    index = np.flatnonzero(are_known(shape))
    pairs = (2 * index[:, None] + np.arange(2)).ravel()
    away = (shape[index] - shapes.mean[index]).ravel()
    precision = _free_precision(shapes.cov[np.ix_(pairs, pairs)], shapes.mean[index])
    return float(away @ precision @ away) / (len(pairs) - 4)


def _free_precision(cov: Array, mean: Array) -> Array:
    """Return the inverse covariance of deviations whose pose (shift, turn, zoom) is free: W - WA (A'WA)⁻¹ A'W."""
    x, y = mean.T
    one, zero = np.ones(len(mean)), np.zeros(len(mean))
    basis = np.stack([[x, y], [-y, x], [one, zero], [zero, one]]).transpose(2, 1, 0).reshape(-1, 4)
    inverse = np.linalg.inv(cov + _NOISE**2 * np.eye(len(cov)))
    carried = inverse @ basis
    return np.asarray(inverse - carried @ np.linalg.solve(basis.T @ carried, carried.T))


def _in_pose_of(model: ShapeModel, standard: Array) -> tuple[Array, Array]:
    """Return a model's mean and covariance, turned and zoomed as the standard is."""
    w, z = (points[:, 0] + 1j * points[:, 1] for points in (model.mean, standard))
    both = np.isfinite(z)
    w0, z0 = w[both].mean(), z[both].mean()
    turn = np.vdot(w[both] - w0, z[both] - z0) / np.vdot(w[both] - w0, w[both] - w0)
    matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    block = np.kron(np.eye(len(w)), matrix)
    return _pairs(turn * (w - w0) + z0), np.asarray(block @ model.cov @ block.T)


def _normalised(shape: Complex) -> Complex:
    known = shape[np.isfinite(shape)]
    size = float(np.sqrt((np.abs(known - known.mean()) ** 2).mean()))
    return np.asarray((shape - known.mean()) / max(size, 1e-12))


def _median(z: Complex) -> Complex:
    return np.asarray(_column_medians(z.real) + 1j * _column_medians(z.imag))


def _column_medians(values: Array) -> Array:
    """Return medians over what is known; NaN for a landmark that nobody placed."""
    known = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(column) if len(column) else np.nan for column in known])


def _pairs(z: Complex) -> Array:
    return np.stack([z.real, z.imag], axis=-1)
