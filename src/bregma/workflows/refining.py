"""The second network of a run: trained on close-ups of the elements, or the outline, that the first one is to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bregma.close_up import RefineConfig, close_up_schema, looked_at
from bregma.config import validate
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import ConfigError, LabelError
from bregma.prediction.close_ups import close_up_cases, whole_elements
from bregma.prediction.unrolling import line_cases, true_start
from bregma.recipe import LoadedRecipe, Recipe, with_settings
from bregma.schema import LandmarkSchema, Outline
from bregma.training.plan import check_settings
from bregma.types import Case, Dataset
from bregma.unrolled import OFFSETS, ROWS
from bregma.workflows.mirrored import check_flip, learned_flip

_MOST = {"train": 20000, "val": 400}
"""Close-ups of each part at most, drawn at random beyond; they are held in memory."""
_COPIES = {"train": 8, "val": 1}
"""Pictures of every outline, each about an ellipse that is off by other numbers."""
_MOVING = ("rotation_deg", "scale", "anisotropy", "shift", "flip", "elastic", "elastic_alpha")
"""Settings of ``augment`` that would move samples of an unrolled outline off their rows."""
_FEWEST = 16
_OUTLINE_RECIPE: dict[str, object] = {
    "title": "An outline, unrolled",
    "split": {"method": "given"},
    "model": {
        "preprocess": {"size": [ROWS, OFFSETS]},
        "network": {"name": "unet", "base_channels": 24, "levels": 5, "max_channels": 192, "map_stride": 1},
        "codec": {"name": "curve", "sigma_px": 1.3},
    },
    "loss": [{"name": "cross_entropy"}, {"name": "smooth_l1"}],
    # Place, size and turn differ from picture to picture already.
    "augment": {
        "rotation_deg": 0,
        "scale": 0,
        "anisotropy": 0,
        "shift": 0,
        "flip": 0,
        "gamma": 0.4,
        "contrast": 0.25,
        "noise": 0.03,
        "cutout": 0.3,
    },
    "train": {"select": "last", "batch_size": 16, "optimizer": {"weight_decay": 0.05}},
    # The samples lie in their rows; shapes of landmarks say nothing about a line.
    "predict": {"flip": False, "shape_weight": 0, "flag_sd": 0},
}
_RECIPE: dict[str, object] = {
    "title": "Close-ups of single elements",
    "split": {"method": "given"},
    # As far off as the first network may be: elements are a third of what is seen.
    "augment": {
        "rotation_deg": 10,
        "scale": 0.2,
        "anisotropy": 0.1,
        "shift": 0.1,
        "gamma": 0.6,
        "contrast": 0.3,
        "noise": 0.04,
        "blur_px": 0.7,
        "cutout": 0.3,
    },
    "train": {"select": "last", "optimizer": {"weight_decay": 0.1}},
}


def check_refine(recipe: Recipe, schema: LandmarkSchema, codec: str, cases: Sequence[Case], *, flip: float) -> None:
    """Refuse before the first network's training what that of the second one would refuse.

    Args:
        recipe: of both.
        schema: the anatomy.
        codec: of the first network.
        cases: training images.
        flip: share of the first network's views that are mirrored.

    Raises:
        ConfigError: settings that are not valid, or do not fit each other, the codec or the anatomy.
        LabelError: too few elements are labelled whole.
    """
    if recipe.refine is None:
        return
    outline = looked_at(schema, recipe.refine)
    of_outline = isinstance(outline, Outline)
    wanted = "heatmap" if of_outline else "chain"
    if codec != wanted:
        raise ConfigError(
            "close-ups are made of elements, or an outline, that were found as such",
            where="refine",
            expected=f"the codec {wanted}",
            got=codec,
            fix=f"set model.codec.name={wanted}, or leave `refine` out",
        )
    loaded = close_up_recipe(recipe.refine, schema, flip=learned_flip(recipe, flip), seed=0)
    settings = loaded.recipe.plan_part()
    check_settings(settings, where=loaded.where, lines=loaded.lines)
    if isinstance(outline, Outline):
        _check_rows(settings)
    check_flip(loaded.recipe, schema, settings.get("augment", {}).get("flip", 0), within="refine.set, ")
    if isinstance(outline, Outline):
        found = sum(true_start(case, schema, outline) is not None for case in cases)
    else:
        found = sum(1 for case in cases for _ in whole_elements(case, schema, recipe.refine))
    if found < _FEWEST:
        raise LabelError(
            f"too few {'outlines' if of_outline else 'elements'} are labelled whole to learn from close-ups",
            where="refine",
            expected=f"at least {_FEWEST} on the training images",
            got=str(found),
            fix="leave `refine` out",
        )


def _check_rows(settings: Mapping[str, Any]) -> None:
    """Refuse what would move the samples of an unrolled outline off their rows."""
    augment, preprocess = settings.get("augment", {}), settings.get("model", {}).get("preprocess", {})
    moving = [name for name in _MOVING if augment.get(name)]
    if moving:
        raise ConfigError(
            "pictures of an unrolled outline stay as they are",
            where=f"refine.set, augment.{moving[0]}",
            expected="0",
            got=str(augment[moving[0]]),
        )
    if list(preprocess.get("size", ())) != [ROWS, OFFSETS]:
        raise ConfigError(
            "an unrolled outline has a size of its own",
            where="refine.set, model.preprocess.size",
            expected=str([ROWS, OFFSETS]),
            got=str(preprocess.get("size")),
        )


def close_up_dataset(
    parts: Mapping[str, Sequence[Case]], schema: LandmarkSchema, config: RefineConfig, preprocess: PreprocessConfig
) -> Dataset:
    """Return close-ups of all elements, or outlines, of training and validation images, with the split of these."""
    chosen: dict[str, list[Case]] = {}
    what = looked_at(schema, config)
    for part, most in _MOST.items():
        found: list[Case] = []
        for number, case in enumerate(parts.get(part, ())):
            if isinstance(what, Outline):
                copies = max(1, min(_COPIES[part], most // len(parts[part])))
                found += line_cases(case, schema, what, preprocess, copies=copies, seed=number)
            else:
                found += close_up_cases(case, schema, config, preprocess)
        if len(found) > most:
            kept = np.sort(np.random.default_rng(0).permutation(len(found))[:most])
            found = [found[i] for i in kept]
        if found:
            chosen[part] = found
    return Dataset(
        name=f"close-ups of {what.name}",
        schema=close_up_schema(schema, config),
        cases=tuple(case for own in chosen.values() for case in own),
        splits={part: tuple(case.id for case in own) for part, own in chosen.items()},
    )


def close_up_recipe(config: RefineConfig, schema: LandmarkSchema, *, flip: float | None, seed: int) -> LoadedRecipe:
    """Return how the second network is trained.

    Args:
        config: its settings.
        schema: the anatomy that close-ups are a part of.
        flip: share of the views that are mirrored, as for the first network; None where it does not look at mirrored
            images when it predicts, and this one is not to either. Outlines are seen either way around in any case.
        seed: of the training.

    Raises:
        ConfigError: a setting of ``refine.set`` that is not valid.
    """
    given: dict[str, Any]
    if isinstance(looked_at(schema, config), Outline):
        given = {**_OUTLINE_RECIPE}
    else:
        model = {"preprocess": {"size": [config.size, config.size]}, "codec": {"name": "heatmap", "sigma_px": 2.5}}
        augment = {**_RECIPE["augment"], **({} if flip is None else {"flip": flip})}  # type: ignore[dict-item]
        given = {**_RECIPE, "augment": augment, "model": model, "predict": {"flip": flip is not None}}
    given |= {"minutes": config.minutes, "train": {**given["train"], "seed": seed}}
    data, lines = with_settings(given, {}, config.set)
    return LoadedRecipe(validate(Recipe, data, where="refine.set", lines=lines), "refine.set", lines)
