"""Where a training stands, and who hears of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol


class Observer(Protocol):
    """Hears of a training's progress."""

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Training starts (or resumes) at ``epoch``."""
        ...

    def stepped(self, loss: float) -> None:
        """One step was taken."""
        ...

    def validated(self, row: dict[str, float], best: bool) -> None:
        """A validation ended."""
        ...


class Silent:
    """An observer that does nothing."""

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Ignore."""

    def stepped(self, loss: float) -> None:
        """Ignore."""

    def validated(self, row: dict[str, float], best: bool) -> None:
        """Ignore."""


@dataclass
class Progress:
    """Where a training stands; all of it is in the checkpoint."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_mre_px: float = math.inf
    best_epoch: int = -1
    validations_since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        data = dict(self.__dict__)
        data["best_mre_px"] = None if math.isinf(self.best_mre_px) else self.best_mre_px
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Progress:
        """Rebuild from ``to_dict``."""
        best = data["best_mre_px"]
        return cls(**{**data, "best_mre_px": math.inf if best is None else best})
