"""What is saved can be read back, unrounded, and what is broken is named by file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bregma.errors import InputError
from bregma.evaluation import EvaluationSettings, evaluate_predictions, load_cases, load_metrics, save_evaluation
from bregma.evaluation.stored import load_run
from bregma.geometry import Frame
from bregma.results import Evaluation
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status

SCHEMA = schema_from_dict(
    {
        "name": "pair",
        "title": "Pair",
        "landmarks": [{"name": "a", "label": "A"}, {"name": "b", "label": "B, the second"}],
        "measurements": [
            {
                "name": "width",
                "label": "Width",
                "primitive": "distance",
                "points": {"a": "a", "b": "b"},
                "unit": "mm",
                "grade": "size",
            }
        ],
        "grades": [{"name": "size", "edges": [22.0], "labels": ["small", "large"], "source": "test"}],
    },
    where="test",
)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    frame, image = Frame((100, 200), (0.5, 0.5), "user"), ArrayImage(np.zeros((100, 200)))
    labels = LandmarkSet([[10, 10], [50, 10]])
    junior = LandmarkSet([[10, 13], [50, 10]])
    partly = LandmarkSet([[10, 10], [0, 0]], [Status.OCCLUDED, Status.OUTSIDE])
    cases = [
        Case("1", "p", image, frame, labels, tags={"sex": "F"}, observers={"junior": junior}),
        Case("2, left", "q", image, frame, partly, tags={"age": 40}),
    ]
    cov = np.array([[[9.0, 0.0], [0.0, 16.0]]] * 2)
    predictions = [
        Prediction("1", np.array([[10.1, 10.0], [60.0, 10.0]]), cov, np.array([1.0, 0.7]), frame),
        Prediction(
            *("2, left", np.array([[13.0, 14.0], [60.0, 10.0]]), cov, np.array([1.0, 0.2]), frame),
            flags=("far off", ""),
            view_spread=np.array([2.5, 0.0]),
        ),
    ]
    settings = EvaluationSettings(draws=100, presence_threshold=0.5)
    return evaluate_predictions(SCHEMA, cases, predictions, settings, name="run 1, test")


@pytest.fixture
def folder(evaluation: Evaluation, tmp_path: Path) -> Path:
    save_evaluation(evaluation, tmp_path / "out")
    return tmp_path / "out"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_metrics_round_trip(evaluation: Evaluation, folder: Path) -> None:
    assert load_metrics(folder) == dict(evaluation.metrics)
    assert list(load_metrics(folder)) == list(evaluation.metrics)
    assert load_metrics(folder, human=True) == dict(evaluation.human)
    assert set(json.loads((folder / "metrics.json").read_text())["mre_px"]) == {"value", "low", "high", "n", "unit"}


def test_cases_round_trip_with_tags(folder: Path) -> None:
    first, second = load_cases(folder)
    assert (first.id, first.subject, first.shape, first.scored, first.outliers) == ("1", "p", (100, 200), 2, 0)
    assert first.ipe_px == pytest.approx(5.05)
    assert first.max_px == pytest.approx(10.0)
    assert first.tags == {"sex": "F"}
    assert (second.id, second.ipe_px, second.tags) == ("2, left", 5.0, {"age": "40"})


def test_points_hold_truth_prediction_error_and_spread(folder: Path) -> None:
    rows = _rows(folder / "points.csv")
    assert [(row["case"], row["landmark"]) for row in rows] == [
        ("1", "a"),
        ("1", "b"),
        ("2, left", "a"),
        ("2, left", "b"),
    ]
    assert float(rows[0]["predicted_x"]) == 10.1
    assert float(rows[1]["error_px"]) == 10.0
    assert float(rows[1]["error_mm"]) == 5.0
    assert float(rows[0]["sd_px"]) == pytest.approx(12.5**0.5)
    assert rows[2]["status"] == "occluded"
    last = rows[3]
    assert (last["status"], last["true_x"], last["error_px"], last["presence"]) == ("outside", "", "", "0.2")


def test_doubtful_points_are_told(evaluation: Evaluation, folder: Path) -> None:
    rows = _rows(folder / "points.csv")
    assert [row["flag"] for row in rows] == ["", "", "far off", ""]
    assert [row["view_spread_px"] for row in rows] == ["", "", "2.5", "0.0"]
    # 3 px along x and 4 along y.
    said = "1 points on 1 of 2 images contradict the others and are flagged; their median error is 5.0 px."
    assert said in evaluation.notes


def test_an_evaluation_from_before_doubts_were_written_can_be_read(folder: Path) -> None:
    for name, extra in (("points.csv", 2), ("measurements.csv", 2)):
        with (folder / name).open(newline="", encoding="utf-8") as handle:
            rows = [row[:-extra] for row in csv.reader(handle)]
        with (folder / name).open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(rows)
    assert len(load_run(folder).points) == 2


def test_landmarks_and_measurements(folder: Path) -> None:
    a, b = _rows(folder / "landmarks.csv")
    assert (a["landmark"], a["unit"], a["n"]) == ("a", "mm", "2")
    assert (b["label"], b["n"]) == ("B, the second", "1")
    width, none = _rows(folder / "measurements.csv")
    assert float(width["true"]) == 20.0
    assert float(width["predicted"]) == pytest.approx(24.95)
    assert (width["true_grade"], width["predicted_grade"], width["unit"]) == ("small", "large", "mm")
    assert (none["true"], none["predicted"], none["status"]) == ("", "", "missing_landmark")


def test_a_stored_run_knows_its_schema_settings_and_points(evaluation: Evaluation, folder: Path) -> None:
    run = load_run(folder)
    assert run.name == "run 1, test"
    assert run.schema == SCHEMA
    assert run.settings.to_dict() == evaluation.settings
    np.testing.assert_array_equal(run.points["1"].errors_px, evaluation.cases[0].errors_px)
    assert [r.name for r in run.readings] == ["width", "width"]


def test_a_stale_human_line_is_removed(evaluation: Evaluation, folder: Path) -> None:
    alone = Evaluation(evaluation.name, SCHEMA, evaluation.cases, evaluation.metrics, evaluation.landmarks)
    save_evaluation(alone, folder)
    assert load_metrics(folder, human=True) == {}


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("cases.csv", "subject", "person", "cases.csv: lacks the column 'subject'"),
        ("cases.csv", "1,p,100", "1,p,many", "cases.csv, line 2: a cell is not a number"),
        ("cases.csv", "1,p,100", "1,p,0", "cases.csv, line 2: an image needs rows"),
        ("cases.csv", "1,p,", "1,", "cases.csv, line 2: the row has not as many cells"),
        ("points.csv", "1,b,visible", "1,c,visible", "points.csv, line 3: unknown landmark"),
        ("points.csv", "1,b,visible", "1,a,visible", "the case '1' lacks rows"),
        ("evaluation.json", '"schema"', '"scheme"', "is not an evaluation"),
    ],
)
def test_broken_files_are_named(folder: Path, name: str, old: str, new: str, message: str) -> None:
    _edit(folder / name, old, new)
    with pytest.raises(InputError, match=message):
        load_run(folder)


def test_metrics_that_are_none(folder: Path) -> None:
    (folder / "metrics.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="not a table of metrics"):
        load_metrics(folder)
    with pytest.raises(InputError, match="cannot be read"):
        load_metrics(folder / "nowhere")
