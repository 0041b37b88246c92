"""The order of a prediction's landmarks."""

from __future__ import annotations

from dataclasses import replace

from bregma.exchange import Order
from bregma.types import Prediction


def reordered(prediction: Prediction, order: Order) -> Prediction:
    """Return a prediction whose landmark ``i`` is the one that was ``order[i]``."""
    return replace(
        prediction,
        mean=prediction.mean[order],
        cov=prediction.cov[order],
        presence=prediction.presence[order],
        samples=None if prediction.samples is None else prediction.samples[:, order],
        flags=None if prediction.flags is None else tuple(prediction.flags[i] for i in order),
        view_spread=None if prediction.view_spread is None else prediction.view_spread[order],
    )
