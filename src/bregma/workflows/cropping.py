"""Which part of every image a run sees, found once before its training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bregma.bundle import PredictConfig, find_bundle, load_bundle
from bregma.crop import Box, CropConfig, cropped
from bregma.data.split import Split
from bregma.errors import ImageError, LabelError
from bregma.evaluation.case import is_labelled
from bregma.prediction.cropping import Cropper
from bregma.prediction.predictor import Predictor
from bregma.recipe import Recipe
from bregma.schema import LandmarkSchema
from bregma.types import Case
from bregma.workflows.run_folder import RunFolder
from bregma.workflows.track import Track

LEARNED = ("train", "val")
"""The parts of a split that a training looks at."""

log = logging.getLogger(__name__)

_DEVICES = get_args(PredictConfig.model_fields["accelerator"].annotation)
Parts = Mapping[str, tuple[Case, ...]]


def roi_folder(recipe: Recipe) -> Path | None:
    """Return the folder of the bundle about whose landmarks images are cut, if there is one.

    Raises:
        BundleError: there is none where the recipe says.
    """
    return None if recipe.crop is None or recipe.crop.roi is None else find_bundle(recipe.crop.roi)


def seen_before(recipe: Recipe, split: Split) -> tuple[str, ...]:
    """Say whether the landmark model of a region of interest has learned from images that the run is scored on.

    It finds its landmarks better there than on images of new subjects. Images are told by their ids; a bundle without
    its run does not tell what it learned from.
    """
    roi = next((part.roi for part in (recipe.crop, recipe.fit) if part is not None and part.roi is not None), None)
    scored = next((split.parts[name] for name in ("test", "val") if split.parts.get(name)), ())
    if roi is None:
        return ()
    bundle = find_bundle(roi)
    run = next((RunFolder(one) for one in (bundle, bundle.parent) if (one / "split.json").is_file()), None)
    if run is None:
        return ()
    parts = run.read_split().parts
    learned = {case for name in LEARNED for case in parts.get(name, ())}
    both = [case for case in scored if case in learned]
    if not both:
        return ()
    return (
        f"The landmark model of the region of interest has learned from {len(both)} of the {len(scored)} images scored "
        "here (by their ids), so that the figures may be optimistic.",
    )


def cropper_of(recipe: Recipe, config: CropConfig) -> Cropper:
    """Return what finds the part of an image for a recipe, on the device that the training is to take.

    Raises:
        BundleError: no bundle where ``roi`` says.
        ConfigError: settings that do not fit each other, or its landmarks.
    """
    # Settings that are none are refused with the others of the training.
    accelerator = recipe.train.get("accelerator")
    device = PredictConfig.model_validate({"accelerator": accelerator if accelerator in _DEVICES else "auto"})
    roi = None if config.roi is None else Predictor([load_bundle(config.roi)], device)
    slices, shift = _setting(recipe.model, "preprocess", "slices"), _setting(recipe.augment, "slice_shift")
    return Cropper(config, roi, slices // 2 + shift)


def _setting(settings: Any, *names: str) -> int:
    """Return a whole number of a recipe; 0 where it says none."""
    for name in names:
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings if isinstance(settings, int) else 0


def find_boxes(parts: Parts, schema: LandmarkSchema, cropper: Cropper, track: Track) -> dict[str, Box]:
    """Return the part of every training and validation case that has one with a label on it.

    Raises:
        LabelError: no training case has one.
    """
    boxes, reason = dict[str, Box](), None
    cases = _learned(parts)
    for case in track(iter(cases), len(cases), "crop"):
        try:
            (box,) = cropper.boxes([case])
            if not is_labelled(schema, cropped(case, box)):
                raise ImageError("has no label on the part of it that is looked at", where=case.id)
            boxes[case.id] = box
        except ImageError as error:
            log.warning("%s", error)
            reason = reason or str(error)
    if not any(case.id in boxes for case in parts["train"]):
        raise LabelError("no training image has a part to look at", where="crop", got=reason)
    return boxes


def without_part(parts: Parts, boxes: Mapping[str, Box]) -> tuple[str, ...]:
    """Say which cases have no part that is seen, so that nothing is learned from them."""
    lost = [case.id for case in _learned(parts) if case.id not in boxes]
    if not lost:
        return ()
    named = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
    count = "1 image" if len(lost) == 1 else f"{len(lost)} images"
    return (f"Without a part to look at that holds a label, and so not learned from: {count} ({named}).",)


def _learned(parts: Parts) -> list[Case]:
    return [case for name in LEARNED for case in parts.get(name, ())]


def with_part(parts: Parts, boxes: Mapping[str, Box]) -> dict[str, tuple[Case, ...]]:
    """Return the parts of the split without the cases that nothing is learned from."""
    return {
        name: tuple(case for case in cases if case.id in boxes) if name in LEARNED else cases
        for name, cases in parts.items()
    }


def cut(cases: Sequence[Case], boxes: Mapping[str, Box]) -> tuple[Case, ...]:
    """Return the parts of those cases that have one."""
    return tuple(cropped(case, boxes[case.id]) for case in cases if case.id in boxes)
