"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bregma.types import Dataset
    from bregma.workflows import TrainResult


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real development images; tests that need them are skipped where there are none."""
    root = Path(os.environ.get("BREGMA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no development images: set BREGMA_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def spots() -> Dataset:
    """The tiny task: 8 cases to train on, 3 to validate and 3 to test on."""
    import tiny

    return tiny.dataset()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, spots: Dataset) -> TrainResult:
    """One training of the tiny task, for all tests that need a run; they must not change it."""
    import tiny
    from bregma.workflows import train

    return train(spots, tmp_path_factory.mktemp("runs") / "first", overrides=tiny.OVERRIDES)


@pytest.fixture(scope="session")
def run(trained: TrainResult) -> Path:
    """The folder of that training."""
    return trained.run
