"""NIfTI volumes: orientation, slices, spacing and damage."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from bregma.errors import ConfigError, ImageError
from bregma.io import read_frame, read_image, read_slice, read_volume

SIZES = (2.0, 3.0, 4.0)
RAS = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
AFFINE = np.diag([*SIZES, 1.0])
AFFINE[:3, 3] = (-10.0, 20.0, 30.0)

# index along (right, anterior, superior) -> what a viewer shows at the top left of the middle slice
SAGITTAL = RAS[2, ::-1, ::-1].T
CORONAL = RAS[::-1, 3, ::-1].T
AXIAL = RAS[::-1, ::-1, 3].T

ALL_ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(["LR", "PA", "IS"]) for codes in itertools.product(*axes)
]


def write(path: Path, data: np.ndarray = RAS, affine: np.ndarray = AFFINE, *, unit: str | None = "mm") -> Path:
    image = nib.Nifti1Image(data, affine)
    if unit:
        image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def write_as(path: Path, codes: str) -> Path:
    """Store the RAS volume with other axes."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    affine = AFFINE @ inv_ornt_aff(turn, RAS.shape)
    assert "".join(nib.aff2axcodes(affine)) == codes
    return write(path, apply_orientation(RAS, turn), affine)


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_every_stored_orientation_gives_the_same_slices(tmp_path, codes):
    path = write_as(tmp_path / "a.nii", codes)
    for plane, expected, spacing in [
        ("sagittal", SAGITTAL, (3.0, 4.0)),
        ("coronal", CORONAL, (2.0, 4.0)),
        ("axial", AXIAL, (2.0, 3.0)),
    ]:
        pixels, frame = read_slice(path, plane)
        np.testing.assert_array_equal(pixels, expected)
        assert pixels.dtype == np.int16
        assert frame.shape == expected.shape
        assert frame.spacing == pytest.approx(spacing)
        assert (frame.spacing_source, frame.spacing_note) == ("nifti", "")
        assert read_frame(path, plane=plane) == frame
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, RAS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.spacing == pytest.approx(SIZES)


def test_positions_count_from_left_back_and_foot(tmp_path):
    path = write_as(tmp_path / "a.nii.gz", "LPI")
    np.testing.assert_array_equal(read_slice(path, "sagittal", 0)[0], RAS[0, ::-1, ::-1].T)
    np.testing.assert_array_equal(read_slice(path, "coronal", 5)[0], RAS[::-1, 5, ::-1].T)
    np.testing.assert_array_equal(read_slice(path, "axial", 1)[0], RAS[::-1, ::-1, 1].T)


def test_offset_in_millimetres(tmp_path):
    path = write_as(tmp_path / "a.nii", "PSL")
    np.testing.assert_array_equal(read_slice(path, "sagittal", offset_mm=4.1)[0], RAS[4, ::-1, ::-1].T)
    np.testing.assert_array_equal(read_slice(path, "axial", 0, offset_mm=7.9)[0], RAS[::-1, ::-1, 2].T)
    with pytest.raises(ImageError, match="has no sagittal slice 5; expected 0 to 4"):
        read_slice(path, "sagittal", offset_mm=6.0)
    with pytest.raises(ImageError, match="has no coronal slice 6"):
        read_slice(path, "coronal", 6)
    with pytest.raises(ConfigError, match="offset_mm"):
        read_slice(path, offset_mm=float("nan"))
    with pytest.raises(ConfigError, match="unknown plane"):
        read_slice(path, "oblique")


def test_a_volume_needs_a_plane_and_a_sheet_does_not(tmp_path):
    path = write(tmp_path / "a.nii")
    for read in (read_frame, read_image):
        with pytest.raises(ImageError, match="no plane was chosen"):
            read(path)
    np.testing.assert_array_equal(read_image(path, plane="coronal")[0], CORONAL)
    sheet = write(tmp_path / "b.nii", RAS[:, 3:4])
    np.testing.assert_array_equal(read_image(sheet)[0], CORONAL)


def test_number_types(tmp_path):
    for dtype in (np.uint8, np.int16, np.uint16, np.float32):
        path = write(tmp_path / "a.nii", (RAS % 200).astype(dtype))
        pixels, _ = read_slice(path)
        assert pixels.dtype == dtype
        np.testing.assert_array_equal(pixels, SAGITTAL % 200)
    path = write(tmp_path / "a.nii", RAS.astype(np.float64))
    assert read_slice(path)[0].dtype == np.float32


def test_stored_scale_is_applied(tmp_path):
    image = nib.Nifti1Image(RAS, AFFINE)
    image.header.set_slope_inter(0.5, 10.0)
    nib.save(image, tmp_path / "a.nii")
    raw = np.frombuffer((tmp_path / "a.nii").read_bytes()[352:], np.int16).reshape(RAS.shape, order="F")
    pixels, _ = read_slice(tmp_path / "a.nii")
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, raw[2, ::-1, ::-1].T * 0.5 + 10.0)


def test_big_endian_file(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(RAS, AFFINE, header), tmp_path / "a.nii")
    pixels, _ = read_slice(tmp_path / "a.nii")
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, SAGITTAL)


def test_nifti_2(tmp_path):
    nib.save(nib.Nifti2Image(RAS, AFFINE), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz", plane="sagittal")[0], SAGITTAL)


def test_background_that_is_not_a_number(tmp_path):
    data = RAS.astype(np.float32)
    data[2, 0, 0] = np.nan
    pixels, _ = read_slice(write(tmp_path / "a.nii", data))
    assert np.isfinite(pixels).all()
    assert pixels[-1, -1] == RAS[2].flat[1:].min()


def test_units(tmp_path):
    small = AFFINE.copy()
    small[:3] /= 1000
    frame = read_slice(write(tmp_path / "a.nii", affine=small, unit="meter"))[1]
    assert frame.spacing == pytest.approx((3.0, 4.0))
    frame = read_slice(write(tmp_path / "a.nii", unit=None))[1]
    assert frame.spacing == pytest.approx((3.0, 4.0))
    assert "no unit" in frame.spacing_note


def test_oblique_volume_follows_its_grid(tmp_path):
    angle = np.radians(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    pixels, frame = read_slice(write(tmp_path / "a.nii", affine=affine))
    np.testing.assert_array_equal(pixels, SAGITTAL)
    assert frame.spacing == pytest.approx((3.0, 4.0), rel=1e-6)
    assert "oblique by up to 20 degrees" in frame.spacing_note


def test_user_spacing_overrules(tmp_path):
    frame = read_frame(write(tmp_path / "a.nii"), plane="axial", spacing=(1.0, 1.5))
    assert (frame.spacing, frame.spacing_source) == ((1.0, 1.5), "user")


def test_explicit_window(tmp_path):
    pixels, _ = read_image(write(tmp_path / "a.nii"), plane="sagittal", window=(100.5, 11.0))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, np.clip((SAGITTAL - 100.0) / 10 + 0.5, 0, 1), atol=1e-6)


class TestRefused:
    def test_unknown_orientation(self, tmp_path):
        image = nib.Nifti1Image(RAS, AFFINE)
        image.set_qform(None, 0)
        image.set_sform(None, 0)
        nib.save(image, tmp_path / "a.nii")
        for read in (read_slice, read_volume):
            with pytest.raises(ImageError, match="qform_code and sform_code are both 0"):
                read(tmp_path / "a.nii")

    @pytest.mark.parametrize("value", [0.0, np.nan])
    def test_invalid_affine(self, tmp_path, value):
        path = write(tmp_path / "a.nii")
        image = nib.load(path)
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        image.header["srow_x"] = value
        data = bytearray(path.read_bytes())
        data[:348] = image.header.binaryblock
        path.write_bytes(data)
        with pytest.raises(ImageError, match="affine is not valid"):
            read_slice(path)

    def test_four_dimensions(self, tmp_path):
        path = write(tmp_path / "a.nii", np.zeros((3, 4, 5, 2), np.int16))
        with pytest.raises(ImageError, match="is not a volume; expected three dimensions, got 3 x 4 x 5 x 2"):
            read_slice(path)
        single = write(tmp_path / "b.nii", RAS[..., None])
        np.testing.assert_array_equal(read_slice(single)[0], SAGITTAL)
        np.testing.assert_array_equal(read_volume(single).array, RAS)

    def test_colours(self, tmp_path):
        colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        with pytest.raises(ImageError, match="plain numbers"):
            read_slice(write(tmp_path / "a.nii", colours))

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("share", [0.4, 0.8])
    def test_truncated(self, tmp_path, suffix, share):
        data = np.random.default_rng(0).integers(0, 999, RAS.shape).astype(np.int16)
        path = write(tmp_path / f"a{suffix}", data)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ImageError, match=r"a\.nii.*truncated"):
            read_slice(path, "axial", 6)
        with pytest.raises(ImageError, match=r"a\.nii.*truncated"):
            read_volume(path)

    def test_missing(self, tmp_path):
        with pytest.raises(ImageError, match="does not exist"):
            read_slice(tmp_path / "a.nii")


@pytest.mark.data
@pytest.mark.parametrize("subject", ["sub-01", "sub-02"])
def test_real_middle_slice_is_the_published_one(data_root, subject):
    folder = data_root / "spine_mri"
    pixels, frame = read_slice(folder / "volumes" / f"{subject}.nii.gz")
    published = np.asarray(Image.open(folder / "midsagittal" / f"{subject}.png"))
    np.testing.assert_array_equal(pixels, published)
    assert frame.spacing == (1.0, 1.0)
