"""Regressors of a run: fitted to features of its training cases, at the end of the training or in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bregma.bundle import Bundle, find_bundle, load_bundle
from bregma.codecs.scalar import ScalarCodec
from bregma.conformal import Conformal, conformal
from bregma.data.loader import input_factor, values_in
from bregma.data.preprocess import input_matrix
from bregma.errors import BregmaError, ConfigError, LabelError
from bregma.geometry import Array
from bregma.prediction.predictor import Predictor
from bregma.prediction.regressed import RowMaker
from bregma.recipe import Recipe
from bregma.regression import FitConfig, Regression, check_installed, fit_quantities
from bregma.regression.covariates import learn_covariates
from bregma.schema import LandmarkSchema, Quantity
from bregma.types import Case, Prediction
from bregma.workflows.track import Track

_FEWEST = 4


@dataclass(frozen=True)
class FitResult:
    """A regression, and what a reader must know about the cases behind it.

    Attributes:
        regression: the fitted regressors.
        roi: the folder of the bundle that finds the region of interest, if there is one.
        notes: training cases that were left out, and why.
    """

    regression: Regression
    roi: Path | None
    notes: tuple[str, ...]


def regression_of(folder: Path, cases: Sequence[Case], config: FitConfig, track: Track) -> FitResult:
    """Fit the regressors of a bundle to its training cases.

    Cases whose image cannot be read, that show no region of interest or lack a covariate are left out and named.

    Raises:
        ConfigError: a network without features, or no bundle where the region of interest is to come from.
        LabelError: too few cases or subjects, or a target that does not vary.
    """
    bundle = replace(load_bundle(folder), members=())
    roi = None if config.roi is None else find_bundle(config.roi)
    covariates = learn_covariates(cases, config.covariates)
    maker = RowMaker(bundle, config, covariates, None if roi is None else Predictor([load_bundle(roi)]))
    rows: list[Array] = []
    kept: list[Case] = []
    notes: list[str] = []
    for case in track(iter(cases), len(cases), "features"):
        try:
            rows.append(maker.row(case))
            kept.append(case)
        except BregmaError as error:
            notes.append(f"{case.id} was not learned from: {error}")
    if len(kept) < _FEWEST:
        raise LabelError(
            "too few training cases have features",
            where="fit",
            expected=f"at least {_FEWEST}",
            got=f"{len(kept)}; {notes[0]}" if notes else str(len(kept)),
        )
    subjects = [case.subject for case in kept]
    regression = fit_quantities(np.array(rows), targets_of(bundle, kept), subjects, config, maker.columns, covariates)
    return FitResult(regression, roi, tuple(notes))


def targets_of(bundle: Bundle, cases: Sequence[Case]) -> dict[str, Array]:
    """Return the values ``(S,)`` of every quantity as the input shows it, NaN where it is not known."""
    codec = bundle.codec
    assert isinstance(codec, ScalarCodec)
    found = [values_in(case, bundle.schema, input_matrix(case.frame, bundle.config.preprocess)) for case in cases]
    return {
        bundle.schema.quantities[column].name: np.array(
            [value[column] if known[column] else np.nan for value, known in found]
        )
        for column in codec.columns
    }


def residuals_of(folder: Path, cases: Sequence[Case], track: Track) -> dict[str, Conformal]:
    """Return how far off the quantities of a bundle's own network are on cases that it has not learned from."""
    bundle = replace(load_bundle(folder), members=())
    answers = list(track(Predictor([bundle]).predict(cases), len(cases), "residuals"))
    subjects = [case.subject for case in cases]

    def away(quantity: Quantity, case: Case, answer: object) -> float:
        factor = input_factor(quantity.dimension, case.frame, input_matrix(case.frame, bundle.config.preprocess))
        given = answer.values.get(quantity.name) if isinstance(answer, Prediction) else None
        true = case.targets.get(quantity.name)
        return np.nan if factor is None or given is None or true is None else (given.mean - true) * factor

    return {
        one.name: conformal(
            [away(one, *pair) for pair in zip(cases, answers, strict=True)], subjects, "{n} validation subjects"
        )
        for one in bundle.schema.quantities
    }


def check_fit(recipe: Recipe, schema: LandmarkSchema, codec: str, cases: Sequence[Case]) -> None:
    """Refuse before any training what fitting at its end would refuse.

    Raises:
        ConfigError: another codec, or a region of interest that no bundle gives.
        LabelError: fewer subjects than folds, or a covariate that nobody has.
    """
    if recipe.fit is None:
        return
    if codec != "scalar":
        raise ConfigError(
            "a regressor gives quantities of whole images",
            where="fit",
            expected="the codec scalar",
            got=codec,
            fix="set model.codec.name=scalar, and model.codec.quantities if the schema declares none",
        )
    check_installed(recipe.fit.regressor)
    if recipe.fit.slices > 1 and recipe.model.get("preprocess", {}).get("slices", 1) > 1:
        raise ConfigError(
            "slices are either the channels of one input or seen one by one",
            where="fit.slices",
            fix="set one of fit.slices and model.preprocess.slices to 1",
        )
    if recipe.fit.roi is not None:
        load_bundle(recipe.fit.roi)
    learn_covariates(cases, recipe.fit.covariates)
    people = {case.subject for case in cases if any(q.name in case.targets for q in schema.quantities)}
    if len(people) < recipe.fit.inner_folds and len(list(recipe.fit.regressor.grid())) > 1:
        raise LabelError(
            "there are fewer subjects to learn from than folds to choose settings by",
            where="fit.inner_folds",
            expected=f"at least {recipe.fit.inner_folds} subjects",
            got=str(len(people)),
            fix="lower fit.inner_folds, or give every setting of fit.regressor a single value",
        )
