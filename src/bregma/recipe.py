"""Recipes: what a person wrote down for a training; everything else is planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from bregma.bundle import MOST_NETWORKS, PredictConfig
from bregma.close_up import RefineConfig
from bregma.config import Config, Loc, laid_over, read_yaml, validate, with_overrides
from bregma.crop import CropConfig
from bregma.data.split import Method, Split, make_split
from bregma.errors import ConfigError
from bregma.evaluation import EvaluationSettings
from bregma.regression import FitConfig
from bregma.types import Dataset


class SplitConfig(Config):
    """How subjects are divided into training, validation and test."""

    method: Method | None = None
    """``random``, ``kfold`` or ``given``; None takes the published split where there is one, else a random one."""
    fractions: dict[str, float] | None = None
    """For ``random``: part to its share of the subjects; None is train 0.7, val 0.15, test 0.15."""
    folds: int = Field(default=5, ge=2)
    """For ``kfold``: into how many parts the subjects are divided."""
    fold: int = Field(default=0, ge=0)
    """For ``kfold``: which of them is held out, from 0."""
    val_share: float = Field(default=0.0, ge=0, lt=1)
    """For ``kfold``: 0 calls the fold that is held out ``val``; above 0 it is ``test``, and this share of the other
    subjects is ``val``, so that nothing is chosen on what is measured."""
    seed: int = Field(default=0, ge=0)
    """Of the division."""
    stratify: str | None = None
    """A tag whose values are spread evenly over the parts."""

    def apply(self, dataset: Dataset) -> Split:
        """Divide a dataset."""
        method: Method = self.method or ("given" if dataset.splits else "random")
        return make_split(
            dataset,
            method=method,
            fractions=self.fractions,
            folds=self.folds,
            fold=self.fold,
            val_share=self.val_share,
            seed=self.seed,
            stratify=self.stratify,
        )


class DataConfig(Config):
    """Which labels are learned from. The images that a run is scored on keep theirs."""

    exclude: str | None = None
    """Table of suspects (``audit.csv`` of ``inspect --audit``, or one with its columns ``case``, ``landmark``,
    ``weight``); None learns from every label."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """A label is left out where its score, 1 - ``weight`` of the table, is at least this; from 0.5 on the audit
    calls it a suspect."""
    down_weight: bool = False
    """Let the table's other labels count by their ``weight``: each is seen in that share of its views."""

    @model_validator(mode="after")
    def _needs_table(self) -> DataConfig:
        idle = sorted(self.model_fields_set - {"exclude"})
        if self.exclude is None and idle:
            raise ValueError(f"{', '.join(idle)} without a table of suspects; give it as data.exclude")
        return self


class Recipe(Config):
    """Settings that differ from the plan; ``model``, ``augment``, ``loss`` and ``train`` have the plan's structure."""

    extends: str | None = None
    """A recipe of which this one is a variant: a built-in name, or a YAML file beside this one."""
    title: str = ""
    """What it is, in a line."""
    source: str = ""
    """Where the settings come from (paper, project)."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock budget of the training steps; the number of epochs is set from a few measured steps."""
    ensemble: int = Field(default=1, ge=1, le=MOST_NETWORKS)
    """Networks that are trained one after another on the same labels, each from a seed of its own (first weights, order
    and changes of the images); their answers are averaged. They share ``minutes``; ``refine.minutes`` is each one's."""
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    evaluate: EvaluationSettings = EvaluationSettings()
    predict: PredictConfig = PredictConfig()
    crop: CropConfig | None = None
    """Which part of every image the network sees; None is the whole image."""
    refine: RefineConfig | None = None
    """A second network for close-ups of the elements of a chain, or of an outline; None trains the one alone."""
    fit: FitConfig | None = None
    """A classical regressor on features, in place of the last layers of a network with the codec ``scalar``."""
    model: dict[str, Any] = Field(default_factory=dict)
    augment: dict[str, Any] = Field(default_factory=dict)
    loss: list[dict[str, Any]] | None = None
    """Terms that are added up, each with its name, weight and settings (``bregma info losses``); None leaves it to the
    plan."""
    train: dict[str, Any] = Field(default_factory=dict)

    @property
    def trains_network(self) -> bool:
        """Whether a network is trained, and not only asked for features."""
        return self.fit is None or self.fit.train

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
    """Names of the recipes shipped with Bregma; those of one published system share a folder, as ``chest/wing``."""
    return tuple(shipped("recipes"))


def shipped(kind: str) -> dict[str, Path]:
    """Return the YAML files that Bregma ships in one of its folders, by name with the folder but without ending."""
    root = Path(str(resources.files("bregma") / kind))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def shipped_or_own(source: str | Path, kind: str) -> Path:
    """Return the path of a shipped YAML file by its name, or that of a person's own by its path.

    Raises:
        ConfigError: it is neither; lists the names.
    """
    if Path(source).suffix in {".yaml", ".yml"}:
        return Path(source)
    known = shipped(kind)
    if str(source) not in known:
        word = {"recipes": "recipe", "studies": "study"}[kind]
        raise ConfigError(
            f"there is no built-in {word} '{source}'", expected=f"one of {', '.join(known)}, or a .yaml file"
        )
    return known[str(source)]


def load_recipe(source: str | Path | None = None, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Load a recipe by built-in name or YAML file and apply ``a.b=value`` overrides; None is the empty recipe.

    Raises:
        ConfigError: unknown name or setting, or a broken file; names the line.
    """
    data: Any = {}
    where = "settings"
    lines: dict[Loc, int | str] = {}
    if source is not None:
        path = shipped_or_own(source, "recipes")
        data, found = read_recipe(path)
        lines |= found
        where = str(path)
    data, lines = with_settings(data, lines, overrides)
    return LoadedRecipe(validate(Recipe, data, where=where, lines=lines), where, lines)


def with_settings(
    data: Mapping[str, Any], lines: Mapping[Loc, int | str], settings: Iterable[str]
) -> tuple[dict[str, Any], dict[Loc, int | str]]:
    """Return what a file holds with ``a.b=value`` settings applied, and the line or setting of every entry.

    Raises:
        ConfigError: a setting that cannot be read.
    """
    settings, found = list(settings), {**lines}
    for item in settings:
        setting = tuple(item.partition("=")[0].strip().split("."))
        found[setting] = f"--set {item}"
        for end in range(1, len(setting)):
            found.setdefault(setting[:end], f"--set {item}")
    return with_overrides(data, settings), found


def read_mapping(path: Path, expected: str) -> tuple[dict[str, Any], dict[Loc, int]]:
    """Read a YAML file of settings, and the line of every entry; an empty file has none.

    Raises:
        ConfigError: a file that is broken, or holds anything else; says what is ``expected``.
    """
    data, lines = read_yaml(path)
    if data is not None and not isinstance(data, dict):
        raise ConfigError("holds no settings", where=path, expected=expected)
    return data or {}, lines


def read_recipe(path: Path, _seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], dict[Loc, int | str]]:
    """Read a recipe's file, laid over the one that it extends.

    Returns:
        the settings, and the line of every entry; of one that another file gives, that file's name with the line.

    Raises:
        ConfigError: a broken file, or one that extends itself.
    """
    if path.resolve() in _seen:
        raise ConfigError("extends itself", where=path)
    data, lines = read_mapping(path, "a mapping such as train: {epochs: 50}")
    base = data.get("extends")
    if not isinstance(base, str):
        return data, {**lines}
    below = path.parent / base if Path(base).suffix in {".yaml", ".yml"} else shipped_or_own(base, "recipes")
    inherited, found = read_recipe(below, (*_seen, path.resolve()))
    elsewhere = {loc: line if isinstance(line, str) else f"{below}, line {line}" for loc, line in found.items()}
    return laid_over(inherited, data), {**elsewhere, **lines}
