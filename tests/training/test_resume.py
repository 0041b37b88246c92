"""An interruption leaves no trace in a training's result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from bregma.errors import RunError
from bregma.training.checkpoint import write_checkpoint
from bregma.training.history import read_history
from bregma.training.loop import Trained
from bregma.training.settings import Plan
from tiny_training import Stopper, assert_same, trainer, without_seconds

STEPS, EPOCHS = 2, 3
ROUGH = {"augment": {"rotation_deg": 10, "scale": 0.1, "noise": 0.02, "elastic": 0.01}, "train": {"select": "last"}}
COVARIANCE = {"name": "coordinate", "covariance": True}
PRESENCE = [{"name": "mse"}, {"name": "presence", "weight": 0.1}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("whole")
    trained = trainer(folder, tiny.plan(**ROUGH)).fit()
    return trained, read_history(folder / "history.csv")


@pytest.fixture(scope="module")
def phased(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Trained]:
    """Three phases over 1, 1 and 2 epochs; a step sees two batches, so an epoch is 1 step, and the schedule goes on."""
    phases = [
        {"epochs": 1, "freeze": ["backbone"]},
        {"epochs": 1, "lr": {"head": 2e-3}},
        {"epochs": 2, "restart": False, "freeze": ["head"]},
    ]
    train = {
        "epochs": 4,
        "phases": phases,
        "accumulate": 2,
        "select": "last",
        "schedule": {"name": "restarts", "warmup_steps": 1, "cycle_epochs": 2},
        "optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True},
    }
    plan = tiny.plan(model={"network": {"dropout_down": [0.2, 0.2]}}, augment=ROUGH["augment"], train=train)
    return plan, trainer(tmp_path_factory.mktemp("phased"), plan).fit()


class TestInterruption:
    @pytest.mark.parametrize(
        "stop",
        [{"step": step} for step in range(1, STEPS * EPOCHS + 1)] + [{"validation": n} for n in range(1, EPOCHS + 1)],
        ids=lambda stop: "-".join(f"{name}{count}" for name, count in stop.items()),
    )
    def test_resumes_to_the_same_result(
        self, tmp_path: Path, whole: tuple[Trained, list[dict[str, float]]], stop: dict[str, int]
    ) -> None:
        plan = tiny.plan(**ROUGH)
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path, plan, observer=Stopper(**stop)).fit()
        torch.manual_seed(12345)
        resumed = trainer(tmp_path, plan).fit(resume=True)
        assert_same(resumed, whole[0])
        assert without_seconds(read_history(tmp_path / "history.csv")) == without_seconds(whole[1])

    def test_stopped_again_and_again_it_still_arrives(
        self, tmp_path: Path, whole: tuple[Trained, list[dict[str, float]]]
    ) -> None:
        plan = tiny.plan(**ROUGH)
        # Each attempt gets one epoch further, because the second step of an epoch is followed by its checkpoint.
        for attempt in range(EPOCHS - 1):
            observer = Stopper(step=STEPS + 1)
            with pytest.raises(KeyboardInterrupt):
                trainer(tmp_path, plan, observer=observer).fit(resume=True)
            assert observer.starts == [(attempt, EPOCHS, STEPS)]
        assert_same(trainer(tmp_path, plan).fit(resume=True), whole[0])

    def test_without_a_checkpoint_yet_it_starts_over(
        self, tmp_path: Path, whole: tuple[Trained, list[dict[str, float]]]
    ) -> None:
        plan = tiny.plan(augment=ROUGH["augment"], train={"select": "last", "checkpoint_seconds": 1e6})
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path, plan, observer=Stopper(step=5)).fit()
        assert not (tmp_path / "checkpoint" / "last.safetensors").exists()
        assert_same(trainer(tmp_path, plan).fit(resume=True), whole[0])

    def test_a_finished_training_resumes_to_its_result_without_a_step(self, tmp_path: Path) -> None:
        plan = tiny.plan(train={"select": "best"})
        first = trainer(tmp_path, plan).fit()
        observer = Stopper(step=1)
        assert_same(trainer(tmp_path, plan, observer=observer).fit(resume=True), first)
        assert observer.losses == []

    @pytest.mark.parametrize("codec", ["coordinate", "linear"])
    def test_other_settings_resume_alike(self, tmp_path: Path, codec: str) -> None:
        changes = {
            "coordinate": {"codec": COVARIANCE, "loss": [{"name": "gaussian_nll"}]},
            "linear": {"codec": {"name": "heatmap", "activation": "linear", "presence": True}, "loss": PRESENCE},
        }[codec]
        train = {"optimizer": {"name": "adam"}, "schedule": {"name": "plateau", "patience": 1}, "ema": 0}
        plan = tiny.plan(**changes, train=train | {"epochs": 4, "precision": "bf16-mixed", "workers": 2})
        whole = trainer(tmp_path / "whole", plan).fit()
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path / "halved", plan, observer=Stopper(step=6)).fit()
        assert_same(trainer(tmp_path / "halved", plan).fit(resume=True), whole)

    @pytest.mark.parametrize("stop", [{"step": step} for step in range(1, 5)] + [{"validation": 2}], ids=str)
    def test_across_phases_too(self, tmp_path: Path, phased: tuple[Plan, Trained], stop: dict[str, int]) -> None:
        plan, whole = phased
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path, plan, observer=Stopper(**stop)).fit()
        torch.manual_seed(12345)
        resumed = trainer(tmp_path, plan)
        assert_same(resumed.fit(resume=True), whole)
        assert (resumed.progress.phase, resumed.progress.phase_epoch, resumed.progress.schedule_step) == (2, 2, 1)

    def test_a_checkpoint_of_other_settings_is_refused(self, tmp_path: Path) -> None:
        trainer(tmp_path, tiny.plan()).fit()
        other = trainer(tmp_path, tiny.plan(train={"seed": 1}))
        with pytest.raises(RunError, match=r"made with other settings.*start anew in another folder"):
            other.fit(resume=True)

    def test_a_checkpoint_that_is_none_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint" / "last.safetensors"
        write_checkpoint(path, {"network": torch.zeros(1)}, {"epoch": 3})
        with pytest.raises(RunError, match="other settings"):
            trainer(tmp_path).fit(resume=True)
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(RunError, match="is not a checkpoint") as caught:
            trainer(tmp_path).fit(resume=True)
        assert str(path) in str(caught.value)
