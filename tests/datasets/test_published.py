"""Published layouts, on files made by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bregma.datasets import detect_format, read_dataset
from bregma.datasets.spine_ap_xray import subject_of
from bregma.errors import ConfigError, ImageError, LabelError, SchemaError
from bregma.schema import load_schema, schema_from_dict


def _numbers(count: int, start: float = 1.0) -> list[str]:
    return [str(start + i / 4) for i in range(count)]


def _hand(root: Path, make_image, names=("3143", "3144")) -> Path:
    root.mkdir(exist_ok=True)
    rows = [",".join([name, *_numbers(74)]) for name in names]
    (root / "all_coordinates.csv").write_text("\n".join(rows) + "\n")
    make_image(root / "train" / "3143.jpg")
    make_image(root / "valid" / "3144.jpg")
    return root


def _mri(root: Path) -> Path:
    """Write three scans, the last two of which are one subject's, whose sagittal slices hold their own number."""
    voxels = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((1, 8, 6), np.int16)
    (root / "volumes").mkdir(parents=True)
    for name in ("sub-01", "sub-18", "sub-19"):
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.0, 1.0])), root / "volumes" / f"{name}.nii.gz")
    rows = [f"{name},{name}.nii.gz,{volume}" for name, volume in (("sub-01", 30.5), ("sub-18", 41), ("sub-19", 41))]
    (root / "targets.csv").write_text("subject,file,L1_volume_cm3\n" + "\n".join(rows) + "\n")
    (root / "midsagittal").mkdir()
    (root / "corners.csv").write_text("image\nsub-01.png\n")
    return root


class TestMRI:
    """With a schema that has no landmarks the volumes are read."""

    SCHEMA = schema_from_dict(
        {"name": "v", "title": "V", "quantities": [{"name": "L1_volume_cm3", "label": "L1", "unit": "cm3"}]},
        where="tests",
    )

    def test_volumes_and_their_targets(self, tmp_path: Path) -> None:
        dataset = read_dataset(_mri(tmp_path), schema=self.SCHEMA)
        assert [(case.id, case.subject) for case in dataset] == [
            ("sub-01", "sub-01"),
            ("sub-18", "sub-18"),
            ("sub-19", "sub-18"),
        ]
        assert [case.targets["L1_volume_cm3"] for case in dataset] == [30.5, 41.0, 41.0]
        assert all(case.landmarks is None for case in dataset)
        assert dataset.cases[0].frame.shape == (6, 8)
        assert dataset.cases[0].frame.spacing == (1.0, 1.0)
        assert dataset.cases[0].image.load().shape == (6, 8)

    def test_one_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        root = _mri(tmp_path)
        (root / "volumes" / "sub-18.nii.gz").unlink()
        dataset = read_dataset(root, schema=self.SCHEMA)
        assert len(dataset) == 2
        assert "sub-18.nii.gz" in dataset.problems[0]


class TestHand:
    def test_points_and_splits(self, tmp_path: Path, make_image) -> None:
        dataset = read_dataset(_hand(tmp_path, make_image))
        assert dataset.splits == {"train": ("3143",), "valid": ("3144",)}
        assert dataset.cases[0].frame.shape == (30, 40)
        assert dataset.cases[0].frame.spacing is None
        np.testing.assert_array_equal(dataset.cases[0].landmarks.points[:2], [[1.0, 1.25], [1.5, 1.75]])

    def test_images_may_lie_elsewhere(self, tmp_path: Path, make_image) -> None:
        root = _hand(tmp_path / "labels", make_image)
        make_image(tmp_path / "pixels" / "train" / "3143.png")
        dataset = read_dataset(root, images=tmp_path / "pixels")
        assert [case.id for case in dataset] == ["3143"]
        assert dataset.splits == {"train": ("3143",)}
        assert len(dataset.problems) == 1
        assert "row 2: the image '3144' is not there" in dataset.problems[0]

    def test_strict_refuses_a_missing_or_broken_image(self, tmp_path: Path, make_image) -> None:
        root = _hand(tmp_path, make_image)
        (root / "valid" / "3144.jpg").write_bytes(b"\xff\xd8\xffbroken")
        assert "3144.jpg" in read_dataset(root).problems[0]
        with pytest.raises(ImageError, match=r"3144\.jpg"):
            read_dataset(root, strict=True)

    def test_no_image_at_all_is_an_error(self, tmp_path: Path, make_image) -> None:
        root = _hand(tmp_path, make_image, names=("9", "10"))
        with pytest.raises(LabelError, match=r"not one labelled image can be used.*'9' is not there"):
            read_dataset(root)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (",".join(["3144", *_numbers(73)]), "row 2: has the wrong number of fields; expected 75 .*got 74"),
            (",".join(["3144", *_numbers(75)]), "row 2: .*expected 75 .*got 76"),
            (",".join(["3144", "12a", *_numbers(73)]), "row 2: the column 'x of point 0'.*got '12a'"),
            (",".join(["3144", *_numbers(73), "nan"]), "row 2: the column 'y of point 36'.*got 'nan'"),
            (",".join(["3144", *_numbers(73), "inf"]), "row 2: .*got 'inf'"),
            (",".join(["3144", *_numbers(73), "1e999"]), "row 2: .*got '1e999'"),
            (",".join(["3144", *_numbers(73), "1_0"]), "row 2: .*got '1_0'"),
            (",".join(["3143", *_numbers(74)]), "row 2: the image '3143' already occurs in row 1"),
        ],
    )
    def test_a_bad_row_is_named(self, tmp_path: Path, make_image, row: str, message: str) -> None:
        root = _hand(tmp_path, make_image)
        first = (root / "all_coordinates.csv").read_text().splitlines()[0]
        (root / "all_coordinates.csv").write_text(f"{first}\n{row}\n")
        with pytest.raises(LabelError, match=rf"all_coordinates\.csv, {message}"):
            read_dataset(root)


class TestChest:
    def _root(self, root: Path, make_image) -> Path:
        for split, name in (("train", "Viral Pneumonia-80"), ("val", "COVID-162")):
            (root / f"coordenadas_{split}.csv").write_text(",".join(["7", *_numbers(30), name]) + "\n")
            make_image(root / "dataset" / name.rpartition("-")[0].replace(" ", "_") / f"{name}.jpg")
        return root

    def test_tags_splits_and_points(self, tmp_path: Path, make_image) -> None:
        dataset = read_dataset(self._root(tmp_path, make_image))
        assert dataset.name == "chest_xray"
        assert dataset.splits == {"train": ("Viral Pneumonia-80",), "val": ("COVID-162",)}
        assert [case.tags["diagnosis"] for case in dataset] == ["Viral Pneumonia", "COVID"]
        np.testing.assert_array_equal(dataset.cases[1].landmarks.points[14], [8.0, 8.25])

    def test_a_name_in_both_files_is_refused(self, tmp_path: Path, make_image) -> None:
        root = self._root(tmp_path, make_image)
        (root / "coordenadas_val.csv").write_text((root / "coordenadas_train.csv").read_text())
        with pytest.raises(LabelError, match=r"coordenadas_val\.csv, row 1: the image 'Viral Pneumonia-80' already"):
            read_dataset(root)


class TestFetalHead:
    HEADER = "image_name,ofd_1_x,ofd_1_y,ofd_2_x,ofd_2_y,bpd_1_x,bpd_1_y,bpd_2_x,bpd_2_y"

    def _root(self, root: Path, make_image) -> Path:
        rows = [f"{name}.jpg,1,2,3,4,5,6,7,8" for name in ("010_HC", "010_2HC")]
        (root / "Head_Train.csv").write_text("\n".join([self.HEADER, *rows]))
        (root / "Head_Train_unreviewed.csv").write_text(f"{self.HEADER}\n010_HC.jpg,8,7,6,5,4,3,2,1")
        sizes = "filename,pixel size(mm),head circumference (mm)\n010_HC.jpg,0.25,170.5\n010_2HC.jpg,0.125,171"
        (root / "pixel_size_and_HC.csv").write_text(sizes)
        for name in ("010_HC", "010_2HC"):
            make_image(root / "images" / f"{name}.jpg")
        return root

    def test_frames_of_one_fetus_are_one_subject(self, tmp_path: Path, make_image) -> None:
        dataset = read_dataset(self._root(tmp_path, make_image))
        assert dataset.subjects == ("010",)
        first = dataset.cases[0]
        assert (first.frame.spacing, first.frame.spacing_source) == ((0.25, 0.25), "dataset")
        assert first.targets == {"hc_mm": 170.5}
        np.testing.assert_array_equal(first.landmarks.points, [[1, 2], [3, 4], [5, 6], [7, 8]])

    def test_the_careless_labelling_can_be_chosen(self, tmp_path: Path, make_image) -> None:
        dataset = read_dataset(self._root(tmp_path, make_image), labels="unreviewed")
        assert [case.id for case in dataset] == ["010_HC"]
        np.testing.assert_array_equal(dataset.cases[0].landmarks.points[0], [8, 7])
        with pytest.raises(ConfigError, match=r"no labelling 'third'.*reviewed, unreviewed"):
            read_dataset(tmp_path, labels="third")

    def test_a_missing_column_and_a_missing_pixel_size_are_named(self, tmp_path: Path, make_image) -> None:
        root = self._root(tmp_path, make_image)
        (root / "pixel_size_and_HC.csv").write_text("filename,pixel size(mm),head circumference (mm)\n010_HC.jpg,1,2")
        with pytest.raises(LabelError, match=r"row 3: the image '010_2HC.jpg' has no row in pixel_size"):
            read_dataset(root)
        (root / "Head_Train.csv").write_text("image_name,ofd_1_x\n010_HC.jpg,1")
        with pytest.raises(LabelError, match=r"Head_Train.csv: the column 'ofd_1_y' is missing; got the columns image"):
            read_dataset(root)


class TestSpineAp:
    def _root(self, root: Path, make_image, names: list[str]) -> Path:
        labels = root / "labels" / "training"
        labels.mkdir(parents=True)
        (labels / "filenames.csv").write_text("\n".join(names))
        xs, ys = [str(i / 100) for i in range(68)], [str(i / 200) for i in range(68)]
        (labels / "landmarks.csv").write_text("\n".join([",".join(xs + ys)] * len(names)))
        (labels / "angles.csv").write_text("\n".join(["41.139,14.63,40.147"] * len(names)))
        for name in names:
            make_image(root / "data" / "training" / name, width=200, height=100)
        return root

    def test_x_then_y_as_fractions(self, tmp_path: Path, make_image) -> None:
        name = "sunhl-1th-03-Jan-2017-165 A AP.jpg"
        dataset = read_dataset(self._root(tmp_path, make_image, [name]))
        case = dataset.cases[0]
        assert dataset.splits == {}
        assert case.targets == {"cobb_main_deg": 41.139, "cobb_proximal_deg": 14.63, "cobb_distal_deg": 40.147}
        schema = load_schema("spine_ap")
        # The sixth point is the second vertebra's second corner: 5/100 of 200 px, 5/200 of 100 px.
        np.testing.assert_allclose(case.landmarks.points[schema.index("T2_TR")], [10.0, 2.5], atol=1e-12)
        np.testing.assert_allclose(case.landmarks.points[schema.index("L5_BR")], [134.0, 33.5], atol=1e-12)

    def test_subjects_over_dates(self, tmp_path: Path, make_image) -> None:
        names = ["sunhl-1th-03-Jan-2017-165 A AP.jpg", "sunhl-1th-04-Jan-2017-165 B AP.jpg", "x coronal1.jpg"]
        dataset = read_dataset(self._root(tmp_path, make_image, names))
        assert [case.subject for case in dataset] == ["sunhl-1th-165", "sunhl-1th-165", "x coronal1"]
        assert subject_of("sunhl-1th-22-Nov-2016-142 A AP (2)") == "sunhl-1th-142"
        assert subject_of("sunhl-1th-20-Jul-2016-coronal1") == "sunhl-1th-20-Jul-2016-coronal1"

    def test_a_first_vertebra_that_is_listed_last_is_put_first(self, tmp_path: Path, make_image) -> None:
        root = self._root(tmp_path, make_image, ["a.jpg", "b.jpg"])
        # In px: T1 is 20 x 3 at (80, 5), and each next one 5 px below; the image is 200 x 100.
        corners = np.array([[[80, y], [100, y], [80, y + 3], [100, y + 3]] for y in range(5, 90, 5)]) / [200, 100]
        rows = [np.roll(corners, -1, axis=0).reshape(-1, 2), corners.reshape(-1, 2)]
        text = "\n".join(",".join(map(str, row.T.ravel())) for row in rows)
        (root / "labels" / "training" / "landmarks.csv").write_text(text)
        first, second = read_dataset(root)
        np.testing.assert_allclose(first.landmarks.points, second.landmarks.points, atol=1e-9)
        assert first.landmarks.points[0] == pytest.approx([80, 5])
        assert dict(first.tags) == {"reordered": True}
        assert dict(second.tags) == {}

    def test_files_of_different_lengths_are_refused(self, tmp_path: Path, make_image) -> None:
        root = self._root(tmp_path, make_image, ["a.jpg", "b.jpg"])
        (root / "labels" / "training" / "angles.csv").write_text("1,2,3\n")
        with pytest.raises(LabelError, match=r"angles\.csv: .*expected 2 rows, as in filenames\.csv, got 1"):
            read_dataset(root)


class TestCeph:
    def _root(self, root: Path, make_image, *, height: int = 24) -> Path:
        header = ",".join(["image_path", *(f"{i}_{axis}" for i in range(1, 20) for axis in "xy")])
        for file, start in (("train_senior.csv", 1.0), ("train_junior.csv", 2.0)):
            (root / file).write_text(f"{header}\n017.jpg,{','.join(_numbers(38, start))}\n")
        make_image(root / "cepha400" / "017.jpg", width=20, height=height)
        return root

    def test_the_second_reader_is_an_observer(self, tmp_path: Path, make_image) -> None:
        case = read_dataset(self._root(tmp_path, make_image)).cases[0]
        assert list(case.observers) == ["junior"]
        np.testing.assert_array_equal(case.observers["junior"].points - case.landmarks.points, np.ones((19, 2)))

    def test_spacing_follows_from_the_field_of_view(self, tmp_path: Path, make_image) -> None:
        # 2400 rows of 0.1 mm are 240 mm; 24 rows over the same field are 10 mm each.
        frame = read_dataset(self._root(tmp_path, make_image)).cases[0].frame
        assert (frame.spacing, frame.spacing_source) == ((10.0, 10.0), "dataset")


class TestSpineMri:
    def test_corners_spacing_and_volumes(self, tmp_path: Path, make_image) -> None:
        names = load_schema("lumbar_mri").names
        header = ",".join(["image", *(f"{name}_{axis}" for name in names for axis in "xy")])
        (tmp_path / "corners.csv").write_text(f"{header}\nsub-01.png,{','.join(_numbers(40))}\n")
        (tmp_path / "targets.csv").write_text("subject,file,L1_volume_cm3\nsub-01,sub-01.nii.gz,30.562\n")
        make_image(tmp_path / "midsagittal" / "sub-01.png")
        case = read_dataset(tmp_path).cases[0]
        assert (case.id, case.targets, case.frame.spacing) == ("sub-01", {"L1_volume_cm3": 30.562}, (1.0, 1.0))
        np.testing.assert_array_equal(case.landmarks.points[names.index("L5_inf_post")], [10.5, 10.75])


def test_a_schema_of_another_size_is_refused(tmp_path: Path, make_image) -> None:
    with pytest.raises((LabelError, SchemaError), match=r"expected 31 .*15 x, y pairs.*got 75"):
        read_dataset(_hand(tmp_path, make_image), schema="chest")


@pytest.mark.data
class TestRealData:
    COUNTS = (
        ("hand_xray", 112, 112, 0),
        ("chest_xray", 813, 813, 0),
        ("fetal_head_us", 737, 600, 0),
        ("spine_ap_xray", 481, 237, 1),
        ("ceph_xray", 150, 150, 0),
        ("spine_mri", 44, 40, 2),
    )

    @pytest.mark.parametrize(("name", "cases", "subjects", "outside"), COUNTS, ids=[row[0] for row in COUNTS])
    def test_counts_and_positions(self, data_root: Path, name: str, cases: int, subjects: int, outside: int) -> None:
        assert detect_format(data_root / name) == name
        dataset = read_dataset(data_root / name, strict=True)
        assert (len(dataset), len(dataset.subjects), dataset.problems) == (cases, subjects, ())
        off = [case.id for case in dataset if not case.frame.contains(case.landmarks.points).all()]
        assert len(off) == outside

    def test_published_splits(self, data_root: Path) -> None:
        hand, chest = read_dataset(data_root / "hand_xray"), read_dataset(data_root / "chest_xray")
        assert {name: len(ids) for name, ids in hand.splits.items()} == {"train": 91, "valid": 21}
        assert {name: len(ids) for name, ids in chest.splits.items()} == {"train": 669, "val": 144}

    def test_head_circumference_agrees_with_the_diameters(self, data_root: Path) -> None:
        """An ellipse over the two diameters (Ramanujan's second formula) has the published circumference."""
        errors = []
        for case in read_dataset(data_root / "fetal_head_us"):
            ofd, bpd = case.frame.to_mm(case.landmarks.points[[0, 2]] - case.landmarks.points[[1, 3]])
            a, b = np.linalg.norm(ofd) / 2, np.linalg.norm(bpd) / 2
            h = ((a - b) / (a + b)) ** 2
            perimeter = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
            errors.append(perimeter / case.targets["hc_mm"] - 1)
        assert abs(np.median(errors)) < 0.01
        assert np.percentile(np.abs(errors), 95) < 0.05

    def test_the_first_angle_is_the_largest_between_any_two_vertebrae(self, data_root: Path) -> None:
        """The challenge's definition: slopes of the lines through the middles of the left and right sides."""
        dataset = read_dataset(data_root / "spine_ap_xray")
        errors = []
        for case in dataset:
            corners = case.landmarks.points.reshape(17, 4, 2)
            lines = corners[:, [1, 3]].mean(axis=1) - corners[:, [0, 2]].mean(axis=1)
            slopes = np.degrees(np.arctan2(lines[:, 1], lines[:, 0]))
            errors.append(abs(np.ptp(slopes) - case.targets["cobb_main_deg"]))
        assert np.median(errors) < 0.05
        assert np.percentile(errors, 90) < 0.1

    def test_spines_are_in_order_but_for_those_with_a_vertebra_marked_twice(self, data_root: Path) -> None:
        dataset = read_dataset(data_root / "spine_ap_xray")
        heights = [c.landmarks.points.reshape(17, 4, 2)[:, :, 1].mean(axis=1) for c in dataset]
        assert sum((np.diff(y) < 0).any() for y in heights) == 6
        assert sum("reordered" in c.tags for c in dataset) == 20

    def test_corners_run_left_to_right_and_top_to_bottom(self, data_root: Path) -> None:
        corners = np.stack([c.landmarks.points.reshape(17, 4, 2) for c in read_dataset(data_root / "spine_ap_xray")])
        assert (corners[:, :, 1, 0] > corners[:, :, 0, 0]).mean() > 0.99
        assert (corners[:, :, 2, 1] > corners[:, :, 0, 1]).mean() > 0.99

    def test_two_observers_are_a_few_millimetres_apart(self, data_root: Path) -> None:
        cases = read_dataset(data_root / "ceph_xray").cases
        apart = [
            np.linalg.norm(c.frame.to_mm(c.landmarks.points - c.observers["junior"].points), axis=1) for c in cases
        ]
        assert 1.0 < np.mean(apart) < 3.0

    def test_wrist_width_is_a_wrist_beside_the_hand(self, data_root: Path) -> None:
        """The wrist's width is between a fifth and a half of the way from the third metacarpal's base to its tip."""
        schema = load_schema("hand")
        for case in read_dataset(data_root / "hand_xray"):
            p = case.landmarks.points
            wrist = np.linalg.norm(
                p[schema.index("ulna_metaphysis_ulnar")] - p[schema.index("radius_metaphysis_radial")]
            )
            finger = np.linalg.norm(p[schema.index("mc3_base")] - p[schema.index("middle_tip")])
            assert 0.2 < wrist / finger < 0.5
