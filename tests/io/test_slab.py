"""Slices about the middle of a volume: the same ones whatever way it is stored, and when there are too few."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from bregma.errors import ImageError
from bregma.io import VolumeImage, open_image, read_slice
from bregma.types import ArraySlab, SlabSource

RAS = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def write(path: Path, codes: str = "RAS", kind: type = np.int16) -> Path:
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    image = nib.Nifti1Image(apply_orientation(RAS, turn).astype(kind), AFFINE @ inv_ornt_aff(turn, RAS.shape))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    "codes", ["".join(c) for axes in itertools.permutations(["LR", "PA", "IS"]) for c in itertools.product(*axes)]
)
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_any_stored_orientation_gives_the_same_slices(tmp_path: Path, codes: str, kind: type) -> None:
    image = VolumeImage(write(tmp_path / "a.nii", codes, kind))
    # From the subject's left on; anterior on the left, superior up.
    np.testing.assert_array_equal(image.load_slab(1), RAS[1:4, ::-1, ::-1].transpose(0, 2, 1))
    np.testing.assert_array_equal(image.load(), RAS[2, ::-1, ::-1].T)
    assert image.read_frame().spacing == pytest.approx((3.0, 4.0))
    assert image.read_frame().shape == (7, 6)


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_each_slice_is_that_of_the_single_reader(tmp_path: Path, plane: str) -> None:
    path = write(tmp_path / "a.nii", "PIR")
    image, frame = open_image(path, plane=plane)  # type: ignore[arg-type]
    assert isinstance(image, SlabSource)
    middle = {"sagittal": 2, "coronal": 3, "axial": 3}[plane]
    for offset, slice_ in zip((-1, 0, 1), image.load_slab(1), strict=True):
        expected, own = read_slice(path, plane, middle + offset)  # type: ignore[arg-type]
        np.testing.assert_array_equal(slice_, expected)
        assert own.spacing == pytest.approx(frame.spacing)
    np.testing.assert_array_equal(VolumeImage(path, plane).load(), image.load())  # type: ignore[arg-type]


def test_a_place_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    np.testing.assert_array_equal(VolumeImage(path, position=1).load_slab(1), RAS[0:3, ::-1, ::-1].transpose(0, 2, 1))


def test_too_few_slices_are_told_with_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii")
    with pytest.raises(ImageError, match=r"too few sagittal slices.*7 about slice 2.*5 slices.*preprocess\.slices"):
        VolumeImage(path).load_slab(3)
    with pytest.raises(ImageError, match="too few"):
        VolumeImage(path, position=0).load_slab(1)


def test_one_image_is_no_volume(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    image, _ = open_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is no volume"):
        image.load_slab(1)


def test_slices_in_memory() -> None:
    slab = ArraySlab(RAS)
    np.testing.assert_array_equal(slab.load(), RAS[2])
    np.testing.assert_array_equal(slab.load_slab(1), RAS[1:4])
    with pytest.raises(ImageError, match="too few slices"):
        slab.load_slab(3)
    with pytest.raises(ImageError, match="odd number"):
        ArraySlab(RAS[:4])
