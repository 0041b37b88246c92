"""COCO, LabelMe and Bregma's own file, as others write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bregma.datasets import detect_format, read_dataset
from bregma.errors import BregmaError, InputError, LabelError
from bregma.types import Status

NAMES = ["ofd_1", "ofd_2", "bpd_1", "bpd_2"]


def _coco() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "keypoints": [7, 8, 2, 0, 0, 0, 3, 4, 1, 1, 2, 2]},
        ],
        "categories": [{"id": 3, "name": "head", "keypoints": NAMES[::-1], "skeleton": [[1, 2], [3, 4]]}],
    }


class TestCoco:
    @pytest.fixture
    def root(self, tmp_path: Path, make_image) -> Path:
        make_image(tmp_path / "a.png")
        return tmp_path

    def _write(self, root: Path, data: Any) -> Path:
        (root / "keypoints.json").write_text(json.dumps(data))
        return root

    def test_keypoints_are_matched_by_name(self, root: Path) -> None:
        self._write(root, _coco())
        assert detect_format(root) == "coco"
        case = read_dataset(root, schema="fetal_head").cases[0]
        assert case.landmarks.status.tolist() == [Status.VISIBLE, Status.OCCLUDED, Status.UNLABELLED, Status.VISIBLE]
        np.testing.assert_array_equal(case.landmarks.points, [[1, 2], [3, 4], [0, 0], [7, 8]])

    def test_the_category_makes_a_schema(self, root: Path) -> None:
        schema = read_dataset(self._write(root, _coco())).schema
        assert schema.names == tuple(NAMES[::-1])
        assert schema.edges == (("bpd_2", "bpd_1"), ("ofd_2", "ofd_1"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d["annotations"][0]["keypoints"].pop(), "annotation 1: .*expected 12 .*got 11"),
            (lambda d: d["annotations"][0]["keypoints"].__setitem__(2, 3), "annotation 1: has an unknown visibility"),
            (lambda d: d["annotations"][0]["keypoints"].__setitem__(0, "7"), "annotation 1: keypoint value 1"),
            (lambda d: d["annotations"][0]["keypoints"].__setitem__(0, float("nan")), "annotation 1: keypoint value 1"),
            (lambda d: d["annotations"][0].__setitem__("image_id", 8), "annotation 1: there is no image with the id 8"),
            (lambda d: d["annotations"].append({**d["annotations"][0], "id": 2}), "annotation 2: .*second instance"),
            (lambda d: d["annotations"][0].pop("keypoints"), "annotation 1: the entry 'keypoints' is missing"),
            (lambda d: d["categories"][0]["keypoints"].__setitem__(0, "nose"), "missing: bpd_2; unknown: nose"),
            (lambda d: d["categories"].clear(), "does not hold one category with keypoints"),
            (lambda d: d["images"].append(d["images"][0]), "the image id 7 occurs twice"),
            (lambda d: d["images"][0].__setitem__("width", 80), "expected 80 x 30 pixels, got 40 x 30"),
            (
                lambda d: d["images"][0].__setitem__("file_name", 5),
                "image 7: the entry 'file_name' is of the wrong kind",
            ),
        ],
    )
    def test_faults_name_the_entry(self, root: Path, change: Any, message: str) -> None:
        data = _coco()
        change(data)
        with pytest.raises(LabelError, match=message) as caught:
            read_dataset(self._write(root, data), format="coco", schema="fetal_head")
        assert "keypoints.json" in str(caught.value)

    def test_broken_json_names_the_line(self, root: Path) -> None:
        (root / "keypoints.json").write_text('{"images": [\n}')
        with pytest.raises(InputError, match=r"keypoints\.json, line 2"):
            read_dataset(root / "keypoints.json", format="coco")


class TestLabelMe:
    def _write(self, root: Path, shapes: list[dict[str, Any]], **more: Any) -> Path:
        data = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None, **more}
        (root / "a.json").write_text(json.dumps(data))
        return root

    def _point(self, label: str, x: float, y: float, **more: Any) -> dict[str, Any]:
        return {"label": label, "points": [[x, y]], "shape_type": "point", "flags": {}, "group_id": None, **more}

    @pytest.fixture
    def root(self, tmp_path: Path, make_image) -> Path:
        make_image(tmp_path / "a.png")
        return tmp_path

    def test_the_canvas_starts_at_the_pixels_corner(self, root: Path) -> None:
        """A click on the middle of the top-left pixel is (0.5, 0.5) for LabelMe and (0, 0) here."""
        shapes = [self._point("bpd_1", 0.5, 0.5), self._point("ofd_1", 40, 30, flags={"occluded": True})]
        self._write(root, shapes, imageHeight=30, imageWidth=40)
        assert detect_format(root) == "labelme"
        marks = read_dataset(root, schema="fetal_head").cases[0].landmarks
        np.testing.assert_array_equal(marks.points[[0, 2]], [[39.5, 29.5], [0, 0]])
        assert marks.status.tolist() == [Status.OCCLUDED, Status.UNLABELLED, Status.VISIBLE, Status.UNLABELLED]

    def test_other_shapes_are_passed_over(self, root: Path) -> None:
        polygon = {"label": "skull", "points": [[0, 0], [1, 1], [2, 0]], "shape_type": "polygon"}
        dataset = read_dataset(self._write(root, [polygon, self._point("tip", 1, 1)]))
        assert dataset.schema.names == ("tip",)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            ([("nose", 1, 2)], "'nose' is not a landmark of the schema 'fetal_head'"),
            ([("ofd_1", 1, 2), ("ofd_1", 3, 4)], "the landmark 'ofd_1' is there twice"),
            ([("ofd_1", "1", 2)], "a coordinate of 'ofd_1' is not a finite number"),
        ],
    )
    def test_faults_name_the_file(self, root: Path, shapes: list[tuple[str, Any, Any]], message: str) -> None:
        self._write(root, [self._point(*shape) for shape in shapes])
        with pytest.raises(LabelError, match=rf"a\.json: {message}"):
            read_dataset(root, schema="fetal_head")

    def test_labels_of_another_size_are_refused(self, root: Path) -> None:
        self._write(root, [self._point("ofd_1", 1, 2)], imageHeight=60, imageWidth=80)
        with pytest.raises(
            LabelError, match=r"another size of the image 'a.png'; expected 80 x 60 pixels, got 40 x 30"
        ):
            read_dataset(root, schema="fetal_head")


class TestBregmaJson:
    def _data(self) -> dict[str, Any]:
        marks = {"points": [[1, 2], [3, 4], [5, 6], [7, 8]], "status": ["visible"] * 4}
        case = {"id": "a", "subject": "s", "image": "a.png", "frame": {"shape": [30, 40]}, "landmarks": marks}
        return {"format": "bregma-dataset", "version": 1, "schema": "fetal_head", "cases": [case]}

    def _read(self, root: Path, data: Any) -> Any:
        (root / "dataset.json").write_text(json.dumps(data))
        return read_dataset(root)

    def test_a_file_written_by_hand(self, tmp_path: Path, make_image) -> None:
        make_image(tmp_path / "a.png")
        dataset = self._read(tmp_path, self._data())
        assert dataset.schema.name == "fetal_head"
        assert dataset.cases[0].landmarks.points[3].tolist() == [7, 8]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.__setitem__("version", 2), "was written by a later version"),
            (lambda d: d.__setitem__("schema", "feet"), "there is no built-in anatomy 'feet'"),
            (
                lambda d: d.__setitem__("splits", {"test": ["b"]}),
                "the split 'test' names a case that is not there; got b",
            ),
            (lambda d: d["cases"][0].pop("subject"), "case 'a': the entry 'subject' is missing"),
            (lambda d: d["cases"][0].__setitem__("frame", {}), "case 'a': the frame cannot be read"),
            (lambda d: d["cases"][0]["frame"].__setitem__("shape", [40, 30]), "another size of the image"),
            (lambda d: d["cases"][0]["landmarks"]["points"].pop(), "case 'a': points and status differ in number"),
            (lambda d: d["cases"][0]["landmarks"]["points"].__setitem__(0, [1]), "case 'a': .*not a point"),
            (lambda d: d["cases"][0]["landmarks"]["points"].__setitem__(0, [1, None]), "case 'a': a coordinate"),
            (lambda d: d["cases"][0]["landmarks"]["status"].__setitem__(0, "seen"), "unknown landmark status"),
            (lambda d: d["cases"][0].__setitem__("targets", {"hc": "x"}), "case 'a': the target 'hc' is not a finite"),
            (
                lambda d: d["cases"][0].__setitem__("tags", {"sex": ["F"]}),
                "case 'a': the tag 'sex' is not a plain value",
            ),
            (lambda d: d["cases"][0].__setitem__("read", {"speed": 1}), "case 'a': the entry 'read' cannot be used"),
            (lambda d: d["cases"].append(d["cases"][0]), "the case id 'a' occurs twice"),
        ],
    )
    def test_faults_name_the_case(self, tmp_path: Path, make_image, change: Any, message: str) -> None:
        make_image(tmp_path / "a.png")
        data = self._data()
        change(data)
        with pytest.raises(BregmaError, match=message):
            self._read(tmp_path, data)
