"""Quantities of whole images through the whole road: train, evaluate, predict, measure and report."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import tiny
from bregma.bundle import PredictConfig, load_bundle
from bregma.errors import ConfigError, LabelError
from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case, Dataset
from bregma.workflows import TrainResult, evaluate, predict, train
from bregma.workflows.quantities import in_quantities

SCHEMA = schema_from_dict(
    {
        "name": "discs",
        "title": "Discs",
        "flip": "keep",
        "quantities": [
            {"name": "diameter", "label": "Diameter", "unit": "mm", "dimension": "length", "grade": "size"},
            {"name": "shade", "label": "Shade of the middle", "unit": "1"},
        ],
        "grades": [{"name": "size", "edges": [12.0], "labels": ["small", "large"], "source": "test"}],
    },
    where="tests",
)

OVERRIDES = (
    "model.codec.name=scalar",
    "model.preprocess.size=[32,32]",
    "augment.scale=0.1",
    "augment.rotation_deg=0",
    "train.batch_size=8",
    "train.epochs=14",
    "train.accelerator=cpu",
    "train.precision=32-true",
    "train.workers=0",
    "predict.accelerator=cpu",
    "evaluate.draws=100",
)
CPU = PredictConfig(accelerator="cpu")


def disc(number: int, spacing: tuple[float, float] | None = (0.5, 0.5)) -> Case:
    """Return a disc of some diameter, somewhere near the middle of a 64 x 64 image of half-millimetre pixels."""
    rng = np.random.default_rng(number)
    radius, (x0, y0) = rng.uniform(6, 24), rng.uniform(26, 38, 2)
    y, x = np.mgrid[:64, :64]
    pixels = (60 + 120 * (np.hypot(x - x0, y - y0) < radius) + rng.normal(0, 4, (64, 64))).astype(np.uint8)
    frame = Frame((64, 64), spacing, "user") if spacing else Frame((64, 64))
    targets = {"diameter": float(radius)}  # Twice the radius in pixels of half a millimetre.
    return Case(f"d{number}", f"s{number}", ArrayImage(pixels), frame, targets=targets)


@pytest.fixture(scope="module")
def discs() -> Dataset:
    cases = tuple(disc(number) for number in range(64))
    names = [case.id for case in cases]
    return Dataset(
        "discs", SCHEMA, cases, {"train": tuple(names[:44]), "val": tuple(names[44:52]), "test": tuple(names[52:])}
    )


@pytest.fixture(scope="module")
def trained(discs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    only = ["model.codec.quantities=[diameter]"]
    return train(discs, tmp_path_factory.mktemp("runs") / "discs", overrides=[*OVERRIDES, *only])


def test_it_is_learned_in_millimetres_and_told_with_its_figures(trained: TrainResult) -> None:
    assert trained.evaluation is not None
    metrics = trained.evaluation.metrics
    assert metrics["diameter_r2"].value > 0.6
    assert metrics["diameter_mae"].unit == "mm"
    assert metrics["diameter_mae"].value < 3.0
    assert {"diameter_rmse", "diameter_pearson", "diameter_spearman", "diameter_kappa"} <= metrics.keys()
    assert not [name for name in metrics if name.startswith(("mre", "sdr", "shade"))]
    assert not any("interval of R²" in note for note in trained.evaluation.notes)
    report = (trained.run / "report.html").read_text()
    assert 'class="key"' not in report
    assert "Predicted against true values of Diameter" in report
    assert "mean and standard deviation over the training subjects" in report


def test_an_r2_that_may_be_none_is_said(discs: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = tuple(replace(case, targets={"diameter": float(rng.uniform(6, 24))}) for case in discs)
    asked = ["model.codec.quantities=[diameter]", "train.epochs=1"]
    result = train(replace(discs, cases=drawn), tmp_path / "run", overrides=[*OVERRIDES, *asked])
    assert result.evaluation is not None
    low = result.evaluation.metrics["diameter_r2"].low
    assert low is not None
    assert low <= 0
    assert any("Diameter: the interval of R² includes 0" in note for note in result.evaluation.notes)
    assert "the interval of R² includes 0" in (result.run / "report.html").read_text()


def test_the_bundle_holds_what_the_training_subjects_are_like(trained: TrainResult, discs: Dataset) -> None:
    codec = load_bundle(trained.run).config.codec
    true = [case.targets["diameter"] for case in discs.cases[:44]]
    # 64 pixels of half a millimetre are shown on 32, so that a pixel of these is a millimetre.
    assert codec.standards[0].mean == pytest.approx(np.mean(true), rel=0.03)
    assert codec.standards[0].sd == pytest.approx(np.std(true, ddof=1), rel=0.03)


def test_evaluating_again_gives_the_same(trained: TrainResult, discs: Dataset, tmp_path: Path) -> None:
    assert trained.evaluation is not None
    again = evaluate(trained.run, discs, part="test", out=tmp_path / "again")
    for name, found in trained.evaluation.metrics.items():
        assert again.metrics[name].value == pytest.approx(found.value, rel=1e-4, nan_ok=True)


def test_files_are_predicted_in_millimetres_where_the_spacing_is_known_and_else_in_pixels(
    trained: TrainResult, discs: Dataset, tmp_path: Path
) -> None:
    case = discs.cases[60]
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(cv2.imencode(".png", case.image.load())[1].tobytes())
    known = predict([trained.run], [folder], tmp_path / "mm", spacing=(0.5, 0.5), config=CPU)
    unknown = predict([trained.run], [folder], tmp_path / "px", config=CPU)
    (mm,), (px,) = known.measurements[0], unknown.measurements[0]
    assert (mm.unit, px.unit, px.status) == ("mm", "px", "no_spacing")
    assert px.value == pytest.approx(2 * mm.value)
    assert mm.value == pytest.approx(case.targets["diameter"], abs=6.0)
    with (tmp_path / "mm" / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["value"]) == pytest.approx(mm.value, rel=1e-3)
    line = json.loads((tmp_path / "mm" / "predictions.jsonl").read_text().splitlines()[-1])
    assert line["values"]["diameter"]["unit"] == "mm"


def test_a_measurement_of_landmarks_is_a_quantity_of_the_image(tmp_path: Path) -> None:
    spots = tiny.dataset()
    seen = in_quantities(spots, ("gap",))
    marks = spots.cases[0].landmarks
    assert marks is not None
    assert not len(seen.schema)
    gap = 0.5 * np.linalg.norm(marks.points[0] - marks.points[1])
    assert seen.cases[0].targets["gap"] == pytest.approx(gap)
    result = train(spots, tmp_path / "run", overrides=[*OVERRIDES, "model.codec.quantities=[gap]", "train.epochs=2"])
    assert result.evaluation is not None
    assert result.evaluation.metrics["gap_mae"].n == 3


def test_variances_are_learned_where_they_are_asked_for(discs: Dataset, tmp_path: Path) -> None:
    asked = ["model.codec.quantities=[diameter]", "model.codec.variance=true", "train.epochs=2"]
    result = train(discs, tmp_path / "run", overrides=[*OVERRIDES, *asked])
    predictions = (result.run / "evaluation" / "test" / "predictions.jsonl").read_text().splitlines()
    values = [json.loads(line)["values"]["diameter"] for line in predictions if "values" in line]
    assert len(values) == 12
    assert all(value["sd"] > 0 for value in values)


@pytest.mark.parametrize(
    ("targets", "settings", "words"),
    [
        (None, ["model.codec.quantities=[weight]"], "no quantity or measurement 'weight'"),
        (None, ["model.codec.quantities=[shade]"], "none of the training images has a known value of shade"),
        ({"diameter": 7.0}, ["model.codec.quantities=[diameter]"], "is the same for all training subjects"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    discs: Dataset, tmp_path: Path, targets: dict[str, float] | None, settings: list[str], words: str
) -> None:
    if targets is not None:
        discs = replace(discs, cases=tuple(replace(case, targets=targets) for case in discs))
    with pytest.raises((ConfigError, LabelError), match=words):
        train(discs, tmp_path / "run", overrides=[*OVERRIDES, *settings])
    assert not (tmp_path / "run" / "bundle").exists()
