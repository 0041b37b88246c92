"""A learned heatmap width in a training: its own rate, no decay, and the way into a checkpoint and what is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from bregma.bundle import build_model
from bregma.training.phases import parameter_groups
from bregma.training.settings import Plan
from tiny_training import Stopper, assert_same, trainer

CODEC = {"activation": "linear", "learn_sigma": True, "sigma_px": 8.0}


def plan_of(**train: Any) -> Plan:
    loss = [{"name": "mse"}, {"name": "heatmap_width"}]
    return tiny.plan(model={"codec": CODEC}, loss=loss, train=train)


def sigma_of(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return weights["heads.constants.sigma"]


def test_widths_have_a_group_without_decay() -> None:
    network, _ = build_model(plan_of().model, tiny.SCHEMA)
    alike = parameter_groups(network, dict.fromkeys(network.part_parameters(), 1e-3))
    decay = {id(p): group.get("weight_decay") for group in alike for p in group["params"]}
    assert decay.pop(id(network.part_parameters()["constants"][0])) == 0.0
    assert set(decay.values()) == {None}
    assert len(decay) == len([*network.parameters()]) - 1


def test_widths_follow_their_own_rate_into_what_is_deployed(tmp_path: Path) -> None:
    plan = plan_of(optimizer={"part_lr": {"constants": 0.05}}, ema=0.5, select="last", epochs=4)
    training = trainer(tmp_path / "whole", plan)
    trained = training.fit()
    now = sigma_of(training.network.module.state_dict())
    # From 8 px, which is 2 cells, the widths of a network that knows nothing yet rise towards 2.51 cells.
    assert (now > 0.01).all()
    assert ((sigma_of(trained.weights) - now).abs() < now.abs()).all()
    assert {"train_mse", "train_heatmap_width", "lr_constants"} <= set(trained.history[-1])
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", plan, observer=Stopper(step=5)).fit()
    assert_same(trainer(tmp_path / "cut", plan).fit(resume=True), trained)
