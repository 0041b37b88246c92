"""Where a DICOM image's millimetres come from, and when there are none.

The rules, in their order (PS3.3 10.7.1.3, C.8.5.5, C.7.6.16.2.1):

1. Ultrasound regions: the one scale, in cm, of all 2-D regions. Different scales, none in cm, or regions that lie
   outside the image (it was resized without them): no spacing.
2. PixelSpacing that was calibrated (PixelSpacingCalibrationType) or differs from ImagerPixelSpacing: as it stands.
3. ImagerPixelSpacing, or a PixelSpacing equal to it: sizes at the detector. Divided by the magnification where that is
   known (EstimatedRadiographicMagnificationFactor, or distances source to detector and source to patient).
4. PixelSpacing alone: as it stands; for projection radiographs the note says that magnification is not accounted for.

Refused are spacings that are not two positive finite numbers; values that converters write where they know none
(1 mm, or 25.4 mm over 72 or 96 dpi) in secondary captures and radiographs; and NominalScannedPixelSpacing, which is
measured on a film that may have been printed at any scale. A missing spacing never becomes a default.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from bregma.io.dicom_header import binary_numbers, functional_group, integer, items, numbers, text, texts
from bregma.io.options import Spacing
from bregma.io.shared import Calibration, none_because

PROJECTION_MODALITIES = {"CR", "DR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"}
SECONDARY_CAPTURE_UID = "1.2.840.10008.5.1.4.1.1.7"
CALIBRATED = {"GEOMETRY", "FIDUCIAL"}
FILLERS_MM = (1.0, 25.4 / 72, 25.4 / 96)
MAX_MAGNIFICATION = 10.0
"""Beyond any clinical set-up; a larger factor is a mistake in the header."""
_TWO_DIMENSIONAL, _CENTIMETRES = 1, 3
_SAME = 1e-4
"""Relative difference up to which two stated spacings are the same number, written with different precision."""


def header_spacing(dataset: Dataset, index: int) -> Calibration:
    """Return the spacing of frame ``index`` with its provenance, or the reason why there is none."""
    if "SequenceOfUltrasoundRegions" in dataset:
        return _ultrasound(dataset)
    pixel, pixel_fault = _pair(functional_group(dataset, index, "PixelMeasuresSequence"), "PixelSpacing")
    imager, imager_fault = _pair(dataset, "ImagerPixelSpacing")
    calibration = text(dataset, "PixelSpacingCalibrationType")
    if pixel and calibration in CALIBRATED:
        return Calibration(pixel, "dicom_pixel_spacing", f"calibrated by {calibration}")
    if pixel and imager and not _same(pixel, imager):
        return Calibration(pixel, "dicom_pixel_spacing", "differs from ImagerPixelSpacing, so it was calibrated")
    if imager:
        return _detector(dataset, imager, pixel_fault)
    if pixel:
        return _pixel_spacing_alone(dataset, pixel)
    return none_because("; ".join(filter(None, [pixel_fault, imager_fault, *_hints(dataset)])))


def _pair(dataset: Dataset, keyword: str) -> tuple[Spacing | None, str]:
    """Return a spacing as ``(x, y)`` and, where it cannot be used, why; DICOM states rows (y) first."""
    found = texts(dataset, keyword)
    if not found:
        return None, ""
    values = numbers(dataset, keyword)
    if len(found) != 2:
        return None, f"{keyword} has {len(found)} value(s) in place of two"
    if len(values) != 2:
        return None, f"{keyword} is not two finite numbers"
    if min(values) <= 0:
        return None, f"{keyword} is {values[0]:g}\\{values[1]:g}, which is not positive"
    return (values[1], values[0]), ""


def _same(first: Spacing, second: Spacing) -> bool:
    return all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(first, second))


def _pixel_spacing_alone(dataset: Dataset, pixel: Spacing) -> Calibration:
    modality = text(dataset, "Modality")
    captured = text(dataset, "SOPClassUID").startswith(SECONDARY_CAPTURE_UID)
    projection = modality in PROJECTION_MODALITIES
    if (captured or projection) and any(_same(pixel, (filler, filler)) for filler in FILLERS_MM):
        return none_because(
            f"PixelSpacing is exactly {pixel[0]:.4g} mm, which converters write where they know none; "
            "if it is true, give it as the spacing"
        )
    note = ""
    if captured:
        note = "secondary capture: the spacing is what the capturing software stated"
    elif projection:
        note = "projection radiograph, not stated to be calibrated: magnification may not be accounted for"
    elif modality == "US":
        note = "ultrasound without calibrated regions: PixelSpacing as stated"
    return Calibration(pixel, "dicom_pixel_spacing", note)


def _detector(dataset: Dataset, imager: Spacing, pixel_fault: str) -> Calibration:
    factor, how = _magnification(dataset)
    aside = f"; {pixel_fault}" if pixel_fault else ""
    if factor is None:
        note = (
            f"measured at the detector: structures in the patient are smaller by an unknown magnification{how}{aside}"
        )
        return Calibration(imager, "dicom_imager_pixel_spacing", note)
    note = f"detector spacing divided by the magnification {factor:.4g} ({how}); true at that distance only{aside}"
    spacing = (imager[0] / factor, imager[1] / factor)
    return Calibration(spacing, "dicom_imager_magnification_corrected", note)


def _magnification(dataset: Dataset) -> tuple[float | None, str]:
    """Return the factor and its origin, or None and a remark on a factor that cannot be true."""
    stated = numbers(dataset, "EstimatedRadiographicMagnificationFactor")
    to_detector, to_patient = numbers(dataset, "DistanceSourceToDetector"), numbers(dataset, "DistanceSourceToPatient")
    if len(stated) == 1:
        factor, how = stated[0], "EstimatedRadiographicMagnificationFactor"
    elif len(to_detector) == len(to_patient) == 1 and to_patient[0] > 0:
        factor, how = to_detector[0] / to_patient[0], "DistanceSourceToDetector over DistanceSourceToPatient"
    else:
        return None, ""
    if 1.0 <= factor <= MAX_MAGNIFICATION:
        return factor, how
    return None, f" (the stated magnification {factor:.4g} cannot be true)"


def _ultrasound(dataset: Dataset) -> Calibration:
    regions = [item for item in items(dataset, "SequenceOfUltrasoundRegions") if _is_calibrated_region(item)]
    scales = [_region_scale(item) for item in regions]
    usable = [scale for scale in scales if scale is not None]
    if not usable or len(usable) != len(scales):
        return none_because("no 2-D ultrasound region is calibrated in cm")
    if not all(_same(scale, usable[0]) for scale in usable):
        return none_because(f"the image shows {len(usable)} ultrasound regions of different scale")
    boxes = [_bounds(item) for item in regions]
    width, height = integer(dataset, "Columns") or 0, integer(dataset, "Rows") or 0
    if not all(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for x0, y0, x1, y1 in boxes):
        return none_because("an ultrasound region lies outside the image, which was resized without its calibration")
    places = "; ".join(f"x {x0} to {x1}, y {y0} to {y1}" for x0, y0, x1, y1 in boxes)
    return Calibration(usable[0], "dicom_ultrasound_region", f"holds within the 2-D region only: {places}")


def _is_calibrated_region(item: Dataset) -> bool:
    units = {integer(item, "PhysicalUnitsXDirection"), integer(item, "PhysicalUnitsYDirection")}
    return integer(item, "RegionSpatialFormat") == _TWO_DIMENSIONAL and units == {_CENTIMETRES}


def _region_scale(item: Dataset) -> Spacing | None:
    deltas = [binary_numbers(item, name) for name in ("PhysicalDeltaX", "PhysicalDeltaY")]
    if any(len(delta) != 1 or delta[0] == 0 for delta in deltas):
        return None
    return abs(deltas[0][0]) * 10.0, abs(deltas[1][0]) * 10.0


def _bounds(item: Dataset) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a region; -1 where they are missing."""
    names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    x0, y0, x1, y1 = (-1 if value is None else value for value in (integer(item, name) for name in names))
    return x0, y0, x1, y1


def _hints(dataset: Dataset) -> list[str]:
    """Say what the header has in place of a usable spacing."""
    hints = []
    film, _ = _pair(dataset, "NominalScannedPixelSpacing")
    if film:
        hints.append(f"the film was scanned at {film[0]:g} x {film[1]:g} mm, but its scale is unknown")
    aspect, _ = _pair(dataset, "PixelAspectRatio")
    if aspect and not _same(aspect, (aspect[1], aspect[0])):
        hints.append(f"pixels are not square (width to height {aspect[0]:g}:{aspect[1]:g}), so angles are not true")
    if not any(texts(dataset, keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing")):
        hints.append("the header states no pixel spacing")
    return hints
