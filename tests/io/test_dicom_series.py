"""DICOM series as volumes: order, orientation, damage."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from bregma.errors import ImageError
from bregma.io import read_volume
from dicom_files import item, sequence, write_dicom

RAS = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
"""Voxel axes to the right, front and head."""
SIZES = (4.0, 0.5, 0.75)
ORIGIN = np.array([-8.0, 30.0, -50.0])
PLANES = {"sagittal": (0, (1, 2)), "coronal": (1, (0, 2)), "axial": (2, (0, 1))}


def planes(plane="sagittal", row_sign=1, column_sign=1):
    """The volume cut into planes: pixels, position, orientation and spacing of each, by DICOM's own words."""
    normal, (across, down) = PLANES[plane]
    ways = {across: row_sign, down: column_sign}
    found = []
    for k in range(RAS.shape[normal]):
        index = [0, 0, 0]
        index[normal] = k
        for axis, sign in ways.items():
            index[axis] = 0 if sign > 0 else RAS.shape[axis] - 1
        cut = np.take(RAS, k, axis=normal)
        cut = cut[:: ways[across], :: ways[down]].T
        corner = (ORIGIN + np.array(SIZES) * index) * [-1, -1, 1]
        directions = []
        for axis in (across, down):
            directions += list(np.eye(3)[axis] * ways[axis] * [-1, -1, 1])
        found.append((cut, list(corner), directions, [SIZES[down], SIZES[across]]))
    return found


def write_series(folder: Path, parts, *, series=None, **more) -> Path:
    """Store planes as files whose names and numbers say nothing of their order."""
    folder.mkdir(exist_ok=True)
    series = series or generate_uid()
    names = np.random.default_rng(0).permutation(len(parts))
    for name, (pixels, corner, directions, spacing) in zip(names, parts, strict=True):
        write_dicom(
            folder / f"{series[-4:]}_{name}.dcm",
            np.ascontiguousarray(pixels),
            SOPClassUID=MRImageStorage,
            SeriesInstanceUID=series,
            InstanceNumber=str(int(name)),
            ImagePositionPatient=corner,
            ImageOrientationPatient=directions,
            PixelSpacing=spacing,
            **more,
        )
    return folder


def affine():
    matrix = np.diag([*SIZES, 1.0])
    matrix[:3, 3] = ORIGIN
    return matrix


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("row_sign", "column_sign"), list(itertools.product((1, -1), repeat=2)))
def test_every_way_to_cut_a_body_gives_the_same_volume(tmp_path, plane, row_sign, column_sign):
    volume = read_volume(write_series(tmp_path / "a", planes(plane, row_sign, column_sign)))
    np.testing.assert_array_equal(volume.array, RAS)
    np.testing.assert_allclose(volume.affine, affine())
    assert volume.spacing == pytest.approx(SIZES)
    assert volume.note == ""


def test_a_series_and_its_nifti_are_the_same(tmp_path):
    image = nib.Nifti1Image(RAS.astype(np.int16), affine())
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    stored = read_volume(tmp_path / "a.nii.gz")
    series = read_volume(write_series(tmp_path / "a", planes()))
    np.testing.assert_array_equal(stored.array, series.array)
    np.testing.assert_allclose(stored.affine, series.affine, atol=1e-5)


def test_values_are_those_measured_whatever_window_a_slice_carries(tmp_path):
    parts = planes()
    folder = write_series(tmp_path / "a", parts[:2], RescaleSlope="2", RescaleIntercept="-100", WindowWidth="5")
    write_series(folder, parts[2:], series="1.2.3.3333", RescaleSlope="2", RescaleIntercept="-100", WindowCenter="50")
    for file in folder.iterdir():
        rename_series(file, "1.2.3.3333")
    np.testing.assert_array_equal(read_volume(folder).array, RAS * 2.0 - 100)


def rename_series(file: Path, series: str) -> None:
    dataset = pydicom.dcmread(file)
    dataset.SeriesInstanceUID = series
    dataset.save_as(file)


def multi_frame(path: Path, parts) -> Path:
    """Store planes as one enhanced object, in an order of its own."""
    order = np.random.default_rng(1).permutation(len(parts))
    pixels = np.stack([parts[k][0] for k in order])
    frames = [item(PlanePositionSequence=sequence(item(ImagePositionPatient=parts[k][1]))) for k in order]
    shared = item(
        PlaneOrientationSequence=sequence(item(ImageOrientationPatient=parts[0][2])),
        PixelMeasuresSequence=sequence(item(PixelSpacing=parts[0][3])),
    )
    return write_dicom(
        path,
        pixels,
        NumberOfFrames=str(len(parts)),
        SeriesInstanceUID=generate_uid(),
        SharedFunctionalGroupsSequence=sequence(shared),
        PerFrameFunctionalGroupsSequence=sequence(*frames),
    )


def test_frames_of_one_object_are_a_volume(tmp_path):
    volume = read_volume(multi_frame(tmp_path / "a.dcm", planes("coronal")))
    np.testing.assert_array_equal(volume.array, RAS)
    np.testing.assert_allclose(volume.affine, affine())


def test_one_file_stands_for_its_series_among_others(tmp_path):
    folder = write_series(tmp_path / "a", planes(), series="1.2.3.1111")
    write_series(folder, planes("axial"), series="1.2.3.2222")
    np.testing.assert_array_equal(read_volume(folder / "2222_0.dcm").array, RAS)
    with pytest.raises(ImageError, match=r"holds 2 series, of 5, 7 images|holds 2 series, of 7, 5 images"):
        read_volume(folder)


def test_slices_that_lean_are_said_to_be_oblique(tmp_path):
    turn = np.radians(10)
    parts = []
    for pixels, corner, directions, spacing in planes("axial"):
        lean = [np.cos(turn) * directions[0], 0.0, np.sin(turn), *directions[3:]]
        parts.append((pixels, corner, lean, spacing))
    assert "oblique by up to 10 degrees" in read_volume(write_series(tmp_path / "a", parts)).note


def moved(parts, index, by):
    pixels, corner, directions, spacing = parts[index]
    return [*parts[:index], (pixels, list(np.add(corner, by)), directions, spacing), *parts[index + 1 :]]


FAULTS = {
    "a slice is missing": (lambda parts: [*parts[:2], *parts[3:]], r"lie 8\.00 mm apart.*neighbours 4\.00 mm apart"),
    "two at one place": (lambda parts: [*parts, parts[2]], "lie at the same place"),
    "a scout among them": (lambda parts: [*parts, planes("axial")[0]], "differ in size or spacing|are not parallel"),
    "a single slice": (lambda parts: parts[:1], "is a single slice"),
    "no spacing": (lambda parts: [(*part[:3], [0.0, 0.0]) for part in parts], "no usable PixelSpacing"),
    "no orientation": (lambda parts: [(*part[:2], [1, 0, 0, 1, 0, 0], part[3]) for part in parts], "how it lies"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_volume_says_why(tmp_path, fault):
    change, message = FAULTS[fault]
    with pytest.raises(ImageError, match=f"(?s){message}"):
        read_volume(write_series(tmp_path / "a", change(planes())))


def test_a_gap_of_a_tenth_is_refused_and_of_a_hundredth_not(tmp_path):
    with pytest.raises(ImageError, match="apart"):
        read_volume(write_series(tmp_path / "a", moved(planes(), 2, [0.4, 0, 0])))
    read_volume(write_series(tmp_path / "b", moved(planes(), 2, [0.04, 0, 0])))


def test_other_places_say_what_is_wrong(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no DICOM images"):
        read_volume(tmp_path / "empty")
    with pytest.raises(ImageError, match="does not exist"):
        read_volume(tmp_path / "nowhere")
