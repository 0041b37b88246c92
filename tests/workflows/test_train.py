"""``train``: what a run folder holds, and what a resumed run insists on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import tiny
from bregma import __version__
from bregma.bundle import PredictConfig, load_bundle
from bregma.data.preprocess import reference_curve
from bregma.errors import BregmaError, ConfigError, LabelError, RunError, SplitError
from bregma.files import sha256_file
from bregma.phantoms import make_phantoms
from bregma.prediction.predictor import Predictor
from bregma.types import ArrayImage, Dataset
from bregma.workflows import TrainResult, train
from bregma.workflows.run_folder import data_hash
from tiny_training import Stopper, without_seconds


def read(path: Path) -> Any:
    return json.loads(path.read_text())


class TestRunFolder:
    def test_holds_all_that_it_says(self, run: Path) -> None:
        found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        expected = {
            "recipe.yaml",
            "plan.json",
            "schema.json",
            "split.json",
            "provenance.json",
            "history.csv",
            "curves.png",
            "report.html",
            "bundle/bundle.json",
            "bundle/schema.json",
            "bundle/weights.safetensors",
            "checkpoint/last.safetensors",
            "checkpoint/best.safetensors",
            "evaluation/test/metrics.json",
            "evaluation/test/points.csv",
            "evaluation/test/predictions.jsonl",
        }
        assert expected <= found
        assert not [name for name in found if Path(name).name.startswith(".")]
        assert not [name for name in found if name.endswith((".pkl", ".pt", ".pth", ".ckpt"))]

    def test_the_plan_has_a_reason_for_every_setting(self, run: Path) -> None:
        rows = read(run / "plan.json")["rows"]
        assert rows["train.epochs"] == {"value": 2, "reason": "set by the recipe"}
        assert rows["model.preprocess.size"]["value"] == [64, 64]
        assert rows["model.preprocess.size"]["reason"].startswith("median image 64 x 64")
        assert rows["train.ema"]["reason"] == "default"
        assert all(row["reason"] for row in rows.values())

    def test_provenance(self, run: Path, spots: Dataset) -> None:
        about = read(run / "provenance.json")
        assert about["bregma"] == __version__
        assert about["packages"]["torch"] == version("torch")
        assert about["seed"] == 0
        assert about["data"]["license"] == "CC0-1.0"
        assert about["data"]["split"] == {"train": 8, "val": 3, "test": 3}
        parts = {part: spots.select(ids) for part, ids in spots.splits.items()}
        assert about["data"]["sha256"] == {part: data_hash(cases) for part, cases in parts.items()}
        bundled = read(run / "bundle" / "bundle.json")["provenance"]
        assert bundled["data"] == about["data"]
        assert bundled["training"]["images"] == 2 * 2 * 4

    def test_the_result_says_where_things_lie(self, trained: TrainResult, run: Path) -> None:
        assert trained.bundle == run / "bundle"
        assert trained.report == run / "report.html"
        assert trained.images == 16
        assert {case.case.id for case in trained.evaluation.cases} == {"c11", "c12", "c13"}
        assert json.loads(json.dumps(trained.to_dict()))["metrics"].keys() == trained.evaluation.metrics.keys()

    def test_the_weights_are_those_of_the_best_validation(self, trained: TrainResult, run: Path) -> None:
        best = load_file(run / "checkpoint" / "best.safetensors")
        bundled = load_file(run / "bundle" / "weights.safetensors")
        assert best.keys() == bundled.keys()
        assert all((best[name] == bundled[name]).all() for name in best)

    def test_the_bundle_can_be_read_by_others(self, run: Path) -> None:
        assert oct((run / "bundle").stat().st_mode & 0o777) == "0o755"
        umask = os.umask(0)
        os.umask(umask)
        for file in (run / "bundle").iterdir():
            assert file.stat().st_mode & 0o777 == 0o666 & ~umask, file


def hashes(data: Dataset) -> str:
    return data_hash(data.cases)


@pytest.mark.parametrize(
    "change",
    [
        lambda case: replace(case, subject="other"),
        lambda case: replace(case, image=ArrayImage(255 - case.image.load())),
        lambda case: replace(case, landmarks=replace_first(case.landmarks)),
        lambda case: replace(case, frame=replace(case.frame, spacing=(0.5, 0.6))),
    ],
    ids=["subject", "pixels", "label", "spacing"],
)
def test_the_data_s_hash_tells_every_change(change: Callable[[Any], Any]) -> None:
    one, two = tiny.cases(2)
    assert data_hash((one, two)) == data_hash((two, one))
    assert data_hash((one, change(two))) != data_hash((one, two))


def replace_first(marks: Any) -> Any:
    points = marks.points.copy()
    points[0, 0] += 1e-9
    return type(marks)(points, marks.status)


class TestParts:
    def test_without_a_test_part_the_validation_part_is_reported_as_optimistic(self, tmp_path: Path) -> None:
        result = train(tiny.dataset(test=0), tmp_path / "run", overrides=tiny.OVERRIDES)
        assert result.report.is_file()
        assert (tmp_path / "run" / "evaluation" / "val" / "metrics.json").is_file()
        assert any("chose the best weights" in note for note in result.evaluation.notes)

    def test_last_weights_leave_it_unseen(self, tmp_path: Path) -> None:
        overrides = [*tiny.OVERRIDES, "train.select=last"]
        result = train(tiny.dataset(test=0), tmp_path / "run", overrides=overrides)
        assert not any("chose the best weights" in note for note in result.evaluation.notes)

    def test_training_alone(self, tmp_path: Path) -> None:
        result = train(tiny.dataset(val=0, test=0), tmp_path / "run", overrides=tiny.OVERRIDES)
        assert (result.report, result.evaluation) == (None, None)
        assert result.bundle.is_dir()

    def test_an_unlabelled_test_part_costs_nothing(self, tmp_path: Path) -> None:
        data = tiny.dataset()
        test = set(data.splits["test"])
        bare = tuple(replace(case, landmarks=None) if case.id in test else case for case in data)
        result = train(replace(data, cases=bare), tmp_path / "run", overrides=tiny.OVERRIDES)
        assert (tmp_path / "run" / "evaluation" / "val" / "metrics.json").is_file()
        assert result.evaluation is not None

    def test_without_a_published_split_subjects_are_dealt_out(self, tmp_path: Path) -> None:
        train(replace(tiny.dataset(), splits={}), tmp_path / "run", overrides=tiny.OVERRIDES)
        split = read(tmp_path / "run" / "split.json")
        assert split["method"] == "random"
        # 70, 15 and 15 % of 14 subjects are 9.8, 2.1 and 2.1.
        assert {part: len(ids) for part, ids in split["parts"].items()} == {"train": 10, "val": 2, "test": 2}


class TestResume:
    def test_an_interrupted_run_ends_like_one_that_was_not(self, tmp_path: Path, run: Path, spots: Dataset) -> None:
        out = tmp_path / "first"
        overrides = [*tiny.OVERRIDES]
        with pytest.raises(KeyboardInterrupt):
            train(spots, out, overrides=overrides, observer=Stopper(step=3))
        assert not (out / "bundle").exists()
        result = train(spots, out, resume=True)
        for name in ("bundle/weights.safetensors", "evaluation/test/points.csv", "evaluation/test/metrics.json"):
            assert sha256_file(out / name) == sha256_file(run / name), name
        assert result.images == 16

    def test_the_same_settings_may_be_repeated(self, tmp_path: Path, run: Path, spots: Dataset) -> None:
        out = Path(shutil.copytree(run, tmp_path / "copy"))
        assert train(spots, out, overrides=tiny.OVERRIDES, resume=True).epoch in (1, 2)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"overrides": [*tiny.OVERRIDES, "train.seed=1"]}, "train.seed=1 instead of None"),
            ({"overrides": ["train.epochs=5"]}, "instead of"),
            ({"recipe": "demo"}, "instead of"),
            ({"minutes": 3.0, "overrides": tiny.OVERRIDES}, "minutes=3.0 instead of None"),
        ],
    )
    def test_other_settings_are_refused(self, run: Path, spots: Dataset, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(RunError, match="the settings are not those that the run was started with") as caught:
            train(spots, run, resume=True, **changes)
        assert words in str(caught.value)
        assert "start a new run" in str(caught.value)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_changed_labels_are_refused(self, run: Path, spots: Dataset, part: str) -> None:
        changed = tuple(
            replace(case, landmarks=replace_first(case.landmarks)) if case.id == spots.splits[part][0] else case
            for case in spots
        )
        with pytest.raises(RunError, match=f"the '{part}' images or labels are not those") as caught:
            train(replace(spots, cases=changed), run, resume=True)
        assert "give the same data" in str(caught.value)

    def test_a_case_that_is_gone_is_named(self, run: Path, spots: Dataset) -> None:
        fewer = replace(spots, cases=spots.cases[1:], splits={})
        with pytest.raises(RunError, match=r"'train' images or labels.*no case 'c0'"):
            train(fewer, run, resume=True)

    def test_another_anatomy_is_refused(self, run: Path, spots: Dataset) -> None:
        other = replace(spots, schema=spots.schema.model_copy(update={"name": "stains"}))
        with pytest.raises(RunError, match=r"another schema than the run.*expected spots, got stains"):
            train(other, run, resume=True)

    def test_where_there_is_no_run_one_begins(self, tmp_path: Path, spots: Dataset) -> None:
        out = tmp_path / "run"
        out.mkdir()
        # What a start leaves behind that was cut short before its plan was written.
        (out / "schema.json").write_text("{}")
        assert train(spots, out, overrides=tiny.OVERRIDES, resume=True).bundle.is_dir()

    @pytest.mark.parametrize(
        ("file", "text", "error", "words"),
        [
            ("plan.json", "{", BregmaError, "plan.json, line 1"),
            ("plan.json", '{"rows": {}}', RunError, "is not a plan"),
            ("plan.json", '{"plan": {"train": {"epoch": 1}}, "rows": {}}', RunError, "unknown setting 'train.epoch'"),
            ("split.json", '{"parts": 3}', RunError, "split.json"),
            ("provenance.json", "[]", RunError, "does not say what the run was trained on"),
            ("schema.json", "{}", BregmaError, "schema.json"),
            ("recipe.yaml", "train: [", BregmaError, "recipe.yaml, line 1"),
            ("checkpoint/last.safetensors", "junk", RunError, "is not a checkpoint"),
        ],
    )
    def test_a_spoilt_run_is_named(
        self, tmp_path: Path, run: Path, spots: Dataset, file: str, text: str, error: type[BregmaError], words: str
    ) -> None:
        out = Path(shutil.copytree(run, tmp_path / "copy"))
        (out / file).write_text(text)
        with pytest.raises(error) as caught:
            train(spots, out, resume=True)
        assert words in str(caught.value)
        assert Path(file).name in str(caught.value)


class TestRefusals:
    def test_a_folder_that_holds_something(self, tmp_path: Path, spots: Dataset) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        for resume in (False, True):
            with pytest.raises(RunError, match=r"exists already and is not overwritten.*--resume") as caught:
                train(spots, tmp_path, overrides=tiny.OVERRIDES, resume=resume)
            assert str(tmp_path) in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["train.epoch=3"], ["--set train.epoch=3", "unknown setting 'train.epoch'"]),
            (["trian.epochs=3"], ["--set trian.epochs=3", "unknown setting 'trian'"]),
            (
                ["model.preprocess.size=[64, 68]", "model.network.levels=4"],
                ["preprocess.size", "64 x 68", "multiples of 8"],
            ),
            (["train.accelerator=tpu"], ["--set train.accelerator=tpu"]),
            (["train.devices=9", "train.batch_size=9"], ["train.devices", "8 at most"]),
            (['loss=[{"name": "gaussian_nll"}]'], ["'gaussian_nll' needs the output 'cholesky'"]),
            (["minutes=0"], ["--set minutes=0"]),
        ],
    )
    def test_settings_are_refused_before_anything_is_written(
        self, tmp_path: Path, spots: Dataset, overrides: list[str], words: list[str]
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            train(spots, tmp_path / "run", overrides=[*tiny.OVERRIDES, *overrides])
        for word in words:
            assert word in str(caught.value)
        assert not (tmp_path / "run").exists()

    def test_nothing_to_train_on(self, tmp_path: Path, spots: Dataset) -> None:
        bare = tuple(replace(case, landmarks=None) for case in spots)
        with pytest.raises(LabelError, match="none of the training images has a label"):
            train(replace(spots, cases=bare), tmp_path / "run")
        only_test = {"test": spots.splits["test"]}
        with pytest.raises(SplitError, match="no part to train on"):
            train(replace(spots, splits=only_test), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_the_histogram_that_images_are_matched_to_comes_from_training_images(tmp_path: Path, spots: Dataset) -> None:
    steps = "model.preprocess.steps=[{name: histogram_match}]"
    made = train(spots, tmp_path / "r", overrides=[*tiny.OVERRIDES, steps, "train.epochs=1"])
    stored = load_bundle(made.bundle).config.preprocess
    learnt = spots.select(spots.splits["train"])
    assert stored.steps[0].reference == reference_curve(learnt, stored)
    assert stored.steps[0].reference != reference_curve(spots.cases, stored)
    assert read(made.run / "plan.json")["plan"]["model"]["preprocess"] == stored.to_dict()
    # Told its own settings, the run goes on with the histogram that it has.
    train(spots, made.run, overrides=[*tiny.OVERRIDES, steps, "train.epochs=1"], resume=True)
    assert load_bundle(made.bundle).config.preprocess == stored


def test_the_plan_says_which_weights_a_run_started_from(
    tmp_path: Path, spots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*wanted: object) -> Path:
        raise OSError("no route to host")

    monkeypatch.setattr("bregma.networks.pretrained._from_hub", offline)
    network = "model.network={name: light, encoder: test_resnet, decoder_channels: 8, pretrained: auto}"
    overrides = [item for item in tiny.OVERRIDES if "network" not in item] + [network, "train.epochs=1"]
    made = train(spots, tmp_path / "r", overrides=overrides)
    row = read(made.run / "plan.json")["rows"]["model.network.pretrained"]
    assert row["value"] == "none"
    assert "no route to host" in row["reason"]
    assert load_bundle(made.bundle).config.network.pretrained == "none"
    assert "pretrained: auto" in (made.run / "recipe.yaml").read_text()


def test_a_budget_sets_the_number_of_epochs(tmp_path: Path, spots: Dataset) -> None:
    overrides = [item for item in tiny.OVERRIDES if "epochs" not in item]
    train(spots, tmp_path / "run", overrides=[*overrides, "train.select=last"], minutes=0.003)
    row = read(tmp_path / "run" / "plan.json")["rows"]["train.epochs"]
    assert row["reason"].startswith("0.003 minutes at ")
    assert "minutes: 0.003" in (tmp_path / "run" / "recipe.yaml").read_text()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import tiny
from bregma.workflows import train

if __name__ == "__main__":
    train(tiny.dataset(), sys.argv[1], overrides=[*tiny.OVERRIDES, "train.devices=2"])
    print("finished")
"""


@pytest.mark.slow
def test_two_processes_write_one_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(tiny.__file__).parent)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished") == 1
    assert (tmp_path / "run" / "bundle" / "bundle.json").is_file()
    assert without_seconds([{"epoch": 1.0, "seconds": 2.0}]) == [{"epoch": 1.0}]
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


class TestCorrection:
    """What the network gets wrong on its training images is learned at the end, and applied to others."""

    def test_it_is_learned_stored_and_applied(self, tmp_path: Path) -> None:
        overrides = [*tiny.OVERRIDES, "train.epochs=1", "predict.correction=true"]
        result = train(tiny.dataset(train=60), tmp_path / "run", overrides=overrides)
        bundle = load_bundle(result.bundle)
        assert bundle.correction is not None
        assert bundle.correction.cases == 60
        noted = bundle.provenance["correction"]
        assert noted == {"px": bundle.correction.before, "px_after": bundle.correction.after}
        cases = tiny.cases(6, start=200)
        with_it, without = (
            list(Predictor([bundle], PredictConfig(correction=asked)).predict(cases)) for asked in (True, False)
        )
        # A network that knows nothing yet errs by much that is the same on all images.
        errors = [
            np.mean([np.linalg.norm(p.mean - c.landmarks.points, axis=1) for p, c in zip(found, cases, strict=True)])
            for found in (with_it, without)
        ]
        assert errors[0] < errors[1]

    def test_points_that_cannot_be_told_apart_have_none(self, tmp_path: Path) -> None:
        data = make_phantoms("fetal_head", 6, size=64)
        with pytest.raises(ConfigError, match=r"predict\.correction.*each have a name"):
            train(data, tmp_path / "run", overrides=["predict.correction=true"])
        assert not (tmp_path / "run").exists()
