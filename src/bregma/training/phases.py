"""Phases of a training: which parts of a network stay as they are, and how fast the others learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from bregma.errors import ConfigError
from bregma.networks import Network
from bregma.networks.base import CONSTANTS
from bregma.training.settings import OptimizerConfig, PhaseConfig, TrainConfig


class Parts:
    """The parts of a network, some of which may be held still."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.frozen: tuple[str, ...] = ()
        self._held: list[nn.Parameter] = []

    def freeze(self, parts: Iterable[str]) -> None:
        """Hold the weights of these parts, and let go of all others that were held."""
        for parameter in self._held:
            parameter.requires_grad_(True)
        self.frozen = tuple(parts)
        weights = self.network.part_parameters()
        self._held = [p for part in self.frozen for p in weights[part] if p.requires_grad]
        for parameter in self._held:
            parameter.requires_grad_(False)
            parameter.grad = None

    def train(self) -> None:
        """Switch dropout and the statistics of batch normalisation on, except in frozen parts."""
        self.network.train()
        owner = {child: part for part, children in self.network.parts.items() for child in children}
        for name, child in self.network.named_children():
            if owner.get(name, "body") in self.frozen:
                child.eval()


def learning_rates(config: OptimizerConfig, phase: PhaseConfig, parts: Iterable[str]) -> dict[str, float]:
    """Return the peak learning rate of every part that is trained in a phase."""
    named = phase.lr if isinstance(phase.lr, dict) else {}
    usual = phase.lr if isinstance(phase.lr, float) else None
    return {
        part: named.get(part, usual if usual is not None else config.part_lr.get(part, config.lr))
        for part in parts
        if part not in phase.freeze
    }


def parameter_groups(network: Network, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the trained parameters for an optimizer, with the peak of their learning rate as ``peak``.

    Constants are left out of weight decay, which would draw them back to where they began.
    """
    weights = {part: parameters for part, parameters in network.part_parameters().items() if part in rates}
    if len(set(rates.values())) > 1 or CONSTANTS in weights:
        undecayed: dict[str, Any] = {CONSTANTS: {"weight_decay": 0.0}}
        return [{"params": weights[part], "peak": rates[part], **undecayed.get(part, {})} for part in weights]
    # One group in the network's own order, whatever its parts: the sums of clipping depend on the order.
    trained = {id(parameter) for parameters in weights.values() for parameter in parameters}
    return [{"params": [p for p in network.parameters() if id(p) in trained], "peak": next(iter(rates.values()))}]


def check_phases(settings: TrainConfig, network: Network) -> None:
    """Refuse phases and rates that do not fit the network.

    Raises:
        ConfigError: names the setting and the parts that there are.
    """
    parts = [*network.part_parameters()]
    _check_known(settings.optimizer.part_lr, parts, "train.optimizer.part_lr")
    for number, phase in enumerate(settings.phases):
        where = f"train.phases.{number}"
        named = phase.lr if isinstance(phase.lr, dict) else {}
        _check_known(phase.freeze, parts, f"{where}.freeze")
        _check_known(named, parts, f"{where}.lr")
        if contradiction := sorted(set(named) & set(phase.freeze)):
            raise ConfigError(f"'{contradiction[0]}' is frozen in this phase and has no rate", where=f"{where}.lr")
        if set(parts) <= set(phase.freeze):
            raise ConfigError("nothing is left to train", where=f"{where}.freeze", fix="leave one part out")


def _check_known(named: Iterable[str], parts: Iterable[str], where: str) -> None:
    for part in named:
        if part not in parts:
            raise ConfigError(
                f"the network has no part '{part}'", where=where, expected=f"some of {', '.join(sorted(parts))}"
            )
