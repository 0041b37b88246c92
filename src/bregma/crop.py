"""The part of an image that a network sees: about its middle, or about what a landmark model found on it.

A vertebra that is a twentieth of a scan is a few pixels of a network's input; cut to the spine first, it is many. The
part is a rectangle of whole pixels, so that nothing is resampled twice and points move by whole numbers. Of a volume,
it may lie on another slice than the middle one, which a scan planned beside the spine shows at its edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from bregma.config import Config
from bregma.errors import ImageError, InputError
from bregma.geometry import Array, Frame
from bregma.types import ArrayImage, ArraySlab, Case, ImageSource, LandmarkSet, Prediction, SlabSource, Status

_FEWEST = 2
_SMALLEST = 16
"""Pixels of a side at least; less shows nothing."""
_LEAST_AREA = 1.0
"""px² that a landmark may lie in at least: no network knows better, and none outweighs all others."""


class CropConfig(Config):
    """What part of every image the network sees."""

    roi: str | None = None
    """Bundle or run of a landmark model; the rectangle about its landmarks is seen. It is copied into the bundle. None
    looks at the middle of the image."""
    landmarks: tuple[str, ...] = ()
    """Of those the ones that count, by name; none names all that were found."""
    margin: float = Field(default=0.15, ge=0, le=5)
    """With ``roi``: what is added on every side, as a share of the rectangle's longer side."""
    slices: int = Field(default=0, ge=0)
    """With ``roi``, of a volume: so many slices either side of the middle one are looked at too, and the slices about
    the middle of those that show the landmarks most surely are seen. 0 keeps to the middle of the volume."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Without ``roi``: which share of the rows and of the columns is seen, about the middle."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, from ``left`` and ``top`` up to but without ``right`` and ``bottom``.

    On a volume it lies ``beside`` the middle slice by so many, positive to the subject's right, front or head.
    """

    left: int
    top: int
    right: int
    bottom: int
    beside: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            raise InputError("a rectangle holds no pixels", got=str(self.to_list()))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def corner(self) -> Array:
        """Its first pixel, ``(x, y)``."""
        return np.array([self.left, self.top], dtype=np.float64)

    def to_list(self) -> list[int]:
        """Return left, top, right and bottom and, where it is not the middle slice's, how far beside that it lies."""
        return [self.left, self.top, self.right, self.bottom, *([self.beside] if self.beside else [])]

    def of(self, pixels: NDArray[Any], shape: tuple[int, int], where: str | Path | None = None) -> NDArray[Any]:
        """Return a copy of its part of pixels ``(..., H, W)``, so that the rest may be forgotten.

        Args:
            pixels: of the whole image, or of several slices.
            shape: rows and columns that the image's frame says it has.
            where: for messages.

        Raises:
            ImageError: the image is not as large as its frame says.
        """
        if pixels.shape[-2:] != shape:
            raise ImageError(
                "the image is not as large as its frame says",
                where=where,
                expected=str(shape),
                got=str(pixels.shape[-2:]),
            )
        return pixels[..., self.top : self.bottom, self.left : self.right].copy()


@dataclass(frozen=True)
class CroppedImage:
    """A part of an image; read on demand, as the whole is."""

    whole: ImageSource
    box: Box
    shape: tuple[int, int]
    """Rows and columns of the whole image."""

    @property
    def path(self) -> Path | None:
        """The file of the whole image, if there is one."""
        return self.whole.path

    def load(self) -> NDArray[Any]:
        """Return the pixels ``(H, W)`` of the part."""
        return self.box.of(self.whole.load(), self.shape, self.path)


@dataclass(frozen=True)
class CroppedSlab(CroppedImage):
    """A part of an image that has neighbouring slices, of which it is the same part."""

    def load(self) -> NDArray[Any]:
        """Return the pixels ``(H, W)`` of the part."""
        return np.asarray(self.load_slab(0)[0]) if self.box.beside else super().load()

    def load_slab(self, reach: int) -> NDArray[Any]:
        """Return the part of the slice and of ``reach`` neighbours either side, ``(2 * reach + 1, H, W)``."""
        assert isinstance(self.whole, SlabSource)
        return self.box.of(slices_beside(self.whole, self.box.beside, reach), self.shape, self.path)


def slices_beside(image: SlabSource, beside: int, reach: int) -> NDArray[Any]:
    """Return the slice that lies ``beside`` the middle one with ``reach`` neighbours, ``(2 * reach + 1, H, W)``.

    Raises:
        ImageError: the volume has fewer slices there.
    """
    first = beside + abs(beside)
    return image.load_slab(reach + abs(beside))[first : first + 2 * reach + 1]


def middle_box(frame: Frame, share: float) -> Box:
    """Return the rectangle about the middle that holds a share of the rows and of the columns."""
    (left, right), (top, bottom) = (_middle(length, share) for length in (frame.width, frame.height))
    return Box(left, top, right, bottom)


def _middle(length: int, share: float) -> tuple[int, int]:
    kept = min(length, max(_SMALLEST, round(share * length)))
    first = (length - kept) // 2
    return first, first + kept


def box_about(points: Array, frame: Frame, margin: float, *, where: str) -> Box:
    """Return the rectangle about points ``(N, 2)`` with a margin, as far as it lies on the image.

    The margin is the same length on every side, also where pixels are not square.

    Raises:
        ImageError: fewer than two points, or none of the rectangle lies on the image.
    """
    if len(points) < _FEWEST:
        raise ImageError(
            "too few landmarks were found on it to tell which part to look at",
            where=where,
            expected=f"{_FEWEST} or more",
            got=str(len(points)),
        )
    spacing = np.array((1.0, 1.0) if frame.spacing is None else frame.spacing)
    low, high = points.min(axis=0), points.max(axis=0)
    wider = margin * ((high - low) * spacing).max() / spacing
    sides = [
        _reach(low[axis] - wider[axis], high[axis] + wider[axis], length)
        for axis, length in enumerate((frame.width, frame.height))
    ]
    if any(first >= last for first, last in sides):
        raise ImageError("the landmarks found on it lie beside it", where=where)
    (left, right), (top, bottom) = sides
    return Box(left, top, right, bottom)


def _reach(low: float, high: float, length: int) -> tuple[int, int]:
    """Return the first pixel that a stretch covers and the one after the last; of few pixels more about its middle."""
    short = max(0.0, (_SMALLEST - (high - low)) / 2)
    return max(0, math.floor(low - short)), min(length, math.ceil(high + short) + 1)


def cropped(case: Case, box: Box) -> Case:
    """Return a part of a case as a case of its own; landmarks beside it are not on its image.

    Raises:
        ImageError: pixels in memory are not as many as the frame says (those on disk tell when they are read), or the
            part lies on another slice of what is no volume.
    """
    whole, shape, where = case.image, case.frame.shape, case.image.path or case.id
    if box.beside and not isinstance(whole, SlabSource):
        raise ImageError("is one image, not the slices of a volume", where=where, fix="set crop.slices to 0")
    image: ImageSource
    if isinstance(whole, ArraySlab):
        reach = max(0, len(whole.array) // 2 - abs(box.beside))
        image = ArraySlab(box.of(slices_beside(whole, box.beside, reach), shape, where), whole.path)
    elif isinstance(whole, ArrayImage):
        image = ArrayImage(box.of(whole.array, shape, where), whole.path)
    else:
        image = (CroppedSlab if isinstance(whole, SlabSource) else CroppedImage)(whole, box, shape)
    return replace(
        case,
        image=image,
        frame=replace(case.frame, shape=box.shape),
        landmarks=None if case.landmarks is None else _moved(case.landmarks, box),
        observers={name: _moved(marks, box) for name, marks in case.observers.items()},
    )


def _moved(marks: LandmarkSet, box: Box) -> LandmarkSet:
    points = marks.points - box.corner
    rows, columns = box.shape
    # The centre of a pixel has whole coordinates, and its area reaches half a pixel further.
    inside = ((points >= -0.5) & (points < np.array([columns, rows]) - 0.5)).all(axis=1)
    return LandmarkSet(points, np.where(marks.labelled & ~inside, np.int8(Status.OUTSIDE), marks.status))


def uncropped(prediction: Prediction, box: Box, frame: Frame) -> Prediction:
    """Return what was predicted on a part of an image in pixels of the whole, whose frame is given."""
    return replace(
        prediction,
        mean=prediction.mean + box.corner,
        frame=frame,
        samples=None if prediction.samples is None else prediction.samples + box.corner,
        instances=None
        if prediction.instances is None
        else tuple(replace(one, points=one.points + box.corner) for one in prediction.instances),
    )


def enclosed(prediction: Prediction, names: Sequence[str], wanted: Sequence[str]) -> Array:
    """Return the found points ``(N, 2)`` of a prediction that count.

    Args:
        prediction: of the landmark model.
        names: of its landmarks.
        wanted: those that count; none names all, also elements of a chain that have no name.
    """
    return _found(prediction, names, wanted)[0]


def sureness(prediction: Prediction, names: Sequence[str], wanted: Sequence[str]) -> float:
    """Return how surely landmarks are seen: the presence of those found over the area, in px², that each may lie in.

    Args:
        prediction: of the landmark model.
        names: of its landmarks.
        wanted: see :func:`enclosed`.
    """
    _, cov, presence = _found(prediction, names, wanted)
    area = np.sqrt(np.maximum(np.linalg.det(cov), _LEAST_AREA**2))
    return float((presence / area).sum())


def _found(prediction: Prediction, names: Sequence[str], wanted: Sequence[str]) -> tuple[Array, Array, Array]:
    """Return points ``(N, 2)``, covariances ``(N, 2, 2)`` and presence ``(N,)`` of what was found and counts."""
    if wanted:
        index = [i for i, name in enumerate(names) if name in wanted]
        own = prediction.mean[index], prediction.cov[index], prediction.presence[index]
    else:
        elements = prediction.instances or ()
        own = (
            np.concatenate([prediction.mean, *(one.points for one in elements)]),
            np.concatenate([prediction.cov, *(one.cov for one in elements)]),
            np.concatenate([prediction.presence, *(one.presence for one in elements)]),
        )
    points, cov, presence = own
    there = presence >= 0.5
    return points[there], cov[there], presence[there]


def middle_of(weights: ArrayLike) -> int:
    """Return how far beside the middle one of an odd number of slices those of most weight ``(S,)`` have their middle.

    These are the slice of most weight and its neighbours, as far as they weigh half as much: an anatomy that is wide
    looks alike on several. Of two slices in the middle the heavier is taken. Where no slice has any weight it is 0.
    """
    w = np.asarray(weights, dtype=np.float64)
    first = last = int(w.argmax())
    if w[first] <= 0:
        return 0
    enough = w >= 0.5 * w[first]
    while first > 0 and enough[first - 1]:
        first -= 1
    while last < len(w) - 1 and enough[last + 1]:
        last += 1
    below, above = (first + last) // 2, (first + last + 1) // 2
    return (above if w[above] > w[below] else below) - len(w) // 2
