"""What the figures of a dataset show: values worked by hand, and files only for what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tiny
from bregma.data.audit import find_problems
from bregma.data.fingerprint import fingerprint
from bregma.phantoms import make_phantoms
from bregma.report.dataset_figures import Bars, Boxes, Histogram, Panel
from bregma.types import ArrayImage, Case, Dataset, LandmarkSet, Status
from bregma.workflows.dataset_figures import draw_dataset_figures, grade_groups, tag_groups
from bregma.workflows.dataset_statistics import (
    measured_quantities,
    measurement_panels,
    shape_statistics,
    tag_panels,
    worst_of_each,
)
from bregma.workflows.track import untracked

TAGS: list[dict[str, Any]] = [
    {"sex": "F", "age": 40.5, "site": "a", "grade": 2, "pregnant": False, "id": "p0"},
    {"sex": "M", "age": 61.0, "site": "a", "grade": 0, "pregnant": False, "id": "p1"},
    {"sex": "F", "age": 33.0, "site": "a", "grade": 2, "pregnant": True, "id": "p2"},
    {"sex": "F", "age": 58.5, "site": "a", "grade": 10, "pregnant": False, "id": "p3"},
]


def tagged(tags: Iterable[dict[str, Any]] = TAGS) -> Dataset:
    cases = tuple(replace(tiny.case(i), tags=tag) for i, tag in enumerate(tags))
    return Dataset("tagged", tiny.SCHEMA, cases)


def gapped(gaps: Iterable[float]) -> Dataset:
    """Return cases whose spots lie that many pixels (of 0.5 mm) apart; below 10 mm the grade is small, else large."""
    cases = []
    for i, gap in enumerate(gaps):
        marks = LandmarkSet(np.array([(10.0, 20.0), (10.0 + gap, 20.0)]), np.zeros(2))
        cases.append(replace(tiny.case(i), landmarks=marks))
    return Dataset("gapped", tiny.SCHEMA, tuple(cases))


class TestTags:
    def test_words_are_counted_and_numbers_spread(self) -> None:
        panels = {panel.title: panel for panel in tag_panels(tagged())}
        assert panels["sex"] == Bars("sex", {"F": 3, "M": 1})
        assert panels["age"] == Histogram("age", "", {"": [40.5, 61.0, 33.0, 58.5]})
        # Numbers with few values are counted in their own order.
        assert panels["grade"] == Bars("grade", {"0": 1, "2": 2, "10": 1})
        assert panels["pregnant"] == Bars("pregnant", {"False": 3, "True": 1})

    def test_what_is_the_same_on_all_images_or_a_name_is_left_out(self) -> None:
        assert {panel.title for panel in tag_panels(tagged())} == {"sex", "age", "grade", "pregnant"}

    def test_targets_and_gaps_are_told(self) -> None:
        data = tagged([{"sex": "F"}, {}, {"sex": "M"}, {"sex": "M"}])
        targets = ({"volume_cm3": 30.5}, {"volume_cm3": 31.0}, {"volume_cm3": 28.0}, {})
        cases = tuple(replace(case, targets=t) for case, t in zip(data.cases, targets, strict=True))
        sex, volume = tag_panels(replace(data, cases=cases))
        assert (sex.title, volume.title) == ("sex (of 3 images)", "volume cm3 (of 3 images)")

    def test_samples_by_tag_hold_images_of_that_kind(self) -> None:
        data = tagged()
        sheets = tag_groups(data.cases[::-1])
        assert set(sheets) == {"sex", "grade", "pregnant"}
        rows = {heading: [caption for _, caption in row] for heading, row in sheets["sex"].items()}
        assert rows == {"sex: F (3)": ["c3", "c2", "c0"], "sex: M (1)": ["c1"]}
        numbers = {heading: [caption for _, caption in row] for heading, row in sheets["grade"].items()}
        assert numbers == {"grade: 0 (1)": ["c1"], "grade: 2 (2)": ["c2", "c0"], "grade: 10 (1)": ["c3"]}

    def test_a_row_is_cut(self) -> None:
        sheets = tag_groups(tagged([{"sex": "F"}] * 9 + [{"sex": "M"}] * 2).cases)
        assert [len(row) for row in sheets["sex"].values()] == [6, 2]


class TestMeasurements:
    def test_graded_values_are_grouped_from_normal_to_severe(self) -> None:
        data = gapped([8, 24, 12, 40])
        (panel,) = measurement_panels(data.schema, measured_quantities(data))
        assert panel == Histogram("Distance of the spots", "mm", {"small": [4.0, 6.0], "large": [12.0, 20.0]}, (10.0,))
        (rows,) = grade_groups(data.schema, list(measured_quantities(data)), data.cases).values()
        captions = {heading: [caption for _, caption in row] for heading, row in rows.items()}
        assert captions == {
            "size: small (2)": ["c0: 4.00\u00a0mm", "c2: 6.00\u00a0mm"],
            "size: large (2)": ["c1: 12.00\u00a0mm", "c3: 20.00\u00a0mm"],
        }

    def test_a_scale_of_two_directions_shows_the_larger_one(self) -> None:
        data = make_phantoms("lumbar_lateral", 1, seed=3, size=96)
        quantity = next(q for q in measured_quantities(data) if q.spec.name == "slip_direction")
        ((case, found),) = quantity.found
        values = (-12.0, 7.0, 0.0)
        slips = tuple(replace(found[i], value=value, grade=None) for i, value in enumerate(values))
        both = replace(quantity, found=((case, slips),))
        scale = data.schema.grade("listhesis")
        assert [worst.value for _, worst in worst_of_each(both, scale)] == [-12.0]
        upwards = scale.model_copy(update={"edges": (5.0, 10.0)})
        assert [worst.value for _, worst in worst_of_each(both, upwards)] == [7.0]

    def test_one_grade_alone_is_no_comparison(self) -> None:
        data = gapped([8, 12])
        assert grade_groups(data.schema, list(measured_quantities(data)), data.cases) == {}

    def test_units_are_not_mixed(self) -> None:
        data = gapped([8, 24, 12])
        bare = replace(data.cases[0], frame=replace(data.cases[0].frame, spacing=None, spacing_source="none"))
        (quantity,) = measured_quantities(replace(data, cases=(bare, *data.cases[1:])))
        assert quantity.unit == "mm"
        assert [case.id for case, _ in quantity.found] == ["c1", "c2"]

    def test_along_a_chain_values_stand_at_their_level(self) -> None:
        data = make_phantoms("lumbar_lateral", 6, seed=3, size=128)
        panels: dict[str, Panel] = {
            f"{type(panel).__name__} {panel.title}": panel
            for panel in measurement_panels(data.schema, measured_quantities(data))
        }
        boxes, worst = panels["Boxes Vertebral slip"], panels["Histogram Vertebral slip: largest of each image"]
        assert isinstance(boxes, Boxes)
        assert isinstance(worst, Histogram)
        assert list(boxes.groups) == ["T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"]
        true = [case.targets["slip_percent_L4-L5"] for case in data]
        np.testing.assert_allclose(boxes.groups["L4-L5"], true, atol=0.05)
        largest = sorted(abs(case.targets["slip_percent_max"]) for case in data)
        drawn = sorted(abs(value) for values in worst.groups.values() for value in values)  # type: ignore[union-attr]
        np.testing.assert_allclose(drawn, largest, atol=0.05)
        assert list(worst.groups) == sorted(worst.groups, key=["0", "I", "II", "III", "IV", "V"].index)
        assert isinstance(panels["Histogram Lumbar lordosis L1-S1"], Histogram)


class TestShapes:
    def test_facing_the_other_way_is_no_variation(self) -> None:
        data = make_phantoms("lumbar_lateral", 24, seed=1, size=128, difficulty="easy")
        assert {case.tags["facing"] for case in data} == {"left", "right"}
        found = shape_statistics(data)
        assert found is not None
        assert found.shapes.shape == (24, len(data.schema), 2)
        away = np.nanmean(np.linalg.norm(found.shapes - found.mean, axis=2))
        assert away < 0.25  # Of the shape's size; a spine and its mirror image differ by more.
        count = sum(case.tags["facing"] == "left" for case in data)
        assert found.note == f"{min(count, 24 - count)} that face the other way were mirrored"

    def test_unusual_images_are_left_out_and_it_is_said(self) -> None:
        data = make_phantoms("chest", 14, seed=1, size=128)
        found = shape_statistics(data, {data.cases[0].id, data.cases[5].id})
        assert found is not None
        assert len(found.shapes) == 12
        assert found.note == "2 with an unusual point were left out"

    def test_none_where_labels_are_too_few_or_ends_cannot_be_told_apart(self) -> None:
        assert shape_statistics(make_phantoms("chest", 4, size=96)) is None
        assert shape_statistics(make_phantoms("fetal_head", 12, size=96)) is None
        bare = tuple(replace(case, landmarks=None) for case in tiny.cases(12))
        assert shape_statistics(Dataset("bare", tiny.SCHEMA, bare)) is None


def drawn(data: Dataset, folder: Path, images: int = 4) -> list[str]:
    files = draw_dataset_figures(
        data, fingerprint(data, sample=0), find_problems(data), folder, images=images, track=untracked
    )
    assert sorted(files) == sorted(folder.iterdir())
    for file in files:
        picture = cv2.imread(str(file))
        assert picture is not None
        assert np.ptp(picture) > 100, f"{file.name} is empty"
    return [file.name for file in files]


class TestFiles:
    def test_everything_there_is(self, tmp_path: Path) -> None:
        data = make_phantoms("lumbar_lateral", 14, seed=2, size=96)
        assert drawn(data, tmp_path) == [
            "demographics.png",
            "label_counts.png",
            "shape.png",
            "measurements.png",
            "samples.png",
            "samples_by_facing.png",
            "samples_by_slipped_level.png",
            "samples_by_slip_percent_grade.png",
            "samples_by_slip_direction_grade.png",
        ]

    def test_what_is_not_there_has_no_figure(self, tmp_path: Path) -> None:
        cases = tuple(replace(case, landmarks=None, tags={}) for case in tiny.cases(3))
        assert drawn(Dataset("bare", tiny.SCHEMA, cases), tmp_path) == ["samples.png"]

    def test_one_image(self, tmp_path: Path) -> None:
        data = Dataset("one", tiny.SCHEMA, (tiny.case(0),))
        assert drawn(data, tmp_path) == ["label_counts.png", "measurements.png", "samples.png"]

    def test_partly_labelled_and_odd_names(self, tmp_path: Path) -> None:
        status = [(0, 1), (0, 3), (2, 2), (3, 3)]
        cases: list[Case] = [replace(tiny.case(i, status=s), tags={"a/b c": i % 2}) for i, s in enumerate(status)]
        cases.append(replace(tiny.case(4), landmarks=None, image=ArrayImage(np.zeros((64, 64), np.uint8))))
        assert "samples_by_a_b_c.png" in drawn(Dataset("partly", tiny.SCHEMA, tuple(cases)), tmp_path)

    def test_images_without_any_labels_count_as_unlabelled(self, tmp_path: Path, monkeypatch: Any) -> None:
        told: dict[str, Any] = {}

        def keep(names: Any, counts: Any) -> bytes:
            told.update(counts)
            return b""

        monkeypatch.setattr("bregma.workflows.dataset_figures.label_counts", keep)
        cases = (tiny.case(0), tiny.case(1, status=(0, Status.OUTSIDE)), replace(tiny.case(2), landmarks=None))
        data = Dataset("partly", tiny.SCHEMA, cases)
        draw_dataset_figures(data, fingerprint(data, sample=0), (), tmp_path, images=1, track=untracked)
        assert told == {"visible": [2, 1], "occluded": [0, 0], "outside": [0, 1], "unlabelled": [1, 1]}

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_random_samples_are_those_of_the_seed(self, tmp_path: Path, seed: int) -> None:
        data, pictures = tiny.dataset(), []
        for name in ("a", "b"):
            draw_dataset_figures(
                data, fingerprint(data, sample=0), (), tmp_path / name, images=3, track=untracked, seed=seed
            )
            pictures.append((tmp_path / name / "samples.png").read_bytes())
        assert pictures[0] == pictures[1]
