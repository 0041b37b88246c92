"""``predict`` and ``measure``: images without labels to landmarks, landmarks to measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bregma.bundle import Bundle, PredictConfig, load_bundle
from bregma.config import read_yaml
from bregma.errors import ConfigError, RunError
from bregma.files import write_json
from bregma.io import Plane
from bregma.measurement import measure_landmarks, measure_prediction, measure_subject
from bregma.prediction.failure import Failure
from bregma.prediction.predictor import Predictor
from bregma.report import (
    PredictedCase,
    SubjectValue,
    contact_sheet,
    draw_overlay,
    drawn_measurements,
    read_predictions,
    save_png,
    write_elements_csv,
    write_measurements_csv,
    write_measurements_json,
    write_prediction_report,
    write_predictions,
    write_predictions_csv,
    write_subjects_csv,
)
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import Case, Dataset, Measurement, Prediction
from bregma.workflows.loading import DataOptions, load_data, load_images, with_subjects
from bregma.workflows.run_folder import refuse_used
from bregma.workflows.track import Track, untracked

_DRAWN_IMAGES, _DRAWN_MEASUREMENTS, _TILE_PX = 12, 16, 600


@dataclass(frozen=True)
class PredictResult:
    """What a batch prediction gave.

    Attributes:
        out: the folder with ``predictions.jsonl``, tables and ``report.html``.
        predictions: in the order of the files.
        measurements: of each prediction.
        failures: files that could not be used, with the reason.
        subjects: of each subject, the quantities that belong to subjects, averaged over its images; empty where no
            table named them.
        notes: what a reader must know.
    """

    out: Path
    predictions: tuple[Prediction, ...]
    measurements: tuple[tuple[Measurement, ...], ...]
    failures: tuple[Failure, ...]
    subjects: tuple[SubjectValue, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "predicted": [p.case_id for p in self.predictions],
            "failed": {failure.case_id: failure.reason for failure in self.failures},
            "subjects": [
                {"subject": one.subject, "images": list(one.images), **one.measurement.to_dict()}
                for one in self.subjects
            ],
            "notes": list(self.notes),
        }


def predict(
    models: Sequence[str | Path],
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    spacing: tuple[float, float] | None = None,
    plane: Plane | None = None,
    subjects: str | Path | None = None,
    config: PredictConfig | None = None,
    track: Track = untracked,
) -> PredictResult:
    """Find landmarks on images without labels, measure them, and write tables and a report.

    A file that cannot be used is listed in the result and in ``failures.json``; the others go on.

    Args:
        models: one bundle or run folder, or several for an ensemble.
        inputs: image files and folders.
        out: the folder to write; must be new or empty.
        spacing: millimetres per pixel along x and y, where the user knows better than the files.
        plane: of volumes, that in which their slices lie.
        subjects: a table with the columns ``image`` and ``subject``: quantities that belong to subjects are then given
            for each of them too, averaged over its images. Further columns are the covariates that a model asks for.
        config: views and device; what it leaves unset is done as each bundle says.
        track: wraps the iteration over images.

    Raises:
        BundleError: a model cannot be loaded.
        ConfigError: ``subjects`` are given to models that have no use for them.
        ImageError: there is no image at all.
        LabelError: the table of subjects cannot be read or gives an image two.
        RunError: ``out`` is in use or cannot be written.
    """
    folder = Path(out)
    refuse_used(folder, fix="choose another --out, or remove it")
    bundles = [load_bundle(model) for model in models]
    predictor = Predictor(bundles, config)
    if subjects is not None:
        _check_subjects(predictor.schema, bundles)
    cases, failures = load_images(inputs, spacing=spacing, plane=plane)
    cases, notes = (cases, []) if subjects is None else with_subjects(cases, subjects, failures)
    answers = list(track(predictor.predict(cases), len(cases), "predict"))
    failures += [answer for answer in answers if isinstance(answer, Failure)]
    predictions = tuple(answer for answer in answers if isinstance(answer, Prediction))
    measured = tuple(measure_prediction(predictor.schema, prediction) for prediction in predictions)
    write_predictions(folder / "predictions.jsonl", predictions, schema=predictor.schema)
    write_predictions_csv(folder / "predictions.csv", predictions, predictor.schema)
    if any(prediction.instances is not None for prediction in predictions):
        write_elements_csv(folder / "elements.csv", predictions)
    write_measurement_tables(folder, predictions, measured)
    people = () if subjects is None else _by_subject(predictor.schema, cases, predictions)
    if people:
        write_subjects_csv(folder / "subjects.csv", people)
    write_json(folder / "schema.json", predictor.schema.to_dict())
    write_json(folder / "failures.json", {failure.case_id: failure.reason for failure in failures})
    failed = [f"{failure.case_id} could not be used: {failure.reason}" for failure in failures]
    images = {case.id: case.image for case in cases}
    items = [PredictedCase(images[p.case_id], p, found) for p, found in zip(predictions, measured, strict=True)]
    write_prediction_report(folder / "report.html", predictor.schema, items, subjects=people, notes=notes + failed)
    return PredictResult(folder, predictions, measured, tuple(failures), people, tuple(notes))


def measure(
    source: str | Path,
    *,
    schema: str | Path | None = None,
    out: str | Path | None = None,
    options: DataOptions | None = None,
) -> dict[str, tuple[Measurement, ...]]:
    """Measure predictions, or the labels of a dataset, without running a network.

    Args:
        source: a ``predictions.jsonl`` (or the folder that holds it), or a labelled dataset.
        schema: the anatomy; by default that of the predictions or labels.
        out: a folder for ``measurements.csv``, ``measurements.json`` and, of a dataset, ``measured.png``, the first
            images with what was measured drawn; None writes nothing.
        options: how to read a dataset.

    Raises:
        InputError, LabelError, SchemaError: the source cannot be read or does not fit the schema.
    """
    path, labelled = Path(source), None
    file = path / "predictions.jsonl" if path.is_dir() else path
    if file.suffix == ".jsonl" and file.is_file():
        anatomy = _schema_beside(file, schema)
        measured = {p.case_id: measure_prediction(anatomy, p) for p in read_predictions(file)}
    else:
        options = options or DataOptions()
        labelled = load_data(path, replace(options, schema=schema or options.schema))
        measured = {
            case.id: measure_landmarks(labelled.schema, case.landmarks, case.frame, given=case.targets)
            for case in labelled
            if case.landmarks is not None
        }
    if out is not None:
        write_measurements_csv(Path(out) / "measurements.csv", measured.items())
        write_measurements_json(Path(out) / "measurements.json", measured.items())
        if labelled is not None and measured:
            save_png(Path(out) / "measured.png", _measured_sheet(labelled, measured))
    return measured


def _measured_sheet(dataset: Dataset, measured: Mapping[str, tuple[Measurement, ...]]) -> NDArray[np.uint8]:
    """Draw the labels of the first measured images with what was measured from them."""
    tiles = []
    for case in [case for case in dataset if case.id in measured][:_DRAWN_IMAGES]:
        drawn = draw_overlay(
            case.image.load(),
            schema=dataset.schema,
            truth=case.landmarks,
            measurements=drawn_measurements(dataset.schema, measured[case.id], _DRAWN_MEASUREMENTS),
            spacing=case.frame.spacing,
            size=_TILE_PX,
            mark_scale=1.3,
            least_aspect=0.62,
            legend=False,
        )
        tiles.append((drawn, case.id))
    return contact_sheet(tiles, 3, cell=(_TILE_PX, _TILE_PX))


def write_measurement_tables(
    folder: Path, predictions: Sequence[Prediction], measured: Sequence[tuple[Measurement, ...]]
) -> None:
    """Write ``measurements.csv`` and ``measurements.json``."""
    rows = [(prediction.case_id, found) for prediction, found in zip(predictions, measured, strict=True)]
    write_measurements_csv(folder / "measurements.csv", rows)
    write_measurements_json(folder / "measurements.json", rows)


def _schema_beside(file: Path, schema: str | Path | None) -> LandmarkSchema:
    if schema is not None:
        return load_schema(schema)
    beside = file.parent / "schema.json"
    if not beside.is_file():
        raise RunError("the predictions' schema is not known", where=file, fix="give it with --schema")
    data, lines = read_yaml(beside)  # JSON is YAML, so the loader that names lines serves for both.
    return schema_from_dict(data, where=str(beside), lines=lines)


def _check_subjects(schema: LandmarkSchema, bundles: Sequence[Bundle]) -> None:
    given = schema.quantities if not len(schema) else ()
    asked = any(bundle.regression is not None and bundle.regression.covariates.words for bundle in bundles)
    if asked or any(quantity.per == "subject" for quantity in given):
        return
    named = ", ".join(quantity.name for quantity in given) or "landmarks"
    raise ConfigError(
        "this model asks for nothing that a table of subjects could tell",
        where="--subjects",
        expected="a model with covariates, or of quantities that the schema declares with 'per: subject'",
        got=f"a model of {named}",
        fix="leave the table out",
    )


def _by_subject(
    schema: LandmarkSchema, cases: Sequence[Case], predictions: Sequence[Prediction]
) -> tuple[SubjectValue, ...]:
    who = {case.id: case.subject for case in cases}
    images: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        images.setdefault(who[prediction.case_id], []).append(prediction)
    return tuple(
        SubjectValue(subject, measurement, used)
        for subject, own in images.items()
        for measurement, used in measure_subject(schema, own)
    )
