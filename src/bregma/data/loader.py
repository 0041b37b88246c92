"""Training samples and batches, prepared in background threads while the network works.

A sample depends only on (seed, epoch, case), never on threads or order, so an interrupted training can be replayed.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bregma import geometry
from bregma.data.augment import (
    NO_CHANGE,
    AugmentConfig,
    Geometric,
    apply_geometric,
    apply_photometric,
    apply_to_points,
    sample_geometric,
    sample_photometric,
)
from bregma.data.preprocess import Normalised, PreprocessConfig, input_matrix, prepare, prepare_slices
from bregma.errors import ConfigError, ImageError, LabelError
from bregma.geometry import Array, Frame
from bregma.schema import DIMENSIONS, LandmarkSchema
from bregma.types import Case, LandmarkSet, SlabSource, Status

_DOUBT, _SLICE = 1, 2
"""Tell the draws of doubted labels and of slices from those of augmentation."""
_FINER = 2
"""Slices are kept at this many times the resolution of the input, at least."""


@dataclass(frozen=True)
class _Kept:
    """What is kept of a case's pixels.

    Attributes:
        slices: ``(S, H, W)`` after the steps of preprocessing, in their own number type.
        scaling: the intensity map that follows.
        shrink: 3 × 3 map from pixels of the original image to these; None where they are the same.
    """

    slices: NDArray[Any]
    scaling: Normalised
    shrink: Array | None


@dataclass(frozen=True)
class Sample:
    """One case as the network sees it.

    Attributes:
        image: ``(C, H, W)`` float32 in 0..1, one channel a slice.
        points_in: ``(N, 2)`` in input pixels.
        placed: ``(N,)`` whether the point has a known position on the input.
        known: ``(N,)`` whether anybody said if the landmark is on the image.
        matrix: 3 × 3 affine part of the map from original to input pixels.
        values: ``(T,)`` the schema's quantities; a length or an area in pixels of the input.
        values_known: ``(T,)`` whether the quantity is known.
    """

    image: NDArray[np.float32]
    points_in: Array
    placed: NDArray[np.bool_]
    known: NDArray[np.bool_]
    matrix: Array
    values: Array
    values_known: NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Samples stacked for the network; the label tensors are float32.

    Attributes:
        images: ``(B, C, H, W)`` in 0..1.
        points_in: ``(B, N, 2)``.
        placed: ``(B, N)``; equals presence on the input.
        known: ``(B, N)``.
        matrices: ``(B, 3, 3)`` float64, original to input pixels.
        indices: positions of the cases in the source.
        values: ``(B, T)``.
        values_known: ``(B, T)``.
    """

    images: Tensor
    points_in: Tensor
    placed: Tensor
    known: Tensor
    matrices: Array
    indices: tuple[int, ...]
    values: Tensor
    values_known: Tensor


class SampleSource:
    """Turns cases into samples; pixels, after the steps of preprocessing, are kept in memory up to ``cache_mb``.

    Args:
        cases: the cases; unlabelled ones give samples without points.
        schema: tells which landmarks swap on a flip.
        preprocess: size, steps and intensity scaling.
        augment: ranges of random changes, or None for validation and prediction.
        seed: base of every random draw.
        cache_mb: memory for decoded images.
        trust: case id to ``(N,)``, the share of its views in which a doubted label is seen; in the others it counts
            as not given, which weighs it so in any loss and for any codec. Missing cases are trusted.

    Raises:
        ConfigError: flips are asked for where the schema forbids them.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        schema: LandmarkSchema,
        preprocess: PreprocessConfig,
        augment: AugmentConfig | None = None,
        *,
        seed: int = 0,
        cache_mb: int = 2048,
        trust: Mapping[str, Array] | None = None,
    ) -> None:
        if augment is not None and augment.flip > 0 and schema.flip == "never":
            raise ConfigError(
                f"a mirrored image is another anatomy (schema '{schema.name}': flip never)",
                where="augment.flip",
                expected="0",
                got=f"{augment.flip:g}",
            )
        self.cases = tuple(cases)
        self.schema = schema
        self.preprocess = preprocess
        self.augment = augment
        self.seed = seed
        self.trust = trust or {}
        self.view = NO_CHANGE
        self._cache = _PixelCache(cache_mb * 2**20)

    def __len__(self) -> int:
        return len(self.cases)

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """Return case ``index`` as it appears in ``epoch``."""
        case = self.cases[index]
        kept = self._pixels(index)
        base = input_matrix(case.frame, self.preprocess)
        size, scaling = self.preprocess.size, kept.scaling
        change, tone = self.view, None
        if self.augment is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            change = sample_geometric(self.augment, size, rng)
            tone = sample_photometric(self.augment, rng)
        stored = base if kept.shrink is None else geometry.compose(geometry.invert(kept.shrink), base)
        chosen = kept.slices[self._slices(len(kept.slices), index, epoch)]
        pixels = [scaling(apply_geometric(one, stored, change, size, fill=scaling.black)) for one in chosen]
        if tone is not None:
            # Noise differs between slices, as all else does not.
            pixels = [apply_photometric(one, replace(tone, seed=tone.seed + i)) for i, one in enumerate(pixels)]
        marks = _no_labels(len(self.schema)) if case.landmarks is None else case.landmarks
        points = apply_to_points(marks.points, base, change, size)
        status = self._seen(marks, index, epoch)
        if change.flip:
            order = list(self.schema.flip_permutation)
            points, status = points[order], status[order]
        inside = ((points >= -0.5) & (points <= np.array([size[1], size[0]]) - 0.5)).all(axis=1)
        placed = (status <= Status.OCCLUDED) & inside
        matrix = change.matrix @ base
        known = np.asarray(status != Status.UNLABELLED)
        # One slice, which is the usual case, is not copied.
        image = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        return Sample(image, points, placed, known, matrix, *values_in(case, self.schema, matrix))

    def seen_through(self, view: Geometric) -> SampleSource:
        """Return the same cases, sharing their pixels, under a fixed change of geometry (for test-time views)."""
        other = copy.copy(self)
        other.view, other.augment = view, None
        return other

    def _seen(self, marks: LandmarkSet, index: int, epoch: int) -> NDArray[np.int8]:
        """Return the statuses of an epoch, in which some doubted labels pass for not given."""
        trust = self.trust.get(self.cases[index].id)
        if trust is None:
            return marks.status
        # A stream of its own, so that a doubted label changes nothing else in a training.
        hidden = np.random.default_rng((self.seed, epoch, index, _DOUBT)).random(len(trust)) >= trust
        return np.where(marks.labelled & hidden, np.int8(Status.UNLABELLED), marks.status)

    def _slices(self, count: int, index: int, epoch: int) -> slice:
        """Return which of ``count`` slices an epoch shows."""
        first = (count - self.preprocess.slices) // 2
        if self.augment is not None and self.augment.slice_shift:
            rng = np.random.default_rng((self.seed, epoch, index, _SLICE))
            first += int(rng.integers(-self.augment.slice_shift, self.augment.slice_shift, endpoint=True))
        return slice(first, first + self.preprocess.slices)

    def _pixels(self, index: int) -> _Kept:
        kept = self._cache.get(index)
        if kept is None:
            shift = 0 if self.augment is None else self.augment.slice_shift
            kept = _read(self.cases[index], self.preprocess, self.preprocess.slices // 2 + shift)
            self._cache.keep(index, kept)
        return kept


class _PixelCache:
    """Decoded images with their intensity maps, up to a limit; shared by threads and by the views of one source."""

    def __init__(self, limit: int) -> None:
        self._entries: dict[int, _Kept] = {}
        self._left = limit
        self._lock = threading.Lock()

    def get(self, index: int) -> _Kept | None:
        return self._entries.get(index)

    def keep(self, index: int, entry: _Kept) -> None:
        size = entry.slices.nbytes
        with self._lock:
            if index not in self._entries and size <= self._left:
                self._left -= size
                self._entries[index] = entry


def _read(case: Case, preprocess: PreprocessConfig, reach: int) -> _Kept:
    where = case.image.path or case.id
    if reach == 0:
        image = case.image.load()
        pixels, scaling = prepare(image, preprocess, where=where)
        _check_shape(image, case, where)
        return _Kept(pixels[None], scaling, None)
    if not isinstance(case.image, SlabSource):
        raise ImageError(
            "is one image, not the slices of a volume",
            where=where,
            fix="set model.preprocess.slices=1 and augment.slice_shift=0",
        )
    slab = case.image.load_slab(reach)
    _check_shape(slab[reach], case, where)
    slices, scaling = prepare_slices(slab, preprocess, where=where)
    smaller, shrink = _smaller(slices, preprocess.size)
    return _Kept(smaller, scaling, shrink)


def _check_shape(image: NDArray[Any], case: Case, where: str | Path) -> None:
    if image.shape != case.frame.shape:
        raise ImageError(
            "the image is not as large as its frame says",
            where=where,
            expected=str(case.frame.shape),
            got=str(image.shape),
        )


def _smaller(slices: NDArray[Any], size: tuple[int, int]) -> tuple[NDArray[Any], Array | None]:
    """Return slices of hardly more than the resolution that is needed, and the map to their pixels.

    Blocks of pixels are averaged, which is what shrinking them to the input would do to them anyway.
    """
    rows, columns = slices.shape[1:]
    factor = min(rows // (_FINER * size[0]), columns // (_FINER * size[1]))
    if factor < 2:
        return slices, None
    shape = (rows // factor, columns // factor)
    cut = slices[:, : shape[0] * factor, : shape[1] * factor]
    blocks = cut.reshape(len(slices), shape[0], factor, shape[1], factor).mean(axis=(2, 4), dtype=np.float32)
    return blocks, geometry.resize((shape[0] * factor, shape[1] * factor), shape)


def collate(samples: Sequence[Sample], indices: Sequence[int]) -> Batch:
    """Stack samples into a batch."""
    return Batch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        points_in=torch.from_numpy(np.stack([s.points_in for s in samples]).astype(np.float32)),
        placed=torch.from_numpy(np.stack([s.placed for s in samples]).astype(np.float32)),
        known=torch.from_numpy(np.stack([s.known for s in samples]).astype(np.float32)),
        matrices=np.stack([s.matrix for s in samples]),
        indices=tuple(indices),
        values=torch.from_numpy(np.stack([s.values for s in samples]).astype(np.float32)),
        values_known=torch.from_numpy(np.stack([s.values_known for s in samples]).astype(np.float32)),
    )


def values_in(case: Case, schema: LandmarkSchema, matrix: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the schema's quantities ``(T,)`` as the input shows them, and which are known.

    A length or an area is given in pixels of the input, which needs the image's spacing; without one it is not known.
    """
    values, known = np.zeros(len(schema.quantities)), np.zeros(len(schema.quantities), dtype=bool)
    for column, quantity in enumerate(schema.quantities):
        factor = input_factor(quantity.dimension, case.frame, matrix)
        if quantity.name in case.targets and factor is not None:
            values[column], known[column] = case.targets[quantity.name] * factor, True
    return values, known


def input_factor(dimension: str, frame: Frame, matrix: Array) -> float | None:
    """Return what a quantity in its unit is multiplied by to be one of the input; None without the spacing it needs.

    Args:
        dimension: of the quantity, see :class:`~bregma.schema.Quantity`.
        frame: of the original image.
        matrix: from pixels of the original image to those of the input.
    """
    power = DIMENSIONS[dimension]
    if power == 0:
        return 1.0
    if frame.spacing is None:
        return None
    return float((geometry.mean_scale(matrix) ** 2 / (frame.spacing[0] * frame.spacing[1])) ** (power / 2))


def epoch_order(count: int, batch_size: int, *, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the shuffled batches of an epoch.

    Every batch is full: the last one is topped up with cases from the start of the epoch's order, because a batch of
    one would upset batch normalisation.
    """
    if count == 0:
        raise LabelError("there are no cases to train on")
    order = np.random.default_rng((seed, epoch, 2**31)).permutation(count).tolist()
    size = min(batch_size, count)
    order += order[: -len(order) % size]
    return [tuple(order[start : start + size]) for start in range(0, len(order), size)]


def draws_of(cases: Sequence[Case], *, by_subject: bool) -> list[list[int]]:
    """Return the positions of cases of which an epoch draws one each: every case alone, or those of each subject."""
    if not by_subject:
        return [[place] for place in range(len(cases))]
    subjects: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        subjects.setdefault(case.subject, []).append(place)
    return list(subjects.values())


def drawn_order(draws: Sequence[Sequence[int]], batch_size: int, *, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the batches of an epoch, as :func:`epoch_order` does, with one case of each draw; another each epoch."""
    rng = np.random.default_rng((seed, epoch, 2**31 + 1))
    chosen = [draw[int(rng.integers(len(draw)))] for draw in draws]
    order = epoch_order(len(draws), batch_size, seed=seed, epoch=epoch)
    return [tuple(chosen[place] for place in batch) for batch in order]


def batches(
    source: SampleSource, order: Sequence[Sequence[int]], *, epoch: int = 0, workers: int = 2, ahead: int = 3
) -> Iterator[Batch]:
    """Yield batches in order, preparing up to ``ahead`` of them in ``workers`` threads."""
    cv2.setNumThreads(1)  # The threads here are the parallelism; more would fight the network for cores.

    def build(indices: Sequence[int]) -> Batch:
        return collate([source.sample(i, epoch) for i in indices], indices)

    if workers == 0:
        yield from map(build, order)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="bregma-loader") as pool:
        yield from _in_order(pool, build, order, ahead + workers - 1)


def _in_order(
    pool: ThreadPoolExecutor,
    build: Callable[[Sequence[int]], Batch],
    order: Sequence[Sequence[int]],
    ahead: int,
) -> Iterator[Batch]:
    waiting: deque[Future[Batch]] = deque()
    try:
        for indices in order:
            waiting.append(pool.submit(build, indices))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _no_labels(count: int) -> LandmarkSet:
    return LandmarkSet(np.zeros((count, 2)), np.full(count, Status.UNLABELLED))
