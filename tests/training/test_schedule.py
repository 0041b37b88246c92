"""Learning rates worked out by hand."""

from __future__ import annotations

import json
import math

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
