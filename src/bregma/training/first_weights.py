"""Settle, before a plan is stored, which weights its encoder starts from."""

from __future__ import annotations

from bregma.networks.encoders import EncoderConfig, resolve_pretrained
from bregma.training.plan import BY_RECIPE, Planned, place
from bregma.training.settings import Plan

_SETTING = "model.network.pretrained"


def with_first_weights(planned: Planned) -> Planned:
    """Return the plan with the weights that are really started from, so that a run says what it was trained with.

    Published weights are fetched here. ``auto`` becomes their tag, or ``none`` where they cannot be had.

    Raises:
        ConfigError: weights asked for by name that cannot be had.
    """
    network = planned.plan.model.network
    if not isinstance(network, EncoderConfig):
        return planned
    resolved, reason = resolve_pretrained(network)
    if reason is None:
        return planned
    data = planned.plan.to_dict()
    place(data, _SETTING, resolved.pretrained)
    return Planned(Plan.model_validate(data), {**planned.reasons, _SETTING: f"{BY_RECIPE}; {reason}"})
