"""Paired comparison of saved runs, against scipy and hand-worked corrections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bregma.errors import InputError
from bregma.evaluation import EvaluationSettings, compare_runs, evaluate_predictions, save_evaluation
from bregma.evaluation.compare import _some, holm, signed_rank_p
from bregma.evaluation.stored import load_run
from bregma.evaluation.study import compare_arms
from bregma.geometry import Frame
from bregma.results import ComparisonRow, ComparisonTable
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction, Value

SETTINGS = EvaluationSettings(draws=400)
FRAME = Frame((100, 200))
POINTS = np.array([[20.0, 20.0], [60.0, 20.0]])


def _schema(**more: object) -> LandmarkSchema:
    landmarks = [{"name": "a", "label": "A"}, {"name": "b", "label": "B"}]
    return schema_from_dict({"name": "pair", "title": "Pair", "landmarks": landmarks} | more, where="test")


def _save(
    folder: Path,
    errors: np.ndarray,
    *,
    first: int = 0,
    subjects: list[str] | None = None,
    schema: LandmarkSchema | None = None,
    points: np.ndarray = POINTS,
    settings: EvaluationSettings = SETTINGS,
) -> Path:
    """Save a run whose error at both landmarks of case i is ``errors[i]`` along y."""
    cases, predictions = [], []
    for i, error in enumerate(errors, start=first):
        subject = f"p{i}" if subjects is None else subjects[i - first]
        cases.append(Case(f"c{i}", subject, ArrayImage(np.zeros((100, 200))), FRAME, LandmarkSet(points)))
        predictions.append(Prediction(f"c{i}", points + np.array([0.0, error]), np.zeros((2, 2, 2)), np.ones(2), FRAME))
    save_evaluation(evaluate_predictions(schema or _schema(), cases, predictions, settings, name=folder.name), folder)
    return folder


def _row(table: ComparisonTable, metric: str) -> ComparisonRow:
    return next(row for row in table.rows if row.metric == metric)


@pytest.fixture
def errors() -> np.ndarray:
    return np.random.default_rng(0).uniform(1.0, 9.0, 30)


def test_a_constant_gain_is_seen_through_the_spread(tmp_path: Path, errors: np.ndarray) -> None:
    table = compare_runs([_save(tmp_path / "old", errors), _save(tmp_path / "new", errors - 0.5)])
    assert table.runs == ("old", "new")
    assert table.name == "new against old"
    assert (table.cases, table.subjects) == (30, 30)
    row = _row(table, "mre_px")
    assert row.figures[0].value == pytest.approx(errors.mean())
    assert row.differences[0] is None
    difference = row.differences[1]
    assert difference is not None
    # Paired: every resample differs by the same half pixel, though the runs' own intervals overlap widely.
    assert (difference.value, difference.low, difference.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert row.figures[1].high > row.figures[0].low  # type: ignore[operator]
    assert row.p_values[1] is not None
    assert row.p_values[1] < 1e-4
    assert row.lower_is_better is True
    assert _row(table, "sdr_2px").lower_is_better is False


def test_p_values_are_scipy_s_with_holm_s_correction(tmp_path: Path, errors: np.ndarray) -> None:
    other = errors + np.random.default_rng(1).normal(0.3, 1.0, 30)
    table = compare_runs([_save(tmp_path / "a", errors), _save(tmp_path / "b", np.abs(other))])
    tested = [row for row in table.rows if row.p_values[1] is not None]
    raw = []
    for row in tested:
        if row.metric == "mre_px":
            difference = np.abs(other) - errors
        elif row.metric == "outliers_per_image":
            difference = 2.0 * (np.abs(other) > 10) - 2.0 * (errors > 10)
        else:
            radius = float(row.metric.removeprefix("sdr_").removesuffix("px"))
            difference = 100.0 * (np.abs(other) <= radius) - 100.0 * (errors <= radius)
        raw.append(float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0)
    order = np.argsort(raw)
    expected, largest = np.empty(len(raw)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, raw[index] * (len(raw) - rank)))
        expected[index] = largest
    np.testing.assert_allclose([row.p_values[1] for row in tested], expected, rtol=1e-9)
    assert [row.metric for row in tested][:1] == ["mre_px"]
    assert any("Holm" in note for note in table.notes)


def test_no_difference_is_said_to_be_none(tmp_path: Path, errors: np.ndarray) -> None:
    table = compare_runs([_save(tmp_path / "a", errors), _save(tmp_path / "b", errors[::-1])])
    row = _row(table, "mre_px")
    assert row.differences[1] is not None
    assert row.differences[1].low < 0 < row.differences[1].high  # type: ignore[operator]
    assert any(note.startswith("b: the difference from a may be zero in mre_px") for note in table.notes)


def test_a_run_against_itself(tmp_path: Path, errors: np.ndarray) -> None:
    folder = _save(tmp_path / "a", errors)
    table = compare_runs([folder, folder], names=["a", "again"])
    row = _row(table, "mre_px")
    assert row.differences[1] is not None
    assert row.differences[1].value == 0
    assert row.p_values[1] == 1.0


def test_only_shared_cases_count_and_the_rest_is_noted(tmp_path: Path, errors: np.ndarray) -> None:
    first = _save(tmp_path / "a", errors[:20])
    second = _save(tmp_path / "b", errors[10:] + 1.0, first=10)
    table = compare_runs([first, second])
    assert table.cases == 10
    assert _row(table, "mre_px").figures[0].value == pytest.approx(errors[10:20].mean())
    assert _row(table, "mre_px").figures[0].n == 20
    assert any("a: 10 of its 20 cases" in note for note in table.notes)
    assert any("b: 10 of its 20 cases" in note for note in table.notes)
    assert any("Only 10 subjects" in note for note in table.notes)


def test_pairs_are_subjects_not_images(tmp_path: Path) -> None:
    """Forty images of four subjects are four pairs: the smallest two-sided p-value of four is 1/8."""
    subjects = [f"p{i // 10}" for i in range(40)]
    errors = np.linspace(1, 5, 40)
    first = _save(tmp_path / "a", errors, subjects=subjects)
    second = _save(tmp_path / "b", errors + 1.0, subjects=subjects)
    table = compare_runs([first, second], settings=EvaluationSettings(draws=200, sdr_px=(100.0,), outlier_px=100))
    row = _row(table, "mre_px")
    assert table.subjects == 4
    assert row.differences[1] is not None
    assert row.differences[1].n == 4
    # Three main figures are tested (MRE, SDR, outliers), two of which do not differ.
    assert row.p_values[1] == pytest.approx(3 * 0.125)


def test_three_runs_are_each_compared_with_the_first(tmp_path: Path, errors: np.ndarray) -> None:
    folders = [_save(tmp_path / name, errors + gain) for name, gain in (("a", 0.0), ("b", 1.0), ("c", 2.0))]
    row = _row(compare_runs(folders), "mre_px")
    values = [difference.value for difference in row.differences if difference is not None]
    assert values == pytest.approx([1.0, 2.0])


def test_measurements_are_compared(tmp_path: Path, errors: np.ndarray) -> None:
    spec = {"name": "w", "label": "W", "primitive": "distance", "points": {"a": "a", "b": "b"}, "unit": "mm"}
    schema = _schema(measurements=[spec])
    table = compare_runs([_save(tmp_path / "a", errors, schema=schema), _save(tmp_path / "b", errors, schema=schema)])
    row = _row(table, "w_mae")
    assert (row.unit, row.figures[0].value) == ("px", 0.0)
    assert _row(table, "w_bias").lower_is_better is None
    assert _row(table, "w_bias").p_values == (None, None)


def test_other_labels_and_settings_are_noted(tmp_path: Path, errors: np.ndarray) -> None:
    first = _save(tmp_path / "a", errors)
    second = _save(tmp_path / "b", errors, points=POINTS + 1, settings=EvaluationSettings(draws=300))
    notes = " ".join(compare_runs([first, second]).notes)
    assert "labels of 30 cases differ" in notes
    assert "b was evaluated with other settings" in notes
    assert "a was" not in notes


def test_exchangeable_labels_in_another_order_are_the_same_labels(tmp_path: Path, errors: np.ndarray) -> None:
    schema = _schema(exchangeable=[["a", "b"]])
    first = _save(tmp_path / "a", errors, schema=schema)
    second = _save(tmp_path / "b", errors, schema=schema, points=POINTS[::-1])
    assert not any("labels" in note for note in compare_runs([first, second]).notes)


def test_what_cannot_be_compared(tmp_path: Path, errors: np.ndarray) -> None:
    first = _save(tmp_path / "a", errors[:5])
    with pytest.raises(InputError, match="needs two runs"):
        compare_runs([first])
    with pytest.raises(InputError, match="no case in common"):
        compare_runs([first, _save(tmp_path / "b", errors[:5], first=100)])
    with pytest.raises(InputError, match="different subjects"):
        compare_runs([first, _save(tmp_path / "c", errors[:5], subjects=["x"] * 5)])
    renamed = [{"name": "a", "label": "A"}, {"name": "z", "label": "Z"}]
    with pytest.raises(InputError, match="not those of the first run"):
        compare_runs([first, _save(tmp_path / "d", errors[:5], schema=_schema(landmarks=renamed))])


def test_holm_by_hand() -> None:
    # Sorted: 0.01 × 3, 0.02 × 2, 0.03 × 1 lifted to the one before it.
    assert holm([0.02, 0.01, None, 0.03]) == pytest.approx((0.04, 0.03, None, 0.04))
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


def test_signed_rank() -> None:
    assert signed_rank_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    assert signed_rank_p(np.array([0.0, 1e-14, np.nan])) == 1.0
    assert signed_rank_p(np.array([np.nan])) is None


class TestMeasuredAndReadOff:
    """A width measured between two landmarks, and the same one read from the whole image."""

    SPACED = Frame((100, 200), (0.5, 0.5), "user")

    def both(self, folder: Path, name: str = "width") -> tuple[list[Path], np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        true = rng.uniform(20, 40, 25)
        measured, read = true + rng.normal(0, 1, 25), true + rng.normal(0, 4, 25)
        width = {
            "name": "width",
            "label": "Width",
            "primitive": "distance",
            "points": {"a": "a", "b": "b"},
            "unit": "mm",
        }
        marks = _schema(measurements=[width])
        quantity = {"name": name, "label": "Width", "unit": "mm", "dimension": "length"}
        values = schema_from_dict({"name": "pair", "title": "Pair", "quantities": [quantity]}, where="test")
        cases, by_marks, by_value = [], [], []
        for i in range(25):
            ends = LandmarkSet(np.array([[0.0, 9.0], [2 * true[i], 9.0]]))
            image = ArrayImage(np.zeros((100, 200)))
            cases.append(Case(f"c{i}", f"p{i // 2}", image, self.SPACED, ends, targets={name: true[i]}))
            found = np.array([[0.0, 9.0], [2 * measured[i], 9.0]])
            by_marks.append(Prediction(f"c{i}", found, np.zeros((2, 2, 2)), np.ones(2), self.SPACED))
            none = (np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(0))
            by_value.append(Prediction(f"c{i}", *none, self.SPACED, values={name: Value(read[i], None, "mm")}))
        bare = [replace(case, landmarks=None) for case in cases]
        runs = [folder / "marks", folder / "values"]
        save_evaluation(evaluate_predictions(marks, cases, by_marks, SETTINGS, name="marks"), runs[0])
        save_evaluation(evaluate_predictions(values, bare, by_value, SETTINGS, name="values"), runs[1])
        return runs, true, measured, read

    @pytest.mark.parametrize("first", [0, 1])
    def test_are_compared_by_what_both_know(self, first: int, tmp_path: Path) -> None:
        runs, true, measured, read = self.both(tmp_path)
        table = compare_runs([runs[first], runs[1 - first]])
        assert all(row.metric.startswith("width_") for row in table.rows)
        row = _row(table, "width_mae")
        maes = [np.abs(values - true).mean() for values in (measured, read)]
        assert [figure.value for figure in row.figures] == pytest.approx([maes[first], maes[1 - first]], rel=1e-4)
        assert row.differences[1] is not None
        assert (row.differences[1].value > 0) == (first == 0)
        assert row.p_values[1] is not None
        assert row.p_values[1] < 0.05
        r2 = 1 - ((measured - true) ** 2).sum() / ((true - true.mean()) ** 2).sum()
        assert _row(table, "width_r2").figures[first].value == pytest.approx(r2, rel=1e-3)

    def test_nothing_in_common_is_said(self, tmp_path: Path) -> None:
        runs, *_ = self.both(tmp_path, name="depth")
        with pytest.raises(InputError, match="no measurement in common") as caught:
            compare_runs(runs)
        assert "depth" in str(caught.value)

    def test_a_study_takes_both_as_arms(self, tmp_path: Path) -> None:
        runs, true, measured, _ = self.both(tmp_path)
        arms = {"landmarks": [load_run(runs[0])], "values": [load_run(runs[1])]}
        table = compare_arms(arms, title="trial", settings=SETTINGS, tiers=(1.0, 3.0))
        assert table.unit == "mm"
        assert table.arms[0].mre.value == pytest.approx(np.abs(measured - true).mean(), rel=1e-4)


class TestOfSubjects:
    """Two images of each subject and one value: averaged over those images that all runs hold."""

    SCHEMA = schema_from_dict(
        {"name": "bone", "title": "Bone", "quantities": [{"name": "q", "label": "Q", "unit": "1", "per": "subject"}]},
        where="test",
    )

    def saved(self, folder: Path, off: float, *, lost: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> Path:
        """Save a run whose predictions are ``off`` from the truth on first images, and five times as much on second."""
        cases, predictions = [], []
        for subject in range(8):
            for number in range(2):
                name, true = f"p{subject}_{number}", 10.0 * subject
                if name in lost:
                    continue
                image = ArrayImage(np.zeros((8, 8)))
                cases.append(Case(name, f"p{subject}", image, Frame((8, 8)), targets={"q": true}))
                values = {} if name in silent else {"q": Value(true + off * (1 + 4 * number), None, "1")}
                none = (np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros(0))
                predictions.append(Prediction(name, *none, Frame((8, 8)), values=values))
        save_evaluation(evaluate_predictions(self.SCHEMA, cases, predictions, SETTINGS, name=folder.name), folder)
        return folder

    @pytest.mark.parametrize(("lost", "expected"), [("p0_0", 5.0), ("p0_1", 1.0)])
    def test_a_run_without_an_image_takes_it_from_the_other_too(
        self, lost: str, expected: float, tmp_path: Path
    ) -> None:
        runs = [self.saved(tmp_path / "whole", 1.0), self.saved(tmp_path / "part", 2.0, lost=(lost,))]
        row = _row(compare_runs(runs), "q_mae")
        mean = (7 * 3.0 + expected) / 8
        assert [figure.value for figure in row.figures] == pytest.approx([mean, 2 * mean])
        assert [figure.n for figure in row.figures] == [8, 8]
        study = compare_arms({run.name: [load_run(run)] for run in runs}, title="t", settings=SETTINGS, tiers=(1.0,))
        assert [arm.mre.value for arm in study.arms] == pytest.approx([mean, 2 * mean])

    def test_seeds_are_averaged_each_by_itself(self, tmp_path: Path) -> None:
        seeds = [load_run(self.saved(tmp_path / str(off), off)) for off in (1.0, -1.0)]
        other = [load_run(self.saved(tmp_path / f"other{off}", off)) for off in (2.0, -2.0)]
        study = compare_arms({"a": seeds, "b": other}, title="t", settings=SETTINGS, tiers=(1.0,))
        assert [arm.mre.value for arm in study.arms] == pytest.approx([3.0, 6.0])
        assert study.arms[0].seed_mres == pytest.approx((3.0, 3.0))

    def test_what_a_run_gives_no_value_of_is_counted(self, tmp_path: Path) -> None:
        runs = [self.saved(tmp_path / "a", 1.0), self.saved(tmp_path / "b", 1.0, silent=("p0_0", "p0_1", "p1_0"))]
        [note] = [note for note in compare_runs(runs).notes if "no value of Q" in note]
        assert "b: no value of Q in 1 of 8" in note


def test_many_figures_are_counted_and_not_named() -> None:
    many = [f"m{i}" for i in range(20)]
    assert _some(many[:2], many) == "m0, m1"
    assert _some(many, []) == "m0, m1, m2, ... (20 of 20 figures)"
    assert _some(many, ["r2"]) == "m0, m1, m2, ... (20 of 21 figures, all but r2)"
    assert _some(many[:12], many[8:]) == "m0, m1, m2, ... (12 of 24 figures)"
