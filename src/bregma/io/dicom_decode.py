"""Stored pixel values out of a DICOM file, for one frame."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from bregma.errors import ImageError
from bregma.io.dicom_header import PYDICOM_FAULTS, frame_count, integer, text, transfer_syntax
from bregma.io.dicom_tags import PIXELS
from bregma.io.jpeg_stream import check_jpeg

PLUGINS = ("pydicom", "pyjpegls", "pylibjpeg", "pillow")
"""pydicom's decoders in order of preference; those that fail most cleanly on damaged data come first. Only for JPEG
2000 is a second one tried, since each covers another part of it."""

GDCM_ONLY = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
"""What nothing else decodes. GDCM ends the process on some damaged streams, so it is used for no other syntax, and for
these after a check of the stream."""

_REQUIRED = ("BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")


def decode(path: Path, dataset: Dataset, index: int) -> NDArray[Any]:
    """Return the stored values of one frame, ``(H, W)``, or colours ``(H, W, 3)`` as RGB.

    Raises:
        ImageError: no or too few pixels, a missing element, or a transfer syntax that cannot be decoded.
    """
    _check_elements(path, dataset)
    plugins = _plugins(path, transfer_syntax(dataset))
    try:
        array = _decode(dataset, index, frame_count(dataset, path), plugins)
        if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)
    except PYDICOM_FAULTS as error:
        raise ImageError(
            f"the pixel data cannot be decoded ({_in_one_line(error)})",
            where=path,
            expected=f"complete {transfer_syntax(dataset).name} data",
            fix="copy or export the file again; it may be truncated",
        ) from error
    return np.asarray(array)


def _check_elements(path: Path, dataset: Dataset) -> None:
    if not any(name in dataset for name in PIXELS):
        raise ImageError(
            "has no pixel data, or ends too early",
            where=path,
            expected="PixelData (7FE0,0010)",
            fix="copy or export the file again",
        )
    for name in _REQUIRED:
        if not (text(dataset, name) if name.startswith("Photo") else integer(dataset, name)):
            raise ImageError(f"lacks the required element {name}", where=path, fix="export the file again")


def _plugins(path: Path, syntax: UID) -> tuple[str, ...]:
    """Return the decoders to try for a transfer syntax; a single empty name where none is needed."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError(
            "the transfer syntax is not supported",
            where=path,
            got=f"{syntax} ({syntax.name})",
            fix="convert the file to Explicit VR Little Endian, e.g. with dcmdjpeg, dcmdjpls or gdcmconv --raw",
        ) from error
    if not syntax.is_encapsulated:
        return ("",)
    wanted = (*PLUGINS, "gdcm") if syntax in GDCM_ONLY else PLUGINS
    found = tuple(name for name in wanted if name in decoder.available_plugins)
    if not found:
        raise ImageError(
            "the transfer syntax needs a decoder that is not installed",
            where=path,
            got=f"{syntax} ({syntax.name})",
            fix="pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle pyjpegls python-gdcm",
        )
    return found if syntax in JPEG2000TransferSyntaxes else found[:1]


def _decode(dataset: Dataset, index: int, count: int, plugins: tuple[str, ...]) -> NDArray[Any]:
    syntax = transfer_syntax(dataset)
    if syntax in GDCM_ONLY:
        encoded = get_frame(dataset.PixelData, index, number_of_frames=count)
        _check_stream(dataset, encoded)
        if syntax == JPEGExtended12Bit and integer(dataset, "BitsStored") != 8:
            return _decode_twelve_bit_jpeg(dataset, encoded)
    array = _first_success(dataset, index, plugins)
    return array.astype(array.dtype.newbyteorder("="))


def _first_success(dataset: Dataset, index: int, plugins: tuple[str, ...]) -> NDArray[Any]:
    for plugin in plugins[:-1]:
        with suppress(*PYDICOM_FAULTS):
            return pixel_array(dataset, index=index, decoding_plugin=plugin)
    return pixel_array(dataset, index=index, decoding_plugin=plugins[-1])


def _check_stream(dataset: Dataset, encoded: bytes) -> None:
    check_jpeg(
        encoded,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=int(dataset.SamplesPerPixel),
        bits=int(dataset.BitsAllocated),
    )


def _decode_twelve_bit_jpeg(dataset: Dataset, encoded: bytes) -> NDArray[Any]:
    """Decode lossy 12-bit JPEG, which GDCM can but pydicom does not ask it to."""
    try:
        import gdcm  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotImplementedError("12-bit JPEG needs python-gdcm: pip install python-gdcm") from error
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(text(dataset, "PhotometricInterpretation"))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    signed = integer(dataset, "PixelRepresentation") or 0
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, signed))
    buffer = image.GetBuffer()
    if buffer is None:
        raise ValueError("the 12-bit JPEG stream is damaged")
    values = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), dtype=np.int16 if signed else np.uint16)
    return values.reshape(rows, columns)


def _in_one_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return words[:300] or type(error).__name__
