"""Studies: several recipes trained and compared, resumed, and failing one by one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from bregma.errors import ConfigError, InputError, SplitError
from bregma.recipe import load_recipe
from bregma.study_settings import builtin_studies, load_study
from bregma.types import LandmarkSet
from bregma.workflows import list_runs, prune_runs, show_run, study

SET = [item for item in tiny.OVERRIDES if not item.startswith("split")]
RUNAWAY = ["train.optimizer.lr=1e38", "train.schedule.warmup_steps=0"]
LATE = {"name": "late", "set": ["train.schedule.warmup_steps=999"]}
NECK = {"name": "neck", "set": ["train.phases=[{epochs: 3, freeze: [neck]}, {epochs: 3}]"]}
DIVIDED = [{"name": "a", "set": ["split.method=given"]}, {"name": "b", "set": ["split.method=random"]}]


def write(path: Path, **changes: Any) -> Path:
    """Write a study of two arms, of which the second one hardly learns; a change to None leaves a setting out."""
    text = {
        "title": "Two rates",
        "arms": [{"name": "usual"}, {"name": "idle", "set": ["train.optimizer.lr=1e-9"]}],
        "seeds": [0, 1],
        "split": {"method": "given"},
        "set": [*SET, "train.epochs=6"],
        "evaluate": {"draws": 200},
        "tiers": [5, 20],
        **changes,
    }
    path.write_text(yaml.safe_dump({name: value for name, value in text.items() if value is not None}))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("study")
    said: list[str] = []
    found = study(write(root / "s.yaml"), tiny.dataset(train=8, val=2, test=6), root / "out", announce=said.append)
    return found, said, root


class TestStudy:
    def test_every_arm_is_trained_under_every_seed(self, done: Any) -> None:
        found, said, root = done
        folders = sorted(path.parent.relative_to(root / "out").as_posix() for path in root.rglob("plan.json"))
        assert folders == [f"runs/{arm}/seed-{seed}" for arm in ("idle", "usual") for seed in (0, 1)]
        assert said == [
            f"{n} of 4: {arm}, seed {seed}"
            for n, (arm, seed) in enumerate([("usual", 0), ("usual", 1), ("idle", 0), ("idle", 1)], start=1)
        ]
        assert not found.failures

    def test_all_share_one_split(self, done: Any) -> None:
        splits = {path.read_text() for path in done[2].rglob("split.json")}
        assert len(splits) == 1

    def test_the_arms_figures_are_means_over_seeds(self, done: Any) -> None:
        found, _, root = done
        for arm in found.table.arms:
            own = [
                json.loads(
                    (root / "out" / "runs" / arm.name / f"seed-{seed}" / "evaluation/test/metrics.json").read_text()
                )
                for seed in (0, 1)
            ]
            each = [figures["mre_mm"]["value"] for figures in own]
            assert arm.seed_mres == pytest.approx(each)
            assert arm.mre.value == pytest.approx(sum(each) / 2)
            assert arm.mre.n == 2 * 6 * 2
        assert found.table.unit == "mm"

    def test_differences_are_paired_and_only_the_reference_has_none(self, done: Any) -> None:
        usual, idle = done[0].table.arms
        assert usual.difference is None
        assert usual.p_value is None
        assert idle.difference.value == pytest.approx(idle.mre.value - usual.mre.value)
        # Six subjects, two-sided: the smallest p-value of a signed-rank test is 2 / 2**6.
        assert 2 / 2**6 <= idle.p_value <= 1

    def test_tags_landmarks_and_tiers(self, done: Any) -> None:
        table = done[0].table
        assert [tag.name for tag in table.tags] == ["parity"]
        assert set(table.tags[0].rows) == {"0", "1"}
        parts = [row[0] for row in table.tags[0].rows.values()]
        whole = sum(figure.value * figure.n for figure in parts) / sum(figure.n for figure in parts)
        assert whole == pytest.approx(table.arms[0].mre.value)
        hardest = [row[0].value for row in table.landmarks.rows.values()]
        assert hardest == sorted(hardest, reverse=True)
        assert all(0 <= tier.value <= 100 for arm in table.arms for tier in arm.tiers)
        assert all(arm.tiers[0].value <= arm.tiers[1].value for arm in table.arms)

    def test_files_to_look_at_and_to_paste(self, done: Any) -> None:
        out = done[0].out
        page = done[0].report.read_text()
        assert "Two rates" in page
        assert 'usual</a> <span class="ci">reference</span>' in page
        assert "Holm" in page
        with (out / "comparison.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["arm"] for row in rows] == ["usual", "idle"]
        assert float(rows[1]["mre"]) == pytest.approx(done[0].table.arms[1].mre.value)
        stored = json.loads((out / "study.json").read_text())
        assert {run["parameters"] for run in stored["runs"]}
        assert all(run["minutes"] > 0 for run in stored["runs"])
        assert (out / "curves.svg").read_text().startswith("<?xml")

    def test_done_runs_are_kept(self, done: Any) -> None:
        _, _, root = done
        before = {path: path.stat().st_mtime_ns for path in root.rglob("bundle.json")}
        again = study(root / "s.yaml", tiny.dataset(train=8, val=2, test=6), root / "out")
        assert {path: path.stat().st_mtime_ns for path in root.rglob("bundle.json")} == before
        assert again.table.to_dict() == done[0].table.to_dict()

    def test_another_setting_under_the_same_name_is_not_mixed_in(self, done: Any) -> None:
        _, _, root = done
        other = write(root / "other.yaml", set=[*SET, "train.epochs=7"])
        found = study(other, tiny.dataset(train=8, val=2, test=6), root / "out")
        assert found.table is None
        assert all("train.epochs=7 instead of 6" in why for why in found.failures.values())

    def test_done_runs_are_scored_anew(self, done: Any) -> None:
        _, _, root = done
        other = write(root / "other.yaml", evaluate={"draws": 300, "at_size": 32})
        found = study(other, tiny.dataset(train=8, val=2, test=6), root / "out")
        assert not found.failures
        assert (found.table.unit, "300 draws" in found.table.comparison.test) == ("px at 32", True)

    def test_runs_on_other_labels_are_not_mixed_in(self, done: Any) -> None:
        _, _, root = done
        data = tiny.dataset(train=8, val=2, test=6)
        *others, last = data.cases
        moved = replace(last, landmarks=LandmarkSet(last.landmarks.points + 1.0))
        found = study(root / "s.yaml", replace(data, cases=(*others, moved)), root / "out")
        assert len(found.failures) == 4
        assert all("'test' images or labels are not those" in why for why in found.failures.values())

    def test_one_arm_that_fails_does_not_stop_the_others(self, tmp_path: Path) -> None:
        arms = [{"name": "wrong", "set": RUNAWAY}, {"name": "a"}, {"name": "b"}]
        source = write(tmp_path / "s.yaml", arms=arms, seeds=[0], set=[*SET, "train.epochs=1"])
        found = study(source, tiny.dataset(test=0), tmp_path / "out")
        assert [arm.name for arm in found.table.arms] == ["a", "b"]
        assert list(found.failures) == ["wrong, seed 0"]
        notes = found.table.notes
        assert notes[0].startswith("wrong, seed 0 could not be trained")
        assert notes[1] == "The reference is a, because wrong could not be trained."
        assert "no test part: the images compared on also chose the best weights" in notes[2]

    @pytest.mark.parametrize(
        ("changes", "data", "error", "words"),
        [
            ({"tags": ["sex"]}, {}, ConfigError, "no image has the tag 'sex'; expected one of parity"),
            ({"split": None, "arms": DIVIDED}, {}, ConfigError, "divide the data differently.*give the study"),
            ({"arms": [{"name": "a"}, LATE]}, {}, ConfigError, "--set train.schedule.warmup_steps=999, .*got 999"),
            ({"arms": [{"name": "a"}, NECK]}, {}, ConfigError, "--set train.phases=.*freeze: .*no part 'neck'"),
            ({}, {"val": 0, "test": 0}, SplitError, "no images to compare.*expected a part called 'test' or 'val'"),
        ],
    )
    def test_what_can_never_be_compared_is_not_trained(
        self, tmp_path: Path, changes: Any, data: Any, error: type[Exception], words: str
    ) -> None:
        source = write(tmp_path / "s.yaml", **changes)
        with pytest.raises(error, match=words):
            study(source, tiny.dataset(**data), tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("folds")
    source = write(root / "s.yaml", split=None, seeds=[0], folds=3, set=[*SET, "train.epochs=2"])
    return study(source, tiny.dataset(train=7, val=2, test=3), root / "out"), root


class TestFolds:
    def test_every_image_is_scored_once_by_a_network_that_did_not_learn_from_it(self, crossed: Any) -> None:
        found, _ = crossed
        assert not found.failures
        tested: list[str] = []
        for fold in range(3):
            run = found.out / "runs" / "usual" / "seed-0" / f"fold-{fold}"
            parts = json.loads((run / "split.json").read_text())["parts"]
            assert len(parts["val"]) == 1
            assert not set(parts["test"]) & {*parts["train"], *parts["val"]}
            tested += parts["test"]
        with (found.out / "arms" / "usual" / "seed-0" / "cases.csv").open() as file:
            scored = [row["id"] for row in csv.DictReader(file)]
        assert sorted(scored) == sorted(tested) == sorted(case.id for case in tiny.dataset(train=7, val=2, test=3))
        assert found.table.comparison.cases == 12

    def test_the_figures_are_those_of_the_folds_together(self, crossed: Any) -> None:
        found, _ = crossed
        runs = found.out / "runs" / "idle" / "seed-0"
        each = [json.loads((runs / f"fold-{k}/evaluation/test/metrics.json").read_text())["mre_mm"] for k in range(3)]
        whole = sum(one["value"] * one["n"] for one in each) / sum(one["n"] for one in each)
        assert found.table.arms[1].mre.value == pytest.approx(whole)
        page = (found.out / "study.html").read_text()
        assert 'href="arms/usual/seed-0/report.html"' in page
        assert "Cross-validated" in (found.out / "arms/usual/seed-0/report.html").read_text()

    def test_one_arm_may_stand_alone(self, crossed: Any) -> None:
        found, root = crossed
        alone = write(
            root / "one.yaml", split=None, seeds=[0], folds=3, arms=[{"name": "usual"}], set=[*SET, "train.epochs=2"]
        )
        again = study(alone, tiny.dataset(train=7, val=2, test=3), root / "out")
        assert (again.table, again.failures) == (None, {})
        assert again.report == found.out / "arms/usual/seed-0/report.html"
        assert again.report.is_file()


class TestSettings:
    def test_names_and_folders(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("train: {epochs: 2}\n")
        (tmp_path / "s.yaml").write_text("arms: [mine.yaml, hand, {recipe: hand, name: 'hand, 2nd'}, {}]\n")
        arms = load_study(tmp_path / "s.yaml").arms
        assert [arm.name for arm in arms] == ["mine", "hand", "hand, 2nd", "default"]
        assert arms[2].folder == "hand-2nd"
        assert arms[0].recipe == str(tmp_path / "mine.yaml")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("arms: []\n", ["line 1", "arms", "at least 1"]),
            ("arms: [hand]\n", ["nothing to compare", "second arm", "folds"]),
            ("arms: [hand]\nfolds: 1\n", ["line 2", "folds", "2"]),
            ("arms: [hand]\nfolds: 3\nsplit: {method: given}\n", ["`folds` divides the data"]),
            ("arms: hand\n", ["line 1", "arms", "should be a list"]),
            ("arms: [hand, hand]\n", ["a name of its own"]),
            ("arms: [hand, nothing]\n", ["no built-in recipe 'nothing'"]),
            ("arms: [hand, {recipe: hand, name: b, set: [train.epoch=3]}]\n", ["'train.epoch'", "--set"]),
            ("arms: [hand, chest]\nseeds: [1, 1]\n", ["every seed"]),
            ("arms: [hand, chest]\nminuets: 3\n", ["line 2", "unknown setting 'minuets'"]),
            ("arms: [hand, {recipe: chest, name: ..}]\n", ["s.yaml", "'..' cannot be"]),
            ("- hand\n- chest\n", ["s.yaml", "holds no settings", "arms:"]),
            ("", ["s.yaml", "'arms'"]),
        ],
    )
    def test_a_wrong_study_is_refused_before_any_training(self, tmp_path: Path, text: str, words: list[str]) -> None:
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_study(tmp_path / "s.yaml")
        assert all(word in str(caught.value) for word in words)

    def test_folds_take_the_place_of_the_one_split(self) -> None:
        assert load_study("bmd").split.method == "random"
        folded = load_study("bmd", ["folds=5"])
        assert folded.folds == 5
        assert not folded.split.model_fields_set & {"method", "fractions"}
        with pytest.raises(ConfigError, match="leave method, folds and fold out"):
            load_study("bmd", ["folds=5", "split.method=random"])

    def test_a_region_of_interest_goes_where_it_is_looked_at(self) -> None:
        arms = {arm.name: arm.set for arm in load_study("bmd", ["roi=runs/my roi"]).arms}
        assert arms["bmd/cnn"] == ('crop.roi="runs/my roi"',)
        assert arms["bmd/svr"] == ('fit.roi="runs/my roi"',)
        assert arms["bmd/elastic_net_age"] == ('fit.roi="runs/my roi"', "fit.covariates=[age]")
        assert arms["bmd/covariates"] == arms["bmd/mean"] == ()

    def test_an_arm_may_name_another_region(self, tmp_path: Path) -> None:
        arms = [{"recipe": "bmd/cnn", "set": ["crop.roi=mine"]}, "bmd/mean"]
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({"arms": arms, "roi": "all"}))
        first = load_study(tmp_path / "s.yaml").arms[0]
        assert load_recipe(first.recipe, first.set).recipe.crop.roi == "mine"  # type: ignore[union-attr]

    def test_a_region_that_no_arm_looks_at_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"roi: no arm looks at a region"):
            load_study("fetal/exchangeable", ["roi=runs/roi"])

    def test_a_fault_of_a_single_setting_names_it(self) -> None:
        with pytest.raises(ConfigError, match=r"^--set minutes=-1: setting 'minutes'"):
            load_study("hand/scn", ["minutes=-1"])

    @pytest.mark.parametrize("name", builtin_studies())
    def test_shipped_studies_are_valid(self, name: str) -> None:
        assert load_study(name).title


def stopped(done: Any, folder: Path) -> Path:
    """Make a run that was interrupted long ago."""
    shutil.copytree(done[0].out / "runs" / "idle" / "seed-0", folder)
    for part in ("evaluation", "bundle"):
        shutil.rmtree(folder / part)
    for name in ("report.html", "curves.png", "speed.json"):
        (folder / name).unlink()
    age(folder)
    return folder


def age(folder: Path) -> None:
    """Let a folder's files be of the day before yesterday."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 2 * 86_400,) * 2)


class TestRuns:
    def test_are_listed_best_first(self, done: Any) -> None:
        rows = list_runs(done[0].out)
        assert len(rows) == 4
        assert {row.state for row in rows} == {"finished"}
        assert [row.figure.value for row in rows] == sorted(row.figure.value for row in rows)
        assert rows[0].metric == "mre_mm (test)"
        assert rows[0].epochs == 6
        assert rows[0].data == "spots"

    def test_pruning_tells_first_and_keeps_what_is_needed(self, done: Any, tmp_path: Path) -> None:
        folder = tmp_path / "copy"
        shutil.copytree(done[0].out, folder)
        told = prune_runs(folder)
        assert len(told) == len([*folder.rglob("checkpoint"), *folder.rglob("tensorboard")]) > 0
        assert prune_runs(folder, dry=False) == told
        assert prune_runs(folder) == ()
        assert not list(folder.rglob("checkpoint"))
        assert len(list(folder.rglob("bundle.json"))) == len(list(folder.rglob("report.html"))) == 4

    def test_ranked_ones_come_before_those_without_a_figure(self, done: Any, tmp_path: Path) -> None:
        for name in ("idle", "usual"):
            shutil.copytree(done[0].out / "runs" / name / "seed-0", tmp_path / name)
        shutil.copytree(tmp_path / "usual", tmp_path / "a_broken")
        (tmp_path / "a_broken" / "plan.json").write_text("{}")
        stopped(done, tmp_path / "a_stopped")
        assert [row.state for row in list_runs(tmp_path)] == ["finished", "finished", "broken", "unfinished"]

    def test_unfinished_runs_go_only_on_request(self, done: Any, tmp_path: Path) -> None:
        folder = stopped(done, tmp_path / "runs" / "stopped")
        assert show_run(folder).state == "unfinished"
        assert prune_runs(tmp_path / "runs") == ()
        assert prune_runs(tmp_path / "runs", unfinished=True, older_than_days=1) == ()
        assert [item.path for item in prune_runs(tmp_path / "runs", unfinished=True, dry=False)] == [str(folder)]
        assert not folder.exists()

    def test_pruning_spares_a_run_in_progress(self, done: Any, tmp_path: Path) -> None:
        folder = stopped(done, tmp_path / "stopped")
        os.utime(folder / "history.csv")
        assert prune_runs(tmp_path, unfinished=True) == ()

    def test_pruning_spares_a_model_that_was_not_evaluated(self, done: Any, tmp_path: Path) -> None:
        folder = stopped(done, tmp_path / "stopped")
        shutil.copytree(done[0].out / "runs" / "idle" / "seed-0" / "bundle", folder / "bundle")
        age(folder)
        assert prune_runs(tmp_path, unfinished=True) == ()
        split = json.loads((folder / "split.json").read_text())
        (folder / "split.json").write_text(json.dumps({**split, "parts": {"train": split["parts"]["train"]}}))
        assert show_run(folder).state == "finished"

    def test_pruning_spares_what_no_training_wrote(self, done: Any, tmp_path: Path) -> None:
        """Another run below, a person's notes, and what a link leads to."""
        folder = stopped(done, tmp_path / "runs" / "stopped")
        shutil.copytree(done[0].out / "runs" / "usual" / "seed-0", folder / "inner")
        (folder / "notes.txt").write_text("mine")
        elsewhere = tmp_path / "elsewhere"
        shutil.move(folder / "inner" / "checkpoint", elsewhere)
        (folder / "inner" / "checkpoint").symlink_to(elsewhere)
        shutil.copytree(elsewhere, folder / "more")
        (tmp_path / "runs" / "link").symlink_to(done[0].out)
        age(folder)
        before = sorted(path for path in (folder / "inner").rglob("*") if "tensorboard" not in path.parts)
        kept = sorted(elsewhere.iterdir())
        prune_runs(tmp_path / "runs", unfinished=True, dry=False)
        assert sorted(path.name for path in folder.iterdir()) == ["inner", "more", "notes.txt"]
        assert sorted((folder / "inner").rglob("*")) == before
        assert sorted(elsewhere.iterdir()) == kept
        assert len(list(done[0].out.rglob("checkpoint"))) == 4

    @pytest.mark.parametrize("days", [float("nan"), float("inf"), -1.0])
    def test_days_must_be_days(self, tmp_path: Path, days: float) -> None:
        with pytest.raises(InputError, match="--older-than"):
            prune_runs(tmp_path, older_than_days=days)

    def test_a_broken_run_is_shown_as_such(self, done: Any, tmp_path: Path) -> None:
        folder = tmp_path / "broken"
        shutil.copytree(done[0].out / "runs" / "idle" / "seed-0", folder)
        (folder / "plan.json").write_text("{}")
        row = show_run(folder)
        assert row.state == "broken"
        assert "plan" in row.problem
        assert prune_runs(tmp_path, unfinished=True) == ()
