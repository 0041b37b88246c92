"""Trained bundles applied to images: test-time views, ensembles, and failures that are reported instead of raised."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from bregma import geometry
from bregma.bundle import Bundle, PredictConfig
from bregma.close_up import looked_at
from bregma.correction import Correction
from bregma.crop import Box, cropped, uncropped
from bregma.data.augment import NO_CHANGE, Geometric
from bregma.data.loader import SampleSource
from bregma.data.preprocess import PreprocessConfig, input_matrix
from bregma.errors import BregmaError, BundleError
from bregma.exchange import Sets, geometric_order, matching_order, sets_of
from bregma.geometry import Array
from bregma.hardware import autocast_dtype, detect_hardware
from bregma.inference import Chooser, memory_format, predict_source, value_in_units
from bregma.prediction.chains import following, merge_chains, unflip_instances
from bregma.prediction.close_ups import look_again
from bregma.prediction.cropping import Cropper
from bregma.prediction.failure import Failure
from bregma.prediction.order import reordered
from bregma.prediction.pairing import choose_together
from bregma.prediction.regressed import Regressor
from bregma.schema import LandmarkSchema, Outline
from bregma.shape_model import flag_outliers, reconcile
from bregma.types import ArrayImage, ArraySlab, Case, Prediction, SlabSource, Value

CHUNK = 32
"""Cases whose pixels are held at once."""


class Predictor:
    """Applies one bundle, or the average of several, to cases.

    Args:
        bundles: of one schema; more than one makes an ensemble, and so does one with members.
        config: views and device; what it leaves unset is done as each bundle says.

    Raises:
        BundleError: no bundle, bundles of different schemas, or one without the shape model that ``shape_weight``
            needs.
    """

    def __init__(self, bundles: Sequence[Bundle], config: PredictConfig | None = None) -> None:
        if not bundles:
            raise BundleError("there is no bundle to predict with")
        if any(bundle.schema != bundles[0].schema for bundle in bundles):
            names = ", ".join(f"{b.name} ({b.schema.name})" for b in bundles)
            raise BundleError("bundles of different schemas cannot be averaged", got=names)
        self.name = "+".join(bundle.name for bundle in bundles)
        bundles = tuple(one for bundle in bundles for one in (bundle, *bundle.members))
        changes = {} if config is None else config.model_dump(exclude_unset=True)
        self.settings = tuple(bundle.predict.model_copy(update=changes) for bundle in bundles)
        for bundle, settings in zip(bundles, self.settings, strict=True):
            if bundle.shape_weight(settings.shape_weight) > 0 and bundle.shape_model is None:
                raise BundleError(
                    "there is no shape model for shape_weight to use",
                    where=bundle.name,
                    fix="set shape_weight to 0, or train on more labelled images",
                )
        self.bundles = bundles
        self.schema = bundles[0].schema
        self.sets = sets_of(self.schema)
        hardware = detect_hardware(self.settings[0].accelerator)
        self.device = torch.device(hardware.accelerator)
        self.dtype = autocast_dtype(hardware)
        for bundle in bundles:
            bundle.network.to(self.device)
            bundle.network.to(memory_format=memory_format(self.device))  # type: ignore[call-overload]
        # The close-ups of an element are mirrored where the whole image is; those of an outline are what they are.
        alone = PredictConfig(accelerator=self.settings[0].accelerator, batch_size=self.settings[0].batch_size)
        self._close_ups = [
            None if bundle.close_up is None else Predictor([bundle.close_up], alone if _unrolled(bundle) else config)
            for bundle in bundles
        ]
        # Found on the whole image, once for all networks that look at the same region.
        device = PredictConfig(accelerator=self.settings[0].accelerator)
        finders = {bundle.roi.name: Predictor([bundle.roi], device) for bundle in bundles if bundle.roi is not None}
        found_by = [None if bundle.roi is None else finders[bundle.roi.name] for bundle in bundles]
        self._croppers = [
            None if bundle.crop is None else Cropper(bundle.crop, finder, bundle.config.preprocess.slices // 2)
            for bundle, finder in zip(bundles, found_by, strict=True)
        ]
        self._regressors = [
            None if bundle.regression is None else Regressor(bundle, finder)
            for bundle, finder in zip(bundles, found_by, strict=True)
        ]

    @property
    def slices(self) -> int:
        """Neighbouring slices of a volume that are read for a prediction."""
        return max(bundle.slices for bundle in self.bundles)

    def predict(self, cases: Iterable[Case]) -> Iterator[Prediction | Failure]:
        """Yield a prediction, or the reason why there is none, for every case in order."""
        remaining = iter(cases)
        while chunk := list(itertools.islice(remaining, CHUNK)):
            yield from self._chunk(chunk)

    def _chunk(self, cases: Sequence[Case]) -> Iterator[Prediction | Failure]:
        # One at a time, so that a bad file costs only itself; what was read is kept for the networks.
        read = [_read(case, self.slices // 2) for case in cases]
        predicted = iter(self._all([case for case in read if isinstance(case, Case)]))
        return (next(predicted) if isinstance(case, Case) else case for case in read)

    def _all(self, cases: Sequence[Case]) -> list[Prediction | Failure]:
        try:
            return list(self._average(cases))
        except BregmaError as error:
            if len(cases) == 1:
                return [Failure(cases[0].id, str(error))]
            # One of them cannot be predicted; which one shows when each goes alone.
            return [result for case in cases for result in self._all([case])]

    def _average(self, cases: Sequence[Case]) -> Iterator[Prediction]:
        if not cases:
            return iter(())
        boxes = self._boxes(cases)
        answers = [self._by_one(number, cases, boxes[number]) for number in range(len(self.bundles))]
        return (self._together(parts) for parts in zip(*answers, strict=True))

    def _boxes(self, cases: Sequence[Case]) -> list[list[Box] | None]:
        """Return for every network the parts of the cases that it sees; None is the whole."""
        found: list[list[Box] | None] = []
        for number, cropper in enumerate(self._croppers):
            before = next((i for i in range(number) if cropper is not None and cropper == self._croppers[i]), None)
            found.append(None if cropper is None else cropper.boxes(cases) if before is None else found[before])
        return found

    def _by_one(self, number: int, cases: Sequence[Case], boxes: list[Box] | None) -> list[Prediction]:
        bundle, settings, close_up = self.bundles[number], self.settings[number], self._close_ups[number]
        regressor = self._regressors[number]
        if regressor is not None:
            found = (regressor.predict(case, self.name) for case in cases)
            return [with_intervals(one, bundle) for one in found]
        shown = cases if boxes is None else [cropped(*pair) for pair in zip(cases, boxes, strict=True)]
        views = [list(view) for view in self._views(bundle, settings, shown)]
        seen = [self._together(parts) for parts in zip(*views, strict=True)]
        if boxes is not None:
            seen = [uncropped(p, box, case.frame) for p, box, case in zip(seen, boxes, cases, strict=True)]
        seen = [with_intervals(one, bundle) for one in seen]
        if settings.refine and close_up is not None:
            pairs = zip(seen, cases, strict=True)
            seen = [look_again(found, case, bundle, close_up.predict) for found, case in pairs]
        weight = bundle.shape_weight(settings.shape_weight)
        if settings.correction and bundle.correction is not None:
            seen = [corrected(p, bundle.correction, bundle.config.preprocess) for p in seen]
        if bundle.shape_model is None:
            return seen
        if settings.flag_sd > 0 and not bundle.codec.outputs.renumbered:
            seen = [flag_outliers(p, bundle.shape_model, limit=settings.flag_sd, sets=self.sets) for p in seen]
        if weight == 0:
            return seen
        return [following(reconcile(p, bundle.shape_model, weight=weight, sets=self.sets), self.schema) for p in seen]

    def _together(self, parts: Sequence[Prediction]) -> Prediction:
        return merge_chains(mixture(parts, self.sets), parts, self.schema)

    def _views(self, bundle: Bundle, settings: PredictConfig, cases: Sequence[Case]) -> Iterator[Iterator[Prediction]]:
        source = SampleSource(cases, self.schema, bundle.config.preprocess)
        for view in test_views(settings, self.schema, bundle.config.preprocess.size):
            predictions = predict_source(
                bundle.network,
                bundle.codec,
                source.seen_through(view),
                device=self.device,
                dtype=self.dtype,
                batch_size=settings.batch_size,
                model=self.name,
                choose=_chooser(bundle, settings),
            )
            yield (unflip(p, self.schema) for p in predictions) if view.flip else predictions


def _unrolled(bundle: Bundle) -> bool:
    """Tell whether the second network of a bundle looks along an outline."""
    return bundle.refine is not None and isinstance(looked_at(bundle.schema, bundle.refine), Outline)


def with_intervals(prediction: Prediction, bundle: Bundle) -> Prediction:
    """Return a prediction whose quantities have the intervals that the bundle's residuals tell."""
    if not bundle.conformal:
        return prediction
    matrix, values = input_matrix(prediction.frame, bundle.config.preprocess), dict(prediction.values)
    for quantity in bundle.schema.quantities:
        known = bundle.conformal.get(quantity.name)
        half = None if known is None else known.half_width()
        if half is not None and quantity.name in values:
            width = value_in_units(quantity, half, None, prediction.frame, matrix).mean
            values[quantity.name] = replace(values[quantity.name], half_width=width)
    return replace(prediction, values=values)


def corrected(prediction: Prediction, correction: Correction, preprocess: PreprocessConfig) -> Prediction:
    """Return a prediction whose points were moved as a correction says; as it is where a landmark is not there."""
    if (prediction.presence < 0.5).any():
        return prediction
    to_input = input_matrix(prediction.frame, preprocess)
    moved = correction.apply(geometry.apply(to_input, prediction.mean))
    return replace(prediction, mean=geometry.apply(geometry.invert(to_input), moved))


def _chooser(bundle: Bundle, settings: PredictConfig) -> Chooser | None:
    """Return how peaks of exchangeable points are chosen together; None leaves each set to itself."""
    if bundle.shape_model is None or settings.pair_weight == 0:
        return None
    return functools.partial(choose_together, model=bundle.shape_model, weight=settings.pair_weight)


def _read(case: Case, reach: int) -> Case | Failure:
    image = case.image
    try:
        if reach and isinstance(image, SlabSource):
            return replace(case, image=ArraySlab(image.load_slab(reach), image.path))
        return replace(case, image=ArrayImage(image.load(), image.path))
    except BregmaError as error:
        return Failure(case.id, str(error))


def test_views(config: PredictConfig, schema: LandmarkSchema, size: tuple[int, int]) -> tuple[Geometric, ...]:
    """Return the changes of geometry under which every image is seen; the unchanged view comes first."""
    centre = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    views = [NO_CHANGE]
    views += [Geometric(geometry.rotate(angle, about=centre), False, None) for angle in config.rotations_deg]
    views += [Geometric(geometry.scale(zoom, about=centre), False, None) for zoom in config.zooms]
    if config.flip and schema.flip != "never":
        mirror = geometry.flip_horizontal(size[1])
        views += [Geometric(geometry.compose(mirror, view.matrix), True, None) for view in views]
    return tuple(views)


def unflip(prediction: Prediction, schema: LandmarkSchema) -> Prediction:
    """Give landmarks seen in a mirrored image their own names back."""
    named = reordered(prediction, np.array(schema.flip_permutation))
    if prediction.instances is None:
        return named
    return replace(named, instances=unflip_instances(prediction.instances, schema))


def mixture(parts: Sequence[Prediction], sets: Sets = ()) -> Prediction:
    """Return the mean and covariance of an equal mixture: the parts' own spread plus their disagreement.

    Points that cannot be told apart, whose positions ``sets`` gives, are first put in the order of the first part, and
    last from left to right.
    """
    if sets:
        same = [reordered(part, matching_order(part.mean, parts[0].mean, sets)) for part in parts]
        mixed = mixture(same)
        return reordered(mixed, geometric_order(mixed.mean, sets))
    if len(parts) == 1:
        return parts[0]
    means = np.stack([part.mean for part in parts])
    mean = means.mean(axis=0)
    away = means - mean
    between = np.einsum("vni,vnj->nij", away, away) / len(parts)
    return replace(
        parts[0],
        mean=mean,
        cov=np.stack([part.cov for part in parts]).mean(axis=0) + between,
        presence=np.stack([part.presence for part in parts]).mean(axis=0),
        # The draws of one part are none of the mixture.
        samples=None,
        flags=_any_flags(parts),
        view_spread=np.sqrt(np.mean([(d**2).sum(axis=1) + _within(part) for d, part in zip(away, parts)], axis=0)),
        values={name: _mixed([part.values[name] for part in parts]) for name in parts[0].values},
    )


def _mixed(values: Sequence[Value]) -> Value:
    """Return the mean and standard deviation of an equal mixture."""
    means = np.array([value.mean for value in values])
    own = [value.sd for value in values if value.sd is not None]
    sd = float(np.sqrt(np.mean(np.square(own)) + means.var())) if len(own) == len(values) else None
    # An average is hardly further off than the worst of what it averages.
    halves = [value.half_width for value in values if value.half_width is not None]
    half = max(halves) if len(halves) == len(values) else None
    return replace(values[0], mean=float(means.mean()), sd=sd, half_width=half)


def _within(part: Prediction) -> Array:
    """Return the mean square distance ``(N,)`` of views that were averaged before."""
    return np.zeros(len(part)) if part.view_spread is None else part.view_spread**2


def _any_flags(parts: Sequence[Prediction]) -> tuple[str, ...] | None:
    """Return the first reason of any part to doubt a landmark."""
    looked = [part.flags for part in parts if part.flags is not None]
    return tuple(next(filter(None, each), "") for each in zip(*looked)) if looked else None
