"""Safe access to DICOM headers, in which any element can be missing, empty or junk.

No value of a header is ever logged or put into a message unless it describes the pixel grid: the others can be those of
a patient. For the same reason pydicom's own log and warnings, which quote values, are silenced while it works.
"""

from __future__ import annotations

import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bregma.errors import ImageError
from bregma.io.dicom_tags import HEADER_TAGS, PIXEL_TAGS

PYDICOM_FAULTS = (
    AttributeError,
    AssertionError,
    BytesLengthException,
    EOFError,
    IndexError,
    InvalidDicomError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise on broken files."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and the log of pydicom and all its parts to itself."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def read_dataset(path: Path, *, pixels: bool) -> Dataset:
    """Read the elements that describe the image and, with ``pixels``, the pixel data; nothing about the patient.

    Raises:
        ImageError: not DICOM, or broken.
    """
    tags = PIXEL_TAGS if pixels else HEADER_TAGS
    try:
        dataset = dcmread(path, stop_before_pixels=not pixels, specific_tags=list(tags), force=True)
    except PYDICOM_FAULTS as error:
        raise ImageError(
            f"is not a DICOM file that can be read ({type(error).__name__})",
            where=path,
            fix="copy or export the file again",
        ) from error
    if integer(dataset, "Rows") is None or integer(dataset, "Columns") is None:
        raise ImageError(
            "is DICOM without an image, or is damaged",
            where=path,
            expected="Rows (0028,0010) and Columns (0028,0011)",
            fix="choose an image object (no report, waveform, plan or DICOMDIR)",
        )
    _complete_transfer_syntax(dataset)
    return dataset


def _complete_transfer_syntax(dataset: Dataset) -> None:
    """Name the encoding that pydicom found by itself in files without a file meta header."""
    if "TransferSyntaxUID" in dataset.file_meta:
        return
    is_implicit, is_little = dataset.original_encoding
    found = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = found


def transfer_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax."""
    return UID(str(dataset.file_meta.TransferSyntaxUID))


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of a text element as they stand in the file, without blanks; empty where there are none."""
    try:
        item: Any = dataset.get_item(keyword)
        value = None if item is None else item.value
    except PYDICOM_FAULTS:
        return []
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip(" \0")
        return [part.strip(" \0") for part in value.split("\\")] if value else []
    if value is None or value == "":
        return []
    return [str(part) for part in value] if isinstance(value, MultiValue | list | tuple) else [str(value)]


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value of a text element in upper case, or an empty text."""
    found = texts(dataset, keyword)
    return found[0].upper() if found else ""


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return the values of a decimal string; empty where they are missing, junk or not finite."""
    try:
        values = [float(part) for part in texts(dataset, keyword)]
    except ValueError:
        return []
    return values if all(math.isfinite(value) for value in values) else []


def binary_numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return the values of numbers that are stored in binary; empty where they are missing or broken.

    Words that the file keeps as bytes (OW, or an undecided US or SS) are taken as unsigned 16-bit numbers.
    """
    try:
        value: Any = dataset[keyword].value
        if isinstance(value, bytes):
            value = np.frombuffer(value, dtype="<u2" if _is_little_endian(dataset) else ">u2").tolist()
        values = [float(part) for part in value] if isinstance(value, MultiValue | list) else [float(value)]
    except PYDICOM_FAULTS:
        return []
    return values if all(math.isfinite(part) for part in values) else []


def _is_little_endian(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is not False


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return a single whole number that is stored in binary, or None."""
    values = binary_numbers(dataset, keyword)
    return int(values[0]) if len(values) == 1 else None


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence; empty where it is missing or broken."""
    try:
        value: Any = dataset[keyword].value
        return [item for item in value if isinstance(item, Dataset)]
    except PYDICOM_FAULTS:
        return []


def functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset:
    """Return the item in which an attribute of a frame stands.

    Enhanced objects keep it in a per-frame or shared functional group (PS3.3 C.7.6.16); others in the dataset itself.
    """
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    for group in (*per_frame, *items(dataset, "SharedFunctionalGroupsSequence")[:1]):
        found = items(group, keyword)
        if found:
            return found[0]
    return dataset


def frame_count(dataset: Dataset, path: Path) -> int:
    """Return the number of frames.

    Raises:
        ImageError: not a positive number.
    """
    stated = texts(dataset, "NumberOfFrames")
    if not stated:
        return 1
    if not stated[0].isdecimal() or int(stated[0]) < 1:
        raise ImageError("NumberOfFrames (0028,0008) cannot be used", where=path, expected="1 or more")
    return int(stated[0])
