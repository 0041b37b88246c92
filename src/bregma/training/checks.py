"""Plans that cannot be trained are refused before anything is written."""

from __future__ import annotations

import math

from bregma.bundle import build_model
from bregma.errors import ConfigError
from bregma.schema import LandmarkSchema
from bregma.training.devices import check_devices
from bregma.training.objective import Objective
from bregma.training.phases import check_phases
from bregma.training.settings import Plan, TrainConfig


def check_plan(plan: Plan, schema: LandmarkSchema, images: int) -> None:
    """Refuse a plan whose settings do not fit each other, the anatomy or this machine.

    Raises:
        ConfigError: names the setting.
    """
    check_devices(plan.train, images)
    network, codec = build_model(plan.model, schema)
    Objective(plan, codec, schema)
    check_phases(plan.train, network)


def check_length(settings: TrainConfig, images: int) -> None:
    """Refuse a warm-up that outlasts the schedule that it is a part of; call it when the epochs are final.

    Raises:
        ConfigError: names the setting and how long it may be.
    """
    warmup, steps = settings.schedule.warmup_steps, steps_per_epoch(settings, images)
    for number in range(len(settings.stages)):
        epochs = settings.scheduled_epochs(number)
        most = epochs * steps
        if warmup > most:
            what = f"phase train.phases.{number}" if settings.phases else "training"
            raise ConfigError(
                f"the warm-up is longer than the {what}",
                where="train.schedule.warmup_steps",
                expected=f"{most} at most (epochs: {epochs}, steps in each: {steps})",
                got=str(warmup),
            )


def steps_per_epoch(settings: TrainConfig, images: int) -> int:
    """Return how often weights move in an epoch."""
    return math.ceil(batches_per_epoch(settings, images) / settings.accumulate)


def batches_per_epoch(settings: TrainConfig, images: int) -> int:
    """Return how many batches show every image once."""
    return math.ceil(images / min(settings.batch_size, images))
