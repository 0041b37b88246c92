"""Labels that were entered twice: copied from another image, or two labellings of one image that disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bregma.auditing.evidence import ALARM_SHARE, ALARM_TIMES, Evidence, are_known, best_order, sizes
from bregma.geometry import Array

COPY_PX = 0.5
"""Labels of two images nearer than this at every point were copied: nobody hits all places so exactly."""
SAME_POINT_PX = 0.01
"""Two landmarks nearer than this are one position entered twice."""
_ALIKE = 0.95
"""Images whose thumbnails correlate more are frames of one scene, whose labels may well agree."""
_THUMBNAIL = 32
_TWICE, _COPIED = 4 * ALARM_TIMES, 1.1 * ALARM_TIMES
"""One position for two landmarks is wrong; of two equal sets of labels one may be right."""


@dataclass(frozen=True)
class Look:
    """What tells whether two images are the same, or nearly.

    Attributes:
        digest: hash of pixels, number type and shape.
        thumbnail: small version with mean 0 and norm 1, flattened.
    """

    digest: bytes
    thumbnail: Array

    @classmethod
    def of(cls, pixels: NDArray[np.generic]) -> Look:
        """Describe an image ``(H, W)``."""
        about = f"{pixels.dtype} {pixels.shape}".encode()
        digest = hashlib.sha256(about + np.ascontiguousarray(pixels).tobytes()).digest()
        image = np.nan_to_num(pixels.astype(np.float32))
        small = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
        small -= small.mean()
        return cls(digest, small / max(float(np.linalg.norm(small)), 1e-9))


def duplicate_evidence(
    points: Array, ids: Sequence[str], names: Sequence[str], orders: NDArray[np.intp], looks: Sequence[Look | None]
) -> Evidence:
    """Find copied labels, points entered twice, and labels of the same image that disagree.

    Args:
        points: ``(C, N, 2)`` labels in pixels, NaN where there is none.
        ids: of the cases.
        names: of the landmarks.
        orders: equivalent orders ``(K, N)``.
        looks: of every image; None where it was not read.
    """
    times = np.zeros(points.shape[:2])
    expected = np.full(points.shape, np.nan)
    reasons: dict[tuple[int, int], str] = {}
    labelled = are_known(points)

    def claim(row: int, landmarks: NDArray[np.intp], strength: Array | float, reason: str) -> None:
        times[row, landmarks] = np.maximum(times[row, landmarks], strength)
        reasons.update({(row, int(index)): reason for index in landmarks})

    for a, b in _copies(points, labelled, looks):
        for row, other in ((a, b), (b, a)):
            claim(row, np.flatnonzero(labelled[row]), _COPIED, f"the labels are those of {ids[other]}")
    for a, b in _same_images(looks):
        both = np.flatnonzero(labelled[a] & labelled[b])
        if len(both) >= 2:
            there = best_order(points[a], points[b], labelled[a] & labelled[b], orders)
            share = np.linalg.norm(points[a] - there, axis=1) / sizes(points[[a]], labelled[[a]])[0]
            for row, other in ((a, b), (b, a)):
                reason = f"the image is also {ids[other]}, whose label is elsewhere"
                far = both[share[both] > ALARM_SHARE / 2]
                claim(row, far, share[far] / ALARM_SHARE * ALARM_TIMES, reason)
    for row, shape in enumerate(points):
        for i, j in combinations(np.flatnonzero(labelled[row]).tolist(), 2):
            if np.hypot(*(shape[i] - shape[j])) < SAME_POINT_PX:
                claim(row, np.array([i]), _TWICE, f"has the position of {names[j]}")
                claim(row, np.array([j]), _TWICE, f"has the position of {names[i]}")
    return Evidence("duplicate", times, expected, reasons)


def _copies(points: Array, labelled: NDArray[np.bool_], looks: Sequence[Look | None]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images that do not look alike and have equal labels; a single point may coincide by chance."""
    for pattern in np.unique(labelled, axis=0):
        rows = np.flatnonzero((labelled == pattern).all(axis=1))
        if pattern.sum() >= 2 and len(rows) > 1:
            near = cKDTree(points[rows][:, pattern].reshape(len(rows), -1)).query_pairs(COPY_PX, p=np.inf)
            for i, j in sorted(near):
                if not _look_alike(looks[rows[i]], looks[rows[j]]):
                    yield int(rows[i]), int(rows[j])


def _look_alike(a: Look | None, b: Look | None) -> bool:
    return a is not None and b is not None and float(a.thumbnail @ b.thumbnail) > _ALIKE


def _same_images(looks: Sequence[Look | None]) -> Iterator[tuple[int, int]]:
    rows: dict[bytes, list[int]] = {}
    for row, look in enumerate(looks):
        if look is not None:
            rows.setdefault(look.digest, []).append(row)
    for same in rows.values():
        yield from combinations(same, 2)
