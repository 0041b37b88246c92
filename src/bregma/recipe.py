"""Recipes: what a person wrote down for a training; everything else is planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from bregma.bundle import PredictConfig
from bregma.config import Config, Loc, read_yaml, validate, with_overrides
from bregma.data.split import Method, Split, make_split
from bregma.errors import ConfigError
from bregma.evaluation import EvaluationSettings
from bregma.types import Dataset


class SplitConfig(Config):
    """How subjects are divided into training, validation and test."""

    method: Method | None = None
    """``random``, ``kfold`` or ``given``; None takes the published split where there is one, else a random one."""
    fractions: dict[str, float] | None = None
    folds: int = Field(default=5, ge=2)
    fold: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    stratify: str | None = None

    def apply(self, dataset: Dataset) -> Split:
        """Divide a dataset."""
        method: Method = self.method or ("given" if dataset.splits else "random")
        return make_split(
            dataset,
            method=method,
            fractions=self.fractions,
            folds=self.folds,
            fold=self.fold,
            seed=self.seed,
            stratify=self.stratify,
        )


class Recipe(Config):
    """Settings that differ from the plan; ``model``, ``augment``, ``loss`` and ``train`` have the plan's structure."""

    title: str = ""
    source: str = ""
    """Where the settings come from (paper, project)."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget of the training steps; the number of epochs is set from a few measured steps."""
    split: SplitConfig = SplitConfig()
    evaluate: EvaluationSettings = EvaluationSettings()
    predict: PredictConfig = PredictConfig()
    model: dict[str, Any] = Field(default_factory=dict)
    augment: dict[str, Any] = Field(default_factory=dict)
    loss: list[dict[str, Any]] | None = None
    train: dict[str, Any] = Field(default_factory=dict)

    def plan_part(self) -> dict[str, Any]:
        """Return what is laid over the derived plan."""
        part: dict[str, Any] = {"model": self.model, "augment": self.augment, "train": self.train}
        return {**part, **({} if self.loss is None else {"loss": self.loss})}


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with what messages about it need: its file and the line of every entry."""

    recipe: Recipe
    where: str
    lines: Mapping[Loc, int | str]


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes shipped with Bregma."""
    folder = resources.files("bregma") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(source: str | Path | None = None, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Load a recipe by built-in name or YAML file and apply ``a.b=value`` overrides; None is the empty recipe.

    Raises:
        ConfigError: unknown name or setting, or a broken file; names the line.
    """
    data: Any = {}
    where = "settings"
    lines: dict[Loc, int | str] = {}
    if source is not None:
        path = _recipe_path(source)
        data, found = read_yaml(path)
        lines |= found
        where = str(path)
        data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError("holds no settings", where=where, expected="a mapping such as train: {epochs: 50}")
    overrides = list(overrides)
    data = with_overrides(data, overrides)
    for item in overrides:
        setting = tuple(item.partition("=")[0].strip().split("."))
        lines[setting] = f"--set {item}"
        for end in range(1, len(setting)):
            lines.setdefault(setting[:end], f"--set {item}")
    return LoadedRecipe(validate(Recipe, data, where=where, lines=lines), where, lines)


def _recipe_path(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        return path
    if str(source) not in builtin_recipes():
        known = ", ".join(builtin_recipes())
        raise ConfigError(f"there is no built-in recipe '{source}'", expected=f"one of {known}, or a .yaml file")
    return Path(str(resources.files("bregma") / "recipes" / f"{source}.yaml"))
