"""Fitted regressors as arrays: the same numbers as from the library that fitted them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bregma.errors import ConfigError, InputError, LabelError
from bregma.regression import (
    FitConfig,
    Frozen,
    check_installed,
    fit,
    fit_quantities,
    fold_of,
    freeze,
    load_regression,
    save_regression,
)
from bregma.regression.covariates import Covariates
from bregma.regression.models import pipeline_of
from bregma.regression.settings import REGRESSORS

RNG = np.random.default_rng(0)
TABLE = RNG.normal(3.0, 2.0, (60, 7))
TABLE[:, 3] = np.round(TABLE[:, 3])
TARGET = 100 + 5 * TABLE[:, 0] - 3 * np.abs(TABLE[:, 1] - 3) + RNG.normal(0, 1, 60)
UNSEEN = np.concatenate([RNG.normal(3.0, 4.0, (40, 7)), TABLE[:10]])


def config_of(name: str, **given: Any) -> Any:
    if name == "xgboost":
        pytest.importorskip("xgboost")
    return REGRESSORS[name].model_validate({"name": name, **given})


@pytest.mark.parametrize("components", ["all", 3])
@pytest.mark.parametrize("name", REGRESSORS)
def test_arrays_predict_what_the_library_predicts(name: str, components: Any) -> None:
    config = config_of(name, components=components)
    settings = next(iter(config.grid()))
    table, unseen = TABLE.copy(), UNSEEN.copy()
    table[5, 2] = unseen[3, 4] = np.nan
    pipeline = pipeline_of(config, settings, columns=7, rows=60, seed=0)
    pipeline.fit(table, (TARGET - 100) / 10)
    frozen = freeze(pipeline, (100.0, 10.0))
    value, sd = frozen.predict(unseen)
    np.testing.assert_allclose(value, 100 + 10 * pipeline.predict(unseen), rtol=1e-6, atol=1e-5)
    assert value.std() > 0 or name == "mean"
    if name == "gaussian_process":
        _, expected = pipeline.predict(unseen, return_std=True)
        np.testing.assert_allclose(sd, 10 * expected, rtol=1e-5)
    else:
        assert sd is None


def test_rows_of_another_length_are_refused() -> None:
    config = config_of("elastic_net", alpha=0.1, l1_ratio=0.5)
    found = fit(TABLE, TARGET, [str(i) for i in range(60)], FitConfig(regressor=config))
    with pytest.raises(InputError, match=r"\(S, 7\)"):
        found.frozen.predict(UNSEEN[:, :5])


def test_incomplete_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="not complete"):
        Frozen("linear", {"fill": np.zeros(2), "centre": np.zeros(2), "scale": np.ones(2), "target": np.ones(2)})


class TestFit:
    SUBJECTS = tuple(f"s{i // 2}" for i in range(60))

    def test_settings_are_chosen_among_those_given(self) -> None:
        found = fit(TABLE, TARGET, self.SUBJECTS, FitConfig(regressor=config_of("elastic_net")))
        assert found.chosen["alpha"] in config_of("elastic_net").alpha
        assert found.inner_r2 is not None
        assert 0.5 < found.inner_r2 < 1
        single = fit(TABLE, TARGET, self.SUBJECTS, FitConfig(regressor=config_of("elastic_net", alpha=9, l1_ratio=0)))
        assert single.chosen == {"components": "all", "alpha": 9.0, "l1_ratio": 0.0}
        few = fit(TABLE[:6], TARGET[:6], self.SUBJECTS[:6], FitConfig(regressor=config_of("mean")))
        assert few.inner_r2 is None
        assert np.isnan(few.residuals).all()

    def test_residuals_are_those_of_rows_that_were_left_out(self) -> None:
        config = FitConfig(regressor=config_of("elastic_net", alpha=0.001, l1_ratio=0.5), inner_folds=4)
        found = fit(TABLE, TARGET, self.SUBJECTS, config)
        folds = fold_of(self.SUBJECTS, 4, config.seed)
        own = folds == 2
        rest = [subject for subject, out in zip(self.SUBJECTS, own, strict=True) if not out]
        # The target is standardised by all rows, so that a penalty is a little another one; next to none is the same.
        without = fit(TABLE[~own], TARGET[~own], rest, config).frozen.predict(TABLE[own])[0]
        np.testing.assert_allclose(found.residuals[own], without - TARGET[own], atol=0.05)
        assert np.abs(found.residuals).mean() > np.abs(found.frozen.predict(TABLE)[0] - TARGET).mean()

    def test_the_worse_setting_loses(self) -> None:
        """A penalty of 100 predicts the mean; nothing else is to choose."""
        for order in ((100.0, 0.01), (0.01, 100.0)):
            config = config_of("elastic_net", alpha=order, l1_ratio=0.5)
            assert fit(TABLE, TARGET, self.SUBJECTS, FitConfig(regressor=config)).chosen["alpha"] == 0.01

    def test_folds_keep_subjects_whole_and_even(self) -> None:
        folds = fold_of(self.SUBJECTS, 4, seed=0)
        by_subject: dict[str, set[int]] = {}
        for subject, fold in zip(self.SUBJECTS, folds, strict=True):
            by_subject.setdefault(subject, set()).add(int(fold))
        assert all(len(own) == 1 for own in by_subject.values())
        sizes = np.bincount([next(iter(own)) for own in by_subject.values()])
        assert sizes.max() - sizes.min() <= 1
        assert (fold_of(self.SUBJECTS, 4, seed=1) != folds).any()
        assert (fold_of(self.SUBJECTS, 4, seed=0) == folds).all()

    def test_every_subject_counts_once(self) -> None:
        """One with a hundred scans and another target draws the fit no further than with one."""
        table, target = np.zeros((103, 1)), np.array([1.0, 2.0, 3.0, *[10.0] * 100])
        table[:, 0] = np.arange(103)
        subjects = ["a", "b", "c", *["d"] * 100]
        found = fit(table, target, subjects, FitConfig(regressor=config_of("mean")))
        assert found.frozen.predict(table[:1])[0] == pytest.approx(4.0)

    def test_shuffled_targets_are_not_predicted(self) -> None:
        """What cross-validation says of a target without any relation is no better than the mean, whatever is tuned."""
        shuffled = np.random.default_rng(1).permutation(TARGET)
        for name in ("svr", "elastic_net"):
            found = fit(TABLE, shuffled, self.SUBJECTS, FitConfig(regressor=config_of(name)))
            assert found.inner_r2 is not None
            assert found.inner_r2 < 0.15

    def test_too_few_subjects_and_constant_targets_are_refused(self) -> None:
        few = FitConfig(regressor=config_of("svr"), inner_folds=5)
        with pytest.raises(LabelError, match="fewer subjects"):
            fit(TABLE[:8], TARGET[:8], ["a", "b", "c", "d"] * 2, few)
        with pytest.raises(LabelError, match="the same in all"):
            fit(TABLE, np.full(60, 3.0), self.SUBJECTS, few)


def test_a_regression_is_read_as_it_was_written(tmp_path: Path) -> None:
    covariates = Covariates({"age": (), "sex": ("F", "M")})
    columns = ("a", "b", "c", "d", "age", "sex=F", "sex=M")
    config = FitConfig(regressor=config_of("random_forest", min_leaf=2, max_features=0.5, trees=5))
    missing = TARGET.copy()
    missing[::3] = np.nan
    subjects = [str(i) for i in range(60)]
    written = fit_quantities(TABLE, {"bmd": TARGET, "age": missing}, subjects, config, columns, covariates)
    save_regression(tmp_path, written)
    read = load_regression(tmp_path)
    assert read.config == written.config
    assert read.columns == columns
    assert dict(read.covariates.words) == dict(covariates.words)
    for name in ("bmd", "age"):
        np.testing.assert_array_equal(read.models[name].predict(UNSEEN)[0], written.models[name].predict(UNSEEN)[0])
    assert (read.models["bmd"].predict(UNSEEN)[0] != read.models["age"].predict(UNSEEN)[0]).any()
    (tmp_path / "regression.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        load_regression(tmp_path)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    check_installed(REGRESSORS["svr"]())
    with pytest.raises(ConfigError, match=r"XGBoost is not installed.*bregma\[tabular\]"):
        check_installed(REGRESSORS["xgboost"]())
