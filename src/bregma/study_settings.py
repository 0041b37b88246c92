"""Studies: recipes compared over one dataset and one split, several seeds each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from bregma.config import Config, validate
from bregma.errors import ConfigError
from bregma.evaluation.settings import EvaluationSettings
from bregma.recipe import SplitConfig, load_recipe, read_mapping, shipped, shipped_or_own, with_settings
from bregma.training.plan import check_settings

Positive = Annotated[float, Field(gt=0)]


class Arm(Config):
    """One recipe of a study."""

    recipe: str | None = None
    """A built-in name, or a YAML file beside the study; None trains by the plan alone."""
    name: str = ""
    """Heading and folder; by default the recipe's name, or ``default``."""
    set: tuple[str, ...] = ()
    """Single settings, ``a.b=value``, over the recipe's."""

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^\w.-]+", "-", self.name)


class Study(Config):
    """What to train and how to compare it."""

    title: str = ""
    source: str = ""
    """Whose comparison this repeats."""
    arms: tuple[Arm, ...] = Field(min_length=1)
    """The recipes; the first one is the reference. A cross-validation may have one alone."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Each arm is trained once a seed (``train.seed``); the split stays the same."""
    folds: int | None = Field(default=None, ge=2)
    """Cross-validate by subject: each arm is trained once a fold, and all images are scored together, each by the
    network that learned from none of its subject's. Of the other subjects a tenth is for validation
    (``split.val_share``)."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget of each training, over the recipes' own; None leaves it to them."""
    split: SplitConfig = SplitConfig()
    """The one split of the study, over the recipes' own."""
    evaluate: EvaluationSettings = EvaluationSettings()
    """How every arm is scored, over the recipes' own."""
    set: tuple[str, ...] = ()
    """Single settings, ``a.b=value``, over those of every arm."""
    roi: str | None = None
    """Bundle or run of a landmark model for the arms that look at a region: ``fit.roi`` of those that fit a regressor
    to images, ``crop.roi`` of those whose recipe has a ``crop``. With folds it may be the folder of a landmark model
    that was cross-validated with the same ones (``.../seed-0``, with a run a fold), so that no model of the region has
    seen what is held out."""
    tiers: tuple[Positive, ...] = (2.0, 5.0, 10.0)
    """Quality tiers: the share of images whose mean error is below each of these, in the study's unit: pixels at
    ``evaluate.at_size`` if that is given, else mm if every image has a spacing, else pixels of the image."""
    tags: tuple[str, ...] = ()
    """Tags of the data by whose values errors are broken down; empty takes those with 2 to 12 different words."""

    @model_validator(mode="before")
    @classmethod
    def _name_arms(cls, data: object) -> object:
        if not isinstance(data, dict) or not isinstance(data.get("arms"), list):
            return data
        arms = [{"recipe": arm} if isinstance(arm, str) else arm for arm in data["arms"]]
        named = [
            {**arm, "name": arm.get("name") or _stem(arm.get("recipe"))} if isinstance(arm, dict) else arm
            for arm in arms
        ]
        return {**data, "arms": named}

    @model_validator(mode="after")
    def _check(self) -> Study:
        if len(self.arms) < 2 and self.folds is None:
            raise ValueError("there is nothing to compare: name a second arm, or `folds` to cross-validate the one")
        if self.folds is not None and {"method", "folds", "fold"} & self.split.model_fields_set:
            raise ValueError("`folds` divides the data; leave method, folds and fold out of `split`")
        folders = [arm.folder for arm in self.arms]
        if nameless := [arm.name for arm in self.arms if not arm.folder.strip(".-")]:
            raise ValueError(f"an arm's name becomes that of a folder, which '{nameless[0]}' cannot be")
        if len(set(folders)) < len(folders):
            raise ValueError(f"every arm needs a name of its own, got {', '.join(folders)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("every seed may be named once")
        return self


def builtin_studies() -> tuple[str, ...]:
    """Names of the studies shipped with Bregma."""
    return tuple(shipped("studies"))


def load_study(source: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Load a study by built-in name or YAML file, apply ``a.b=value`` overrides and check every arm's recipe.

    Raises:
        ConfigError: unknown name or setting, or a broken file, of the study or of a recipe; names the line.
    """
    path = shipped_or_own(source, "studies")
    data, lines = read_mapping(path, "a mapping such as arms: [hand, hand/scn_linear]")
    overrides = list(overrides)
    if any(item.startswith("folds=") and item != "folds=null" for item in overrides):
        data = _undivided(data)
    data, found = with_settings(data, lines, overrides)
    study = validate(Study, data, where=str(path), lines=found)
    arms = tuple(arm.model_copy(update={"recipe": _beside(path, arm.recipe)}) for arm in study.arms)
    if study.roi is not None:
        arms = _with_roi(study, arms, study.roi)
    for arm in arms:
        loaded = load_recipe(arm.recipe, (*study.set, *arm.set))
        check_settings(loaded.recipe.plan_part(), where=loaded.where, lines=loaded.lines)
    return study.model_copy(update={"arms": arms})


def _undivided(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's settings without the one split that folds take the place of."""
    split = data.get("split")
    if not isinstance(split, dict):
        return {**data}
    kept = {name: value for name, value in split.items() if name not in ("method", "fractions")}
    return {name: value for name, value in data.items() if name != "split"} | ({"split": kept} if kept else {})


def _with_roi(study: Study, arms: Sequence[Arm], roi: str) -> tuple[Arm, ...]:
    """Return the arms with a region of interest where one is looked at.

    Raises:
        ConfigError: nowhere is one.
    """
    given, used = [], False
    for arm in arms:
        recipe = load_recipe(arm.recipe, (*study.set, *arm.set)).recipe
        fits = recipe.fit is not None and not recipe.fit.only_covariates and recipe.fit.regressor.name != "mean"
        name = "fit.roi" if fits else "crop.roi" if recipe.fit is None and recipe.crop is not None else None
        used = used or name is not None
        # First, so that an arm may name another one.
        given.append(arm if name is None else arm.model_copy(update={"set": (f"{name}={json.dumps(roi)}", *arm.set)}))
    if not used:
        raise ConfigError(
            "no arm looks at a region of interest", where="roi", expected="a recipe with `fit` or `crop`", got=roi
        )
    return tuple(given)


def _beside(study: Path, recipe: str | None) -> str | None:
    """Return a recipe as it can be loaded from anywhere: a file's path is given from the study's own folder."""
    if recipe is None or Path(recipe).suffix not in {".yaml", ".yml"}:
        return recipe
    return str(study.parent / recipe)


def _stem(recipe: object) -> str:
    return Path(recipe).with_suffix("").as_posix() if isinstance(recipe, str) else "default"
