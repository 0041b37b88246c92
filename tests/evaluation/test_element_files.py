"""``elements.csv`` written, read back, and compared between runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bregma.errors import InputError
from bregma.evaluation import EvaluationSettings, compare_runs, evaluate_predictions, save_evaluation
from bregma.evaluation.element_files import load_elements, save_elements
from bregma.evaluation.stored import load_run, pooled
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.results import CaseResult, ElementResult, Evaluation
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction

PARTS = ("a", "b", "c", "d")
SCHEMA = schema_from_dict(
    {
        "name": "column",
        "title": "Column",
        "chains": [{"name": "spine", "levels": ["L1", "L2"], "parts": dict.fromkeys(PARTS, "corner")}],
    },
    where="t",
)
POINTS = np.array([[50, 100], [80, 100], [50, 140], [80, 140], [50, 200], [80, 200], [50, 240], [80, 240]], dtype=float)
FRAME = Frame((401, 201), (0.5, 0.5), "user")


def _evaluate(found: int, *, by: float = 0.0, name: str = "run") -> Evaluation:
    """Four images with L1 and L2, of which the model finds the first ``found``, off by ``by`` px, on each."""
    cases = [Case(str(i), f"s{i}", ArrayImage(np.zeros(FRAME.shape)), FRAME, LandmarkSet(POINTS)) for i in range(4)]
    moved = POINTS + np.array([0.0, by])
    given = tuple(
        Instance("spine", PARTS, moved[4 * k : 4 * k + 4], np.zeros((4, 2, 2)), np.ones(4), 0.75, level, 0.9)
        for k, level in list(enumerate(("L1", "L2")))[:found]
    )
    silent = Prediction("", np.zeros((8, 2)), np.zeros((8, 2, 2)), np.zeros(8), FRAME, instances=given)
    settings = EvaluationSettings(draws=200, presence_threshold=0.5)
    return evaluate_predictions(SCHEMA, cases, [replace(silent, case_id=c.id) for c in cases], settings, name=name)


def test_round_trip(tmp_path: Path) -> None:
    evaluation = _evaluate(1, by=3.0)
    save_evaluation(evaluation, tmp_path)
    stored = load_run(tmp_path).elements
    assert stored == {result.case.id: result.elements for result in evaluation.cases}
    assert stored["0"][0].error_mm == 1.5
    text = (tmp_path / "elements.csv").read_text(encoding="utf-8").splitlines()
    assert text[0].startswith("case,chain,outcome,true_level,given_level,probability")
    assert text[1].startswith("0,spine,matched,L1,L1,0.75,0.9,4,3.0,1.5")
    assert len(text) == 1 + 8


@pytest.mark.parametrize(
    "element",
    [
        ElementResult("spine", "absent"),
        ElementResult("spine", "invented", None, None, 0.6),
        ElementResult("spine", "unjudged", "L1", "L2", 0.6, 0.5),
        ElementResult("spine", "missed", "L1", slot_corners=4, slot_px=0.1 + 0.2),
    ],
)
def test_every_outcome_round_trips(tmp_path: Path, element: ElementResult) -> None:
    case = Case("1", "s", ArrayImage(np.zeros(FRAME.shape)), FRAME, LandmarkSet(POINTS))
    prediction = Prediction("1", POINTS, np.zeros((8, 2, 2)), np.ones(8), FRAME)
    result = CaseResult(case, LandmarkSet(POINTS), prediction, np.zeros(8), None, np.ones(8), 0.0, 0)
    save_elements(tmp_path / "elements.csv", [replace(result, elements=(element,))])
    assert load_elements(tmp_path / "elements.csv") == {"1": (element,)}


def test_an_unknown_outcome_is_named(tmp_path: Path) -> None:
    save_evaluation(_evaluate(1), tmp_path)
    path = tmp_path / "elements.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("missed", "lost"), encoding="utf-8")
    with pytest.raises(InputError, match="unknown outcome") as caught:
        load_elements(path)
    assert "line 3" in str(caught.value)


def test_runs_are_compared_on_their_elements(tmp_path: Path) -> None:
    for name, found in (("one", 1), ("both", 2)):
        save_evaluation(_evaluate(found, name=name), tmp_path / name)
    table = compare_runs([tmp_path / "one", tmp_path / "both"])
    row = next(row for row in table.rows if row.metric == "spine_recall")
    assert [figure.value for figure in row.figures] == [50, 100]
    assert row.differences[1] is not None
    assert row.differences[1].value == 50
    assert row.lower_is_better is False


def test_seeds_are_pooled(tmp_path: Path) -> None:
    for name, found in (("one", 1), ("both", 2)):
        save_evaluation(_evaluate(found, name=name), tmp_path / name)
    both = pooled([load_run(tmp_path / "one"), load_run(tmp_path / "both")], "both seeds")
    assert len(both.elements) == 8
    assert [e.outcome for e in both.elements["0 (seed 1)"]] == ["matched", "missed"]
