"""The learning rate of every step."""

from __future__ import annotations

import math

from bregma.training.settings import ScheduleConfig


class Schedule:
    """Gives the factor on the peak learning rate; for ``plateau`` it is told each validation error.

    Args:
        config: kind and its numbers.
        total_steps: steps of the whole training.
    """

    def __init__(self, config: ScheduleConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = total_steps
        self.plateau_factor = 1.0
        self.plateau_best = math.inf
        self.plateau_bad = 0

    def factor(self, step: int) -> float:
        """Return the factor for a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        match self.config.name:
            case "cosine":
                progress = min(1.0, step / max(1, self.total_steps))
                falling = 0.5 * (1 + math.cos(math.pi * progress))
                return warm * (self.config.final + (1 - self.config.final) * falling)
            case "plateau":
                return warm * self.plateau_factor
            case "constant":
                return warm

    def validated(self, error: float) -> None:
        """Note a validation error."""
        if error < self.plateau_best:
            self.plateau_best, self.plateau_bad = error, 0
            return
        self.plateau_bad += 1
        if self.plateau_bad >= self.config.patience:
            self.plateau_factor = max(self.plateau_factor * self.config.factor, self.config.final)
            self.plateau_bad = 0

    def state(self) -> dict[str, float | None]:
        """Return what a resumed training needs."""
        best = None if math.isinf(self.plateau_best) else self.plateau_best
        return {"factor": self.plateau_factor, "best": best, "bad": self.plateau_bad}

    def restore(self, state: dict[str, float | None]) -> None:
        """Put ``state`` back."""
        self.plateau_factor = float(state["factor"] or 0.0)
        self.plateau_best = math.inf if state["best"] is None else float(state["best"])
        self.plateau_bad = int(state["bad"] or 0)
