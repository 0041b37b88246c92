"""The second network of a run: trained on close-ups of the elements that the first one is to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bregma.close_up import RefineConfig, chain_of, element_schema
from bregma.config import validate
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import ConfigError, LabelError
from bregma.prediction.close_ups import close_up_cases, whole_elements
from bregma.recipe import LoadedRecipe, Recipe, with_settings
from bregma.schema import LandmarkSchema
from bregma.training.plan import check_settings
from bregma.types import Case, Dataset
from bregma.workflows.mirrored import check_flip, learned_flip

_MOST = {"train": 20000, "val": 400}
"""Close-ups of each part at most, drawn at random beyond; they are held in memory."""
_FEWEST = 16
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
    chain_of(schema, recipe.refine)
    if codec != "chain":
        raise ConfigError(
            "close-ups are made of elements that were found as such",
            where="refine",
            expected="the codec chain",
            got=codec,
            fix="set model.codec.name=chain, or leave `refine` out",
        )
    loaded = close_up_recipe(recipe.refine, flip=learned_flip(recipe, flip), seed=0)
    settings = loaded.recipe.plan_part()
    check_settings(settings, where=loaded.where, lines=loaded.lines)
    check_flip(loaded.recipe, schema, settings.get("augment", {}).get("flip", 0), within="refine.set, ")
    found = sum(1 for case in cases for _ in whole_elements(case, schema, recipe.refine))
    if found < _FEWEST:
        raise LabelError(
            "too few elements are labelled whole to learn from close-ups",
            where="refine",
            expected=f"at least {_FEWEST} on the training images",
            got=str(found),
            fix="leave `refine` out",
        )


def close_up_dataset(
    parts: Mapping[str, Sequence[Case]], schema: LandmarkSchema, config: RefineConfig, preprocess: PreprocessConfig
) -> Dataset:
    """Return close-ups of all elements of the training and validation images, with the split of these."""
    chosen: dict[str, list[Case]] = {}
    for part, most in _MOST.items():
        found = [one for case in parts.get(part, ()) for one in close_up_cases(case, schema, config, preprocess)]
        if len(found) > most:
            kept = np.sort(np.random.default_rng(0).permutation(len(found))[:most])
            found = [found[i] for i in kept]
        if found:
            chosen[part] = found
    chain = chain_of(schema, config)
    return Dataset(
        name=f"close-ups of {chain.name}",
        schema=element_schema(schema, chain),
        cases=tuple(case for own in chosen.values() for case in own),
        splits={part: tuple(case.id for case in own) for part, own in chosen.items()},
    )


def close_up_recipe(config: RefineConfig, *, flip: float | None, seed: int) -> LoadedRecipe:
    """Return how the second network is trained.

    Args:
        config: its settings.
        flip: share of the views that are mirrored, as for the first network; None where it does not look at mirrored
            images when it predicts, and this one is not to either.
        seed: of the training.

    Raises:
        ConfigError: a setting of ``refine.set`` that is not valid.
    """
    model = {"preprocess": {"size": [config.size, config.size]}, "codec": {"name": "heatmap", "sigma_px": 2.5}}
    augment = {**_RECIPE["augment"], **({} if flip is None else {"flip": flip})}  # type: ignore[dict-item]
    given = {
        **_RECIPE,
        "augment": augment,
        "model": model,
        "predict": {"flip": flip is not None},
        "minutes": config.minutes,
    }
    data, lines = with_settings({**given, "train": {**_RECIPE["train"], "seed": seed}}, {}, config.set)  # type: ignore[dict-item]
    return LoadedRecipe(validate(Recipe, data, where="refine.set", lines=lines), "refine.set", lines)
