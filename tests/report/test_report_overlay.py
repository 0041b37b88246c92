"""Marks must lie where the landmarks lie, at any size, and only where there is a landmark."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bregma.errors import ImageError
from bregma.geometry import Frame
from bregma.report.canvas import DOUBT, ERROR, MEASURE, PREDICTION, TRUTH, window
from bregma.report.overlay import draw_overlay
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import LandmarkSet, Measurement, Prediction, Status


def one_point() -> LandmarkSchema:
    return schema_from_dict({"name": "p", "title": "P", "landmarks": [{"name": "a", "label": "A"}]}, where="test")


def predict(points: list[tuple[float, float]], shape: tuple[int, int], **changes: object) -> Prediction:
    n = len(points)
    values = {"cov": np.zeros((n, 2, 2)), "presence": np.ones(n), "frame": Frame(shape)} | changes
    return Prediction("case", np.array(points), **values)  # type: ignore[arg-type]


def coloured(picture: NDArray[np.uint8], colour: tuple[int, int, int], reach: int = 60) -> NDArray[np.bool_]:
    return np.asarray(np.abs(picture.astype(int) - colour).sum(axis=2) < reach)


def centroid(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize(
    ("shape", "size"), [((40, 50), 500), ((300, 200), 900), ((1000, 700), 400), ((64, 64), 64 * 7)]
)
@pytest.mark.parametrize("at", [(0.25, 0.25), (0.61, 0.4), (0.9, 0.77)])
def test_a_prediction_is_drawn_where_it_is(shape: tuple[int, int], size: int, at: tuple[float, float]) -> None:
    x, y = at[0] * shape[1], at[1] * shape[0]
    picture = draw_overlay(
        np.full(shape, 90, np.uint8), schema=one_point(), prediction=predict([(x, y)], shape), size=size, legend=False
    )
    # Pixel edges are aligned: the left edge of the image, x = -0.5, is the left edge of the picture.
    sx, sy = picture.shape[1] / shape[1], picture.shape[0] / shape[0]
    expected = ((x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5)
    assert centroid(coloured(picture, PREDICTION)) == pytest.approx(expected, abs=0.3)


def test_a_flagged_prediction_stands_in_a_square_and_the_legend_says_so() -> None:
    def draw(flags: tuple[str, ...] | None, *, legend: bool = False) -> NDArray[np.uint8]:
        prediction = predict([(30.0, 25.0)], (50, 60), flags=flags)
        return draw_overlay(np.zeros((50, 60)), schema=one_point(), prediction=prediction, size=600, legend=legend)

    marked = coloured(draw(("far off",)), DOUBT)
    # The point's place in a picture that is ten times as large.
    assert centroid(marked) == pytest.approx((304.5, 254.5), abs=0.5)
    rows, columns = np.nonzero(marked)
    assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=1)
    for flags in (None, ("",)):
        assert not coloured(draw(flags), DOUBT).any()
    assert coloured(draw(("far off",), legend=True)[500:], DOUBT).any()


def test_a_label_is_a_ring_around_its_point() -> None:
    picture = draw_overlay(
        np.full((50, 50), 90, np.uint8), schema=one_point(), truth=LandmarkSet([[20.0, 30.0]]), size=500, legend=False
    )
    ring = coloured(picture, TRUTH)
    x, y = 20.5 * 10 - 0.5, 30.5 * 10 - 0.5
    assert centroid(ring) == pytest.approx((x, y), abs=0.3)
    assert not ring[round(y), round(x)]


def test_pixels_are_square_in_the_patient() -> None:
    frame = Frame((100, 100), (1.0, 0.5), "user")
    prediction = predict([(50.0, 50.0)], (100, 100), frame=frame)
    picture = draw_overlay(np.zeros((100, 100)), schema=one_point(), prediction=prediction, size=400, legend=False)
    assert picture.shape == (200, 400, 3)
    assert centroid(coloured(picture, PREDICTION)) == pytest.approx((50.5 * 4 - 0.5, 50.5 * 2 - 0.5), abs=0.3)


@pytest.mark.parametrize("status", [Status.OUTSIDE, Status.UNLABELLED])
def test_a_label_without_a_position_is_not_drawn(status: Status) -> None:
    truth = LandmarkSet([[20.0, 20.0]], [status])
    prediction = predict([(25.0, 25.0)], (50, 50))
    picture = draw_overlay(
        np.full((50, 50), 90, np.uint8), schema=one_point(), truth=truth, prediction=prediction, legend=False
    )
    assert not coloured(picture, TRUTH).any()
    assert not coloured(picture, ERROR).any()
    assert coloured(picture, PREDICTION).any()


def test_a_landmark_that_is_probably_absent_is_not_drawn() -> None:
    prediction = predict([(25.0, 25.0)], (50, 50), presence=np.array([0.4]))
    image = np.full((50, 50), 90, np.uint8)
    hidden = draw_overlay(image, schema=one_point(), prediction=prediction, legend=False)
    shown = draw_overlay(image, schema=one_point(), prediction=prediction, min_presence=0.3, legend=False)
    assert not coloured(hidden, PREDICTION).any()
    assert coloured(shown, PREDICTION).any()


def test_the_region_has_the_axes_of_the_covariance() -> None:
    cov = np.array([[[16.0, 0.0], [0.0, 4.0]]])
    picture = draw_overlay(
        np.zeros((100, 100), np.uint8),
        schema=one_point(),
        prediction=predict([(50.0, 50.0)], (100, 100), cov=cov),
        size=1000,
        legend=False,
    )
    rows, columns = np.nonzero(picture.max(axis=2) > 60)
    # 95 % of a 2D normal lies within sqrt(5.991) standard deviations; 4 px and 2 px at a tenfold size.
    assert np.ptp(columns) / 2 == pytest.approx(np.sqrt(5.991) * 40, abs=2.0)
    assert np.ptp(rows) / 2 == pytest.approx(np.sqrt(5.991) * 20, abs=2.0)


def test_points_that_cannot_be_told_apart_are_joined_the_short_way() -> None:
    schema = schema_from_dict(
        {
            "name": "d",
            "title": "D",
            "landmarks": [{"name": n, "label": n} for n in ("a", "b")],
            "exchangeable": [["a", "b"]],
        },
        where="test",
    )
    picture = draw_overlay(
        np.zeros((100, 100), np.uint8),
        schema=schema,
        truth=LandmarkSet([[10.0, 50.0], [90.0, 50.0]]),
        prediction=predict([(90.0, 55.0), (10.0, 55.0)], (100, 100)),
        size=500,
        label_worst=0,
        legend=False,
    )
    assert not coloured(picture[:, 150:350], ERROR).any()
    assert coloured(picture[:, :100], ERROR).any()


def test_a_measurement_is_drawn_between_its_points_unless_it_has_no_value(schema: LandmarkSchema) -> None:
    prediction = predict([(20.0, 20.0), (80.0, 20.0), (50.0, 80.0)], (100, 100))
    good = Measurement("ab", "Width", 60.0, "px", uses=("a", "b"))
    bad = Measurement("ab", "Width", None, "px", status="missing_landmark", reason="b is missing", uses=("a", "b"))
    image = np.zeros((100, 100), np.uint8)
    drawn = draw_overlay(image, schema=schema, prediction=prediction, measurements=[good], size=500, legend=False)
    empty = draw_overlay(image, schema=schema, prediction=prediction, measurements=[bad], size=500, legend=False)
    # A line at y = 20.5 * 5 - 0.5 between x = 102 and x = 402.
    assert coloured(drawn, MEASURE)[101:104, 160:340].any(axis=0).mean() > 0.9
    assert not coloured(empty, MEASURE).any()


def test_slip_is_drawn_from_the_corner_to_the_foot_of_the_perpendicular() -> None:
    schema = schema_from_dict(
        {
            "name": "s",
            "title": "S",
            "landmarks": [{"name": n, "label": n} for n in ("up", "ant", "post")],
            "measurements": [
                {
                    "name": "slip",
                    "label": "Slip",
                    "primitive": "slip_ratio",
                    "points": {"upper_posterior": "up", "lower_anterior": "ant", "lower_posterior": "post"},
                    "unit": "%",
                }
            ],
        },
        where="test",
    )
    prediction = predict([(60.0, 30.0), (20.0, 60.0), (80.0, 60.0)], (100, 100))
    slip = Measurement("slip", "Slip", 33.3, "%", uses=("up", "ant", "post"))
    picture = draw_overlay(
        np.zeros((100, 100), np.uint8),
        schema=schema,
        prediction=prediction,
        measurements=[slip],
        size=500,
        legend=False,
    )
    yellow = coloured(picture, MEASURE)
    assert yellow[301:304, 115:390].any(axis=0).mean() > 0.9
    assert yellow[165:290, 301:304].any(axis=1).mean() > 0.35


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, bool])
def test_every_number_type_fills_the_grey_range(dtype: type) -> None:
    ramp = np.linspace(0, 1, 10_000).reshape(100, 100)
    image = (ramp > 0.5) if dtype is bool else (ramp * 200 - 20 * (dtype is np.int16)).astype(dtype)
    grey = window(image)
    assert grey.dtype == np.uint8
    assert (int(grey.min()), int(grey.max())) == (0, 255)


def test_images_that_are_constant_or_hold_nan_are_drawn() -> None:
    image = np.full((20, 20), np.nan)
    image[:10] = 5.0
    assert draw_overlay(np.full((20, 20), 7), schema=one_point(), size=100).shape[:2] == (100, 100)
    assert draw_overlay(image, schema=one_point(), size=100).shape[:2] == (100, 100)


def test_wild_predictions_do_not_break_the_picture() -> None:
    prediction = predict([(1e9, -1e9)], (20, 20), cov=np.full((1, 2, 2), 1e18) * np.eye(2))
    assert draw_overlay(np.zeros((20, 20)), schema=one_point(), prediction=prediction, size=100).shape[1] == 100


def test_a_colour_image_is_refused() -> None:
    with pytest.raises(ImageError, match=r"\(H, W\)"):
        draw_overlay(np.zeros((20, 20, 3)), schema=one_point())


def test_labels_that_do_not_fit_the_schema_are_refused(schema: LandmarkSchema) -> None:
    with pytest.raises(ImageError, match="expected 3, got 1"):
        draw_overlay(np.zeros((20, 20)), schema=schema, truth=LandmarkSet([[1.0, 1.0]]))


def test_a_narrow_picture_gets_a_margin_on_its_right() -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 20))
    bare = draw_overlay(image, schema=one_point(), size=200, legend=False)
    wide = draw_overlay(image, schema=one_point(), size=200, legend=False, least_aspect=0.5)
    assert bare.shape == (200, 40, 3)
    assert wide.shape == (200, 100, 3)
    assert np.array_equal(wide[:, :40], bare)


def test_title_and_legend_lie_below_the_image() -> None:
    arguments = {"schema": one_point(), "truth": LandmarkSet([[5.0, 5.0]]), "size": 300}
    bare = draw_overlay(np.zeros((20, 20)), legend=False, **arguments)  # type: ignore[arg-type]
    full = draw_overlay(np.zeros((20, 20)), title="a title " * 40, **arguments)  # type: ignore[arg-type]
    assert full.shape[0] > bare.shape[0] == 300
    assert np.array_equal(full[:300], bare)
