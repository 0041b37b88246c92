"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real development images; tests that need them are skipped where there are none."""
    root = Path(os.environ.get("BREGMA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no development images: set BREGMA_DATA to their folder")
    return root
