"""Trainings of the tiny task, an observer that interrupts them, and what makes two results the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny
from bregma.training.loop import Trained, Trainer
from bregma.training.settings import Plan
from bregma.training.validation import Scores
from bregma.types import Case


class Stopper:
    """Presses Ctrl-C at the n-th step or validation, and keeps what it heard."""

    def __init__(self, *, step: int | None = None, validation: int | None = None) -> None:
        self.step, self.validation = step, validation
        self.starts: list[tuple[int, int, int]] = []
        self.losses: list[float] = []
        self.rows: list[tuple[dict[str, float], bool]] = []
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        self.starts.append((epoch, epochs, steps_per_epoch))

    def stepped(self, loss: float) -> None:
        self.losses.append(loss)
        if len(self.losses) == self.step:
            raise KeyboardInterrupt

    def validated(self, row: dict[str, float], best: bool) -> None:
        self.rows.append((row, best))
        if len(self.rows) == self.validation:
            raise KeyboardInterrupt


class Scripted(Trainer):
    """A trainer whose validation errors are given, and a tenth of them as losses."""

    script: Iterator[float]

    def _scores(self) -> Scores:
        error = next(self.script)
        return Scores(np.array([error]), error / 10)


def trainer(
    folder: Path, plan: Plan | None = None, *, train: Sequence[Case] | None = None, val: int = 3, observer: Any = None
) -> Trainer:
    cases = tiny.cases(8) if train is None else train
    return Trainer(plan or tiny.plan(), tiny.SCHEMA, cases, tiny.cases(val, start=50), folder, observer)


def scripted(folder: Path, plan: Plan, errors: Sequence[float]) -> Scripted:
    built = Scripted(plan, tiny.SCHEMA, tiny.cases(8), tiny.cases(2, start=50), folder)
    built.script = iter(errors)
    return built


def assert_same(a: Trained, b: Trained) -> None:
    assert a.weights.keys() == b.weights.keys()
    for name, tensor in a.weights.items():
        assert torch.equal(tensor, b.weights[name]), name
    assert (a.epoch, a.best_mre_px, a.images) == (b.epoch, b.best_mre_px, b.images)
    assert without_seconds(a.history) == without_seconds(b.history)


def without_seconds(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
