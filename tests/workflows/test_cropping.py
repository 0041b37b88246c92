"""A network that sees a part of every image: what it learns from, and that its answers are about the whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from bregma.bundle import Bundle, load_bundle
from bregma.conformal import Conformal
from bregma.crop import Box, CropConfig, cropped, middle_box
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import BregmaError, BundleError, ConfigError, ImageError, LabelError, RunError
from bregma.phantoms import make_phantoms
from bregma.prediction.cropping import Cropper
from bregma.prediction.failure import Failure
from bregma.prediction.predictor import Predictor
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, ArraySlab, Case, Dataset, Prediction
from bregma.workflows import features, study, train
from tiny_training import Stopper

SHORT = (*tiny.OVERRIDES, "train.epochs=1")

DEPTH = schema_from_dict(
    {
        "name": "depth",
        "title": "Depth of a spot",
        "landmarks": [],
        "flip": "keep",
        "quantities": [{"name": "depth", "label": "Depth", "unit": "mm", "dimension": "length"}],
    },
    where="tests",
)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_bundle(run).network.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def predictions(bundle: Bundle, cases: Sequence[Case]) -> list[Prediction]:
    found = list(Predictor([bundle]).predict(cases))
    assert all(isinstance(one, Prediction) for one in found), found
    return [one for one in found if isinstance(one, Prediction)]


@pytest.fixture(scope="module")
def spots() -> Dataset:
    return tiny.dataset()


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A landmark model that is good enough to tell where the spots are."""
    folder = tmp_path_factory.mktemp("finder") / "run"
    overrides = [item for item in tiny.OVERRIDES if "epochs" not in item]
    train(tiny.dataset(train=40), folder, overrides=[*overrides, "train.epochs=12", "train.select=last"])
    return folder


@pytest.fixture(scope="module")
def guided(spots: Dataset, finder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guided") / "run"
    train(spots, folder, overrides=[*SHORT, f"crop.roi={finder}", "crop.margin=0.5"])
    return folder


class TestTraining:
    def test_it_is_one_on_images_that_were_cut_before(self, spots: Dataset, tmp_path: Path) -> None:
        config = CropConfig(share=0.6)
        cut = [cropped(one, middle_box(one.frame, config.share)) for one in spots.cases]
        before = train(replace(spots, cases=tuple(cut)), tmp_path / "before", overrides=SHORT)
        own = train(spots, tmp_path / "own", overrides=[*SHORT, "crop.share=0.6"])
        whole = train(spots, tmp_path / "whole", overrides=SHORT)
        assert same(weights(own.run), weights(before.run))
        assert not same(weights(own.run), weights(whole.run))

    def test_what_landmarks_enclose_is_seen(self, spots: Dataset, guided: Path) -> None:
        boxes = read(guided / "crops.json")
        learned = {one for part in ("train", "val") for one in read(guided / "split.json")["parts"][part]}
        assert boxes.keys() == learned
        for case in spots.cases:
            if case.id in boxes and case.landmarks is not None:
                left, top, right, bottom = boxes[case.id]
                middle = case.landmarks.points.mean(axis=0)
                assert left < middle[0] < right
                assert top < middle[1] < bottom
        assert any((b[2] - b[0]) * (b[3] - b[1]) < 0.7 * tiny.SIZE**2 for b in boxes.values())

    def test_the_bundle_needs_nothing_else(self, spots: Dataset, guided: Path, finder: Path, tmp_path: Path) -> None:
        shutil.copytree(guided / "bundle", tmp_path / "bundle")
        bundle = load_bundle(tmp_path / "bundle")
        assert bundle.crop == CropConfig(margin=0.5)
        assert bundle.roi is not None
        header = read(tmp_path / "bundle" / "bundle.json")
        assert str(finder) not in json.dumps({**header, "provenance": {}})
        assert len(predictions(bundle, spots.cases[-2:])) == 2

    def test_an_interrupted_run_sees_the_same_parts(self, spots: Dataset, finder: Path, tmp_path: Path) -> None:
        moved = tmp_path / "finder"
        shutil.copytree(finder, moved)
        overrides = [*SHORT, "train.epochs=2", f"crop.roi={moved}", "crop.margin=0.5"]
        straight = train(spots, tmp_path / "straight", overrides=overrides)
        with pytest.raises(KeyboardInterrupt):
            train(spots, tmp_path / "run", overrides=overrides, observer=Stopper(validation=1))
        shutil.rmtree(moved)
        train(spots, tmp_path / "run", resume=True)
        assert same(weights(straight.run), weights(tmp_path / "run"))
        assert load_bundle(tmp_path / "run").roi is not None

    def test_every_network_of_an_ensemble_sees_them(self, spots: Dataset, finder: Path, tmp_path: Path) -> None:
        made = train(spots, tmp_path / "run", overrides=[*SHORT, f"crop.roi={finder}", "ensemble=2"])
        bundle = load_bundle(made.run)
        assert bundle.roi is not None
        assert bundle.members[0].roi is not None
        assert bundle.members[0].crop == bundle.crop

    def test_images_without_a_part_are_named(
        self, spots: Dataset, finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost, usual = spots.cases[0], Cropper.boxes

        def boxes(self: Cropper, cases: Sequence[Case]) -> list[Box]:
            if cases[0].id == lost.id:
                raise ImageError("shows nothing", where=lost.id)
            return usual(self, cases)

        monkeypatch.setattr(Cropper, "boxes", boxes)
        made = train(spots, tmp_path / "run", overrides=[*SHORT, f"crop.roi={finder}", "train.batch_size=2"])
        assert lost.id not in read(made.run / "crops.json")
        assert any(lost.id in note and "not learned from" in note for note in made.evaluation.notes)  # type: ignore[union-attr]

    def test_a_model_that_knows_the_scored_images_is_told_of(
        self, spots: Dataset, finder: Path, guided: Path, tmp_path: Path
    ) -> None:
        assert "has learned from 3 of the 3 images" in (guided / "report.html").read_text()
        others = {case.id: f"new-{case.id}" for case in spots.cases}
        cases = tuple(replace(case, id=others[case.id]) for case in spots.cases)
        splits = {part: tuple(others[one] for one in ids) for part, ids in spots.splits.items()}
        made = train(
            replace(spots, cases=cases, splits=splits), tmp_path / "run", overrides=[*SHORT, f"crop.roi={finder}"]
        )
        assert "has learned from" not in (made.run / "report.html").read_text()

    def test_each_fold_has_the_landmark_model_of_its_own(self, finder: Path, tmp_path: Path) -> None:
        data = tiny.dataset(train=12, val=0, test=0)
        common = [item for item in SHORT if not item.startswith("split")]
        finders = tmp_path / "finders.yaml"
        finders.write_text(json.dumps({"arms": [{"name": "found"}], "folds": 2, "set": common}))
        study(finders, data, tmp_path / "a")
        guided = tmp_path / "guided.yaml"
        arm = {"name": "cut", "set": ["crop.margin=0.5"]}
        guided.write_text(json.dumps({"arms": [arm], "folds": 2, "set": common}))
        made = study(guided, data, tmp_path / "b", overrides=[f"roi={tmp_path / 'a' / 'runs' / 'found' / 'seed-0'}"])
        assert not made.failures
        for fold in (0, 1):
            run = tmp_path / "b" / "runs" / "cut" / "seed-0" / f"fold-{fold}"
            assert f"fold-{fold}" in (run / "recipe.yaml").read_text()
            assert "has learned from" not in (run / "report.html").read_text()

        other = json.loads(guided.read_text()) | {"split": {"seed": 5}}
        (tmp_path / "other.yaml").write_text(json.dumps(other))
        with pytest.raises(ConfigError, match="has learned from images that this study holds out"):
            study(
                tmp_path / "other.yaml",
                data,
                tmp_path / "c",
                overrides=[f"roi={tmp_path / 'a' / 'runs' / 'found' / 'seed-0'}"],
            )
        three = ["folds=3", f"roi={tmp_path / 'a' / 'runs' / 'found' / 'seed-0'}"]
        with pytest.raises(BundleError, match="fold-2"):
            study(guided, data, tmp_path / "d", overrides=three)
        assert not (tmp_path / "c").exists()
        assert not (tmp_path / "d").exists()

        # A single model that knows them is told of, arm by arm and in the arm's own report.
        one = study(guided, data, tmp_path / "e", overrides=[f"roi={finder / 'bundle'}"])
        assert not one.failures
        assert "has learned from" in (tmp_path / "e" / "arms" / "cut" / "seed-0" / "report.html").read_text()

    @pytest.mark.parametrize(
        ("overrides", "error", "words"),
        [
            (["crop.share=0"], ConfigError, r"crop\.share"),
            (["crop.roi=nowhere"], BundleError, "nowhere.*is not a bundle"),
            (["crop.landmarks=[bright]"], ConfigError, r"crop\.landmarks"),
        ],
    )
    def test_what_cannot_be_is_refused_before_training(
        self, overrides: list[str], error: type[BregmaError], words: str, spots: Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=words):
            train(spots, tmp_path / "run", overrides=[*SHORT, *overrides])
        assert not (tmp_path / "run" / "plan.json").exists()

    def test_features_come_from_models_of_whole_images(self, spots: Dataset, guided: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="sees a part of every image"):
            features(guided, spots, tmp_path / "features")

    def test_another_part_is_seen_by_a_run_begun_again(self, spots: Dataset, finder: Path, tmp_path: Path) -> None:
        """The start that was broken off had written everything but the plan."""
        with pytest.raises(KeyboardInterrupt):
            train(spots, tmp_path / "run", overrides=[*SHORT, f"crop.roi={finder}"], observer=Stopper(step=1))
        (tmp_path / "run" / "plan.json").unlink()
        shutil.rmtree(tmp_path / "run" / "checkpoint", ignore_errors=True)
        shutil.rmtree(tmp_path / "run" / "tensorboard")
        train(spots, tmp_path / "run", overrides=[*SHORT, "crop.share=0.8"], resume=True)
        bundle = load_bundle(tmp_path / "run")
        assert bundle.roi is None
        assert bundle.crop == CropConfig(share=0.8)

    def test_what_lies_beside_a_foreign_model_is_not_copied(self, spots: Dataset, finder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("mine")
        shutil.copytree(finder / "bundle", tmp_path / "foreign")
        (tmp_path / "foreign" / "extra").symlink_to(tmp_path / "secret")
        made = train(spots, tmp_path / "run", overrides=[*SHORT, f"crop.roi={tmp_path / 'foreign'}"])
        assert not list(made.run.rglob("extra"))

    def test_features_come_from_whole_images(self, tmp_path: Path) -> None:
        phantoms = make_phantoms("lumbar_mri", 12, size=64)
        with pytest.raises(ConfigError, match=r"crop.*fit\.roi"):
            train(phantoms, tmp_path / "run", recipe="bmd/elastic_net", overrides=["crop.share=0.5"])

    def test_no_image_has_a_part(
        self, spots: Dataset, finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def boxes(self: Cropper, cases: Sequence[Case]) -> list[Box]:
            raise ImageError("shows nothing", where=cases[0].id)

        monkeypatch.setattr(Cropper, "boxes", boxes)
        with pytest.raises(LabelError, match=r"no training image has a part.*shows nothing"):
            train(spots, tmp_path / "run", overrides=[*SHORT, f"crop.roi={finder}"])

    def test_a_run_whose_parts_were_lost_cannot_go_on(self, spots: Dataset, finder: Path, tmp_path: Path) -> None:
        overrides = [*SHORT, f"crop.roi={finder}"]
        with pytest.raises(KeyboardInterrupt):
            train(spots, tmp_path / "run", overrides=overrides, observer=Stopper(step=1))
        (tmp_path / "run" / "crops.json").write_text("[]")
        with pytest.raises(RunError, match=r"crops\.json.*which part"):
            train(spots, tmp_path / "run", resume=True)


class Broken:
    """An image that is named so as to be read by nobody."""

    path: Path | None = None

    def load(self) -> np.ndarray:
        raise ImageError("cannot be read", where="broken.png")


class TestPrediction:
    def test_points_are_those_of_the_part_moved_back(self, spots: Dataset, finder: Path) -> None:
        plain = load_bundle(finder)
        part = replace(plain, crop=CropConfig(share=0.8))
        cases = spots.cases[-3:]
        boxes = [middle_box(one.frame, 0.8) for one in cases]
        alone = predictions(plain, [cropped(one, box) for one, box in zip(cases, boxes, strict=True)])
        for whole, inner, box, one in zip(predictions(part, cases), alone, boxes, cases, strict=True):
            assert whole.frame == one.frame
            assert whole.mean == pytest.approx(inner.mean + box.corner, abs=1e-6)
            assert whole.cov == pytest.approx(inner.cov, abs=1e-6)

    def test_it_is_found_on_every_image_anew(self, spots: Dataset, finder: Path) -> None:
        found = load_bundle(finder)
        bundle = replace(found, crop=CropConfig(margin=0.5), roi=found)
        for one, answer in zip(spots.cases[-3:], predictions(bundle, spots.cases[-3:]), strict=True):
            assert one.landmarks is not None
            assert np.linalg.norm(answer.mean - one.landmarks.points, axis=1).max() < 12

    def test_an_image_without_a_part_has_a_reason_and_the_others_go_on(self, spots: Dataset, finder: Path) -> None:
        found = load_bundle(finder)
        bundle = replace(found, crop=CropConfig(), roi=found)
        cases = [spots.cases[-1], replace(spots.cases[-2], image=Broken()), spots.cases[-3]]
        first, second, third = Predictor([bundle]).predict(cases)
        assert isinstance(first, Prediction)
        assert isinstance(second, Failure)
        assert "cannot be read" in second.reason
        assert isinstance(third, Prediction)


class TestSlices:
    """The landmark model may look at more neighbouring slices than the network."""

    def test_all_that_either_needs_are_read(self, finder: Path) -> None:
        found = load_bundle(finder)
        deep = replace(found, config=found.config.model_copy(update={"preprocess": deeper(found)}))
        assert replace(found, crop=CropConfig(), roi=deep).slices == 5
        assert replace(found, members=(deep,)).slices == 5
        guided = replace(found, crop=CropConfig(slices=2), roi=deep)
        assert guided.slices == 9
        assert replace(guided, members=(guided,)).slices == 9

    def test_a_network_sees_the_slices_that_show_the_landmarks(self, finder: Path, tmp_path: Path) -> None:
        """Scans planned beside the anatomy are learned from, and read, as those planned through it."""
        beside = [(0, 1, -1, 1)[number % 4] for number in range(16)]
        moved = volumes([stack(number, at) for number, at in enumerate(beside)])
        planned = volumes([stack(number, 0) for number in range(16)])
        overrides = [
            "model.preprocess={size: [32, 32], slices: 3}",
            "model.network.name=simple_cnn",
            "model.codec.name=scalar",
            "augment.slice_shift=1",
            "train.epochs=1",
            "train.batch_size=4",
            f"crop.roi={finder}",
            "crop.margin=0.5",
        ]
        looked = train(moved, tmp_path / "moved", overrides=[*overrides, "crop.slices=2"])
        straight = train(planned, tmp_path / "planned", overrides=overrides)
        boxes = {case: Box(*box) for case, box in read(looked.run / "crops.json").items()}
        assert {case: box.beside for case, box in boxes.items()} == {f"c{n}": beside[n] for n in range(14)}
        assert same(weights(looked.run), weights(straight.run))

        expected = [one.values["depth"].mean for one in predictions(load_bundle(straight.run), planned.cases[14:])]
        bundle = load_bundle(looked.run)
        assert [one.values["depth"].mean for one in predictions(bundle, moved.cases[14:])] == pytest.approx(expected)
        short = replace(moved.cases[15], image=ArraySlab(np.zeros((3, tiny.SIZE, tiny.SIZE))))
        first, second = Predictor([bundle]).predict([short, moved.cases[15]])
        assert isinstance(first, Failure)
        assert "too few slices" in first.reason
        assert isinstance(second, Prediction)

    def test_landmarks_stay_on_their_slice(self, spots: Dataset, finder: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"crop\.slices.*0 for a network of landmarks"):
            train(spots, tmp_path / "run", overrides=[*SHORT, f"crop.roi={finder}", "crop.slices=1"])


def stack(number: int, beside: int) -> Case:
    """A volume of grey noise with the two spots on the slice so far beside its middle one, and fainter about that."""
    one = depth(number)
    spots = one.image.load().astype(np.float64)
    slices = np.full((9, *spots.shape), 128.0) + np.random.default_rng(number).normal(0, 3, (9, *spots.shape))
    for away, share in ((-1, 0.4), (0, 1.0), (1, 0.4)):
        slices[4 + beside + away] = 128 + share * (spots - 128)
    # Only what the network will see is the same wherever the spots lie.
    slices[4 + beside - 2], slices[4 + beside + 2] = 128.0, 128.0
    return replace(one, image=ArraySlab(slices.astype(np.uint8)))


def volumes(cases: Sequence[Case]) -> Dataset:
    ids = tuple(one.id for one in cases)
    return Dataset("d", DEPTH, tuple(cases), {"train": ids[:10], "val": ids[10:14], "test": ids[14:]})


def deeper(bundle: Bundle) -> PreprocessConfig:
    return bundle.config.preprocess.model_copy(update={"slices": 5})


class TestQuantities:
    """A length that the network reads from a part is one of the whole image."""

    def test_a_length_is_in_millimetres_of_the_image(self, tmp_path: Path) -> None:
        cases = tuple(depth(number) for number in range(16))
        ids = [one.id for one in cases]
        data = Dataset("d", DEPTH, cases, {"train": tuple(ids[:10]), "val": tuple(ids[10:14]), "test": tuple(ids[14:])})
        overrides = [
            "model.preprocess.size=[32, 32]",
            "model.network.name=simple_cnn",
            "model.codec.name=scalar",
            "train.epochs=1",
            "train.batch_size=4",
            "crop.share=0.5",
        ]
        made = train(data, tmp_path / "run", overrides=overrides)
        bundle = load_bundle(made.run)
        (whole,) = predictions(bundle, [cases[-1]])
        part = cropped(cases[-1], middle_box(cases[-1].frame, 0.5))
        (inner,) = predictions(replace(bundle, crop=None), [part])
        assert whole.values["depth"].mean == pytest.approx(inner.values["depth"].mean, rel=1e-6)
        # Residuals and intervals are those of the whole image, of which a millimetre is a pixel of the input.
        away = [
            abs(one.values["depth"].mean - case.targets["depth"])
            for one, case in zip(predictions(bundle, cases[10:14]), cases[10:14], strict=True)
        ]
        assert sorted(bundle.conformal["depth"].residuals) == pytest.approx(sorted(away), rel=1e-6)
        known = {"depth": Conformal(np.full(40, 1.5), np.ones(40), "40 subjects")}
        (one,) = predictions(replace(bundle, conformal=known), [cases[-1]])
        assert one.values["depth"].half_width == pytest.approx(1.5)


def depth(number: int) -> Case:
    one = tiny.case(number)
    assert isinstance(one.image, ArrayImage)
    return replace(one, landmarks=None, targets={"depth": 5.0 + number})
