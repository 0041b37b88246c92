"""Small files made by hand for the readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

MakeImage = Callable[..., Path]


@pytest.fixture
def make_image() -> MakeImage:
    def make(path: Path, *, width: int = 40, height: int = 30) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.arange(width * height, dtype=np.uint8).reshape(height, width)
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
        return path

    return make
