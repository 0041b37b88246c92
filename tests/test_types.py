"""The core values: what they refuse, and that JSON gives them back."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bregma.errors import InputError, LabelError, SchemaError, SplitError
from bregma.geometry import Frame
from bregma.schema import Code, schema_from_dict
from bregma.types import ArrayImage, Case, Dataset, ImageSource, LandmarkSet, Measurement, Prediction, Status

FRAME = Frame((20, 30), (0.5, 0.4), "sidecar")
SCHEMA = schema_from_dict(
    {"name": "two", "title": "t", "landmarks": [{"name": n, "label": n} for n in "ab"]}, where="test"
)
PROPERTY = settings(max_examples=50, deadline=None, derandomize=True)
finite = st.floats(-1e6, 1e6)


def through_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


def case(name="c", **changes):
    values = {"id": name, "subject": "s", "image": ArrayImage(np.zeros((20, 30), np.uint8)), "frame": FRAME}
    return Case(**{**values, **changes})


def prediction(**changes):
    values = {"case_id": "c", "mean": np.zeros((2, 2)), "cov": np.tile(np.eye(2), (2, 1, 1)), "presence": np.ones(2)}
    return Prediction(**{**values, "frame": FRAME, **changes})


class TestLandmarkSet:
    def test_states_without_a_position_hold_zero_and_never_nan(self):
        marks = LandmarkSet([[1.5, 2], [3, 4], [np.nan, 5], [7, np.inf]], [0, 1, 2, 3])
        assert marks.points.tolist() == [[1.5, 2], [3, 4], [0, 0], [0, 0]]
        assert marks.labelled.tolist() == [True, True, False, False]
        assert len(marks) == 4

    def test_all_are_visible_where_nothing_is_said(self):
        assert LandmarkSet([[1, 2], [3, 4]]).status.tolist() == [Status.VISIBLE] * 2

    def test_is_a_frozen_copy(self):
        mine = np.array([[1.0, 2.0]])
        marks = LandmarkSet(mine)
        mine[0, 0] = 99
        assert marks.points[0, 0] == 1.0
        with pytest.raises(ValueError, match="read-only"):
            marks.points[0, 0] = 5
        with pytest.raises(ValueError, match="read-only"):
            marks.status[0] = 1

    @pytest.mark.parametrize(
        ("points", "status", "word"),
        [
            ([1.0, 2.0], None, r"\(N, 2\)"),
            ([[1.0, 2.0, 3.0]], None, r"\(N, 2\)"),
            ([[1.0, 2.0]], [0, 0], "one status a landmark"),
            ([[1.0, 2.0]], [4], "unknown landmark status"),
            ([[1.0, 2.0]], [-1], "unknown landmark status"),
            ([[1.0, 2.0]], [0.5], "unknown landmark status"),
            ([[1.0, 2.0]], [256], "unknown landmark status"),
            ([[np.nan, 2.0]], [0], "landmark 0 .* no finite position"),
            ([[1.0, 2.0], [3.0, np.inf]], [0, 1], "landmark 1 .* no finite position"),
        ],
    )
    def test_refuses_what_cannot_be(self, points, status, word):
        with pytest.raises(LabelError, match=word):
            LandmarkSet(points, status)

    @PROPERTY
    @given(st.lists(st.tuples(finite, finite, st.sampled_from(list(Status))), max_size=6))
    def test_survives_json(self, rows):
        marks = LandmarkSet(np.array([row[:2] for row in rows]).reshape(-1, 2), [row[2] for row in rows])
        assert LandmarkSet.from_dict(through_json(marks.to_dict())) == marks

    def test_unknown_status_in_a_file_names_the_known(self):
        with pytest.raises(LabelError, match="visible, occluded, outside, unlabelled"):
            LandmarkSet.from_dict({"points": [[1, 2]], "status": ["hidden"]})

    def test_equality_looks_at_points_and_states(self):
        assert LandmarkSet([[1, 2]]) != LandmarkSet([[1, 3]])
        assert LandmarkSet([[1, 2]]) != LandmarkSet([[1, 2]], [1])
        assert LandmarkSet([[1, 2]]) != "something else"


class TestCase:
    @pytest.mark.parametrize("changes", [{"id": ""}, {"subject": ""}])
    def test_needs_id_and_subject(self, changes):
        with pytest.raises(LabelError, match="id and a subject"):
            case(**changes)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_targets_are_finite_and_the_case_is_named(self, value):
        with pytest.raises(LabelError, match=r"c9: the target 'hc_mm'"):
            case("c9", targets={"hc_mm": value})

    def test_array_image_is_a_source(self):
        image = ArrayImage(np.zeros((2, 3), np.uint16))
        assert isinstance(image, ImageSource)
        assert image.load().shape == (2, 3)
        assert repr(image) == "ArrayImage((2, 3), uint16)"


class TestDataset:
    def test_subjects_come_in_order_of_appearance(self):
        cases = (case("1", subject="b"), case("2", subject="a"), case("3", subject="b"))
        assert Dataset("d", SCHEMA, cases).subjects == ("b", "a")

    def test_ids_are_unique(self):
        with pytest.raises(LabelError, match="'1' occurs twice"):
            Dataset("d", SCHEMA, (case("1"), case("1")))

    @pytest.mark.parametrize("where", ["landmarks", "observers"])
    def test_labels_fit_the_schema(self, where):
        marks = LandmarkSet([[1, 2]])
        changes = {"landmarks": marks} if where == "landmarks" else {"observers": {"second": marks}}
        with pytest.raises(SchemaError, match=r"case 1.*expected 2 landmarks, got 1"):
            Dataset("d", SCHEMA, (case("1", **changes),))

    def test_select_keeps_the_given_order_and_names_strangers(self):
        data = Dataset("d", SCHEMA, (case("1"), case("2"), case("3")))
        assert [c.id for c in data.select(["3", "1"])] == ["3", "1"]
        with pytest.raises(SplitError, match="no case '9'"):
            data.select(["1", "9"])


class TestPrediction:
    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"mean": np.zeros((2, 3))}, "'mean' has the wrong shape"),
            ({"cov": np.zeros((2, 2))}, "'cov' has the wrong shape"),
            ({"cov": np.tile(np.eye(2), (3, 1, 1))}, "'cov' has the wrong shape"),
            ({"presence": np.ones(3)}, "'presence' has the wrong shape"),
            ({"mean": np.full((2, 2), np.nan)}, "'mean' is not finite"),
            ({"cov": np.full((2, 2, 2), np.inf)}, "'cov' is not finite"),
            ({"presence": np.array([0.5, 1.1])}, "outside 0 to 1"),
            ({"presence": np.array([-0.1, 1.0])}, "outside 0 to 1"),
            ({"samples": np.zeros((5, 3, 2))}, "'samples' has the wrong shape"),
            ({"samples": np.zeros((2, 2))}, "'samples' has the wrong shape"),
            ({"samples": np.full((5, 2, 2), np.nan)}, "'samples' is not finite"),
        ],
    )
    def test_refuses_what_cannot_be(self, changes, word):
        with pytest.raises(InputError, match=word):
            prediction(**changes)

    @pytest.mark.parametrize("samples", [None, np.arange(12.0).reshape(3, 2, 2)])
    def test_survives_json(self, samples):
        first = prediction(
            mean=[[1.25, 2], [3, 4]], presence=[0.5, 1], samples=samples, model="m 1", calibration="split"
        )
        again = Prediction.from_dict(through_json(first.to_dict()))
        for name in ("mean", "cov", "presence"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert (again.case_id, again.frame, again.model, again.calibration) == ("c", FRAME, "m 1", "split")
        if samples is None:
            assert again.samples is None
        else:
            np.testing.assert_array_equal(again.samples, samples)

    def test_arrays_are_frozen_copies(self):
        mean, draws = np.zeros((2, 2)), np.zeros((3, 2, 2))
        made = prediction(mean=mean, samples=draws)
        mean[0], draws[0] = 9, 9
        assert made.mean.max() == made.samples.max() == 0
        for array in (made.mean, made.cov, made.presence, made.samples):
            assert not array.flags.writeable

    def test_without_landmarks(self):
        empty = prediction(mean=np.zeros((0, 2)), cov=np.zeros((0, 2, 2)), presence=np.zeros(0))
        assert len(Prediction.from_dict(through_json(empty.to_dict()))) == 0


class TestMeasurement:
    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"status": "fine"}, "unknown measurement status"),
            ({"value": math.nan}, "not a finite number"),
            ({"value": None}, "marked ok but has no value"),
            ({"value": None, "status": "no_spacing"}, "needs a reason"),
        ],
    )
    def test_refuses_what_cannot_be(self, changes, word):
        with pytest.raises(InputError, match=word):
            Measurement(**{"name": "bpd", "label": "BPD", "value": 50.0, "unit": "mm", **changes})

    @pytest.mark.parametrize(
        "measurement",
        [
            Measurement("bpd", "BPD", 50.123456789012345, "mm"),
            Measurement("bpd", "BPD", None, "mm", "missing_landmark", "bpd_1 was not found"),
            Measurement(
                name="slip",
                label="Slip",
                value=12.5,
                unit="%",
                status="refer",
                reason="the interval spans two grades",
                interval=(8.0, 27.5),
                interval_level=0.9,
                level="L4-L5",
                grade="1",
                grade_probabilities={"1": 0.75, "2": 0.25},
                uses=("L4_pi", "L5_ps"),
                code=Code(scheme="SCT", value="1", meaning="slip"),
            ),
        ],
    )
    def test_survives_json(self, measurement):
        assert Measurement.from_dict(through_json(measurement.to_dict())) == measurement
