"""Predictions and measurements must survive a round trip, bit by bit, and be refused when they are damaged."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bregma.errors import InputError, SchemaError
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.report import (
    iter_predictions,
    read_predictions,
    write_elements_csv,
    write_measurements_csv,
    write_measurements_json,
    write_predictions,
    write_predictions_csv,
)
from bregma.schema import LandmarkSchema
from bregma.types import Measurement, Prediction


def predictions(spacing: bool = True) -> list[Prediction]:
    rng = np.random.default_rng(0)
    frame = Frame((60, 80), (0.2, 0.4), "user") if spacing else Frame((60, 80))
    made = []
    for i in range(3):
        root = rng.normal(size=(3, 2, 2))
        made.append(
            Prediction(
                f"Fall {i} ü",
                rng.normal(size=(3, 2)) * 100 / 3,
                root @ root.transpose(0, 2, 1),
                rng.uniform(size=3),
                frame,
                "net 1",
                "scaled",
                rng.normal(size=(4, 3, 2)) if i == 0 else None,
            )
        )
    return made


def with_elements() -> Prediction:
    """A prediction with a named element and one without a name or its second part."""
    cov = np.array([[[4.0, 0.0], [0.0, 0.25]]] * 2)
    named = Instance("spine", ("top", "low"), np.array([[1.5, 2.0], [1.0, 9.0]]), cov, [1.0, 0.9], 0.95, "L4", 0.8)
    unnamed = Instance("spine", ("top",), np.array([[0.1 + 0.2, 30.0]]), cov[:1], [0.7], 0.6)
    return replace(predictions()[1], instances=(named, unnamed))


def same(a: Prediction, b: Prediction) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("mean", "cov", "presence"))
    samples = (a.samples is None) == (b.samples is None) and (a.samples is None or np.array_equal(a.samples, b.samples))
    rest = (a.case_id, a.frame, a.model, a.calibration) == (b.case_id, b.frame, b.model, b.calibration)
    return arrays and samples and rest


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_elements_of_chains_come_back_exactly(tmp_path: Path, name: str) -> None:
    given = [with_elements(), predictions()[0], replace(predictions()[2], instances=())]
    back = read_predictions(write_predictions(tmp_path / name, given))
    assert [one.instances for one in back] == [one.instances for one in given]
    assert back[1].instances is None


def test_elements_as_a_table(tmp_path: Path) -> None:
    path = write_elements_csv(tmp_path / "e.csv", [with_elements(), predictions()[0]])
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(r["case"], r["place"], r["level"], r["part"]) for r in rows] == [
        ("Fall 1 ü", "1", "L4", "top"),
        ("Fall 1 ü", "1", "L4", "low"),
        ("Fall 1 ü", "2", "", "top"),
    ]
    assert (rows[0]["x"], rows[0]["sd_x"], rows[0]["sd_y"], rows[0]["level_probability"]) == (
        "1.5",
        "2.0",
        "0.5",
        "0.8",
    )
    assert (float(rows[2]["x"]), rows[2]["level_probability"], rows[2]["presence"]) == (0.1 + 0.2, "", "0.7")


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
@pytest.mark.parametrize("named", [True, False])
def test_predictions_come_back_exactly(tmp_path: Path, schema: LandmarkSchema, name: str, named: bool) -> None:
    given = predictions()
    path = write_predictions(tmp_path / name, iter(given), schema=schema if named else None)
    back = read_predictions(path)
    assert len(back) == 3
    assert all(same(a, b) for a, b in zip(given, back, strict=True))
    assert ('"landmarks"' in path.read_text(encoding="utf-8")) is named


def test_the_json_is_strict(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    path = write_predictions(tmp_path / "p.jsonl", predictions())
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=refuse)


def test_one_prediction_is_read_at_a_time(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.jsonl", predictions())
    with path.open("a", encoding="utf-8") as handle:
        handle.write('{"case_id": "cut sho')
    reader = iter_predictions(path)
    assert next(reader).case_id == "Fall 0 ü"
    with pytest.raises(InputError, match=r"p\.jsonl, line 4"):
        list(reader)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"case_id": "a"}', "mean"),
        ("[1, 2]", "is not a prediction"),
        (
            '{"case_id": "a", "mean": [[1, NaN]], "cov": [[[1,0],[0,1]]], "presence": [1], "frame": {"shape": [4, 4]}}',
            "finite",
        ),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, row: str, problem: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"line 2.*{problem}"):
        read_predictions(path)


def test_other_json_and_other_endings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": "else"}', encoding="utf-8")
    with pytest.raises(InputError, match="holds no predictions"):
        read_predictions(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"expected \.jsonl or \.json, got \.txt"):
        write_predictions(tmp_path / "x.txt", [])
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "missing.jsonl")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, schema: LandmarkSchema) -> None:
    short = Prediction("s", np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones(1), Frame((4, 4)))
    with pytest.raises(SchemaError, match="expected 3 landmarks, got 1"):
        write_predictions(tmp_path / "p.jsonl", [short], schema=schema)
    assert list(tmp_path.iterdir()) == []


def test_predictions_as_csv(tmp_path: Path, schema: LandmarkSchema) -> None:
    given = predictions()
    path = write_predictions_csv(tmp_path / "p.csv", given, schema)
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["landmark"] for row in rows] == ["a", "b", "c"] * 3
    fourth = rows[4]
    assert fourth["case"] == "Fall 1 ü"
    assert (float(fourth["x"]), float(fourth["y"])) == tuple(given[1].mean[1])
    assert float(fourth["x_mm"]) == pytest.approx(0.2 * given[1].mean[1, 0], rel=1e-15)
    assert float(fourth["y_mm"]) == pytest.approx(0.4 * given[1].mean[1, 1], rel=1e-15)
    assert float(fourth["sd_y"]) ** 2 == pytest.approx(given[1].cov[1, 1, 1], rel=1e-12)
    assert float(fourth["presence"]) == given[1].presence[1]
    assert (fourth["view_spread"], fourth["flag"]) == ("", "")


def test_doubtful_landmarks_as_csv(tmp_path: Path, schema: LandmarkSchema) -> None:
    one = replace(predictions()[0], flags=("", 'lies "far", off', ""), view_spread=np.array([0.25, 1 / 3, 0.0]))
    path = write_predictions_csv(tmp_path / "p.csv", [one], schema)
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["flag"] for row in rows] == ["", 'lies "far", off', ""]
    assert [float(row["view_spread"]) for row in rows] == [0.25, 1 / 3, 0.0]


def test_the_ends_of_a_curve_as_csv(tmp_path: Path) -> None:
    curve = Measurement("cobb", "Cobb angle", 31.0, "deg", ends=("T5", "L1"))
    width = Measurement("ab", "Width", 3.0, "mm")
    path = write_measurements_csv(tmp_path / "m.csv", [("1", [curve, width])])
    with path.open(encoding="utf-8", newline="") as handle:
        rows = [(row["upper_end"], row["lower_end"]) for row in csv.DictReader(handle)]
    assert rows == [("T5", "L1"), ("", "")]


def test_without_spacing_there_are_no_millimetres(tmp_path: Path, schema: LandmarkSchema) -> None:
    path = write_predictions_csv(tmp_path / "p.csv", predictions(spacing=False), schema)
    with path.open(encoding="utf-8", newline="") as handle:
        assert {(row["x_mm"], row["y_mm"]) for row in csv.DictReader(handle)} == {("", "")}


MEASURED = [
    (
        "case, one",
        [
            Measurement(
                "ab",
                "Width",
                1 / 3,
                "mm",
                interval=(0.1, 0.7),
                interval_level=0.95,
                level="L4-L5",
                grade="slim",
                grade_probabilities={"slim": 0.75, "wide": 0.25},
                uses=("a", "b"),
            ),
            Measurement("ab", "Width", None, "mm", status="missing_landmark", reason='b is "gone"'),
        ],
    )
]


def test_measurements_as_csv_are_not_rounded(tmp_path: Path) -> None:
    path = write_measurements_csv(tmp_path / "m.csv", MEASURED)
    with path.open(encoding="utf-8", newline="") as handle:
        first, second = csv.DictReader(handle)
    assert first["case"] == "case, one"
    assert float(first["value"]) == 1 / 3
    assert (first["low"], first["high"], first["level"], first["uses"]) == ("0.1", "0.7", "L4-L5", "a b")
    assert json.loads(first["grade_probabilities"]) == {"slim": 0.75, "wide": 0.25}
    assert (second["value"], second["status"], second["reason"]) == ("", "missing_landmark", 'b is "gone"')


def test_measurements_as_json_come_back_exactly(tmp_path: Path) -> None:
    data = json.loads(write_measurements_json(tmp_path / "m.json", MEASURED).read_text(encoding="utf-8"))
    back = [Measurement.from_dict(row) for row in data["cases"][0]["measurements"]]
    assert data["cases"][0]["case_id"] == "case, one"
    assert back == MEASURED[0][1]
