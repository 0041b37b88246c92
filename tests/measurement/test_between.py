"""Curves of the spine: which vertebrae they are found between, and what an incomplete spine gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bregma.errors import SchemaError
from bregma.geometry import Frame
from bregma.measurement import check_measurements, measure
from bregma.measurement.spinal_curves import CURVES
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import Measurement

PARTS = ("TL", "TR", "BL", "BR")
LEVELS = ("V1", "V2", "V3", "V4", "V5", "V6", "V7")
TILTS = (5.0, -10.0, 0.0, 20.0, 5.0, -15.0, -5.0)
"""The axes differ most, by 35 degrees, between V4 and V6. Above, V2 differs most from V4 (30); below, V7 from V6 (10).
Above V2, V1 differs by 15."""
BENT = (0.0, 10.0, 20.0, 0.0, -20.0, -10.0, 0.0)
BOWED = (0.0, -10.0, -20.0, -25.0, -20.0, -10.0, 0.0)
NAMES = ("main_curve", "proximal_curve", "distal_curve")


def spine(tilts_deg: Any = TILTS, sideways: Any = BENT) -> np.ndarray:
    """Corners ``(L, 4, 2)`` of boxes 40 px wide and 20 px high, 60 px from one to the next, each turned by its tilt."""
    box = np.array([(-20.0, -10.0), (20.0, -10.0), (-20.0, 10.0), (20.0, 10.0)])
    corners = []
    for row, (tilt, x) in enumerate(zip(np.radians(tilts_deg), sideways)):
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        corners.append(box @ turn.T + (200 + x, 50 + 60 * row))
    return np.array(corners)


def schema_of(levels: tuple[str, ...] = LEVELS, between: str = "main_curve", **chain: Any) -> LandmarkSchema:
    roles = {
        f"{end}_{side}": f"{{{end}}}_{part}"
        for end in ("upper", "lower")
        for side, part in zip(("top_left", "top_right", "bottom_left", "bottom_right"), PARTS)
    }
    row = {"name": "curve", "label": "Curve", "primitive": "axis_angle", "unit": "deg", "points": roles}
    data = {
        "name": "toy",
        "title": "toy",
        "chains": [{"name": "spine", "levels": levels, "parts": dict(zip(PARTS, PARTS)), **chain}],
        "measurements": [row | {"along": "spine", "between": between}],
    }
    return schema_from_dict(data, where="toy")


def one(schema: LandmarkSchema, corners: np.ndarray, **more: Any) -> Measurement:
    (result,) = measure(schema, corners.reshape(-1, 2), Frame((1000, 400)), **more)
    return result


class TestWhereCurvesLie:
    # The ends of the main curve lie near y = 240 and 360: in the upper half of 1000 rows, in the lower half of 500.
    @pytest.mark.parametrize(
        ("sideways", "height", "expected"),
        [
            (BENT, 1000, [(3, 5), (1, 3), (5, 6)]),
            (BENT, 500, [(3, 5), (1, 3), (0, 1)]),
            (BOWED, 1000, [(3, 5), (0, 3), (5, 6)]),
            (BOWED, 500, [(3, 5), (0, 3), (5, 6)]),
        ],
    )
    def test_the_three_curves(self, sideways: Any, height: float, expected: list[tuple[int, int]]) -> None:
        corners = spine(sideways=sideways)
        assert [CURVES[name](corners, height) for name in NAMES] == expected

    def test_nothing_lies_beyond_the_ends_of_the_spine(self) -> None:
        corners = spine((20, 0, 0, 0, 0, 0, -10))
        assert [CURVES[name](corners, 1000) for name in NAMES] == [(0, 6), (0, 0), (6, 6)]

    def test_an_axis_is_the_mean_of_both_endplates(self) -> None:
        """V3's upper endplate falls 40 px and its lower one rises as much: the vertebra as a whole is level."""
        corners = spine((0, 0, 0, 30, 0, 0, 0))
        corners[2, 1, 1] += 4.0
        corners[2, 3, 1] -= 4.0
        assert CURVES["main_curve"](corners, 1000) == (0, 3)


class TestMeasurement:
    @pytest.mark.parametrize(
        ("between", "value", "ends"),
        [
            ("main_curve", 35.0, ("V4", "V6")),
            ("proximal_curve", 30.0, ("V2", "V4")),
            ("distal_curve", 10.0, ("V6", "V7")),
        ],
    )
    def test_names_its_end_vertebrae(self, between: str, value: float, ends: tuple[str, str]) -> None:
        found = one(schema_of(between=between), spine())
        assert found.value == pytest.approx(value)
        assert (found.ends, found.level, found.place) == (ends, None, "-".join(ends))
        assert found.uses == tuple(f"{level}_{part}" for level in ends for part in PARTS)
        assert Measurement.from_dict(found.to_dict()) == found

    def test_samples_are_measured_between_the_same_vertebrae(self) -> None:
        """In every sample V4 is turned back by 5 degrees and V1 by 90; the interval is that of V4 and V6."""
        turned = spine((95.0, -10.0, 0.0, 15.0, 5.0, -15.0, -5.0)).reshape(-1, 2)
        found = one(schema_of(), spine(), samples=np.tile(turned, (50, 1, 1)))
        assert found.interval == pytest.approx((30.0, 30.0))

    def test_anisotropic_pixels_are_measured_in_mm(self) -> None:
        """With rows twice as far apart as columns, an axis of (4, 3) px becomes (4, 6) mm."""
        tilts = (0, 0, 0, np.degrees(np.arctan2(3, 4)), 0, 0, 0)
        (found,) = measure(schema_of(), spine(tilts).reshape(-1, 2), Frame((1000, 400), (1.0, 2.0), "user"))
        assert found.value == pytest.approx(np.degrees(np.arctan2(6, 4)))


class TestBadInput:
    def test_a_missing_vertebra_could_have_been_the_end(self) -> None:
        present = np.ones(28, dtype=bool)
        present[4:8] = False
        found = one(schema_of(), spine(), present=present)
        assert (found.value, found.status, found.ends) == (None, "missing_landmark", None)
        assert found.reason.startswith("V2 not found")

    def test_an_optional_vertebra_may_be_missing(self) -> None:
        present = np.ones(28, dtype=bool)
        present[:4] = False
        found = one(schema_of(between="proximal_curve", optional=["V1"]), spine(), present=present)
        assert (found.status, found.ends) == ("ok", ("V2", "V4"))

    @pytest.mark.parametrize("visible", [0, 1])
    def test_one_vertebra_has_no_curve(self, visible: int) -> None:
        present = np.arange(28) < 4 * visible
        found = one(schema_of(optional=LEVELS), spine(), present=present)
        assert (found.value, found.status) == (None, "missing_landmark")
        assert "fewer than two levels" in found.reason

    def test_vertebrae_out_of_order_are_referred(self) -> None:
        corners = spine()
        corners[[2, 3]] = corners[[3, 2]]
        found = one(schema_of(), corners)
        assert (found.value, found.status) == (None, "refer")
        assert "V3 and V4 are out of order" in found.reason

    def test_the_first_vertebra_in_the_last_row_is_referred(self) -> None:
        assert one(schema_of(), np.roll(spine(), -1, axis=0)).status == "refer"

    def test_a_vertebra_without_extent_is_referred(self) -> None:
        corners = spine()
        corners[3] = corners[3].mean(axis=0)
        found = one(schema_of(), corners)
        assert (found.value, found.status) == (None, "refer")
        assert "V4" in found.reason

    def test_no_spacing_is_no_obstacle(self) -> None:
        assert one(schema_of(), spine()).status == "ok"


class TestDeclaration:
    def test_an_unknown_way_is_an_error(self) -> None:
        with pytest.raises(SchemaError, match="no way 'sideways'"):
            check_measurements(schema_of(between="sideways"))
        with pytest.raises(SchemaError, match="no way 'sideways'"):
            one(schema_of(between="sideways"), spine())

    def test_a_chain_that_shows_no_curve_is_an_error(self) -> None:
        with pytest.raises(SchemaError, match="does not show curves"):
            check_measurements(schema_of(levels=("V1",)))

    def test_it_needs_a_chain(self) -> None:
        data = {
            "name": "toy",
            "title": "toy",
            "landmarks": [{"name": name, "label": name} for name in "ab"],
            "measurements": [
                {
                    **{"name": "d", "label": "d", "primitive": "distance", "unit": "mm"},
                    **{"points": {"a": "a", "b": "b"}, "between": "main_curve"},
                }
            ],
        }
        with pytest.raises(SchemaError, match="goes along no chain"):
            schema_from_dict(data, where="toy")


def test_shipped_curves_name_known_ways() -> None:
    known = {spec.between for spec in load_schema("spine_ap").measurements if spec.between}
    assert known == set(CURVES)
