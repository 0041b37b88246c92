"""Predictions and measurements as CSV and strict JSON. Numbers are written in full, never rounded."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bregma.errors import BregmaError, InputError, SchemaError
from bregma.files import atomic_path, read_json, write_json
from bregma.schema import LandmarkSchema
from bregma.types import Measurement, Prediction

_FORMAT = "bregma-predictions"
_PREDICTION_COLUMNS = ("case", "landmark", "x", "y", "x_mm", "y_mm", "sd_x", "sd_y", "presence", "view_spread", "flag")
_ELEMENT_COLUMNS = (
    *("case", "chain", "place", "level", "level_probability", "probability"),
    *("part", "x", "y", "sd_x", "sd_y", "presence"),
)
_MEASUREMENT_COLUMNS = (
    "case",
    "measurement",
    "label",
    "level",
    "value",
    "unit",
    "low",
    "high",
    "interval_level",
    "grade",
    "grade_probabilities",
    "status",
    "reason",
    "uses",
    "standard_error",
    "convention",
    "upper_end",
    "lower_end",
)


class SubjectValue(NamedTuple):
    """What was measured on several images of a subject together, and the ids of these."""

    subject: str
    measurement: Measurement
    images: tuple[str, ...]


def write_predictions(
    path: str | Path, predictions: Iterable[Prediction], *, schema: LandmarkSchema | None = None
) -> Path:
    """Write predictions as ``.jsonl`` (one a line, streamed) or ``.json``; return the path.

    Args:
        path: ends in ``.jsonl`` or ``.json``.
        predictions: may be a generator; with ``.jsonl`` only one is held at a time.
        schema: adds the landmarks' names, so that a stranger can read the file without the schema.

    Raises:
        InputError: another ending.
        SchemaError: a prediction that does not fit ``schema``.
        RunError: the file cannot be written.
    """
    target = Path(path)
    rows = (_record(prediction, schema) for prediction in predictions)
    if _kind(target) == ".json":
        write_json(target, {"format": _FORMAT, "version": 1, "predictions": list(rows)})
        return target
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return target


def iter_predictions(path: str | Path) -> Iterator[Prediction]:
    """Yield the predictions of a file written by ``write_predictions``, one at a time.

    Raises:
        InputError: the file cannot be read or is no such file; names the line or entry.
    """
    source = Path(path)
    if _kind(source) == ".json":
        yield from _from_json(source)
        return
    try:
        with source.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield _prediction(_parse(line, f"{source}, line {number}"), f"{source}, line {number}")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=source) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where=source, expected="a JSON file") from error


def read_predictions(path: str | Path) -> tuple[Prediction, ...]:
    """Read all predictions of a file written by ``write_predictions``; see ``iter_predictions``."""
    return tuple(iter_predictions(path))


def write_predictions_csv(path: str | Path, predictions: Iterable[Prediction], schema: LandmarkSchema) -> Path:
    """Write one row a landmark; return the path.

    ``x`` and ``y`` are pixels of the original image, ``x_mm`` and ``y_mm`` the same from the centre of the top-left
    pixel, left empty without a trusted spacing; ``sd_x`` and ``sd_y`` are standard deviations in pixels, and
    ``view_spread`` how far the views or models disagree, in pixels, empty where there was one. ``flag`` says why a
    landmark is doubtful.

    Raises:
        SchemaError: a prediction that does not fit ``schema``.
        RunError: the file cannot be written.
    """
    rows = (row for prediction in predictions for row in _landmark_rows(prediction, schema))
    return _write_csv(Path(path), _PREDICTION_COLUMNS, rows)


def write_elements_csv(path: str | Path, predictions: Iterable[Prediction]) -> Path:
    """Write one row a part of every element of a chain, named or not; return the path.

    ``place`` counts the elements of an image along the chain from 1; ``level`` is empty where an element could not be
    named. ``x`` and ``y`` are pixels of the original image, as in ``write_predictions_csv``. Predictions of models that
    fill fixed slots have no rows.

    Raises:
        RunError: the file cannot be written.
    """
    rows = (row for prediction in predictions for row in _element_rows(prediction))
    return _write_csv(Path(path), _ELEMENT_COLUMNS, rows)


def write_measurements_csv(path: str | Path, measured: Iterable[tuple[str, Sequence[Measurement]]]) -> Path:
    """Write one row a measurement, from ``(case id, measurements)``; return the path.

    ``upper_end`` and ``lower_end`` are the end vertebrae of a curve that was looked for on the image.

    Raises:
        RunError: the file cannot be written.
    """
    return _write_csv(Path(path), _MEASUREMENT_COLUMNS, (_measurement_row(c, m) for c, ms in measured for m in ms))


def write_subjects_csv(path: str | Path, subjects: Iterable[SubjectValue]) -> Path:
    """Write one row a measurement of a subject, with the images that it was averaged over, ``;`` between them.

    Returns:
        The path.

    Raises:
        RunError: the file cannot be written.
    """
    rows = ((one.subject, ";".join(one.images), *_measurement_row("", one.measurement)[1:]) for one in subjects)
    return _write_csv(Path(path), ("subject", "images", *_MEASUREMENT_COLUMNS[1:]), rows)


def write_measurements_json(path: str | Path, measured: Iterable[tuple[str, Sequence[Measurement]]]) -> Path:
    """Write measurements by case as strict JSON, from ``(case id, measurements)``; return the path.

    Raises:
        RunError: the file cannot be written.
    """
    cases = [{"case_id": case, "measurements": [m.to_dict() for m in ms]} for case, ms in measured]
    write_json(path, {"format": "bregma-measurements", "version": 1, "cases": cases})
    return Path(path)


def _kind(path: Path) -> str:
    if path.suffix not in {".json", ".jsonl"}:
        raise InputError("has an unknown ending", where=path, expected=".jsonl or .json", got=path.suffix or "none")
    return path.suffix


def _record(prediction: Prediction, schema: LandmarkSchema | None) -> dict[str, Any]:
    record = prediction.to_dict()
    if schema is None:
        return record
    _check_fit(prediction, schema)
    return {**record, "schema": schema.name, "landmarks": list(schema.names)}


def _check_fit(prediction: Prediction, schema: LandmarkSchema) -> None:
    if len(prediction) != len(schema):
        raise SchemaError(
            f"the prediction does not fit the schema '{schema.name}'",
            where=prediction.case_id,
            expected=f"{len(schema)} landmarks",
            got=str(len(prediction)),
            fix="give the schema that the model was trained with",
        )


def _from_json(path: Path) -> Iterator[Prediction]:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != _FORMAT or not isinstance(data.get("predictions"), list):
        raise InputError("holds no predictions", where=path, expected=f'a mapping with "format": "{_FORMAT}"')
    if data.get("version") != 1:
        raise InputError("has an unknown version", where=path, expected="1", got=str(data.get("version")))
    for index, row in enumerate(data["predictions"]):
        yield _prediction(row, f"{path}, prediction {index}")


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"is not valid JSON ({error.msg})", where=where) from error


def _prediction(row: Any, where: str) -> Prediction:
    if not isinstance(row, dict):
        raise InputError("is not a prediction", where=where, expected="a mapping", got=type(row).__name__)
    try:
        return Prediction.from_dict(row)
    except KeyError as error:
        raise InputError("is not a prediction", where=where, expected=f"the entry {error}") from error
    except (TypeError, ValueError, BregmaError) as error:
        raise InputError(f"is not a prediction ({error})", where=where) from error


def _landmark_rows(prediction: Prediction, schema: LandmarkSchema) -> Iterator[tuple[Any, ...]]:
    _check_fit(prediction, schema)
    in_mm = None if prediction.frame.spacing is None else prediction.frame.to_mm(prediction.mean)
    for i, name in enumerate(schema.names):
        x, y = map(float, prediction.mean[i])
        x_mm, y_mm = ("", "") if in_mm is None else map(float, in_mm[i])
        sd_x, sd_y = (math.sqrt(max(0.0, float(prediction.cov[i, k, k]))) for k in (0, 1))
        spread = None if prediction.view_spread is None else float(prediction.view_spread[i])
        flag = prediction.flags[i] if prediction.flags else ""
        yield prediction.case_id, name, x, y, x_mm, y_mm, sd_x, sd_y, float(prediction.presence[i]), spread, flag


def _element_rows(prediction: Prediction) -> Iterator[tuple[Any, ...]]:
    places: Counter[str] = Counter()
    for one in prediction.instances or ():
        places[one.chain] += 1
        sure = one.level_probability if one.level is not None else None
        about = (prediction.case_id, one.chain, places[one.chain], one.level, sure, one.probability)
        for i, part in enumerate(one.parts):
            x, y = map(float, one.points[i])
            sd_x, sd_y = (math.sqrt(max(0.0, float(one.cov[i, k, k]))) for k in (0, 1))
            yield *about, part, x, y, sd_x, sd_y, float(one.presence[i])


def _measurement_row(case: str, m: Measurement) -> tuple[Any, ...]:
    low, high = m.interval if m.interval is not None else (None, None)
    probabilities = None if m.grade_probabilities is None else json.dumps(dict(m.grade_probabilities))
    return (
        *(case, m.name, m.label, m.level, m.value, m.unit, low, high, m.interval_level),
        *(m.grade, probabilities, m.status, m.reason, " ".join(m.uses), m.standard_error, m.convention),
        *(m.ends or (None, None)),
    )


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Path:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return path
