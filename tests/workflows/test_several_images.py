"""Several images of a subject, all with the same value of a quantity: drawn one an epoch, averaged, scored once."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bregma.errors import LabelError
from bregma.evaluation.stored import load_run
from bregma.evaluation.tables import Reading, average_subjects
from bregma.geometry import Frame
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, Dataset
from bregma.workflows import TrainResult, train

OVERRIDES = (
    "model.preprocess.size=[32,32]",
    "train.batch_size=8",
    "train.epochs=2",
    "train.accelerator=cpu",
    "train.precision=32-true",
    "train.workers=0",
    "predict.accelerator=cpu",
    "evaluate.draws=100",
)
SCANS = 3


def schema_of(per: str) -> LandmarkSchema:
    return schema_from_dict(
        {
            "name": "bone",
            "title": "Bone",
            "quantities": [
                {
                    "name": "bmd",
                    "label": "Density",
                    "unit": "1",
                    "per": per,
                    "grade": "bone",
                    "t_score": {"name": "the young", "mean": 150.0, "sd": 30.0, "source": "made up"},
                }
            ],
            "grades": [{"name": "bone", "edges": [100.0], "labels": ["thin", "dense"], "source": "made up"}],
        },
        where="tests",
    )


def scan(subject: int, number: int) -> Case:
    rng = np.random.default_rng((subject, number))
    shade = float(np.random.default_rng(subject).uniform(50, 200))
    pixels = np.clip(rng.normal(shade, 20, (32, 32)), 0, 255).astype(np.uint8)
    return Case(f"p{subject}_{number}", f"p{subject}", ArrayImage(pixels), Frame((32, 32)), targets={"bmd": shade})


@pytest.fixture(scope="module")
def scans() -> Dataset:
    cases = tuple(scan(subject, number) for subject in range(28) for number in range(SCANS))
    names = [case.id for case in cases]
    parts = {"train": tuple(names[: 16 * SCANS]), "val": tuple(names[16 * SCANS : 20 * SCANS])}
    return Dataset("scans", schema_of("subject"), cases, parts | {"test": tuple(names[20 * SCANS :])})


@pytest.fixture(scope="module")
def trained(scans: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(scans, tmp_path_factory.mktemp("runs") / "scans", overrides=OVERRIDES)


def test_an_epoch_shows_one_image_of_each_subject(trained: TrainResult, scans: Dataset, tmp_path: Path) -> None:
    plan = json.loads((trained.run / "plan.json").read_text())
    assert plan["rows"]["train.draw"]["value"] == "subject"
    assert "16" in plan["rows"]["train.draw"]["reason"]
    assert trained.images == 2 * 16
    asked = [*OVERRIDES, "train.draw=image", "train.epochs=1"]
    every = train(scans, tmp_path / "every", overrides=asked)
    assert every.images == 16 * SCANS


def test_what_is_predicted_on_a_subjects_images_is_averaged(trained: TrainResult) -> None:
    assert trained.evaluation is not None
    with (trained.run / "evaluation" / "test" / "measurements.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["measurement"] == "bmd"]
    assert len(rows) == 8 * SCANS
    by_subject = defaultdict(list)
    for row in rows:
        by_subject[row["case"].split("_")[0], float(row["true"])].append(float(row["predicted"]))
    errors = [abs(np.mean(values) - true) for (_, true), values in by_subject.items()]
    assert trained.evaluation.metrics["bmd_mae"].n == 8
    assert trained.evaluation.metrics["bmd_mae"].value == pytest.approx(np.mean(errors))
    assert trained.evaluation.metrics["bmd_grade_accuracy"].n == 8
    [note] = [note for note in trained.evaluation.notes if "averaged" in note]
    assert "24 images of 8 subjects" in note
    assert not any("several pairs of one subject" in note for note in trained.evaluation.notes)


def test_what_was_saved_is_scored_likewise(trained: TrainResult) -> None:
    found = [row for row in load_run(trained.run / "evaluation" / "test").readings if row.name == "bmd"]
    assert len(found) == 8
    assert trained.evaluation is not None
    mae = np.mean([abs(row.predicted - row.true) for row in found])  # type: ignore[operator]
    assert mae == pytest.approx(trained.evaluation.metrics["bmd_mae"].value, rel=1e-4)
    assert all(row.case_id.endswith("_0") for row in found)


def test_a_grade_is_that_of_the_mean_and_a_score_is_averaged_too() -> None:
    def reading(subject: int, name: str, value: float | None, grade: str | None) -> Reading:
        return Reading(f"{subject}{value}", subject, name, "Density", None, "1", value, 90.0, grade, "thin")

    rows = [
        *(reading(0, "bmd", value, grade) for value, grade in ((90, "thin"), (130, "dense"), (None, None))),
        reading(0, "bmd_t_score", -2.0, None),
        reading(0, "bmd_t_score", -1.0, None),
        reading(1, "bmd", None, None),
        reading(1, "bmd", None, None),
    ]
    first, score, second = average_subjects(rows, schema_of("subject"))
    assert (first.predicted, first.predicted_grade, first.true) == (110.0, "dense", 90.0)
    assert score.predicted == -1.5
    assert (second.predicted, second.predicted_grade) == (None, None)
    assert average_subjects(rows, schema_of("image")) == tuple(rows)


def test_two_values_for_a_subject_are_refused_and_named(scans: Dataset, tmp_path: Path) -> None:
    odd = replace(scans.cases[4], targets={"bmd": 99.0})
    cases = (*scans.cases[:4], odd, *scans.cases[5:])
    with pytest.raises(LabelError, match=r"subject 'p1' have different values of bmd") as caught:
        train(replace(scans, cases=cases), tmp_path / "run", overrides=OVERRIDES)
    assert "99 (p1_1)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    per_image = replace(scans, cases=cases, schema=schema_of("image"))
    result = train(per_image, tmp_path / "per_image", overrides=[*OVERRIDES, "train.epochs=1"])
    assert result.images == 16 * SCANS
