"""Phases act: what is frozen stays to the last bit, what is not moves, each part at its own rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from bregma.config import validate
from bregma.data.loader import Batch, batches, epoch_order
from bregma.errors import ConfigError
from bregma.training.checks import check_plan
from bregma.training.loop import Trainer
from bregma.training.settings import Plan, TrainConfig, share_epochs
from tiny_training import Stopper, assert_same, scripted, trainer

PARTS = {"backbone": "down", "decoder": "up", "head": "heads"}
"""The parts of the tiny U-Net and the submodule of each."""
FLAT = {"name": "constant", "warmup_steps": 0}
HEAD_FIRST: list[dict[str, Any]] = [
    {"epochs": 2, "freeze": ["backbone", "decoder"]},
    {"epochs": 1, "lr": {"backbone": 2e-5, "decoder": 2e-5, "head": 2e-4}},
]


def plan_of(**train: Any) -> Plan:
    # Maps at half the resolution, so that the network has a decoder at all.
    return tiny.plan(model={"network": {"map_stride": 2}}, train=train)


def phased(phases: list[dict[str, Any]], **train: Any) -> Plan:
    plan = plan_of(**train).to_dict()
    # Epochs beside phases would stretch or shrink them.
    del plan["train"]["epochs"]
    plan["train"]["phases"] = phases
    return Plan.model_validate(plan)


class Keeper(Stopper):
    """Keeps all weights and statistics as they are at the end of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.network: nn.Module = nn.Identity()
        self.states: list[dict[str, Tensor]] = []

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        super().started(epoch, epochs, steps_per_epoch)
        self.keep()

    def validated(self, row: dict[str, float], best: bool) -> None:
        super().validated(row, best)
        self.keep()

    def keep(self) -> None:
        self.states.append({name: value.clone() for name, value in self.network.state_dict().items()})

    def moved(self, part: str, epoch: int) -> list[bool]:
        """Return for every tensor of a part whether it changed in an epoch, counted from 1."""
        before, after = self.states[epoch - 1], self.states[epoch]
        return [not torch.equal(before[name], after[name]) for name in after if name.startswith(PARTS[part])]


def kept(folder: Path, plan: Plan) -> Keeper:
    keeper = Keeper()
    built = trainer(folder, plan, observer=keeper)
    keeper.network = built.network.module
    built.fit()
    return keeper


class TestFreezing:
    def test_head_first_then_all(self, tmp_path: Path) -> None:
        keeper = kept(tmp_path, phased(HEAD_FIRST))
        for epoch in (1, 2):
            # Statistics of batch normalisation are among the tensors.
            assert not any(keeper.moved("backbone", epoch) + keeper.moved("decoder", epoch))
            assert all(keeper.moved("head", epoch))
        assert all(all(keeper.moved(part, 3)) for part in PARTS)

    def test_a_part_may_be_frozen_later(self, tmp_path: Path) -> None:
        keeper = kept(tmp_path, phased([{"epochs": 1}, {"epochs": 1, "freeze": ["backbone"]}]))
        assert all(keeper.moved("backbone", 1))
        assert not any(keeper.moved("backbone", 2))
        assert all(keeper.moved("decoder", 2) + keeper.moved("head", 2))

    def test_the_average_keeps_a_frozen_part_too(self, tmp_path: Path) -> None:
        built = trainer(tmp_path, phased([{"epochs": 3, "freeze": ["backbone"]}]))
        before = {name: value.clone() for name, value in built.average.network.down.state_dict().items()}
        built.fit()
        for name, value in built.average.network.down.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_frozen_parts_are_in_evaluation_mode_and_have_no_gradient(self, tmp_path: Path) -> None:
        built = trainer(tmp_path, phased(HEAD_FIRST))
        built.parts.train()
        network = built.parts.network
        assert not any(module.training for module in network.down.modules())
        assert all(module.training for module in network.heads.modules())
        assert [p.requires_grad for p in network.down.parameters()] == [False] * len(list(network.down.parameters()))

    def test_one_phase_is_a_training_without_any(self, tmp_path: Path) -> None:
        plain = trainer(tmp_path / "plain", plan_of()).fit()
        assert_same(trainer(tmp_path / "one", phased([{"epochs": 3}])).fit(), plain)


class TestRates:
    def test_a_part_moves_at_its_own_rate(self, tmp_path: Path) -> None:
        # Adam's first step moves every weight by its learning rate, whatever the gradient's size.
        rates = {"backbone": 1e-4, "decoder": 3e-3}
        optimizer = {"name": "adam", "lr": 1e-2, "weight_decay": 0, "part_lr": rates}
        built = trainer(tmp_path, plan_of(optimizer=optimizer, schedule=FLAT))
        before = {name: value.clone() for name, value in built.network.module.named_parameters()}
        built.step(next(stream(built)))
        for part, submodule in PARTS.items():
            steps = [
                (value - before[name]).abs().max().item()
                for name, value in built.network.module.named_parameters()
                if name.startswith(submodule)
            ]
            assert max(steps) == pytest.approx(rates.get(part, 1e-2), rel=1e-3)

    def test_history_tells_each_part_s_rate(self, tmp_path: Path) -> None:
        history = trainer(tmp_path, phased(HEAD_FIRST, optimizer={"lr": 1e-2}, schedule=FLAT)).fit().history
        assert [row["lr"] for row in history] == [1e-2, 1e-2, 2e-4]
        assert [row.get("lr_backbone") for row in history] == [None, None, 2e-5]
        assert [row.get("lr_head") for row in history] == [None, None, 2e-4]

    def test_a_number_holds_for_all_parts_and_a_missing_one_for_none(self, tmp_path: Path) -> None:
        optimizer = {"lr": 1e-2, "part_lr": {"backbone": 1e-3}}
        phases = [{"epochs": 1, "lr": 5e-4}, {"epochs": 1, "lr": {"head": 7e-4}}, {"epochs": 1}]
        built = trainer(tmp_path, phased(phases, optimizer=optimizer, schedule=FLAT))
        assert set(built.rates.values()) == {5e-4}
        built.fit()
        assert [row.get("lr_backbone") for row in built.progress.history] == [None, 1e-3, 1e-3]
        assert [row.get("lr_head") for row in built.progress.history] == [None, 7e-4, 1e-2]
        assert [row.get("lr_decoder") for row in built.progress.history] == [None, 1e-2, 1e-2]


class TestSchedule:
    @pytest.mark.parametrize(
        ("restart", "rates"),
        # Two epochs of two steps: rows tell the rate of an epoch's second step. A schedule of 4 steps falls from 1 by
        # a quarter a step; one of 8 by an eighth.
        [(True, [3 / 4, 1 / 4, 3 / 4, 1 / 4]), (False, [7 / 8, 5 / 8, 3 / 8, 1 / 8])],
    )
    def test_begins_anew_or_goes_on(self, tmp_path: Path, restart: bool, rates: list[float]) -> None:
        phases = [{"epochs": 2}, {"epochs": 2, "restart": restart}]
        schedule = {"name": "linear", "warmup_steps": 0, "final": 0}
        history = trainer(tmp_path, phased(phases, optimizer={"lr": 1e-3}, schedule=schedule), val=0).fit().history
        assert [row["lr"] for row in history] == pytest.approx([1e-3 * rate for rate in rates], rel=1e-12)

    def test_the_epochs_over_which_it_runs(self) -> None:
        phases = [{"epochs": 2}, {"epochs": 3, "restart": False}, {"epochs": 4}, {"epochs": 5, "restart": False}]
        train = TrainConfig.model_validate({"phases": phases})
        assert train.epochs == 14
        assert [train.scheduled_epochs(i) for i in range(4)] == [5, 5, 9, 9]

    def test_an_optimizer_begins_each_phase_afresh(self, tmp_path: Path) -> None:
        built = trainer(tmp_path, phased([{"epochs": 1}, {"epochs": 2}], optimizer={"name": "adam"}))
        built.fit()
        # Adam counts its steps: two epochs of two steps since the last phase began.
        assert {int(state["step"]) for state in built.optimizer.state.values()} == {4}


class TestEarlyStop:
    def test_ends_the_phase_and_not_the_training(self, tmp_path: Path) -> None:
        phases = [{"epochs": 5, "freeze": ["backbone"]}, {"epochs": 5, "lr": 1e-4}]
        built = scripted(tmp_path, phased(phases, early_stop=2, schedule=FLAT, optimizer={"lr": 1e-3}), [5, 6, 6, 7, 7])
        trained = built.fit()
        # Best at epoch 1, two worse ones end the first phase at 3; patience begins anew, so the second ends at 5.
        assert [row["lr"] for row in trained.history] == [1e-3] * 3 + [1e-4] * 2
        assert (trained.epoch, built.progress.phase, built.progress.phase_epoch) == (1, 1, 3)


class TestEpochs:
    @pytest.mark.parametrize(
        ("epochs", "lengths", "shared"),
        [
            (70, [15, 55], [15, 55]),
            (14, [15, 55], [3, 11]),
            # The first phase would have 0.43 epochs and gets one, the last would have less than one and gets it too.
            (2, [15, 55], [1, 1]),
            (5, [98, 1, 1], [3, 1, 1]),
            (10, [1, 1, 1], [3, 4, 3]),
        ],
    )
    def test_are_shared_in_proportion(self, epochs: int, lengths: list[int], shared: list[int]) -> None:
        assert share_epochs(epochs, lengths) == shared

    def test_are_the_sum_of_the_phases(self) -> None:
        assert phased(HEAD_FIRST).train.epochs == 3

    def test_beside_phases_stretch_and_shrink_them(self) -> None:
        plan = plan_of(phases=HEAD_FIRST, epochs=9)
        assert [phase.epochs for phase in plan.train.phases] == [6, 3]
        assert Plan.model_validate(plan.to_dict()) == plan
        with pytest.raises(ValueError, match="epochs=1 is too few for 2 phases"):
            plan_of(phases=HEAD_FIRST, epochs=1)


class TestRefusals:
    """Before anything is trained, with the setting named."""

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            ([{"epochs": 1, "freeze": ["stem"]}], r"train.phases.0.freeze.*no part 'stem'.*backbone, decoder, head"),
            ([{"epochs": 1}, {"epochs": 1, "lr": {"neck": 1}}], r"train.phases.1.lr.*no part 'neck'.*backbone"),
            ([{"epochs": 1, "freeze": ["head"], "lr": {"head": 1}}], r"train.phases.0.lr.*'head' is frozen"),
            ([{"epochs": 1, "freeze": [*PARTS]}], r"train.phases.0.freeze.*nothing is left to train"),
        ],
    )
    def test_phases_that_do_not_fit_the_network(self, tmp_path: Path, train: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            check_plan(phased(train), tiny.SCHEMA, 8)
        with pytest.raises(ConfigError, match=message):
            trainer(tmp_path, phased(train))

    @pytest.mark.parametrize("lr", [0, -1, "fast", {"head": 0}, {"head": None}, [1e-3], float("nan")])
    def test_rates_that_are_none(self, lr: Any) -> None:
        with pytest.raises(ConfigError, match=r"setting 'train.phases.1.lr': expected a number above 0, or one a part"):
            validate(Plan, {"train": {"phases": [{"epochs": 1}, {"epochs": 1, "lr": lr}]}}, where="mine.yaml")

    def test_a_rate_of_a_part_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match=r"train.optimizer.part_lr.*no part 'neck'.*backbone, decoder, head"):
            check_plan(plan_of(optimizer={"part_lr": {"neck": 1e-3}}), tiny.SCHEMA, 8)


def stream(built: Trainer) -> Iterator[Batch]:
    return batches(built.source, epoch_order(len(built.source), 4, seed=0, epoch=0), workers=0)
