"""Checks that every label format must pass, those that can be written and those that can only be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bregma.datasets import DATASETS, EXPORTERS, detect_format, read_dataset, write_dataset
from bregma.datasets.formats import Exporter
from bregma.errors import ConfigError, LabelError, RunError
from bregma.geometry import Frame
from bregma.io import open_image
from bregma.schema import load_schema
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Status

SCHEMA = load_schema("fetal_head")
PUBLISHED = [name for name, entry in DATASETS.items() if entry.license]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """One case of each kind: on disk and in memory, with and without spacing, every status, and no labels at all."""
    on_disk = tmp_path / "source" / "head 1.png"
    on_disk.parent.mkdir()
    on_disk.write_bytes(cv2.imencode(".png", np.full((30, 40), 7, np.uint8))[1].tobytes())
    image, frame = open_image(on_disk)
    visible = LandmarkSet([[0.1, 1 / 3], [39.49, 29.0], [-0.5, -0.5], [20.123456789012345, 15.0]])
    mixed = LandmarkSet(
        [[1.25, 2.5], [3.75, 4.0], [0, 0], [0, 0]],
        [Status.VISIBLE, Status.OCCLUDED, Status.OUTSIDE, Status.UNLABELLED],
    )
    deep = np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50
    cases = (
        Case(
            "head 1",
            "anna",
            image,
            replace(frame, spacing=(0.15, 0.2), spacing_source="user", spacing_note=""),
            visible,
            targets={"hc_mm": 301.25, "bpd_mm": 90.0},
            tags={"site": "A, B", "frames": 3, "score": 0.5, "twin": False},
            observers={"junior": mixed},
        ),
        Case("b/2", "anna", ArrayImage(deep), Frame((30, 40)), mixed, tags={"site": "C"}),
        Case("c", "bert", ArrayImage(deep.astype(np.uint8)), Frame((30, 40), (0.1, 0.1), "phantom"), None),
    )
    return Dataset(
        "heads", SCHEMA, cases, splits={"train": ("head 1", "b/2"), "test": ("c",)}, license="CC0", citation="x"
    )


@pytest.fixture(params=EXPORTERS.values(), ids=EXPORTERS)
def exporter(request: pytest.FixtureRequest) -> Exporter:
    return request.param


@pytest.fixture
def back(dataset: Dataset, exporter: Exporter, tmp_path: Path) -> Dataset:
    out = tmp_path / "out"
    write_dataset(dataset, out, exporter.name)
    assert detect_format(out) == exporter.reader
    return read_dataset(out, schema=SCHEMA, strict=True)


def test_points_images_and_ids_come_back(dataset: Dataset, back: Dataset) -> None:
    assert [case.id for case in back] == ["head 1", "b/2", "c"] or sorted(c.id for c in back) == ["b/2", "c", "head 1"]
    for case in back.select([case.id for case in dataset]):
        before = dataset.select([case.id])[0]
        np.testing.assert_array_equal(case.image.load(), before.image.load())
        assert case.frame.shape == before.frame.shape
        if before.landmarks is None:
            assert case.landmarks is None
        else:
            placed = before.landmarks.labelled
            np.testing.assert_allclose(
                case.landmarks.points[placed], before.landmarks.points[placed], atol=1e-9, rtol=0
            )
            np.testing.assert_array_equal(case.landmarks.labelled, placed)


def _status(marks: LandmarkSet | None, holds: frozenset[str]) -> list[int]:
    """What a format that lacks some states makes of these landmarks."""
    if marks is None:
        return []
    lost = {
        Status.OUTSIDE: Status.OUTSIDE if "outside" in holds else Status.UNLABELLED,
        Status.OCCLUDED: Status.OCCLUDED if "occluded" in holds else Status.VISIBLE,
    }
    return [lost.get(Status(value), value) for value in marks.status]


def test_each_format_holds_what_it_says_and_nothing_more(dataset: Dataset, back: Dataset, exporter: Exporter) -> None:
    holds = exporter.holds
    for before in dataset:
        after = back.select([before.id])[0]
        assert _status(after.landmarks, exporter.holds) == _status(before.landmarks, holds)
        assert after.subject == (before.subject if "subject" in holds else before.id)
        assert after.frame.spacing == (before.frame.spacing if "spacing" in holds else None)
        assert dict(after.targets) == (dict(before.targets) if "targets" in holds else {})
        assert dict(after.tags) == (dict(before.tags) if "tags" in holds else {})
        assert dict(after.observers) == (dict(before.observers) if "observers" in holds else {})
    assert dict(back.splits) == (dict(dataset.splits) if "splits" in holds else {})


def test_bregma_json_loses_nothing(dataset: Dataset, tmp_path: Path) -> None:
    write_dataset(dataset, tmp_path / "out", "bregma_json")
    back = read_dataset(tmp_path / "out")
    assert (back.name, back.license, back.citation, back.schema) == ("heads", "CC0", "x", SCHEMA)
    for before, after in zip(dataset, back):
        assert after.frame == before.frame
        assert after.landmarks == before.landmarks


def test_writing_spares_a_folder_that_holds_something(dataset: Dataset, exporter: Exporter, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not empty"):
        write_dataset(dataset, tmp_path / "out", exporter.name)
    write_dataset(dataset, tmp_path / "out", exporter.name, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_pixels_that_png_cannot_hold_are_refused(exporter: Exporter, tmp_path: Path) -> None:
    case = Case("a", "a", ArrayImage(np.zeros((4, 4), np.float32)), Frame((4, 4)))
    with pytest.raises(RunError, match="without loss"):
        write_dataset(Dataset("d", SCHEMA, (case,)), tmp_path / "out", exporter.name)


@pytest.mark.parametrize("name", DATASETS)
def test_every_format_answers_the_common_questions(name: str, tmp_path: Path) -> None:
    entry = DATASETS[name]
    assert entry.name == name
    assert entry.title
    assert {"schema", "images", "strict"} <= set(entry.options)
    assert not entry.detect(tmp_path)
    assert not entry.detect(tmp_path / "nowhere")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_format_names_its_schema_and_what_to_cite(name: str) -> None:
    entry = DATASETS[name]
    assert entry.schema is not None
    assert len(load_schema(entry.schema)) > 0
    assert len(entry.citation) > 50


def test_unknown_layouts_and_formats_say_what_is_known(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(LabelError, match=r"not recognised.*hand_xray"):
        read_dataset(tmp_path)
    with pytest.raises(LabelError, match="is not there"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no label format 'hands'.*hand_xray"):
        read_dataset(tmp_path, format="hands")
    with pytest.raises(ConfigError, match=r"'nifti' cannot be written.*coco"):
        write_dataset(dataset, tmp_path / "out", "nifti")


def test_an_option_that_a_format_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'hand_xray' has no option 'labels'"):
        read_dataset(tmp_path, format="hand_xray", labels="x")
    with pytest.raises(ConfigError, match="'csv' has no option 'lowest'"):
        read_dataset(tmp_path, format="csv", options={"lowest": "S1"})


def test_the_package_stays_light() -> None:
    import subprocess
    import sys

    code = "import sys, bregma.datasets; print([m for m in ('numpy', 'cv2', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_coco_writes_the_edges_as_its_skeleton(dataset: Dataset, tmp_path: Path) -> None:
    path = write_dataset(dataset, tmp_path / "out", "coco")
    assert json.loads(path.read_text())["categories"][0]["skeleton"] == [[1, 2], [3, 4]]
    assert read_dataset(path).schema.edges == SCHEMA.edges
