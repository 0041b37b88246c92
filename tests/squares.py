"""Squares on noise, with how bright and how large each is: quantities that a regressor learns in seconds."""

from __future__ import annotations

import numpy as np

from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case

SCHEMA = schema_from_dict(
    {
        "name": "grey",
        "title": "How bright a square is",
        "landmarks": [],
        "flip": "keep",
        "quantities": [
            {"name": "level", "label": "Level", "unit": "1", "source": "test"},
            {"name": "side", "label": "Side", "unit": "mm", "dimension": "length", "source": "test"},
        ],
    },
    where="tests",
)


def square(number: int) -> tuple[np.ndarray, float, float, tuple[float, float]]:
    """A square of some level and side on a background of another level that says nothing; its middle is anywhere."""
    rng = np.random.default_rng(number)
    level, side, background = rng.uniform(60, 180), rng.uniform(14, 26), rng.uniform(60, 180)
    x, y = rng.uniform(20, 44, 2)
    image = np.full((64, 64), background)
    rows, columns = np.mgrid[:64, :64]
    image[(abs(rows - y) <= side / 2) & (abs(columns - x) <= side / 2)] = level
    # Both ends of the range are on every image, so that its percentiles do not depend on the square.
    image[0, :8], image[1, :8] = 0, 255
    return (image + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8), level, side, (x, y)


def cases(count: int, start: int = 0) -> tuple[Case, ...]:
    found = []
    for number in range(start, start + count):
        image, level, side, _ = square(number)
        spacing = 0.5 if number % 2 else 0.25
        frame = Frame((64, 64), (spacing, spacing), "phantom")
        tags = {"age": 20.0 + level / 4, "sex": "F" if number % 2 else "M"}
        targets = {"level": level, "side": side * spacing}
        found.append(Case(f"c{number}", f"s{number}", ArrayImage(image), frame, targets=targets, tags=tags))
    return tuple(found)
