"""What a bundle holds of a regressor: its columns, its covariates, and a fitted model a quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bregma.config import validate
from bregma.conformal import Conformal, conformal
from bregma.errors import InputError
from bregma.files import read_json, write_json
from bregma.geometry import Array
from bregma.regression.covariates import Covariates
from bregma.regression.frozen import Frozen
from bregma.regression.models import Fitted, fit
from bregma.regression.settings import FitConfig

FILES = ("regression.json", "regression.safetensors")
"""What :func:`save_regression` writes: the settings and the arrays."""


@dataclass(frozen=True)
class Regression:
    """Fitted regressors, one a quantity, on one table of columns.

    Attributes:
        config: with which they were fitted.
        columns: names of the features, then of the covariates.
        covariates: how the last columns come from tags.
        models: quantity to its regressor.
        chosen: quantity to the settings chosen for it.
        conformal: quantity to how far off it was in cross-validation; kept by the bundle.
    """

    config: FitConfig
    columns: tuple[str, ...]
    covariates: Covariates
    models: Mapping[str, Frozen]
    chosen: Mapping[str, Mapping[str, Any]]
    conformal: Mapping[str, Conformal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, model in self.models.items():
            if model.columns != len(self.columns):
                problem = f"the regressor of '{name}' does not fit its columns"
                raise InputError(problem, expected=str(len(self.columns)), got=str(model.columns))


def fit_quantities(
    table: Array,
    targets: Mapping[str, Array],
    subjects: Sequence[str],
    config: FitConfig,
    columns: Sequence[str],
    covariates: Covariates,
) -> Regression:
    """Fit one regressor a quantity; rows without a known target are left out of it.

    Args:
        table: ``(S, F)``.
        targets: quantity to ``(S,)``, NaN where it is not known.
        subjects: of the rows.
        config: regressor, folds and seed.
        columns: names of the columns of ``table``.
        covariates: how its last columns come from tags.

    Raises:
        LabelError: too few subjects, or a target that does not vary.
    """
    fitted: dict[str, Fitted] = {}
    away: dict[str, Conformal] = {}
    for name, target in targets.items():
        known = np.isfinite(target)
        own = [subject for subject, there in zip(subjects, known, strict=True) if there]
        fitted[name] = fit(table[known], target[known], own, config)
        source = f"{config.inner_folds}-fold cross-validation of {{n}} training subjects"
        away[name] = conformal(fitted[name].residuals, own, source)
    return Regression(
        config,
        tuple(columns),
        covariates,
        {name: one.frozen for name, one in fitted.items()},
        {name: {**one.chosen, "inner_r2": one.inner_r2} for name, one in fitted.items()},
        away,
    )


def save_regression(folder: Path, regression: Regression) -> None:
    """Write the files of a regression into a folder."""
    write_json(
        folder / FILES[0],
        {
            "config": regression.config.to_dict(),
            "columns": list(regression.columns),
            "covariates": {tag: list(words) for tag, words in regression.covariates.words.items()},
            "kinds": {name: model.kind for name, model in regression.models.items()},
            "chosen": {name: dict(chosen) for name, chosen in regression.chosen.items()},
        },
    )
    arrays = {f"{name}.{key}": value for name, m in regression.models.items() for key, value in m.arrays.items()}
    save_file(arrays, folder / FILES[1])


def load_regression(folder: Path) -> Regression:
    """Read what :func:`save_regression` wrote.

    Raises:
        InputError: a file is missing, or not as written.
    """
    path = folder / FILES[0]
    about = read_json(path)
    try:
        arrays = load_file(folder / FILES[1])
        models = {
            str(name): Frozen(
                kind, {key.removeprefix(f"{name}."): a for key, a in arrays.items() if key.startswith(f"{name}.")}
            )
            for name, kind in about["kinds"].items()
        }
        return Regression(
            validate(FitConfig, about["config"], where=str(path)),
            tuple(str(column) for column in about["columns"]),
            Covariates({str(tag): tuple(map(str, words)) for tag, words in about["covariates"].items()}),
            models,
            about["chosen"],
        )
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot be read ({error})", where=folder / FILES[1]) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("is not a regression as Bregma writes it", where=path) from error
