"""Where a training stands, and who hears of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from bregma.training.monitoring import cost


class Observer(Protocol):
    """Hears of a training's progress."""

    def say(self, message: str) -> None:
        """A line for whoever watches, such as which network is trained next."""
        ...

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Training starts (or resumes) at ``epoch``."""
        ...

    def stepped(self, loss: float) -> None:
        """One step was taken."""
        ...

    def validated(self, row: dict[str, float], best: bool) -> None:
        """A validation ended; ``best`` where the monitored metric has never been better."""
        ...


class Silent:
    """An observer that does nothing."""

    def say(self, message: str) -> None:
        """Ignore."""

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Ignore."""

    def stepped(self, loss: float) -> None:
        """Ignore."""

    def validated(self, row: dict[str, float], best: bool) -> None:
        """Ignore."""


@dataclass(frozen=True)
class Best:
    """The best value of a metric, and the epoch at whose end it was found, counted from 1."""

    value: float
    epoch: int


@dataclass
class Progress:
    """Where a training stands; all of it is in the checkpoint.

    Attributes:
        epoch: epochs behind it.
        step: optimisation steps behind it.
        seconds: time in training steps.
        phase: the present one, counted from 0.
        phase_epoch: the epoch at which it began.
        schedule_step: the step at which its schedule began.
        validations_since_best: validations of this phase since the monitored metric was last better than ever.
        best: the best of every metric.
        history: one row a validation.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    phase: int = 0
    phase_epoch: int = 0
    schedule_step: int = 0
    validations_since_best: int = 0
    best: dict[str, Best] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def note(self, row: dict[str, float], metrics: Iterable[str]) -> set[str]:
        """Keep what is best of a validation; returns the metrics that have never been better."""
        better = {name for name in metrics if name in row and self._is_better(name, row[name])}
        self.best |= {name: Best(row[name], self.epoch) for name in better}
        self.history.append(row)
        return better

    def _is_better(self, name: str, value: float) -> bool:
        old = self.best.get(name)
        return math.isfinite(value) and (old is None or cost(name, value) < cost(name, old.value))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Progress:
        """Rebuild from ``to_dict``."""
        return cls(**{**data, "best": {name: Best(**best) for name, best in data["best"].items()}})
