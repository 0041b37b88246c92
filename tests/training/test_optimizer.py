"""Kinds of gradient descent, and steps over several batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from bregma.data.loader import batches, collate, epoch_order
from bregma.errors import ConfigError
from bregma.training.loop import Trainer
from bregma.training.optimizer import build_optimizer
from bregma.training.settings import OptimizerConfig, Plan
from tiny_training import assert_same, trainer

CPU = torch.device("cpu")
SMOOTH: dict[str, Any] = {
    "preprocess": {"size": [32, 32]},
    "network": {"name": "scn", "channels": 4, "dropout": 0},
    "codec": {"name": "heatmap", "sigma_px": 2.0, "activation": "linear"},
}
"""A network without batch normalisation and dropout, so that a batch is no more than its images."""


def moved(steps: int, **settings: Any) -> float:
    """Return where a weight of 1 is after steps along a gradient of 1."""
    weight = torch.nn.Parameter(torch.ones(1))
    config = OptimizerConfig(lr=0.1, weight_decay=0, **settings)
    optimizer = build_optimizer(config, [{"params": [weight]}], CPU, "32-true")
    for _ in range(steps):
        weight.grad = torch.ones(1)
        optimizer.step()
    return float(weight.detach())


class TestKinds:
    # Velocity v = m v + g from 0; a plain step goes v, a Nesterov step g + m v: with m = 0.5 and g = 1 twice,
    # v is 1 and 1.5, so the steps are 1 + 1.5 and (1 + 0.5) + (1 + 0.75).
    @pytest.mark.parametrize(
        ("settings", "way"),
        [({"momentum": 0}, 2), ({"momentum": 0.5}, 2.5), ({"momentum": 0.5, "nesterov": True}, 3.25)],
    )
    def test_sgd(self, settings: dict[str, Any], way: float) -> None:
        assert moved(2, name="sgd", **settings) == pytest.approx(1 - 0.1 * way, rel=1e-6)

    @pytest.mark.parametrize("name", ["adam", "adamw"])
    def test_adam_goes_its_rate_each_step(self, name: str) -> None:
        assert moved(2, name=name) == pytest.approx(0.8, rel=1e-6)

    def test_momentum_is_no_setting_of_adam(self) -> None:
        with pytest.raises(ValueError, match="momentum is no setting of adam"):
            OptimizerConfig(name="adam", momentum=0.5)
        with pytest.raises(ValueError, match="nesterov needs a momentum"):
            OptimizerConfig(name="sgd", momentum=0, nesterov=True)


class TestAccumulation:
    def test_two_batches_are_one_of_twice_the_size(self, tmp_path: Path) -> None:
        plan = smooth(optimizer={"name": "sgd", "lr": 0.1, "clip_norm": 1e-3})
        twice, large = (trainer(tmp_path / name, plan) for name in ("twice", "large"))
        before = {name: value.clone() for name, value in large.network.module.named_parameters()}
        first, second = (batch(twice, indices) for indices in ((0, 1), (2, 3)))
        losses = [twice.step(first, second)[0], large.step(batch(large, (0, 1, 2, 3)))[0]]
        assert torch.allclose(losses[0], losses[1], rtol=1e-5)
        assert twice.progress.step == 1
        for (name, a), b in zip(twice.network.module.named_parameters(), large.network.module.parameters()):
            assert torch.allclose(a - before[name], b - before[name], rtol=1e-3, atol=1e-9), name
            assert not torch.equal(a, before[name]), name

    def test_the_last_step_takes_what_is_left(self, tmp_path: Path) -> None:
        # 8 images in batches of 2 are 4 batches: steps over 3 and over 1 of them.
        built = trainer(tmp_path, smooth(accumulate=3, batch_size=2, epochs=2))
        trained = built.fit()
        assert built.progress.step == 4
        assert trained.images == 16
        assert [row["images"] for row in trained.history] == [8, 16]

    def test_the_epoch_s_loss_counts_every_batch_alike(self, tmp_path: Path) -> None:
        # A rate too small to change the loss between the batches of an epoch.
        plan = smooth(accumulate=3, batch_size=2, epochs=1, optimizer={"lr": 1e-12})
        built = trainer(tmp_path, plan)
        order = epoch_order(8, 2, seed=0, epoch=0)
        with torch.no_grad():
            losses = [float(built.loss(one)[0]) for one in batches(built.source, order, workers=0)]
        assert built.fit().history[0]["train_loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)


class TestDeterminism:
    def test_gives_what_the_cpu_gives_anyway_and_is_switched_off_again(self, tmp_path: Path) -> None:
        plain = trainer(tmp_path / "plain").fit()
        assert_same(trainer(tmp_path / "exact", tiny.plan(train={"deterministic": True})).fit(), plain)
        assert not torch.are_deterministic_algorithms_enabled()

    def test_an_operation_that_does_not_repeat_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = trainer(tmp_path, tiny.plan(train={"deterministic": True}))
        # In torch, put_ without accumulation is one of which there is no repeatable form.
        monkeypatch.setattr(built, "loss", lambda _: torch.zeros(2).put_(torch.tensor([0]), torch.ones(1)))
        with pytest.raises(ConfigError, match=r"train.deterministic.*does not repeat exactly.*put_.*set it to false"):
            built.fit()
        assert not torch.are_deterministic_algorithms_enabled()


def smooth(**train: Any) -> Plan:
    base = tiny.plan(train={"ema": 0, **train}).to_dict()
    return Plan.model_validate({**base, "model": SMOOTH, "loss": [{"name": "mse"}]})


def batch(built: Trainer, indices: tuple[int, ...]) -> Any:
    return collate([built.source.sample(index) for index in indices], indices)
