"""Where the millimetres of a DICOM image come from, and when there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage, UltrasoundImageStorage

from bregma.geometry import Frame
from bregma.io import read_frame
from dicom_files import RAMP, item, sequence, shipped, write_dicom


def frame_with(folder: Path, **elements: object) -> Frame:
    return read_frame(write_dicom(folder / "a", RAMP, **elements))


def frame_with_text(folder: Path, keyword: str, text: str, **elements: object) -> Frame:
    """Write a spacing that pydicom would refuse to write."""
    place_holder = "1.23456789" + "0" * (len(text) % 2)
    path = write_dicom(folder / "a", RAMP, **{keyword: place_holder}, **elements)
    data = path.read_bytes()
    assert data.count(place_holder.encode()) == 1
    path.write_bytes(data.replace(place_holder.encode(), text.ljust(len(place_holder)).encode()))
    return read_frame(path)


class TestPixelSpacing:
    def test_rows_come_first_in_dicom_and_last_here(self, tmp_path):
        elements = {"SOPClassUID": CTImageStorage, "Modality": "CT", "PixelSpacing": ["0.5", "0.25"]}
        frame = frame_with(tmp_path, **elements)
        assert frame.shape == (3, 4)
        assert frame.spacing == (0.25, 0.5)
        assert frame.spacing_source == "dicom_pixel_spacing"
        assert frame.spacing_note == ""

    @pytest.mark.parametrize("kind", ["GEOMETRY", "FIDUCIAL"])
    def test_calibrated_radiograph(self, tmp_path, kind):
        elements = {"PixelSpacing": ["0.14", "0.15"], "PixelSpacingCalibrationType": kind}
        frame = frame_with(tmp_path, ImagerPixelSpacing=["0.2", "0.2"], **elements)
        assert (frame.spacing, frame.spacing_source) == ((0.15, 0.14), "dicom_pixel_spacing")
        assert kind in frame.spacing_note

    def test_radiograph_whose_spacings_differ_was_calibrated(self, tmp_path):
        frame = frame_with(tmp_path, PixelSpacing=["0.1", "0.1"], ImagerPixelSpacing=["0.12", "0.12"])
        assert (frame.spacing, frame.spacing_source) == ((0.1, 0.1), "dicom_pixel_spacing")
        assert "calibrated" in frame.spacing_note

    def test_radiograph_with_pixel_spacing_alone(self, tmp_path):
        frame = frame_with(tmp_path, PixelSpacing=["0.2", "0.2"])
        assert (frame.spacing, frame.spacing_source) == ((0.2, 0.2), "dicom_pixel_spacing")
        assert "magnification may not be accounted for" in frame.spacing_note

    @pytest.mark.parametrize("scope", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
    def test_enhanced_objects(self, tmp_path, scope):
        def group(y: str) -> object:
            return item(PixelMeasuresSequence=sequence(item(PixelSpacing=[y, "0.3"])))

        count = 1 if scope.startswith("Shared") else 3
        groups = sequence(*[group(f"0.{5 + n}") for n in range(count)])
        elements = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1", "NumberOfFrames": 3, scope: groups}
        path = write_dicom(tmp_path / "a", np.stack([RAMP] * 3), **elements)
        assert read_frame(path, frame=2).spacing == (0.3, 0.5 if count == 1 else 0.7)


class TestDetector:
    def test_equal_spacings_are_those_of_the_detector(self, tmp_path):
        frame = frame_with(tmp_path, PixelSpacing=["0.15", "0.2"], ImagerPixelSpacing=["0.15", "0.2"])
        assert (frame.spacing, frame.spacing_source) == ((0.2, 0.15), "dicom_imager_pixel_spacing")
        assert "at the detector" in frame.spacing_note

    def test_imager_spacing_alone(self, tmp_path):
        frame = frame_with(tmp_path, ImagerPixelSpacing=["0.15", "0.2"], DistanceSourceToDetector="1800")
        assert (frame.spacing, frame.spacing_source) == ((0.2, 0.15), "dicom_imager_pixel_spacing")

    def test_stated_magnification(self, tmp_path):
        elements = {"EstimatedRadiographicMagnificationFactor": "1.25", "ImagerPixelSpacing": ["0.1", "0.2"]}
        frame = frame_with(tmp_path, **elements)
        assert frame.spacing == pytest.approx((0.16, 0.08), rel=1e-12)
        assert frame.spacing_source == "dicom_imager_magnification_corrected"
        assert "1.25" in frame.spacing_note

    def test_magnification_from_distances(self, tmp_path):
        elements = {"DistanceSourceToDetector": "1800", "DistanceSourceToPatient": "1500"}
        frame = frame_with(tmp_path, ImagerPixelSpacing=["0.12", "0.12"], PixelSpacing=["0.12", "0.12"], **elements)
        assert frame.spacing == pytest.approx((0.1, 0.1), rel=1e-12)
        assert frame.spacing_source == "dicom_imager_magnification_corrected"

    @pytest.mark.parametrize(
        "elements",
        [
            {"EstimatedRadiographicMagnificationFactor": "0.8"},
            {"EstimatedRadiographicMagnificationFactor": "1000"},
            {"DistanceSourceToDetector": "1000", "DistanceSourceToPatient": "1500"},
            {"DistanceSourceToDetector": "1000", "DistanceSourceToPatient": "0"},
        ],
    )
    def test_impossible_magnification_is_not_used(self, tmp_path, elements):
        frame = frame_with(tmp_path, ImagerPixelSpacing=["0.12", "0.12"], **elements)
        assert (frame.spacing, frame.spacing_source) == ((0.12, 0.12), "dicom_imager_pixel_spacing")

    def test_junk_beside_imager_spacing_is_told(self, tmp_path):
        frame = frame_with(tmp_path, ImagerPixelSpacing=["0.12", "0.12"], PixelSpacing=["0", "0"])
        assert frame.spacing == (0.12, 0.12)
        assert "PixelSpacing is 0" in frame.spacing_note

    @pytest.mark.data
    def test_real_radiographs(self, data_root):
        dog = read_frame(data_root / "dicom" / "dx_image.dcm")
        assert dog.spacing == pytest.approx((1.2012, 1.2), rel=1e-9)
        assert dog.spacing_source == "dicom_imager_pixel_spacing"
        chest = read_frame(data_root / "dicom" / "RG1_J2KI.dcm")
        assert chest.spacing is None
        assert "not positive" in chest.spacing_note
        assert read_frame(data_root / "dicom" / "RG3_JPLY.dcm").spacing is None


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0\\0", "not positive"),
            ("0.2\\0", "not positive"),
            ("-1\\0.2", "not positive"),
            ("nan\\0.2", "not two finite numbers"),
            ("0.2\\inf", "not two finite numbers"),
            ("a\\b", "not two finite numbers"),
            ("0,2\\0,2", "not two finite numbers"),
            ("0.2", "1 value"),
            ("1\\2\\3", "3 value"),
            ("", "states no pixel spacing"),
        ],
    )
    @pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
    def test_junk_never_becomes_a_spacing(self, tmp_path, keyword, text, reason):
        frame = frame_with_text(tmp_path, keyword, text)
        assert frame.spacing is None
        assert frame.spacing_source == "none"
        assert reason in frame.spacing_note

    def test_absent(self, tmp_path):
        frame = frame_with(tmp_path)
        assert (frame.spacing, frame.spacing_note) == (None, "the header states no pixel spacing")

    def test_aspect_ratio_is_told(self, tmp_path):
        frame = frame_with(tmp_path, PixelAspectRatio=["4", "3"])
        assert frame.spacing is None
        assert "not square (width to height 3:4)" in frame.spacing_note
        assert "square" not in frame_with(tmp_path, PixelAspectRatio=["1", "1"]).spacing_note

    @pytest.mark.parametrize("filler", ["1", "0.352778", "0.264583"])
    @pytest.mark.parametrize("captured", [True, False])
    def test_fillers_of_converters(self, tmp_path, filler, captured):
        elements = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"} if captured else {}
        frame = frame_with(tmp_path, PixelSpacing=[filler, filler], **elements)
        assert frame.spacing is None
        assert "converters" in frame.spacing_note

    def test_one_millimetre_is_true_in_mri(self, tmp_path):
        elements = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}
        assert frame_with(tmp_path, PixelSpacing=["1", "1"], **elements).spacing == (1.0, 1.0)

    def test_secondary_capture_with_another_spacing(self, tmp_path):
        elements = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}
        frame = frame_with(tmp_path, PixelSpacing=["0.2", "0.2"], **elements)
        assert frame.spacing == (0.2, 0.2)
        assert "secondary capture" in frame.spacing_note

    def test_scanned_film_has_no_known_scale(self, tmp_path):
        elements = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}
        frame = frame_with(tmp_path, NominalScannedPixelSpacing=["0.1", "0.1"], **elements)
        assert frame.spacing is None
        assert "film was scanned at 0.1 x 0.1 mm" in frame.spacing_note

    def test_user_overrules_junk(self, tmp_path):
        path = write_dicom(tmp_path / "a", RAMP, PixelSpacing=["0", "0"])
        assert read_frame(path, spacing=(0.1, 0.1)).spacing_source == "user"


class TestUltrasound:
    def region(self, dx: float = 0.02, dy: float = 0.01, **elements: object) -> object:
        values = {
            "RegionSpatialFormat": 1,
            "RegionDataType": 1,
            "RegionFlags": 0,
            "RegionLocationMinX0": 10,
            "RegionLocationMinY0": 5,
            "RegionLocationMaxX1": 90,
            "RegionLocationMaxY1": 60,
            "PhysicalUnitsXDirection": 3,
            "PhysicalUnitsYDirection": 3,
            "PhysicalDeltaX": dx,
            "PhysicalDeltaY": dy,
        }
        return item(**{**values, **elements})

    def frame(self, folder: Path, *regions: object, **elements: object) -> Frame:
        kind = {"SOPClassUID": UltrasoundImageStorage, "Modality": "US"}
        pixels = np.zeros((64, 96), np.uint8)
        path = write_dicom(folder / "a", pixels, SequenceOfUltrasoundRegions=sequence(*regions), **kind, **elements)
        return read_frame(path)

    def test_centimetres_become_millimetres(self, tmp_path):
        frame = self.frame(tmp_path, self.region(dx=0.02, dy=-0.01))
        assert frame.spacing == pytest.approx((0.2, 0.1), rel=1e-12)
        assert frame.spacing_source == "dicom_ultrasound_region"
        assert "x 10 to 90, y 5 to 60" in frame.spacing_note

    def test_two_regions_of_one_scale(self, tmp_path):
        assert self.frame(tmp_path, self.region(), self.region(RegionDataType=2)).spacing == pytest.approx((0.2, 0.1))

    def test_doppler_beside_the_image_is_left_out(self, tmp_path):
        doppler = self.region(dx=0.5, RegionSpatialFormat=3, PhysicalUnitsXDirection=4, PhysicalUnitsYDirection=7)
        assert self.frame(tmp_path, doppler, self.region()).spacing == pytest.approx((0.2, 0.1))

    @pytest.mark.parametrize(
        ("regions", "reason"),
        [
            ([{}, {"dx": 0.03}], "2 ultrasound regions of different scale"),
            ([{"PhysicalUnitsXDirection": 4}], "no 2-D ultrasound region"),
            ([{"RegionSpatialFormat": 2}], "no 2-D ultrasound region"),
            ([{"dx": 0.0}], "no 2-D ultrasound region"),
            ([{"dx": float("nan")}], "no 2-D ultrasound region"),
            ([{"RegionLocationMaxX1": 500}], "outside the image"),
            ([], "no 2-D ultrasound region"),
        ],
    )
    def test_no_spacing_where_regions_do_not_give_one(self, tmp_path, regions, reason):
        frame = self.frame(tmp_path, *[self.region(**changes) for changes in regions], PixelSpacing=["0.3", "0.3"])
        assert frame.spacing is None
        assert reason in frame.spacing_note

    @pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_ybr_color.dcm"])
    def test_images_that_were_resized_without_their_regions(self, name):
        frame = read_frame(shipped(name), frame="middle")
        assert frame.spacing is None
        assert "resized" in frame.spacing_note
