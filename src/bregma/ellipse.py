"""Ellipses: through their diameters, along their outline, the distance to it, and their fit to weighted points.

An ellipse is its centre and two conjugate semi-diameters, ``x(t) = c + u cos t + v sin t``. That form stays right under
every affine map: the images of u and v are conjugate again, though the images of axes need not be axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bregma import geometry
from bregma.errors import InputError
from bregma.geometry import Array, weighted_median

_ROUNDS = 20
_TUKEY = 4.685
"""Distance in scales from which a point has no weight: 95 % efficient where errors are Gaussian (Huber, 1981)."""
_SETTLED = 1e-6
_NOTHING = 1e-6
"""Length from which a semi-diameter has a direction."""
_TO_SD = 1.4826
"""What the median of absolute errors is multiplied by to be the standard deviation of Gaussian ones."""
_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])
"""Turns by a right angle, from x to y."""


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in the plane.

    Attributes:
        centre: ``(2,)``.
        u: ``(2,)`` a semi-diameter.
        v: ``(2,)`` the one conjugate to it: the tangent where u ends is parallel to v.

    Raises:
        InputError: not finite, or both semi-diameters on one line.
    """

    centre: Array
    u: Array
    v: Array

    def __post_init__(self) -> None:
        for name in ("centre", "u", "v"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64).reshape(2))
        if not np.isfinite([self.centre, self.u, self.v]).all():
            raise InputError("an ellipse needs finite numbers")
        if abs(np.linalg.det(self.matrix)) <= 1e-12 * (self.matrix**2).sum():
            raise InputError("this ellipse is a line", got=f"semi-diameters {self.u.tolist()} and {self.v.tolist()}")

    @property
    def matrix(self) -> Array:
        """``(2, 2)`` with u and v as columns, which makes the ellipse of a unit circle."""
        return np.stack([self.u, self.v], axis=1)

    @property
    def semi_axes(self) -> tuple[float, float]:
        """The longer and the shorter semi-axis."""
        longer, shorter = np.linalg.svd(self.matrix, compute_uv=False)
        return float(longer), float(shorter)

    @property
    def ends(self) -> Array:
        """``(4, 2)`` ends of both diameters: ``c + u``, ``c - u``, ``c + v``, ``c - v``."""
        return self.centre + np.stack([self.u, -self.u, self.v, -self.v])

    def points(self, angles: ArrayLike) -> Array:
        """Return ``(n, 2)`` points of the outline at parameters ``(n,)`` in radians."""
        t = np.asarray(angles, dtype=np.float64)[:, None]
        return np.asarray(self.centre + np.cos(t) * self.u + np.sin(t) * self.v)

    def tangents(self, angles: ArrayLike) -> Array:
        """Return the derivatives ``(n, 2)`` of :meth:`points` by their parameter."""
        t = np.asarray(angles, dtype=np.float64)[:, None]
        return np.asarray(np.cos(t) * self.v - np.sin(t) * self.u)

    def normals(self, angles: ArrayLike) -> Array:
        """Return unit vectors ``(n, 2)`` at right angles to the outline, outward, at parameters ``(n,)``."""
        normals = unit_normals(self.tangents(angles))
        out = np.einsum("ni,ni->n", normals, self.points(angles) - self.centre)
        return np.asarray(normals * np.sign(out)[:, None])

    def moves(self, angles: ArrayLike) -> Array:
        """Return the derivatives ``(n, 2, 5)`` of :meth:`points` by the numbers that :meth:`moved` changes."""
        t = np.asarray(angles, dtype=np.float64)[:, None]
        u, v = (d / np.linalg.norm(d) for d in (self.u, self.v))
        turned = (self.points(angles) - self.centre) @ _QUARTER.T
        shift = np.broadcast_to(np.eye(2), (len(t), 2, 2))
        return np.concatenate([shift, np.stack([np.cos(t) * u, np.sin(t) * v, turned], axis=-1)], axis=-1)

    def across(self, points: Array) -> Array:
        """Return how far the outline comes towards points ``(n, 2)``, ``(n, 5)``, with the same numbers."""
        relative = (points - self.centre) @ np.linalg.inv(self.matrix).T
        angles = np.arctan2(relative[:, 1], relative[:, 0])
        return np.asarray(np.einsum("ni,nij->nj", self.normals(angles), self.moves(angles)))

    def moved(self, step: ArrayLike) -> Ellipse:
        """Return the ellipse after a step ``(5,)``: shifted in x and y, u and v made longer, both turned together.

        The turn is in radians from x to y; u and v stay at the angle to each other that they have.
        """
        numbers = np.asarray(step, dtype=np.float64)
        longer_u, longer_v, turn = numbers[2:]
        cos, sin = np.cos(turn), np.sin(turn)
        rotation = np.array([[cos, -sin], [sin, cos]])
        lengths = ((self.u, longer_u), (self.v, longer_v))
        u, v = (rotation @ (d * (1 + longer / np.linalg.norm(d))) for d, longer in lengths)
        return Ellipse(self.centre + numbers[:2], u, v)

    def under(self, matrix: Array) -> Ellipse:
        """Return the image of the ellipse under an affine map ``(3, 3)``."""
        return Ellipse(geometry.apply(matrix, self.centre[None])[0], matrix[:2, :2] @ self.u, matrix[:2, :2] @ self.v)

    def on_axes(self) -> Ellipse:
        """Return the same ellipse with its axes as diameters: u along the longer, v a right angle from it, x to y."""
        directions, lengths, _ = np.linalg.svd(self.matrix)
        return Ellipse(self.centre, lengths[0] * directions[:, 0], lengths[1] * _QUARTER @ directions[:, 0])

    def distance(self, points: ArrayLike) -> Array:
        """Return signed distances ``(n,)`` of points ``(n, 2)`` to the outline, positive outside.

        They are first order in the distance, ``(ρ - 1) / |∇ρ|`` with ρ the point's radius where the ellipse is the unit
        circle: exact on the outline, along the axes and for circles.
        """
        inverse = np.linalg.inv(self.matrix)
        w = (np.asarray(points, dtype=np.float64) - self.centre) @ inverse.T
        radius = np.linalg.norm(w, axis=1)
        # At the centre the gradient has every direction; the nearest outline is a shorter semi-axis away.
        steepness = np.where(radius > 0, np.linalg.norm(w @ inverse, axis=1), 1 / self.semi_axes[1])
        return np.asarray((radius - 1) * np.where(radius > 0, radius, 1.0) / steepness)


def at_right_angles(first: Array, second: Array) -> tuple[Array, float, float] | None:
    """Return the axes nearest to two semi-diameters: the first one ``(2,)``, the second one over it, and its side.

    An axis points where the first semi-diameter, and the second turned by a right angle, point together. The second
    one is the first turned from x to y, times the ratio, times the side, 1 or -1. None where one has no length.
    """
    side = -1.0 if first[0] * second[1] - first[1] * second[0] < 0 else 1.0
    lengths = np.linalg.norm([first, second], axis=1)
    along = first + side * second @ _QUARTER
    size = float(np.linalg.norm(along))
    if min(*lengths, size) < _NOTHING:
        return None
    return lengths[0] * along / size, float(lengths[1] / lengths[0]), side


def through_diameters(first: ArrayLike, second: ArrayLike) -> Ellipse:
    """Return the ellipse with two diameters ``(2, 2)`` each, about the middle of their four ends.

    Raises:
        InputError: they lie on one line, or one has no length.
    """
    ends = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    half = (ends[:, 0] - ends[:, 1]) / 2
    return Ellipse(ends.mean(axis=(0, 1)), half[0], half[1])


def fit_conic(points: ArrayLike, weights: ArrayLike | None = None) -> Ellipse:
    """Return the ellipse of least algebraic distance to weighted points, with its axes as diameters.

    The direct fit of Fitzgibbon, Pilu and Fisher (IEEE PAMI 21, 1999) in the numerically stable form of Halíř and
    Flusser (WSCG 1998). Where only a short arc is known, it falls short of the true ellipse.

    Args:
        points: ``(n, 2)``.
        weights: ``(n,)`` not negative; None for equal ones.

    Raises:
        InputError: fewer than five points count, or these lie on no ellipse.
    """
    x, w = _counted(points, weights)
    middle = w @ x
    size = float(np.sqrt(w @ ((x - middle) ** 2).sum(axis=1)))
    if size <= 1e-12 * np.abs(x).max():
        raise InputError("no ellipse goes through points that are all the same")
    conic = _conic((x - middle) / size, w)
    return _of_conic(conic).under(geometry.compose(geometry.scale(size), geometry.translate(*middle)))


def fit_ellipse(
    points: ArrayLike, weights: ArrayLike | None = None, *, start: Ellipse | None = None, floor: float = 1e-3
) -> Ellipse:
    """Return the ellipse of least distance to weighted points, some of which may belong to something else.

    Gauss-Newton steps on :meth:`Ellipse.distance`, with Tukey's biweight about it at a scale of 1.4826 times the
    weighted median of the absolute distances (Huber, Robust Statistics, 1981).

    Args:
        points: ``(n, 2)``.
        weights: ``(n,)`` not negative; None for equal ones.
        start: near the ellipse; None for :func:`fit_conic`.
        floor: least scale of the distances, in their unit.

    Raises:
        InputError: fewer than five points count, or these lie on no ellipse.
    """
    x, w = _counted(points, weights)
    ellipse = (fit_conic(x, w) if start is None else start).on_axes()
    for _ in range(_ROUNDS):
        away = ellipse.distance(x)
        scale = max(floor, _TO_SD * weighted_median(np.abs(away), w))
        step, fitted = _improved(ellipse, x, away, w * tukey(away / scale))
        ellipse = fitted
        if step <= _SETTLED * ellipse.semi_axes[1]:
            break
    return ellipse.on_axes()


def tukey(errors: Array) -> Array:
    """Return Tukey's biweights in 0..1 of errors in units of their scale."""
    return np.asarray(np.clip(1 - (errors / _TUKEY) ** 2, 0, None) ** 2)


def _improved(ellipse: Ellipse, x: Array, away: Array, weights: Array) -> tuple[float, Ellipse]:
    """Return the longest change of an end, and the ellipse after one weighted Gauss-Newton step."""
    root = np.sqrt(weights)
    step = np.linalg.lstsq(ellipse.across(x) * root[:, None], away * root, rcond=1e-10)[0]
    fitted = ellipse.moved(step)
    return float(np.abs(fitted.ends - ellipse.ends).max()), fitted


def unit_normals(tangents: Array) -> Array:
    """Return unit vectors ``(n, 2)`` at right angles to tangents; outward where these go from x to y."""
    away = tangents @ _QUARTER
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))


def _counted(points: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array]:
    x = np.asarray(points, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or x.shape[1:] != (2,) or w.shape != x.shape[:1]:
        raise InputError("points and weights do not fit", expected="(n, 2) and (n,)", got=f"{x.shape} and {w.shape}")
    if not np.isfinite(x).all() or not np.isfinite(w).all() or (w < 0).any():
        raise InputError("points must be finite, and weights finite and not negative")
    if (count := int((w > 0).sum())) < 5:
        raise InputError("an ellipse needs five points", got=str(count))
    return x[w > 0], w[w > 0] / w.sum()


def _conic(x: Array, w: Array) -> Array:
    """Return ``(6,)`` coefficients of x², xy, y², x, y and 1: Halíř and Flusser, figure 2."""
    square = np.stack([x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1)
    linear = np.column_stack([x, np.ones(len(x))])
    s1, s2, s3 = square.T @ (w[:, None] * square), square.T @ (w[:, None] * linear), linear.T @ (w[:, None] * linear)
    if np.linalg.cond(s3) > 1e12:
        raise InputError("these points lie on a line and on no ellipse")
    to_linear = -np.linalg.solve(s3, s2.T)
    reduced = s1 + s2 @ to_linear
    values, vectors = np.linalg.eig(np.stack([reduced[2] / 2, -reduced[1], reduced[0] / 2]))
    real = np.real(vectors)
    ellipses = np.flatnonzero((4 * real[0] * real[2] - real[1] ** 2 > 0) & (np.abs(np.imag(values)) < 1e-12))
    if not len(ellipses):
        raise InputError("these points lie on no ellipse")
    best = real[:, ellipses[0]]
    return np.concatenate([best, to_linear @ best])


def _of_conic(conic: Array) -> Ellipse:
    a, b, c, d, e, f = conic
    form = np.array([[a, b / 2], [b / 2, c]])
    centre = -np.linalg.solve(form, np.array([d, e])) / 2
    values, vectors = np.linalg.eigh(form / (centre @ form @ centre - f))
    if not (values > 0).all():
        raise InputError("these points lie on no ellipse")
    return Ellipse(centre, *(vectors / np.sqrt(values)).T)
