"""``predict`` and ``measure``: mixed files, bad files, and measurements without a network."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import tiny
from bregma.bundle import PredictConfig
from bregma.datasets import write_dataset
from bregma.errors import BundleError, ConfigError, ImageError, InputError, RunError, SchemaError
from bregma.io import open_image
from bregma.types import Case, Dataset
from bregma.workflows import DataOptions, PredictResult, measure, predict
from dicom_files import write_dicom

CPU = PredictConfig(accelerator="cpu")


def write(path: Path, case: Case) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, case.image.load())[1].tobytes())
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    one, two, three, four = tiny.cases(4, start=20)
    write(folder / "a.png", one)
    write(folder / "deeper" / "a.jpg", two)
    write_dicom(folder / "c.dcm", three.image.load(), PixelSpacing=[0.5, 0.25])
    write(folder / "broken.png", four)
    (folder / "broken.png").write_bytes((folder / "broken.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def result(run: Path, images: Path, tmp_path: Path) -> PredictResult:
    return predict([run], [images], tmp_path / "out", config=CPU)


class TestPredict:
    def test_bad_files_cost_only_themselves(self, result: PredictResult, tmp_path: Path) -> None:
        assert [p.case_id for p in result.predictions] == ["a.png", "c.dcm", "deeper/a.jpg"]
        failures = {failure.case_id: failure.reason for failure in result.failures}
        assert failures.keys() == {"broken.png", "empty.jpg"}
        assert "is empty" in failures["empty.jpg"]
        assert json.loads((tmp_path / "out" / "failures.json").read_text()) == failures
        told = (tmp_path / "out" / "report.html").read_text()
        assert "broken.png could not be used" in told

    def test_files(self, result: PredictResult) -> None:
        assert {path.name for path in result.out.iterdir()} == {
            "predictions.jsonl",
            "predictions.csv",
            "measurements.csv",
            "measurements.json",
            "schema.json",
            "failures.json",
            "report.html",
        }
        with (result.out / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["case"], row["landmark"]) for row in rows[:2]] == [("a.png", "bright"), ("a.png", "dark")]
        assert float(rows[0]["x"]) == result.predictions[0].mean[0, 0]
        assert rows[0]["x_mm"] == ""
        assert json.loads(json.dumps(result.to_dict()))["predicted"] == ["a.png", "c.dcm", "deeper/a.jpg"]

    def test_lengths_are_in_mm_only_where_the_spacing_is_known(self, result: PredictResult) -> None:
        units = {p.case_id: measured[0].unit for p, measured in zip(result.predictions, result.measurements)}
        assert units == {"a.png": "px", "c.dcm": "mm", "deeper/a.jpg": "px"}
        dicom = result.predictions[1]
        # PixelSpacing gives rows first: 0.5 mm along y, 0.25 mm along x.
        gap = np.hypot(*((dicom.mean[0] - dicom.mean[1]) * (0.25, 0.5)))
        assert result.measurements[1][0].value == pytest.approx(gap, rel=1e-12)

    def test_a_spacing_from_the_user_counts_for_all(self, run: Path, images: Path, tmp_path: Path) -> None:
        result = predict([run], [images / "a.png", images / "c.dcm"], tmp_path / "o", spacing=(0.2, 0.3), config=CPU)
        for prediction in result.predictions:
            assert prediction.frame.spacing == (0.2, 0.3)
            assert prediction.frame.spacing_source == "user"

    def test_files_of_one_name_are_kept_apart(self, run: Path, images: Path, tmp_path: Path) -> None:
        twins = [images / "a.png", write(tmp_path / "elsewhere" / "a.png", tiny.case(31))]
        result = predict([run], twins, tmp_path / "o", config=CPU)
        assert len({p.case_id for p in result.predictions}) == 2

    def test_an_ensemble_is_the_mean_of_its_members(self, run: Path, images: Path, tmp_path: Path) -> None:
        one = predict([run], [images / "a.png"], tmp_path / "1", config=CPU).predictions[0]
        two = predict([run, run / "bundle"], [images / "a.png"], tmp_path / "2", config=CPU).predictions[0]
        np.testing.assert_allclose(two.mean, one.mean, rtol=1e-9)

    def test_when_no_file_can_be_used_that_is_written_down(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        result = predict([run], [tmp_path / "x.png"], tmp_path / "o", config=CPU)
        assert result.predictions == ()
        assert "x.png" in json.loads((tmp_path / "o" / "failures.json").read_text())
        assert (tmp_path / "o" / "report.html").is_file()

    def test_refusals(self, run: Path, images: Path, tmp_path: Path) -> None:
        out = tmp_path / "o"
        with pytest.raises(ImageError, match="does not exist"):
            predict([run], [tmp_path / "absent"], out)
        (tmp_path / "bare").mkdir()
        with pytest.raises(ImageError, match="there are no images"):
            predict([run], [tmp_path / "bare"], out)
        with pytest.raises(BundleError, match="is not a bundle"):
            predict([tmp_path], [images], out)
        with pytest.raises(BundleError, match="there is no bundle"):
            predict([], [images], out)
        with pytest.raises(ConfigError, match=r"spacing.*two positive numbers"):
            predict([run], [images], out, spacing=(0.0, 1.0))
        assert not out.exists()
        with pytest.raises(RunError, match=r"exists already and is not overwritten.*another --out"):
            predict([run], [images], images)
        with pytest.raises(RunError, match="exists already"):
            predict([run], [images], images / "a.png")


class TestMeasure:
    def test_predictions(self, result: PredictResult, tmp_path: Path) -> None:
        expected = dict(zip([p.case_id for p in result.predictions], result.measurements))
        assert measure(result.out) == expected
        assert measure(result.out / "predictions.jsonl", out=tmp_path / "m") == expected
        for name in ("measurements.csv", "measurements.json"):
            assert (tmp_path / "m" / name).read_bytes() == (result.out / name).read_bytes()

    def test_labels(self, tmp_path: Path, spots: Dataset) -> None:
        write_dataset(spots, tmp_path / "d", "bregma_json")
        measured = measure(tmp_path / "d")
        for case in spots:
            gap = 0.5 * float(np.linalg.norm(case.landmarks.points[0] - case.landmarks.points[1]))
            assert measured[case.id][0].value == pytest.approx(gap, rel=1e-12)
            assert measured[case.id][0].unit == "mm"
            assert measured[case.id][0].interval is None

    def test_images_without_labels_are_passed_over(self, tmp_path: Path, spots: Dataset) -> None:
        cases = (replace(spots.cases[0], landmarks=None), *spots.cases[1:3])
        write_dataset(replace(spots, cases=cases, splits={}), tmp_path / "d", "bregma_json")
        assert measure(tmp_path / "d").keys() == {"c1", "c2"}

    def test_how_labels_are_read_may_be_told(self, tmp_path: Path, spots: Dataset) -> None:
        write_dataset(spots, tmp_path / "d", "csv")
        for path in (tmp_path / "d").glob("*.csv"):
            path.rename(tmp_path / "d" / "one.csv")
        (tmp_path / "d" / "two.csv").write_text((tmp_path / "d" / "one.csv").read_text())
        for path in (tmp_path / "d").glob("*.columns.*"):
            path.rename(tmp_path / "d" / "one.columns.yaml")
        schema = tmp_path / "spots.yaml"
        schema.write_text(json.dumps(tiny.SCHEMA.to_dict()))
        measured = measure(tmp_path / "d", schema=schema, options=DataOptions(format="csv", labels="one.csv"))
        assert len(measured) == len(spots)

    def test_another_schema_is_refused(self, result: PredictResult) -> None:
        with pytest.raises(SchemaError, match="landmarks"):
            measure(result.out, schema="fetal_head")

    def test_a_schema_that_is_not_there(self, result: PredictResult) -> None:
        (result.out / "schema.json").unlink()
        with pytest.raises(RunError, match=r"schema is not known.*--schema"):
            measure(result.out)

    @pytest.mark.parametrize("line", ["{", "[]", '{"case_id": "x"}', "null"])
    def test_a_spoilt_line_is_named(self, result: PredictResult, line: str) -> None:
        path = result.out / "predictions.jsonl"
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(InputError, match=r"predictions\.jsonl, line 4"):
            measure(result.out)


def test_what_is_predicted_is_what_was_trained_on(run: Path, spots: Dataset, tmp_path: Path) -> None:
    """The same image gives the same points, whether it comes from memory through an evaluation or from a file."""
    case = spots.select(spots.splits["test"])[0]
    path = write(tmp_path / "x.png", case)
    found = predict([run], [path], tmp_path / "o", spacing=(0.5, 0.5), config=CPU).predictions[0]
    lines = (run / "evaluation" / "test" / "predictions.jsonl").read_text().splitlines()
    stored = next(row for row in map(json.loads, lines) if row["case_id"] == case.id)
    assert found.mean.tolist() == stored["mean"]
    assert found.model == stored["model"]
    assert open_image(path)[1].shape == case.frame.shape
