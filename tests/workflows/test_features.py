"""``features`` and ``fit``: stored features, nested cross-validation, baselines, stacks, and wrong input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bregma.datasets import write_dataset
from bregma.errors import BregmaError, InputError, LabelError, RunError
from bregma.regression.stacking import stacked
from bregma.types import Dataset
from bregma.workflows import features, fit
from bregma.workflows.stored_features import COVARIATES, MEAN, STACK, load_features
from command_line import bregma
from squares import SCHEMA, cases

ENCODER: dict[str, Any] = {"size": 64, "pretrained": "none"}


def dataset(count: int = 40) -> Dataset:
    return Dataset("grey", SCHEMA, cases(count))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return features("test_resnet", dataset(), tmp_path_factory.mktemp("features") / "f", **ENCODER).out


class TestFeatures:
    def test_are_read_as_they_were_written(self, stored: Path) -> None:
        read = load_features(stored)
        assert list(read.slices) == [case.id for case in dataset()]
        assert read.slices["c0"].shape == (1, len(read.columns))
        assert read.about["source"]["encoder"] == "test_resnet"
        assert read.about["source"]["weights"] == "none"
        assert read.preprocess.size == (64, 64)
        grey = cases(1)[0].image.load().astype(float)
        low, high = np.percentile(grey, (0.5, 99.5))
        median = np.median(np.clip((grey - low) / (high - low), 0, 1))
        assert read.pooled("c0")[read.columns.index("image_p50")] == pytest.approx(median, abs=0.01)
        assert np.std([read.pooled(case) for case in read.slices], axis=0).max() > 0.01

    def test_come_from_a_bundle_too(self, tmp_path: Path) -> None:
        from bregma.workflows import train

        data = dataset(16)
        ids = [case.id for case in data.cases]
        data = replace(data, splits={"train": tuple(ids[:12]), "test": tuple(ids[12:])})
        network = "model.network={name: coordinate_net, encoder: test_resnet, pretrained: none}"
        more = ("model.preprocess.size=[64, 64]", network, "train.epochs=1", "train.workers=0", "split.method=given")
        run = train(data, tmp_path / "run", overrides=[*more, "evaluate.draws=100", "train.batch_size=4"]).run
        read = load_features(features(run, data, tmp_path / "f").out)
        assert read.about["source"]["bundle"].startswith("run@")
        assert len(read.slices) == 16

    def test_files_that_changed_are_refused(self, stored: Path, tmp_path: Path) -> None:
        about = json.loads((stored / "features.json").read_text())
        (tmp_path / "features.json").write_text(json.dumps(about))
        with pytest.raises(InputError, match="is missing"):
            load_features(tmp_path)
        (tmp_path / "features.npz").write_bytes((stored / "features.npz").read_bytes() + b"0")
        with pytest.raises(InputError, match="has changed"):
            load_features(tmp_path)

    def test_one_bad_image_among_good_ones_is_named(self, tmp_path: Path) -> None:
        from bregma.geometry import Frame

        every = cases(4)
        data = Dataset("grey", SCHEMA, (replace(every[0], frame=Frame((9, 9))), *every[1:]))
        result = features("test_resnet", data, tmp_path / "f", **ENCODER)
        assert result.cases == ("c1", "c2", "c3")
        assert "not as large" in result.failures["c0"]
        with pytest.raises(RunError, match="exists already"):
            features("test_resnet", data, tmp_path / "f", **ENCODER)
        with pytest.raises(InputError, match="no case has features"):
            features("test_resnet", replace(data, cases=data.cases[:1]), tmp_path / "g", **ENCODER)

    def test_an_unknown_encoder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BregmaError, match="no encoder 'resnet_nonsense'"):
            features("resnet_nonsense", dataset(2), tmp_path / "f", **ENCODER)


class TestFit:
    def test_compares_regressors_with_baselines_and_their_stack(self, stored: Path, tmp_path: Path) -> None:
        result = fit(
            stored, dataset(), tmp_path / "fit", regressors=("elastic_net", "svr"), covariates=("age",), folds=4
        )
        assert list(result.evaluations) == ["elastic_net", "svr", MEAN, COVARIATES, STACK]
        r2 = {name: found.metrics["level_r2"].value for name, found in result.evaluations.items()}
        assert r2[COVARIATES] > 0.95
        assert r2["elastic_net"] > 0.9
        assert r2[MEAN] <= 0
        assert r2[STACK] > 0.9
        assert {found.metrics["level_mae"].n for found in result.evaluations.values()} == {40}
        assert [len(folds) for folds in result.chosen["svr"].values()] == [4, 4]
        assert (result.out / "comparison.html").is_file()
        written = json.loads((result.out / "fit.json").read_text())
        assert written["metrics"]["svr"]["level_mae"]["n"] == 40
        assert result.comparison.runs[0] == "elastic_net"
        assert "model stack" in (result.out / "stack" / "report.html").read_text()

    def test_a_subject_is_never_predicted_by_what_learned_from_it(self, stored: Path, tmp_path: Path) -> None:
        """The targets of one subject change, and its own predictions do not."""
        data = dataset()
        odd = {case.id: {"level": 1e4, "side": 1e4} if case.id == "c7" else case.targets for case in data}
        other = replace(data, cases=tuple(replace(case, targets=odd[case.id]) for case in data))
        found = []
        for name, one in (("a", data), ("b", other)):
            out = fit(stored, one, tmp_path / name, regressors=("elastic_net",), folds=4).out
            lines = (out / "elastic_net" / "predictions.jsonl").read_text().splitlines()
            rows = {row["case_id"]: row for row in map(json.loads, lines) if "case_id" in row}
            found.append({case: row["values"]["level"]["mean"] for case, row in rows.items()})
        assert found[0]["c7"] == found[1]["c7"]
        assert found[0] != found[1]

    def test_shuffled_targets_are_not_predicted(self, stored: Path, tmp_path: Path) -> None:
        data = dataset()
        order = np.random.default_rng(2).permutation(len(data))
        moved = tuple(replace(c, targets=data.cases[i].targets) for c, i in zip(data.cases, order, strict=True))
        result = fit(stored, replace(data, cases=moved), tmp_path / "fit", regressors=("elastic_net", "svr"), folds=4)
        for name in ("elastic_net", "svr", STACK):
            assert result.evaluations[name].metrics["level_r2"].low <= 0, name

    def test_another_evaluation_joins_the_stack(self, stored: Path, tmp_path: Path) -> None:
        first = fit(stored, dataset(), tmp_path / "one", regressors=("elastic_net",), folds=4)
        assert STACK not in first.evaluations
        result = fit(
            stored, dataset(), tmp_path / "two", regressors=("svr",), folds=4, others=[first.out / "elastic_net"]
        )
        assert list(result.evaluations) == ["svr", MEAN, "elastic_net", STACK]
        few = features("test_resnet", dataset(44), tmp_path / "f", **ENCODER).out
        with pytest.raises(InputError, match="no prediction of 4 of 44"):
            fit(few, dataset(44), tmp_path / "three", regressors=("svr",), others=[first.out / "elastic_net"])

    def test_what_is_missing_on_either_side_is_named(self, stored: Path, tmp_path: Path) -> None:
        every = cases(42)
        nameless = replace(every[5], targets={})
        data = Dataset("grey", SCHEMA, (*every[1:5], nameless, *every[6:]))
        result = fit(stored, data, tmp_path / "fit", regressors=("elastic_net",), folds=4)
        assert result.failures == {
            "c0": "is not in the data",
            "c5": "has no target",
            "c40": "there are no features of it",
            "c41": "there are no features of it",
        }

    @pytest.mark.parametrize(
        ("more", "error", "words"),
        [
            ({"regressors": ("forest",)}, BregmaError, "no regressor 'forest'.*elastic_net"),
            ({"folds": 60}, BregmaError, "60"),
            ({"covariates": ("weight",)}, LabelError, "no case has features and a target.*lacks weight"),
            ({"overrides": ("svr.c=nonsense",), "regressors": ("svr",)}, BregmaError, r"regressor.*c"),
            ({"overrides": ("nonsense=1",)}, BregmaError, "nonsense"),
            ({"quantities": ("weight",)}, BregmaError, "weight"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, more: dict[str, Any], error: type[Exception], words: str, stored: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=words):
            fit(stored, dataset(), tmp_path / "fit", **more)
        assert not (tmp_path / "fit").exists()


class TestStack:
    RNG = np.random.default_rng(0)

    def test_weighs_members_by_what_they_are_worth(self) -> None:
        target = self.RNG.normal(50, 10, 200)
        noise = self.RNG.normal(0, 1, (200, 2))
        members = np.stack([target + 3 * noise[:, 0], target + 3 * noise[:, 1], self.RNG.normal(50, 10, 200)], axis=1)
        found = stacked(members, target, np.arange(200) % 5, [str(i) for i in range(200)])
        errors = [np.abs(one - target).mean() for one in (found, members[:, 0], members[:, 1])]
        assert errors[0] < 0.8 * min(errors[1:])

    def test_a_case_does_not_weigh_its_own_members(self) -> None:
        target, members = self.RNG.normal(0, 1, 60), self.RNG.normal(0, 1, (60, 2))
        other = target.copy()
        other[3] = 100
        folds, people = np.arange(60) % 5, [str(i) for i in range(60)]
        a, b = stacked(members, target, folds, people), stacked(members, other, folds, people)
        assert a[3] == b[3]
        assert a[4] != b[4]


def test_on_the_command_line(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "f"
    write_dataset(dataset(30), data, "bregma_json")
    first = bregma("features", "test_resnet", data, "--pretrained", "none", "--size", "64", "--out", out, "--json")
    assert first.exit_code == 0
    assert json.loads(first.stdout)["cases"] == 30
    more = ("--regressor", "elastic_net", "--quantity", "level", "--folds", "3", "--set", "inner_folds=3")
    second = bregma("fit", out, data, "--out", tmp_path / "fit", *more, "--json")
    assert second.exit_code == 0
    assert json.loads(second.stdout)["metrics"]["elastic_net"]["level_r2"]["n"] == 30
    lacking = bregma("fit", out, data, "--out", tmp_path / "again", "--regressor", "forest")
    assert lacking.exit_code not in (0, 3)
    assert "no regressor 'forest'" in lacking.stderr
    assert "elastic_net" in bregma("info", "regressors").stdout
