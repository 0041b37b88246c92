"""Landmarks at the ends of an ellipse's axes, put where all of its outline was seen.

The points start an ellipse with axes at right angles on the original image. Across its outline, at many places, the
network's map is read as a profile: how far off the middle of its mass is, how much of it there is, and how wide it is.
Gauss-Newton steps bring ellipse, profiles and points together, each weighed by what it is sure of; profiles and points
that contradict the rest lose their weight. Where too little of the outline is seen, the points stay and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from bregma import geometry
from bregma.ellipse import Ellipse, at_right_angles, fit_conic, tukey, unit_normals
from bregma.errors import InputError
from bregma.geometry import Array
from bregma.shape_model import isotropic
from bregma.types import Prediction

LEAST_SEEN = 0.4
"""Share of an outline that must be seen for the points to follow it."""
_SURE = 0.8
"""Share from which no other start is tried."""
_FARTHEST = 0.2
"""Points further from the outline than this share of the shorter semi-axis do not belong to it."""
_PLACES = 72
"""Profiles of an outline: every five degrees."""
_ARCS = 12.0
"""Places of an outline that err independently: what a network takes for the border goes on for some 30 degrees."""
_STEP_CELLS = 0.5
_LEAST_VARIANCE = 0.01
"""Cells² that a profile's middle is off at least."""
_FIRST_BAND, _LEAST_BAND = 8.0, 3.0
"""Half-width of the profiles in the target's standard deviations, at first and at least."""
_FLOOR_CELLS = 0.25
"""Scale of deviations below which no profile is an outlier."""
_DEGREES = 4.0
"""Degrees of freedom of the t distribution that the points are taken to have."""
_ROUNDS = 12
_SETTLED_CELLS = 1e-3
_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])
_ENDS: Array = np.array([0.0, np.pi, np.pi / 2, 3 * np.pi / 2])
_ANGLES: Array = np.linspace(0.0, 2 * np.pi, _PLACES, endpoint=False)


@dataclass(frozen=True)
class Seen:
    """An outline as a network sees it.

    Attributes:
        ends: positions of the landmarks at the ends of the ellipse's first axis, and of its second.
        p: ``(H, W)`` probability over cells.
        to_cells: ``(3, 3)`` from pixels of the original image to cells.
        sigma_cells: standard deviation, across the outline, of what the network was trained on.
    """

    ends: tuple[int, int, int, int]
    p: Array
    to_cells: Array
    sigma_cells: float


def place_on_outline(prediction: Prediction, seen: Seen) -> Prediction:
    """Return a prediction with the ends of an ellipse's axes where its outline was seen, and how surely.

    An axis stays the first or second that it was, and each end the one that it was nearer to. Where less than
    :data:`LEAST_SEEN` of the outline is seen, or most points are far from it, all stay as they are and are flagged.
    """
    scene = _Scene(prediction, seen)
    fit = scene.best()
    index = list(seen.ends)
    if fit is None or (reason := scene.doubt(fit)):
        return _flagged(prediction, index, "the outline was not seen" if fit is None else reason)
    mean, cov = np.array(prediction.mean), np.array(prediction.cov)
    mean[index], cov[index] = scene.ends(fit)
    return replace(prediction, mean=mean, cov=cov)


def _flagged(prediction: Prediction, index: Sequence[int], reason: str) -> Prediction:
    flags = list(prediction.flags or ("",) * len(prediction))
    for n in index:
        flags[n] = flags[n] or reason
    return replace(prediction, flags=tuple(flags))


@dataclass(frozen=True)
class _Profiles:
    """What the map shows across an ellipse.

    Attributes:
        jacobian: ``(n, 5)`` how far the outline moves along its normal, in cells, with the ellipse's numbers.
        away: ``(n,)`` middle of the mass beyond the outline, in cells.
        variance: ``(n,)`` in cells², that of the target included.
        share: ``(n,)`` mass over that of an outline which is all there, 1 at most.
    """

    jacobian: Array
    away: Array
    variance: Array
    share: Array


@dataclass(frozen=True)
class _Fit:
    """An ellipse: centre, first semi-axis, and the ratio of the second to it; with covariance and share seen."""

    theta: Array
    cov: Array
    share: float


class _Scene:
    """One image: four points and the map of their outline, in pixels made isotropic."""

    def __init__(self, prediction: Prediction, seen: Seen) -> None:
        self.seen, self.factors = seen, isotropic(prediction.frame)
        index = list(seen.ends)
        self.points = prediction.mean[index] * self.factors
        self.sure = np.linalg.inv(prediction.cov[index] * np.outer(self.factors, self.factors))
        self.to_cells = seen.to_cells @ np.diag([*(1 / self.factors), 1.0])
        half = (self.points[0] - self.points[1], self.points[2] - self.points[3])
        self.side = -1.0 if np.linalg.det(np.stack(half)) < 0 else 1.0
        self.variance = seen.sigma_cells**2

    def best(self) -> _Fit | None:
        """Return the fit from the points or, where it finds little, the better of that and one from the map alone."""
        fits = [fit for fit in (self._settled(self._from_points()),) if fit is not None]
        if not fits or fits[0].share < _SURE:
            fits += [fit for start in self._from_map() if (fit := self._settled(start)) is not None]
        return max(fits, key=lambda fit: fit.share, default=None)

    def doubt(self, fit: _Fit) -> str:
        """Return why a fit is not to be trusted; empty where nothing speaks against it."""
        if fit.share < LEAST_SEEN:
            return f"only {fit.share:.0%} of the outline was seen"
        ellipse = self._ellipse(fit.theta)
        away = np.abs(ellipse.distance(self.points))
        # What a point does not know, it does not hold against the outline.
        spread = np.sqrt(np.linalg.eigvalsh(np.linalg.inv(self.sure))[:, 1])
        far = away > _FARTHEST * ellipse.semi_axes[1] + 3 * spread
        return "most points are far from the outline that was seen" if far.sum() > 2 else ""

    def ends(self, fit: _Fit) -> tuple[Array, Array]:
        """Return the ends ``(4, 2)`` and their covariances ``(4, 2, 2)`` in pixels of the original image."""
        jacobian = self._jacobian(fit.theta, _ENDS)
        cov = np.einsum("nij,jk,nlk->nil", jacobian, fit.cov, jacobian)
        return self._ellipse(fit.theta).ends / self.factors, cov / np.outer(self.factors, self.factors)

    def _from_points(self) -> Array | None:
        first, second = (self.points[i] - self.points[i + 1] for i in (0, 2))
        return self._theta(self.points.mean(axis=0), first / 2, second / 2)

    def _from_map(self) -> list[Array]:
        """Return the direct fit to all of the map, with either of its axes as the first."""
        rows, columns = np.nonzero(self.seen.p > 0.1 * self.seen.p.max())
        cells = np.stack([columns, rows], axis=1).astype(np.float64)
        try:
            whole = fit_conic(geometry.apply(geometry.invert(self.to_cells), cells), self.seen.p[rows, columns])
        except InputError:
            return []
        starts = [self._theta(whole.centre, *axes) for axes in ((whole.u, whole.v), (whole.v, whole.u))]
        gaps = [np.inf if s is None else self._gap(self._nearest(s)) for s in starts]
        best = starts[int(np.argmin(gaps))]
        return [] if best is None else [self._nearest(best)]

    def _nearest(self, theta: Array) -> Array:
        """Return the same ellipse with its first axis turned by half a circle, if its ends then are nearer."""
        other = theta * [1, 1, -1, -1, 1]
        return min(theta, other, key=self._gap)

    def _gap(self, theta: Array) -> float:
        away = self._ellipse(theta).ends - self.points
        return float(np.einsum("ni,nij,nj->", away, self.sure, away))

    def _theta(self, centre: Array, first: Array, second: Array) -> Array | None:
        """Return the ellipse with axes at right angles nearest to two semi-diameters; None where one has no length."""
        axes = at_right_angles(first, second)
        return None if axes is None else np.concatenate([centre, axes[0], [axes[1]]])

    def _ellipse(self, theta: Array) -> Ellipse:
        return Ellipse(theta[:2], theta[2:4], theta[4] * self.side * _QUARTER @ theta[2:4])

    def _jacobian(self, theta: Array, angles: Array) -> Array:
        """Return the derivatives ``(n, 2, 5)`` of points of the outline by the ellipse's numbers."""
        cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
        unit, turned = np.broadcast_to(np.eye(2), (len(angles), 2, 2)), self.side * _QUARTER
        ratio = sin * (turned @ theta[2:4])[None, :, None]
        return np.concatenate([unit, cos * np.eye(2) + theta[4] * sin * turned, ratio], axis=2)

    def _settled(self, theta: Array | None) -> _Fit | None:
        """Return where Gauss-Newton steps lead; None where they lead nowhere."""
        band, cov, share = _FIRST_BAND * self.seen.sigma_cells, np.eye(5), 0.0
        for _ in range(_ROUNDS):
            if theta is None:
                return None
            seen = self._profiles(theta, band)
            weights = seen.share * tukey(seen.away / self._scale(seen))
            total = weights.sum()
            share = float(weights.mean())
            if total <= 0:
                return None
            extra = np.maximum(seen.variance - self.variance, 0) + _LEAST_VARIANCE + seen.away**2
            weights = weights * (_ARCS / _PLACES / (weights @ extra / total))
            step, cov = self._step(theta, seen, weights)
            moved = theta + step
            theta = moved if moved[4] > 0.05 and np.linalg.norm(moved[2:4]) > 1e-6 else None
            spread = np.sqrt(seen.share @ seen.variance / seen.share.sum())
            narrower = np.clip(_LEAST_BAND * spread, _LEAST_BAND * self.seen.sigma_cells, band)
            settled = np.abs(seen.jacobian @ step).max() < _SETTLED_CELLS and narrower > 0.99 * band
            band = float(narrower)
            if settled:
                break
        return None if theta is None else _Fit(theta, cov, share)

    def _scale(self, seen: _Profiles) -> float:
        counted = seen.away[seen.share > 0]
        return max(_FLOOR_CELLS, 1.4826 * float(np.median(np.abs(counted)))) if len(counted) else _FLOOR_CELLS

    def _step(self, theta: Array, seen: _Profiles, weights: Array) -> tuple[Array, Array]:
        """Return a Gauss-Newton step ``(5,)``, and the covariance ``(5, 5)`` of where it leads."""
        ends = self._jacobian(theta, _ENDS)
        left = self.points - self._ellipse(theta).ends
        far = np.einsum("ni,nij,nj->n", left, self.sure, left)
        sure = self.sure * ((_DEGREES + 2) / (_DEGREES + far))[:, None, None]
        information = np.einsum("nij,nil,nlk->jk", ends, sure, ends) + (seen.jacobian.T * weights) @ seen.jacobian
        pull = np.einsum("nij,nil,nl->j", ends, sure, left) + (seen.jacobian.T * weights) @ seen.away
        cov = np.linalg.inv(information)
        return cov @ pull, cov

    def _profiles(self, theta: Array, band: float) -> _Profiles:
        """Read the map across the outline, as far as ``band`` cells on either side."""
        in_cells = self._ellipse(theta).under(self.to_cells)
        tangents = in_cells.tangents(_ANGLES)
        normals = unit_normals(tangents)
        count = int(np.ceil(band / _STEP_CELLS))
        offsets = np.linspace(-band, band, 2 * count + 1)
        x, y = np.moveaxis(in_cells.points(_ANGLES)[:, None] + offsets[:, None] * normals[:, None], -1, 0)
        found = map_coordinates(self.seen.p, [y, x], order=1, mode="constant", cval=0.0)
        # What a map shows beside an outline as well is no outline.
        found = np.maximum(found - np.minimum(found[:, :1], found[:, -1:]), 0)
        mass = found.sum(axis=1)
        there = np.where(mass > 0, mass, 1.0)
        away = found @ offsets / there
        variance = found @ offsets**2 / there - away**2
        length = float(np.linalg.norm(tangents, axis=1).mean() * 2 * np.pi)
        share = np.clip(mass * (offsets[1] - offsets[0]) * length, 0, 1)
        moves = ((normals @ self.to_cells[:2, :2])[:, None] @ self._jacobian(theta, _ANGLES))[:, 0]
        return _Profiles(moves, away, np.maximum(variance, 0), share)


def seen_of(
    ends: tuple[int, int, int, int], p_HW: NDArray[np.floating], matrix: Array, stride: int, sigma_cells: float
) -> Seen:
    """Return an outline's map as it is seen from the original image.

    Args:
        ends: see :class:`Seen`.
        p_HW: probability over cells.
        matrix: ``(3, 3)`` from pixels of the original image to those of the input.
        stride: of the map.
        sigma_cells: see :class:`Seen`.
    """
    shift = 0.5 / stride - 0.5
    to_cells = geometry.compose(matrix, geometry.scale(1 / stride), geometry.translate(shift, shift))
    return Seen(ends, np.asarray(p_HW, dtype=np.float64), to_cells, sigma_cells)
