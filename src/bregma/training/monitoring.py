"""The figures of a validation by which weights are selected, training stops and a learning rate falls."""

from __future__ import annotations

from collections.abc import Iterable

MRE, MEDIAN, LOSS = "val_mre_px", "val_median_px", "val_loss"
VALUES = "val_mae_sd"
"""Mean absolute error of quantities, each in standard deviations of the training subjects."""
_RATE = "val_sdr_"


def sdr_name(radius_px: float) -> str:
    """Return the name of the successful detection rate at a radius, e.g. ``val_sdr_2.5px``."""
    return f"{_RATE}{radius_px:g}px"


def metric_names(sdr_px: Iterable[float]) -> tuple[str, ...]:
    """Return every figure that can be monitored, given the radii of the detection rates."""
    return (MRE, MEDIAN, LOSS, VALUES, *(sdr_name(radius) for radius in sdr_px))


def cost(metric: str, value: float) -> float:
    """Return what is the less the better: the figure itself, or a detection rate with its sign turned."""
    return -value if metric.startswith(_RATE) else value
