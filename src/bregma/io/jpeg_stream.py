"""A check of a JPEG stream's structure before a decoder sees it (ITU-T T.81, annex B).

GDCM is the one free decoder of lossless and of 12-bit JPEG, and it ends the whole process on some damaged streams. What
passes here is well-formed: known segments, one frame header that agrees with DICOM, valid Huffman tables, scans that
name existing components and tables, and an end marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

START, END, FRAMES, TABLES, SCAN = 0xD8, 0xD9, {0xC0, 0xC1, 0xC3}, 0xC4, 0xDA
LOSSLESS, ADOBE = 0xC3, 0xEE
OTHER = {0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


@dataclass
class _State:
    frame: int | None = None
    components: set[int] = field(default_factory=set)
    tables: set[tuple[int, int]] = field(default_factory=set)
    scans: int = 0


def check_jpeg(stream: bytes, *, rows: int, columns: int, samples: int, bits: int) -> None:
    """Refuse a sequential or lossless JPEG stream that is not well-formed or does not fit its DICOM header.

    Args:
        stream: one encoded frame.
        rows: height that the header gives.
        columns: width.
        samples: components of a pixel.
        bits: bits allocated for a sample.

    Raises:
        ValueError: says what is wrong.
    """
    state = _State()
    for marker, content in _segments(stream):
        if marker in FRAMES:
            _check_frame(state, marker, content, (rows, columns, samples, bits))
        elif marker == TABLES:
            _check_tables(state, content)
        elif marker == SCAN:
            _check_scan(state, content)
        elif marker == ADOBE:
            _check_adobe(content)
        elif marker not in OTHER:
            raise ValueError(f"the JPEG stream holds an unexpected marker {marker:#x}")
    if state.scans == 0:
        raise ValueError("the JPEG stream has no scan")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of every segment between the start and the end marker."""
    if stream[:2] != bytes([0xFF, START]):
        raise ValueError("the JPEG stream has no start marker")
    place = 2
    while True:
        found = _NEXT_MARKER.match(stream, place)
        if found is None:
            raise ValueError("the JPEG stream is damaged or ends too early")
        marker, place = stream[found.end() - 1], found.end()
        if marker == END:
            return
        length = int.from_bytes(stream[place : place + 2], "big")
        if length < 2 or place + length > len(stream):
            raise ValueError("the JPEG stream is damaged or ends too early")
        yield marker, stream[place + 2 : place + length]
        place += length
        if marker == SCAN:
            following = _NEXT_MARKER.search(stream, place)
            place = following.start() if following else len(stream)


def _check_frame(state: _State, marker: int, content: bytes, wanted: tuple[int, int, int, int]) -> None:
    if state.frame is not None or len(content) < 6 or len(content) != 6 + 3 * content[5]:
        raise ValueError("the JPEG frame header is damaged")
    rows, columns, samples, bits = wanted
    precision = content[0]
    size = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big"), content[5]
    if size != (rows, columns, samples):
        raise ValueError(f"the JPEG stream is {size[1]} x {size[0]} with {size[2]} samples, unlike the DICOM header")
    limits = (2, 16) if marker == LOSSLESS else (8, 12)
    if not limits[0] <= precision <= limits[1] or precision > bits:
        raise ValueError(f"the JPEG stream has {precision} bits, unlike the DICOM header")
    parts = [content[start : start + 3] for start in range(6, len(content), 3)]
    if any(not (1 <= part[1] >> 4 <= 4 and 1 <= part[1] & 15 <= 4 and part[2] <= 3) for part in parts):
        raise ValueError("the JPEG frame header is damaged")
    state.frame, state.components = marker, {part[0] for part in parts}


def _check_tables(state: _State, content: bytes) -> None:
    """Check Huffman tables: codes of each length must fit into what shorter codes leave over (T.81 annex C)."""
    place = 0
    while place < len(content):
        kind, slot = content[place] >> 4, content[place] & 15
        counts = content[place + 1 : place + 17]
        place += 17 + sum(counts)
        free = 1
        for count in counts:
            free = 2 * free - count
            if free < 0:
                raise ValueError("a JPEG Huffman table is damaged")
        if len(counts) < 16 or place > len(content) or kind > 1 or slot > 3 or not 0 < sum(counts) <= 256:
            raise ValueError("a JPEG Huffman table is damaged")
        state.tables.add((kind, slot))


def _check_scan(state: _State, content: bytes) -> None:
    count = content[0] if content else 0
    if state.frame is None or not 1 <= count <= 4 or len(content) != 4 + 2 * count:
        raise ValueError("a JPEG scan header is damaged")
    for start in range(1, 1 + 2 * count, 2):
        component, slots = content[start], content[start + 1]
        needed = {(0, slots >> 4)} if state.frame == LOSSLESS else {(0, slots >> 4), (1, slots & 15)}
        if component not in state.components or not needed <= state.tables:
            raise ValueError("a JPEG scan names a component or table that does not exist")
    if state.frame == LOSSLESS and not 1 <= content[-3] <= 7:
        raise ValueError("a JPEG scan names an unknown predictor")
    state.scans += 1


def _check_adobe(content: bytes) -> None:
    if content[:5] == b"Adobe" and (len(content) < 12 or content[11] > 2):
        raise ValueError("the JPEG stream names an unknown colour transform")
