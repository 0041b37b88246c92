"""``inspect --audit``: what it writes, and which predictions it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from bregma.errors import ConfigError, InputError, SchemaError, SplitError
from bregma.phantoms import make_phantoms
from bregma.types import Dataset, LandmarkSet
from bregma.workflows import inspect


@pytest.fixture(scope="module")
def chests() -> Dataset:
    """Thirty chests; on the fourth, two landmarks are exchanged."""
    data = make_phantoms("chest", 30, seed=3, size=96, difficulty="easy")
    cases = list(data.cases)
    marks = cases[3].landmarks
    assert marks is not None
    order = list(range(len(marks)))
    order[2], order[5] = 5, 2
    cases[3] = replace(cases[3], landmarks=LandmarkSet(marks.points[order], marks.status))
    return replace(data, cases=tuple(cases))


def test_writes_the_suspects_and_draws_the_worst(chests: Dataset, tmp_path: Path) -> None:
    found = inspect(chests, out=tmp_path / "look", images=4, audit=True)
    assert found.audit is not None
    assert [path.name for path in found.audit_files] == ["audit.csv", "audit.json", "audit_sheet.png"]
    with (tmp_path / "look" / "audit.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    names = chests.schema.names
    assert {(row["case"], row["landmark"]) for row in rows[:2]} == {(chests.cases[3].id, names[k]) for k in (2, 5)}
    assert all(float(row["weight"]) == pytest.approx(1 - float(row["score"]), abs=2e-6) for row in rows)
    summary = json.loads((tmp_path / "look" / "audit.json").read_text())
    assert summary["cases"][0]["case"] == chests.cases[3].id
    assert found.to_dict()["suspects"][0]["case_id"] == chests.cases[3].id
    sheet = cv2.imread(str(tmp_path / "look" / "audit_sheet.png"))
    assert sheet is not None
    assert sheet.std() > 10


def test_without_audit_nothing_is_judged(spots: Dataset) -> None:
    found = inspect(spots)
    assert found.audit is None
    assert found.to_dict()["suspects"] is None


def test_out_of_fold_predictions_are_compared(spots: Dataset, run: Path) -> None:
    found = inspect(spots, audit=True, predictions=[run / "evaluation" / "test"])
    assert found.audit is not None
    assert "prediction" in {entry.source for entry in found.audit.evidence}
    assert any("have no prediction" in note for note in found.audit.notes)


class TestRefused:
    def test_predictions_without_an_audit(self, spots: Dataset, run: Path) -> None:
        with pytest.raises(ConfigError, match="predictions serve the audit"):
            inspect(spots, predictions=[run / "evaluation" / "test"])

    def test_predictions_of_images_trained_on(self, spots: Dataset, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "run"
        shutil.copytree(run / "evaluation", copy / "evaluation")
        shutil.copy(run / "plan.json", copy)
        split = json.loads((run / "split.json").read_text())
        split["parts"]["train"] += split["parts"]["test"]
        (copy / "split.json").write_text(json.dumps(split))
        with pytest.raises(SplitError, match="3 predictions are of images that the model was trained on"):
            inspect(spots, audit=True, predictions=[copy / "evaluation" / "test"])

    def test_predictions_of_another_anatomy(self, chests: Dataset, run: Path) -> None:
        with pytest.raises(SchemaError, match="another anatomy") as caught:
            inspect(chests, audit=True, predictions=[run / "evaluation" / "test"])
        assert "15 landmarks of 'chest', got 2" in str(caught.value)

    def test_no_such_file(self, spots: Dataset, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"absent\.jsonl"):
            inspect(spots, audit=True, predictions=[tmp_path / "absent.jsonl"])
