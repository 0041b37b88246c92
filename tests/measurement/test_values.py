"""Quantities of whole images as measurements: intervals, grades, T-scores, and lengths without a spacing."""

import numpy as np
import pytest
from scipy.stats import norm

from bregma.errors import InputError, SchemaError
from bregma.geometry import Frame
from bregma.measurement import measure_prediction, measure_targets
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, Prediction, Value

DATA = {
    "name": "bone",
    "title": "Bone",
    "quantities": [
        {
            "name": "bmd",
            "label": "Bone mineral density",
            "unit": "g/cm2",
            "grade": "density",
            "t_score": {"name": "women of 20 to 29", "mean": 1.0, "sd": 0.1, "source": "made up"},
        },
        {"name": "hc", "label": "Head circumference", "unit": "mm", "dimension": "length"},
    ],
    "grades": [{"name": "density", "edges": [0.75, 0.9], "labels": ["low", "reduced", "normal"], "source": "made up"}],
}
SCHEMA = schema_from_dict(DATA, where="here")
FRAME = Frame((10, 10), (1.0, 1.0), "user")


def measured(value, frame=FRAME, calibration="none"):
    empty = np.zeros((0, 2))
    one = Prediction("a", empty, np.zeros((0, 2, 2)), np.zeros(0), frame, calibration=calibration, values=value)
    assert Prediction.from_dict(one.to_dict()).values == one.values
    return {m.name: m for m in measure_prediction(SCHEMA, one)}


def test_an_interval_a_grade_and_a_score():
    found = measured({"bmd": Value(0.8, 0.05, "g/cm2")}, calibration="conformal")
    bmd, score = found["bmd"], found["bmd_t_score"]
    assert (bmd.value, bmd.status, bmd.grade) == (0.8, "ok", "reduced")
    assert bmd.interval == pytest.approx((0.8 - 1.96 * 0.05, 0.8 + 1.96 * 0.05), abs=1e-4)
    low, between = norm.cdf(-1), norm.cdf(2) - norm.cdf(-1)
    assert bmd.grade_probabilities == pytest.approx({"low": low, "reduced": between, "normal": 1 - low - between})
    assert score.value == pytest.approx(-2.0)
    assert score.interval == pytest.approx((-2.98, -1.02), abs=1e-3)
    assert "women of 20 to 29" in score.label


def test_an_interval_that_nobody_calibrated_says_so():
    assert measured({"bmd": Value(0.8, 0.05, "g/cm2")})["bmd"].status == "uncalibrated"
    assert measured({"bmd": Value(0.8, None, "g/cm2")})["bmd"].status == "ok"


def test_a_length_without_a_spacing_is_in_pixels_with_the_reason():
    hc = measured({"hc": Value(300.0, None, "px")}, Frame((10, 10), spacing_note="0 by 0 in the header"))["hc"]
    assert (hc.value, hc.unit, hc.status) == (300.0, "px", "no_spacing")
    assert "0 by 0" in hc.reason


def test_what_is_known_of_a_case():
    case = Case("a", "a", ArrayImage(np.zeros((10, 10))), FRAME, targets={"bmd": 0.6, "age": 70.0})
    assert {m.name: (m.value, m.grade) for m in measure_targets(SCHEMA, case)} == {
        "bmd": (0.6, "low"),
        "bmd_t_score": (pytest.approx(-4.0), None),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grade": "weight"}, "uses the grade 'weight'"),
        ({"dimension": "length"}, "so its unit is mm"),
        ({"name": "hc"}, "another quantity 'hc'"),
    ],
)
def test_a_wrong_declaration_is_refused(change, words):
    first, *rest = DATA["quantities"]
    with pytest.raises(SchemaError, match=words):
        schema_from_dict({**DATA, "quantities": [{**first, **change}, *rest]}, where="here")


@pytest.mark.parametrize(("mean", "sd"), [(float("nan"), None), (1.0, -1.0), (1.0, float("inf"))])
def test_a_value_is_a_number(mean, sd):
    with pytest.raises(InputError):
        Value(mean, sd, "mm")
