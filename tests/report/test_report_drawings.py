"""Measurements are drawn where they were taken, whatever the primitive and however bad the points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bregma.geometry import Array, Frame
from bregma.measurement import PRIMITIVES, measure
from bregma.report.canvas import MEASURE, Canvas, LabelPlacer, Rgb
from bregma.report.drawings import DRAWINGS
from bregma.report.html import write_report
from bregma.report.measure_marks import COLOURS, drawn_measurements, measurement_text
from bregma.report.measure_pen import MeasurePen
from bregma.report.overlay import draw_overlay
from bregma.results import Evaluation
from bregma.schema import LandmarkSchema, builtin_schemas, load_schema, schema_from_dict
from bregma.types import LandmarkSet, Measurement

SIDE = 400


def drawn(primitive: str, **roles: tuple[float, float]) -> Rgb:
    """Return a black picture with one measurement drawn, without its words."""
    canvas = Canvas(np.zeros((SIDE, SIDE), np.uint8), (SIDE, SIDE))
    pen = MeasurePen(canvas, LabelPlacer((SIDE, SIDE)), 12, 2.0)
    DRAWINGS[primitive](pen, {role: np.array(at, dtype=float) for role, at in roles.items()}, "")
    pen.finish()
    return canvas.finish()


def yellow(picture: Rgb, x: float, y: float) -> bool:
    """Tell whether a mark passes within two pixels of a place."""
    near = picture[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].astype(int)
    return bool((np.abs(near - MEASURE).sum(axis=2) < 120).any())


def test_every_primitive_has_a_drawing() -> None:
    assert set(DRAWINGS) == set(PRIMITIVES)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("kind", ["scattered", "in one place", "in a row", "far off"])
def test_no_drawing_fails(primitive: str, kind: str) -> None:
    roles = PRIMITIVES[primitive].roles
    scattered = np.random.default_rng(5).uniform(50, 350, (len(roles), 2))
    row = np.stack([np.linspace(50, 350, len(roles)), np.full(len(roles), 200.0)], axis=1)
    places: dict[str, Array] = {
        "scattered": scattered,
        "in one place": np.full((len(roles), 2), 200.0),
        "in a row": row,
        "far off": scattered * 1e7,
    }
    picture = drawn(primitive, **dict(zip(roles, places[kind].tolist(), strict=True)))
    assert picture.any() or kind in {"in one place", "far off"}


def test_an_ellipse_has_the_lengths_of_both_diameters() -> None:
    picture = drawn("ellipse_perimeter", a=(100, 200), b=(300, 200), c=(200, 140), d=(200, 260))
    # Semi-axes 100 and 60 about (200, 200); at half the long one the height is 60 * sqrt(3) / 2.
    for x, y in [(100, 200), (300, 200), (200, 140), (200, 260), (250, 200 - 51.96), (150, 200 + 51.96)]:
        assert yellow(picture, x, y), (x, y)
    assert not yellow(picture, 250, 200)


def test_a_slip_is_drawn_along_the_lower_endplate() -> None:
    picture = drawn("slip_length", upper_posterior=(260, 100), lower_anterior=(100, 200), lower_posterior=(300, 200))
    assert all(yellow(picture, x, 200) for x in (110, 180, 290))
    column = picture[110:190, 258:263].max(axis=(1, 2))
    assert 0.3 < (column > 150).mean() < 0.9  # dashed


def test_the_angle_of_two_lines_stands_at_their_crossing() -> None:
    # Through (100, 300): along the row, and rising by 45 degrees.
    roles = {"upper_back": (200, 200), "upper_front": (280, 120), "lower_back": (200, 300), "lower_front": (300, 300)}
    picture = drawn("opening_angle", **roles)
    # The arc's radius is 60 (five text heights); its middle lies at 22.5 degrees.
    assert yellow(picture, 100 + 60 * np.cos(np.pi / 8), 300 - 60 * np.sin(np.pi / 8))


def test_lines_that_cross_off_the_picture_are_bracketed_where_they_draw_together() -> None:
    roles = {"upper_back": (100, 100), "upper_front": (300, 90), "lower_back": (100, 300), "lower_front": (300, 310)}
    picture = drawn("opening_angle", **roles)
    left, right = (picture[110:290, x - 2 : x + 3].max(axis=(1, 2)) > 150 for x in (100, 300))
    assert left.mean() > 0.3
    assert not right.any()


def test_axes_run_through_the_middles_of_vertebrae() -> None:
    upper = {"upper_top_left": (180, 80), "upper_top_right": (220, 80), "upper_bottom_left": (180, 110)}
    lower = {"lower_top_left": (180, 280), "lower_top_right": (220, 280), "lower_bottom_left": (180, 310)}
    picture = drawn("axis_angle", **upper, upper_bottom_right=(220, 110), **lower, lower_bottom_right=(220, 310))
    assert all(yellow(picture, x, y) for x in (145, 200, 255) for y in (95, 295))


def test_widths_are_drawn_along_the_rows() -> None:
    picture = drawn("horizontal_width", a=(100, 150), b=(300, 250))
    assert all(yellow(picture, x, 200) for x in (110, 200, 290))


@pytest.mark.parametrize("name", builtin_schemas())
def test_every_anatomy_says_what_is_drawn(name: str) -> None:
    schema = load_schema(name)
    short = [spec for spec in schema.measurements if spec.short]
    assert 1 <= len(short) <= len(COLOURS)


def schema(**spec: str) -> LandmarkSchema:
    rows = [
        {"name": n, "label": n, "primitive": "distance", "points": {"a": "a", "b": b}, "unit": "mm"} | spec
        for n, b in (("first", "b"), ("second", "c"))
    ]
    marks = [{"name": n, "label": n} for n in "abc"]
    return schema_from_dict({"name": "s", "title": "s", "landmarks": marks, "measurements": rows}, where="test")


def test_short_names_choose_what_is_drawn() -> None:
    points = [[0, 0], [3, 4], [6, 8]]
    plain, named = schema(), schema(short="D")
    assert len(drawn_measurements(plain, measure(plain, points, Frame((9, 9))), 1)) == 1
    only = named.model_copy(update={"measurements": (plain.measurements[0], named.measurements[1])})
    assert [m.name for m in drawn_measurements(only, measure(only, points, Frame((9, 9))), 5)] == ["second"]


def test_words_name_place_grade_and_doubt() -> None:
    spec = schema(short="D").measurements[0]
    found = Measurement("first", "f", 12.345, "deg", "refer", "why", grade="mild", ends=("T5", "T9"))
    assert measurement_text(found, spec) == "D T5-T9 12.3° (mild) – refer"
    assert measurement_text(Measurement("first", "f", 0.456, "1")) == "0.46"


def test_a_curve_of_one_vertebra_is_not_drawn() -> None:
    same = Measurement("first", "f", 0.0, "deg", ends=("T1", "T1"), uses=("a", "b"))
    assert drawn_measurements(schema(), [same], 5) == []
    picture = draw_overlay(
        np.zeros((50, 50)), schema=schema(), truth=LandmarkSet([[5, 5], [40, 40], [10, 40]]), measurements=[same]
    )
    assert not yellow(picture, 405, 405)


def test_the_report_shows_what_was_measured_beside_the_labels(evaluation: Evaluation, tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", evaluation).read_text(encoding="utf-8")
    assert "Measured on the image" in text
    assert "among the worst: case-0" in text
    assert "26.0\u00a0mm (slim); label 26.0\u00a0mm (slim)" in text
