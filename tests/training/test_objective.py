"""What a training makes small: the terms see the codec's points once, the labels' masks and the anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from bregma.codecs import build_codec
from bregma.codecs.coordinate import CoordinateCodec, CoordinateCodecConfig
from bregma.data.loader import SampleSource, batches
from bregma.errors import ConfigError
from bregma.training.objective import Objective
from tiny_training import trainer

JOINED = tiny.SCHEMA.model_copy(update={"edges": (("bright", "dark"),)})
TERMS: list[dict[str, Any]] = [
    {"name": "wing"},
    {"name": "distance", "weight": 0.2, "relative": False},
    {"name": "l1", "weight": 2.0},
]


def outputs_for(points_in: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a network gives that regresses these points."""
    unit = (points_in + 0.5) / tiny.SIZE
    margin = CoordinateCodec.margin
    return {"points": torch.logit((unit + margin) / (1 + 2 * margin)).flatten(1)}


class Counting(CoordinateCodec):
    """Counts how often points are read from a network's outputs."""

    read = 0

    def points(self, outputs: dict[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        self.read += 1
        return super().points(outputs, shape)


def test_terms_share_one_reading_of_the_points() -> None:
    plan = tiny.plan(codec={"name": "coordinate"}, loss=TERMS)
    codec = Counting(CoordinateCodecConfig(), 2, 1)
    source = SampleSource(tiny.cases(2), tiny.SCHEMA, plan.model.preprocess)
    batch = next(batches(source, [(0, 1)], workers=0))
    objective = Objective(plan, codec, JOINED)
    # The first point of every image 3 to the right: |d| is 3, 0, 0, 0 an image.
    total, terms = objective(outputs_for(batch.points_in + torch.tensor([[3.0, 0.0], [0.0, 0.0]])), batch)
    assert codec.read == 1
    assert list(terms) == ["wing", "distance", "l1"]
    assert float(terms["l1"]) == pytest.approx(0.75, abs=1e-4)
    weighted = float(terms["wing"]) + 0.2 * float(terms["distance"]) + 2 * float(terms["l1"])
    assert float(total) == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize("name", ["symmetry", "distance", "anatomical"])
def test_a_term_that_the_anatomy_cannot_feed_is_refused_before_training(name: str) -> None:
    plan = tiny.plan(codec={"name": "coordinate"}, loss=[{"name": "wing"}, {"name": name}])
    codec = build_codec(plan.model.codec, 2, 1)
    with pytest.raises(ConfigError, match=f"the loss '{name}' has nothing to act on") as caught:
        Objective(plan, codec, tiny.SCHEMA)
    assert caught.value.where == "loss.1"


def test_the_focal_loss_teaches_every_landmark(tmp_path: Path) -> None:
    """Its many cells of background drive no map to nothing; without the offset of the sigmoid they do, for good."""
    codec = {"activation": "sigmoid", "decoder": "dark"}
    train = {"epochs": 16, "validate_every": 16, "optimizer": {"lr": 1e-2}, "ema": 0.9}
    plan = tiny.plan(model={"codec": codec}, loss=[{"name": "focal"}], train=train)
    trained = trainer(tmp_path, plan, train=tiny.cases(16)).fit()
    assert trained.history[-1]["val_mre_px"] < 2.0
