"""What a validation finds, and the metric that selects weights, stops a training and lowers its rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from bregma.data.loader import batches
from bregma.errors import ConfigError
from bregma.training.checks import check_length
from bregma.training.history import read_history
from bregma.training.loop import Trainer
from bregma.training.settings import TrainConfig
from bregma.training.validation import Scores
from tiny_training import trainer

SDR = ["val_sdr_2px", "val_sdr_4px", "val_sdr_6px", "val_sdr_10px"]
FLAT = {"name": "constant", "warmup_steps": 0}


def test_scores_worked_by_hand() -> None:
    row = Scores(np.array([1.0, 2.0, 3.0, 10.0]), 0.75).row([2.0, 2.5, 9.0])
    expected = {"val_mre_px": 4.0, "val_median_px": 2.5, "val_loss": 0.75}
    assert row == {**expected, "val_sdr_2px": 50.0, "val_sdr_2.5px": 50.0, "val_sdr_9px": 75.0}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_left_out(loss: float) -> None:
    assert "val_loss" not in Scores(np.ones(1), loss).row([2.0])


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_validation_loss_is_that_of_the_weights_that_are_validated(tmp_path: Path, ema: float) -> None:
    # Three cases in batches of two, one landmark unlabelled: 6 - 1 points have a loss, and each counts once.
    built = trainer(tmp_path, tiny.plan(train={"ema": ema, "batch_size": 2}))
    cases = (*tiny.cases(2, start=50), tiny.case(52, status=(tiny.VISIBLE, tiny.UNLABELLED)))
    built = Trainer(built.plan, tiny.SCHEMA, tiny.cases(8), cases, tmp_path)
    history = built.fit().history
    network = (built.average.network if ema else built.network.module).eval()
    everything = next(batches(built.validation, [(0, 1, 2)], workers=0))
    with torch.no_grad():
        loss = built.objective(network(everything.images), everything)[0]
    assert history[-1]["val_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_history_has_every_metric(tmp_path: Path) -> None:
    trained = trainer(tmp_path, tiny.plan(train={"sdr_px": [3.0]})).fit()
    for row in read_history(tmp_path / "history.csv"):
        assert {"val_mre_px", "val_median_px", "val_loss", "val_sdr_3px"} <= row.keys()
    assert trained.best.keys() == {"val_mre_px", "val_median_px", "val_loss", "val_sdr_3px"}


class Given(Trainer):
    """A trainer whose validations are given: errors and losses."""

    script: Any

    def _scores(self) -> Scores:
        errors, loss = next(self.script)
        return Scores(np.array(errors, dtype=np.float64), loss)


SCRIPT = [([9, 9], 0.3), ([1, 9], 0.1), ([3, 3], 0.2), ([9, 9], 0.4), ([9, 9], 0.4)]
"""The least loss is at epoch 2, the least mean error at epoch 3; within 2 px is a point at epoch 2 alone."""


def given(folder: Path, script: list[Any] = SCRIPT, **train: Any) -> Given:
    plan = tiny.plan(train={"epochs": len(script), "schedule": FLAT, **train})
    built = Given(plan, tiny.SCHEMA, tiny.cases(8), tiny.cases(2, start=50), folder)
    built.script = iter(script)
    return built


@pytest.mark.parametrize(("monitor", "epoch"), [("val_mre_px", 3), ("val_loss", 2), ("val_sdr_2px", 2)])
def test_the_best_weights_are_those_of_the_metric(tmp_path: Path, monitor: str, epoch: int) -> None:
    built = given(tmp_path / "a", monitor=monitor)
    trained = built.fit()
    assert trained.epoch == epoch
    assert {name: best.epoch for name, best in trained.best.items()} == {
        "val_mre_px": 3,
        "val_median_px": 3,
        "val_loss": 2,
        **{"val_sdr_2px": 2, "val_sdr_4px": 3, "val_sdr_6px": 3, "val_sdr_10px": 1},
    }
    assert trained.best_mre_px == 3.0
    until = given(tmp_path / "b", SCRIPT[:epoch], select="last").fit()
    assert all(torch.equal(value, trained.weights[name]) for name, value in until.weights.items())


def test_early_stopping_and_plateau_follow_it(tmp_path: Path) -> None:
    # By its loss the training is at its best at epoch 2, and two worse ones follow: the mean error falls until 3.
    history = given(tmp_path / "a", monitor="val_loss", early_stop=2).fit().history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    schedule = {"name": "plateau", "warmup_steps": 0, "patience": 1, "factor": 0.5}
    rates = {}
    for metric in ("val_mre_px", "val_sdr_2px"):
        built = given(tmp_path / metric, schedule={**schedule, "metric": metric}, optimizer={"lr": 1e-3})
        rates[metric] = [row["lr"] for row in built.fit().history]
    assert rates["val_mre_px"] == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 5e-4])
    assert rates["val_sdr_2px"] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 2.5e-4])


@pytest.mark.parametrize(
    "train", [{"monitor": "val_mse"}, {"monitor": "val_sdr_3px"}, {"schedule": {"name": "plateau", "metric": "loss"}}]
)
def test_a_metric_that_is_not_logged_is_refused(train: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is not logged; expected one of val_mre_px, .*val_loss, val_mae_sd, val_sdr"):
        TrainConfig.model_validate(train)


class TestWarmUp:
    """8 images in batches of 2 are 4 steps an epoch, or 2 over two batches each."""

    @pytest.mark.parametrize(
        ("train", "most"),
        [
            ({"epochs": 3}, 12),
            ({"epochs": 3, "accumulate": 2}, 6),
            ({"phases": [{"epochs": 1}, {"epochs": 2}]}, 4),
            ({"phases": [{"epochs": 1}, {"epochs": 2, "restart": False}]}, 12),
        ],
    )
    def test_may_not_outlast_its_schedule(self, train: dict[str, Any], most: int) -> None:
        def settings(warmup: int) -> TrainConfig:
            return TrainConfig.model_validate({"batch_size": 2, "schedule": {"warmup_steps": warmup}, **train})

        check_length(settings(most), 8)
        with pytest.raises(
            ConfigError, match=rf"train.schedule.warmup_steps.*longer than.*{most} at most.*got {most + 1}"
        ):
            check_length(settings(most + 1), 8)
