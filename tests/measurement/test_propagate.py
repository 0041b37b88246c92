from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bregma.errors import ConfigError, InputError, SchemaError
from bregma.geometry import Frame
from bregma.measurement import check_measurements, measure, measure_landmarks, measure_prediction
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import LandmarkSet, Measurement, Prediction

PX = Frame((100, 100))
MM = Frame((100, 100), (0.5, 0.5), "user")
ANISOTROPIC = Frame((100, 100), (0.5, 2.0), "user")


def schema_of(*measurements: dict[str, Any], grades: tuple[dict[str, Any], ...] = ()) -> LandmarkSchema:
    landmarks = [{"name": name, "label": name} for name in "abcd"]
    data = {"name": "toy", "title": "toy", "landmarks": landmarks, "measurements": measurements, "grades": grades}
    return schema_from_dict(data, where="toy")


def spec(name: str, primitive: str, unit: str, roles: str = "a b", **more: Any) -> dict[str, Any]:
    points = dict(pair.split("=") if "=" in pair else (pair, pair) for pair in roles.split())
    return {"name": name, "label": name, "primitive": primitive, "unit": unit, "points": points, **more}


LENGTH = spec("length", "distance", "mm")
WIDTH = spec("width", "horizontal_width", "mm")
RATIO = spec("ratio", "distance_ratio", "%", "a b c d")
CORNER = spec("corner", "vertex_angle", "deg", "a vertex=b b=c")
AREA = spec("area", "quadrilateral_area", "mm2", "a b c d")
POINTS = np.array([[10.0, 10.0], [40.0, 50.0], [0.0, 20.0], [20.0, 20.0]])


def one(schema: LandmarkSchema, *args: Any, **kwargs: Any) -> Measurement:
    (result,) = measure(schema, *args, **kwargs)
    return result


class TestUnits:
    def test_a_length_is_in_mm_where_the_frame_has_a_spacing(self) -> None:
        result = one(schema_of(LENGTH), POINTS, MM)
        assert (result.value, result.unit, result.status, result.reason) == (25.0, "mm", "ok", "")

    def test_a_length_is_in_px_and_says_why_where_it_has_none(self) -> None:
        frame = Frame((100, 100), spacing_note="the header says 0\\0")
        result = one(schema_of(LENGTH), POINTS, frame)
        assert (result.value, result.unit, result.status) == (50.0, "px", "no_spacing")
        assert "no trusted spacing" in result.reason
        assert "0\\0" in result.reason

    def test_an_area_falls_back_to_square_pixels(self) -> None:
        square = np.array([[0.0, 0.0], [10, 0], [10, 10], [0, 10]])
        assert one(schema_of(AREA), square, MM).value == pytest.approx(25.0)
        result = one(schema_of(AREA), square, PX)
        assert (result.value, result.unit, result.status) == (100.0, "px2", "no_spacing")

    def test_ratios_and_angles_need_no_spacing(self) -> None:
        # |ab| = 50, |cd| = 20.
        result = one(schema_of(RATIO), POINTS, PX)
        assert (result.value, result.unit, result.status) == (250.0, "%", "ok")
        assert one(schema_of(CORNER), POINTS, PX).status == "ok"

    def test_anisotropic_spacing_changes_lengths_ratios_and_angles(self) -> None:
        # a to b is (30, 40) px, (15, 80) mm; c to d is (20, 0) px, (10, 0) mm.
        length = math.hypot(15, 80)
        assert one(schema_of(LENGTH), POINTS, ANISOTROPIC).value == pytest.approx(length)
        assert one(schema_of(WIDTH), POINTS, ANISOTROPIC).value == pytest.approx(15.0)
        assert one(schema_of(RATIO), POINTS, ANISOTROPIC).value == pytest.approx(10 * length)
        points = np.array([[0.0, 0.0], [10, 0], [0, 10], [0, 0]])
        # At b: to a is (-5, 0) mm, to c is (-5, 20) mm.
        assert one(schema_of(CORNER), points, ANISOTROPIC).value == pytest.approx(math.degrees(math.atan2(20, 5)))

    def test_a_grade_in_mm_is_not_given_for_pixels(self) -> None:
        scale = {"name": "size", "edges": [10], "labels": ["small", "large"], "source": "test"}
        schema = schema_of({**LENGTH, "grade": "size"}, grades=(scale,))
        assert one(schema, POINTS, MM).grade == "large"
        result = one(schema, POINTS, PX, cov=np.tile(np.eye(2), (4, 1, 1)))
        assert (result.grade, result.grade_probabilities) == (None, None)


class TestStatus:
    def test_a_missing_landmark_is_named(self) -> None:
        result = one(schema_of(LENGTH), POINTS, MM, present=[True, False, True, True])
        assert (result.value, result.status, result.interval) == (None, "missing_landmark", None)
        assert result.reason.startswith("b ")
        assert result.uses == ("a", "b")

    def test_absent_positions_may_be_anything(self) -> None:
        points = POINTS.copy()
        points[2] = np.nan
        cov = np.tile(np.eye(2), (4, 1, 1))
        cov[2] = np.nan
        results = measure(schema_of(LENGTH, RATIO), points, MM, present=[1, 1, 0, 1], cov=cov, calibrated=True)
        assert [result.status for result in results] == ["ok", "missing_landmark"]

    def test_points_that_coincide_are_referred(self) -> None:
        points = POINTS.copy()
        points[3] = points[2]
        result = one(schema_of(RATIO), points, MM, cov=np.tile(np.eye(2), (4, 1, 1)))
        assert (result.value, result.status, result.interval) == (None, "refer", None)
        assert "coincide" in result.reason

    def test_samples_that_coincide_are_referred_without_an_interval(self) -> None:
        samples = np.tile(POINTS, (100, 1, 1))
        samples[7, 3] = samples[7, 2]
        result = one(schema_of(RATIO), POINTS, MM, samples=samples, calibrated=True)
        assert (result.value, result.status, result.interval) == (250.0, "refer", None)
        assert "1 of 100" in result.reason

    def test_labels_have_no_interval_and_are_ok(self) -> None:
        marks = LandmarkSet(POINTS, [0, 1, 2, 3])
        results = measure_landmarks(schema_of(LENGTH, RATIO), marks, MM)
        assert [(r.status, r.interval) for r in results] == [("ok", None), ("missing_landmark", None)]
        assert results[1].reason.startswith("c, d ")

    def test_an_interval_without_calibration_says_so(self) -> None:
        cov = np.tile(np.eye(2), (4, 1, 1))
        result = one(schema_of(RATIO), POINTS, MM, cov=cov)
        assert result.status == "uncalibrated"
        assert result.value is not None
        assert result.interval is not None
        assert "not calibrated" in result.reason
        assert one(schema_of(RATIO), POINTS, MM, cov=cov, calibrated=True).status == "ok"

    def test_no_spacing_goes_before_uncalibrated_and_both_are_said(self) -> None:
        result = one(schema_of(LENGTH), POINTS, PX, cov=np.tile(np.eye(2), (4, 1, 1)))
        assert result.status == "no_spacing"
        assert "not calibrated" in result.reason


class TestSpread:
    def test_interval_agrees_with_the_linear_gaussian(self) -> None:
        """The width b.x - a.x is linear: its variance is the sum of the x variances, in mm²."""
        cov = np.tile(np.diag([4.0, 100.0]), (4, 1, 1))
        cov[1, 0, 0] = 5.0
        points = POINTS.copy()
        points[1, 0] = 60.0
        result = one(schema_of(WIDTH), points, MM, cov=cov, draws=200_000, calibrated=True)
        assert result.interval is not None
        low, high = result.interval
        sigma = 0.5 * 3.0
        # The standard error of a 2.5 % quantile of 200 000 draws is 2.67 sigma / sqrt(200 000) = 0.009 mm.
        assert low == pytest.approx(25 - 1.959964 * sigma, abs=0.04)
        assert high == pytest.approx(25 + 1.959964 * sigma, abs=0.04)
        assert result.interval_level == 0.95

    def test_correlated_axes_reach_the_measurement(self) -> None:
        """Along (3, 4) / 5 the variance of a covariance S is u' S u = 9.64."""
        cov = np.zeros((4, 2, 2))
        cov[1] = [[9.0, 3.0], [3.0, 5.5]]
        points = POINTS.copy()
        points[1] = [10 + 3000, 10 + 4000]
        along = 0.36 * 9 + 0.64 * 5.5 + 2 * 0.48 * 3
        result = one(schema_of(LENGTH), points, PX, cov=cov, draws=100_000, level=0.682689492)
        assert result.interval is not None
        assert (result.interval[1] - result.interval[0]) / 2 == pytest.approx(math.sqrt(along), rel=0.01)

    def test_samples_keep_what_landmarks_have_in_common(self) -> None:
        """Points that move together change no length; the same covariances, drawn independently, would."""
        moves = np.random.default_rng(0).normal(0, 10, (200, 1, 2))
        result = one(schema_of(LENGTH), POINTS, MM, samples=POINTS + moves, calibrated=True)
        assert result.interval == pytest.approx((25.0, 25.0), abs=1e-9)

    def test_no_spread_gives_an_interval_of_no_width(self) -> None:
        result = one(schema_of(LENGTH), POINTS, MM, cov=np.zeros((4, 2, 2)), calibrated=True)
        assert result.interval == (25.0, 25.0)

    def test_a_lower_level_gives_a_narrower_interval(self) -> None:
        cov = np.tile(np.eye(2), (4, 1, 1))
        widths = [
            np.ptp(one(schema_of(LENGTH), POINTS, MM, cov=cov, level=level).interval) for level in (0.5, 0.9, 0.95)
        ]
        assert widths[0] < widths[1] < widths[2]

    def test_the_seed_decides_and_absent_landmarks_do_not_disturb_it(self) -> None:
        cov = np.tile(np.eye(2), (4, 1, 1))
        first = one(schema_of(LENGTH), POINTS, MM, cov=cov, seed=4)
        assert first == one(schema_of(LENGTH), POINTS, MM, cov=cov, seed=4)
        assert first == one(schema_of(LENGTH), POINTS, MM, cov=cov, seed=4, present=[1, 1, 0, 0])
        assert first.interval != one(schema_of(LENGTH), POINTS, MM, cov=cov, seed=5).interval

    def test_grade_probabilities_agree_with_the_normal_distribution(self) -> None:
        """A width of N(50, 2²) px and an edge at 52 px: one standard deviation, 84.13 % below."""
        scale = {"name": "size", "edges": [26], "labels": ["small", "large"], "source": "test"}
        schema = schema_of({**WIDTH, "grade": "size"}, grades=(scale,))
        points = POINTS.copy()
        points[1, 0] = 60.0
        cov = np.tile(np.diag([2.0, 0.0]), (4, 1, 1))
        result = one(schema, points, MM, cov=cov, draws=100_000, calibrated=True)
        assert result.grade == "small"
        assert result.grade_probabilities is not None
        assert result.grade_probabilities["small"] == pytest.approx(0.8413, abs=0.005)
        assert sum(result.grade_probabilities.values()) == pytest.approx(1.0)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_spread_is_in_mm(self, seed: int) -> None:
        """Measuring in px of twice the size at half the spacing gives the same interval."""
        cov = np.tile(np.eye(2), (4, 1, 1))
        fine = Frame((200, 200), (0.25, 0.25), "user")
        coarse = one(schema_of(LENGTH), POINTS, MM, cov=cov, seed=seed)
        refined = one(schema_of(LENGTH), 2 * POINTS, fine, cov=4 * cov, seed=seed)
        assert refined.interval == pytest.approx(coarse.interval, rel=1e-9)


class TestPrediction:
    def prediction(self, **changes: Any) -> Prediction:
        values: dict[str, Any] = {
            "case_id": "x",
            "mean": POINTS,
            "cov": np.tile(np.eye(2), (4, 1, 1)),
            "presence": np.array([0.9, 0.5, 0.49, 1.0]),
            "frame": MM,
        }
        return Prediction(**{**values, **changes})

    def test_presence_decides_what_is_missing(self) -> None:
        schema = schema_of(LENGTH, RATIO)
        assert [r.value is None for r in measure_prediction(schema, self.prediction())] == [False, True]
        assert [r.value is None for r in measure_prediction(schema, self.prediction(), presence_threshold=0.4)] == [
            False,
            False,
        ]
        assert measure_prediction(schema, self.prediction(), presence_threshold=0.95)[0].reason.startswith("a, b ")

    def test_calibration_is_taken_from_the_prediction(self) -> None:
        schema = schema_of(LENGTH)
        assert measure_prediction(schema, self.prediction())[0].status == "uncalibrated"
        assert measure_prediction(schema, self.prediction(calibration="scale 1.3"))[0].status == "ok"

    def test_samples_are_used_only_where_nothing_is_calibrated_and_there_are_enough(self) -> None:
        schema = schema_of(LENGTH)
        frozen = np.tile(POINTS, (40, 1, 1))
        still = measure_prediction(schema, self.prediction(samples=frozen))[0]
        assert still.interval == (25.0, 25.0)
        for changes in ({"samples": frozen[:39]}, {"samples": frozen, "calibration": "scale 1.3"}):
            interval = measure_prediction(schema, self.prediction(**changes))[0].interval
            assert interval is not None
            assert interval[1] - interval[0] > 1.0

    def test_what_rests_on_a_flagged_landmark_is_referred_with_its_value(self) -> None:
        schema = schema_of(LENGTH)
        plain = measure_prediction(schema, self.prediction(calibration="scale 1.3"))[0]
        flagged = self.prediction(calibration="scale 1.3", flags=("", "7.0 standard deviations away", "", ""))
        found = measure_prediction(schema, flagged)[0]
        assert (found.status, found.reason) == ("refer", "b is doubtful: 7.0 standard deviations away")
        assert (found.value, found.interval) == (plain.value, plain.interval)

    def test_a_flag_on_another_landmark_changes_nothing(self) -> None:
        found = measure_prediction(schema_of(LENGTH), self.prediction(calibration="x", flags=("", "", "", "why")))[0]
        assert found.status == "ok"

    def test_a_flag_goes_before_the_lack_of_calibration_and_both_are_said(self) -> None:
        found = measure_prediction(schema_of(LENGTH), self.prediction(flags=("far off", "", "", "")))[0]
        assert found.status == "refer"
        assert found.reason.startswith("a is doubtful: far off; ")
        assert "not calibrated" in found.reason

    def test_a_threshold_outside_its_range_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="presence_threshold"):
            measure_prediction(schema_of(LENGTH), self.prediction(), presence_threshold=1.5)


class TestFaults:
    def test_points_of_another_schema(self) -> None:
        with pytest.raises(SchemaError, match=r"expected \(4, 2\), got \(3, 2\)"):
            measure(schema_of(LENGTH), POINTS[:3], MM)

    def test_presence_of_another_length(self) -> None:
        with pytest.raises(SchemaError, match="presence"):
            measure(schema_of(LENGTH), POINTS, MM, present=[True])

    def test_a_present_landmark_without_a_position(self) -> None:
        points = POINTS.copy()
        points[1, 0] = np.nan
        with pytest.raises(InputError, match="'b'"):
            measure(schema_of(LENGTH), points, MM)

    @pytest.mark.parametrize(
        "cov",
        [
            np.tile(np.eye(2), (3, 1, 1)),
            np.tile([[1.0, 0.9], [0.1, 1.0]], (4, 1, 1)),
            np.tile([[1.0, 2.0], [2.0, 1.0]], (4, 1, 1)),
            np.full((4, 2, 2), np.nan),
        ],
        ids=["shape", "not symmetric", "negative variance", "not finite"],
    )
    def test_covariances_that_are_none(self, cov: np.ndarray) -> None:
        with pytest.raises(InputError, match="covariance"):
            measure(schema_of(LENGTH), POINTS, MM, cov=cov)

    @pytest.mark.parametrize(
        "samples",
        [np.zeros((39, 4, 2)), np.zeros((100, 3, 2)), np.zeros((4, 2)), np.full((100, 4, 2), np.nan)],
        ids=["too few", "landmarks", "axes", "not finite"],
    )
    def test_samples_that_cannot_be_used(self, samples: np.ndarray) -> None:
        with pytest.raises(InputError, match="samples"):
            measure(schema_of(LENGTH), POINTS, MM, samples=samples)

    @pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
    def test_a_level_outside_its_range(self, level: float) -> None:
        with pytest.raises(ConfigError, match="level"):
            measure(schema_of(LENGTH), POINTS, MM, level=level)

    def test_too_few_draws_for_the_level(self) -> None:
        measure(schema_of(LENGTH), POINTS, MM, level=0.99, draws=200)
        with pytest.raises(ConfigError, match="at least 200"):
            measure(schema_of(LENGTH), POINTS, MM, level=0.99, draws=199)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (spec("m", "volume", "mm"), "no primitive 'volume'"),
            (spec("m", "distance", "mm", "a c"), "expected a, b, got a, c"),
            (spec("m", "distance", "mm", "a b c"), "expected a, b, got a, b, c"),
            (spec("m", "distance", "deg"), "expected a unit of 'mm', got 'deg'"),
            (spec("m", "distance_ratio", "mm", "a b c d"), "expected a unit of '1', '%', got 'mm'"),
        ],
    )
    def test_a_measurement_that_its_primitive_cannot_make(self, bad: dict[str, Any], message: str) -> None:
        with pytest.raises(SchemaError, match=message):
            check_measurements(schema_of(bad))
        with pytest.raises(SchemaError, match="measurement 'm'"):
            measure(schema_of(bad), POINTS, MM)


class TestSlip:
    """Slip on the shipped schema: its sign does not depend on the side to which the spine faces."""

    SCHEMA = load_schema("lumbar_lateral")

    def stack(self, forward: float, facing: int) -> np.ndarray:
        """L4 lies ``forward`` px before the others, which are 40 px deep; anterior is at ``facing`` * x."""
        points = np.zeros((len(self.SCHEMA), 2))
        for index, name in enumerate(self.SCHEMA.names):
            level, end, side = name.split("_")
            row = ("T12", "L1", "L2", "L3", "L4", "L5", "S1").index(level)
            depth = (40.0 if side == "ant" else 0.0) + (forward if level == "L4" else 0.0)
            points[index] = [100 + facing * depth, 40 * row + (0 if end == "sup" else 30)]
        return points

    @pytest.mark.parametrize("facing", [-1, 1])
    @settings(max_examples=20, deadline=None)
    @given(forward=st.floats(-60, 60))
    def test_sign_and_size(self, facing: int, forward: float) -> None:
        results = measure(self.SCHEMA, self.stack(forward, facing), Frame((400, 300)))
        slips = {r.level: r.value for r in results if r.name == "slip_percent"}
        assert slips["L4-L5"] == pytest.approx(100 * forward / 40, abs=1e-9)
        assert slips["L3-L4"] == pytest.approx(-100 * forward / 40, abs=1e-9)
        assert slips["T12-L1"] == pytest.approx(0, abs=1e-9)
