from __future__ import annotations

import numpy as np
import pytest

from bregma.measurement.order import disorder
from bregma.schema import LandmarkSchema, load_schema

LUMBAR = load_schema("lumbar_lateral")
LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")


def stacked(order: tuple[str, ...] = LEVELS) -> dict[str, tuple[float, float]]:
    """Bodies 40 px deep and 30 px high, 40 px from one to the next, facing left, in the given order from above."""
    corners = {"sup_ant": (0, 0), "sup_post": (40, 0), "inf_ant": (0, 30), "inf_post": (40, 30)}
    placed = {}
    for row, level in enumerate(order):
        for part in LUMBAR.chains[0].parts_of(level):
            x, y = corners[part]
            placed[f"{level}_{part}"] = (x, 40 * row + y)
    return placed


def found(placed: dict[str, tuple[float, float]], schema: LandmarkSchema = LUMBAR) -> dict[str, str]:
    points = np.array([placed.get(name, (np.nan, np.nan)) for name in schema.names])
    return disorder(schema, points, np.isfinite(points).all(axis=1))


def levels(doubts: dict[str, str]) -> set[str]:
    return {name.split("_")[0] for name in doubts}


def test_vertebrae_in_order_are_trusted() -> None:
    assert found(stacked()) == {}


@pytest.mark.parametrize("turn_deg", [30, 90, 180])
def test_a_turned_image_changes_nothing(turn_deg: float) -> None:
    angle = np.radians(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert found({name: tuple(turn @ point) for name, point in stacked().items()}) == {}


def test_two_levels_that_changed_places_are_named() -> None:
    doubts = found(stacked(("T12", "L1", "L2", "L4", "L3", "L5", "S1")))
    assert levels(doubts) == {"L3", "L4"}
    assert doubts["L3_inf_post"] == "L3 and L4 are out of order"


def test_the_sacrum_above_the_spine_is_out_of_order() -> None:
    assert levels(found(stacked(("S1", "T12", "L1", "L2", "L3", "L4", "L5")))) == {"L5", "S1"}


def test_a_gap_is_no_disorder() -> None:
    placed = {name: point for name, point in stacked().items() if not name.startswith("L3")}
    assert found(placed) == {}


def test_one_vertebra_or_none_is_no_disorder() -> None:
    assert found({name: point for name, point in stacked().items() if name.startswith("L3")}) == {}
    assert found({}) == {}


def test_corners_that_changed_sides_are_found() -> None:
    placed = stacked()
    for plate in ("sup", "inf"):
        placed[f"L2_{plate}_ant"], placed[f"L2_{plate}_post"] = placed[f"L2_{plate}_post"], placed[f"L2_{plate}_ant"]
    doubts = found(placed)
    assert "L2_sup_ant" in doubts
    assert "opposite sides" in doubts["L2_sup_ant"]


def test_one_endplate_that_changed_sides_is_found() -> None:
    placed = stacked()
    placed["L2_sup_ant"], placed["L2_sup_post"] = placed["L2_sup_post"], placed["L2_sup_ant"]
    assert found(placed)["L2_inf_ant"] == "the two endplates of L2 run in opposite directions"


def test_a_vertebra_on_its_head_is_out_of_order() -> None:
    placed = stacked()
    for side in ("ant", "post"):
        placed[f"L2_sup_{side}"], placed[f"L2_inf_{side}"] = placed[f"L2_inf_{side}"], placed[f"L2_sup_{side}"]
    assert "L2" in levels(found(placed))


def test_a_vertebra_that_slipped_off_is_still_in_order() -> None:
    """Spondyloptosis: L5 lies wholly in front of the sacrum, at its height, and has tipped forward by 45 degrees."""
    placed = stacked()
    middle, turn = np.array([20.0, 215.0]), np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    for part in ("sup_ant", "sup_post", "inf_ant", "inf_post"):
        x, y = turn @ (np.array(placed[f"L5_{part}"]) - middle) + middle + np.array([-45.0, 20.0])
        placed[f"L5_{part}"] = (x, y)
    assert found(placed) == {}


def test_without_endplates_the_usual_step_tells_the_order() -> None:
    placed = {name: point for name, point in stacked().items() if name.endswith("sup_ant")}
    placed["L3_sup_ant"], placed["L4_sup_ant"] = placed["L4_sup_ant"], placed["L3_sup_ant"]
    assert levels(found(placed)) == {"L3", "L4"}


def test_corners_in_one_place_settle_nothing() -> None:
    placed = stacked()
    for part in ("sup_ant", "sup_post", "inf_ant", "inf_post"):
        placed[f"L3_{part}"] = (20.0, 175.0)
    assert found(placed) == {}
