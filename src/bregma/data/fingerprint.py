"""What a dataset is like, in numbers: the input of the training plan and of ``bregma inspect``.

Lengths that depend on an image's size are given in a frame in which its long side is 256 px (``_256``), so that images
of different sizes can be compared and a plan for any input size is a multiplication away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bregma.config import Config
from bregma.data.shapes import mirrored
from bregma.errors import LabelError
from bregma.geometry import Array
from bregma.types import Case, Dataset, Status

LONG_SIDE = 256
PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
_MANY_VALUES = 20
_PIXELS_AN_IMAGE = 10_000


class Summary(Config):
    """Smallest, median and largest of some numbers."""

    min: float
    median: float
    max: float


class Pixels(Config):
    """Intensities of a sample of images."""

    images: int
    """Number of images read."""
    types: dict[str, int]
    """Number type to images."""
    bits: int
    """Bits that the largest intensity needs; for float images the bits of their type."""
    percentiles: dict[str, float]
    """Percentile to intensity, over a regular sample of pixels from each image."""


class Spacing(Config):
    """Millimetres per pixel, and how they are known."""

    known: int
    """Images with a trusted spacing."""
    sources: dict[str, int]
    """Source to images."""
    mm: Summary | None
    """Mean of both axes, over images that have a spacing."""
    anisotropic: int
    """Images whose two spacings differ by more than 1 %."""


class LandmarkPrint(Config):
    """One landmark over all labelled images."""

    name: str
    visible: int
    occluded: int
    outside: int
    """Known not to be on the image."""
    unlabelled: int
    off_image: int
    """Labelled with a position beyond the image's border."""
    mean: tuple[float, float] | None
    """Mean position ``(x, y)`` as a share of width and height."""
    spread_256: float | None
    """Root mean square distance from the landmark's mean position."""
    nearest_256: float | None
    """Median distance to the nearest other landmark of the image."""


class Fingerprint(Config):
    """A dataset in numbers."""

    name: str
    schema_name: str
    images: int
    labelled: int
    """Images with at least one labelled landmark."""
    valued: int = 0
    """Images with a value of one of the schema's quantities."""
    subjects: int
    images_per_subject: Summary
    height: Summary
    width: Summary
    long_side: Summary
    aspect: Summary
    """Width by height."""
    pixels: Pixels | None
    """None where no image was to be read."""
    spacing: Spacing
    landmarks: tuple[LandmarkPrint, ...]
    exchangeable: tuple[tuple[str, ...], ...]
    """Sets of points that cannot be told apart."""
    labelled_landmarks: Summary | None
    """Number of labelled landmarks of an image; below the schema's number where points are missing."""
    extent: Summary | None
    """Longer side of the box around an image's landmarks, as a share of the image's long side."""
    shortest_256: Summary | None
    """Shortest distance between two landmarks of an image: how fine a heatmap must resolve."""
    mirrored: int
    """Labelled images whose landmarks fit the others better as mirror images: 0 where all face one way."""
    tags: dict[str, dict[str, int]]
    """Tag to value to images, most frequent first; tags with more than 20 different values are left out."""
    numeric_tags: dict[str, Summary]
    """Tag to the range of its values, for tags that are a finite number wherever they occur."""


def fingerprint(dataset: Dataset, *, sample: int = 64, seed: int = 0) -> Fingerprint:
    """Describe a dataset; sizes and labels from all cases, intensities from a random sample of images.

    Args:
        dataset: at least one case.
        sample: number of images whose pixels are read; 0 for none.
        seed: of the sample.

    Raises:
        LabelError: the dataset has no cases.
        ImageError: a sampled image cannot be read.
    """
    if not dataset.cases:
        raise LabelError("there are no cases to describe", where=dataset.name)
    shapes = np.array([case.frame.shape for case in dataset], dtype=np.float64)
    labelled = [case for case in dataset if case.landmarks is not None and case.landmarks.labelled.any()]
    per_subject = Counter(case.subject for case in dataset)
    return Fingerprint(
        name=dataset.name,
        schema_name=dataset.schema.name,
        images=len(dataset),
        labelled=len(labelled),
        valued=sum(any(one.name in case.targets for one in dataset.schema.quantities) for case in dataset),
        subjects=len(per_subject),
        images_per_subject=_summary(list(per_subject.values())),
        height=_summary(shapes[:, 0]),
        width=_summary(shapes[:, 1]),
        long_side=_summary(shapes.max(axis=1)),
        aspect=_summary(shapes[:, 1] / shapes[:, 0]),
        pixels=_pixels(_sampled(dataset.cases, sample, seed)) if sample else None,
        spacing=_spacing(dataset.cases),
        landmarks=_landmarks(dataset, labelled),
        exchangeable=dataset.schema.exchangeable,
        labelled_landmarks=_optional([_placed(case).sum() for case in labelled]),
        extent=_optional([_extent(case) for case in labelled if _placed(case).sum() > 1]),
        shortest_256=_optional([np.nanmin(_nearest(case)) for case in labelled if _placed(case).sum() > 1]),
        mirrored=_mirrored(labelled),
        tags=_tags(dataset.cases),
        numeric_tags=_numeric_tags(dataset.cases),
    )


def _summary(values: ArrayLike) -> Summary:
    v = np.asarray(values, dtype=np.float64)
    return Summary(min=float(v.min()), median=float(np.median(v)), max=float(v.max()))


def _optional(values: Sequence[float]) -> Summary | None:
    return _summary(values) if len(values) else None


def _sampled(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    chosen = np.random.default_rng(seed).permutation(len(cases))[:count]
    return [cases[index] for index in sorted(chosen)]


def _pixels(cases: Iterable[Case]) -> Pixels:
    types: Counter[str] = Counter()
    values, bits = [], 1
    for case in cases:
        image = case.image.load()
        types[str(image.dtype)] += 1
        flat = image.ravel()
        integer = np.issubdtype(image.dtype, np.integer)
        bits = max(bits, int(np.abs(flat.astype(np.int64)).max()).bit_length() if integer else 8 * image.dtype.itemsize)
        # An equal number from each image, so that large images do not outweigh small ones.
        values.append(flat[np.linspace(0, flat.size - 1, _PIXELS_AN_IMAGE).astype(np.intp)].astype(np.float64))
    found = np.percentile(np.concatenate(values), PERCENTILES)
    percentiles = {f"{p:g}": float(value) for p, value in zip(PERCENTILES, found)}
    return Pixels(images=len(values), types=dict(types), bits=bits, percentiles=percentiles)


def _spacing(cases: Sequence[Case]) -> Spacing:
    known = [case.frame.spacing for case in cases if case.frame.spacing is not None]
    return Spacing(
        known=len(known),
        sources=dict(Counter(case.frame.spacing_source for case in cases)),
        mm=_optional([(x + y) / 2 for x, y in known]),
        anisotropic=sum(abs(x - y) > 0.01 * max(x, y) for x, y in known),
    )


def _placed(case: Case) -> Array:
    return np.zeros(0) if case.landmarks is None else case.landmarks.labelled.astype(np.float64)


def _points_256(case: Case) -> Array:
    """Points ``(N, 2)`` in the 256 px frame; NaN where there is no position."""
    if case.landmarks is None:
        raise LabelError("the case has no labels", where=case.id)
    scaled = case.landmarks.points * (LONG_SIDE / max(case.frame.shape))
    return np.asarray(np.where(case.landmarks.labelled[:, None], scaled, np.nan))


def _extent(case: Case) -> float:
    points = _points_256(case)
    return float((np.nanmax(points, axis=0) - np.nanmin(points, axis=0)).max()) / LONG_SIDE


def _nearest(case: Case) -> Array:
    """Distance of each landmark to its nearest neighbour, ``(N,)``; NaN without one."""
    points = _points_256(case)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.nan)
    nearest = np.where(np.isnan(distances), np.inf, distances).min(axis=1)
    return np.where(np.isfinite(nearest), nearest, np.nan)


def _landmarks(dataset: Dataset, cases: Sequence[Case]) -> tuple[LandmarkPrint, ...]:
    count = len(dataset.schema)
    sets = [(case.landmarks, case.frame) for case in cases if case.landmarks is not None]
    if not count:
        return ()
    status = np.array([marks.status for marks, _ in sets]).reshape(-1, count)
    off = np.array([marks.labelled & ~frame.contains(marks.points) for marks, frame in sets]).reshape(-1, count)
    points = np.array([_points_256(case) for case in cases]).reshape(-1, count, 2)
    sides = np.array([(case.frame.width, case.frame.height) for case in cases], dtype=np.float64).reshape(-1, 1, 2)
    shares = points / (sides * (LONG_SIDE / sides.max(axis=2, keepdims=True, initial=1.0)))
    nearest = np.array([_nearest(case) for case in cases]).reshape(-1, count)
    return tuple(
        LandmarkPrint(
            name=name,
            **{state.name.lower(): int((status[:, i] == state).sum()) for state in Status},
            off_image=int(off[:, i].sum()),
            mean=_mean(shares[:, i]),
            spread_256=_spread(points[:, i]),
            nearest_256=_median(nearest[:, i]),
        )
        for i, name in enumerate(dataset.schema.names)
    )


def _mirrored(cases: Sequence[Case]) -> int:
    count = int(mirrored(np.array([_points_256(case) for case in cases])).sum()) if cases else 0
    return min(count, len(cases) - count)


def _mean(points: Array) -> tuple[float, float] | None:
    known = points[np.isfinite(points).all(axis=1)]
    return (float(known[:, 0].mean()), float(known[:, 1].mean())) if len(known) else None


def _spread(points: Array) -> float | None:
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return None
    return float(np.sqrt(((known - known.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _median(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _values(cases: Iterable[Case]) -> dict[str, list[object]]:
    values: dict[str, list[object]] = {}
    for case in cases:
        for tag, value in case.tags.items():
            values.setdefault(tag, []).append(value)
    return values


def _tags(cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    counts = {tag: Counter(str(v) for v in values) for tag, values in sorted(_values(cases).items())}
    return {tag: dict(count.most_common()) for tag, count in counts.items() if len(count) <= _MANY_VALUES}


def _numeric_tags(cases: Sequence[Case]) -> dict[str, Summary]:
    return {
        tag: _summary([float(str(v)) for v in values])
        for tag, values in sorted(_values(cases).items())
        if all(map(_is_number, values))
    }
