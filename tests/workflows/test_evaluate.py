"""``evaluate`` and ``compare``: which images are scored, where the figures go, and what is said about them."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from bregma.bundle import PredictConfig, load_bundle
from bregma.errors import BregmaError, BundleError, ConfigError, InputError, RunError, SchemaError, SplitError
from bregma.evaluation import EvaluationSettings
from bregma.phantoms import make_phantoms
from bregma.prediction.predictor import Predictor
from bregma.types import ArrayImage, Dataset
from bregma.workflows import TrainResult, compare, evaluate, measure, train
from bregma.workflows.evaluation import evaluate_folds

CPU = PredictConfig(accelerator="cpu")
DRAWS = EvaluationSettings(draws=100)


def score(run: Path, data: Dataset, out: Path | None = None, **changes: Any) -> Any:
    return evaluate(run, data, out=out, settings=DRAWS, predict=CPU, **changes)


def ids(evaluation: Any) -> set[str]:
    return {result.case.id for result in evaluation.cases}


class TestEvaluate:
    def test_figures_are_those_of_the_predictions(self, run: Path, spots: Dataset, tmp_path: Path) -> None:
        found = score(run, spots, tmp_path / "out")
        cases = spots.select(spots.splits["test"])
        predictions = Predictor([load_bundle(run)], CPU).predict(cases)
        errors = [np.linalg.norm(p.mean - c.landmarks.points, axis=1) for p, c in zip(predictions, cases)]
        assert found.metrics["mre_px"].value == pytest.approx(np.mean(errors), rel=1e-12)
        stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert stored["mre_px"]["value"] == found.metrics["mre_px"].value
        # Pixels are 0.5 mm wide.
        assert stored["mre_mm"]["value"] == pytest.approx(0.5 * stored["mre_px"]["value"], rel=1e-12)

    def test_files(self, run: Path, spots: Dataset, tmp_path: Path) -> None:
        score(run, spots, tmp_path / "out")
        names = {path.name for path in (tmp_path / "out").iterdir()}
        tables = {"cases.csv", "points.csv", "landmarks.csv", "measurements.csv"}
        assert names == {"metrics.json", "evaluation.json", "schema.json", "predictions.jsonl", "report.html"} | tables
        assert "spots test" in (tmp_path / "out" / "report.html").read_text()
        measured = measure(tmp_path / "out")
        assert measured.keys() == set(spots.splits["test"])

    @pytest.mark.parametrize(("part", "expected"), [(None, "test"), ("val", "val"), ("train", "train"), ("all", None)])
    def test_the_part_decides_the_images(
        self, run: Path, spots: Dataset, tmp_path: Path, part: str | None, expected: str | None
    ) -> None:
        found = score(run, spots, tmp_path / "out", part=part)
        assert ids(found) == (set(spots.splits[expected]) if expected else {case.id for case in spots})
        told = [note for note in found.notes if "learned from" in note]
        assert told == (
            ["8 of these images were learned from, so the figures are too good."] if part in ("train", "all") else []
        )

    def test_the_run_s_own_split_counts_not_the_one_of_the_data(
        self, run: Path, spots: Dataset, tmp_path: Path
    ) -> None:
        swapped = replace(spots, splits={"test": spots.splits["train"]})
        assert ids(score(run, swapped, tmp_path / "out")) == set(spots.splits["test"])

    def test_a_bare_bundle_is_scored_on_everything_and_stays_clean(
        self, run: Path, spots: Dataset, tmp_path: Path
    ) -> None:
        bundle = Path(shutil.copytree(run / "bundle", tmp_path / "model"))
        before = sorted(path.name for path in bundle.iterdir())
        assert ids(score(bundle, spots)) == {case.id for case in spots}
        assert sorted(path.name for path in bundle.iterdir()) == before
        assert (tmp_path / "model-evaluation" / "all" / "report.html").is_file()

    def test_of_a_run_it_lies_in_the_run(self, run: Path, spots: Dataset, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(run, tmp_path / "copy"))
        score(copy, spots, part="val")
        assert (copy / "evaluation" / "val" / "metrics.json").is_file()

    def test_an_image_that_cannot_be_read_is_noted(self, run: Path, spots: Dataset, tmp_path: Path) -> None:
        broken = spots.splits["test"][0]
        cases = tuple(
            replace(case, image=ArrayImage(np.zeros((64, 64, 3)))) if case.id == broken else case for case in spots
        )
        found = score(run, replace(spots, cases=cases), tmp_path / "out")
        assert ids(found) == set(spots.splits["test"]) - {broken}
        assert any(note.startswith(f"{broken} could not be predicted") for note in found.notes)

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            (lambda d: replace(d, cases=d.cases[:9]), SplitError, ["3 of 3 cases", "'test'", "no case 'c11'", "'all'"]),
            (lambda d: make_phantoms("fetal_head", 3, size=64), SplitError, ["3 of 3 cases"]),
        ],
    )
    def test_data_without_the_run_s_cases(
        self, run: Path, spots: Dataset, tmp_path: Path, change: Any, error: type[BregmaError], words: list[str]
    ) -> None:
        with pytest.raises(error) as caught:
            score(run, change(replace(spots, splits={})), tmp_path / "out")
        for word in words:
            assert word in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_refusals(self, run: Path, spots: Dataset, tmp_path: Path) -> None:
        with pytest.raises(SplitError, match=r"there is no part 'tset'; expected one of train, val, test, all"):
            score(run, spots, tmp_path / "out", part="tset")
        heads = make_phantoms("fetal_head", 2, size=64)
        with pytest.raises(SchemaError, match=r"not of the model's anatomy; expected 2 landmarks of 'spots', got 4"):
            score(run, heads, tmp_path / "out", part="all")
        with pytest.raises(BundleError, match="is not a bundle"):
            score(tmp_path / "absent", spots, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("file", "words"), [("split.json", "split.json"), ("plan.json", "is not a plan")])
    def test_a_spoilt_run_is_named(self, run: Path, spots: Dataset, tmp_path: Path, file: str, words: str) -> None:
        copy = Path(shutil.copytree(run, tmp_path / "copy"))
        (copy / file).write_text("{}")
        with pytest.raises(RunError, match=words):
            score(copy, spots)


class TestCompare:
    @pytest.fixture(scope="module")
    @staticmethod
    def other(tmp_path_factory: pytest.TempPathFactory, spots: Dataset) -> Path:
        out = tmp_path_factory.mktemp("runs") / "second"
        return train(spots, out, overrides=[*tiny.OVERRIDES, "train.seed=3"]).run

    def test_side_by_side(self, trained: TrainResult, other: Path, tmp_path: Path) -> None:
        table = compare([trained.run, other], out=tmp_path / "c", settings=DRAWS)
        assert table.runs == ("first", "second")
        assert (table.cases, table.subjects) == (3, 3)
        rows = {row.metric: row for row in table.rows}
        mre = rows["mre_px"]
        assert mre.figures[0].value == pytest.approx(trained.evaluation.metrics["mre_px"].value, rel=1e-12)
        assert mre.differences[0] is None
        assert mre.differences[1].value == pytest.approx(mre.figures[1].value - mre.figures[0].value, rel=1e-9)
        assert json.loads((tmp_path / "c" / "comparison.json").read_text())["runs"] == ["first", "second"]
        assert "first" in (tmp_path / "c" / "comparison.html").read_text()

    def test_headings(self, run: Path, other: Path, tmp_path: Path) -> None:
        table = compare([run, other], out=tmp_path, names=["plain", "better"], settings=DRAWS)
        assert table.runs == ("plain", "better")
        for names in (["one"], ["a", "a"], ["a", "b", "c"]):
            with pytest.raises(ConfigError, match=r"names: .*expected 2 different names"):
                compare([run, other], out=tmp_path, names=names)

    def test_refusals(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="two runs"):
            compare([run], out=tmp_path / "c")
        with pytest.raises(SplitError, match=r"has not been evaluated on 'train'.*bregma evaluate"):
            compare([run, run], out=tmp_path / "c", part="train")
        with pytest.raises(SplitError, match="has not been evaluated"):
            compare([run, tmp_path], out=tmp_path / "c")
        assert not (tmp_path / "c").exists()


def test_the_table_of_measurements_fits_the_labels(run: Path, spots: Dataset) -> None:
    with (run / "evaluation" / "test" / "measurements.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    for case in spots.select(spots.splits["test"]):
        gap = 0.5 * float(np.linalg.norm(case.landmarks.points[0] - case.landmarks.points[1]))
        assert float(rows[case.id]["true"]) == pytest.approx(gap, rel=1e-12)
        assert rows[case.id]["true_grade"] == ("large" if gap >= 10 else "small")


def test_images_that_failed_in_their_fold_count_as_failures(run: Path, spots: Dataset, tmp_path: Path) -> None:
    for part in ("val", "test"):
        score(run, spots, tmp_path / part, part=part)
    folds = [tmp_path / "val", tmp_path / "test"]
    lost = spots.splits["train"][0]
    clean = evaluate_folds(folds, spots, out=tmp_path / "clean", name="folds")
    held_out = [*spots.splits["val"], *spots.splits["test"], lost]
    whole = evaluate_folds(folds, spots, out=tmp_path / "whole", name="folds", held_out=held_out)
    assert whole.agreements[0].failed == clean.agreements[0].failed + 1
    assert any(f"no prediction and count as failures of all their landmarks: {lost}" in note for note in whole.notes)
    assert whole.metrics["mre_px"].value == clean.metrics["mre_px"].value
