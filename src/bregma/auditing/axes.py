"""Diameters that should be the axes of one ellipse: they halve each other at right angles, or are placed carelessly.

That holds for each image by itself, so no label of another image, wrong or right, has a part in it. The distance to the
axes that lie nearest by least squares is also the least that the four ends together can be wrong by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bregma.auditing.evidence import ALARM_TIMES, Evidence, are_known
from bregma.geometry import Array
from bregma.schema import LandmarkSchema

_PRIMITIVE, _ROLES = "ellipse_perimeter", ("a", "b", "c", "d")
_WORDS = "the diameters do not halve each other at right angles"
_ALARM_SHARE = 0.1
"""An end this share of the ellipse's size away from the nearest axes is as likely a fault as not.

About 5 % of a head's long diameter. The usual deviation is no standard here: the nearest axes are exact.
"""


def declared_axes(schema: LandmarkSchema) -> NDArray[np.intp]:
    """Return the four ends ``(K, 4)`` of the axes, both ends of one after both of the other, of every ellipse measured.

    An ellipse is known by a measurement of its perimeter; one that runs over a chain's levels is left out.
    """
    measured = [spec for spec in schema.measurements if spec.primitive == _PRIMITIVE and spec.along is None]
    ends = {tuple(schema.index(spec.points[role]) for role in _ROLES): None for spec in measured}
    return np.array(list(ends), dtype=np.intp).reshape(-1, 4)


def nearest_axes(ends: Array) -> Array:
    """Return the ends ``(..., 4, 2)`` of the axes of an ellipse that lie nearest to given ends, by least squares.

    With half diameters U and V as complex numbers, axes at the angle θ explain (Re U e⁻ⁱᶿ)² + (Im V e⁻ⁱᶿ)² of them,
    that is (|U|² + |V|² + Re (U² - V²) e⁻²ⁱᶿ) / 2; it is largest at θ = arg(U² - V²) / 2. The centre is the mean.

    Args:
        ends: ``(..., 4, 2)`` both ends of a diameter, then both of the other; as long along x as along y.
    """
    z = ends[..., 0] + 1j * ends[..., 1]
    centre, u, v = z.mean(axis=-1), (z[..., 0] - z[..., 1]) / 2, (z[..., 2] - z[..., 3]) / 2
    axis = np.exp(0.5j * np.angle(u**2 - v**2))
    along, across = (u * axis.conj()).real * axis, 1j * (v * axis.conj()).imag * axis
    found = centre[..., None] + np.stack([along, -along, across, -across], axis=-1)
    return np.stack([found.real, found.imag], axis=-1)


def axes_evidence(points: Array, schema: LandmarkSchema) -> Evidence | None:
    """Compare diameters with the nearest ones that halve each other at right angles.

    Which of the four ends is wrong is not known, so no place is expected of any.

    Args:
        points: ``(C, N, 2)`` labels, NaN where there is none; as long along x as along y.
        schema: tells which points are the ends of an ellipse's axes.

    Returns:
        None where the schema measures no ellipse.
    """
    ellipses = declared_axes(schema)
    if not len(ellipses):
        return None
    share = np.full(points.shape[:2], np.nan)
    for ends in ellipses:
        share[:, ends] = np.fmax(share[:, ends], _deviations(points[:, ends]))
    times = np.nan_to_num(ALARM_TIMES * share / _ALARM_SHARE)
    reasons = {(int(row), int(index)): _WORDS for row, index in np.argwhere(times > 0)}
    return Evidence("axes", times, np.full(points.shape, np.nan), reasons)


def _deviations(ends: Array) -> Array:
    """Return distances ``(C, 4)`` from the nearest axes as shares of the ellipse's size; NaN if an end is missing."""
    nearest = nearest_axes(ends)
    away, centred = np.linalg.norm(ends - nearest, axis=-1), ends - ends.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=-1).mean(axis=1))
    whole = are_known(ends).all(axis=1) & (size > 0)
    return np.where(whole[:, None], away / np.where(whole, size, 1.0)[:, None], np.nan)
