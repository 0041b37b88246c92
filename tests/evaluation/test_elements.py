"""Elements of chains matched and counted: a column of boxes, 30 x 40 px every 100 px, whose diagonals are 50 px."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bregma.evaluation import EvaluationSettings, evaluate_predictions
from bregma.evaluation.elements import match_elements
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.results import ElementResult, Evaluation
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status

LEVELS = ("L1", "L2", "L3", "L4", "S1")
PARTS = ("a", "b", "c", "d")
BOX = np.array([[0, 0], [30, 0], [0, 40], [30, 40]], dtype=float)
FRAME = Frame((601, 201), None, "none")
"""Its centre is (100, 300)."""


def _schema(**more: Any) -> LandmarkSchema:
    chain = {"name": "spine", "levels": LEVELS, "parts": dict.fromkeys(PARTS, "corner"), "partial": {"S1": ["a", "b"]}}
    return schema_from_dict(
        {"name": "column", "title": "Column", "chains": [chain | {"anchor": "S1"} | more]}, where="t"
    )


SCHEMA = _schema()


def _box(rank: int, *, by: tuple[float, float] = (0, 0)) -> Any:
    return BOX + np.array([50, 100 * rank]) + by


def _truth(*ranks: int, others: Status = Status.OUTSIDE, schema: LandmarkSchema = SCHEMA) -> LandmarkSet:
    """Labels of the levels of these ranks."""
    points, status = np.zeros((len(schema), 2)), np.full(len(schema), others)
    for rank in ranks:
        for part, point in zip(PARTS, _box(rank)):
            if f"{LEVELS[rank]}_{part}" in schema.names:
                index = schema.index(f"{LEVELS[rank]}_{part}")
                points[index], status[index] = point, Status.VISIBLE
    return LandmarkSet(points, status)


def _given(
    rank: int, level: str | None = None, *, by: tuple[float, float] = (0, 0), probability: float = 0.9
) -> Instance:
    """An element where that of a rank is labelled."""
    parts = ("a", "b") if level == "S1" else PARTS
    n = len(parts)
    sure = 0.8 if level else 0.0
    points = _box(rank, by=by)[:n]
    return Instance("spine", parts, points, np.zeros((n, 2, 2)), np.ones(n), probability, level, sure)


def _prediction(*instances: Instance, frame: Frame = FRAME, schema: LandmarkSchema = SCHEMA) -> Prediction:
    n = len(schema)
    return Prediction("1", np.zeros((n, 2)), np.zeros((n, 2, 2)), np.zeros(n), frame, instances=instances)


def _slots(*ranks: int, absent: float = 0.1, schema: LandmarkSchema = SCHEMA) -> Prediction:
    """A model with fixed slots that fills those of these ranks, rightly."""
    truth = _truth(*ranks, schema=schema)
    presence = np.where(truth.labelled, 0.9, absent)
    return Prediction("1", truth.points, np.zeros((len(schema), 2, 2)), presence, FRAME)


def _match(
    truth: LandmarkSet,
    prediction: Prediction,
    *,
    schema: LandmarkSchema = SCHEMA,
    presence: float | None = 0.5,
    frame: Frame = FRAME,
) -> tuple[ElementResult, ...]:
    return match_elements(schema, truth, prediction, within=0.25, presence_threshold=presence, frame=frame)


def _outcomes(found: tuple[ElementResult, ...]) -> list[tuple[str, str | None, str | None]]:
    return [(e.outcome, e.true_level, e.given_level) for e in found]


def test_each_labelled_element_takes_the_given_one_that_lies_there() -> None:
    # 12 px off is within a quarter of the diagonal of 50; 13 is not.
    given = [_given(1, "L2", by=(0, 12)), _given(2, "L3", by=(13, 0)), _given(4, "S1")]
    assert _outcomes(_match(_truth(1, 2, 4), _prediction(*given))) == [
        ("matched", "L2", "L2"),
        ("missed", "L3", None),
        ("matched", "S1", "S1"),
        ("invented", None, "L3"),
    ]


def test_names_do_not_decide_the_match() -> None:
    found = _match(_truth(0, 1, 2), _prediction(_given(0, "L2"), _given(1, "L3"), _given(2)))
    assert [(e.true_level, e.given_level, e.naming) for e in found] == [
        ("L1", "L2", "wrong"),
        ("L2", "L3", "wrong"),
        ("L3", None, "unnamed"),
    ]
    assert [e.level_probability for e in found] == [0.8, 0.8, None]


def test_as_many_as_possible_are_matched_and_then_the_nearest() -> None:
    # Two given ones near one label: the nearer is it, the other is too many.
    found = _match(_truth(2), _prediction(_given(2, "L3", by=(0, -8)), _given(2, "L4", by=(0, 5))))
    assert _outcomes(found) == [("matched", "L3", "L4"), ("invented", None, "L3")]
    assert found[0].error_px == pytest.approx(5)


def test_corners_of_a_match_are_compared_part_by_part() -> None:
    found = _match(_truth(1, 4), _prediction(_given(1, "L2", by=(3, 4)), _given(4, "S1", by=(0, 2))))
    assert [(e.corners, e.error_px) for e in found] == [(4, pytest.approx(5)), (2, pytest.approx(2))]
    in_mm = Frame(FRAME.shape, (0.5, 0.25), "user")
    found = _match(_truth(1), _prediction(_given(1, "L2", by=(6, 16))), frame=in_mm)
    assert found[0].outcome == "missed"  # 17 px; pixels count, whatever their size in mm
    found = _match(_truth(1), _prediction(_given(1, "L2", by=(6, 8))), frame=in_mm)
    assert found[0].error_mm == pytest.approx(np.hypot(3, 2))


def test_swapped_corners_are_an_element_with_large_errors() -> None:
    turned = replace(_given(1, "L2"), points=_box(1)[[1, 0, 3, 2]])
    (found,) = _match(_truth(1), _prediction(turned))
    assert found.outcome == "matched"
    assert found.error_px == pytest.approx(30)


def test_where_levels_are_unlabelled_nobody_can_say_that_a_find_is_invented() -> None:
    given = _prediction(_given(0), _given(0, by=(0, -60), probability=0.6), _given(1), _given(2), _given(3))
    # L1 and L4 are unlabelled: one find above and one below may be they, and a second one above may not.
    found = _match(_truth(1, 2, others=Status.UNLABELLED), given)
    assert Counter(e.outcome for e in found) == {"matched": 2, "unjudged": 2, "invented": 1}
    invented = next(e for e in found if e.outcome == "invented")
    assert invented.probability == 0.6
    # The same labels, where somebody said that there are no others.
    assert Counter(e.outcome for e in _match(_truth(1, 2), given)) == {"matched": 2, "invented": 3}


def test_a_vertebra_cut_by_the_border_need_not_be_found_and_may_be() -> None:
    truth = _truth(1, 2)
    status = truth.status.copy()
    for part in "abc":
        status[SCHEMA.index(f"L2_{part}")] = Status.OUTSIDE
    cut = LandmarkSet(truth.points, status)
    assert _outcomes(_match(cut, _prediction(_given(2, "L3")))) == [("unjudged", "L2", None), ("matched", "L3", "L3")]
    assert _outcomes(_match(cut, _prediction(_given(1, "L2"), _given(2, "L3")))) == [
        ("unjudged", "L2", "L2"),
        ("matched", "L3", "L3"),
    ]


def test_what_is_less_probable_than_the_threshold_is_not_given() -> None:
    doubtful = _prediction(_given(1, "L2", probability=0.4))
    assert [e.outcome for e in _match(_truth(1), doubtful)] == ["missed"]
    assert [e.outcome for e in _match(_truth(1), doubtful, presence=None)] == ["matched"]


def test_slots_are_elements_where_half_of_their_parts_are_given() -> None:
    found = _match(_truth(1, 2), _slots(0, 1, 2))
    assert _outcomes(found) == [("matched", "L2", "L2"), ("matched", "L3", "L3"), ("invented", None, "L1")]
    assert all(e.level_probability is None for e in found)
    # A model that does not know of absence gives every slot on every image.
    found = _match(_truth(1, 2), _slots(0, 1, 2), presence=None)
    assert Counter(e.outcome for e in found) == {"matched": 2, "invented": 3}


def test_slots_from_the_top_are_compared_as_published_systems_do() -> None:
    # L2 to L4 are labelled; the model passes over L2, so that L3 comes into the first slot and nothing into the last.
    found = _match(_truth(1, 2, 3), _prediction(_given(2, "L3"), _given(3, "L4")))
    assert [(e.outcome, e.error_px) for e in found] == [("missed", None), ("matched", 0), ("matched", 0)]
    corners_of_l4 = _box(3)
    to_centre = np.hypot(*(corners_of_l4 - [100, 300]).T).mean()
    assert [e.slot_px for e in found] == [pytest.approx(100), pytest.approx(100), pytest.approx(to_centre)]
    # A model with fixed slots is compared slot by slot.
    slots = _slots(1, 2, 3)
    assert [e.slot_px for e in _match(_truth(1, 2, 3), slots)] == [0, 0, 0]
    moved = replace(slots, mean=np.roll(slots.mean, 4, axis=0))  # every level in the slot below: 100 px off
    assert [e.slot_px for e in _match(_truth(2, 3), moved) if e.true_level] == [pytest.approx(100), pytest.approx(100)]


def test_a_part_that_the_slot_lacks_counts_from_the_centre_of_the_image() -> None:
    """L4 is missed, so that its slot holds the sacrum, which has two of the four corners."""
    found = _match(_truth(2, 3, 4), _prediction(_given(2), _given(4, "S1")))
    assert [e.slot_corners for e in found] == [4, 4, 2]
    # L4 from y 300 on: its upper corners are 100 px above the sacrum's, its lower ones lie at (50, 340), (80, 340).
    expected = (100 + 100 + np.hypot(50, 40) + np.hypot(20, 40)) / 4
    assert found[1].slot_px == pytest.approx(expected)


def test_finding_what_need_not_be_found_moves_no_slot() -> None:
    truth = _truth(1, 2, 3)
    status = truth.status.copy()
    status[[SCHEMA.index(f"L2_{part}") for part in "abc"]] = Status.OUTSIDE
    found = _match(LandmarkSet(truth.points, status), _prediction(_given(1), _given(2), _given(3)))
    assert [(e.outcome, e.slot_px) for e in found] == [("unjudged", None), ("matched", 0), ("matched", 0)]


def test_a_chain_without_names_has_nothing_to_name() -> None:
    schema = _schema(named=False, anchor=None, partial={})
    found = _match(_truth(0, 1, schema=schema), _prediction(_given(0), schema=schema), schema=schema)
    assert _outcomes(found) == [("matched", None, None), ("missed", None, None)]
    assert [e.naming for e in found] == [None, None]


def test_one_part_a_level_is_sized_by_the_distance_of_its_neighbours() -> None:
    chain = {"name": "spine", "levels": list(LEVELS[:3]), "parts": {"mid": "centre"}}
    schema = schema_from_dict({"name": "points", "title": "Points", "chains": [chain]}, where="t")
    truth = LandmarkSet([[50, 100], [50, 200], [50, 300]])
    mean = np.array([[50, 125], [50, 226], [50, 300]])
    prediction = Prediction("1", mean, np.zeros((3, 2, 2)), np.ones(3), FRAME)
    assert [e.outcome for e in _match(truth, prediction, schema=schema)] == ["matched", "missed", "matched", "invented"]
    alone = LandmarkSet([[50, 100], [0, 0], [0, 0]], [0, 2, 2])
    assert _match(alone, prediction, schema=schema)[0].outcome == "unjudged"


class TestBadInput:
    """What has no sensible answer has a defined one."""

    def test_no_element_given(self) -> None:
        assert [e.outcome for e in _match(_truth(0, 1), _prediction())] == ["missed", "missed"]
        values = _values(_evaluate([_truth(0, 1)], [_prediction()]))
        assert (values["spine_recall"], values["spine_precision"], values["spine_f1"]) == (0, None, 0)
        assert values["spine_mre_px"] is values["spine_level_right"] is None
        assert values["spine_missed_images"] == 100
        assert values["spine_invented_images"] == 0

    def test_no_element_on_the_image(self) -> None:
        assert _outcomes(_match(_truth(), _prediction())) == [("absent", None, None)]
        found = _match(_truth(), _prediction(_given(1, "L2")))
        assert _outcomes(found) == [("absent", None, None), ("invented", None, "L2")]
        assert _match(_truth(others=Status.UNLABELLED), _prediction()) == ()

    def test_a_gap_in_the_labels_and_one_in_the_prediction(self) -> None:
        found = _match(_truth(0, 1, 3), _prediction(_given(0), _given(2), _given(3)))
        assert Counter(e.outcome for e in found) == {"matched": 2, "missed": 1, "invented": 1}
        unknown = _truth(0, 1, 3, others=Status.UNLABELLED)
        assert Counter(e.outcome for e in _match(unknown, _prediction(_given(0), _given(1), _given(2), _given(3)))) == {
            "matched": 3,
            "unjudged": 1,
        }

    def test_out_of_order(self) -> None:
        found = _match(_truth(0, 1, 2), _prediction(_given(1, "L1"), _given(0, "L2"), _given(2, "L3")))
        assert [e.naming for e in found] == ["wrong", "wrong", "right"]
        assert [e.error_px for e in found] == [0, 0, 0]
        assert [e.slot_px for e in found] == [pytest.approx(100), pytest.approx(100), 0]

    def test_one_visible_vertebra(self) -> None:
        (found,) = _match(_truth(2), _prediction(_given(2)))
        assert (found.outcome, found.naming, found.slot_px) == ("matched", "unnamed", 0)

    def test_a_whole_spine_for_a_lumbar_chain(self) -> None:
        given = [_given(rank) for rank in range(-8, 4)]
        found = _match(_truth(0, 1, 2, 3), _prediction(*given))
        assert Counter(e.outcome for e in found) == {"matched": 4, "invented": 8}
        assert {e.naming for e in found} == {"unnamed", None}

    def test_everything_at_one_place(self) -> None:
        found = _match(_truth(0, 1), _prediction(*[_given(0)] * 3))
        assert Counter(e.outcome for e in found) == {"matched": 1, "missed": 1, "invented": 2}


def _evaluate(truths: list[LandmarkSet], predictions: list[Prediction | None], **settings: Any) -> Evaluation:
    image = ArrayImage(np.zeros(FRAME.shape))
    cases = [Case(str(i), f"s{i}", image, FRAME, truth) for i, truth in enumerate(truths)]
    given = [replace(p, case_id=str(i)) for i, p in enumerate(predictions) if p is not None]
    chosen = EvaluationSettings(draws=200, presence_threshold=0.5, **settings)
    return evaluate_predictions(SCHEMA, cases, given, chosen, name="run")


def _values(evaluation: Evaluation) -> dict[str, float | None]:
    return {name: figure.value for name, figure in evaluation.metrics.items()}


def test_figures_pool_the_counts_of_all_images() -> None:
    truths = [_truth(0, 1, 2), _truth(1, 2), _truth(2, 3)]
    predictions = [
        _prediction(_given(0, "L1", by=(3, 4)), _given(1, "L2"), _given(2, "L3")),  # 3 right
        _prediction(_given(1, "L1"), _given(2, "L2"), _given(3, "L3")),  # 2 shifted, 1 invented
        None,  # 2 missed
    ]
    found = _evaluate(truths, predictions, at_size=1202)
    values = _values(found)
    assert values["spine_recall"] == pytest.approx(100 * 5 / 7)
    assert values["spine_precision"] == pytest.approx(100 * 5 / 6)
    assert values["spine_f1"] == pytest.approx(100 * 10 / 13)
    assert values["spine_invented_images"] == pytest.approx(100 / 3)
    assert values["spine_missed_images"] == pytest.approx(100 / 3)
    assert (values["spine_level_right"], values["spine_level_wrong"], values["spine_level_unnamed"]) == (60, 40, 0)
    assert values["spine_shifted_images"] == pytest.approx(100 / 3)
    assert values["spine_mre_px"] == pytest.approx(4 * 5 / 20)
    assert values["spine_mre_px_at_1202"] == pytest.approx(2.0)
    # Slots count from the top, whatever the elements are called: the same elements are compared.
    assert values["spine_slots_mre_px"] == pytest.approx(1.0)
    assert "spine_mre_mm" not in values
    counts = {name: found.metrics[f"spine_{name}"].n for name in ("recall", "precision", "invented_images", "mre_px")}
    assert counts == {"recall": 7, "precision": 6, "invented_images": 3, "mre_px": 20}


def test_intervals_resample_subjects() -> None:
    # Two subjects, all found or none: a resample holds 2, 1 or 0 of the one, so that recall is 100, 50 or 0 %.
    found = _evaluate([_truth(0), _truth(0)], [_prediction(_given(0, "L1")), _prediction()])
    recall = found.metrics["spine_recall"]
    assert (recall.value, recall.low, recall.high) == (50, 0, 100)


def test_slot_models_and_finders_are_scored_alike() -> None:
    slots, finder = (
        _values(_evaluate([_truth(1, 2)], [p])) for p in (_slots(1, 2), _prediction(_given(1, "L2"), _given(2, "L3")))
    )
    assert {name: v for name, v in slots.items() if name.startswith("spine_")} == {
        name: v for name, v in finder.items() if name.startswith("spine_")
    }


def test_an_anatomy_without_a_chain_has_no_such_figures() -> None:
    schema = schema_from_dict({"name": "p", "title": "P", "landmarks": [{"name": "a", "label": "A"}]}, where="t")
    case = Case("1", "1", ArrayImage(np.zeros((20, 20))), Frame((20, 20), None, "none"), LandmarkSet([[5, 5]]))
    prediction = Prediction("1", np.array([[5.0, 5.0]]), np.zeros((1, 2, 2)), np.ones(1), case.frame)
    found = evaluate_predictions(schema, [case], [prediction], EvaluationSettings(draws=200), name="run")
    assert found.cases[0].elements == ()
    assert not any("recall" in name or "slots" in name for name in found.metrics)


def test_notes_say_how_missing_names_and_spare_elements_count() -> None:
    unnamed = _evaluate([_truth(0, 1), _truth(0)], [_prediction(_given(0), _given(1)), _prediction(_given(0, "L1"))])
    assert "On 1 of 2 images no element of 'spine' could be named: S1 was not found." in unnamed.notes
    assert any("spine_mre takes found elements as they lie" in note for note in unnamed.notes)
    whole = _evaluate([_truth(0)], [_prediction(*[_given(rank) for rank in range(6)])])
    assert any("On 1 of 1 images more elements of 'spine' were given than it has levels (5)" in n for n in whole.notes)
    right = _evaluate([_truth(0)], [_prediction(_given(0, "L1"))])
    assert not any("spine" in note for note in right.notes)
