"""The score of a group of measurements, worked out by hand."""

from __future__ import annotations

import pytest

from bregma import metrics
from bregma.evaluation.grouped import group_figures
from bregma.evaluation.measured import measurement_figures
from bregma.evaluation.tables import Reading
from bregma.report.words import metric_words
from bregma.schema import load_schema

SPINE = load_schema("spine_ap")
ANGLES = ("cobb_main", "cobb_proximal", "cobb_distal")


def image(
    case: str, subject: int, predicted: tuple[float | None, ...], true: tuple[float | None, ...]
) -> list[Reading]:
    return [
        Reading(case, subject, name, name, None, "deg", p, t, None, None)
        for name, p, t in zip(ANGLES, predicted, true, strict=True)
    ]


def smape(rows: list[Reading], subjects: int = 2) -> float | None:
    return metrics.figure_of(group_figures(rows, subjects, SPINE)["cobb_smape"].statistic, subjects)


def test_errors_are_summed_over_the_group_before_they_are_divided() -> None:
    # |32 - 28| + |10 - 14| + |20 - 16| = 12 of (32 + 10 + 20) + (28 + 14 + 16) = 120: 10 %.
    assert smape(image("a", 0, (32, 10, 20), (28, 14, 16))) == pytest.approx(10.0)


def test_images_are_averaged() -> None:
    rows = image("a", 0, (32, 10, 20), (28, 14, 16)) + image("b", 1, (30, 10, 10), (30, 10, 10))
    assert smape(rows) == pytest.approx(5.0)


def test_an_angle_that_is_not_predicted_makes_the_image_a_failure() -> None:
    rows = image("a", 0, (32, None, 20), (28, 14, 16)) + image("b", 1, (30, 10, 10), (30, 10, 10))
    assert smape(rows) == pytest.approx(50.0)


def test_an_image_whose_labels_do_not_say_is_left_out() -> None:
    rows = image("a", 0, (32, 10, 20), (28, None, 16)) + image("b", 1, (30, 10, 10), (10, 10, 10))
    assert smape(rows) == pytest.approx(25.0)
    assert group_figures(rows, 2, SPINE)["cobb_smape"].n == 1
    assert group_figures(image("a", 0, (1, 1, 1), (None, None, None)), 1, SPINE) == {}


def test_a_straight_spine_seen_as_such_has_no_error() -> None:
    assert smape(image("a", 0, (0, 0, 0), (0, 0, 0))) == 0.0


def test_it_is_among_the_figures_and_has_words() -> None:
    figures = measurement_figures(image("a", 0, (32, 10, 20), (28, 14, 16)), 1, SPINE)
    assert (figures["cobb_smape"].unit, figures["cobb_smape"].tested) == ("%", True)
    assert "symmetric" in metric_words("cobb_smape", SPINE)
    assert metric_words("other_smape", SPINE) == "other_smape"
