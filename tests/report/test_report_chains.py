"""The chains of a report: figures, levels, what went wrong and where, and how elements are drawn."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bregma.evaluation import EvaluationSettings, evaluate_predictions
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.measurement import measure_prediction
from bregma.report import write_prediction_report, write_report
from bregma.report.canvas import PREDICTION
from bregma.report.chain_marks import UNNAMED
from bregma.report.chains import chain_headlines, chain_sections, element_lines
from bregma.report.measure_marks import COLOURS
from bregma.report.overlay import draw_overlay
from bregma.report.words import metric_words
from bregma.results import Evaluation
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Status

LEVELS = ("L1", "L2", "L3")
PARTS = ("a", "b", "c", "d")
FRAME = Frame((400, 300), None, "none")


def _schema(**more: Any) -> LandmarkSchema:
    chain = {"name": "spine", "levels": LEVELS, "parts": dict.fromkeys(PARTS, "corner")} | more
    return schema_from_dict({"name": "column", "title": "Column", "chains": [chain]}, where="t")


SCHEMA = _schema()


def _box(rank: int) -> np.ndarray:
    y = 60.0 + 100 * rank
    return np.array([[120, y], [180, y], [120, y + 60], [180, y + 60]])


def _given(rank: int, level: str | None, sure: float = 0.98) -> Instance:
    return Instance("spine", PARTS, _box(rank), np.zeros((4, 2, 2)), np.ones(4), 0.9, level, sure if level else 0.0)


def _prediction(case: str, *given: Instance) -> Prediction:
    """What a model that finds elements says: the named ones are landmarks too."""
    mean, presence = np.full((12, 2), 150.0), np.zeros(12)
    for one in given:
        for part, point in zip(PARTS, one.points) if one.level else ():
            mean[SCHEMA.index(f"{one.level}_{part}")] = point
            presence[SCHEMA.index(f"{one.level}_{part}")] = 1.0
    return Prediction(case, mean, np.zeros((12, 2, 2)), presence, FRAME, instances=given)


def _case(name: str, *ranks: int) -> Case:
    points, status = np.zeros((12, 2)), np.full(12, Status.OUTSIDE)
    for rank in ranks:
        points[4 * rank : 4 * rank + 4], status[4 * rank : 4 * rank + 4] = _box(rank), Status.VISIBLE
    return Case(name, name, ArrayImage(np.zeros(FRAME.shape)), FRAME, LandmarkSet(points, status))


@pytest.fixture
def evaluation() -> Evaluation:
    """Three images: all right; shifted by a level, with one invented; one unnamed, one missed."""
    cases = [_case("good", 0, 1, 2), _case("shifted", 1, 2), _case("poor", 0, 1)]
    predictions = [
        _prediction("good", *(_given(rank, level) for rank, level in enumerate(LEVELS))),
        _prediction("shifted", _given(0, None), _given(1, "L1"), _given(2, "L2")),
        _prediction("poor", _given(0, None)),
    ]
    settings = EvaluationSettings(draws=200, presence_threshold=0.5)
    return evaluate_predictions(SCHEMA, cases, predictions, settings, name="run")


def test_levels_and_faults(evaluation: Evaluation) -> None:
    (section,) = chain_sections(evaluation)
    rows = [(r.level, r.labelled, r.found, r.right, r.wrong, r.unnamed) for r in section.levels]
    assert rows == [("L1", 2, 2, 1, "", 1), ("L2", 3, 2, 1, "L1 1", 0), ("L3", 2, 2, 1, "L2 1", 0)]
    assert section.faults == (
        ("invented: given where the labels have none", 1, "shifted"),
        ("missed", 1, "poor"),
        ("given the name of another level", 2, "shifted"),
        ("found but not named", 1, "poor"),
    )
    assert [row["name"] for row in section.metrics][:3] == ["spine_recall", "spine_precision", "spine_f1"]
    assert not any(row["words"] == row["name"] for row in section.metrics)


def test_the_page_has_the_section_once(evaluation: Evaluation, tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", evaluation).read_text(encoding="utf-8")
    assert text.count("<h2>Chain: spine</h2>") == 1
    assert text.count("<code>spine_recall</code>") == 1
    assert "Images with a shifted level" in text
    assert re.search(r"On 1 of 3 images no element of .{1,8}spine.{1,8} could be named", text)


def test_slots_that_are_always_full_need_no_section(evaluation: Evaluation) -> None:
    cases = [_case("1", 0, 1, 2)]
    mean = np.concatenate([_box(rank) for rank in range(3)])
    slots = Prediction("1", mean, np.zeros((12, 2, 2)), np.ones(12), FRAME)
    settings = EvaluationSettings(draws=200)
    whole = evaluate_predictions(SCHEMA, cases, [slots], settings, name="run")
    assert "spine_recall" in whole.metrics
    assert chain_sections(whole) == []
    part = evaluate_predictions(SCHEMA, [_case("1", 0, 1)], [slots], settings, name="run")
    (section,) = chain_sections(part)
    assert section.faults == (("invented: given where the labels have none", 1, "1"),)


def test_captions_and_headlines(evaluation: Evaluation) -> None:
    lines = {result.case.id: element_lines(SCHEMA, result) for result in evaluation.cases}
    assert lines == {
        "good": ("spine: 3 of 3 found",),
        "shifted": ("spine: 2 of 2 found, 1 invented, 2 named wrongly",),
        "poor": ("spine: 1 of 2 found, 1 unnamed",),
    }
    names = chain_headlines(evaluation, chain_sections(evaluation))
    assert names == ["spine_f1", "spine_level_right", "spine_mre_px"]


def test_no_element_at_all(tmp_path: Path) -> None:
    found = evaluate_predictions(
        SCHEMA, [_case("1", 0)], [_prediction("1")], EvaluationSettings(draws=200, presence_threshold=0.5), name="run"
    )
    text = write_report(tmp_path / "report.html", found).read_text(encoding="utf-8")
    assert "<h2>Chain: spine</h2>" in text


LUMBAR = load_schema("lumbar_lateral")
BAD: dict[str, list[tuple[int, str | None]]] = {
    "a gap": [(0, None), (1, None), (3, None)],
    "out of order": [(1, "L3"), (0, "L4"), (2, "L5"), (3, "S1")],
    "one vertebra": [(2, None)],
    "a whole spine": [(place, None) for place in range(12)],
    "none": [],
    "all at one place": [(1, None)] * 3,
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_goes_through_metrics_measurement_and_both_reports(bad: str, tmp_path: Path) -> None:
    frame = Frame((700, 300), (0.5, 0.5), "user")
    labels, status = np.zeros((len(LUMBAR), 2)), np.full(len(LUMBAR), Status.OUTSIDE)
    mean, presence = np.zeros((len(LUMBAR), 2)), np.zeros(len(LUMBAR))
    instances = []
    for place, level in enumerate(["L3", "L4", "L5", "S1"]):
        for part, point in zip(LUMBAR.chain("vertebrae").parts_of(level), _vertebra(place)):
            labels[LUMBAR.index(f"{level}_{part}")] = point
            status[LUMBAR.index(f"{level}_{part}")] = Status.VISIBLE
    for place, level in BAD[bad]:
        parts = LUMBAR.chain("vertebrae").parts_of(level or "L5")
        points, n = _vertebra(place)[: len(parts)], len(parts)
        sure = 0.9 if level else 0.0
        cov = np.repeat(np.eye(2)[None], n, axis=0)
        instances.append(Instance("vertebrae", parts, points, cov, np.ones(n), 0.9, level, sure))
        for part, point in zip(parts, points) if level else ():
            mean[LUMBAR.index(f"{level}_{part}")], presence[LUMBAR.index(f"{level}_{part}")] = point, 1.0
    case = Case("1", "1", ArrayImage(np.zeros(frame.shape)), frame, LandmarkSet(labels, status))
    prediction = Prediction("1", mean, np.zeros((len(LUMBAR), 2, 2)), presence, frame, instances=tuple(instances))
    settings = EvaluationSettings(draws=200, presence_threshold=0.5)
    found = evaluate_predictions(LUMBAR, [case], [prediction], settings, name="run")
    assert all(m.value is not None or m.reason for m in found.cases[0].measured)
    assert write_report(tmp_path / "report.html", found).is_file()
    measured = measure_prediction(LUMBAR, prediction)
    assert write_prediction_report(tmp_path / "p.html", LUMBAR, [(case.image, prediction, measured)]).is_file()


def _vertebra(place: int) -> np.ndarray:
    y = 20.0 + 50 * place
    return np.array([[120, y], [170, y], [120, y + 38], [170, y + 38]])


def test_metrics_in_words() -> None:
    assert metric_words("spine_level_right", SCHEMA) == "spine: found ones with the right level"
    assert metric_words("spine_slots_mre_px_at_1024", SCHEMA).endswith("all, slot by slot, images at 1024 px")
    assert metric_words("spine_other", SCHEMA) == "spine_other"


def _draw(*given: Instance, schema: LandmarkSchema = SCHEMA) -> np.ndarray:
    prediction = _prediction("1", *given)
    return draw_overlay(np.zeros(FRAME.shape), schema=schema, prediction=prediction, size=400, legend=False)


def _count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 40).sum())


def test_elements_without_a_name_are_dashed_and_grey() -> None:
    picture = _draw(_given(1, None))
    assert _count(picture[150:230, 110:190], UNNAMED) > 100
    assert _count(picture, PREDICTION) == 0
    # Dashes: along the left side of the box some pixels are grey and some are not.
    side = np.abs(picture[165:215, 119:122].astype(int) - UNNAMED).max(axis=2).min(axis=1) < 60
    assert 0.2 < side.mean() < 0.8


def test_levels_are_written_beside_elements_and_doubtful_ones_with_their_probability() -> None:
    plain = _draw(replace(_given(1, "L2"), level=None, level_probability=0.0))
    sure, doubtful = _draw(_given(1, "L2")), _draw(_given(1, "L2", sure=0.6))
    beside = np.s_[150:240, 190:300]
    assert _count(sure[beside], PREDICTION) > 10
    assert _count(doubtful[beside], PREDICTION) > 1.5 * _count(sure[beside], PREDICTION)
    assert _count(plain[beside], PREDICTION) == 0


def test_a_chain_without_names_has_no_unnamed_elements() -> None:
    schema = _schema(named=False)
    assert _count(_draw(_given(1, None), schema=schema), UNNAMED) == 0


def test_what_is_measured_without_names_is_drawn_on_its_elements() -> None:
    frame, n = Frame((300, 300)), len(LUMBAR)
    parts = LUMBAR.chain("vertebrae").parts_of("L5")
    found = tuple(
        Instance("vertebrae", parts, _vertebra(place), np.zeros((4, 2, 2)), np.ones(4), 0.9) for place in (1, 2)
    )
    prediction = Prediction("1", np.zeros((n, 2)), np.zeros((n, 2, 2)), np.zeros(n), frame, instances=found)
    slip = [m for m in measure_prediction(LUMBAR, prediction) if m.name == "slip_percent" and m.value is not None]
    assert [m.level for m in slip] == ["2nd-1st from below"]
    image = np.zeros(frame.shape)
    bare, drawn = (
        draw_overlay(image, schema=LUMBAR, prediction=prediction, measurements=rows, size=300, legend=False)
        for rows in ([], slip)
    )
    changed = np.abs(drawn.astype(int) - bare).max(axis=2) > 40
    assert changed[95:135, 110:180].any(), "nothing on the endplates between the two"
    assert _count(drawn, COLOURS[0]) > _count(bare, COLOURS[0])
