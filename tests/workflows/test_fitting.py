"""Classical regressors on the ordinary road: fitted by ``train``, kept in a bundle, applied by ``predict``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tiny
from bregma.bundle import load_bundle
from bregma.errors import BregmaError, ConfigError, LabelError
from bregma.geometry import Frame
from bregma.io import FileImage
from bregma.prediction.failure import Failure
from bregma.prediction.features import ROI_SIDE, SPACING, FeatureExtractor, region_of
from bregma.prediction.predictor import Predictor
from bregma.prediction.regressed import features_remembered
from bregma.report.study_figures import arms_together
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, ArraySlab, Case, Dataset, LandmarkSet, Prediction
from bregma.workflows import study, train
from squares import SCHEMA, cases, square

CORNERS = schema_from_dict(
    {
        "name": "corners",
        "title": "Corners",
        "landmarks": [{"name": name, "label": name} for name in "abcd"],
        "flip": "keep",
    },
    where="tests",
)


def dataset(count: int = 50) -> Dataset:
    every = cases(count)
    ids = [case.id for case in every]
    return Dataset("grey", SCHEMA, every, {"train": tuple(ids[:-10]), "test": tuple(ids[-10:])})


SMALL = (
    "model.preprocess.size=[64, 64]",
    "model.preprocess.percentiles=[0, 100]",
    "model.network={name: coordinate_net, encoder: test_resnet, pretrained: none}",
    "split.method=given",
    "fit.inner_folds=3",
    "train.workers=0",
    "predict.accelerator=cpu",
    "evaluate.draws=100",
)


def located(folder: Path) -> Path:
    """Train a tiny landmark model on the corners of the squares."""
    found = []
    for case in cases(24, start=500):
        _, _, side, (x, y) = square(int(case.id[1:]))
        points = np.array([[x, y]]) + side / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        found.append(replace(case, targets={}, landmarks=LandmarkSet(points, np.zeros(4, dtype=int))))
    ids = [case.id for case in found]
    data = Dataset("corners", CORNERS, tuple(found), {"train": tuple(ids[:20]), "val": tuple(ids[20:])})
    network = "model.network={name: unet, base_channels: 8, levels: 3, map_stride: 2}"
    overrides = ("model.preprocess.size=[64, 64]", network, "split.method=given", "train.epochs=40", "train.workers=0")
    train(data, folder, overrides=[*overrides, "evaluate.draws=100", "train.batch_size=4"])
    return folder


class TestRun:
    @pytest.mark.parametrize("regressor", ["elastic_net", "svr", "random_forest", "gaussian_process"])
    def test_is_fitted_kept_and_applied(self, regressor: str, tmp_path: Path) -> None:
        data = dataset()
        settings = {"random_forest": "trees: 40, min_leaf: 2, max_features: 0.5"}.get(regressor, "")
        overrides = [*SMALL, f"fit.regressor={{name: {regressor}, {settings}}}", "fit.pyramid=false"]
        result = train(data, tmp_path / "run", overrides=overrides)
        assert result.evaluation is not None
        assert result.images == 0
        metrics = result.evaluation.metrics
        # Statistics of the whole image tell something of level and side, but not all.
        assert metrics["side_r2"].value > 0.3
        bundle = load_bundle(result.run)
        assert bundle.regression is not None
        assert set(bundle.regression.models) == {"level", "side"}
        assert bundle.regression.columns[0] == SPACING
        found = list(Predictor([bundle]).predict(data.cases[-10:]))
        assert len(found) == 10
        for one in found:
            assert isinstance(one, Prediction)
            assert one.values["side"].unit == "mm"
            assert (one.values["level"].sd is not None) == (regressor == "gaussian_process")
            assert one.values["level"].half_width == pytest.approx(bundle.conformal["level"].half_width())
        assert bundle.conformal["side"].source == "3-fold cross-validation of 40 training subjects"

    def test_a_length_follows_the_spacing_of_its_image(self, tmp_path: Path) -> None:
        data = dataset()
        result = train(data, tmp_path / "run", overrides=[*SMALL, "fit.pyramid=false"])
        predictor = Predictor([load_bundle(result.run)])
        case = replace(data.cases[-1], frame=Frame((64, 64)))
        (bare,) = predictor.predict([case])
        assert isinstance(bare, Prediction)
        assert bare.values["side"].unit == "px"

    def test_the_region_of_interest_is_what_landmarks_enclose(self, tmp_path: Path) -> None:
        data, roi = dataset(), located(tmp_path / "roi")
        plain, local = (
            train(data, tmp_path / name, overrides=[*SMALL, "fit.pyramid=false", *more]).evaluation
            for name, more in (("plain", ()), ("local", (f"fit.roi={roi}",)))
        )
        assert plain is not None
        assert local is not None
        assert local.metrics["level_mae"].value < 0.4 * plain.metrics["level_mae"].value
        assert local.metrics["level_r2"].value > 0.95
        # The bundle is whole: it needs the run of the landmarks no longer.
        (roi / "bundle" / "bundle.json").unlink()
        bundle = load_bundle(tmp_path / "local")
        assert bundle.roi is not None
        assert bundle.roi.schema.names == tuple("abcd")
        (found,) = Predictor([bundle]).predict(data.cases[-1:])
        assert isinstance(found, Prediction)
        assert found.values["level"].mean == pytest.approx(data.cases[-1].targets["level"], abs=15)

    def test_covariates_join_and_stand_alone(self, tmp_path: Path) -> None:
        data = dataset()
        more = ("fit.covariates=[age, sex]", "fit.only_covariates=true")
        result = train(data, tmp_path / "run", overrides=[*SMALL, *more])
        assert result.evaluation is not None
        assert result.evaluation.metrics["level_r2"].value > 0.9
        bundle = load_bundle(result.run)
        assert bundle.regression is not None
        assert bundle.regression.columns == ("age", "sex=F", "sex=M")
        ageless = replace(data.cases[-1], tags={"sex": "F"})
        strange = replace(data.cases[-1], tags={"sex": "X", "age": 40})
        known, first, second = Predictor([bundle]).predict([data.cases[-1], ageless, strange])
        assert isinstance(known, Prediction)
        assert isinstance(first, Failure)
        assert "age" in first.reason
        assert isinstance(second, Failure)
        assert "one of F, M" in second.reason

    def test_training_cases_that_cannot_be_used_are_named_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        data = dataset()
        first = replace(data.cases[0], tags={"sex": "F"})
        data = replace(data, cases=(first, *data.cases[1:]))
        result = train(data, tmp_path / "run", overrides=[*SMALL, "fit.covariates=[age]", "fit.pyramid=false"])
        assert result.evaluation is not None
        assert [note for note in result.evaluation.notes if note.startswith("c0 was not learned from: ")]

    def test_features_of_a_network_that_is_trained_first(self, tmp_path: Path) -> None:
        more = ("fit.train=true", "train.epochs=2", "train.batch_size=8", "fit.intensities=false")
        result = train(dataset(), tmp_path / "run", overrides=[*SMALL, *more])
        assert result.images == 80
        bundle = load_bundle(result.run)
        assert bundle.regression is not None
        assert bundle.regression.columns[1].startswith("stride32_")

    def test_shuffled_targets_give_nothing(self, tmp_path: Path) -> None:
        """No way leads from the test patients' targets into what is fitted."""
        data = dataset(80)
        order = np.random.default_rng(3).permutation(80)
        moved = tuple(replace(c, targets=data.cases[i].targets) for c, i in zip(data.cases, order, strict=True))
        result = train(replace(data, cases=moved), tmp_path / "run", overrides=[*SMALL, "fit.pyramid=false"])
        assert result.evaluation is not None
        assert result.evaluation.metrics["level_r2"].low <= 0

    def test_few_subjects_with_nothing_to_choose(self, tmp_path: Path) -> None:
        """No cross-validation is possible, so that there is no interval; everything else is as usual."""
        data = dataset(14)
        more = ("fit.regressor={name: mean}", "fit.inner_folds=6", "fit.pyramid=false")
        result = train(data, tmp_path / "run", overrides=[*SMALL, *more])
        bundle = load_bundle(result.run)
        assert bundle.regression is not None
        assert bundle.regression.chosen["level"]["inner_r2"] is None
        (found,) = Predictor([bundle]).predict(data.cases[-1:])
        assert isinstance(found, Prediction)
        assert found.values["level"].half_width is None

    @pytest.mark.parametrize(
        ("more", "error", "words"),
        [
            (["model.codec.name=coordinate"], ConfigError, "codec scalar|no landmarks"),
            (["fit.regressor={name: forest}"], ConfigError, r"fit\.regressor"),
            (["fit.regressor={name: svr, c: []}"], ConfigError, "no value to choose"),
            (["fit.covariates=[weight]"], LabelError, r"'weight'.*age, sex"),
            (["fit.only_covariates=true"], ConfigError, "covariates"),
            (["fit.inner_folds=60"], LabelError, "fewer subjects"),
            (["fit.roi=nowhere"], BregmaError, "is not a bundle"),
            (["fit.slices=2"], ConfigError, "odd"),
            (["fit.slices=3", "model.preprocess.slices=3"], ConfigError, "one by one"),
            (["fit.pyramid=false", "fit.intensities=false"], ConfigError, "nothing of the image"),
        ],
    )
    def test_what_cannot_be_is_refused_before_training(
        self, more: list[str], error: type[Exception], words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(error, match=words):
            train(dataset(), tmp_path / "run", overrides=[*SMALL, *more])
        assert not (tmp_path / "run" / "plan.json").exists()


class TestFeatures:
    def _extractor(self, slices: int = 1, **more: Any) -> FeatureExtractor:
        from bregma.bundle import ModelConfig, build_model

        model = ModelConfig.model_validate(
            {
                "preprocess": {"size": [64, 64], "percentiles": [0, 100]},
                "network": {"name": "coordinate_net", "encoder": "test_resnet"},
                "codec": {"name": "scalar"},
            }
        )
        network, _ = build_model(model, SCHEMA)
        preprocess = model.preprocess.model_copy(update={"slices": slices})
        return FeatureExtractor(network, preprocess, accelerator="cpu", **more)

    def test_every_column_has_a_name(self) -> None:
        extractor = self._extractor()
        (found,) = extractor.extract(cases(1, start=1))
        assert not isinstance(found, Failure)
        assert found.slices.shape == (1, len(extractor.columns))
        assert len(set(extractor.columns)) == len(extractor.columns)
        row = dict(zip(extractor.columns, found.pooled, strict=True))
        assert row[SPACING] == pytest.approx(0.5)
        image = cases(1, start=1)[0].image.load() / 255
        assert row["image_mean"] == pytest.approx(image.mean(), abs=0.01)
        assert row["image_p50"] == pytest.approx(np.median(image), abs=0.01)

    def test_slices_are_seen_one_by_one_and_averaged(self) -> None:
        one, other, third = (case.image.load() for case in cases(3))
        case = replace(cases(1)[0], image=ArraySlab(np.stack([one, other, third])))
        (found,) = self._extractor(3).extract([case])
        assert not isinstance(found, Failure)
        assert found.slices.shape[0] == 3
        np.testing.assert_allclose(found.pooled, found.slices.mean(axis=0))
        alone = replace(case, image=ArrayImage(other))
        (single,) = self._extractor(1, pyramid=False).extract([alone])
        assert not isinstance(single, Failure)
        columns = self._extractor(1).columns
        middle = dict(zip(columns, found.slices[1], strict=True))
        assert middle["image_p50"] == pytest.approx(np.median(other) / 255, abs=0.02)

    def test_a_file_that_cannot_be_read_is_a_failure(self) -> None:
        broken = replace(cases(1)[0], frame=Frame((32, 32)))
        first, second = self._extractor().extract([broken, cases(1)[0]])
        assert isinstance(first, Failure)
        assert "not as large" in first.reason
        assert not isinstance(second, Failure)

    def test_masks_of_a_region(self) -> None:
        points = np.array([[20, 20], [40, 20], [40, 40], [20, 40]], dtype=float)
        frame = Frame((64, 64))
        given = Prediction("1", points, np.zeros((4, 2, 2)), np.ones(4), frame)
        inside, around, side = region_of(given, CORNERS, np.eye(3), (64, 64), where="1")
        assert side == pytest.approx(21)
        assert inside[30, 30] == 1
        assert inside[20, 20] == 0, "the rim is left out"
        assert around[30, 30] == 0
        assert around[30, 45] == 1
        assert around[30, 60] == 0
        assert not (inside * around).any()
        missing = replace(given, presence=np.array([1.0, 1.0, 0.0, 0.0]))
        with pytest.raises(BregmaError, match="no region of interest"):
            region_of(missing, CORNERS, np.eye(3), (64, 64), where="1")

    def test_the_size_of_a_region_is_in_millimetres(self) -> None:
        class Found:
            schema = CORNERS

            def predict(self, cases: Iterable[Case]) -> Iterator[Prediction]:
                square = np.array([[8, 8], [23, 8], [23, 23], [8, 23]], dtype=float)
                return (Prediction(c.id, square, np.zeros((4, 2, 2)), np.ones(4), c.frame) for c in cases)

        case = cases(1)[0]
        shape = case.frame.shape
        sides = {}
        for spacing in (None, (0.5, 0.5), (2.0, 2.0)):
            frame = Frame(shape) if spacing is None else Frame(shape, spacing, "user")
            extractor = self._extractor(roi=Found())
            (found,) = extractor.extract([replace(case, frame=frame)])
            assert not isinstance(found, Failure)
            sides[spacing] = dict(zip(extractor.columns, found.pooled, strict=True))[ROI_SIDE]
        assert sides[None] == 0
        assert sides[0.5, 0.5] == pytest.approx(8, rel=0.1)
        assert sides[2.0, 2.0] == pytest.approx(32, rel=0.1)

    def test_a_network_of_another_number_of_slices_is_refused(self) -> None:
        from bregma.bundle import ModelConfig, build_model

        network, preprocess = {"name": "coordinate_net", "encoder": "test_resnet"}, {"size": [64, 64], "slices": 3}
        model = {"preprocess": preprocess, "network": network, "codec": {"name": "scalar"}}
        config = ModelConfig.model_validate(model)
        built, _ = build_model(config, SCHEMA)
        with pytest.raises(ConfigError, match=r"another number of slices.*expected 3"):
            FeatureExtractor(built, config.preprocess.model_copy(update={"slices": 5}))

    def test_a_network_without_a_pyramid_is_refused(self) -> None:
        from bregma.bundle import ModelConfig, build_model

        network, _ = build_model(ModelConfig.model_validate(tiny.MODEL), tiny.SCHEMA)
        with pytest.raises(ConfigError, match="timm encoder"):
            FeatureExtractor(network, ModelConfig().preprocess)


def test_a_study_compares_them_by_their_quantity(tmp_path: Path) -> None:
    study_file = tmp_path / "study.yaml"
    shared = ", ".join(json.dumps(one) for one in SMALL if not one.startswith(("split", "evaluate", "fit.inner")))
    study_file.write_text(
        "arms:\n"
        "  - {name: grey, set: ['fit.regressor={name: elastic_net}', 'fit.pyramid=false', 'fit.inner_folds=3']}\n"
        "  - {name: mean, set: ['fit.regressor={name: mean}', 'fit.pyramid=false']}\n"
        f"folds: 3\nset: [{shared}]\nevaluate: {{draws: 100}}\ntiers: [5, 20]\n"
    )
    data = replace(dataset(36), splits={})
    result = study(study_file, data, tmp_path / "study")
    assert not result.failures
    assert result.table is not None
    assert result.table.unit == "1"
    grey, mean = result.table.arms
    assert grey.mre.n == mean.mre.n == 36
    assert mean.mre.value == pytest.approx(np.mean([np.abs(c.targets["level"] - 120) for c in data]), rel=0.2)
    assert grey.mre.value is not None
    assert mean.difference is not None
    assert mean.difference.value == pytest.approx(mean.mre.value - grey.mre.value)
    assert {"level_r2", "side_mae"} <= {row.metric for row in result.table.comparison.rows}
    assert list(result.table.landmarks.rows) == ["level"]
    assert result.table.quantity == "Level"
    page = (tmp_path / "study" / "study.html").read_text()
    assert "Absolute errors of Level" in page
    assert "By quantity" in page
    assert not any(word in page for word in ("Radial", "radial", "MRE", "andmark", "Learning curves"))
    again = study(study_file, data, tmp_path / "study")
    assert again.table is not None
    assert again.table.arms[0].mre == grey.mre


def test_a_study_holds_a_measured_number_against_one_that_is_read_off(tmp_path: Path) -> None:
    shared = ["model.preprocess.size=[64, 64]", "train.workers=0", "predict.accelerator=cpu"]
    marks = [*(one for one in tiny.OVERRIDES if not one.startswith("split")), *shared, "train.epochs=3"]
    network = "model.network={name: coordinate_net, encoder: test_resnet, pretrained: none}"
    whole = [*shared, network, "model.codec={name: scalar, quantities: [gap]}"]
    arms = [
        {"name": "marks", "set": marks},
        {"name": "mean", "set": [*whole, "fit.regressor={name: mean}", "fit.pyramid=false"]},
    ]
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps({"arms": arms, "folds": 3, "evaluate": {"draws": 100}, "tiers": [5, 20]}))
    data = tiny.dataset(18)
    data = replace(data, splits={}, cases=tuple(replace(c, frame=Frame((64, 64), (0.5, 0.5), "user")) for c in data))
    result = study(file, data, tmp_path / "study")
    assert not result.failures
    assert result.table is not None
    assert result.table.unit == "mm"
    assert [arm.mre.n for arm in result.table.arms] == [len(data)] * 2
    assert {"gap_mae", "gap_r2"} <= {row.metric for row in result.table.comparison.rows}
    page = (tmp_path / "study" / "study.html").read_text()
    assert "Learning curves" in page
    assert (tmp_path / "study" / "curves.svg").is_file()


def test_learning_curves_have_a_row_a_metric_and_only_arms_that_learned() -> None:
    points = [{"images": 100.0 * n, "seconds": 60.0 * n, "val_mre_px": 5.0 / n} for n in (1, 2)]
    values = [{"images": 100.0 * n, "seconds": 60.0 * n, "val_mae_sd": 0.5 / n} for n in (1, 2)]
    drawn = {
        name: arms_together({"a": [points], **others}, format="png")
        for name, others in {"one": {}, "idle": {"b": [[]]}, "both": {"b": [values]}}.items()
    }
    heights = {name: cv2.imdecode(np.frombuffer(png or b"", np.uint8), 1).shape[0] for name, png in drawn.items()}
    assert heights["one"] == heights["idle"]
    assert heights["both"] > 1.6 * heights["one"]
    assert drawn["one"] == drawn["idle"]
    assert arms_together({"b": [[]], "c": []}) is None


class TestRemembered:
    """In a study, what several regressors see of an image is computed once, and is what each would have computed."""

    @staticmethod
    def stored(folder: Path, count: int = 24) -> Dataset:
        """Return squares as files, since only what is on disk can be told from what it was."""
        folder.mkdir()
        kept = []
        for case in cases(count):
            path = folder / f"{case.id}.png"
            cv2.imwrite(str(path), case.image.load())
            kept.append(replace(case, image=FileImage(path)))
        ids = [case.id for case in kept]
        return Dataset("grey", SCHEMA, tuple(kept), {"train": tuple(ids[:-6]), "test": tuple(ids[-6:])})

    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        usual = FeatureExtractor.of

        def of(self: FeatureExtractor, case: Case) -> Any:
            seen.append(case.id)
            return usual(self, case)

        monkeypatch.setattr(FeatureExtractor, "of", of)
        return seen

    def test_once_an_image_and_the_same_figures(self, counted: list[str], tmp_path: Path) -> None:
        data = self.stored(tmp_path / "images")
        fits = {name: f"fit.regressor={{name: {name}}}" for name in ("elastic_net", "svr")}
        text = {"arms": [{"name": name, "set": [fit]} for name, fit in fits.items()], "set": list(SMALL)}
        (tmp_path / "s.yaml").write_text(json.dumps(text))
        study(tmp_path / "s.yaml", data, tmp_path / "out")
        trained = [case for case in counted if case in data.splits["train"]]
        assert sorted(trained) == sorted(data.splits["train"])
        for name, fit in fits.items():
            alone = train(data, tmp_path / name, overrides=[*SMALL, fit])
            together = tmp_path / "out" / "runs" / name / "seed-0"
            numbers = [(run / "bundle" / "regression.safetensors").read_bytes() for run in (alone.run, together)]
            assert numbers[0] == numbers[1]

    def test_a_single_training_remembers_nothing(self, counted: list[str], tmp_path: Path) -> None:
        data = self.stored(tmp_path / "images")
        for number in range(2):
            train(data, tmp_path / f"run{number}", overrides=[*SMALL, "fit.regressor={name: mean}"])
        assert len([case for case in counted if case in data.splits["train"]]) == 2 * len(data.splits["train"])

    @pytest.mark.parametrize("change", ["image", "network", "input", "kinds", "region"])
    def test_whatever_changes_the_features_has_its_own(self, change: str, counted: list[str], tmp_path: Path) -> None:
        data = self.stored(tmp_path / "images")
        other = {
            "network": ["train.seed=5"],
            "input": ["model.preprocess.size=[96, 96]"],
            "kinds": ["fit.intensities=false"],
            "region": [f"fit.roi={located(tmp_path / 'other')}"] if change == "region" else [],
            "image": [],
        }[change]
        region = [f"fit.roi={located(tmp_path / 'one')}"] if change == "region" else []
        counted.clear()
        with features_remembered():
            train(data, tmp_path / "a", overrides=[*SMALL, "fit.regressor={name: mean}", *region])
            first = len(counted)
            if change == "image":
                path = tmp_path / "images" / f"{data.splits['train'][0]}.png"
                cv2.imwrite(str(path), np.rot90(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).copy())
                os.utime(path, (1, 1))
            train(data, tmp_path / "b", overrides=[*SMALL, "fit.regressor={name: mean}", *other])
        again = len(counted) - first
        assert again == (1 if change == "image" else first)
