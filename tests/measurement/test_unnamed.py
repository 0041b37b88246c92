"""Vertebrae without names, measured by their place: boxes 40 x 30 px every 40 px, with slips worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.measurement import measure_prediction
from bregma.schema import load_schema
from bregma.types import Measurement, Prediction

SCHEMA = load_schema("lumbar_lateral")
CHAIN = SCHEMA.chain("vertebrae")
FRAME = Frame((500, 300), (0.5, 0.5), "user")


def _body(place: int, level: str | None = None, *, shift: float = 0.0, parts: int = 4, **more: Any) -> Instance:
    """A vertebra that faces left; ``shift`` moves it to the front, which is the left."""
    y = 50.0 + 40 * place
    corners = np.array([[100, y], [140, y], [100, y + 30], [140, y + 30]])[:parts] - [shift, 0]
    names = tuple(CHAIN.parts)[:parts]
    sure = {"probability": 0.9, "level": level, "level_probability": 0.9 if level else 0.0} | more
    return Instance("vertebrae", names, corners, np.zeros((parts, 2, 2)), np.ones(parts), **sure)


def _measure(*bodies: Instance) -> list[Measurement]:
    n = len(SCHEMA)
    mean, presence = np.zeros((n, 2)), np.zeros(n)
    for one in bodies:
        for part, point in zip(one.parts, one.points) if one.level else ():
            index = SCHEMA.index(f"{one.level}_{part}")
            mean[index], presence[index] = point, 1.0
    prediction = Prediction("1", mean, np.zeros((n, 2, 2)), presence, FRAME, instances=bodies)
    return list(measure_prediction(SCHEMA, prediction))


def _by_level(found: list[Measurement], name: str = "slip_percent") -> dict[str | None, Measurement]:
    return {m.level: m for m in found if m.name == name}


def test_neighbours_without_names_are_measured_by_place() -> None:
    # The middle one lies 10 px in front of the lowest: 25 % of its endplate of 40 px.
    found = _measure(_body(0, shift=10), _body(1, shift=10), _body(2))
    slips = _by_level(found)
    assert slips["2nd-1st from below"].value == pytest.approx(25)
    assert slips["2nd-1st from below"].grade == "II"
    assert slips["3rd-2nd from below"].value == pytest.approx(0)
    assert _by_level(found, "slip_mm")["2nd-1st from below"].value == pytest.approx(5)
    assert _by_level(found, "disc_height")["2nd-1st from below"].value == pytest.approx(np.hypot(10, 10) / 2)
    assert slips["2nd-1st from below"].uses[0] == "from_below_2_inf_post"


def test_named_levels_say_why_they_are_missing() -> None:
    slip = _by_level(_measure(_body(0), _body(1)))["L4-L5"]
    assert slip.value is None
    assert slip.status == "missing_landmark"
    assert slip.reason.endswith("not found on the image or not labelled; 2 found on the image could not be named")


def test_named_neighbours_are_measured_once_and_by_name() -> None:
    found = _measure(_body(0), _body(1, "L4", shift=4), _body(2, "L5"), _body(3, "S1", parts=2))
    slips = _by_level(found)
    assert slips["L4-L5"].value == pytest.approx(10)
    assert slips["L5-S1"].value == pytest.approx(0)
    assert slips["4th-3rd from below"].value == pytest.approx(-10)
    assert "3rd-2nd from below" not in slips
    assert "2nd-1st from below" not in slips


class TestBadInput:
    def test_a_gap(self) -> None:
        slips = _by_level(_measure(_body(0), _body(1), _body(3)))
        gap = slips["2nd-1st from below"]
        assert (gap.value, gap.status, gap.grade) == (None, "refer", None)
        assert gap.reason == "2nd-1st from below lie so far apart that they may be no neighbours"
        assert slips["3rd-2nd from below"].value == pytest.approx(0)
        assert _by_level(_measure(_body(0), _body(2)))["2nd-1st from below"].status == "refer"

    def test_out_of_order(self) -> None:
        slip = _by_level(_measure(_body(1), _body(0), _body(2)))["3rd-2nd from below"]
        assert (slip.value, slip.status) == (None, "refer")
        assert slip.reason == "3rd from below and 2nd from below are out of order"

    def test_one_visible_vertebra(self) -> None:
        found = _measure(_body(2))
        assert not any("from below" in (level or "") for level in _by_level(found))
        ratios = {m.name: m.level for m in found if m.value is not None}
        assert ratios
        assert set(ratios.values()) == {"1st from below"}

    def test_none(self) -> None:
        found = _measure()
        assert {m.status for m in found} == {"missing_landmark"}
        assert not any("could not be named" in m.reason for m in found)

    def test_a_whole_spine(self) -> None:
        slips = _by_level(_measure(*[_body(place) for place in range(11)]))
        assert slips["11th-10th from below"].value == pytest.approx(0)
        assert sum(slip.value is not None for slip in slips.values()) == 10

    def test_doubtful_elements_are_not_there(self) -> None:
        found = _measure(_body(0), _body(1, probability=0.3), _body(2))
        assert _by_level(found)["2nd-1st from below"].status == "refer"
