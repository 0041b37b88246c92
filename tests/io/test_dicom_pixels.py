"""Pixels of DICOM files: transfer syntaxes, modality, VOI, polarity, colour, frames and damage.

Expected windows are those of the examples in DICOM PS3.3 C.11.2.1.2.1 or worked by hand.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from bregma.errors import ImageError
from bregma.io import read_frame, read_image
from dicom_files import RAMP, item, make_dicom, sequence, shipped, write_dicom

UNIT_RAMP = RAMP / 1100  # full range: 0 to 1100


def levels(path: Path, **options: object) -> np.ndarray:
    pixels, _ = read_image(path, **options)
    assert pixels.dtype == np.float32
    assert 0.0 <= pixels.min() <= pixels.max() <= 1.0
    return pixels


class TestTransferSyntaxes:
    @pytest.mark.parametrize(
        "syntax",
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    )
    def test_native(self, tmp_path, syntax):
        path = write_dicom(tmp_path / "a", RAMP, syntax)
        np.testing.assert_allclose(levels(path), UNIT_RAMP, atol=1e-6)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_lossless_compression(self, tmp_path, syntax):
        dataset = make_dicom(np.kron(RAMP, np.ones((32, 32), np.uint16)), BitsStored=12)
        dataset.compress(syntax)
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
        np.testing.assert_allclose(levels(tmp_path / "a")[16::32, 16::32], UNIT_RAMP, atol=1e-6)

    @pytest.mark.parametrize(
        "name",
        [
            "MR_small_RLE.dcm",
            "MR_small_bigendian.dcm",
            "MR_small_implicit.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
        ],
    )
    def test_the_same_image_in_other_syntaxes(self, name):
        np.testing.assert_array_equal(levels(shipped(name)), levels(shipped("MR_small.dcm")))

    @pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
    def test_lossy_12_bit_jpeg(self, name):
        pixels = levels(shipped(name))
        # reference values of this image are 244 at (420, 140) and 95 at (230, 120); their ratio survives full range,
        # whose lower end is 0
        assert pixels[420, 140] / pixels[230, 120] == pytest.approx(244 / 95, rel=1e-6)

    @pytest.mark.parametrize(
        "name",
        [
            "SC_rgb_dcmtk_+eb+cr.dcm",
            "SC_rgb_dcmtk_+eb+cy+np.dcm",
            "SC_rgb_jpeg_dcmtk.dcm",
            "SC_rgb_jpeg_gdcm.dcm",
            "SC_rgb_gdcm_KY.dcm",
            "SC_rgb_jls_lossy_line.dcm",
            "SC_rgb_rle.dcm",
            "SC_rgb_rle_16bit.dcm",
            "SC_ybr_full_422_uncompressed.dcm",
        ],
    )
    def test_colours_in_all_codings(self, name):
        # stripes of red, pale red, green, pale green, blue, pale blue, black, 64, 192, white as luminance of 255
        expected = np.array([76.2, 166.0, 149.7, 202.5, 29.1, 142.5, 0.0, 64.0, 192.0, 255.0]) / 255
        np.testing.assert_allclose(levels(shipped(name))[5::10, 50], expected, atol=3 / 255)

    def test_unsupported_syntax_is_named(self, tmp_path):
        path = write_dicom(tmp_path / "a", RAMP)
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        dataset["PixelData"].is_undefined_length = True
        dataset.PixelData = (
            b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd\xfe\xff\xdd\xe0\0\0\0\0"
        )
        dataset.save_as(path)
        assert read_frame(path).shape == (3, 4)
        with pytest.raises(ImageError, match=r"not supported; got 1\.2\.840\.10008\.1\.2\.4\.102 \(MPEG-4"):
            read_image(path)

    @pytest.mark.data
    def test_real_radiographs(self, data_root):
        lossy, nearly_lossless = (levels(data_root / "dicom" / f"RG3_{kind}.dcm") for kind in ("JPLY", "JLSN"))
        assert np.abs(lossy - nearly_lossless).mean() < 0.005
        assert levels(data_root / "dicom" / "RG1_J2KI.dcm").shape == (1955, 1841)


class TestWindows:
    def test_linear_examples_of_the_standard(self, tmp_path):
        values = np.array([[0, 1024, 2047, 2048, 4095, 4096]], np.uint16)
        path = write_dicom(tmp_path / "a", values, WindowCenter="2048", WindowWidth="4096")
        expected = [[0.0, 1024 / 4095, 2047 / 4095, 2048 / 4095, 1.0, 1.0]]
        np.testing.assert_allclose(levels(path), expected, atol=1e-6)
        np.testing.assert_array_equal(levels(path, window=(2048.0, 1.0)), [[0, 0, 0, 1, 1, 1]])

    def test_linear_around_zero(self, tmp_path):
        values = np.array([[-51, -50, -49, 0, 49, 50]], np.int16)
        path = write_dicom(tmp_path / "a", values, WindowCenter="0", WindowWidth="100")
        expected = [[0.0, 0.0, -48.5 / 99 + 0.5, 0.5 / 99 + 0.5, 1.0, 1.0]]
        np.testing.assert_allclose(levels(path), expected, atol=1e-6)

    def test_linear_exact(self, tmp_path):
        values = np.array([[0, 1, 2, 3, 4]], np.uint16)
        path = write_dicom(tmp_path / "a", values, WindowCenter="2", WindowWidth="4", VOILUTFunction="LINEAR_EXACT")
        np.testing.assert_allclose(levels(path), [[0, 0.25, 0.5, 0.75, 1.0]], atol=1e-6)

    def test_sigmoid(self, tmp_path):
        values = np.array([[0, 100, 200]], np.uint16)
        path = write_dicom(tmp_path / "a", values, WindowCenter="100", WindowWidth="200", VOILUTFunction="SIGMOID")
        low = 1 / (1 + np.exp(2.0))
        np.testing.assert_allclose(levels(path), [[low, 0.5, 1 - low]], atol=1e-6)

    def test_the_first_of_several_and_a_choice(self, tmp_path):
        path = write_dicom(tmp_path / "a", RAMP, WindowCenter=["100.5", "500.5"], WindowWidth=["201", "1001"])
        assert levels(path)[0, 1] == pytest.approx(0.5)
        assert levels(path, window=1)[1, 1] == pytest.approx(0.5)
        assert levels(path, window=(200.5, 401.0))[0, 1] == pytest.approx(0.25)
        np.testing.assert_allclose(levels(path, window="full"), UNIT_RAMP, atol=1e-6)
        with pytest.raises(ImageError, match="window 2 was asked for, but the file stores 2"):
            levels(path, window=2)

    @pytest.mark.parametrize("width", ["0", "-5", ""])
    def test_junk_windows_are_passed_over(self, tmp_path, width):
        path = write_dicom(tmp_path / "a", RAMP, WindowCenter="10", WindowWidth=width)
        np.testing.assert_allclose(levels(path), UNIT_RAMP, atol=1e-6)

    def test_window_counts_in_rescaled_values(self, tmp_path):
        values = np.array([[0, 1024, 1064, 2048]], np.uint16)
        elements = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "WindowCenter": "40.5", "WindowWidth": "81"}
        path = write_dicom(tmp_path / "a", values, **elements)
        np.testing.assert_allclose(levels(path), [[0.0, 0.0, 0.5, 1.0]], atol=1e-6)

    def test_real_ct_agrees_with_pydicom(self, tmp_path):
        dataset = dcmread(shipped("CT_small.dcm"))
        dataset.WindowCenter, dataset.WindowWidth = "-100", "700"
        del dataset.PixelPaddingValue
        dataset.save_as(tmp_path / "a")
        hounsfield = apply_modality_lut(dataset.pixel_array, dataset)
        theirs = apply_windowing(hounsfield, dataset)
        scaled = (theirs - theirs.min()) / (theirs.max() - theirs.min())
        assert 0.05 < scaled.mean() < 0.95
        np.testing.assert_allclose(levels(tmp_path / "a"), scaled, atol=1e-6)


class TestLookupTables:
    def voi_lut(self, first: int = 10, bits: int = 8) -> object:
        return sequence(item(LUTDescriptor=[4, first, bits], LUTData=[0, 51, 204, 255]))

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    def test_voi_lut_comes_before_windows(self, tmp_path, syntax):
        values = np.array([[0, 10, 11, 12, 13, 900]], np.uint16)
        lut = self.voi_lut()
        lut[0]["LUTDescriptor"].VR = lut[0]["LUTData"].VR = "US"
        path = write_dicom(tmp_path / "a", values, syntax, VOILUTSequence=lut, WindowCenter="50.5", WindowWidth="101")
        np.testing.assert_allclose(levels(path), [[0, 0, 0.2, 0.8, 1, 1]], atol=1e-6)
        assert levels(path, window=1)[0, 1] == pytest.approx(0.1)

    def test_voi_lut_with_a_negative_start(self, tmp_path):
        values = np.array([[-10, -3, -2, -1, 0, 5]], np.int16)
        lut = self.voi_lut(first=-3)
        lut[0]["LUTDescriptor"].VR, lut[0]["LUTData"].VR = "SS", "US"
        path = write_dicom(tmp_path / "a", values, VOILUTSequence=lut)
        np.testing.assert_allclose(levels(path), [[0, 0, 0.2, 0.8, 1, 1]], atol=1e-6)

    def test_modality_lut(self, tmp_path):
        lut = sequence(item(LUTDescriptor=[3, 0, 16], ModalityLUTType="OD", LUTData=[1000, 2000, 5000]))
        lut[0]["LUTDescriptor"].VR = lut[0]["LUTData"].VR = "US"
        path = write_dicom(tmp_path / "a", np.array([[0, 1, 2]], np.uint16), ModalityLUTSequence=lut)
        np.testing.assert_allclose(levels(path), [[0, 0.25, 1]], atol=1e-6)

    def test_false_table_is_refused(self, tmp_path):
        lut = sequence(item(LUTDescriptor=[9, 0, 16], LUTData=[1, 2]))
        lut[0]["LUTDescriptor"].VR = lut[0]["LUTData"].VR = "US"
        path = write_dicom(tmp_path / "a", RAMP, VOILUTSequence=lut)
        with pytest.raises(ImageError, match="lookup table cannot be used"):
            levels(path)
        np.testing.assert_allclose(levels(path, window="full"), UNIT_RAMP, atol=1e-6)


class TestGreyLevels:
    def test_monochrome1_is_inverted(self, tmp_path):
        path = write_dicom(
            tmp_path / "a", RAMP, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"
        )
        np.testing.assert_allclose(levels(path), 1 - UNIT_RAMP, atol=1e-6)
        elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "100.5", "WindowWidth": "201"}
        windowed = write_dicom(tmp_path / "b", RAMP, **elements)
        np.testing.assert_allclose(levels(windowed)[0], [1.0, 0.5, 0.0, 0.0], atol=1e-6)

    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_padding_is_dark_and_outside_the_range(self, tmp_path, photometric):
        values = np.array([[-2000, 0, 50, 100]], np.int16)
        path = write_dicom(tmp_path / "a", values, PhotometricInterpretation=photometric, PixelPaddingValue=-2000)
        seen = [0.0, 0.5, 1.0] if photometric == "MONOCHROME2" else [1.0, 0.5, 0.0]
        np.testing.assert_allclose(levels(path), [[0.0, *seen]], atol=1e-6)

    def test_padding_range(self, tmp_path):
        values = np.array([[60000, 62000, 65535, 0, 50, 100]], np.uint16)
        path = write_dicom(tmp_path / "a", values, PixelPaddingValue=65535, PixelPaddingRangeLimit=60000)
        np.testing.assert_allclose(levels(path), [[0, 0, 0, 0, 0.5, 1.0]], atol=1e-6)

    def test_bits_above_those_stored_are_ignored(self, tmp_path):
        dirty = RAMP | np.uint16(0xF000)
        path = write_dicom(tmp_path / "a", dirty, BitsStored=12)
        np.testing.assert_allclose(levels(path), UNIT_RAMP, atol=1e-6)

    def test_signed_bits(self, tmp_path):
        values = np.array([[-2048, 0, 2047]], np.int16) & np.int16(0x0FFF)
        path = write_dicom(tmp_path / "a", values, BitsStored=12)
        np.testing.assert_allclose(levels(path), [[0, 2048 / 4095, 1]], atol=1e-6)

    def test_constant_image(self, tmp_path):
        np.testing.assert_array_equal(levels(write_dicom(tmp_path / "a", RAMP * 0 + 7)), np.zeros((3, 4)))

    def test_rgb(self, tmp_path):
        colours = np.array([[[255, 0, 0], [0, 255, 0], [80, 80, 80], [0, 0, 0]]], np.uint8)
        path = write_dicom(tmp_path / "a", colours, SamplesPerPixel=3)
        np.testing.assert_allclose(levels(path), [[76 / 255, 150 / 255, 80 / 255, 0]], atol=1e-6)

    def test_palette(self, tmp_path):
        tables = {"Red": [255, 0, 80], "Green": [0, 255, 80], "Blue": [0, 0, 80]}
        elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for colour, table in tables.items():
            elements[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
            elements[f"{colour}PaletteColorLookupTableData"] = (np.array(table, "<u2") * 257).tobytes()
        dataset = make_dicom(np.array([[0, 1, 2, 2]], np.uint8), **elements)
        for colour in tables:
            dataset[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
        np.testing.assert_allclose(levels(tmp_path / "a"), [[0.299, 0.587, 80 / 255, 80 / 255]], atol=1e-4)

    @pytest.mark.parametrize("slope", ["0", "abc", "nan"])
    def test_false_rescale_is_refused(self, tmp_path, slope):
        path = write_dicom(tmp_path / "a", RAMP, RescaleSlope="7.25", RescaleIntercept="0")
        path.write_bytes(path.read_bytes().replace(b"7.25", slope.ljust(4).encode()))
        with pytest.raises(ImageError, match="rescale cannot be used"):
            levels(path)


class TestFrames:
    def stack(self, path: Path, **elements: object) -> Path:
        frames = np.stack([RAMP + 1000 * n for n in range(4)]).astype(np.uint16)
        return write_dicom(path, frames, NumberOfFrames=4, **elements)

    def test_several_frames_need_a_choice(self, tmp_path):
        path = self.stack(tmp_path / "a", WindowCenter="1000.5", WindowWidth="2001")
        for read in (read_frame, read_image):
            with pytest.raises(ImageError, match="holds 4 frames and none was chosen"):
                read(path)
        assert levels(path, frame=1)[0, 0] == pytest.approx(0.5)
        assert levels(path, frame="middle")[0, 0] == pytest.approx(1.0)
        with pytest.raises(ImageError, match=r"has no frame 4; expected 0 to 3"):
            levels(path, frame=4)

    def test_one_frame_needs_none(self, tmp_path):
        path = write_dicom(tmp_path / "a", RAMP, NumberOfFrames=1)
        assert read_frame(path).shape == (3, 4)

    def test_enhanced_objects_keep_windows_per_frame(self, tmp_path):
        def group(centre: str) -> object:
            voi = item(WindowCenter=centre, WindowWidth="201")
            rescale = item(RescaleSlope="2", RescaleIntercept="0", RescaleType="US")
            return item(FrameVOILUTSequence=sequence(voi), PixelValueTransformationSequence=sequence(rescale))

        groups = sequence(*[group(str(n * 2000 + 200.5)) for n in range(4)])
        path = self.stack(tmp_path / "a", PerFrameFunctionalGroupsSequence=groups)
        for frame in (0, 3):
            np.testing.assert_allclose(levels(path, frame=frame)[0], [0.0, 0.5, 1.0, 1.0], atol=1e-6)


class TestDamage:
    def test_no_pixels(self, tmp_path):
        dataset = make_dicom(RAMP)
        del dataset.PixelData
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
        with pytest.raises(ImageError, match="has no pixel data"):
            read_image(tmp_path / "a")

    @pytest.mark.parametrize("name", ["test-SR.dcm", "waveform_ecg.dcm", "rtplan.dcm"])
    def test_objects_that_are_no_images(self, name):
        with pytest.raises(ImageError, match="DICOM without an image"):
            read_frame(shipped(name))

    def test_truncated_native_pixels(self):
        with pytest.raises(ImageError, match=r"MR_truncated\.dcm.*less than expected.*truncated"):
            read_image(shipped("MR_truncated.dcm"))

    @pytest.mark.parametrize(
        "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPGExtended.dcm"]
    )
    def test_truncated_compressed_pixels(self, tmp_path, name):
        data = shipped(name).read_bytes()
        path = tmp_path / "a.dcm"
        path.write_bytes(data[: len(data) - 1500])
        with pytest.raises(ImageError, match=r"a\.dcm"):
            read_image(path)

    @pytest.mark.parametrize("element", ["PhotometricInterpretation", "BitsAllocated", "SamplesPerPixel"])
    def test_missing_element_is_named(self, tmp_path, element):
        dataset = make_dicom(RAMP)
        delattr(dataset, element)
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
        with pytest.raises(ImageError, match=f"lacks the required element {element}"):
            read_image(tmp_path / "a")

    @pytest.mark.parametrize("element", ["Rows", "Columns"])
    def test_size_must_be_known(self, tmp_path, element):
        dataset = make_dicom(RAMP)
        delattr(dataset, element)
        dataset.save_as(tmp_path / "a", enforce_file_format=True)
        with pytest.raises(ImageError, match="without an image"):
            read_frame(tmp_path / "a")

    def test_huge_size_is_refused_before_decoding(self, tmp_path):
        path = write_dicom(tmp_path / "a", RAMP, Rows=65535, Columns=65535)
        for read in (read_frame, read_image):
            with pytest.raises(ImageError, match="too large"):
                read(path)

    def test_file_without_preamble(self, tmp_path):
        dataset = make_dicom(RAMP, PixelSpacing=["0.5", "0.25"])
        path = tmp_path / "a.dcm"
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
        np.testing.assert_allclose(levels(path), UNIT_RAMP, atol=1e-6)
        assert read_frame(path).spacing == (0.25, 0.5)

    def test_random_damage_gives_image_errors_only(self, tmp_path):
        random = np.random.default_rng(7)
        path = tmp_path / "a.dcm"
        names = ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
        for source in [shipped(name).read_bytes() for name in names]:
            for _ in range(40):
                data = bytearray(source)
                for place in random.integers(132, min(len(data), 2500), 8):
                    data[place] = random.integers(256)
                path.write_bytes(data)
                with contextlib.suppress(ImageError):
                    pixels, frame = read_image(path, frame="middle")
                    assert pixels.shape == frame.shape


def test_no_patient_data_in_log_or_messages(tmp_path, caplog):
    elements = {"PatientName": "Doe^Jane", "PatientID": "4711", "WindowCenter": "8.15", "WindowWidth": "9"}
    path = write_dicom(tmp_path / "a", RAMP, **elements, Rows=5)
    path.write_bytes(path.read_bytes().replace(b"8.15", b"Doe!"))
    caplog.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageError, match="less than expected") as caught:
        read_image(path)
    assert caplog.text == ""
    for secret in ("Doe", "4711"):
        assert secret not in str(caught.value)
