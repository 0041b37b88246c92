"""The band about an ellipse, unrolled into a picture: rows go around it, columns from inside to outside.

Wherever an outline runs, whichever way it is turned and however large it is, it is a line down the middle of its
picture, and all parts of it are learned from as one. A network that is to find where the line truly runs sees it at a
fine step across, which is the direction that measures, and a coarse one along. Irises are unrolled likewise (Daugman,
IEEE PAMI 1993; 15:1148-1161).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bregma.ellipse import Ellipse, at_right_angles, tukey
from bregma.errors import InputError
from bregma.geometry import Array

ANGLES, OFFSETS = 128, 48
"""Rows once around, and columns across."""
WRAP = 16
"""Rows at either end that show again what lies at the other one, so that the picture has no border there."""
ROWS = ANGLES + 2 * WRAP
EVERY = 4
"""Rows that a sample of the line stands for."""
SAMPLES = ROWS // EVERY
BAND = 0.22
"""How far the picture reaches to either side, in shorter semi-axes."""
_NEWTON = 6
_QUARTER: Array = np.array([[0.0, -1.0], [1.0, 0.0]])
"""Turns by a right angle, from x to y."""
_ARCS = 12.0
"""Places of an outline that err independently: what a network takes for the border goes on for some 30 degrees."""
_FLOOR = 0.01
"""Standard deviation of a sample that is taken at least, in shorter semi-axes."""
_ROUNDS = 20
_SETTLED = 1e-6
_TO_SD = 1.4826
"""What the median of absolute errors is multiplied by to be the standard deviation of Gaussian ones."""
_COARSER = 3.0
_WORST = 0.08
"""Scale of the samples' distances, in shorter semi-axes, beyond which they are no ellipse's."""


@dataclass(frozen=True)
class Start:
    """An ellipse about which an image is unrolled, and from where and which way around.

    Attributes:
        ellipse: with axes at right angles, in pixels times ``factors``.
        factors: ``(2,)`` what makes pixels square.
        first: parameter of the ellipse that the first row once around shows, in radians.
        backwards: whether the rows go the other way around.
    """

    ellipse: Ellipse
    factors: Array
    first: float = 0.0
    backwards: bool = False

    @property
    def angles(self) -> Array:
        """``(ROWS,)`` parameters of the ellipse."""
        turn = 2 * np.pi * (np.arange(ROWS) - WRAP) / ANGLES
        return np.asarray(self.first + (-turn if self.backwards else turn))

    @property
    def unit(self) -> float:
        """The shorter semi-axis, in which distances across are counted."""
        return self.ellipse.semi_axes[1]

    def picture(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the band ``(ROWS, OFFSETS)`` of an image ``(H, W)``; beyond the image there is 0."""
        across = np.linspace(-BAND, BAND, OFFSETS) * self.unit
        angles = self.angles
        places = self.ellipse.points(angles)[:, None] + across[None, :, None] * self.ellipse.normals(angles)[:, None]
        places = places / self.factors
        step = float(across[1] - across[0]) / float(np.sqrt(self.factors.prod()))
        # Across the outline, pixels finer than the picture's are averaged, so that none is left out.
        part = cv2.GaussianBlur(image, (0, 0), 0.5 * step) if step > 1.5 else image
        x, y = np.moveaxis(places.astype(np.float32), -1, 0)
        return np.asarray(cv2.remap(part.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=0.0))

    def line(self, other: Ellipse) -> Array:
        """Return where another ellipse runs on the picture: points ``(SAMPLES, 2)``, ``(x, y)`` in its pixels."""
        rows = _rows()
        angles = np.interp(rows, np.arange(ROWS), self.angles)
        points, normals = self.ellipse.points(angles), self.ellipse.normals(angles)
        away = np.zeros(len(angles))
        for _ in range(_NEWTON):
            away = away - other.distance(points + away[:, None] * normals)
        return np.stack([_column(away / self.unit), rows], axis=1)

    def places(self, line: Array, variance: Array) -> tuple[Array, Array]:
        """Return where samples of a line, once around, lie: points ``(n, 2)``, and their variances across.

        Args:
            line: ``(SAMPLES,)`` columns of the picture.
            variance: ``(SAMPLES,)`` across, in columns².
        """
        rows = _rows()
        once = (rows > WRAP - 0.5) & (rows < ROWS - WRAP - 0.5)
        angles = np.interp(rows[once], np.arange(ROWS), self.angles)
        per_column = 2 * BAND / (OFFSETS - 1)
        away = (line[once] * per_column - BAND) * self.unit
        spread = np.asarray((variance[once] * per_column**2 + _FLOOR**2) * self.unit**2, dtype=np.float64)
        return self.ellipse.points(angles) + away[:, None] * self.ellipse.normals(angles), spread


def views_of(start: Start) -> tuple[Start, ...]:
    """Return the same ellipse unrolled from two sides and either way around."""
    return tuple(
        replace(start, first=start.first + turn, backwards=backwards)
        for turn in (0.0, np.pi)
        for backwards in (False, True)
    )


def ellipse_along(
    views: Sequence[Start], lines: Sequence[Array], variances: Sequence[Array], *, turn_sd: float
) -> tuple[Ellipse, Array]:
    """Return the ellipse that is nearest to the samples of a line, and the covariances ``(4, 2, 2)`` of its ends.

    Gauss-Newton steps on the distance, with Tukey's biweight. Which way its axes point, a line that is nearly round
    does not say: the turn from the ellipse that the views are of is held to be 0, as surely as is given. The
    covariance grows where samples lie further off than they are said to.

    Args:
        views: of one ellipse, which the line is near to.
        lines: of every view, ``(SAMPLES,)`` columns of its picture.
        variances: likewise, in columns².
        turn_sd: how surely, in radians, the direction of the axes was known before.

    Raises:
        InputError: a line leaves its picture, or the samples lie on no ellipse.
    """
    for line in lines:
        if line.min() < 1 or line.max() > OFFSETS - 2:
            raise InputError("the outline leaves the band that was looked at")
    read = [view.places(*pair) for view, *pair in zip(views, lines, variances, strict=True)]
    points, spread = np.concatenate([one[0] for one in read]), np.concatenate([one[1] for one in read])
    # Samples of an arc, and views of one image, do not err independently.
    single = _ARCS / (len(points) * spread)
    ellipse, unit, turned, known = views[0].ellipse, views[0].unit, 0.0, turn_sd**-2
    for _ in range(_ROUNDS):
        away = ellipse.distance(points)
        scale = max(_FLOOR * unit, _TO_SD * float(np.median(np.abs(away))))
        used = tukey(away / scale)
        across = ellipse.across(points)
        information = (across.T * (used * single)) @ across
        information[4, 4] += known
        pull = across.T @ (used * single * away)
        pull[4] -= known * turned
        step = np.linalg.solve(information, pull)
        ellipse, turned = ellipse.moved(step), turned + step[4]
        if np.abs(step[:4]).max() < _SETTLED * unit and abs(step[4]) < _SETTLED:
            break
    if scale > _WORST * unit:
        raise InputError("the samples of the outline lie on no ellipse")
    misfit = float((used * away**2 / spread).sum() / used.sum())
    named, angles = _named(ellipse, views[0].ellipse)
    ends, cov = ellipse.moves(angles), max(1.0, misfit) * np.linalg.inv(information)
    return named, np.asarray(np.einsum("nij,jk,nlk->nil", ends, cov, ends))


def _named(ellipse: Ellipse, before: Ellipse) -> tuple[Ellipse, Array]:
    """Return an ellipse with its axes called as those that they point along, and where its ``ends`` are on the given.

    On the way from one that is nearly round a step may turn by a right angle, and the first axis become the second.
    """
    axes = np.stack([ellipse.u, -ellipse.u, ellipse.v, -ellipse.v])
    angles = np.array([0.0, np.pi, np.pi / 2, 3 * np.pi / 2])
    first = int((axes @ before.u / np.linalg.norm(axes, axis=1)).argmax())
    rest = [2, 3] if first < 2 else [0, 1]
    second = max(rest, key=lambda n: float(axes[n] @ before.v))
    return (
        Ellipse(ellipse.centre, axes[first], axes[second]),
        np.array([angles[first], angles[first] + np.pi, angles[second], angles[second] + np.pi]),
    )


def direction_sd(start: Start, cov: Array) -> float:
    """Return how surely, in radians, the direction of an ellipse's axes is known by its ends.

    It is three times what their covariances say: they come from a coarser look at the same image, whose error in the
    direction is the second look's too.

    Args:
        start: the ellipse.
        cov: ``(4, 2, 2)`` of its ends, in pixels.
    """
    scaled = cov * np.outer(start.factors, start.factors)
    known = 0.0
    for place, axis in ((0, start.ellipse.u), (2, start.ellipse.v)):
        length = float(np.linalg.norm(axis))
        along = _QUARTER @ axis / length
        sideways = float(along @ (scaled[place] + scaled[place + 1]) @ along) / 4
        known += length**2 / max(sideways, 1e-12)
    return float(_COARSER * known**-0.5)


def start_of(ends: Array, factors: Array) -> Start | None:
    """Return the ellipse by the ends ``(4, 2)`` of its first axis, then of its second; None without extent.

    Args:
        ends: in pixels.
        factors: ``(2,)`` what makes pixels square.
    """
    p = ends * factors
    axes = at_right_angles((p[0] - p[1]) / 2, (p[2] - p[3]) / 2)
    if axes is None:
        return None
    u, ratio, side = axes
    ellipse = Ellipse(p.mean(axis=0), u, ratio * side * _QUARTER @ u)
    return None if ellipse.semi_axes[1] < 1.0 else Start(ellipse, factors)


def moved(start: Start, rng: np.random.Generator) -> Start:
    """Return a start as far off the true ellipse as a network may be, from anywhere and either way around.

    Most are off by about 2 % in place and size and by 3 degrees; three in ten by two and a half times as much.
    """
    far = 2.5 if rng.random() < 0.3 else 1.0
    e = far * rng.standard_normal(5)
    one, unit = start.ellipse, start.unit
    turn = 0.05 * e[4]
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    ellipse = Ellipse(
        one.centre + 0.018 * unit * e[:2], np.exp(0.018 * e[2]) * turned @ one.u, np.exp(0.014 * e[3]) * turned @ one.v
    )
    return Start(ellipse, start.factors, float(rng.uniform(0, 2 * np.pi)), bool(rng.random() < 0.5))


def _rows() -> Array:
    """Return the rows ``(SAMPLES,)`` in whose middle the samples lie."""
    return np.asarray(EVERY * np.arange(SAMPLES) + (EVERY - 1) / 2, dtype=np.float64)


def _column(away: Array) -> Array:
    return np.asarray((away + BAND) / (2 * BAND) * (OFFSETS - 1))
