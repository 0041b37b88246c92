"""Regressors as pipelines of scikit-learn, and their choice of settings by cross-validation over subjects."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bregma.errors import ConfigError, LabelError
from bregma.geometry import Array
from bregma.regression.frozen import Frozen, freeze
from bregma.regression.settings import (
    AnyRegressorConfig,
    ElasticNetConfig,
    FitConfig,
    GaussianProcessConfig,
    MeanConfig,
    RandomForestConfig,
    SVRConfig,
    XGBoostConfig,
)


@dataclass(frozen=True)
class Fitted:
    """A regressor fitted to the training subjects.

    Attributes:
        frozen: it, as arrays.
        chosen: the settings that were chosen.
        inner_r2: of the cross-validated predictions with the settings chosen; None for fewer subjects than folds.
        residuals: ``(S,)`` of these predictions, in the target's unit; then NaN.
    """

    frozen: Frozen
    chosen: Mapping[str, Any]
    inner_r2: float | None
    residuals: Array


def fit(table: Array, target: Array, subjects: Sequence[str], config: FitConfig) -> Fitted:
    """Choose settings by cross-validation over the subjects given, and fit to all of them.

    Settings are chosen by the mean squared error over all left-out subjects, each of whom counts once. Rows of a
    subject are never divided.

    Args:
        table: ``(S, F)`` features; NaN stands for what is missing.
        target: ``(S,)``.
        subjects: of the rows.
        config: regressor, folds and seed.

    Raises:
        LabelError: fewer subjects than folds, or a target that is the same in all.
        ConfigError: XGBoost is not installed.
    """
    people = list(dict.fromkeys(subjects))
    if np.ptp(target) == 0:
        raise LabelError("the target is the same in all training subjects", got=str(target[0]), fix="give others")
    grid = list(config.regressor.grid())
    if len(grid) > 1 and len(people) < config.inner_folds:
        raise LabelError(
            "there are fewer subjects to learn from than folds to choose settings by",
            expected=f"at least {config.inner_folds}",
            got=str(len(people)),
            fix="lower fit.inner_folds, or give settings a single value",
        )
    weights = _once_each(subjects)
    mean, sd = _moments(target, weights)
    y = (target - mean) / sd
    away = [np.full(len(y), np.nan)]
    if len(people) >= config.inner_folds:
        folds = fold_of(subjects, config.inner_folds, config.seed)
        away = [_left_out_residuals(table, y, weights, folds, config, one) for one in grid]
    errors = [float((weights * one**2).sum() / weights.sum()) for one in away]
    best = int(np.argmin(errors)) if len(grid) > 1 else 0
    pipeline = _fitted(table, y, weights, config, grid[best])
    inner_r2 = 1.0 - errors[best] if np.isfinite(errors[best]) else None
    return Fitted(freeze(pipeline, (mean, sd)), grid[best], inner_r2, sd * away[best])


def fold_of(subjects: Sequence[str], folds: int, seed: int) -> NDArray[np.intp]:
    """Return the fold of each row: subjects dealt out at random, so that folds differ by one subject at most."""
    people = np.array(sorted(set(subjects)))
    order = np.random.default_rng(seed).permutation(len(people))
    place = dict(zip(people[order], range(len(people)), strict=True))
    return np.array([place[subject] % folds for subject in subjects], dtype=np.intp)


def check_installed(config: AnyRegressorConfig) -> None:
    """Refuse a regressor whose library is not there.

    Raises:
        ConfigError: XGBoost is not installed.
    """
    if isinstance(config, XGBoostConfig):
        _import_xgboost()


def pipeline_of(config: AnyRegressorConfig, settings: Mapping[str, Any], *, columns: int, rows: int, seed: int) -> Any:
    """Return the pipeline of one combination of settings, not yet fitted.

    Raises:
        ConfigError: XGBoost is not installed.
    """
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [("fill", SimpleImputer(keep_empty_features=True)), ("scale", StandardScaler())]
    wanted = settings["components"]
    seen = columns if wanted == "all" else min(wanted, columns, rows - 1)
    if seen < columns:
        steps.append(("project", PCA(seen, svd_solver="full")))
    return Pipeline([*steps, ("model", _model(config, settings, seen, seed))])


def _model(config: AnyRegressorConfig, settings: Mapping[str, Any], columns: int, seed: int) -> Any:
    match config:
        case ElasticNetConfig():
            from sklearn.linear_model import ElasticNet

            return ElasticNet(alpha=settings["alpha"], l1_ratio=settings["l1_ratio"], max_iter=5000)
        case SVRConfig():
            from sklearn.svm import SVR

            return SVR(C=settings["c"], gamma=settings["gamma"] / columns, epsilon=settings["epsilon"])
        case RandomForestConfig():
            from sklearn.ensemble import RandomForestRegressor

            return RandomForestRegressor(
                n_estimators=config.trees,
                min_samples_leaf=settings["min_leaf"],
                max_features=settings["max_features"],
                random_state=seed,
                n_jobs=1,
            )
        case GaussianProcessConfig():
            from sklearn.gaussian_process import GaussianProcessRegressor
            from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

            kernel = ConstantKernel(1.0) * RBF(np.sqrt(columns), (0.1, 1e4)) + WhiteKernel(0.5)
            return GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed)
        case XGBoostConfig():
            return _import_xgboost().XGBRegressor(
                n_estimators=settings["rounds"],
                max_depth=settings["depth"],
                learning_rate=settings["learning_rate"],
                subsample=config.subsample,
                colsample_bytree=config.subsample,
                random_state=seed,
                n_jobs=1,
            )
        case MeanConfig():
            from sklearn.dummy import DummyRegressor

            return DummyRegressor()


def _import_xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise ConfigError(
            "XGBoost is not installed", where="fit.regressor", fix="pip install 'bregma[tabular]'"
        ) from error
    return xgboost


def _fitted(table: Array, y: Array, weights: Array, config: FitConfig, settings: Mapping[str, Any]) -> Any:
    rows, columns = table.shape
    pipeline = pipeline_of(config.regressor, settings, columns=columns, rows=rows, seed=config.seed)
    weighted = {} if isinstance(config.regressor, GaussianProcessConfig) else {"model__sample_weight": weights}
    with warnings.catch_warnings():
        # Settings that do not converge, or reach a bound, lose by their error.
        warnings.simplefilter("ignore")
        return pipeline.fit(table, y, **weighted)


def _left_out_residuals(
    table: Array, y: Array, weights: Array, folds: NDArray[np.intp], config: FitConfig, settings: Mapping[str, Any]
) -> Array:
    """Return how far each row is off where the model has not seen its fold, whatever settings it is tried with."""
    away = np.zeros(len(y))
    for fold in np.unique(folds):
        out = folds == fold
        pipeline = _fitted(table[~out], y[~out], weights[~out], config, settings)
        away[out] = pipeline.predict(table[out]) - y[out]
    return away


def _once_each(subjects: Sequence[str]) -> Array:
    """Return weights with which every subject counts once, one on average."""
    names, counts = np.unique(np.asarray(subjects), return_counts=True)
    rows = dict(zip(names, counts, strict=True))
    weights = np.array([1.0 / rows[subject] for subject in subjects])
    return np.asarray(weights * len(weights) / weights.sum())


def _moments(target: Array, weights: Array) -> tuple[float, float]:
    mean = float(np.average(target, weights=weights))
    return mean, float(np.sqrt(np.average((target - mean) ** 2, weights=weights)))
