"""Small DICOM files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

CR = ComputedRadiographyImageStorage


def make_dicom(pixels: NDArray[Any], syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """Build a dataset from ``(H, W)``, ``(F, H, W)`` with NumberOfFrames, or ``(H, W, 3)`` with SamplesPerPixel=3."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CR, generate_uid(), "CR"
    samples = elements.get("SamplesPerPixel", 1)
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else "RGB"
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if samples == 3 else pixels.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if samples == 3:
        dataset.PlanarConfiguration = 0
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    order = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">"))
    dataset.PixelData = order.tobytes() + b"\0" * (order.nbytes % 2)
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return dataset


def write_dicom(path: Path, pixels: NDArray[Any], syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> Path:
    """Write such a dataset."""
    make_dicom(pixels, syntax, **elements).save_as(path, enforce_file_format=True)
    return path


def item(**elements: Any) -> Dataset:
    """Build a sequence item."""
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def sequence(*items: Dataset) -> Sequence:
    """Build a sequence."""
    return Sequence(items)


def shipped(name: str) -> Path:
    """Return one of the test files that come with pydicom; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(path)


RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
