"""Evaluations small enough to be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bregma.errors import ConfigError, InputError
from bregma.evaluation import EvaluationSettings, evaluate_predictions
from bregma.evaluation.case import match_exchangeable
from bregma.geometry import Frame
from bregma.results import Evaluation
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status

PAIR = {
    "name": "pair",
    "title": "Pair",
    "landmarks": [{"name": "a", "label": "A"}, {"name": "b", "label": "B"}],
}


def _schema(**more: Any) -> LandmarkSchema:
    return schema_from_dict(PAIR | more, where="test")


def _case(
    name: str,
    points: Any = ((10, 10), (50, 10)),
    *,
    subject: str | None = None,
    shape: tuple[int, int] = (100, 200),
    spacing: tuple[float, float] | None = None,
    status: Any = None,
    **more: Any,
) -> Case:
    frame = Frame(shape, spacing, "none" if spacing is None else "user")
    return Case(name, subject or name, ArrayImage(np.zeros(shape)), frame, LandmarkSet(points, status), **more)


def _predict(case: Case, mean: Any, presence: Any = None) -> Prediction:
    n = len(mean)
    return Prediction(
        case.id, np.array(mean), np.zeros((n, 2, 2)), np.ones(n) if presence is None else presence, case.frame
    )


def _values(evaluation: Evaluation) -> dict[str, float | None]:
    return {name: figure.value for name, figure in evaluation.metrics.items()}


def _run(cases: list[Case], means: list[Any], schema: LandmarkSchema | None = None, **settings: Any) -> Evaluation:
    predictions = [_predict(case, mean) for case, mean in zip(cases, means)]
    return evaluate_predictions(
        schema or _schema(), cases, predictions, EvaluationSettings(draws=200, **settings), name="run"
    )


def test_figures_in_pixels() -> None:
    # Errors: (0, 5) and (3, 12).
    found = _run([_case("1"), _case("2")], [[(10, 10), (53, 14)], [(13, 10), (50, 22)]])
    values = _values(found)
    assert values["mre_px"] == pytest.approx(5.0)
    assert values["mre_sd_px"] == pytest.approx(math.sqrt((25 + 0 + 4 + 49) / 3))
    assert values["median_px"] == pytest.approx(4.0)
    assert values["p95_px"] == pytest.approx(5 + 0.85 * 7)
    assert values["max_px"] == pytest.approx(12.0)
    assert values["ipe_px"] == pytest.approx(5.0)
    assert values["ipe_median_px"] == pytest.approx(5.0)
    assert [values[f"sdr_{t}px"] for t in (2, 4, 6, 10)] == [25, 50, 75, 75]
    assert values["outliers"] == 1
    assert values["outliers_per_image"] == 0.5
    # The true points are 40 px apart, along x.
    assert values["nme"] == pytest.approx(100 * 5.0 / 40)
    assert not any(name.endswith("mm") for name in values)
    assert any("no trusted spacing" in note for note in found.notes)


def test_worst_case_comes_first_and_landmarks_have_their_own_rows() -> None:
    found = _run([_case("1"), _case("2")], [[(10, 10), (53, 14)], [(13, 10), (50, 22)]])
    assert [result.case.id for result in found.cases] == ["2", "1"]
    assert [result.outliers for result in found.cases] == [1, 0]
    a, b = found.landmarks
    assert (a.name, a.mre.value, a.mre.n, a.mre.unit, a.outliers) == ("a", 1.5, 2, "px", 0)
    assert (b.mre.value, b.median.value, b.outliers) == (8.5, 8.5, 1)
    assert b.p95.value == pytest.approx(5 + 0.95 * 7)


def test_a_radius_is_inclusive_and_an_outlier_lies_beyond() -> None:
    values = _values(_run([_case("1")], [[(12, 10), (50, 20)]]))
    assert values["sdr_2px"] == 50
    assert values["outliers"] == 0


def test_millimetres_honour_anisotropic_spacing() -> None:
    found = _run([_case("1", spacing=(0.5, 2.0))], [[(13, 14), (50, 10)]], sdr_mm=(2.0, 8.2))
    values = _values(found)
    error = math.hypot(1.5, 8.0)
    assert values["mre_mm"] == pytest.approx(error / 2)
    assert values["max_mm"] == pytest.approx(error)
    assert values["sdr_2mm"] == 50
    assert values["sdr_8.2mm"] == 100
    assert values["mre_px"] == pytest.approx(2.5)
    assert found.landmarks[0].mre.unit == "mm"
    assert found.landmarks[0].mre.value == pytest.approx(error)


def test_one_image_without_spacing_takes_millimetres_from_all() -> None:
    found = _run([_case("1", spacing=(1, 1)), _case("2")], [[(10, 10), (50, 10)]] * 2)
    assert "mre_mm" not in found.metrics
    assert "1 of 2 images have no trusted spacing" in " ".join(found.notes)


def test_errors_at_another_size_are_scaled_by_the_long_side() -> None:
    # Long sides 200 and 512: 256 / 200 = 1.28 and 256 / 512 = 0.5.
    cases = [_case("1"), _case("2", shape=(512, 400))]
    values = _values(_run(cases, [[(18, 10), (50, 10)], [(26, 10), (50, 30)]], at_size=256))
    errors = [8 * 1.28, 0.0, 8.0, 10.0]
    assert values["mre_px_at_256"] == pytest.approx(np.mean(errors))
    assert values["median_px_at_256"] == pytest.approx(9.0)
    assert values["max_px_at_256"] == pytest.approx(10.24)
    assert values["ipe_px_at_256"] == pytest.approx(np.mean(errors))
    assert values["ipe_median_px_at_256"] == pytest.approx((5.12 + 9.0) / 2)
    # 10.24 at 256 px is an outlier, 8 px on the original is none; 16 and 20 px on the original are, 8 and 10 are none.
    assert values["outliers_at_256"] == 1
    assert values["outliers_per_image_at_256"] == 0.5
    assert values["outliers"] == 2
    assert values["sdr_10px_at_256"] == 75
    assert values["sdr_10px"] == 50


def test_points_without_a_label_are_not_scored() -> None:
    case = _case("1", status=[Status.VISIBLE, Status.UNLABELLED])
    found = _run([case], [[(13, 10), (500, 500)]])
    assert found.metrics["mre_px"].value == 3.0
    assert found.metrics["mre_px"].n == 1
    assert found.metrics["sdr_4px"].value == 100.0
    assert found.landmarks[1].mre.value is None
    assert np.isnan(found.cases[0].errors_px[1])


def test_a_declined_point_fails_but_its_position_still_counts() -> None:
    cases = [_case("1"), _case("2")]
    predictions = [_predict(cases[0], [(10, 10), (53, 10)], [0.9, 0.2]), _predict(cases[1], [(10, 10), (50, 10)])]
    plain = evaluate_predictions(_schema(), cases, predictions, EvaluationSettings(draws=100), name="run")
    strict = evaluate_predictions(
        _schema(), cases, predictions, EvaluationSettings(draws=100, presence_threshold=0.5), name="run"
    )
    assert plain.metrics["sdr_4px"].value == 100
    assert "missed_rate" not in plain.metrics
    assert strict.metrics["sdr_4px"].value == 75
    assert strict.metrics["missed_rate"].value == 25
    assert strict.metrics["outliers"].value == 1
    assert strict.metrics["mre_px"].value == plain.metrics["mre_px"].value == 0.75
    assert strict.landmarks[1].outliers == 1
    assert strict.cases[0].outliers == 1


def test_points_that_are_not_there_but_given() -> None:
    outside = _case("1", status=[Status.VISIBLE, Status.OUTSIDE])
    seen = _case("2", status=[Status.VISIBLE, Status.OUTSIDE])
    predictions = [_predict(outside, [(10, 10), (0, 0)], [1.0, 0.9]), _predict(seen, [(10, 10), (0, 0)], [1.0, 0.1])]
    settings = EvaluationSettings(draws=100, presence_threshold=0.5)
    found = evaluate_predictions(_schema(), [outside, seen], predictions, settings, name="run")
    assert found.metrics["false_rate"].value == 50
    assert found.metrics["false_rate"].n == 2


def test_an_image_without_prediction_fails_all_its_points() -> None:
    cases = [_case("1"), _case("2")]
    found = evaluate_predictions(
        _schema(), cases, [_predict(cases[0], [(10, 10), (50, 10)])], EvaluationSettings(draws=100), name="run"
    )
    assert found.metrics["sdr_2px"].value == 50
    assert found.metrics["outliers"].value == 2
    assert found.metrics["missed_rate"].value == 50
    assert found.metrics["mre_px"].n == 2
    assert "1 labelled images have no prediction" in found.notes[0]
    assert "2" in found.notes[0].split(":")[-1]
    assert len(found.cases) == 1


def test_exchangeable_points_have_no_order() -> None:
    schema = _schema(exchangeable=[["a", "b"]])
    found = _run([_case("1")], [[(50, 11), (10, 10)]], schema)
    assert found.metrics["mre_px"].value == 0.5
    np.testing.assert_array_equal(found.cases[0].truth.points, [[50, 10], [10, 10]])
    assert _run([_case("1")], [[(50, 11), (10, 10)]]).metrics["mre_px"].value > 40  # type: ignore[operator]


def test_exchangeable_points_held_to_the_order_of_the_labels() -> None:
    schema = _schema(exchangeable=[["a", "b"]])
    cases = [_case("1", spacing=(0.5, 0.5)), _case("2", spacing=(0.5, 0.5))]
    found = _run(cases, [[(50, 10), (10, 10)], [(10, 13), (50, 14)]], schema).metrics
    # 40, 40, 3 and 4 px.
    assert found["mre_px"].value == 1.75
    assert found["mre_as_labelled_px"].value == 21.75
    assert found["mre_as_labelled_mm"].value == 10.875
    assert "mre_as_labelled_px" not in _run(cases, [[(50, 10), (10, 10)], [(10, 13), (50, 14)]]).metrics


def test_exchangeable_points_of_which_one_is_not_labelled() -> None:
    schema = _schema(exchangeable=[["a", "b"]])
    truth = LandmarkSet([[10, 10], [0, 0]], [Status.VISIBLE, Status.UNLABELLED])
    turned = match_exchangeable(schema, np.array([[90.0, 90.0], [10.0, 10.0]]), truth)
    np.testing.assert_array_equal(turned.points, [[0, 0], [10, 10]])
    np.testing.assert_array_equal(turned.labelled, [False, True])


def test_intervals_come_from_subjects_not_images() -> None:
    """All images of a subject have one error; taking images for subjects would narrow the interval by √8."""
    errors = np.random.default_rng(2).uniform(0, 10, 30)
    grouped, single = [], []
    for i, error in enumerate(errors):
        for k in range(8):
            grouped.append((_case(f"{i}_{k}", subject=f"p{i}"), [(10 + error, 10), (50 + error, 10)]))
        single.append((_case(f"{i}", subject=f"p{i}"), [(10 + error, 10), (50 + error, 10)]))
    many = _run([c for c, _ in grouped], [m for _, m in grouped])
    one = _run([c for c, _ in single], [m for _, m in single])
    for name in ("mre_px", "ipe_px", "sdr_4px", "outliers_per_image", "nme"):
        assert many.metrics[name].low == pytest.approx(one.metrics[name].low), name
        assert many.metrics[name].high == pytest.approx(one.metrics[name].high), name
    assert many.metrics["mre_px"].n == 8 * one.metrics["mre_px"].n
    low, high = one.metrics["mre_px"].low, one.metrics["mre_px"].high
    assert low is not None
    assert high is not None
    # Normal theory: ± 1.96 standard errors of 30 subjects.
    assert high - low == pytest.approx(2 * 1.96 * errors.std(ddof=1) / math.sqrt(30), rel=0.2)


def test_one_subject_has_no_intervals_and_few_have_a_warning() -> None:
    one = _run([_case("1", subject="p"), _case("2", subject="p")], [[(10, 10), (50, 11)]] * 2)
    assert one.metrics["mre_px"].low is None
    assert any("one subject" in note for note in one.notes)
    few = _run([_case("1"), _case("2")], [[(10, 10), (50, 11)], [(10, 10), (50, 14)]])
    assert few.metrics["mre_px"].low == 0.5
    assert few.metrics["mre_px"].high == 2.0
    assert few.metrics["max_px"].low is None
    assert any("2 subjects" in note for note in few.notes)


DISTANCE = {
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
    "grades": [{"name": "size", "edges": [20.0, 30.0], "labels": ["small", "middle", "large"], "source": "test"}],
}


def test_measurements_agree_or_not() -> None:
    # 0.5 mm: the labels measure 20 mm (middle); predictions 22 (middle), 18 (small), 35 (large).
    cases = [_case(str(i), spacing=(0.5, 0.5)) for i in range(3)]
    found = _run(cases, [[(10, 10), (10 + 2 * mm, 10)] for mm in (22, 18, 35)], _schema(**DISTANCE))
    values = _values(found)
    assert values["width_mae"] == pytest.approx((2 + 2 + 15) / 3)
    assert values["width_bias"] == pytest.approx((2 - 2 + 15) / 3)
    assert values["width_grade_accuracy"] == pytest.approx(100 / 3)
    assert "width_worst_grade_accuracy" not in values
    (row,) = found.agreements
    assert (row.name, row.level, row.unit, row.failed) == ("width", None, "mm", 0)
    assert row.grade_accuracy is not None
    assert row.grade_accuracy.n == 3


def test_a_measurement_that_the_model_does_not_give_counts_as_wrong() -> None:
    cases = [_case(str(i), spacing=(0.5, 0.5)) for i in range(2)]
    predictions = [_predict(case, [(10, 10), (50, 10)], presence) for case, presence in zip(cases, ([1, 1], [1, 0.1]))]
    settings = EvaluationSettings(draws=100, presence_threshold=0.5)
    found = evaluate_predictions(_schema(**DISTANCE), cases, predictions, settings, name="run")
    (row,) = found.agreements
    assert row.failed == 1
    assert row.mae.value == 0
    assert row.mae.n == 1
    assert row.grade_accuracy is not None
    assert row.grade_accuracy.value == 50


def test_an_image_that_could_not_be_predicted_counts_as_wrong() -> None:
    cases = [_case(str(i), spacing=(0.5, 0.5)) for i in range(2)]
    predictions = [_predict(cases[0], [(10, 10), (50, 10)])]
    grouped = [one | {"group": "widths"} for one in DISTANCE["measurements"]]
    schema = _schema(**DISTANCE | {"measurements": grouped})
    found = evaluate_predictions(schema, cases, predictions, EvaluationSettings(draws=100), name="run")
    (row,) = found.agreements
    assert (row.failed, row.mae.value, row.mae.n) == (1, 0, 1)
    assert row.grade_accuracy is not None
    assert row.grade_accuracy.value == 50
    # The most that a symmetric percentage can be, as for an image on which it was not found.
    assert found.metrics["widths_smape"].value == 50


def test_lengths_without_spacing_are_not_averaged_with_millimetres() -> None:
    cases = [_case("1", spacing=(0.5, 0.5)), _case("2", spacing=(0.5, 0.5)), _case("3")]
    found = _run(cases, [[(10, 10), (54, 10)]] * 3, _schema(**DISTANCE))
    (row,) = found.agreements
    assert (row.unit, row.mae.value, row.mae.n) == ("mm", 2.0, 2)
    assert any("1 of 3 places are not in mm" in note for note in found.notes)


CHAIN = {
    "name": "column",
    "title": "Column",
    "chains": [{"name": "spine", "levels": ["L1", "L2"], "parts": {"p": "P", "q": "Q"}}],
    "measurements": [
        {
            "name": "height",
            "label": "Height",
            "primitive": "distance",
            "points": {"a": "{level}_p", "b": "{level}_q"},
            "along": "spine",
            "unit": "mm",
            "grade": "size",
        }
    ],
    "grades": DISTANCE["grades"],
}


def test_along_a_chain_there_is_a_row_a_level_and_the_highest_grade() -> None:
    schema = schema_from_dict(CHAIN, where="test")

    def heights(first: float, second: float) -> list[tuple[float, float]]:
        return [(10, 10), (10 + first, 10), (10, 50), (10 + second, 50)]

    cases = [_case(str(i), heights(25, 15), spacing=(1, 1)) for i in range(2)]
    # First image: the grades middle and small come out swapped, the highest is still right. Second: both too large.
    found = _run(cases, [heights(15, 25), heights(35, 15)], schema)
    rows = {row.level: row for row in found.agreements}
    assert list(rows) == [None, "L1", "L2"]
    assert rows[None].mae.value == pytest.approx((10 + 10 + 10 + 0) / 4)
    assert rows["L1"].mae.value == pytest.approx(10)
    assert rows["L1"].bias.value == pytest.approx(0)
    assert rows["L2"].grade_accuracy is not None
    assert rows["L2"].grade_accuracy.value == 50
    assert found.metrics["height_grade_accuracy"].value == 25
    assert found.metrics["height_worst_grade_accuracy"].value == 50
    assert found.metrics["height_worst_grade_accuracy"].n == 2


def test_the_human_line_is_the_second_reader_against_the_labels() -> None:
    labels = ((10, 10), (50, 10))
    junior = LandmarkSet([[13, 14], [0, 0]], [Status.VISIBLE, Status.UNLABELLED])
    cases = [
        _case("1", labels, observers={"senior": LandmarkSet(labels), "junior": junior}),
        _case("2", labels, observers={"senior": LandmarkSet(labels), "junior": LandmarkSet([[10, 10], [50, 10]])}),
    ]
    found = _run(cases, [[(10, 10), (50, 10)]] * 2)
    assert found.human["mre_px"].value == pytest.approx(5 / 3)
    assert found.human["mre_px"].n == 3
    assert found.human["sdr_2px"].value == pytest.approx(200 / 3)
    assert any("reader 'junior'" in note for note in found.notes)
    assert _run(cases, [[(10, 10), (50, 10)]] * 2, observer="senior").human["mre_px"].value == 0
    assert _run(cases, [[(10, 10), (50, 10)]] * 2, observer="nobody").human == {}
    assert _run([_case("1")], [[(10, 10), (50, 10)]]).human == {}


def test_the_literature_s_millimetres_are_kept_apart() -> None:
    schema = _schema(reference_length=["a", "b", 20.0])  # 40 px are 20 mm
    found = _run([_case("1")], [[(14, 10), (50, 10)]], schema, reference_length=True)
    assert found.metrics["mre_mm_ref"].value == pytest.approx(1.0)
    assert found.metrics["sdr_2mm_ref"].value == 100
    assert "mre_mm" not in found.metrics
    assert any("convention" in note for note in found.notes)
    assert "mre_mm_ref" not in _run([_case("1")], [[(14, 10), (50, 10)]], schema).metrics
    with pytest.raises(ConfigError, match="no reference length"):
        _run([_case("1")], [[(14, 10), (50, 10)]], reference_length=True)


def test_what_cannot_be_scored_is_refused() -> None:
    case, right = _case("1"), [(10, 10), (50, 10)]
    with pytest.raises(InputError, match="nothing to score"):
        evaluate_predictions(_schema(), [case], [_predict(_case("other"), right)], name="run")
    with pytest.raises(InputError, match="two predictions"):
        evaluate_predictions(_schema(), [case], [_predict(case, right)] * 2, name="run")
    with pytest.raises(InputError, match="expected 2 landmarks, got 3"):
        evaluate_predictions(_schema(), [case], [_predict(case, [*right, (0, 0)])], name="run")
    small = _case("1", shape=(50, 100))
    with pytest.raises(InputError, match="another size"):
        evaluate_predictions(_schema(), [case], [_predict(small, right)], name="run")


def test_cases_without_labels_and_foreign_predictions_are_noted() -> None:
    case = _case("1")
    bare = Case("2", "2", ArrayImage(np.zeros((100, 200))), Frame((100, 200)))
    predictions = [_predict(c, [(10, 10), (50, 10)]) for c in (case, bare, _case("x"))]
    found = evaluate_predictions(_schema(), [case, bare], predictions, EvaluationSettings(draws=100), name="run")
    assert "1 images have no labels and were not scored." in found.notes
    assert "1 predictions belong to no image here and were left out." in found.notes


def test_predictions_are_measured_in_the_case_s_own_spacing() -> None:
    case = _case("1", spacing=(0.5, 0.5))
    bare = _predict(_case("1"), [(10, 10), (54, 10)])  # predicted from a file that carries no spacing
    found = evaluate_predictions(_schema(**DISTANCE), [case], [bare], EvaluationSettings(draws=100), name="run")
    assert found.metrics["width_mae"].value == pytest.approx(2.0)
    assert found.agreements[0].failed == 0
