"""Elements of a chain, or an outline, looked at again in close-ups by the second network of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bregma import geometry
from bregma.bundle import Bundle
from bregma.close_up import CloseUp, RefineConfig, chain_of, close_up_of, looked_at, render
from bregma.data.preprocess import PreprocessConfig, prepare
from bregma.errors import BundleError
from bregma.geometry import Array, Frame
from bregma.instances import Instance
from bregma.prediction.chains import with_elements
from bregma.prediction.unrolling import Predict, look_along, stored
from bregma.schema import LandmarkSchema, Outline
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status

_FARTHEST = 0.5
"""A corner that the second network puts further off than this, in sizes of the element, is another element's."""
_PRESENT = 0.5


def look_again(prediction: Prediction, case: Case, bundle: Bundle, predict: Predict) -> Prediction:
    """Return a prediction whose elements lie in the middle of where both networks put them.

    An element is left as it is where the second network does not see all of its corners, or sees another one. What
    becomes of an outline is told in :func:`~bregma.prediction.unrolling.look_along`.

    Raises:
        BundleError: the bundle has no second network.
        ImageError: the image cannot be read.
    """
    if bundle.refine is None:
        raise BundleError("has no network for close-ups", where=bundle.name)
    chain = looked_at(bundle.schema, bundle.refine)
    if isinstance(chain, Outline):
        return look_along(prediction, case, chain, bundle, predict)
    elements = list(prediction.instances or ())
    views: dict[int, CloseUp] = {}
    for place, one in enumerate(elements):
        if one.chain == chain.name and one.parts == tuple(chain.parts):
            view = close_up_of(one.points, case.frame, bundle.refine)
            if view is not None:
                views[place] = view
    if not views:
        return prediction
    pictures = close_up_images(case, list(views.values()), bundle.config.preprocess, bundle.refine.size)
    size = (bundle.refine.size, bundle.refine.size)
    cases = [Case(str(place), "1", picture, Frame(size)) for place, picture in zip(views, pictures, strict=True)]
    for (place, view), answer in zip(views.items(), predict(cases), strict=True):
        if isinstance(answer, Prediction):
            elements[place] = _averaged(elements[place], answer, view)
    return with_elements(prediction, elements, bundle.schema)


def _averaged(one: Instance, answer: Prediction, view: CloseUp) -> Instance:
    seen_first = geometry.apply(view.matrix, one.points)
    away = np.linalg.norm(answer.mean - seen_first, axis=1)
    if (answer.presence < _PRESENT).any() or (away > _FARTHEST * view.element).any():
        return one
    back = geometry.invert(view.matrix)
    points, cov = geometry.apply(back, answer.mean), geometry.apply_cov(back, answer.cov)
    half = (points - one.points) / 2
    between = np.einsum("pi,pj->pij", half, half)
    return replace(one, points=one.points + half, cov=(one.cov + cov) / 2 + between)


def close_up_images(
    case: Case, views: Sequence[CloseUp], preprocess: PreprocessConfig, size: int
) -> Iterator[ArrayImage]:
    """Yield 16-bit close-ups of an image, whose intensities are first mapped as for the first network.

    Raises:
        ImageError: the image cannot be read.
    """
    image, scaling = prepare(case.image.load(), preprocess, where=case.image.path or case.id)
    scaled = scaling(image)
    for view in views:
        yield ArrayImage(stored(render(scaled, view, size, fill=0.0)))


def whole_elements(
    case: Case, schema: LandmarkSchema, config: RefineConfig
) -> Iterator[tuple[str, CloseUp, Array, NDArray[np.int8]]]:
    """Yield level, close-up, corners ``(4, 2)`` and their status for every element that is labelled whole."""
    chain, marks = chain_of(schema, config), case.landmarks
    if marks is None:
        return
    for level in chain.levels:
        index = [schema.index(chain.landmark_name(level, part)) for part in chain.parts_of(level)]
        if len(index) < len(chain.parts) or (marks.status[index] > Status.OCCLUDED).any():
            continue
        view = close_up_of(marks.points[index], case.frame, config)
        if view is not None:
            yield level, view, marks.points[index], marks.status[index]


def close_up_cases(
    case: Case, schema: LandmarkSchema, config: RefineConfig, preprocess: PreprocessConfig
) -> Iterator[Case]:
    """Yield a labelled case for every element of a case whose parts are all labelled with a position."""
    wanted = list(whole_elements(case, schema, config))
    if not wanted:
        return
    pictures = close_up_images(case, [view for _, view, _, _ in wanted], preprocess, config.size)
    for (level, view, points, status), picture in zip(wanted, pictures, strict=True):
        labels = LandmarkSet(geometry.apply(view.matrix, points), status)
        yield Case(f"{case.id}/{level}", case.subject, picture, Frame((config.size, config.size)), labels)
