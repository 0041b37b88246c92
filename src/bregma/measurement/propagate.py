"""From landmarks and their uncertainty to measurements with intervals and grade probabilities (Monte Carlo)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.curves import Formula
from bregma.errors import ConfigError, InputError, SchemaError
from bregma.geometry import Array, Frame
from bregma.measurement.between import Scene, row_between
from bregma.measurement.grades import grade_of, grade_probabilities
from bregma.measurement.order import disorder
from bregma.measurement.reading import standard_error, time_factor
from bregma.measurement.rows import PIXEL_UNITS, Row, rows
from bregma.measurement.unnamed import StandIn, stand_ins, unnamed_reason, whole_stand_ins
from bregma.measurement.values import measure_values
from bregma.schema import LandmarkSchema, MeasurementSpec
from bregma.types import LandmarkSet, Measurement, MeasurementStatus, Prediction


@dataclass(frozen=True)
class _Sampled:
    """The points of one image and their samples, in mm where the frame has a spacing, else in px."""

    frame: Frame
    points: Array
    present: NDArray[np.bool_]
    samples: Array | None
    calibrated: bool
    level: float
    given: Mapping[str, float]
    seed: int
    doubts: Mapping[str, str]
    flags: Mapping[str, str]

    @property
    def scene(self) -> Scene:
        """The points themselves, with what is needed to find a place among them."""
        unit = 1.0 if self.frame.spacing is None else self.frame.spacing[1]
        return Scene(self.points, self.present, self.doubts, self.frame.height * unit)


def measure(
    schema: LandmarkSchema,
    points: ArrayLike,
    frame: Frame,
    *,
    present: ArrayLike | None = None,
    cov: ArrayLike | None = None,
    samples: ArrayLike | None = None,
    calibrated: bool = False,
    draws: int = 500,
    seed: int = 0,
    level: float = 0.95,
    given: Mapping[str, float] | None = None,
    flags: Mapping[str, str] | None = None,
) -> tuple[Measurement, ...]:
    """Make every measurement of a schema at every place where it applies.

    The value is that of ``points``; interval and grade probabilities come from ``samples`` or, failing these, from
    normal draws with the covariances ``cov``, in which landmarks vary independently of one another. An interval is
    central: half of what it leaves out lies on either side. Lengths are in mm, or in px with a reason where the frame
    has no spacing; ratios and angles then take pixels to be square, which nothing in such a frame can confirm.

    A measurement that lies ``between`` levels is taken where the points themselves place it, and its interval is that
    of the quantity there. What touches vertebrae out of order, or with corners that changed sides, is referred. So is
    what rests on a flagged landmark, but with its value.

    A value that a published equation reads off a length carries the equation's standard error; its interval holds both
    the landmarks' spread and that error, and there is none where the equation has no declared standard error.

    Args:
        schema: the anatomy.
        points: ``(N, 2)`` in px of the original image; absent landmarks may hold anything.
        frame: the image's frame.
        present: ``(N,)`` mask of landmarks that have a position; all of them by default.
        cov: ``(N, 2, 2)`` covariances in px².
        samples: ``(S, N, 2)`` draws in px; these keep what landmarks have in common.
        calibrated: whether the spread was calibrated on unseen cases; otherwise intervals are marked as not.
        draws: number of draws from ``cov``.
        seed: of the draws; the same seed gives the same intervals, whichever landmarks are present.
        level: coverage that intervals claim.
        given: what is known of the case from elsewhere, by name (its targets), for charts that need it.
        flags: why a landmark is doubtful where it lies, by its name.

    Raises:
        SchemaError: points that do not fit the schema, or a measurement that its primitive cannot make.
        InputError: positions or samples that are not finite, covariances that are none, or too few samples.
        ConfigError: a level outside 0 to 1, or too few draws for it.
    """
    _check_settings(draws, level)
    known, mask = _points(schema, points, present)
    spread: Array | None = None
    if samples is not None:
        spread = _given(samples, mask, level)
    elif cov is not None:
        spread = _drawn(known, mask, cov, draws, seed)
    if frame.spacing is not None:
        known = frame.to_mm(known)
        spread = None if spread is None else frame.to_mm(spread)
    doubts = disorder(schema, known, mask)
    sampled = _Sampled(frame, known, mask, spread, calibrated, level, given or {}, seed, doubts, flags or {})
    return tuple(found for spec in schema.measurements for found in _everywhere(schema, spec, sampled))


def measure_prediction(
    schema: LandmarkSchema,
    prediction: Prediction,
    *,
    presence_threshold: float = 0.5,
    draws: int = 500,
    seed: int = 0,
    level: float = 0.95,
    given: Mapping[str, float] | None = None,
) -> tuple[Measurement, ...]:
    """Measure a prediction; landmarks less probable than ``presence_threshold`` count as missing.

    Calibration applies to covariances, so calibrated covariances go before the model's own samples; of a model that was
    not calibrated the samples are used where there are enough of them for the level.

    Elements of a chain that could not be named are measured as well, by their place counted from below. What is looked
    for along a chain that every image shows whole is measured in the order of what was found of it, and referred, where
    some of it was not found or could not be named. What rests on a landmark that the prediction flags is referred, with
    the flag's reason.

    Raises:
        SchemaError: the prediction was made for another schema.
        ConfigError: a threshold or level outside its range, or too few draws.
    """
    if not 0 <= presence_threshold <= 1:
        raise ConfigError("must lie within 0 to 1", where="presence_threshold", got=str(presence_threshold))
    _check_settings(draws, level)
    calibrated = prediction.calibration != "none"
    samples = prediction.samples
    usable = not calibrated and samples is not None and len(samples) >= _least_samples(level)
    named = measure(
        schema,
        prediction.mean,
        prediction.frame,
        present=prediction.presence >= presence_threshold,
        cov=prediction.cov,
        samples=samples if usable else None,
        calibrated=calibrated,
        draws=draws,
        seed=seed,
        level=level,
        given=given,
        flags={name: why for name, why in zip(schema.names, prediction.flags or ()) if why},
    )

    def measured(one: StandIn) -> tuple[Measurement, ...]:
        return measure(
            one.schema,
            one.points,
            prediction.frame,
            present=one.present,
            cov=one.cov,
            calibrated=calibrated,
            draws=draws,
            seed=seed,
            level=level,
            given=given,
        )

    unnamed = [m for one in stand_ins(schema, prediction, presence_threshold) for m in one.placed(measured(one))]
    in_order: dict[str, Measurement] = {}
    if any(m.value is None for m in named):
        wholes = whole_stand_ins(schema, prediction, presence_threshold)
        in_order = {m.name: m for one in wholes for m in one.in_order(measured(one))}
    explained = (
        in_order[m.name]
        if m.value is None and m.name in in_order
        else _explained(schema, prediction, presence_threshold, m)
        for m in named
    )
    return (*explained, *unnamed, *measure_values(schema, prediction, level=level))


def _explained(schema: LandmarkSchema, prediction: Prediction, threshold: float, one: Measurement) -> Measurement:
    if one.status != "missing_landmark" or prediction.instances is None:
        return one
    return replace(one, reason=one.reason + unnamed_reason(schema, prediction, threshold, one))


def measure_landmarks(
    schema: LandmarkSchema, landmarks: LandmarkSet, frame: Frame, *, given: Mapping[str, float] | None = None
) -> tuple[Measurement, ...]:
    """Measure labels: values and grades without intervals; ``given`` is what charts need (see :func:`measure`).

    Raises:
        SchemaError: the labels were made for another schema.
    """
    return measure(schema, landmarks.points, frame, present=landmarks.labelled, given=given)


def _least_samples(level: float) -> int:
    """Return the fewest samples of which one is expected beyond each end of an interval."""
    return math.ceil(round(2 / (1 - level), 6))


def _check_settings(draws: int, level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError("must lie between 0 and 1", where="level", got=str(level))
    if draws < _least_samples(level):
        problem = f"are too few for intervals at the level {level:g}"
        raise ConfigError(problem, where="draws", expected=f"at least {_least_samples(level)}", got=str(draws))


def _points(schema: LandmarkSchema, points: ArrayLike, present: ArrayLike | None) -> tuple[Array, NDArray[np.bool_]]:
    """Return points ``(N, 2)`` and the mask ``(N,)`` of those that are present, checked against the schema."""
    n = len(schema)
    known = np.asarray(points, dtype=np.float64)
    mask = np.ones(n, dtype=bool) if present is None else np.asarray(present, dtype=bool)
    for name, shape, expected in (("points", known.shape, (n, 2)), ("presence", mask.shape, (n,))):
        if shape != expected:
            problem = f"the {name} of the landmarks do not fit the schema"
            raise SchemaError(problem, where=f"schema '{schema.name}'", expected=str(expected), got=str(shape))
    lost = mask & ~np.isfinite(known).all(axis=1)
    if lost.any():
        name = schema.names[int(np.flatnonzero(lost)[0])]
        raise InputError(f"the landmark '{name}' is marked as present but has no finite position")
    return known, mask


def _given(samples: ArrayLike, present: NDArray[np.bool_], level: float) -> Array:
    given = np.asarray(samples, dtype=np.float64)
    n, least = len(present), _least_samples(level)
    if given.ndim != 3 or given.shape[1:] != (n, 2) or len(given) < least:
        expected = f"(S, {n}, 2) with S at least {least} for the level {level:g}"
        raise InputError("the samples cannot be used", expected=expected, got=str(given.shape))
    if not np.isfinite(given[:, present]).all():
        raise InputError("the samples of landmarks that are present are not all finite")
    return given


def _drawn(points: Array, present: NDArray[np.bool_], cov: ArrayLike, draws: int, seed: int) -> Array:
    """Draw ``(S, N, 2)`` from normal distributions that are independent between landmarks."""
    given = np.asarray(cov, dtype=np.float64)
    if given.shape != (len(points), 2, 2):
        raise InputError("the covariances do not fit", expected=f"({len(points)}, 2, 2)", got=str(given.shape))
    # Absent landmarks take part with no spread, so that the draws of the others do not depend on who is absent.
    mean = np.where(present[:, None], points, 0.0)
    root = _square_root(np.where(present[:, None, None], given, 0.0))
    noise = np.random.default_rng(seed).standard_normal((draws, *mean.shape))
    return np.asarray(mean + np.einsum("nij,snj->sni", root, noise))


def _square_root(cov: Array) -> Array:
    """Return ``R`` with ``R Rᵀ`` = ``cov`` ``(N, 2, 2)``; a variance may be zero."""
    problem = InputError("a covariance is not one", expected="symmetric, finite, without negative variances")
    if not np.isfinite(cov).all() or not np.allclose(cov, cov.swapaxes(1, 2)):
        raise problem
    values, vectors = np.linalg.eigh(cov)
    if (values < -1e-9 * np.maximum(1.0, np.abs(values).max(axis=1, keepdims=True))).any():
        raise problem
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def _everywhere(schema: LandmarkSchema, spec: MeasurementSpec, sampled: _Sampled) -> Iterator[Measurement]:
    """Make one measurement at each of its places."""
    if spec.between is None:
        yield from (_measurement(schema, row, sampled) for row in rows(schema, spec))
        return
    found = row_between(schema, spec, sampled.scene)
    if isinstance(found, Row):
        yield _measurement(schema, found, sampled)
    else:
        status, reason = found
        yield Measurement(spec.name, spec.label, None, spec.unit, status, reason, code=spec.code)


def _measurement(schema: LandmarkSchema, row: Row, sampled: _Sampled) -> Measurement:
    has_spacing = sampled.frame.spacing is not None
    scale = row.scale(schema, has_spacing=has_spacing)
    obstacle = _obstacle(row, sampled)
    value = None if obstacle else _finite(float(row.compute(sampled.points, sampled.given)))
    if value is not None and row.formula is not None:
        obstacle = _beyond(row, row.formula, value)
        value = None if obstacle else value
    draws = None if value is None or sampled.samples is None else _draws(row, sampled, sampled.samples)
    spread = draws if draws is not None and np.isfinite(draws).all() else None
    status, reason = obstacle or _status(row, sampled, value, draws)
    return Measurement(
        name=row.spec.name,
        label=row.spec.label,
        value=value,
        unit=row.unit(has_spacing=has_spacing),
        status=status,
        reason=reason,
        interval=None if spread is None else _central(spread, sampled.level),
        interval_level=None if spread is None else sampled.level,
        level=row.level,
        grade=None if scale is None or value is None else grade_of(scale, value),
        grade_probabilities=None if scale is None or spread is None else grade_probabilities(scale, spread),
        uses=row.uses,
        code=row.spec.code,
        standard_error=None if value is None else _standard_error(row, value),
        convention=row.spec.convention,
        ends=row.ends,
    )


def _obstacle(row: Row, sampled: _Sampled) -> tuple[MeasurementStatus, str] | None:
    """Return what stands in the way of any value, or None."""
    missing = [name for name, column in zip(row.uses, row.columns) if not sampled.present[column]]
    if missing:
        return "missing_landmark", f"{', '.join(missing)} not found on the image or not labelled"
    doubts = dict.fromkeys(sampled.doubts[name] for name in row.uses if name in sampled.doubts)
    if doubts:
        return "refer", "; ".join(doubts)
    if row.is_read and sampled.frame.spacing is None:
        note = sampled.frame.spacing_note
        return "no_spacing", "needs millimetres: the image has no trusted spacing" + (f" ({note})" if note else "")
    if row.chart is None:
        return None
    by, valid = sampled.given.get(row.chart.by), row.chart.valid
    if by is None:
        return "not_applicable", f"needs {row.chart.by}, known independently of this image, which is not given"
    if not valid.low <= by <= valid.high:
        reason = f"{row.chart.by} is {by:.4g}, and the chart covers {valid.low:g} to {valid.high:g}"
        return "not_applicable", reason
    return None


def _beyond(row: Row, formula: Formula, value: float) -> tuple[MeasurementStatus, str] | None:
    """Return why a result of an equation is not given: it lies where the equation was not fitted."""
    factor = time_factor(formula, row.spec.unit)
    low, high = factor * formula.valid.low, factor * formula.valid.high
    if low <= value <= high:
        return None
    side = f"below {low:.4g}" if value < low else f"above {high:.4g}"
    return "not_applicable", f"the equation was fitted from {low:.4g} to {high:.4g} {row.spec.unit}; this one is {side}"


def _draws(row: Row, sampled: _Sampled, samples: Array) -> Array | None:
    """Return values ``(S,)`` that vary with the landmarks and, off an equation, by its standard error as well."""
    values = row.compute(samples, sampled.given)
    if row.formula is None or not np.isfinite(values).all():
        return values
    error = standard_error(row.formula, values, row.spec.unit)
    if error is None:
        return None
    # A stream of its own: the draws of the landmarks are the same whether or not an equation is read.
    noise = np.random.default_rng([sampled.seed, 1]).standard_normal(values.shape)
    return np.asarray(values + error * noise)


def _standard_error(row: Row, value: float) -> float | None:
    error = None if row.formula is None else standard_error(row.formula, value, row.spec.unit)
    return None if error is None else float(error)


def _status(row: Row, sampled: _Sampled, value: float | None, draws: Array | None) -> tuple[MeasurementStatus, str]:
    """Return the gravest thing to say, and in words everything that there is to say."""
    if value is None:
        return "refer", f"{', '.join(row.uses)} lie so that nothing can be measured (points that coincide)"
    flagged = [name for name in dict.fromkeys(row.uses) if name in sampled.flags]
    said: list[tuple[MeasurementStatus, str]] = [
        ("refer", f"{name} is doubtful: {sampled.flags[name]}") for name in flagged
    ]
    failed = 0 if draws is None else int((~np.isfinite(draws)).sum())
    if draws is not None and failed:
        said.append(("refer", f"{failed} of {len(draws)} samples cannot be measured, so there is no interval"))
    if sampled.frame.spacing is None and row.primitive.kind in PIXEL_UNITS:
        note = sampled.frame.spacing_note
        said.append(
            ("no_spacing", "given in pixels: the image has no trusted spacing" + (f" ({note})" if note else ""))
        )
    if draws is not None and not failed and not sampled.calibrated:
        said.append(("uncalibrated", "the interval comes from a model that was not calibrated"))
    return (said[0][0], "; ".join(reason for _, reason in said)) if said else ("ok", "")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _central(draws: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
