"""Intervals from residuals of other subjects: how many hold the truth, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bregma.bundle import Bundle, ModelConfig, build_model
from bregma.conformal import Conformal, conformal
from bregma.errors import InputError
from bregma.geometry import Frame
from bregma.measurement import measure_prediction
from bregma.prediction.predictor import mixture, with_intervals
from bregma.schema import schema_from_dict
from bregma.types import Prediction, Value

SCHEMA = schema_from_dict(
    {
        "name": "q",
        "title": "q",
        "landmarks": [],
        "quantities": [
            {"name": "density", "label": "Density", "unit": "1", "grade": "low", "source": "test"},
            {"name": "length", "label": "Length", "unit": "mm", "dimension": "length", "source": "test"},
        ],
        "grades": [{"name": "low", "edges": [10.0], "labels": ["low", "usual"], "source": "test"}],
    },
    where="tests",
)


def people(count: int) -> list[str]:
    return [str(i) for i in range(count)]


class TestHalfWidth:
    def test_counts_one_more_subject_than_are_known(self) -> None:
        """Of 19, the largest residual; of 39, the 38th smallest; of 99, the 95th."""
        for count, expected in ((19, 19), (39, 38), (99, 95)):
            known = conformal(np.arange(1.0, count + 1), people(count), "test")
            assert known.half_width() == expected
        assert conformal(np.arange(18.0), people(18), "test").half_width() is None
        assert conformal(np.arange(18.0), people(18), "test").half_width(0.9) == 17
        assert conformal([], [], "test").half_width() is None

    def test_a_subject_with_many_scans_counts_once(self) -> None:
        away = [*np.arange(1.0, 20.0), *[50.0] * 100]
        subjects = [*people(19), *["19"] * 100]
        assert conformal(away, subjects, "test").half_width(0.9) == 19
        assert conformal(away, subjects, "test").weights.sum() == pytest.approx(20)

    def test_holds_the_truth_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(0)
        held = []
        for _ in range(2000):
            away = rng.standard_t(3, 41)
            half = conformal(away[:40], people(40), "test").half_width()
            assert half is not None
            held.append(abs(away[40]) <= half)
        assert 0.94 < np.mean(held) < 0.975

    def test_what_is_not_known_is_left_out(self) -> None:
        known = conformal([np.nan, -3.0, 1.0], ["a", "b", "c"], "{n} subjects")
        assert known.residuals.tolist() == [3.0, 1.0]
        assert known.source == "2 subjects"
        again = Conformal.from_dict(known.to_dict())
        assert again.residuals.tolist() == known.residuals.tolist()
        with pytest.raises(InputError, match="residuals"):
            Conformal.from_dict({"residuals": [1.0]})
        with pytest.raises(InputError, match="residuals"):
            Conformal([1.0, -1.0], [1.0, 1.0], "test")


def bundle_of(**known: Conformal) -> Bundle:
    model = ModelConfig.model_validate(
        {"preprocess": {"size": [64, 64]}, "network": {"name": "simple_cnn"}, "codec": {"name": "scalar"}}
    )
    network, codec = build_model(model, SCHEMA)
    return Bundle("b", SCHEMA, model, network, codec, {}, conformal=known)


def prediction_of(frame: Frame, **values: Value) -> Prediction:
    return Prediction("1", np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(0), frame, values=values)


class TestPredictions:
    KNOWN = conformal(np.arange(1.0, 20.0), people(19), "test")

    def test_a_length_s_residuals_are_pixels_of_the_input(self) -> None:
        """128 px of 0.5 mm are seen in 64: a pixel of the input is 1 mm; without a spacing, 2 px."""
        bundle = bundle_of(density=self.KNOWN, length=self.KNOWN)
        given = {"density": Value(12.0, None, "1"), "length": Value(30.0, 2.0, "mm")}
        found = with_intervals(prediction_of(Frame((128, 128), (0.5, 0.5), "user"), **given), bundle)
        assert found.values["density"].half_width == 19
        assert found.values["length"].half_width == pytest.approx(19)
        bare = prediction_of(Frame((128, 128)), density=given["density"], length=Value(30.0, None, "px"))
        assert with_intervals(bare, bundle).values["length"].half_width == pytest.approx(38)
        assert Prediction.from_dict(found.to_dict()).values == found.values

    def test_measurements_have_the_interval_and_no_doubt_about_it(self) -> None:
        frame = Frame((128, 128), (0.5, 0.5), "user")
        given = {"density": Value(12.0, 3.0, "1"), "length": Value(30.0, None, "mm")}
        bundle = bundle_of(density=self.KNOWN)
        plain = {m.name: m for m in measure_prediction(SCHEMA, prediction_of(frame, **given))}
        found = {m.name: m for m in measure_prediction(SCHEMA, with_intervals(prediction_of(frame, **given), bundle))}
        assert plain["density"].status == "uncalibrated"
        assert plain["density"].grade_probabilities is not None
        assert found["density"].interval == (-7.0, 31.0)
        assert found["density"].interval_level == 0.95
        assert found["density"].status == "ok"
        assert found["density"].grade == "usual"
        assert found["density"].grade_probabilities is None
        assert found["length"].interval is None
        at_80 = measure_prediction(SCHEMA, with_intervals(prediction_of(frame, **given), bundle), level=0.8)
        assert at_80[0].status == "uncalibrated"

    def test_an_average_keeps_the_wider_interval_or_none(self) -> None:
        frame, one = Frame((128, 128)), Value(12.0, None, "1", 3.0)
        first, second = prediction_of(frame, density=one), prediction_of(frame, density=replace(one, half_width=5.0))
        assert mixture([first, second]).values["density"].half_width == 5
        third = prediction_of(frame, density=replace(one, half_width=None))
        assert mixture([first, third]).values["density"].half_width is None
