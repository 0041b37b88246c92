"""Several networks of one training: different, averaged, one bundle, and resumed to the same weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from bregma.bundle import load_bundle
from bregma.errors import BundleError, ConfigError
from bregma.files import sha256_file
from bregma.phantoms import make_phantoms
from bregma.prediction.predictor import Predictor
from bregma.types import Case, Dataset, Prediction
from bregma.workflows import list_runs, prune_runs, train
from tiny_training import Stopper

SHORT = (*tiny.OVERRIDES, "train.epochs=2")


@pytest.fixture(scope="module")
def spots() -> Dataset:
    return tiny.dataset()


@pytest.fixture(scope="module")
def run(spots: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    train(spots, folder, overrides=[*SHORT, "ensemble=3"])
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def predicted(folder: Path, cases: Sequence[Case]) -> list[Prediction]:
    found = list(Predictor([load_bundle(folder)]).predict(cases))
    assert all(isinstance(one, Prediction) for one in found)
    return [one for one in found if isinstance(one, Prediction)]


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    bundle = load_bundle(folder)
    return [dict(one.network.state_dict()) for one in (bundle, *bundle.members)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class TestTraining:
    def test_the_first_is_what_a_single_training_gives(self, spots: Dataset, run: Path, tmp_path: Path) -> None:
        alone = train(spots, tmp_path / "run", overrides=SHORT)
        assert same(weights(alone.run)[0], weights(run)[0])

    def test_each_is_trained_from_a_seed_of_its_own(self, spots: Dataset, run: Path, tmp_path: Path) -> None:
        first, second, third = weights(run)
        assert not same(first, second)
        assert not same(second, third)
        seeds = [read(part / "plan.json")["plan"]["train"]["seed"] for part in (run, *sorted(run.glob("members/*")))]
        assert len(set(seeds)) == 3
        alone = train(spots, tmp_path / "run", overrides=[*SHORT, f"train.seed={seeds[2]}"])
        assert same(weights(alone.run)[0], third)

    def test_all_learn_from_the_same_subjects(self, run: Path) -> None:
        splits = [read(part / "split.json") for part in (run, *sorted(run.glob("members/*")))]
        assert splits == [splits[0]] * 3

    def test_what_all_trainings_took_is_told(self, spots: Dataset, run: Path, tmp_path: Path) -> None:
        alone = train(spots, tmp_path / "one", overrides=SHORT)
        took = load_bundle(run).provenance["training"]
        assert took["networks"] == 3
        assert took["images"] == 3 * alone.images

    def test_minutes_are_shared(self, spots: Dataset, tmp_path: Path) -> None:
        overrides = [item for item in tiny.OVERRIDES if "epochs" not in item]
        overrides += ["train.select=last", "ensemble=2"]
        made = train(spots, tmp_path / "run", overrides=overrides, minutes=0.004)
        plans = [read(part / "plan.json") for part in (made.run, made.run / "members" / "2")]
        assert plans[0]["rows"]["train.epochs"]["reason"].startswith("0.002 minutes at ")
        assert plans[0]["plan"]["train"]["epochs"] == plans[1]["plan"]["train"]["epochs"]

    @pytest.mark.parametrize("stop", [1, 2, 4, 6], ids=lambda at: f"after validation {at}")
    def test_an_interrupted_run_ends_with_the_same_weights(
        self, stop: int, spots: Dataset, run: Path, tmp_path: Path
    ) -> None:
        overrides = [*SHORT, "ensemble=3"]
        with pytest.raises(KeyboardInterrupt):
            train(spots, tmp_path / "run", overrides=overrides, observer=Stopper(validation=stop))
        assert not (tmp_path / "run" / "bundle").exists()
        train(spots, tmp_path / "run", resume=True)
        assert all(same(*pair) for pair in zip(weights(run), weights(tmp_path / "run"), strict=True))

    def test_whoever_watches_hears_which_network_it_is(self, spots: Dataset, tmp_path: Path) -> None:
        observer = Stopper()
        train(spots, tmp_path / "run", overrides=[*SHORT, "ensemble=2"], observer=observer)
        assert observer.said == ["network 2 of 2"]
        assert len(observer.starts) == 2

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["ensemble=0"], "ensemble.*greater than or equal to 1"),
            (["ensemble=2", "train.devices=2", "train.batch_size=4"], "ensemble.*one device"),
        ],
    )
    def test_what_cannot_be_is_refused_before_training(
        self, overrides: list[str], words: str, spots: Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            train(spots, tmp_path / "run", overrides=[*SHORT, *overrides])
        assert not (tmp_path / "run" / "plan.json").exists()

    def test_features_alone_are_no_ensemble(self, tmp_path: Path) -> None:
        phantoms = make_phantoms("lumbar_mri", 8, size=64)
        with pytest.raises(ConfigError, match=r"ensemble.*fit\.train=true"):
            train(phantoms, tmp_path / "run", recipe="bmd/elastic_net", overrides=["ensemble=2"])

    def test_each_has_close_ups_of_its_own_and_the_bundle_is_never_without(self, tmp_path: Path) -> None:
        data = make_phantoms("lumbar_lateral", 12, size=64, difficulty="easy")
        ids = [case.id for case in data.cases]
        data = replace(data, splits={"train": tuple(ids[:10]), "val": tuple(ids[10:])})
        overrides = [*tiny.CLOSE_UPS, "ensemble=2"]
        # The fourth validation is that of the second network's close-ups.
        observer = Stopper(validation=4)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", recipe="lumbar/chain", overrides=overrides, observer=observer)
        assert not (tmp_path / "run" / "bundle").exists()
        train(data, tmp_path / "run", resume=True)
        bundle = load_bundle(tmp_path / "run")
        (member,) = bundle.members
        assert bundle.close_up is not None
        assert member.close_up is not None
        assert not same(dict(bundle.close_up.network.state_dict()), dict(member.close_up.network.state_dict()))
        prune_runs(tmp_path, dry=False)
        assert not list((tmp_path / "run").rglob("checkpoint"))
        assert load_bundle(tmp_path / "run").members[0].close_up is not None

    def test_an_interrupted_one_that_was_pruned_may_begin_again(self, spots: Dataset, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            train(spots, tmp_path / "run", overrides=[*SHORT, "ensemble=2"], observer=Stopper(validation=3))
        assert (tmp_path / "run" / "curves.png").is_file()
        for path in (tmp_path / "run").rglob("*"):
            os.utime(path, (0, 0), follow_symlinks=False)
        prune_runs(tmp_path, unfinished=True, dry=False)
        assert not (tmp_path / "run").exists()

    def test_each_has_a_correction_of_its_own(self, tmp_path: Path) -> None:
        overrides = [*tiny.OVERRIDES, "train.epochs=1", "predict.correction=true", "ensemble=2"]
        bundle = load_bundle(train(tiny.dataset(train=60), tmp_path / "run", overrides=overrides).run)
        (member,) = bundle.members
        assert bundle.correction is not None
        assert member.correction is not None
        assert bundle.correction.to_dict() != member.correction.to_dict()


class TestPrediction:
    def test_it_is_the_average_of_the_networks(self, spots: Dataset, run: Path) -> None:
        cases = spots.cases[-2:]
        bundle = load_bundle(run)
        each = [list(Predictor([one]).predict(cases)) for one in (load_one(run), *bundle.members)]
        for number, found in enumerate(predicted(run, cases)):
            means = np.stack([part[number].mean for part in each])  # type: ignore[union-attr]
            assert found.mean == pytest.approx(means.mean(axis=0), abs=1e-9)
            assert np.trace(found.cov[0]) > np.trace(np.cov(means[:, 0].T, bias=True)) - 1e-9

    def test_runs_given_together_are_an_ensemble_of_all_their_networks(self, spots: Dataset, run: Path) -> None:
        cases = spots.cases[-2:]
        bundle = load_bundle(run)
        together = list(Predictor([load_one(run), *bundle.members]).predict(cases))
        for one, other in zip(predicted(run, cases), together, strict=True):
            assert one.mean == pytest.approx(other.mean, abs=1e-9)  # type: ignore[union-attr]

    def test_it_has_the_weights_of_all_and_a_name_of_its_own(self, run: Path) -> None:
        bundle = load_bundle(run)
        assert bundle.parameters == 3 * load_one(run).parameters
        digest = sha256_file(run / "bundle" / "weights.safetensors")[:8]
        assert not bundle.name.endswith(digest)
        assert predicted_name(run) == bundle.name


def load_one(run: Path) -> Any:
    return replace(load_bundle(run), members=())


def predicted_name(run: Path) -> str:
    return predicted(run, tiny.cases(1))[0].model


class TestFiles:
    @pytest.fixture
    def copied(self, run: Path, tmp_path: Path) -> Path:
        shutil.copytree(run / "bundle", tmp_path / "bundle")
        return tmp_path / "bundle"

    def test_a_member_is_a_model_of_its_own(self, copied: Path) -> None:
        assert load_bundle(copied / "members" / "2").members == ()

    @pytest.mark.parametrize("file", ["weights.safetensors", "bundle.json"])
    def test_a_changed_member_is_refused(self, file: str, copied: Path) -> None:
        path = copied / "members" / "3" / file
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        with pytest.raises(BundleError, match=r"members/3.*has changed since"):
            load_bundle(copied)

    def test_a_missing_member_is_refused(self, copied: Path) -> None:
        shutil.rmtree(copied / "members" / "3")
        with pytest.raises(BundleError, match=r"members/3.*is missing"):
            load_bundle(copied)

    @pytest.mark.parametrize("count", [1, 2, 4, 32])
    def test_a_header_of_another_number_is_refused(self, count: int, copied: Path) -> None:
        header = read(copied / "bundle.json")
        (copied / "bundle.json").write_text(json.dumps({**header, "ensemble": count}))
        with pytest.raises(BundleError, match="hashes are not complete"):
            load_bundle(copied)

    @pytest.mark.parametrize("count", [0, 10**12])
    def test_a_header_of_no_possible_number_is_refused(self, count: int, copied: Path) -> None:
        header = read(copied / "bundle.json")
        (copied / "bundle.json").write_text(json.dumps({**header, "ensemble": count}))
        with pytest.raises(BundleError, match="ensemble"):
            load_bundle(copied)

    def test_an_ensemble_is_no_member(self, run: Path, copied: Path) -> None:
        shutil.rmtree(copied / "members" / "2")
        shutil.copytree(run / "bundle", copied / "members" / "2")
        header = read(copied / "bundle.json")
        header["sha256"]["members/2/bundle.json"] = sha256_file(copied / "members" / "2" / "bundle.json")
        (copied / "bundle.json").write_text(json.dumps(header))
        with pytest.raises(BundleError, match="is an ensemble itself"):
            load_bundle(copied)

    def test_a_run_with_members_is_one_run(self, run: Path) -> None:
        (row,) = list_runs(run.parent)
        assert row.path == str(run)
        assert row.state == "finished"

    def test_pruning_keeps_the_bundle_whole(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run, tmp_path / "run")
        before = weights(tmp_path / "run")
        prune_runs(tmp_path, dry=False)
        left = {path.name for path in (tmp_path / "run" / "members" / "2").iterdir()}
        assert {"plan.json", "history.csv"} <= left
        assert not left & {"checkpoint", "tensorboard"}
        assert all(same(*pair) for pair in zip(before, weights(tmp_path / "run"), strict=True))
