"""The curves of a scoliotic spine: between which vertebrae they are measured.

The definitions are those from which the angles of the AASCE 2019 challenge were computed (Wang et al., Med Image Anal
2021; 72:102115); they are worded in the reference on measurements. A vertebra's *axis* runs along the mean of its two
endplates, and the *line* of the spine through the middles of all endplates from the first to the last.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bregma.geometry import Array

EndLevels = tuple[int, int]


def main_curve(corners: Array, height: float) -> EndLevels:
    """The two vertebrae whose axes differ most."""
    angles = _angles(corners)
    upper, lower = np.unravel_index(int(angles.argmax()), angles.shape)
    return int(upper), int(lower)


def proximal_curve(corners: Array, height: float) -> EndLevels:
    """The curve above the main one.

    From the vertebra above the main curve whose axis differs most from that of its upper end; in a spine with a single
    bend, from the first vertebra.
    """
    upper, _ = main_curve(corners, height)
    return (_farthest(corners, range(upper + 1), upper) if _bends_both_ways(corners) else 0), upper


def distal_curve(corners: Array, height: float) -> EndLevels:
    """The curve below the main one or, where the main one lies in the image's lower half, the second one above it.

    To the vertebra whose axis differs most from that of the main curve's lower end (of the proximal curve's upper end);
    in a spine with a single bend, to the last vertebra.
    """
    upper, lower = main_curve(corners, height)
    last = len(corners) - 1
    if not _bends_both_ways(corners):
        return lower, last
    if corners[[upper, lower], 2:, 1].mean() < height / 2:
        return lower, _farthest(corners, range(lower, last + 1), lower)
    top = _farthest(corners, range(upper + 1), upper)
    return _farthest(corners, range(top + 1), top), top


CURVES: dict[str, Callable[[Array, float], EndLevels]] = {
    "main_curve": main_curve,
    "proximal_curve": proximal_curve,
    "distal_curve": distal_curve,
}
"""Every way to choose the two levels of a measurement by the name that schemas use (``between``).

Each takes the corners ``(L, 4, 2)`` of vertebrae from cranial to caudal (the ends of the upper endplate, then those of
the lower one from the same side) and the height of the image in the same unit, and returns two positions, the upper
one first.
"""


def axes(corners: Array) -> Array:
    """Return the axes ``(..., 2)`` of vertebrae ``(..., 4, 2)``, the means of their two endplates."""
    return np.asarray((corners[..., 1, :] - corners[..., 0, :] + corners[..., 3, :] - corners[..., 2, :]) / 2)


def _angles(corners: Array) -> Array:
    """Return the angles ``(L, L)`` between all axes in degrees, 0 to 180."""
    x, y = axes(corners).T
    return np.asarray(np.degrees(np.arctan2(np.abs(np.outer(x, y) - np.outer(y, x)), np.outer(x, x) + np.outer(y, y))))


def _farthest(corners: Array, among: range, end: int) -> int:
    return among[int(_angles(corners)[end, among].argmax())]


def _bends_both_ways(corners: Array) -> bool:
    """Tell whether the line of the spine crosses the straight line from its first to its last point."""
    middles = corners.reshape(-1, 2, 2).mean(axis=1)
    chord, arms = middles[-1] - middles[0], middles[1:-2] - middles[0]
    sides = chord[0] * arms[:, 1] - chord[1] * arms[:, 0]
    return bool((sides > 0).any() and (sides < 0).any())
