"""A task that a tiny network learns in seconds: two spots, one bright and one dark, on a grey image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bregma.bundle import ModelConfig
from bregma.config import laid_over
from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.training.settings import Plan
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Status

SIZE = 64

SCHEMA = schema_from_dict(
    {
        "name": "spots",
        "title": "Two spots",
        "landmarks": [{"name": "bright", "label": "Bright spot"}, {"name": "dark", "label": "Dark spot"}],
        "flip": "keep",
        "measurements": [
            {
                "name": "gap",
                "label": "Distance of the spots",
                "primitive": "distance",
                "points": {"a": "bright", "b": "dark"},
                "unit": "mm",
                "grade": "size",
            }
        ],
        "grades": [{"name": "size", "edges": [10.0], "labels": ["small", "large"], "source": "test"}],
    },
    where="tests",
)

MODEL: dict[str, Any] = {
    "preprocess": {"size": [SIZE, SIZE]},
    "network": {"name": "unet", "base_channels": 4, "levels": 3, "map_stride": 4},
    "codec": {"name": "heatmap", "sigma_px": 4.0},
}
"""A network of about 8,000 weights."""

STILL: dict[str, Any] = {"rotation_deg": 0, "scale": 0, "anisotropy": 0, "shift": 0, "gamma": 0, "contrast": 0}


def spots(points: NDArray[np.float64], *, size: int = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    """Draw the bright spot at ``points[0]`` and the dark one at ``points[1]`` on faint noise, ``(size, size)``."""
    y, x = np.mgrid[:size, :size]
    image = 128 + np.random.default_rng(seed).normal(0, 3, (size, size))
    for (px, py), height in zip(points, (110, -110)):
        image += height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2))
    return np.clip(image, 0, 255).astype(np.uint8)


def case(number: int, *, size: int = SIZE, status: Sequence[int] = (0, 0)) -> Case:
    """Return case ``number`` of its own subject, with 0.5 mm pixels; it depends on nothing but the arguments."""
    rng = np.random.default_rng(number)
    points = rng.uniform(0.15 * size, 0.85 * size, (2, 2))
    pixels = spots(points, size=size, seed=number)
    frame = Frame((size, size), (0.5, 0.5), "phantom")
    marks = LandmarkSet(points, np.array(status))
    return Case(f"c{number}", f"s{number}", ArrayImage(pixels), frame, marks, tags={"parity": number % 2})


def cases(count: int, *, start: int = 0, status: Sequence[int] = (0, 0)) -> tuple[Case, ...]:
    """Return successive cases."""
    return tuple(case(number, status=status) for number in range(start, start + count))


def dataset(train: int = 8, val: int = 3, test: int = 3) -> Dataset:
    """Return a dataset with its own split; a part of 0 cases is left out."""
    counts = {"train": train, "val": val, "test": test}
    every = cases(sum(counts.values()))
    splits, start = {}, 0
    for part, count in counts.items():
        if count:
            splits[part] = tuple(c.id for c in every[start : start + count])
        start += count
    return Dataset("spots", SCHEMA, every, splits, license="CC0-1.0", citation="drawn here")


def plan(*, codec: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """Return a plan of three epochs of two steps over eight cases, with ``codec`` and ``changes`` laid over it."""
    base = {
        "model": MODEL if codec is None else {**MODEL, "codec": codec},
        "augment": STILL,
        "train": {
            "epochs": 3,
            "batch_size": 4,
            "accelerator": "cpu",
            "workers": 0,
            "checkpoint_seconds": 0,
            "schedule": {"warmup_steps": 2},
            "ema": 0.9,
        },
    }
    return Plan.model_validate(laid_over(base, changes))


def model_config(**changes: Any) -> ModelConfig:
    """Return the settings of the tiny model, with ``changes`` laid over them."""
    return ModelConfig.model_validate(laid_over(MODEL, changes))


OVERRIDES = (
    "model.network.name=unet",
    "model.network.base_channels=4",
    "model.network.levels=3",
    "model.network.map_stride=4",
    "train.epochs=2",
    "train.batch_size=4",
    "train.accelerator=cpu",
    "train.precision=32-true",
    "train.workers=0",
    "predict.accelerator=cpu",
    "evaluate.draws=100",
)
"""Settings that make a training through the workflows a matter of a second."""

CLOSE_UPS = (
    "model.preprocess.size=[64, 64]",
    *(item for item in OVERRIDES if item.startswith(("model", "train", "predict", "evaluate"))),
    "train.epochs=1",
    "split.method=given",
    "refine.size=32",
    'refine.set=["train.epochs=1", "model.network.name=unet", "model.network.base_channels=4", '
    '"model.network.levels=3", "augment.blur_px=0"]',
)
"""Settings of a chain's network and of a second one for its elements, on images of 64 pixels."""

UNLABELLED, OUTSIDE, VISIBLE = int(Status.UNLABELLED), int(Status.OUTSIDE), int(Status.VISIBLE)
