"""Tables of one's own: declarations, guesses and faults."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from bregma.datasets import Columns, columns_of, guess_columns, load_columns, read_dataset
from bregma.datasets.tables import read_rows
from bregma.errors import ConfigError, ImageError, LabelError
from bregma.types import Status

HEAD = "ofd_1_x,ofd_1_y,ofd_2_x,ofd_2_y,bpd_1_x,bpd_1_y,bpd_2_x,bpd_2_y"


@pytest.fixture
def folder(tmp_path: Path, make_image) -> Path:
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "b.png")
    return tmp_path


def _write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


class TestWide:
    def test_a_plain_table_is_guessed(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        table = _write(
            folder,
            f"Image,patient_id,spacing_x,spacing_y,{HEAD},hc_mm,sex,age\n"
            "a.png,p1,0.1,0.2,1,2,3,4,5,6,7,8,300.5,F,31\n"
            "b.png,p1,,,1,2,3,4,,,,,,M,\n",
        )
        with caplog.at_level(logging.INFO):
            dataset = read_dataset(folder, schema="fetal_head")
        a, b = dataset.cases
        assert (a.id, a.subject, dict(a.targets), dict(a.tags)) == (
            "a",
            "p1",
            {"hc_mm": 300.5},
            {"sex": "F", "age": 31},
        )
        assert (a.frame.spacing, a.frame.spacing_source) == ((0.1, 0.2), "sidecar")
        assert (b.frame.spacing, dict(b.targets), dict(b.tags)) == (None, {}, {"sex": "M"})
        assert b.landmarks.status.tolist() == [0, 0, Status.UNLABELLED, Status.UNLABELLED]
        assert "wide table, pixels; image: Image; subject: patient_id" in caplog.text
        assert columns_of(table).points["bpd_1"] == ("bpd_1_x", "bpd_1_y")

    def test_without_a_schema_the_landmarks_name_themselves(self, folder: Path) -> None:
        _write(folder, "filename;TipX;TipY;base_x;base_y\na.png;1;2;3;4\n")
        dataset = read_dataset(folder)
        assert dataset.schema.names == ("Tip", "base")
        assert dataset.schema.flip == "never"
        assert dataset.schema.measurements == ()

    def test_numbered_columns_go_by_order(self, folder: Path) -> None:
        _write(folder, "image,x1,y1,x2,y2,x3,y3,x4,y4\na.png,1,2,3,4,5,6,7,8\n")
        points = read_dataset(folder, schema="fetal_head").cases[0].landmarks.points
        np.testing.assert_array_equal(points, [[1, 2], [3, 4], [5, 6], [7, 8]])

    def test_names_are_matched_whatever_their_order_and_case(self, folder: Path) -> None:
        _write(folder, "image,BPD_2_x,BPD_2_y,bpd_1_x,bpd_1_y,ofd_2_x,ofd_2_y,ofd_1_x,ofd_1_y\na.png,7,8,5,6,3,4,1,2\n")
        points = read_dataset(folder, schema="fetal_head").cases[0].landmarks.points
        np.testing.assert_array_equal(points, [[1, 2], [3, 4], [5, 6], [7, 8]])

    def test_fractions_are_recognised(self, folder: Path) -> None:
        _write(folder, f"image,{HEAD}\na.png,0.5,0.5,0,0,1,1,0.25,0.1\n")
        points = read_dataset(folder, schema="fetal_head").cases[0].landmarks.points
        np.testing.assert_allclose(points, [[20, 15], [0, 0], [40, 30], [10, 3]], atol=1e-12)

    def test_origin_moves_the_points(self, folder: Path) -> None:
        _write(folder, "image,tip_x,tip_y\na.png,1,1\nb.png,40,30\n")
        matlab = {"image": "image", "points": {"tip": ["tip_x", "tip_y"]}, "origin": 1}
        cases = read_dataset(folder, columns=matlab).cases
        assert [case.landmarks.points[0].tolist() for case in cases] == [[0, 0], [39, 29]]
        edges = {**matlab, "origin": 0.5}
        assert read_dataset(folder, columns=edges).cases[0].landmarks.points[0].tolist() == [0.5, 0.5]

    def test_decimal_commas_are_declared(self, folder: Path) -> None:
        _write(folder, "image;tip_x;tip_y\na.png;1,5;2,25\n")
        with pytest.raises(LabelError, match=r"row 2: the column 'tip_x' does not hold a number.*got '1,5'"):
            read_dataset(folder)
        columns = Columns(image="image", points={"tip": ("tip_x", "tip_y")}, decimal=",")
        assert read_dataset(folder, columns=columns).cases[0].landmarks.points[0].tolist() == [1.5, 2.25]

    def test_status_and_split_columns(self, folder: Path) -> None:
        _write(
            folder,
            "image,split,tip_x,tip_y,tip_status,top_x,top_y\na.png,train,1,2,occluded,1,1\nb.png,,,,outside,2,2\n",
        )
        dataset = read_dataset(folder)
        assert [case.landmarks.status[0] for case in dataset] == [Status.OCCLUDED, Status.OUTSIDE]
        assert dataset.splits == {"train": ("a",)}

    def test_a_row_without_points_is_an_unlabelled_image(self, folder: Path) -> None:
        _write(folder, "image,tip_x,tip_y\na.png,,\nb.png,1,2\n")
        assert read_dataset(folder).cases[0].landmarks is None

    def test_clashing_names_keep_their_paths(self, folder: Path, make_image) -> None:
        make_image(folder / "one" / "x.png")
        make_image(folder / "two" / "x.png")
        _write(folder, "image,tip_x,tip_y\none/x.png,1,2\ntwo\\x.png,1,2\nx.png,1,2\n")
        dataset = read_dataset(folder)
        assert [case.image.path.parent.name for case in dataset] == ["one", "two"]
        assert "row 4: 'x.png' could be several images" in dataset.problems[0]

    def test_a_spreadsheet_byte_order_mark_is_no_part_of_the_first_name(self, folder: Path) -> None:
        (folder / "labels.csv").write_bytes("\ufeffimage,tip_x,tip_y\r\na.png,1,2\r\n".encode())
        assert len(read_dataset(folder)) == 1

    def test_a_path_from_another_machine_needs_the_same_folder(self, folder: Path, make_image) -> None:
        make_image(folder / "anna" / "x.png")
        _write(folder, "image,tip_x,tip_y\nD:\\study\\anna\\x.png,1,2\nD:/study/bert/x.png,1,2\nD:/study/a.png,1,2\n")
        dataset = read_dataset(folder)
        assert [case.image.path for case in dataset] == [folder / "anna" / "x.png", folder / "a.png"]
        assert "row 3: the image 'D:/study/bert/x.png' is not there" in dataset.problems[0]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ("0.1,,", "row 2: has a spacing along one axis only"),
            ("0,0.1,", "row 2: the spacing cannot be used"),
            ("-1,1,", "row 2: the spacing cannot be used"),
            ("1,1,two", "row 2: the frame is not a number from 0; got 'two'"),
            ("1,1,-1", "row 2: the frame is not a number from 0"),
        ],
    )
    def test_spacing_and_frame_are_checked(self, folder: Path, fields: str, message: str) -> None:
        _write(folder, f"image,tip_x,tip_y,spacing_x,spacing_y,frame\na.png,1,2,{fields}\n")
        with pytest.raises(LabelError, match=message):
            read_dataset(folder)


def test_a_folder_beside_an_image_of_its_name_is_not_taken_for_it(tmp_path: Path, make_image) -> None:
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "a" / "other.png")
    _write(tmp_path, "image,tip_x,tip_y\na,1,2\n")
    dataset = read_dataset(tmp_path)
    assert not dataset.problems
    assert dataset.cases[0].image.path == tmp_path / "a.png"


class TestLong:
    def test_one_row_a_landmark(self, folder: Path) -> None:
        _write(
            folder,
            "image,landmark,x,y,status,subject\n"
            "a.png,bpd_1,5,6,,s\na.png,ofd_1,1,2,occluded,s\nb.png,ofd_2,3,4,visible,t\na.png,ofd_2,,,outside,s\n",
        )
        a, b = read_dataset(folder, schema="fetal_head").cases
        assert a.landmarks.status.tolist() == [Status.OCCLUDED, Status.OUTSIDE, Status.VISIBLE, Status.UNLABELLED]
        np.testing.assert_array_equal(a.landmarks.points[[0, 2]], [[1, 2], [5, 6]])
        assert (a.subject, b.subject, b.landmarks.labelled.sum()) == ("s", "t", 1)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("a.png,ofd_1,1,2,s\na.png,ofd_1,3,4,s", "row 3: the landmark 'ofd_1' already occurs in row 2"),
            ("a.png,nose,1,2,s", "row 2: 'nose' is not a landmark of the schema 'fetal_head'"),
            ("a.png,ofd_1,1,2,s\na.png,ofd_2,3,4,t", "row 3: the rows of one image disagree in the column 'subject'"),
            ("a.png,ofd_1,1,,s", "row 2: a labelled point lacks a coordinate in 'y'"),
        ],
    )
    def test_faults_are_named(self, folder: Path, rows: str, message: str) -> None:
        _write(folder, f"image,landmark,x,y,subject\n{rows}\n")
        with pytest.raises(LabelError, match=message):
            read_dataset(folder, schema="fetal_head")


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no rows"),
            ("image,tip_x,tip_y\n", "holds no rows"),
            ("picture,tip_x,tip_y\na.png,1,2", "no column seems to name the image"),
            ("image,tip_x,top_y\na.png,1,2", "no pairs of x and y columns"),
            ("image,tip_x,tip_y,tip_x\na.png,1,2,3", "row 1: the column 'tip_x' occurs 2 times"),
            ("image,tip_x,tip_y\na.png,1", "row 2: has the wrong number of fields; expected 3 fields, got 2"),
            ("image,tip_x,tip_y\na.png,1,2,3", "row 2: .*expected 3 fields, got 4"),
            ("image,tip_x,tip_y\na.png,1,2\n\na.png,3,4", "row 4: the image 'a.png' already occurs in row 2"),
            ("image,tip_x,tip_y\na.png,1,NaN", "row 2: .*got 'NaN'. To mend it: .*leave the field empty"),
            ("image,tip_x,tip_y\na.png,1,-inf", "row 2: .*got '-inf'"),
            ("image,tip_x,tip_y\na.png,one,2", "row 2: the column 'tip_x' does not hold a number.*got 'one'"),
            ("image,tip_x,tip_y\na.png,,2", "row 2: a labelled point lacks a coordinate in 'tip_x'"),
            ('image,tip_x,tip_y\n"a.png,1,2', "line .: is not a delimited table"),
            ("image,tip_x,tip_y,tip_status\na.png,1,2,seen", "row 2: unknown status.*got 'seen'"),
        ],
    )
    def test_each_fault_names_its_row(self, folder: Path, text: str, message: str) -> None:
        table = _write(folder, text)
        with pytest.raises(LabelError, match=message) as caught:
            read_dataset(table, format="csv")
        assert "labels.csv" in str(caught.value)

    def test_too_few_and_too_many_landmarks(self, folder: Path) -> None:
        _write(folder, "image,ofd_1_x,ofd_1_y,ofd_2_x,ofd_2_y\na.png,1,2,3,4\n")
        with pytest.raises(LabelError, match="without columns: bpd_1, bpd_2; expected 4 landmarks, got 2"):
            read_dataset(folder, schema="fetal_head")
        _write(folder, f"image,{HEAD},nose_x,nose_y\na.png,1,2,3,4,5,6,7,8,9,10\n")
        with pytest.raises(LabelError, match="unknown: nose; expected 4 landmarks, got 5"):
            read_dataset(folder, schema="fetal_head")

    def test_a_missing_image_is_set_aside_or_refused(self, folder: Path) -> None:
        _write(folder, "image,tip_x,tip_y\na.png,1,2\ngone.png,3,4\n")
        dataset = read_dataset(folder)
        assert len(dataset) == 1
        assert "row 3: the image 'gone.png' is not there" in dataset.problems[0]
        with pytest.raises(ImageError, match=r"row 3: the image 'gone\.png' is not there"):
            read_dataset(folder, strict=True)

    def test_latin_1_is_refused_with_a_way_out(self, folder: Path) -> None:
        (folder / "labels.csv").write_bytes("image,tip_x,tip_y\nMüller.png,1,2\n".encode("latin-1"))
        with pytest.raises(LabelError, match=r"is not UTF-8 text.*CSV UTF-8"):
            read_dataset(folder, format="csv")

    def test_several_tables_must_be_told_apart(self, folder: Path) -> None:
        _write(folder, "image,tip_x,tip_y\na.png,1,2\n")
        _write(folder, "image,tip_x,tip_y\nb.png,1,2\n", "others.csv")
        with pytest.raises(LabelError, match=r"not hold one label table.*labels\.csv, others\.csv.*labels="):
            read_dataset(folder, format="csv")
        assert read_dataset(folder, format="csv", labels="others.csv").cases[0].id == "b"


class TestDeclaration:
    def test_a_file_beside_the_table_is_taken(self, folder: Path) -> None:
        _write(folder, "who,px,py\na.png,1,2\n")
        _write(folder, "image: who\npoints: {tip: [px, py]}\n", "labels.columns.yaml")
        assert read_dataset(folder).schema.names == ("tip",)

    def test_its_faults_name_the_line(self, folder: Path) -> None:
        _write(folder, "who,px,py\na.png,1,2\n")
        _write(folder, "image: who\npoint: {tip: [px, py]}\n", "labels.columns.yaml")
        with pytest.raises(ConfigError, match=r"columns\.yaml, line 2: unknown setting 'point'"):
            read_dataset(folder)

    def test_a_declared_column_that_is_not_there_is_named(self, folder: Path) -> None:
        _write(folder, "image,tip_x,tip_y\na.png,1,2\n")
        with pytest.raises(LabelError, match="the column 'sex' is missing"):
            read_dataset(folder, columns={"image": "image", "points": {"tip": ["tip_x", "tip_y"]}, "tags": ["sex"]})

    def test_it_round_trips_and_is_complete(self) -> None:
        columns = Columns(image="i", points={"a": ("ax", "ay", "as")}, spacing=("s", "s"), tags=("t",))
        assert load_columns(columns.to_dict()) == columns
        assert columns.used() == ["i", "s", "s", "t", "ax", "ay", "as"]
        with pytest.raises(ConfigError, match="a wide table needs 'points'"):
            load_columns({"image": "i"})
        with pytest.raises(ConfigError, match="a long table needs 'landmark'"):
            load_columns({"image": "i", "layout": "long"})

    def test_a_guess_can_be_shown(self, folder: Path) -> None:
        rows = read_rows(_write(folder, "image,tip_x,tip_y,hc_mm,site\na.png,1,2,3,B\n"))
        assert guess_columns(rows).describe().splitlines() == [
            "wide table, pixels",
            "image: image",
            "subject: no column, so that every image counts as another person",
            "points: tip <- tip_x/tip_y",
            "targets: hc_mm",
            "tags: site",
        ]


def test_images_without_a_row_are_named(folder: Path, make_image, tmp_path: Path):
    make_image(folder / "c.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.png").write_bytes(b"nothing")
    _write(folder, "image,x_x,x_y\na.png,1,2\nbroken,3,4\ngone.png,5,6\n")
    problems = read_dataset(folder).problems
    assert problems[-1] == "2 image files have no row in the table: b.png, c.png"
    assert len(problems) == 3
    _write(folder, "image,x_x,x_y\na.png,1,2\nb,3,4\nc.png,5,6\nbroken.png,1,1\n")
    assert not any("no row" in problem for problem in read_dataset(folder).problems)


def test_images_of_one_name_in_several_folders_are_told_apart(tmp_path: Path, make_image) -> None:
    for name in ("p1/0.png", "p1/1.png", "p2/0.png", "p2/1.png"):
        make_image(tmp_path / name)
    _write(tmp_path, "image,x_x,x_y\np1/0.png,1,2\np1/1.png,3,4\np2/0.png,5,6\n")
    assert read_dataset(tmp_path).problems == ("1 image file has no row in the table: 1.png",)
