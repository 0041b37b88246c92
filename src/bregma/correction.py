"""Points moved by what the points predicted on the training images had to be moved, all of them together.

Points err together. Where a diaphragm is taken to be too low, all points whose height is told by it are too low, and
the mean of what annotators would say is nearer to the middle than the likeliest place of each. A linear map from all
points predicted to the way of each to its label, learned on the training images, tells how much (ridge regression:
Hoerl and Kennard, Technometrics 1970; 12:55-67). It can only help where a network errs on images that it has learned
from much as on others: where it knows its training images by heart, there is nothing to learn, and nothing is moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import InputError
from bregma.geometry import Array

MIN_CASES = 50
"""Fewer images than this say too little about how points err together."""
_FOLDS = 10
_PENALTIES = 10.0 ** np.arange(-1.0, 5.5, 0.5)
"""Penalties tried, in units of one image whose points all deviate by one standard deviation."""


@dataclass(frozen=True)
class Correction:
    """A linear correction; points are relative to their centre, so that where they lie as a whole does not matter.

    Attributes:
        mean: ``(2N,)`` of the predicted points about their centre, interleaved.
        offset: ``(2N,)`` the mean way.
        matrix: ``(2N, 2N)`` from the deviation of the points to the deviation of the way.
        cases: how many images it was learned on.
        before: mean error on these in input pixels without it.
        after: the same with it, in cross-validation.
    """

    mean: Array
    offset: Array
    matrix: Array
    cases: int
    before: float
    after: float

    def __post_init__(self) -> None:
        for name in ("mean", "offset", "matrix"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        size = len(self.mean)
        shapes = self.mean.shape, self.offset.shape, self.matrix.shape
        if size % 2 or shapes != ((size,), (size,), (size, size)):
            raise InputError("the correction contradicts itself", expected="(2N,), (2N,) and (2N, 2N)", got=str(shapes))
        if not all(np.isfinite(array).all() for array in (self.mean, self.offset, self.matrix)):
            raise InputError("the correction is not finite")

    def __len__(self) -> int:
        return len(self.mean) // 2

    def __repr__(self) -> str:
        return f"Correction({len(self)} landmarks, {self.cases} cases, {self.before:.2f} to {self.after:.2f} px)"

    def apply(self, points_in: ArrayLike) -> Array:
        """Return points ``(N, 2)`` in input pixels with what is usual for points like these added."""
        points = np.asarray(points_in, dtype=np.float64)
        if points.shape != (len(self), 2):
            raise InputError(
                "the points do not fit the correction", expected=f"({len(self)}, 2)", got=f"{points.shape}"
            )
        way = self.offset + (_centred(points[None])[0] - self.mean) @ self.matrix
        return np.asarray(points + way.reshape(-1, 2))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "offset", "matrix")}
        return {**arrays, "cases": self.cases, "before": self.before, "after": self.after}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Correction:
        """Rebuild from ``to_dict``.

        Raises:
            InputError: the data are not those of a correction.
        """
        try:
            mean, offset, matrix = (np.array(data[name], np.float64) for name in ("mean", "offset", "matrix"))
            return cls(mean, offset, matrix, int(data["cases"]), float(data["before"]), float(data["after"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"is not a correction ({error})") from error


def learn_correction(predicted_in: ArrayLike, true_in: ArrayLike, subjects: Sequence[str]) -> Correction | None:
    """Learn a correction, with the penalty that does best in cross-validation by subject.

    Args:
        predicted_in: ``(M, N, 2)`` points as a network sees them on its training images, in input pixels.
        true_in: ``(M, N, 2)`` their labels.
        subjects: ``M`` names; images of one subject stay in one fold.

    Returns:
        None where there are too few images, or where none of the corrections makes the mean error smaller on images
        that it was not learned on.
    """
    x, y = np.asarray(predicted_in, dtype=np.float64), np.asarray(true_in, dtype=np.float64)
    if len(x) < MIN_CASES or len(set(subjects)) < _FOLDS:
        return None
    features, ways = _centred(x), (y - x).reshape(len(x), -1)
    # Subjects are dealt out at random, and the same way every time.
    numbers = {name: i for i, name in enumerate(dict.fromkeys(subjects))}
    deal = np.random.default_rng(0).permutation(len(numbers)) % _FOLDS
    fold = deal[[numbers[name] for name in subjects]]
    errors = [_mean_error(ways - _out_of_fold(features, ways, fold, penalty)) for penalty in _PENALTIES]
    best, before = int(np.argmin(errors)), _mean_error(ways)
    if errors[best] >= before:
        return None
    mean, offset, matrix = _ridge(features, ways, _PENALTIES[best])
    return Correction(mean, offset, matrix, len(x), before, errors[best])


def _centred(points: Array) -> Array:
    return np.asarray((points - points.mean(axis=1, keepdims=True)).reshape(len(points), -1))


def _mean_error(left: Array) -> float:
    return float(np.linalg.norm(left.reshape(len(left), -1, 2), axis=2).mean())


def _out_of_fold(features: Array, ways: Array, fold: NDArray[np.int_], penalty: float) -> Array:
    expected = np.empty_like(ways)
    for number in range(_FOLDS):
        own = fold == number
        mean, offset, matrix = _ridge(features[~own], ways[~own], penalty)
        expected[own] = offset + (features[own] - mean) @ matrix
    return expected


def _ridge(features: Array, ways: Array, penalty: float) -> tuple[Array, Array, Array]:
    """Return the mean of the features, that of the ways, and the matrix between the deviations from both."""
    mean, offset = features.mean(axis=0), ways.mean(axis=0)
    away = features - mean
    scale = np.maximum(away.std(axis=0), 1e-9)
    scaled = away / scale
    weights = np.linalg.solve(scaled.T @ scaled + penalty * np.eye(len(mean)), scaled.T @ (ways - offset))
    return mean, offset, weights / scale[:, None]
