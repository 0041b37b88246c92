"""Vertebral corners by geometry, and the two lumbar sets that need it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from bregma.datasets import read_dataset
from bregma.datasets.vertebrae import canonical, faces_left, in_order, is_sacral
from bregma.errors import ConfigError, LabelError
from bregma.schema import load_schema
from bregma.types import Status

SCHEMA = load_schema("lumbar_lateral")


def _box(centre: tuple[float, float], tilt: float, *, taper: float = 1.0) -> np.ndarray:
    """A body 30 wide and 22 high, turned clockwise by ``tilt`` degrees: superior l, r, inferior l, r."""
    half = np.array([[-15, -11], [15, -11], [-15 * taper, 11], [15 * taper, 11]])
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    return half @ np.array([[c, s], [-s, c]]) + centre


def _spine(*, facing: str = "left", count: int = 7) -> list[np.ndarray]:
    """T12 to S1 with the lordosis of someone who stands: the sacrum tilts by 38° to the front."""
    centres = [(112, 20), (104, 50), (99, 80), (97, 110), (100, 140), (108, 170), (121, 197)]
    tilts = [12, 10, 4, -2, -10, -22, -38]
    quads = [_box(c, t, taper=0.65 if i == 6 else 1.0) for i, (c, t) in enumerate(zip(centres, tilts))]
    if facing == "right":
        quads = [(quad * [-1, 1] + [220, 0])[[1, 0, 3, 2]] for quad in quads]
    return quads[-count:]


def test_corners_are_found_from_any_order() -> None:
    spine = _spine()
    for permutation in itertools.permutations(range(4)):
        shuffled = [quad[list(permutation)] for quad in reversed(spine)]
        for expected, got in zip(spine, in_order(shuffled), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_single_vertebra_stands_upright() -> None:
    np.testing.assert_array_equal(in_order([_box((50, 50), 20)[[3, 1, 0, 2]]])[0], _box((50, 50), 20))


@pytest.mark.parametrize("points", [[[0, 0], [1, 0], [2, 0], [3, 0]], [[0, 0], [4, 0], [0, 4], [1, 1]], [[1, 1]] * 4])
def test_points_that_form_no_body_are_refused(points: list[list[float]]) -> None:
    with pytest.raises(LabelError, match="do not form the corners of a vertebra"):
        in_order([np.array(points, dtype=float)])


class TestCanonical:
    """Named vertebrae whose rows or corners came in the wrong order."""

    def test_rows_and_corners_are_put_in_order(self) -> None:
        spine = np.array(_spine()[:6])
        np.testing.assert_array_equal(canonical(spine), spine)
        rotated = np.roll(spine, -1, axis=0)  # the uppermost one comes last
        rotated[2] = rotated[2][[2, 3, 0, 1]]  # upside down
        rotated[3] = rotated[3][[2, 1, 0, 3]]  # the left corners exchanged
        np.testing.assert_array_equal(canonical(rotated), spine)

    def test_a_vertebra_marked_twice_leaves_everything_as_it_came(self) -> None:
        spine = np.array(_spine()[:6])
        twice = np.roll(np.concatenate([spine, spine[5:] + 2]), -1, axis=0)
        np.testing.assert_array_equal(canonical(twice), twice)

    def test_corners_that_form_no_body_stay_and_the_others_do_not(self) -> None:
        spine = np.array(_spine()[:6])
        spine[4, 3] = spine[4, :3].mean(axis=0)
        found = canonical(np.concatenate([spine[:1][:, [3, 2, 1, 0]], spine[1:]]))
        np.testing.assert_array_equal(found, spine)

    def test_one_vertebra(self) -> None:
        (body,) = canonical(np.array([_box((50, 50), 20)[[2, 3, 0, 1]]]))
        np.testing.assert_array_equal(body, _box((50, 50), 20))


def test_sacrum_and_side() -> None:
    spine = _spine()
    assert [is_sacral(quad) for quad in spine] == [False] * 6 + [True]
    assert faces_left(spine[-1][0], spine[-1][1]) is True
    right = _spine(facing="right")[-1]
    assert faces_left(right[0], right[1]) is False
    assert faces_left(np.array([0.0, 5.0]), np.array([30.0, 0.0])) is None


class TestSpondylolisthesis:
    @pytest.fixture
    def base(self, tmp_path: Path, make_image) -> Path:
        base = tmp_path / "Train" / "Keypointrcnn_data"
        for split in ("train", "val"):
            (base / "labels" / split).mkdir(parents=True)
        make_image(base / "images" / "train" / "one.jpg", width=250, height=230)
        make_image(base / "images" / "val" / "0007-F-050Y1.jpg", width=250, height=230)
        return base

    def _json(self, quads: list[np.ndarray], order: list[int]) -> str:
        keypoints = [[[*point, 1] for point in quad[order].tolist()] for quad in quads]
        return json.dumps({"boxes": [[0, 0, 9, 9]] * len(quads), "keypoints": keypoints})

    def _yolo(self, quads: list[np.ndarray], order: list[int]) -> str:
        lines = []
        for quad in quads:
            points = [f"{x / 250} {y / 230} 1" for x, y in quad[order].tolist()]
            lines.append(" ".join(["0 0.5 0.5 0.1 0.1", *points]))
        return "\n".join(lines)

    @pytest.mark.parametrize("facing", ["left", "right"])
    def test_both_encodings_give_the_same_levels(self, base: Path, tmp_path: Path, facing: str) -> None:
        spine = _spine(facing=facing)
        (base / "labels" / "train" / "one.json").write_text(self._json(spine[::-1], [1, 3, 2, 0]))
        (base / "labels" / "val" / "0007-F-050Y1.txt").write_text(self._yolo(spine, [2, 0, 1, 3]))
        dataset = read_dataset(tmp_path)
        assert dataset.name == "spondylolisthesis"
        assert dataset.splits == {"train": ("one",), "val": ("0007-F-050Y1",)}
        assert dataset.subjects == ("one", "0007")
        front, back = (0, 1) if facing == "left" else (1, 0)
        expected = [quad[[front, back, 2 + front, 2 + back]] for quad in spine[:6]] + [spine[6][[front, back]]]
        for case in dataset:
            np.testing.assert_allclose(case.landmarks.points, np.concatenate(expected), atol=1e-9)

    def test_fewer_vertebrae_are_counted_from_below(self, base: Path, tmp_path: Path) -> None:
        (base / "labels" / "train" / "one.json").write_text(self._json(_spine(count=4), [0, 1, 2, 3]))
        marks = read_dataset(tmp_path).cases[0].landmarks
        named = [name for name, seen in zip(SCHEMA.names, marks.labelled) if seen]
        assert named == [n for n in SCHEMA.names if n.split("_")[0] in {"L3", "L4", "L5", "S1"}]
        np.testing.assert_array_equal(marks.points[SCHEMA.index("L5_inf_post")], _spine()[5][3])

    def test_levels_that_cannot_be_told_are_set_aside(self, base: Path, tmp_path: Path) -> None:
        (base / "labels" / "train" / "one.json").write_text(self._json(_spine()[:6], [0, 1, 2, 3]))
        (base / "labels" / "val" / "0007-F-050Y1.json").write_text(self._json(_spine(), [0, 1, 2, 3]))
        dataset = read_dataset(tmp_path)
        assert [case.id for case in dataset] == ["0007-F-050Y1"]
        assert "one.json: it cannot be told whether the lowest vertebra is S1" in dataset.problems[0]
        with pytest.raises(LabelError, match=r"lowest vertebra is S1.*lowest="):
            read_dataset(tmp_path, strict=True)

    def test_a_person_may_say_which_level_is_the_lowest(self, base: Path, tmp_path: Path) -> None:
        (base / "labels" / "train" / "one.json").write_text(self._json(_spine()[:6], [0, 1, 2, 3]))
        marks = read_dataset(tmp_path, options={"lowest": "L5"}).cases[0].landmarks
        assert marks.status.tolist() == [Status.VISIBLE] * 24 + [Status.UNLABELLED] * 2
        np.testing.assert_array_equal(marks.points[SCHEMA.index("L5_sup_ant")], _spine()[5][0])
        with pytest.raises(ConfigError, match="expected S1 or L5, got 'L4'"):
            read_dataset(tmp_path, options={"lowest": "L4"})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"boxes": []}', "the entry 'keypoints' is missing"),
            ('{"boxes": [], "keypoints": [1]}', "boxes and vertebrae differ in number"),
            ('{"boxes": [1], "keypoints": [[[1, 2, 1]]]}', "vertebra 1: does not have four corners"),
        ],
    )
    def test_broken_labels_are_named(self, base: Path, tmp_path: Path, text: str, message: str) -> None:
        (base / "labels" / "train" / "one.json").write_text(text)
        with pytest.raises(LabelError, match=rf"one\.json.*{message}"):
            read_dataset(tmp_path)


class TestBuu:
    def _write(self, root: Path, make_image, view: str, rows: list[str]) -> Path:
        stem = f"0001-F-037Y{int(view == 'LA')}"
        make_image(root / view / f"{stem}.jpg", width=250, height=230)
        (root / view / f"{stem}.csv").write_text("\n".join(rows))
        return root

    def _plates(self, facing: str) -> list[np.ndarray]:
        spine = _spine(facing=facing)
        return [plate for quad in spine[1:6] for plate in (quad[:2], quad[2:])] + [spine[6][:2]]

    @pytest.mark.parametrize("facing", ["left", "right"])
    def test_lateral(self, tmp_path: Path, make_image, facing: str) -> None:
        plates = self._plates(facing)
        rows = [
            ",".join(map(str, [*(plate[::-1] if i % 3 else plate).ravel(), int(i == 8)]))
            for i, plate in enumerate(plates)
        ]
        case = read_dataset(self._write(tmp_path, make_image, "LA", rows)).cases[0]
        assert (case.id, case.subject) == ("0001-F-037Y1", "0001")
        assert dict(case.tags) == {"displaced": True, "sex": "F", "age": 37}
        assert case.landmarks.status.tolist() == [Status.UNLABELLED] * 4 + [Status.VISIBLE] * 22
        expected = np.concatenate([plate if facing == "left" else plate[::-1] for plate in plates])
        np.testing.assert_allclose(case.landmarks.points[4:], expected, atol=1e-9)

    def test_rows_from_below(self, tmp_path: Path, make_image) -> None:
        plates = self._plates("left")
        rows = [",".join(map(str, [*plate.ravel(), 0])) for plate in [*plates[9::-1], plates[10]]]
        case = read_dataset(self._write(tmp_path, make_image, "LA", rows)).cases[0]
        np.testing.assert_allclose(case.landmarks.points[4:], np.concatenate(plates), atol=1e-9)

    def test_ap_and_a_header(self, tmp_path: Path, make_image) -> None:
        rows = ["x1,y1,x2,y2,label", *(f"100,{20 * i},130,{20 * i + 1},0" for i in range(10))]
        root = self._write(tmp_path, make_image, "AP", rows)
        case = read_dataset(root, labels="AP").cases[0]
        schema = load_schema("spine_ap")
        assert case.landmarks.points[schema.index("L2_BR")].tolist() == [130, 61]
        assert case.landmarks.labelled.sum() == 20
        assert case.tags["displaced"] is False

    def test_faults_are_named(self, tmp_path: Path, make_image) -> None:
        root = self._write(tmp_path, make_image, "LA", ["1,2,3,4,0"] * 10)
        with pytest.raises(LabelError, match=r"0001-F-037Y1\.csv: .*expected 11 rows, got 10"):
            read_dataset(root)
        self._write(tmp_path, make_image, "LA", [*["1,2,3,4,0"] * 10, "1,2,x,4,0"])
        with pytest.raises(LabelError, match=r"0001-F-037Y1\.csv, row 11: .*got 'x'"):
            read_dataset(root)
        with pytest.raises(ConfigError, match="expected LA or AP, got 'PA'"):
            read_dataset(root, labels="PA")
