"""Several images of a subject, all with the same value of a quantity: drawn one an epoch, averaged, scored once."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bregma.errors import ConfigError, LabelError
from bregma.evaluation import compare_runs
from bregma.evaluation.tables import Reading, average_subjects
from bregma.geometry import Frame
from bregma.measurement import measure_subject
from bregma.prediction.failure import Failure
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, Dataset, Prediction, Value
from bregma.workflows import TrainResult, evaluate, predict, train
from bregma.workflows.loading import load_images, with_subjects

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
    saved = trained.run / "evaluation" / "test"
    [row] = [row for row in compare_runs([saved, saved], names=["a", "b"]).rows if row.metric == "bmd_mae"]
    assert trained.evaluation is not None
    assert [figure.n for figure in row.figures] == [8, 8]
    assert row.figures[0].value == pytest.approx(trained.evaluation.metrics["bmd_mae"].value, rel=1e-4)


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


class TestPredict:
    """Images of a folder have no subjects; a table tells them."""

    @pytest.fixture
    def folder(self, tmp_path: Path, scans: Dataset) -> Path:
        for case in scans.cases[-4 * SCANS :]:
            path = tmp_path / "new" / case.subject / f"{case.id.split('_')[1]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), case.image.load())
        return tmp_path / "new"

    def table(self, beside: Path, rows: Sequence[str], header: str = "file;patient_id") -> Path:
        path = beside.parent / "who.csv"
        path.write_text("\n".join((header, *rows)) + "\n")
        return path

    def test_values_of_a_subject_are_averaged(self, trained: TrainResult, folder: Path, tmp_path: Path) -> None:
        rows = [f"p{subject}/{number}.png;Q{subject}" for subject in (24, 25) for number in range(SCANS)]
        table = self.table(folder, [*rows, "p99/0.png;Q99"])
        result = predict([trained.run], [folder], tmp_path / "out", subjects=table)
        assert [one.subject for one in result.subjects[:6:2]] == ["Q24", "Q25", "p26/0.png"]
        first, second = result.subjects[:2]
        assert first.images == ("p24/0.png", "p24/1.png", "p24/2.png")
        own = [p.values["bmd"].mean for p in result.predictions if p.case_id in first.images]
        bmd, t_score = first.measurement, second.measurement
        assert bmd.value == pytest.approx(np.mean(own))
        assert bmd.grade == ("thin" if np.mean(own) < 100 else "dense")
        assert t_score.value == pytest.approx((np.mean(own) - 150) / 30)
        alone, lost = result.notes
        assert alone.startswith("Images that the table of subjects does not name, each a subject of its own (6): ")
        assert "p26/0.png" in alone
        assert lost.endswith("(1): p99/0.png.")
        with (tmp_path / "out" / "subjects.csv").open() as file:
            written = list(csv.DictReader(file))
        assert (written[0]["subject"], float(written[0]["value"])) == ("Q24", bmd.value)
        assert written[0]["images"] == "p24/0.png;p24/1.png;p24/2.png"
        page = (tmp_path / "out" / "report.html").read_text()
        assert all(text in page for text in ("<h2>Subjects</h2>", "Q25", "p99/0.png"))
        assert [one["subject"] for one in result.to_dict()["subjects"]][:3:2] == ["Q24", "Q25"]

    @pytest.mark.parametrize(
        ("name", "case"),
        [
            ("p1/a.nii.gz", "p1/a.nii.gz"),
            ("p1\\a.nii.gz", "p1/a.nii.gz"),
            ("b.nii.gz", "p2/b.nii.gz"),
            ("p3", "p3/c.dcm"),
        ],
    )
    def test_images_go_by_their_path_their_name_or_their_folder(self, name: str, case: str, tmp_path: Path) -> None:
        ids = ["p1/a.nii.gz", "p2/a.nii.gz", "p2/b.nii.gz", "p3/c.dcm"]
        pixels = ArrayImage(np.zeros((4, 4), np.uint8))
        cases = [Case(one, one, pixels, Frame((4, 4))) for one in ids]
        found, notes = with_subjects(cases, self.table(tmp_path / "x", [f"{name},Q"], "image,subject"))
        assert [one.id for one in found if one.subject == "Q"] == [case]
        assert len(notes) == 1

    def test_a_whole_path_is_a_name_too(self, folder: Path) -> None:
        cases, _ = load_images([folder])
        one = folder / "p24" / "0.png"
        found, _ = with_subjects(cases, self.table(folder, [f"{one.as_posix()},Q"], "image,subject"))
        assert [case.id for case in found if case.subject == "Q"] == ["p24/0.png"]

    def test_a_name_that_two_images_have_is_neither(self, tmp_path: Path) -> None:
        pixels = ArrayImage(np.zeros((4, 4), np.uint8))
        cases = [Case(f"{who}/a.png", who, pixels, Frame((4, 4))) for who in ("p1", "p2")]
        found, notes = with_subjects(cases, self.table(tmp_path / "x", ["a.png,Q"], "image,subject"))
        assert {one.subject for one in found} == {"p1", "p2"}
        assert "a.png (could be several)" in notes[1]

    def test_images_that_could_not_be_opened_are_not_called_missing(self, tmp_path: Path) -> None:
        case = Case("a.png", "a.png", ArrayImage(np.zeros((4, 4), np.uint8)), Frame((4, 4)))
        table = self.table(tmp_path / "x", ["a.png,Q", "p/b.png,Q"], "image,subject")
        assert with_subjects([case], table, [Failure("p/b.png", "broken")])[1] == []
        assert len(with_subjects([case], table)[1]) == 1

    def test_only_images_with_a_value_in_the_same_unit_are_averaged(self) -> None:
        length = schema_from_dict(
            {
                "name": "head",
                "title": "Head",
                "quantities": [{"name": "hc", "label": "HC", "unit": "mm", "dimension": "length", "per": "subject"}],
            },
            where="tests",
        )

        def seen(name: str, value: Value | None) -> Prediction:
            values = {} if value is None else {"hc": value}
            nothing = (np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(0))
            return Prediction(name, *nothing, Frame((8, 8)), values=values)

        mm = [Value(100.0, 3.0, "mm", 6.0), Value(110.0, 4.0, "mm", 8.0)]
        scans = [seen("a", mm[0]), seen("b", Value(55.0, 1.0, "px")), seen("c", None), seen("d", mm[1])]
        [(found, images)] = measure_subject(length, scans)
        assert (found.value, found.unit, images) == (105.0, "mm", ("a", "d"))
        assert found.interval == (98.0, 112.0)
        [(found, images)] = measure_subject(length, scans[1:3])
        assert (found.value, found.unit, found.status, images) == (55.0, "px", "no_spacing", ("b",))
        assert list(measure_subject(length, scans[2:3])) == []

    @pytest.mark.parametrize(
        ("header", "rows", "message"),
        [
            ("image,subject", ["p24/0.png,A", "p24/0.png,B"], "two subjects"),
            ("image,subject", ["p24/0.png,"], "the subject is empty"),
            ("image,age", ["p24/0.png,50"], "no column seems to name the subject"),
            ("age,subject", ["50,A"], "no column seems to name the image"),
        ],
    )
    def test_a_table_that_cannot_be_right_is_refused(
        self, trained: TrainResult, folder: Path, tmp_path: Path, header: str, rows: list[str], message: str
    ) -> None:
        with pytest.raises(LabelError, match=message) as caught:
            predict([trained.run], [folder], tmp_path / "out", subjects=self.table(folder, rows, header))
        assert "who.csv" in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_covariates_are_columns_of_the_table(self, scans: Dataset, folder: Path, tmp_path: Path) -> None:
        aged = replace(
            scans, cases=tuple(replace(case, tags={"age": case.targets["bmd"] / 2, "sex": "f"}) for case in scans)
        )
        fit = ["model.codec.name=scalar", "fit.regressor={name: elastic_net}", "fit.only_covariates=true"]
        more = ["fit.covariates=[age, sex]", "fit.pyramid=false", "fit.intensities=false", "fit.inner_folds=3"]
        run = train(aged, tmp_path / "aged", overrides=[*OVERRIDES, *fit, *more]).run
        rows = [f"p{subject}/{n}.png,Q{subject},{50 + subject},f" for subject in (24, 25, 26) for n in range(SCANS)]
        table = self.table(folder, [*rows, "p27/0.png,Q27,,f", "p27/1.png,Q27,60,x"], "image,subject,age,sex")
        result = predict([run], [folder], tmp_path / "out", subjects=table)
        values = {p.case_id: p.values["bmd"].mean for p in result.predictions}
        assert values.keys() == {f"p{subject}/{n}.png" for subject in (24, 25, 26) for n in range(SCANS)}
        assert values["p24/0.png"] == pytest.approx(148, rel=0.05)
        assert values["p26/2.png"] - values["p24/0.png"] == pytest.approx(4, rel=0.3)
        reasons = {failure.case_id: failure.reason for failure in result.failures}
        assert "'age' is not a number" in reasons["p27/0.png"]
        assert "'sex' is not known" in reasons["p27/1.png"]

    def test_a_model_without_such_quantities_needs_no_table(self, scans: Dataset, folder: Path, tmp_path: Path) -> None:
        per_image = replace(scans, schema=schema_of("image"))
        run = train(per_image, tmp_path / "per_image", overrides=[*OVERRIDES, "train.epochs=1"]).run
        with pytest.raises(ConfigError, match="nothing that a table of subjects could tell"):
            predict([run], [folder], tmp_path / "out", subjects=self.table(folder, ["p24/0.png;A"]))


def test_two_values_for_a_subject_are_refused_and_named(trained: TrainResult, scans: Dataset, tmp_path: Path) -> None:
    odd = replace(scans.cases[4], targets={"bmd": 99.0})
    cases = (*scans.cases[:4], odd, *scans.cases[5:])
    with pytest.raises(LabelError, match=r"subject 'p1' have different values of bmd") as caught:
        train(replace(scans, cases=cases), tmp_path / "run", overrides=OVERRIDES)
    assert "99 (p1_1)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(LabelError, match=r"subject 'p1' have different values of bmd"):
        evaluate(trained.run, replace(scans, cases=cases), out=tmp_path / "evaluated")
    per_image = replace(scans, cases=cases, schema=schema_of("image"))
    result = train(per_image, tmp_path / "per_image", overrides=[*OVERRIDES, "train.epochs=1"])
    assert result.images == 16 * SCANS
