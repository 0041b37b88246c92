"""Decisions at a threshold: against scipy, by hand, resampled, and in words."""

import numpy as np
import pytest
from scipy import stats

from bregma.errors import SchemaError
from bregma.evaluation import evaluate_predictions
from bregma.evaluation.decisions import decision_figures
from bregma.evaluation.settings import EvaluationSettings
from bregma.geometry import Frame
from bregma.metrics import roc_points
from bregma.report import write_report
from bregma.report.words import metric_words
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, Prediction, Value

LOW = {"name": "low", "label": "80 or less", "at_most": 80.0, "sensitivity": 0.75}
HIGH = {"name": "high", "label": "120 or more", "at_least": 120.0}
PEOPLE = {"name": "women of 20 to 29", "mean": 150.0, "sd": 28.0, "source": "made up"}


def schema_of(*thresholds, **quantity):
    bmd = {"name": "bmd", "label": "Density", "unit": "mg/cm3", "thresholds": list(thresholds), **quantity}
    return schema_from_dict({"name": "bone", "title": "Bone", "quantities": [bmd]}, where="trial")


def figures(predicted, true, *thresholds, subject=None, subjects=None, weights=None, **quantity):
    own = np.arange(len(true)) if subject is None else subject
    count = (len(true) if subjects is None else subjects) or 1
    weights = np.ones((1, count)) if weights is None else np.asarray(weights, float)[None]
    found = decision_figures(schema_of(*thresholds, **quantity).quantities[0], predicted, true, own, count)
    return {name: float(figure.statistic(weights)[0]) for name, figure in found.items()}


def test_worked_by_hand():
    #                 sought              not sought
    true = np.array([60.0, 70, 75, 80, 81, 90, 100, 130])
    predicted = np.array([50.0, 85, 78, 95, 82, 79, 110, 120])
    found = figures(predicted, true, LOW)
    # Of 16 pairs 12 are in order: 50 before all four, 78 before all four, 85 and 95 before 110 and 120.
    assert found == pytest.approx(
        {
            "low_auc": 12 / 16,
            "low_sensitivity": 50.0,
            "low_specificity": 75.0,
            "low_cutoff": 85.0,
            "low_specificity_at_cutoff": 50.0,
        }
    )


def test_what_lies_above_is_looked_for_likewise():
    true = np.array([119.0, 120, 140, 90, 100])
    predicted = np.array([110.0, 125, 105, 80, 90])
    found = figures(predicted, true, HIGH)
    assert found["high_auc"] == pytest.approx(5 / 6)
    assert found["high_sensitivity"] == 50.0
    assert found["high_specificity"] == 100.0
    assert found["high_cutoff"] == 105.0
    assert found["high_specificity_at_cutoff"] == pytest.approx(200 / 3)


def test_a_t_score_is_counted_from_its_population():
    osteoporosis = {"name": "low", "label": "T-score", "at_most": -2.5, "of": "t_score", "sensitivity": 0.75}
    true, predicted = np.array([79.9, 80.0, 80.1, 120]), np.array([70.0, 81, 79, 100])
    as_value = figures(predicted, true, LOW)
    assert figures(predicted, true, osteoporosis, t_score=PEOPLE) == pytest.approx(as_value)
    assert as_value["low_sensitivity"] == 50.0


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_that_of_mann_and_whitney_with_ties(seed):
    rng = np.random.default_rng(seed)
    true = rng.normal(90, 20, 60)
    predicted = np.round(true + rng.normal(0, 25, 60), -1)
    sought = true <= 80
    u = stats.mannwhitneyu(-predicted[sought], -predicted[~sought]).statistic
    assert figures(predicted, true, LOW)["low_auc"] == pytest.approx(u / (sought.sum() * (~sought).sum()))
    false_rate, true_rate = roc_points(-predicted, sought)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(figures(predicted, true, LOW)["low_auc"])
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("threshold", [LOW, HIGH])
def test_a_resample_is_as_if_its_subjects_were_there_so_often(threshold):
    rng = np.random.default_rng(3)
    true = rng.normal(100, 25, 60)
    predicted = np.round(true + rng.normal(0, 20, 60))
    subject = np.repeat(np.arange(30), 2)
    counts = rng.integers(0, 4, 30)
    rows = np.repeat(np.arange(60), counts[subject])
    resampled = figures(predicted, true, threshold, subject=subject, subjects=30, weights=counts)
    assert resampled == pytest.approx(figures(predicted[rows], true[rows], threshold))


@pytest.mark.parametrize(
    ("true", "known"),
    [
        ([100.0, 110, 120], {"low_specificity"}),
        ([60.0, 70, 50], {"low_sensitivity", "low_cutoff"}),
        ([], set()),
        ([np.nan], set()),
    ],
)
def test_with_one_side_empty_there_is_nothing_to_tell(true, known):
    found = figures(np.full(len(true), 90.0), np.array(true), LOW)
    assert {name for name, value in found.items() if np.isfinite(value)} == known


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        ({"name": "a", "label": "b"}, "needs one of at_most and at_least"),
        ({**LOW, "at_least": 3.0}, "needs one of at_most and at_least"),
        ({**LOW, "of": "t_score"}, "declares no population"),
        ({**LOW, "sensitivity": 1.0}, "less than 1"),
        ({**LOW, "at_most": float("nan")}, "finite"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(threshold, words):
    with pytest.raises(SchemaError, match=words):
        schema_of(threshold)


def test_two_of_one_name_are_refused():
    with pytest.raises(SchemaError, match="two thresholds"):
        schema_of(LOW, LOW)


def evaluated(true, predicted, *thresholds):
    schema = schema_of(*thresholds)
    frame, none = Frame((8, 8)), (np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(0))
    image = ArrayImage(np.zeros((8, 8), np.uint8))
    cases = [Case(str(i), str(i), image, frame, targets={"bmd": value}) for i, value in enumerate(true)]
    values = [{"bmd": Value(value, None, "mg/cm3")} for value in predicted]
    predictions = [Prediction(str(i), *none, frame, "net", values=own) for i, own in enumerate(values)]
    return evaluate_predictions(schema, cases, predictions, EvaluationSettings(draws=200), name="trial")


def written(found, folder):
    write_report(folder / "report.html", found)
    return (folder / "report.html").read_text()


def test_a_report_tells_them_with_intervals_and_draws_the_curve(tmp_path):
    rng = np.random.default_rng(0)
    true = rng.normal(100, 25, 40)
    found = evaluated(true, true + rng.normal(0, 15, 40), LOW, HIGH)
    auc = found.metrics["bmd_low_auc"]
    assert auc.low < auc.value < auc.high
    assert metric_words("bmd_low_auc", found.schema) == "Density, 80 or less: area under the ROC curve (AUC)"
    assert metric_words("bmd_low_cutoff", found.schema).endswith("at which the sensitivity is 75 %")
    assert any("chosen on these very images" in note for note in found.notes)
    page = written(found, tmp_path)
    assert page.count("ROC curve of predicted Density") == 2
    assert "Density, 120 or more: specificity of the threshold on predicted values" in page


def test_a_report_says_where_there_is_no_curve(tmp_path):
    true = np.linspace(90, 110, 12)
    found = evaluated(true, true + 1, LOW)
    assert found.metrics["bmd_low_auc"].value is None
    assert any("all true values lie on one side" in note for note in found.notes)
    assert not any("chosen on these very images" in note for note in found.notes)
    assert "ROC curve of" not in written(found, tmp_path)
