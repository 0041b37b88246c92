"""What this installation offers: every table of Bregma, as rows that a person or a program can read.

A table is imported only when it is asked for, so that listing anatomies does not wait for torch.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from bregma.config import Config
from bregma.errors import ConfigError


@dataclass(frozen=True)
class CatalogRow:
    """An entry of a table.

    Attributes:
        name: as it is written in recipes, schemas and on the command line.
        summary: one line for a reader.
        source: the module or file that holds it.
    """

    name: str
    summary: str
    source: str


@dataclass(frozen=True)
class CatalogTable:
    """One table of Bregma.

    Attributes:
        name: as ``bregma info`` knows it.
        title: its heading.
        rows: in the order of the table itself.
    """

    name: str
    title: str
    rows: tuple[CatalogRow, ...]

    def __repr__(self) -> str:
        return f"CatalogTable({self.name!r}, {len(self.rows)} rows)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"name": self.name, "title": self.title, "rows": [asdict(row) for row in self.rows]}


def catalog(names: Iterable[str] = ()) -> tuple[CatalogTable, ...]:
    """Return the named tables, or all of them where none is named.

    Raises:
        ConfigError: there is no table of that name.
    """
    return tuple(_table(name) for name in (tuple(names) or TABLES))


def anatomy(source: str | Path) -> tuple[CatalogTable, CatalogTable]:
    """Return the landmarks and the measurements of one anatomy, a built-in one or that of a YAML file.

    Raises:
        SchemaError: there is no such anatomy, or its file is not valid.
    """
    from bregma.schema import load_schema

    schema = load_schema(source)
    landmarks = tuple(
        CatalogRow(point.name, point.label, f"{point.code.scheme} {point.code.value}" if point.code else "")
        for point in schema.landmarks
    )
    measurements = tuple(
        CatalogRow(spec.name, f"{spec.label}, {spec.primitive} in {spec.unit}", spec.source)
        for spec in schema.measurements
    )
    return (
        CatalogTable("landmarks", f"{schema.title}: landmarks", landmarks),
        CatalogTable("measurements", f"{schema.title}: measurements", measurements),
    )


def encoders(text: str = "") -> tuple[str, ...]:
    """Return the encoders that timm offers whose name contains ``text``.

    Raises:
        ConfigError: there is none.
    """
    from bregma.networks._timm import import_timm

    found = tuple(name for name in import_timm().list_models() if text.lower() in name.lower())
    if not found:
        raise ConfigError(f"timm has no encoder with '{text}' in its name", expected="e.g. resnet, convnext or hrnet")
    return found


def _table(name: str) -> CatalogTable:
    if name not in TABLES:
        raise ConfigError(f"there is no table '{name}'", expected=f"one of {', '.join(TABLES)}")
    title, rows = TABLES[name]
    return CatalogTable(name, title, tuple(rows()))


def _anatomies() -> Iterator[CatalogRow]:
    from bregma.schema import builtin_schemas, load_schema

    for name in builtin_schemas():
        schema = load_schema(name)
        counts = [_count(len(schema), "landmark"), _count(len(schema.measurements), "measurement")]
        counts += [_count(len(schema.grades), "grade scale")] if schema.grades else []
        yield CatalogRow(name, f"{schema.title}: {', '.join(counts)}", f"anatomies/{name}.yaml")


def _datasets() -> Iterator[CatalogRow]:
    from bregma.datasets import DATASETS

    for entry in DATASETS.values():
        terms = f" ({entry.license})" if entry.license else ""
        yield CatalogRow(entry.name, f"{entry.title}{terms}", _home(entry.read))


def _exporters() -> Iterator[CatalogRow]:
    from bregma.datasets import EXPORTERS

    for entry in EXPORTERS.values():
        yield CatalogRow(entry.name, entry.title, _home(entry.write))


def _phantoms() -> Iterator[CatalogRow]:
    from bregma.phantoms import PHANTOMS

    for name, info in PHANTOMS.items():
        yield CatalogRow(name, info.summary, info.module)


def _networks() -> Iterator[CatalogRow]:
    from bregma.networks import NETWORKS

    for name, (_, network) in NETWORKS.items():
        yield CatalogRow(name, _first_line(network), _home(network))


def _regressors() -> Iterator[CatalogRow]:
    from bregma.regression import REGRESSORS

    for name, config in REGRESSORS.items():
        yield CatalogRow(name, _first_line(config), _home(config))


def _codecs() -> Iterator[CatalogRow]:
    from bregma.codecs import CODECS

    for name, (_, codec) in CODECS.items():
        yield CatalogRow(name, _first_line(codec), _home(codec))


def _losses() -> Iterator[CatalogRow]:
    from bregma.losses import AnyLossConfig

    for config in get_args(get_args(AnyLossConfig)[0]):
        yield CatalogRow(config.model_fields["name"].default, _first_line(config), _home(config))


def _steps() -> Iterator[CatalogRow]:
    from bregma.data.steps import AnyStepConfig

    for config in get_args(get_args(AnyStepConfig)[0]):
        yield CatalogRow(config.model_fields["name"].default, _first_line(config), _home(config))


def _primitives() -> Iterator[CatalogRow]:
    from bregma.measurement import PRIMITIVES

    for name, primitive in PRIMITIVES.items():
        roles = ", ".join(primitive.roles)
        summary = f"{primitive.kind} of ({roles}): {_first_line(primitive.function)}"
        yield CatalogRow(name, summary, _home(primitive.function))


def _recipes() -> Iterator[CatalogRow]:
    from bregma.recipe import builtin_recipes, load_recipe

    for name in builtin_recipes():
        recipe = load_recipe(name).recipe
        origin = f" ({recipe.source})" if recipe.source else ""
        yield CatalogRow(name, f"{recipe.title or name}{origin}", f"recipes/{name}.yaml")


def _studies() -> Iterator[CatalogRow]:
    from bregma.study_settings import builtin_studies, load_study

    for name in builtin_studies():
        study = load_study(name)
        origin = f" ({study.source})" if study.source else ""
        arms = ", ".join(arm.name for arm in study.arms)
        yield CatalogRow(name, f"{study.title or name}: {arms}{origin}", f"studies/{name}.yaml")


def _settings() -> Iterator[CatalogRow]:
    from bregma.bundle import ModelConfig
    from bregma.close_up import RefineConfig
    from bregma.crop import CropConfig
    from bregma.data.augment import AugmentConfig
    from bregma.recipe import Recipe
    from bregma.regression import FitConfig
    from bregma.training.settings import TrainConfig

    # What a recipe leaves to the plan is typed there.
    within: dict[str, type[Config]] = {"augment": AugmentConfig, "train": TrainConfig}
    within |= {"crop": CropConfig, "refine": RefineConfig, "fit": FitConfig, "model": ModelConfig}
    for name, field in Recipe.model_fields.items():
        nested = within.get(name, field.annotation)
        if isinstance(nested, type) and issubclass(nested, Config):
            yield from _settings_of(nested, f"{name}.")
        else:
            yield _setting(Recipe, name, name)


def _settings_of(config: type[Config], before: str) -> Iterator[CatalogRow]:
    for name, field in config.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Config):
            yield from _settings_of(nested, f"{before}{name}.")
        else:
            yield _setting(config, name, f"{before}{name}")


def _setting(config: type[Config], name: str, path: str) -> CatalogRow:
    default = config.model_fields[name].get_default(call_default_factory=True)
    default = default.name if hasattr(default, "name") else default
    known = "none" if default is None else json.dumps(default, default=str)
    doc = _field_docs(config).get(name, "")
    words = re.sub(r"\s+", " ", re.sub(r"(?::\w+:)?`+([^`]+)`+", r"\1", doc)).strip()
    return CatalogRow(path, f"{known}. {words}" if words else known, _home(config))


@cache
def _field_docs(config: type[Config]) -> Mapping[str, str]:
    """Return the docstrings that stand below the fields of a settings class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for field, after in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            docs[field.target.id] = str(ast.literal_eval(after.value))
    return docs


def _images() -> Iterator[CatalogRow]:
    from bregma.io import IMAGE_SUFFIXES

    kinds = {".dcm": "DICOM", ".dicom": "DICOM", ".nii": "NIfTI", ".nii.gz": "NIfTI"}
    for kind in ("DICOM", "NIfTI", "raster"):
        names = ", ".join(suffix for suffix in IMAGE_SUFFIXES if kinds.get(suffix, "raster") == kind)
        yield CatalogRow(kind, names, f"bregma.io.{kind.lower()}")


TABLES: Mapping[str, tuple[str, Callable[[], Iterator[CatalogRow]]]] = MappingProxyType(
    {
        "anatomies": ("Anatomies", _anatomies),
        "datasets": ("Label formats that can be read", _datasets),
        "exporters": ("Label formats that can be written", _exporters),
        "images": ("Image formats", _images),
        "phantoms": ("Phantoms: simulated images with exact truth", _phantoms),
        "networks": ("Networks", _networks),
        "codecs": ("Codecs", _codecs),
        "regressors": ("Classical regressors on features", _regressors),
        "losses": ("Losses", _losses),
        "steps": ("Preprocessing steps", _steps),
        "primitives": ("Measurement primitives", _primitives),
        "settings": ("Settings of recipes and --set, with their defaults; the plan may choose others", _settings),
        "recipes": ("Recipes", _recipes),
        "studies": ("Studies: recipes to compare", _studies),
    }
)
"""Name to title and rows."""


def _first_line(thing: Any) -> str:
    """Return the first line of a docstring, without its markup."""
    line = (inspect.getdoc(thing) or "").partition("\n")[0]
    return re.sub(r"(?::\w+:)?`+([^`]+)`+", r"\1", line)


def _home(thing: Any) -> str:
    return str(inspect.unwrap(thing).__module__)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
