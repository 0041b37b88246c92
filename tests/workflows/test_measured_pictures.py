"""``measure`` draws what it measured from labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bregma.phantoms import make_phantoms
from bregma.types import Dataset
from bregma.workflows import measure


def test_labels_are_drawn_with_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_phantoms("fetal_head", 2, seed=1)

    def load(*_: object, **__: object) -> Dataset:
        return data

    monkeypatch.setattr("bregma.workflows.prediction.load_data", load)
    found = measure(tmp_path, out=tmp_path / "out")
    assert len(found) == 2
    with Image.open(tmp_path / "out" / "measured.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    # The first measurement's colour, in either of the two cells.
    yellow = np.abs(pixels - (240, 228, 66)).sum(axis=2) < 40
    half = yellow.shape[1] // 2
    assert yellow[:, :half].sum() > 50
    assert yellow[:, half:].sum() > 50
