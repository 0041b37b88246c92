"""An outline looked at again by the second network of a bundle, on pictures of the band that it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bregma.bundle import Bundle
from bregma.data.preprocess import PreprocessConfig, prepare
from bregma.errors import InputError
from bregma.exchange import geometric_order, sets_of
from bregma.geometry import Frame
from bregma.prediction.failure import Failure
from bregma.prediction.order import reordered
from bregma.schema import LandmarkSchema, Outline
from bregma.shape_model import isotropic
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status
from bregma.unrolled import OFFSETS, ROWS, Start, direction_sd, ellipse_along, moved, start_of, views_of

_FULL = 65535
_PRESENT = 0.5
_UNSEEN = "a second look along the outline does not see it here"

Predict = Callable[[Sequence[Case]], Iterable[Prediction | Failure]]
"""Yields a prediction, or a failure, for every close-up."""


def look_along(prediction: Prediction, case: Case, outline: Outline, bundle: Bundle, predict: Predict) -> Prediction:
    """Return a prediction with the ends of an ellipse's axes where the second network sees it run.

    They stay where one of them is missing or doubted, and where they have no extent. Where the second network sees no
    ellipse, or one that leaves the band about the first, they stay and are flagged.

    Raises:
        ImageError: the image cannot be read.
    """
    index = [bundle.schema.index(name) for name in outline.ends]
    doubted = prediction.flags is not None and any(prediction.flags[i] for i in index)
    if doubted or (prediction.presence[index] < _PRESENT).any():
        return prediction
    factors = isotropic(case.frame)
    start = start_of(prediction.mean[index], factors)
    if start is None:
        return prediction
    views = views_of(start)
    frame = Frame((ROWS, OFFSETS))
    shown = [Case(str(n), "1", one, frame) for n, one in enumerate(pictures(case, views, bundle.config.preprocess))]
    answers = list(predict(shown))
    read = [one for one in answers if isinstance(one, Prediction)]
    if len(read) < len(answers):
        return prediction
    before = direction_sd(start, prediction.cov[index])
    try:
        ellipse, cov = ellipse_along(
            views, [a.mean[:, 0] for a in read], [a.cov[:, 0, 0] for a in read], turn_sd=before
        )
    except InputError:
        flags = list(prediction.flags or ("",) * len(prediction))
        for i in index:
            flags[i] = flags[i] or _UNSEEN
        return replace(prediction, flags=tuple(flags))
    means, covs = np.array(prediction.mean), np.array(prediction.cov)
    means[index], covs[index] = ellipse.ends / factors, cov / np.outer(factors, factors)
    found = replace(prediction, mean=means, cov=covs, samples=None)
    # The order of points that cannot be told apart is that of all answers: from left to right.
    return reordered(found, geometric_order(means, sets_of(bundle.schema)))


def pictures(case: Case, views: Sequence[Start], preprocess: PreprocessConfig) -> Iterator[ArrayImage]:
    """Yield 16-bit pictures of the band about an ellipse, with intensities mapped as for the first network.

    Raises:
        ImageError: the image cannot be read.
    """
    image, scaling = prepare(case.image.load(), preprocess, where=case.image.path or case.id)
    scaled = scaling(image)
    for view in views:
        yield ArrayImage(stored(view.picture(scaled)))


def line_cases(
    case: Case, schema: LandmarkSchema, outline: Outline, preprocess: PreprocessConfig, *, copies: int, seed: int
) -> Iterator[Case]:
    """Yield labelled pictures of a case, each about an ellipse as far off as a first network may be.

    There are none where an end has no position.
    """
    true = true_start(case, schema, outline)
    if true is None:
        return
    starts = [moved(true, np.random.default_rng((seed, copy))) for copy in range(copies)]
    for number, (start, picture) in enumerate(zip(starts, pictures(case, starts, preprocess), strict=True)):
        line = start.line(true.ellipse)
        inside = (line[:, 0] >= 0) & (line[:, 0] <= OFFSETS - 1)
        status = np.where(inside, Status.VISIBLE, Status.OUTSIDE).astype(np.int8)
        yield Case(f"{case.id}/{number}", case.subject, picture, Frame((ROWS, OFFSETS)), LandmarkSet(line, status))


def true_start(case: Case, schema: LandmarkSchema, outline: Outline) -> Start | None:
    """Return the ellipse through the labels; None where an end has no position, or they have no extent."""
    if case.landmarks is None:
        return None
    index = [schema.index(name) for name in outline.ends]
    if (case.landmarks.status[index] > Status.OCCLUDED).any():
        return None
    return start_of(case.landmarks.points[index], isotropic(case.frame))


def stored(image: NDArray[Any]) -> NDArray[np.uint16]:
    """Return a picture of values from 0 to 1 as 16-bit numbers."""
    return np.rint(image * np.float32(_FULL)).astype(np.uint16)
