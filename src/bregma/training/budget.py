"""How many epochs fit into a wall-clock budget, from a few measured steps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bregma.data.loader import batches, drawn_order, draws_of
from bregma.schema import LandmarkSchema
from bregma.training.checks import batches_per_epoch, steps_per_epoch
from bregma.training.loop import Trainer
from bregma.training.plan import BY_RECIPE, Planned, pace, place, shortest_schedule
from bregma.training.settings import Plan, TrainConfig
from bregma.types import Case

_WARM, _TIMED = 3, 8
_RESERVE = 0.92  # Validation, checkpoints and a machine that is busier later.


def seconds_per_step(plan: Plan, schema: LandmarkSchema, cases: Sequence[Case]) -> float:
    """Measure a training step on a throw-away network, data loading included; every part of it is trained."""
    # One device's share of a step: the others work at the same time.
    alone = {"devices": 1, "batch_size": plan.train.batch_size // plan.train.devices, "phases": (), "accumulate": 1}
    plan = plan.model_copy(update={"train": plan.train.model_copy(update=alone)})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(plan, schema, cases, (), Path(folder))
        order = []
        for epoch in range(_WARM + _TIMED):
            order += drawn_order(trainer.draws, plan.train.batch_size, seed=plan.train.seed, epoch=epoch)
            if len(order) >= _WARM + _TIMED:
                break
        trainer.network.train()
        start = 0.0
        for number, batch in enumerate(batches(trainer.source, order[: _WARM + _TIMED], workers=plan.train.workers)):
            if number == _WARM:
                start = time.monotonic()
            trainer.step(batch)
        return (time.monotonic() - start) / (min(len(order), _WARM + _TIMED) - _WARM)


def fit_to_budget(planned: Planned, schema: LandmarkSchema, cases: Sequence[Case], minutes: float) -> Planned:
    """Return the plan with the number of epochs that fit into ``minutes``, at least one, and what follows from it.

    Phases keep their proportions, with at least one epoch each. Their time is reckoned as if nothing were frozen, so a
    training with frozen parts ends before the budget does.
    """
    seconds = seconds_per_step(planned.plan, schema, cases)
    settings = planned.plan.train
    shown = len(draws_of(cases, by_subject=settings.draw == "subject"))
    steps = batches_per_epoch(settings, shown)
    epochs = max(1, len(settings.phases), int(minutes * 60 * _RESERVE / (seconds * steps)))
    reason = f"{minutes:g} minutes at {seconds:.3f} s a step of {settings.batch_size}, {steps} steps an epoch"
    changes = {"train.epochs": (epochs, reason)}
    fitted = TrainConfig.model_validate({**settings.to_dict(), "epochs": epochs})
    paced = pace(epochs, steps_per_epoch(settings, shown), shortest=shortest_schedule(fitted))
    changes |= {name: to for name, to in paced.items() if planned.reasons.get(name) != BY_RECIPE}
    data = planned.plan.to_dict()
    for name, (value, _) in changes.items():
        place(data, name, value)
    reasons = {name: why for name, (_, why) in changes.items()}
    reasons |= {"train.phases": f"{BY_RECIPE}, in proportion over train.epochs"} if settings.phases else {}
    return Planned(Plan.model_validate(data), {**planned.reasons, **reasons})
