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


class TestAlongAWholeChain:
    """Seventeen boxes of a frontal spine, 40 x 20 px every 40 px, each turned by its tilt; T4 and L1 differ most."""

    WHOLE = load_schema("spine_ap")
    LEVELS = WHOLE.chain("vertebrae").levels
    TILTS = (4, 0, -8, -15, -10, -6, -2, 3, 8, 12, 15, 18, 20, 15, 10, 5, 0)

    def _angles(
        self, named: Any, without: tuple[int, ...] = (), *, turned: int | None = None
    ) -> dict[str, Measurement]:
        box = np.array([(-20.0, -10.0), (20.0, -10.0), (-20.0, 10.0), (20.0, 10.0)])
        n = len(self.WHOLE)
        mean, presence, bodies = np.zeros((n, 2)), np.zeros(n), []
        for place, (level, tilt) in enumerate(zip(self.LEVELS, np.radians(self.TILTS), strict=True)):
            if place in without:
                continue
            turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
            points = box @ turn.T * (-1 if place == turned else 1) + (150, 50 + 40 * place)
            name = level if level in named else None
            sure = 0.9 if name else 0.0
            cov = np.tile(np.eye(2), (4, 1, 1))
            bodies.append(Instance("vertebrae", ("TL", "TR", "BL", "BR"), points, cov, np.ones(4), 0.9, name, sure))
            for part, point in zip(("TL", "TR", "BL", "BR"), points) if name else ():
                index = self.WHOLE.index(f"{name}_{part}")
                mean[index], presence[index] = point, 1.0
        frame = Frame((1600, 300))
        prediction = Prediction("1", mean, np.tile(np.eye(2), (n, 1, 1)), presence, frame, instances=tuple(bodies))
        found = [m for m in measure_prediction(self.WHOLE, prediction) if m.name.startswith("cobb")]
        assert len(found) == 3
        return {m.name: m for m in found}

    def test_the_order_stands_in_for_names(self) -> None:
        known, unnamed = self._angles(self.LEVELS), self._angles(())
        assert known["cobb_main"].ends == ("T4", "L1")
        assert known["cobb_main"].status == "uncalibrated"
        assert unnamed["cobb_main"].ends == ("14th from below", "5th from below")
        assert {k: m.value for k, m in unnamed.items()} == pytest.approx({k: m.value for k, m in known.items()})
        assert unnamed["cobb_main"].value == pytest.approx(35)
        assert unnamed["cobb_main"].interval is not None
        assert {m.status for m in unnamed.values()} == {"refer"}
        assert "of the 17 elements found 17 could not be named" in unnamed["cobb_main"].reason

    def test_names_that_are_known_are_kept(self) -> None:
        main = self._angles(("T3", "T4"))["cobb_main"]
        assert main.ends == ("T4", "5th from below")
        assert main.uses[0] == "T4_TL"
        assert main.uses[-1] == "from_below_5_BR"

    def test_without_an_end_the_next_one_is_taken_and_there_is_no_interval(self) -> None:
        main = self._angles(self.LEVELS, without=(12,))["cobb_main"]
        assert main.value == pytest.approx(33)
        assert main.ends == ("T4", "T12")
        assert main.interval is None
        assert main.grade == "moderate"
        assert main.grade_probabilities is None
        assert main.status == "refer"
        assert "16 of 17 elements were found" in main.reason

    def test_a_quarter_may_be_missing_and_no_more(self) -> None:
        assert self._angles((), without=(0, 1, 2, 16))["cobb_main"].value == pytest.approx(35)
        lost = self._angles((), without=(0, 1, 2, 15, 16))["cobb_main"]
        assert lost.value is None
        assert lost.status == "missing_landmark"

    def test_vertebrae_out_of_order_are_not_measured(self) -> None:
        main = self._angles((), turned=8)["cobb_main"]
        assert main.value is None
