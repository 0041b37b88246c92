"""The learning rate of every step."""

from __future__ import annotations

import math

from bregma.training.settings import ScheduleConfig


class Schedule:
    """Gives the factor on the peak learning rate; for ``plateau`` it is told each validation.

    Args:
        config: kind and its numbers.
        total_steps: steps over which it runs.
        steps_per_epoch: for cycles, whose length is given in epochs.
    """

    def __init__(self, config: ScheduleConfig, total_steps: int, steps_per_epoch: int = 1) -> None:
        self.config = config
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.plateau_factor = 1.0
        self.plateau_best = math.inf
        self.plateau_bad = 0

    def factor(self, step: int) -> float:
        """Return the factor for a step, counted from 0."""
        return min(1.0, (step + 1) / max(1, self.config.warmup_steps)) * self._fall(step)

    def _fall(self, step: int) -> float:
        progress = min(1.0, step / max(1, self.total_steps))
        final = self.config.final
        match self.config.name:
            case "cosine":
                return final + (1 - final) * _half_cosine(progress)
            case "restarts":
                return final + (1 - final) * _half_cosine(self._in_cycle(step))
            case "linear":
                return final + (1 - final) * (1 - progress)
            case "exponential":
                return float(final**progress)
            case "step":
                return float(self.config.factor ** sum(progress >= share for share in self.config.milestones))
            case "plateau":
                return self.plateau_factor
            case "constant":
                return 1.0

    def _in_cycle(self, step: int) -> float:
        """Return how much of its cycle has passed, from 0 to 1."""
        length = self.config.cycle_epochs * self.steps_per_epoch
        while step >= length:
            step -= length
            length *= self.config.cycle_growth
        return step / length

    def validated(self, cost: float) -> None:
        """Note a validation: the less the better."""
        if cost < self.plateau_best:
            self.plateau_best, self.plateau_bad = cost, 0
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


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
