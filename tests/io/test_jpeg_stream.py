"""Damaged JPEG streams are refused before a decoder sees them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame

from bregma.io.jpeg_stream import check_jpeg
from dicom_files import shipped

SIZE = {"rows": 16, "columns": 24, "samples": 1, "bits": 8}


@pytest.fixture
def stream() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(384, dtype=np.uint8).reshape(16, 24)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_sound_streams_pass(stream):
    check_jpeg(stream, **SIZE)
    check_jpeg(stream + b"\0", **SIZE)


@pytest.mark.parametrize(("name", "samples"), [("SC_rgb_jpeg_gdcm.dcm", 3), ("JPGExtended.dcm", 1)])
def test_sound_lossless_and_12_bit_streams_pass(name, samples):
    dataset = dcmread(shipped(name))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    check_jpeg(frame, rows=dataset.Rows, columns=dataset.Columns, samples=samples, bits=dataset.BitsAllocated)


@pytest.mark.parametrize("changes", [{"rows": 17}, {"columns": 8}, {"samples": 3}, {"bits": 4}])
def test_stream_must_fit_its_header(stream, changes):
    with pytest.raises(ValueError, match="unlike the DICOM header"):
        check_jpeg(stream, **{**SIZE, **changes})


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.995])
def test_truncation(stream, share):
    with pytest.raises(ValueError, match="JPEG"):
        check_jpeg(stream[: int(len(stream) * share)], **SIZE)


def test_impossible_huffman_table(stream):
    place = stream.index(b"\xff\xc4") + 5
    damaged = stream[:place] + b"\x03" + stream[place + 1 :]
    with pytest.raises(ValueError, match="Huffman"):
        check_jpeg(damaged, **SIZE)


def test_unknown_marker(stream):
    place = stream.index(b"\xff\xdb") + 1
    with pytest.raises(ValueError, match="unexpected marker 0x73"):
        check_jpeg(stream[:place] + b"\x73" + stream[place + 1 :], **SIZE)


def test_scan_of_a_missing_component(stream):
    place = stream.index(b"\xff\xda") + 5
    with pytest.raises(ValueError, match="does not exist"):
        check_jpeg(stream[:place] + b"\x09" + stream[place + 1 :], **SIZE)


def test_unknown_colour_transform(stream):
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x0b"
    with pytest.raises(ValueError, match="colour transform"):
        check_jpeg(stream[:2] + adobe + stream[2:], **SIZE)
