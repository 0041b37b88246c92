"""One training of the tiny task, for all tests that need a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from bregma.types import Dataset
from bregma.workflows import TrainResult, train


@pytest.fixture(scope="session")
def spots() -> Dataset:
    return tiny.dataset()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, spots: Dataset) -> TrainResult:
    return train(spots, tmp_path_factory.mktemp("runs") / "first", overrides=tiny.OVERRIDES)


@pytest.fixture(scope="session")
def run(trained: TrainResult) -> Path:
    return trained.run
