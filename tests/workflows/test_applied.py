"""What a recipe says about prediction goes with the bundle, so that the model in use is the model of the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tiny
from bregma.bundle import PredictConfig, load_bundle
from bregma.errors import ConfigError
from bregma.evaluation import EvaluationSettings
from bregma.phantoms import make_phantoms
from bregma.shape_model import reconcile
from bregma.types import Dataset, Prediction
from bregma.workflows import TrainResult, evaluate, predict, train

RECIPE = [
    "evaluate.draws=100",
    "model.preprocess.size=[64,64]",
    "model.network.name=unet",
    "model.network.base_channels=4",
    "model.network.levels=3",
    "train.epochs=1",
    "train.accelerator=cpu",
    "train.workers=0",
    'split.fractions={"train": 0.75, "test": 0.25}',
    "predict.flip=true",
    "augment.flip=0.5",
    "predict.zooms=[0.9]",
    "predict.shape_weight=0.25",
    "predict.accelerator=cpu",
]


@pytest.fixture(scope="module")
def hands() -> Dataset:
    return make_phantoms("hand", 16, seed=0, size=(64, 64))


@pytest.fixture(scope="module")
def result(hands: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(hands, tmp_path_factory.mktemp("applied") / "run", overrides=RECIPE)


def points(file: Path) -> dict[str, Prediction]:
    lines = (Prediction.from_dict(json.loads(line)) for line in file.read_text().splitlines())
    return {prediction.case_id: prediction for prediction in lines}


def test_the_bundle_says_how_it_is_applied_but_not_where(result: TrainResult) -> None:
    bundle = load_bundle(result.bundle)
    assert bundle.predict == PredictConfig(flip=True, zooms=(0.9,), shape_weight=0.25)
    assert bundle.shape_model is not None
    assert len(bundle.shape_model) == 37
    assert bundle.shape_model.cases == 12


def test_an_evaluation_later_finds_what_the_report_said(result: TrainResult, hands: Dataset, tmp_path: Path) -> None:
    reported = points(result.run / "evaluation" / "test" / "predictions.jsonl")
    again = evaluate(result.run, hands, out=tmp_path / "again", settings=EvaluationSettings(draws=100))
    assert result.evaluation is not None
    assert again.metrics["mre_px"] == result.evaluation.metrics["mre_px"]
    for name, prediction in points(tmp_path / "again" / "predictions.jsonl").items():
        np.testing.assert_array_equal(prediction.mean, reported[name].mean)


def test_what_is_asked_for_counts_over_the_bundle_and_the_rest_stays(
    result: TrainResult, hands: Dataset, tmp_path: Path
) -> None:
    reported = points(result.run / "evaluation" / "test" / "predictions.jsonl")
    loose = PredictConfig(shape_weight=0)
    evaluate(result.run, hands, out=tmp_path / "loose", settings=EvaluationSettings(draws=100), predict=loose)
    shapes = load_bundle(result.bundle).shape_model
    assert shapes is not None
    for name, prediction in points(tmp_path / "loose" / "predictions.jsonl").items():
        assert np.abs(prediction.mean - reported[name].mean).max() > 0.01
        # Flip and zoom are the bundle's still: only the shape model is missing.
        np.testing.assert_allclose(reconcile(prediction, shapes, weight=0.25).mean, reported[name].mean, atol=1e-9)


def test_unasked_the_shape_model_counts_lightly(hands: Dataset, result: TrainResult, tmp_path: Path) -> None:
    found = {}
    for name, weight in {"unasked": None, "light": 0.002}.items():
        asked = PredictConfig(shape_weight=weight)
        evaluate(result.run, hands, out=tmp_path / name, settings=EvaluationSettings(draws=100), predict=asked)
        found[name] = points(tmp_path / name / "predictions.jsonl")
    for case, prediction in found["unasked"].items():
        np.testing.assert_array_equal(prediction.mean, found["light"][case].mean)


def test_images_without_labels_are_seen_likewise(result: TrainResult, hands: Dataset, tmp_path: Path) -> None:
    from bregma.report import save_png

    reported = points(result.run / "evaluation" / "test" / "predictions.jsonl")
    name = next(iter(reported))
    save_png(tmp_path / "image.png", next(case for case in hands if case.id == name).image.load())
    found = predict([result.bundle], [tmp_path / "image.png"], tmp_path / "out")
    np.testing.assert_allclose(found.predictions[0].mean, reported[name].mean, atol=1e-6)


def test_too_few_shapes_are_refused_before_training(spots: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"predict.shape_weight: .*at least 10 images, got 8 images.*set it to 0"):
        train(spots, tmp_path / "run", overrides=[*tiny.OVERRIDES, "predict.shape_weight=0.5"])
    assert not (tmp_path / "run").exists()
