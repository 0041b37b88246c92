"""As many epochs as fit into a budget of time, and what follows from their number."""

from __future__ import annotations

import pytest

import tiny
from bregma.training import budget
from bregma.training.budget import fit_to_budget, seconds_per_step
from bregma.training.plan import BY_RECIPE, Planned


def fitted(monkeypatch: pytest.MonkeyPatch, minutes: float, reasons: dict[str, str] | None = None) -> Planned:
    """Fit 80 images in steps of 4, of 0.4 s each: 8 s an epoch."""
    monkeypatch.setattr(budget, "seconds_per_step", lambda plan, schema, cases: 0.4)
    plan = tiny.plan(train={"epochs": 400, "validate_every": 40, "schedule": {"warmup_steps": 90}})
    return fit_to_budget(Planned(plan, reasons or {}), tiny.SCHEMA, tiny.cases(1) * 80, minutes)


@pytest.mark.parametrize(("minutes", "epochs"), [(10, 69), (1, 6), (0.01, 1)])
def test_a_share_of_the_budget_goes_to_steps(monkeypatch: pytest.MonkeyPatch, minutes: float, epochs: int) -> None:
    # 92 % of the time is for steps: 10 minutes are 552 s, which are 69 epochs of 8 s.
    planned = fitted(monkeypatch, minutes)
    assert planned.plan.train.epochs == epochs
    assert planned.reasons["train.epochs"] == f"{minutes:g} minutes at 0.400 s a step of 4, 20 steps an epoch"


def test_warm_up_and_validations_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = fitted(monkeypatch, 10)
    # 69 epochs of 20 steps: a tenth of 1380 steps is more than the most of 100; 60 steps are 3 epochs.
    assert planned.plan.train.schedule.warmup_steps == 100
    assert planned.plan.train.validate_every == 3
    planned = fitted(monkeypatch, 1)
    assert planned.plan.train.schedule.warmup_steps == 12
    assert planned.plan.train.validate_every == 1


def test_a_recipe_s_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = fitted(monkeypatch, 1, {"train.schedule.warmup_steps": BY_RECIPE, "train.validate_every": BY_RECIPE})
    assert planned.plan.train.schedule.warmup_steps == 90
    assert planned.plan.train.validate_every == 40
    assert planned.reasons["train.validate_every"] == BY_RECIPE


def test_phases_keep_their_proportions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "seconds_per_step", lambda plan, schema, cases: 0.4)
    phases = [{"epochs": 15, "freeze": ["backbone"]}, {"epochs": 55}]
    plan = tiny.plan(train={"epochs": 70, "phases": phases, "accumulate": 2, "schedule": {"warmup_steps": 2}})
    planned = fit_to_budget(Planned(plan, {}), tiny.SCHEMA, tiny.cases(1) * 80, 2)
    # 110.4 s are 13 epochs of 8 s, of which 15 / 70 are 2.8; a tenth of 3 epochs of 10 steps is 3 steps of warm-up.
    assert [(phase.epochs, phase.freeze) for phase in planned.plan.train.phases] == [(3, ("backbone",)), (10, ())]
    assert planned.plan.train.epochs == 13
    assert planned.plan.train.schedule.warmup_steps == 3
    assert "in proportion" in planned.reasons["train.phases"]
    shortest = fit_to_budget(Planned(plan, {}), tiny.SCHEMA, tiny.cases(1) * 80, 0.01)
    assert [phase.epochs for phase in shortest.plan.train.phases] == [1, 1]


def test_a_step_is_timed_without_its_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 108.0])
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))
    # Nothing is frozen while it is timed, so that no phase takes longer.
    plan = tiny.plan(train={"devices": 2, "phases": [{"epochs": 3, "freeze": ["backbone"]}], "accumulate": 2})
    taken: list[int] = []
    step = budget.Trainer.step

    def counted(self: budget.Trainer, batch: object) -> object:
        taken.append(len(batch.indices))
        assert all(weight.requires_grad for weight in self.network.parameters())
        return step(self, batch)

    monkeypatch.setattr(budget.Trainer, "step", counted)
    # Three steps to warm up, then eight in 8 s; of a step of 4 on two devices, each sees 2 images.
    assert seconds_per_step(plan, tiny.SCHEMA, tiny.cases(5)) == 1.0
    assert taken == [2] * 11
