"""Quantities that a model read from a whole image, and those that are known of a case, as measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import norm

from bregma.conformal import LEVEL
from bregma.geometry import Frame
from bregma.measurement.grades import grade_of
from bregma.schema import GradeScale, LandmarkSchema, Quantity
from bregma.types import Case, Measurement, Prediction, Value

T_SCORE = "t_score"
"""Ending of the name of the measurement that a quantity with a reference population adds."""


def measure_values(schema: LandmarkSchema, prediction: Prediction, *, level: float = 0.95) -> Iterator[Measurement]:
    """Yield every quantity that a prediction has a value of, with its interval, grade and T-score.

    Intervals are conformal where the model's residuals on other subjects are known, and then tell nothing of how
    probable each grade is; else they are those of a normal distribution. A length or an area without a trusted spacing
    is given in pixels, with the reason, and has no grade.

    Args:
        schema: the anatomy.
        prediction: of one image.
        level: coverage that intervals claim.
    """
    calibrated = prediction.calibration != "none"
    for quantity in schema.quantities:
        if quantity.name in prediction.values:
            value = prediction.values[quantity.name]
            yield from _measured(schema, quantity, value, prediction.frame, level, calibrated)


def measure_targets(schema: LandmarkSchema, case: Case) -> Iterator[Measurement]:
    """Yield every quantity that is known of a case, in its unit, with its grade and T-score, without intervals."""
    for quantity in schema.quantities:
        if quantity.name in case.targets:
            value = Value(case.targets[quantity.name], None, quantity.unit)
            yield from _measured(schema, quantity, value, case.frame, 0.95, calibrated=True)


def measure_subject(
    schema: LandmarkSchema, predictions: Sequence[Prediction]
) -> Iterator[tuple[Measurement, tuple[str, ...]]]:
    """Yield every quantity that belongs to subjects, averaged over the images of one of them, and their ids.

    The standard deviation is the root mean square of the images' own, and the conformal interval as wide as on average:
    images of one subject tend to err together. Where some images have a trusted spacing and others have not, those
    without are left out.

    Args:
        schema: the anatomy.
        predictions: of the images of one subject.
    """
    calibrated = all(prediction.calibration != "none" for prediction in predictions)
    for quantity in schema.quantities:
        if quantity.per != "subject":
            continue
        found = [p for p in predictions if quantity.name in p.values]
        own = [p for p in found if p.values[quantity.name].unit == quantity.unit] or found
        if own:
            mean = _mean_value([p.values[quantity.name] for p in own])
            images = tuple(p.case_id for p in own)
            for one in _measured(schema, quantity, mean, own[0].frame, 0.95, calibrated):
                yield one, images


def _mean_value(values: Sequence[Value]) -> Value:
    sds = [value.sd for value in values if value.sd is not None]
    widths = [value.half_width for value in values if value.half_width is not None]
    return Value(
        mean=float(np.mean([value.mean for value in values])),
        sd=float(np.sqrt(np.mean(np.square(sds)))) if len(sds) == len(values) else None,
        unit=values[0].unit,
        half_width=float(np.mean(widths)) if len(widths) == len(values) else None,
    )


def quantity_of(schema: LandmarkSchema, name: str) -> Quantity | None:
    """Return the quantity that a measurement of this name gives, or the T-score of which it is."""
    return next((one for one in schema.quantities if name in (one.name, f"{one.name}_{T_SCORE}")), None)


def mean_grade(schema: LandmarkSchema, name: str, values: Sequence[float | None]) -> tuple[float | None, str | None]:
    """Return the mean of the known values of a quantity, or of its T-score, and its grade."""
    known = [value for value in values if value is not None]
    scale = schema.grades_of.get(name)
    if not known:
        return None, None
    mean = float(np.mean(known))
    return mean, None if scale is None else grade_of(schema.grade(scale), mean)


def _measured(
    schema: LandmarkSchema, quantity: Quantity, value: Value, frame: Frame, level: float, calibrated: bool
) -> Iterator[Measurement]:
    own_unit = value.unit == quantity.unit
    scale = schema.grade(quantity.grade) if quantity.grade is not None and own_unit else None
    reason = ""
    interval = _conformal(value, level)
    if not own_unit:
        note = f" ({frame.spacing_note})" if frame.spacing_note else ""
        reason = f"given in pixels: the image has no trusted spacing{note}"
    elif value.sd is not None and not calibrated and interval is None:
        reason = "the interval comes from a model that was not calibrated"
    one = Measurement(
        name=quantity.name,
        label=quantity.label,
        value=value.mean,
        unit=value.unit,
        status="ok" if not reason else "uncalibrated" if own_unit else "no_spacing",
        reason=reason,
        interval=interval or _interval(value, level),
        interval_level=None if value.sd is None and interval is None else level,
        grade=None if scale is None else grade_of(scale, value.mean),
        grade_probabilities=None if scale is None or interval is not None else _probabilities(scale, value),
        code=quantity.code,
    )
    yield one
    if quantity.t_score is not None and own_unit:
        people = quantity.t_score

        def score(x: float) -> float:
            return (x - people.mean) / people.sd

        yield replace(
            one,
            name=f"{quantity.name}_{T_SCORE}",
            label=f"{quantity.label}, T-score ({people.name})",
            value=score(value.mean),
            unit="1",
            interval=None if one.interval is None else (score(one.interval[0]), score(one.interval[1])),
            grade=None,
            grade_probabilities=None,
            code=None,
        )


def _conformal(value: Value, level: float) -> tuple[float, float] | None:
    """Return the interval that was measured on other subjects, where it is one of this level."""
    if value.half_width is None or level != LEVEL:
        return None
    return value.mean - value.half_width, value.mean + value.half_width


def _interval(value: Value, level: float) -> tuple[float, float] | None:
    if value.sd is None:
        return None
    half = float(norm.ppf((1 + level) / 2)) * value.sd
    return value.mean - half, value.mean + half


def _probabilities(scale: GradeScale, value: Value) -> Mapping[str, float] | None:
    """Return the probability of each grade; labels that occur more than once are added up."""
    if value.sd is None:
        return None
    edges = np.array(scale.edges)
    if scale.absolute:
        below = norm.cdf(edges, value.mean, value.sd or 1e-12) - norm.cdf(-edges, value.mean, value.sd or 1e-12)
    else:
        below = norm.cdf(edges, value.mean, value.sd or 1e-12)
    shares = np.diff(np.concatenate([[0.0], below, [1.0]]))
    probabilities = dict.fromkeys(scale.labels, 0.0)
    for label, share in zip(scale.labels, shares, strict=True):
        probabilities[label] += float(share)
    return probabilities
