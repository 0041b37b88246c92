"""The training loop: it learns, it repeats itself exactly, and an interruption leaves no trace in the result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from bregma.errors import ConfigError, RunError
from bregma.training.checkpoint import read_checkpoint, write_checkpoint
from bregma.training.history import read_history
from bregma.training.loop import Trained, Trainer
from bregma.training.settings import Plan

STEPS, EPOCHS = 2, 3


class Stopper:
    """Presses Ctrl-C at the n-th step or validation."""

    def __init__(self, *, step: int | None = None, validation: int | None = None) -> None:
        self.step, self.validation = step, validation
        self.steps = self.validations = 0

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        assert epochs == EPOCHS
        assert steps_per_epoch == STEPS

    def stepped(self, loss: float) -> None:
        self.steps += 1
        if self.steps == self.step:
            raise KeyboardInterrupt

    def validated(self, row: dict[str, float], best: bool) -> None:
        self.validations += 1
        if self.validations == self.validation:
            raise KeyboardInterrupt


def trainer(folder: Path, plan: Plan | None = None, *, val: int = 3, observer: Any = None) -> Trainer:
    return Trainer(plan or tiny.plan(), tiny.SCHEMA, tiny.cases(8), tiny.cases(val, start=50), folder, observer)


def assert_same(a: Trained, b: Trained) -> None:
    assert a.weights.keys() == b.weights.keys()
    for name, tensor in a.weights.items():
        assert torch.equal(tensor, b.weights[name]), name
    assert (a.epoch, a.best_mre_px, a.images) == (b.epoch, b.best_mre_px, b.images)
    assert without_seconds(a.history) == without_seconds(b.history)


def without_seconds(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


ROUGH = {"augment": {"rotation_deg": 10, "scale": 0.1, "noise": 0.02, "elastic": 0.01}, "train": {"select": "last"}}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("whole")
    trained = trainer(folder, tiny.plan(**ROUGH)).fit()
    return trained, read_history(folder / "history.csv")


@pytest.mark.parametrize(
    "stop",
    [
        {"step": 1},
        {"step": 2},
        {"validation": 1},
        {"step": 3},
        {"step": 4},
        {"validation": 2},
        {"step": 5},
        {"validation": 3},
    ],
    ids=lambda stop: "-".join(f"{name}{count}" for name, count in stop.items()),
)
def test_an_interrupted_training_resumes_to_the_same_result(
    tmp_path: Path, uninterrupted: tuple[Trained, list[dict[str, float]]], stop: dict[str, int]
) -> None:
    plan = tiny.plan(**ROUGH)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, plan, observer=Stopper(**stop)).fit()
    torch.manual_seed(12345)
    resumed = trainer(tmp_path, plan).fit(resume=True)
    assert_same(resumed, uninterrupted[0])
    assert without_seconds(read_history(tmp_path / "history.csv")) == without_seconds(uninterrupted[1])


def test_interrupted_at_every_step_it_still_arrives(
    tmp_path: Path, uninterrupted: tuple[Trained, list[dict[str, float]]]
) -> None:
    plan = tiny.plan(**ROUGH)
    # Each attempt gets one epoch further, because the second step of an epoch is followed by its checkpoint.
    for _ in range(EPOCHS - 1):
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path, plan, observer=Stopper(step=STEPS + 1)).fit(resume=True)
    assert_same(trainer(tmp_path, plan).fit(resume=True), uninterrupted[0])
