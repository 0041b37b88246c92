"""Cases as pictures with captions, ready for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bregma.errors import BregmaError, ImageError
from bregma.geometry import Array, Frame
from bregma.report.chains import element_lines
from bregma.report.measure_marks import drawn_measurements, measurement_text
from bregma.report.overlay import draw_overlay
from bregma.report.page import Picture, jpeg
from bregma.report.words import number, plural, short_labels
from bregma.results import CaseResult
from bregma.schema import LandmarkSchema
from bregma.types import ImageSource, Measurement, Prediction

TILE_PX = 720
_SMALL_TILE, _LARGE_TILE = 1.5, 1.15
_LEAST_ASPECT = 0.62
_MOST_DRAWN = 16
_MOST_DOUBTS = 4


@dataclass(frozen=True)
class Tile:
    """A case on a page; ``picture`` is None where the image could not be drawn, for the reason in ``problem``."""

    heading: str
    lines: tuple[str, ...]
    picture: Picture | None
    problem: str = ""


def case_tile(schema: LandmarkSchema, result: CaseResult, *, heading: str, pictures: int) -> Tile:
    """Return a scored case with labels and prediction drawn, on a page with so many pictures."""
    lines = (*_score_lines(schema, result), *doubt_lines(schema, result.prediction))
    errors, unit = shown_errors(result)
    try:
        drawn = draw_overlay(
            _pixels(result.case.image, result.case.frame),
            schema=schema,
            truth=result.truth,
            prediction=result.prediction,
            errors=errors,
            error_unit=unit,
            spacing=result.case.frame.spacing,
            size=TILE_PX,
            mark_scale=_SMALL_TILE,
            least_aspect=_LEAST_ASPECT,
            legend=False,
        )
    except (BregmaError, OSError) as error:
        return Tile(heading, lines, None, _reason(error))
    alt = f"Image {result.case.id} with labels and prediction. {' '.join(lines)}"
    return Tile(heading, lines, jpeg(drawn, alt, share_of=pictures))


def prediction_tile(
    schema: LandmarkSchema,
    image: ImageSource,
    prediction: Prediction,
    measurements: Sequence[Measurement],
    *,
    pictures: int,
) -> Tile:
    """Return a case without labels, its prediction and main measurements drawn."""
    lines = (_spacing_line(prediction.frame), _model_line(prediction), *doubt_lines(schema, prediction))
    try:
        drawn = draw_overlay(
            _pixels(image, prediction.frame),
            schema=schema,
            prediction=prediction,
            measurements=drawn_measurements(schema, measurements, _MOST_DRAWN),
            size=TILE_PX,
            mark_scale=_LARGE_TILE,
            least_aspect=_LEAST_ASPECT,
            legend=False,
        )
    except (BregmaError, OSError) as error:
        return Tile(prediction.case_id, lines, None, _reason(error))
    alt = f"Image {prediction.case_id} with {plural(len(prediction), 'predicted landmark')}"
    return Tile(prediction.case_id, lines, jpeg(drawn, alt, share_of=pictures))


def measured_tile(schema: LandmarkSchema, result: CaseResult, *, heading: str, pictures: int) -> Tile:
    """Return a scored case with its prediction and what is measured from it, each value beside that of the labels."""
    chosen = drawn_measurements(schema, result.measured, _MOST_DRAWN)
    specs = {spec.name: spec for spec in schema.measurements}
    true = {(m.name, m.level): m for m in result.true_measured}
    lines = [
        f"{measurement_text(m, specs[m.name])}; label {measurement_text(t) if t and t.value is not None else 'none'}"
        for m, t in ((m, true.get((m.name, m.level))) for m in chosen)
    ]
    tile = prediction_tile(schema, result.case.image, result.prediction, chosen, pictures=pictures)
    return replace(tile, heading=heading, lines=(*lines, *doubt_lines(schema, result.prediction)))


def doubt_lines(schema: LandmarkSchema, prediction: Prediction) -> tuple[str, ...]:
    """Return a line for each flagged landmark with the reason, the last of which counts those beyond a few."""
    found = [f"doubtful: {name}, {why}" for name, why in zip(short_labels(schema), prediction.flags or ()) if why]
    more = len(found) - _MOST_DOUBTS
    return tuple(found) if more <= 0 else (*found[:_MOST_DOUBTS], f"and {plural(more, 'more doubtful landmark')}")


def shown_errors(result: CaseResult) -> tuple[Array, str]:
    """Return a case's errors and their unit: mm with a trusted spacing, else px."""
    return (result.errors_px, "px") if result.errors_mm is None else (result.errors_mm, "mm")


def _score_lines(schema: LandmarkSchema, result: CaseResult) -> tuple[str, ...]:
    if not len(schema):
        return (f"subject {result.case.subject}", *_value_lines(result))
    errors, unit = shown_errors(result)
    known = np.isfinite(errors)
    if result.ipe_px is None or not known.any():
        return (f"subject {result.case.subject}", "no landmark was scored", *element_lines(schema, result))
    mean = f"{number(result.ipe_px, 'px')} px"
    if unit == "mm":
        mean = f"{number(float(errors[known].mean()), 'mm')} mm ({mean})"
    worst = int(np.argmax(np.where(known, errors, -1.0)))
    return (
        f"subject {result.case.subject}",
        f"mean error {mean}, {plural(result.outliers, 'outlier')}",
        f"worst: {short_labels(schema)[worst]}, {number(float(errors[worst]), unit)} {unit}",
        *element_lines(schema, result),
    )


def _value_lines(result: CaseResult) -> tuple[str, ...]:
    """Return a line for each quantity: as it was predicted, and as it is known."""
    true = {one.name: one for one in result.true_measured}
    return tuple(
        f"{one.label}: {measurement_text(one)}; known {measurement_text(true[one.name]) if one.name in true else 'not'}"
        for one in result.measured
        if one.value is not None
    )


def _reason(error: BregmaError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _pixels(image: ImageSource, frame: Frame) -> NDArray[Any]:
    pixels = image.load()
    if tuple(pixels.shape) != frame.shape:
        raise ImageError(
            "the image's size is not the one it was scored at",
            where=image.path,
            expected=f"{frame.height} rows x {frame.width} columns",
            got=str(tuple(pixels.shape)),
        )
    return pixels


def _spacing_line(frame: Frame) -> str:
    size = f"{frame.width} x {frame.height} pixels"
    if frame.spacing is None:
        return f"{size}, no trusted spacing{': ' + frame.spacing_note if frame.spacing_note else ''}"
    source = frame.spacing_source.replace("_", " ")
    note = f"; {frame.spacing_note}" if frame.spacing_note else ""
    return f"{size} of {frame.spacing[0]:g} x {frame.spacing[1]:g} mm ({source}{note})"


def _model_line(prediction: Prediction) -> str:
    doubtful = int((prediction.presence < 0.5).sum())
    hidden = f"; {plural(doubtful, 'landmark')} probably not on the image, not drawn" if doubtful else ""
    return f"model {prediction.model or 'unknown'}, uncertainty calibrated by: {prediction.calibration}{hidden}"
