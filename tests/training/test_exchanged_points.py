"""Training on points that cannot be told apart: no order of the labels makes a difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny
from bregma.codecs import Labels, build_codec
from bregma.data.loader import SampleSource, batches
from bregma.errors import ConfigError
from bregma.inference import radial_errors
from bregma.networks import build_network
from bregma.training.objective import Objective, in_nearest_order
from bregma.types import Case, LandmarkSet, Prediction

PAIR = tiny.SCHEMA.model_copy(update={"exchangeable": (("bright", "dark"),)})


def swapped(case: Case) -> Case:
    assert case.landmarks is not None
    return Case(
        case.id, case.subject, case.image, case.frame, LandmarkSet(case.landmarks.points[::-1], case.landmarks.status)
    )


def one_batch(cases: list[Case], plan: Any) -> Any:
    return next(batches(SampleSource(cases, PAIR, plan.model.preprocess), [tuple(range(len(cases)))], workers=0))


def test_labels_are_put_in_the_order_of_the_prediction() -> None:
    points = torch.tensor([[[1.0, 1.0], [9.0, 9.0], [5.0, 5.0]]])
    placed = torch.tensor([[1.0, 0.0, 1.0]])
    labels = Labels(points, placed, placed, torch.ones(1, 3), (16, 16))
    seen = torch.tensor([[[8.0, 8.0], [2.0, 2.0], [5.0, 5.0]]])
    moved = in_nearest_order(labels, seen, ((0, 1),))
    # The point without a place has no say, though it lies near the first prediction.
    assert moved.points_in.tolist() == [[[9.0, 9.0], [1.0, 1.0], [5.0, 5.0]]]
    assert moved.placed.tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("codec", "loss"),
    [
        ({"name": "coordinate"}, "wing"),
        ({"name": "heatmap", "sigma_px": 4.0}, "cross_entropy"),
        ({"name": "heatmap", "sigma_px": 4.0, "activation": "linear"}, "mse"),
        ({"name": "heatmap", "sigma_px": 4.0, "activation": "linear"}, "adaptive_wing"),
        ({"name": "heatmap", "sigma_px": 4.0, "activation": "sigmoid"}, "focal"),
    ],
)
def test_two_steps_are_the_same_whatever_order_the_labels_have(codec: dict[str, Any], loss: str) -> None:
    plan = tiny.plan(codec=codec, loss=[{"name": loss}])
    losses = []
    for cases in (list(tiny.cases(2)), [swapped(case) for case in tiny.cases(2)]):
        built = build_codec(plan.model.codec, 2, plan.model.network.map_stride, PAIR)
        torch.manual_seed(0)
        network = build_network(plan.model.network, built.outputs, schema=PAIR)
        objective = Objective(plan, built, PAIR)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        for _ in range(2):
            batch = one_batch(cases, plan)
            value, _ = objective(network(batch.images), batch)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(value.detach()))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-4)
    assert losses[0] != losses[1]


def test_separate_maps_do_depend_on_the_order_of_the_labels() -> None:
    plan = tiny.plan(codec={"name": "heatmap", "sigma_px": 4.0, "exchangeable": "separate"})
    built = build_codec(plan.model.codec, 2, plan.model.network.map_stride, PAIR)
    assert built.outputs.maps == 2
    objective = Objective(plan, built, PAIR)
    first, second = (
        one_batch(cases, plan) for cases in (list(tiny.cases(2)), [swapped(case) for case in tiny.cases(2)])
    )
    labels = Labels(first.points_in, first.placed, first.placed, first.known, plan.model.preprocess.size)
    outputs = {"maps": 10 * built.encode(labels).maps}
    assert float(objective(outputs, second)[0]) > 1.5 * float(objective(outputs, first)[0])


def test_a_loss_on_points_that_share_a_map_is_refused_before_training() -> None:
    plan = tiny.plan(loss=[{"name": "cross_entropy"}, {"name": "wing"}])
    built = build_codec(plan.model.codec, 2, plan.model.network.map_stride, PAIR)
    with pytest.raises(ConfigError, match=r"(?s)share a map.*loss\.1|loss\.1.*share a map"):
        Objective(plan, built, PAIR)


def test_validation_counts_the_better_order() -> None:
    (case,) = tiny.cases(1)
    assert case.landmarks is not None
    away = case.landmarks.points[::-1] + np.array([3.0, 4.0])
    found = Prediction(case.id, away, torch.eye(2).repeat(2, 1, 1).numpy(), torch.ones(2).numpy(), case.frame)
    assert radial_errors([case], [found], ((0, 1),)) == pytest.approx([5.0, 5.0])
    assert radial_errors([case], [found]).min() > 6.0
