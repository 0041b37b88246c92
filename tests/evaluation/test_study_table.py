"""Arms of a study from saved evaluations with known errors, against scipy and hand-worked figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bregma.evaluation import EvaluationSettings, evaluate_predictions, save_evaluation
from bregma.evaluation.stored import StoredRun, load_run
from bregma.evaluation.study import compare_arms
from bregma.geometry import Frame
from bregma.results import StudyTable
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, LandmarkSet, Prediction

SETTINGS = EvaluationSettings(draws=400)
SCHEMA = schema_from_dict(
    {
        "name": "pair",
        "title": "Pair",
        "landmarks": [{"name": "a", "label": "A"}, {"name": "b", "label": "B"}],
    },
    where="test",
)
POINTS = np.array([[20.0, 20.0], [60.0, 20.0]])


def run(
    folder: Path,
    errors: Sequence[float] | np.ndarray,
    *,
    first: int = 0,
    subjects: Sequence[str] = (),
    tags: Sequence[Mapping[str, str]] = (),
    spacings: Sequence[float | None] = (),
) -> StoredRun:
    """Save and read back an evaluation whose error at both landmarks of case i is ``errors[i]`` along y."""
    cases, predictions = [], []
    for row, error in enumerate(errors):
        name = f"c{row + first}"
        spacing = spacings[row] if spacings else None
        frame = Frame((100, 200)) if spacing is None else Frame((100, 200), (spacing, spacing), "phantom")
        subject = subjects[row] if subjects else f"p{row + first}"
        own = tags[row] if tags else {}
        cases.append(Case(name, subject, ArrayImage(np.zeros((100, 200))), frame, LandmarkSet(POINTS), tags=own))
        predictions.append(Prediction(name, POINTS + np.array([0.0, error]), np.zeros((2, 2, 2)), np.ones(2), frame))
    save_evaluation(evaluate_predictions(SCHEMA, cases, predictions, SETTINGS, name=folder.name), folder)
    return load_run(folder)


def compare(arms: Mapping[str, Sequence[StoredRun]], **changes: Sequence[str]) -> StudyTable:
    return compare_arms(arms, title="t", settings=SETTINGS, tiers=(2.0, 5.0), **changes)


@pytest.fixture
def errors() -> np.ndarray:
    """Three arms of two seeds on 25 images."""
    return np.random.default_rng(0).uniform(1.0, 9.0, (3, 2, 25))


class TestPooledSeeds:
    def table(self, tmp_path: Path, errors: np.ndarray) -> StudyTable:
        return compare(
            {
                name: [run(tmp_path / f"{name}{seed}", own, spacings=()) for seed, own in enumerate(errors[number])]
                for number, name in enumerate("abc")
            }
        )

    def test_figures_take_every_image_once_a_seed(self, tmp_path: Path, errors: np.ndarray) -> None:
        table = self.table(tmp_path, errors)
        for arm, own in zip(table.arms, errors, strict=True):
            assert arm.mre.value == pytest.approx(own.mean())
            assert arm.median.value == pytest.approx(np.median(own))
            assert arm.seed_mres == pytest.approx(own.mean(axis=1))
            assert [tier.value for tier in arm.tiers] == pytest.approx([100 * (own < limit).mean() for limit in (2, 5)])
        assert (table.comparison.cases, table.comparison.subjects) == (25, 25)

    def test_seeds_do_not_pass_for_subjects(self, tmp_path: Path, errors: np.ndarray) -> None:
        """The test has one pair a subject, and ten copies of a seed give the interval of one."""
        means = errors.mean(axis=1)
        raw = [stats.wilcoxon(means[arm] - means[0]).pvalue for arm in (1, 2)]
        small, large = sorted(raw)
        corrected = {small: min(1.0, 2 * small), large: max(min(1.0, 2 * small), large)}
        found = self.table(tmp_path / "two", errors)
        assert [arm.p_value for arm in found.arms[1:]] == pytest.approx([corrected[p] for p in raw])
        one, ten = (self.table(tmp_path / str(n), np.repeat(errors[:, :1], n, axis=1)) for n in (1, 10))
        for single, many in zip(one.arms, ten.arms, strict=True):
            assert (many.mre.low, many.mre.high) == pytest.approx((single.mre.low, single.mre.high))
            assert many.p_value == single.p_value


class TestWhatArmsDoNotShare:
    def test_a_seed_s_figure_is_on_the_shared_images(self, tmp_path: Path) -> None:
        table = compare(
            {
                "full": [run(tmp_path / "a0", [1, 1, 9]), run(tmp_path / "a1", [3, 3, 9])],
                "part": [run(tmp_path / "b0", [2, 2]), run(tmp_path / "b1", [4, 4])],
            }
        )
        assert [arm.seed_mres for arm in table.arms] == [(1.0, 3.0), (2.0, 4.0)]
        assert [arm.mre.value for arm in table.arms] == pytest.approx([2.0, 3.0])
        assert "full: 2 of its 6 cases (each counted once a seed) were not scored by all." in table.notes, table.notes

    def test_nothing_is_said_where_all_is_shared(self, tmp_path: Path) -> None:
        table = compare({"a": [run(tmp_path / "a", [1, 2])], "b": [run(tmp_path / "b", [2, 3])]})
        assert [note for note in table.notes if "scored" in note] == []


class TestTags:
    def test_all_rows_are_in_the_unit_of_the_table(self, tmp_path: Path) -> None:
        """Images of one centre have a spacing, the others none: no row may turn to millimetres."""
        more = {
            "spacings": [0.5, 0.5, None, None],
            "tags": [{"centre": "x"}] * 2 + [{"centre": "y"}] * 2,
        }
        table = compare(
            {name: [run(tmp_path / name, [2, 4, 6, 8], **more)] for name in ("a", "b")}  # type: ignore[arg-type]
        )
        assert table.unit == "px"
        assert [(row[0].value, row[0].unit) for row in table.tags[0].rows.values()] == [(3.0, "px"), (7.0, "px")]

    def test_a_group_of_one_subject_has_no_interval(self, tmp_path: Path) -> None:
        more = {"tags": [{"kind": "rare"}] + [{"kind": "usual"}] * 3}
        table = compare(
            {name: [run(tmp_path / name, [2, 4, 6, 8], **more)] for name in ("a", "b")}  # type: ignore[arg-type]
        )
        rare, usual = table.tags[0].rows["rare"][0], table.tags[0].rows["usual"][0]
        assert (rare.value, rare.low, rare.high) == (2.0, None, None)
        # Three subjects: resamples reach from thrice the least to thrice the largest error.
        assert (usual.value, usual.low, usual.high) == (6.0, 4.0, 8.0)
