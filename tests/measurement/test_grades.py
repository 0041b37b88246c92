from __future__ import annotations

import numpy as np
import pytest

from bregma.measurement import grade_of, grade_probabilities
from bregma.schema import GradeScale, load_schema

SIGNED = GradeScale(name="g", edges=(0.0, 4.0), labels=("III", "I", "II"), source="test")
BOTH_ENDS = GradeScale(name="g", edges=(70.0, 80.0), labels=("abnormal", "normal", "abnormal"), source="test")


@pytest.mark.parametrize(
    ("slip", "grade"),
    [
        (0.0, "0"),
        (4.999, "0"),
        (-4.999, "0"),
        (5.0, "I"),
        (-5.0, "I"),
        (24.999, "I"),
        (25.0, "II"),
        (49.999, "II"),
        (50.0, "III"),
        (75.0, "IV"),
        (99.999, "IV"),
        (100.0, "V"),
        (-130.0, "V"),
    ],
)
def test_meyerding(slip: float, grade: str) -> None:
    assert grade_of(load_schema("lumbar_lateral").grade("meyerding"), slip) == grade


@pytest.mark.parametrize(("value", "grade"), [(-0.1, "III"), (0.0, "I"), (3.9, "I"), (4.0, "II"), (9.0, "II")])
def test_a_signed_scale(value: float, grade: str) -> None:
    assert grade_of(SIGNED, value) == grade


def test_probabilities_are_shares_of_samples() -> None:
    # Ten samples: two below 0, five from 0 up to 4, three from 4 on.
    samples = [-3, -0.5, 0, 1, 2, 3, 3.9, 4, 5, 6]
    assert grade_probabilities(SIGNED, samples) == {"III": 0.2, "I": 0.5, "II": 0.3}


def test_probabilities_of_an_equal_label_are_added_up() -> None:
    assert grade_probabilities(BOTH_ENDS, [60, 75, 76, 90]) == {"abnormal": 0.5, "normal": 0.5}


def test_samples_that_say_nothing_are_left_out() -> None:
    assert grade_probabilities(SIGNED, [np.nan, 1.0]) == {"III": 0.0, "I": 1.0, "II": 0.0}
    assert grade_probabilities(SIGNED, [np.nan]) == {}
