"""``inspect``, ``convert`` and ``phantom``."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import tiny
from bregma.datasets import read_dataset
from bregma.errors import ConfigError, LabelError, RunError
from bregma.types import ArrayImage, Dataset
from bregma.workflows import DataOptions, convert, inspect, phantom


class TestInspect:
    def test_describes_and_draws(self, spots: Dataset, tmp_path: Path) -> None:
        found = inspect(spots, out=tmp_path / "i")
        assert {path.name for path in (tmp_path / "i").iterdir()} == {
            "fingerprint.json",
            "findings.csv",
            "findings.json",
            "contact_sheet.png",
            *(path.name for path in found.figures),
        }
        assert [path.name for path in found.figures] == [
            "demographics.png",
            "label_counts.png",
            "measurements.png",
            "samples.png",
            "samples_by_parity.png",
            "samples_by_gap_grade.png",
        ]
        assert found.to_dict()["figures"] == [str(path) for path in found.figures]
        assert json.loads((tmp_path / "i" / "fingerprint.json").read_text())["images"] == 14
        sheet = cv2.imread(str(tmp_path / "i" / "contact_sheet.png"))
        assert sheet.shape[1] > sheet.shape[0]
        assert found.fingerprint.spacing.known == 14
        assert found.sheet == tmp_path / "i" / "contact_sheet.png"

    def test_writes_nothing_without_being_told(self, spots: Dataset, tmp_path: Path) -> None:
        found = inspect(spots)
        assert found.sheet is None
        assert json.loads(json.dumps(found.to_dict()))["sheet"] is None
        assert found.to_dict()["figures"] == []
        assert list(tmp_path.iterdir()) == []

    def test_a_broken_image_is_a_finding_not_an_end(self, spots: Dataset, tmp_path: Path) -> None:
        write = tmp_path / "d"
        convert(spots, write, "bregma_json")
        path = write / "images" / "c3.png"
        path.write_bytes(path.read_bytes()[:-300])
        found = inspect(write, out=tmp_path / "i")
        told = [finding for finding in found.findings if finding.kind == "unreadable_image"]
        assert [finding.case_id for finding in told] == ["c3"]
        with (tmp_path / "i" / "findings.csv").open(newline="") as file:
            assert next(csv.DictReader(file))["case"] == "c3"
        assert found.fingerprint.images == 13

    @pytest.mark.parametrize("most", [1, 3, 24])
    def test_as_many_tiles_as_asked_for(self, spots: Dataset, most: int, tmp_path: Path) -> None:
        told: dict[str, tuple[int, int]] = {}

        def track(items: object, total: int, what: str) -> list[object]:
            drawn = list(items)
            told[what] = (total, len(drawn))
            return drawn

        same = tuple(replace(case, landmarks=spots.cases[0].landmarks) for case in spots.cases[1:6])
        data = replace(spots, cases=(spots.cases[0], *same, *spots.cases[6:]))
        inspect(data, out=tmp_path / "i", images=most, track=track)
        assert told == dict.fromkeys(("draw", "draw samples"), (min(most, 14), min(most, 14)))

    def test_every_image_broken(self, spots: Dataset, tmp_path: Path) -> None:
        cases = tuple(replace(case, image=Absent()) for case in spots.cases[:2])
        with pytest.raises(LabelError, match="none of the images can be read"):
            inspect(replace(spots, cases=cases, splits={}), out=tmp_path / "i")
        assert not (tmp_path / "i").exists()


class Absent(ArrayImage):
    """An image whose file has gone."""

    def __init__(self) -> None:
        super().__init__(np.zeros((1, 1)))

    def load(self) -> np.ndarray:
        from bregma.errors import ImageError

        raise ImageError("does not exist", where="gone.png")


class TestConvert:
    @pytest.mark.parametrize("format", ["csv", "csv_long", "coco", "labelme", "bregma_json"])
    def test_there_and_back(self, spots: Dataset, tmp_path: Path, format: str) -> None:
        convert(spots, tmp_path / "a", "bregma_json")
        written, dataset = convert(tmp_path / "a", tmp_path / "b", format)
        assert written.exists()
        assert len(dataset) == len(spots)
        back = read_dataset(tmp_path / "b", schema=tiny.SCHEMA)
        for case in back:
            before = spots.select([case.id])[0]
            np.testing.assert_allclose(case.landmarks.points, before.landmarks.points, atol=1e-9)
            np.testing.assert_array_equal(case.image.load(), before.image.load())

    def test_refusals(self, spots: Dataset, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"'yolo' cannot be written.*coco"):
            convert(spots, tmp_path / "a", "yolo")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "mine.txt").write_text("mine")
        with pytest.raises(RunError, match="is not empty"):
            convert(spots, tmp_path / "b", "coco")
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine.txt"]
        convert(spots, tmp_path / "b", "coco", overwrite=True)
        assert (tmp_path / "b" / "mine.txt").read_text() == "mine"
        with pytest.raises(ConfigError, match="no label format 'xml'"):
            convert(tmp_path / "b", tmp_path / "c", "coco", options=DataOptions(format="xml"))


class TestPhantom:
    def test_writes_what_it_returns(self, tmp_path: Path) -> None:
        made = phantom("fetal_head", tmp_path / "p", count=3, seed=4, size=96, difficulty="easy")
        back = read_dataset(tmp_path / "p")
        assert back.schema == made.schema
        for case, before in zip(back, made, strict=True):
            assert case.landmarks == before.landmarks
            np.testing.assert_array_equal(case.image.load(), before.image.load())
        assert (tmp_path / "p" / "contact_sheet.png").is_file()

    def test_a_sheet_alone(self, tmp_path: Path) -> None:
        phantom("fetal_head", tmp_path / "p", count=2, size=96, sheet_only=True)
        assert [path.name for path in (tmp_path / "p").iterdir()] == ["contact_sheet.png"]

    def test_refusals(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"there is no phantom 'knee'.*fetal_head"):
            phantom("knee", tmp_path / "p")
        with pytest.raises(ConfigError, match="at least 64 rows"):
            phantom("fetal_head", tmp_path / "p", size=10)
        with pytest.raises(ConfigError, match="images_per_subject"):
            phantom("fetal_head", tmp_path / "p", images_per_subject=0)
        assert not (tmp_path / "p").exists()
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "mine.txt").touch()
        with pytest.raises(RunError, match="is not empty"):
            phantom("fetal_head", tmp_path / "p", count=1, size=96)


def test_settings_of_a_phantom_reach_it_and_are_checked(tmp_path: Path) -> None:
    wide = phantom("lumbar_lateral", tmp_path / "a", count=1, size=64, overrides=["spacing=3.5", "facing=left"])
    assert (wide.cases[0].frame.spacing, wide.cases[0].tags["facing"]) == ((3.5, 3.5), "left")
    with pytest.raises(ConfigError, match=r"--set fow=wild: unknown setting 'fow' \(known here: .*fov"):
        phantom("lumbar_lateral", tmp_path / "b", count=1, overrides=["fow=wild"])
    assert not (tmp_path / "b").exists()
