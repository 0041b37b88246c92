"""Learning rates worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest

from bregma.training.schedule import Schedule
from bregma.training.settings import ScheduleConfig


def test_cosine_falls_from_one_to_its_end() -> None:
    schedule = Schedule(ScheduleConfig(name="cosine", warmup_steps=0, final=0.1), total_steps=100)
    # 0.1 + 0.9 (1 + cos(pi p)) / 2 at p = 0, 1/4, 1/2, 1.
    assert schedule.factor(0) == 1.0
    assert schedule.factor(25) == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)), rel=1e-12)
    assert schedule.factor(50) == pytest.approx(0.55, rel=1e-12)
    assert schedule.factor(100) == pytest.approx(0.1, rel=1e-12)
    assert schedule.factor(150) == pytest.approx(0.1, rel=1e-12)


def test_warm_up_rises_to_the_peak() -> None:
    schedule = Schedule(ScheduleConfig(name="constant", warmup_steps=4), total_steps=10)
    assert [schedule.factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_warm_up_multiplies_the_cosine() -> None:
    schedule = Schedule(ScheduleConfig(name="cosine", warmup_steps=10, final=0), total_steps=8)
    assert schedule.factor(4) == pytest.approx(0.5 * 0.5, rel=1e-12)


def test_linear_falls_by_the_same_amount_each_step() -> None:
    schedule = Schedule(ScheduleConfig(name="linear", warmup_steps=0, final=0.2), total_steps=4)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2], rel=1e-12)


def test_exponential_falls_by_the_same_share_each_step() -> None:
    schedule = Schedule(ScheduleConfig(name="exponential", warmup_steps=0, final=0.0625), total_steps=4)
    assert [schedule.factor(step) for step in range(6)] == [1, 0.5, 0.25, 0.125, 0.0625, 0.0625]


def test_steps_come_at_their_milestones() -> None:
    config = ScheduleConfig(name="step", warmup_steps=0, factor=0.1, milestones=(0.5, 0.75))
    schedule = Schedule(config, total_steps=8)
    assert [schedule.factor(step) for step in range(9)] == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 3, rel=1e-12)


def test_restarts_begin_ever_longer_cycles() -> None:
    # Cycles of 4, 8 and 16 steps; in each 1, then (1 + cos(pi / 4)) / 2 after a quarter, 1/2 after half of it.
    config = ScheduleConfig(name="restarts", warmup_steps=0, final=0, cycle_epochs=2, cycle_growth=2)
    schedule = Schedule(config, total_steps=28, steps_per_epoch=2)
    quarter = 0.5 * (1 + math.sqrt(0.5))
    for start, length in [(0, 4), (4, 8), (12, 16)]:
        factors = [schedule.factor(start + length * part // 4) for part in range(3)]
        assert factors == pytest.approx([1, quarter, 0.5], rel=1e-12)
    assert schedule.factor(3) == pytest.approx(1 - quarter, rel=1e-12)


def test_restarts_of_equal_length_and_with_a_floor() -> None:
    config = ScheduleConfig(name="restarts", warmup_steps=0, final=0.2, cycle_epochs=1, cycle_growth=1)
    schedule = Schedule(config, total_steps=100, steps_per_epoch=2)
    assert [schedule.factor(step) for step in range(5)] == pytest.approx([1, 0.6, 1, 0.6, 1], rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "constant", "final": 0.5}, "final is no setting of constant"),
        ({"name": "cosine", "metric": "val_loss"}, "metric is no setting of cosine"),
        ({"name": "linear", "milestones": (0.5,)}, "milestones is no setting of linear"),
        ({"name": "cosine", "cycle_epochs": 3}, "cycle_epochs is no setting of cosine"),
        ({"name": "step"}, "needs milestones"),
        ({"name": "step", "milestones": (1.5,)}, "less than 1"),
        ({"name": "exponential", "final": 0}, "never reaches 0"),
    ],
)
def test_settings_that_would_not_be_honoured_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**settings)


def test_plateau_halves_after_patience_and_stops_at_its_floor() -> None:
    schedule = Schedule(
        ScheduleConfig(name="plateau", warmup_steps=0, factor=0.5, patience=2, final=0.2), total_steps=1
    )
    factors = []
    for error in [5.0, 6.0, 5.0, 4.0, 4.0, 4.0, 9.0, 9.0, 9.0, 9.0]:
        schedule.validated(error)
        factors.append(schedule.factor(0))
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_plateau_state_comes_back() -> None:
    config = ScheduleConfig(name="plateau", warmup_steps=0, patience=2)
    schedule, other = Schedule(config, 1), Schedule(config, 1)
    other.restore(json.loads(json.dumps(schedule.state())))
    assert other.state() == schedule.state()
    for error in [5.0, 6.0]:
        schedule.validated(error)
    other.restore(json.loads(json.dumps(schedule.state())))
    for either in (schedule, other):
        either.validated(7.0)
        assert either.factor(0) == 0.5


def test_every_schedule_and_its_settings_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/training.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name in get_args(ScheduleConfig.model_fields["name"].annotation):
        assert name in rows
    for setting in ScheduleConfig.model_fields.keys() - {"name"}:
        assert f"`{setting}`" in page
