"""A DICOM series as one volume: its slices are put in order by where they lie in the body, never by name or number.

Positions and directions are those of PS3.3 C.7.6.2, in LPS+ millimetres: ``ImagePositionPatient`` is the centre of the
first pixel, the first half of ``ImageOrientationPatient`` the direction of its row, the second that of its column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bregma.errors import ImageError
from bregma.geometry import Array
from bregma.io.dicom_decode import decode
from bregma.io.dicom_grey import signal_values
from bregma.io.dicom_header import frame_count, functional_group, integer, numbers, quiet, read_dataset, texts
from bregma.io.source import find_images, format_of
from bregma.io.volume import Volume, canonical, oblique_note

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_DIRECTION = 0.9999
"""Cosine from which two slices are parallel: within 0.8 degrees."""
_EVEN = 0.05
"""Share of the usual distance of neighbours by which one may differ."""


@dataclass(frozen=True)
class _Slice:
    """One plane of a volume, in LPS+ mm.

    Attributes:
        path: its file.
        frame: which one of the file.
        shape: rows and columns.
        row: ``(3,)`` direction along a row, of length 1.
        column: ``(3,)`` direction along a column.
        corner: ``(3,)`` centre of the first pixel.
        pixel: distance of columns, and of rows.
    """

    path: Path
    frame: int
    shape: tuple[int, int]
    row: Array
    column: Array
    corner: Array
    pixel: tuple[float, float]

    @property
    def normal(self) -> Array:
        """``(3,)`` at right angles to the plane."""
        return np.cross(self.row, self.column)


def volume_of(path: Path) -> Volume:
    """Read the series at a folder, or that which a file belongs to, as measured values in canonical orientation.

    Raises:
        ImageError: not one series, slices missing or not parallel, or no position or spacing.
    """
    with quiet():
        slices = _in_order(path, _slices(path))
        first = slices[0]
        stored = np.empty((first.shape[1], first.shape[0], len(slices)), dtype=np.float32)
        for k, values in enumerate(_values(slices)):
            stored[:, :, k] = values.T
    step = (slices[-1].corner - first.corner) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([first.row * first.pixel[0], first.column * first.pixel[1], step], axis=1)
    affine[:3, 3] = first.corner
    affine = _LPS_TO_RAS @ affine
    return canonical(stored, affine, "dicom_pixel_spacing", oblique_note(affine))


def _slices(path: Path) -> list[_Slice]:
    """List all planes of the one series at a place."""
    series: dict[str, list[_Slice]] = {}
    wanted = None
    for file in [path, *_siblings(path)] if path.is_file() else find_images(path):
        try:
            if format_of(file) != "dicom":
                continue
            header = read_dataset(file, pixels=False)
        except ImageError:
            if wanted is None:
                raise
            # A neighbour that cannot be read may be of any series; if it is of this one, its slice will be missed.
            continue
        number = "".join(texts(header, "SeriesInstanceUID"))
        wanted = number if file == path else wanted
        if wanted in (None, number):
            series.setdefault(number, []).extend(_planes(file, header))
    if not series:
        raise ImageError("holds no DICOM images", where=path, fix="check the path")
    if len(series) > 1:
        sizes = ", ".join(str(len(planes)) for planes in series.values())
        raise ImageError(
            f"holds {len(series)} series, of {sizes} images",
            where=path,
            expected="the files of one series",
            fix="name one of the series' files, or put each series into a folder of its own",
        )
    return next(iter(series.values()))


def series_among(files: Iterable[Path]) -> list[tuple[Path, int]]:
    """Return the first file of every DICOM series in one folder, and of how many files it is, in their order.

    Other files, those of several frames and those whose header cannot be read each stand for themselves.
    """
    first: dict[tuple[Path, str], Path] = {}
    count: dict[Path, int] = {}
    for file in files:
        number = _series_of(file)
        leader = file if not number else first.setdefault((file.parent, number), file)
        count[leader] = count.get(leader, 0) + 1
    return list(count.items())


def _series_of(file: Path) -> str:
    """Return the series of a DICOM file of one frame, else nothing."""
    try:
        if format_of(file) != "dicom":
            return ""
        header = read_dataset(file, pixels=False)
        return "" if frame_count(header, file) > 1 else "".join(texts(header, "SeriesInstanceUID"))
    except ImageError:
        return ""


def _siblings(path: Path) -> list[Path]:
    """Return the other images in a file's folder; none where the file itself holds several frames."""
    if frame_count(read_dataset(path, pixels=False), path) > 1:
        return []
    return [file for file in find_images(path.parent) if file != path and file.parent == path.parent]


def _planes(path: Path, header: Dataset) -> Iterator[_Slice]:
    shape = (integer(header, "Rows") or 0, integer(header, "Columns") or 0)
    for frame in range(frame_count(header, path)):
        corner = numbers(functional_group(header, frame, "PlanePositionSequence"), "ImagePositionPatient")
        directions = numbers(functional_group(header, frame, "PlaneOrientationSequence"), "ImageOrientationPatient")
        spacing = numbers(functional_group(header, frame, "PixelMeasuresSequence"), "PixelSpacing")
        row, column = (np.array(half) for half in (directions[:3], directions[3:]))
        if len(corner) != 3 or len(directions) != 6 or not _is_right_angle(row, column):
            raise ImageError(
                "does not say how it lies in the body",
                where=path,
                expected="ImagePositionPatient (0020,0032) and ImageOrientationPatient (0020,0037)",
                fix="export the original images of the scanner, no screenshots or secondary captures",
            )
        if len(spacing) != 2 or min(spacing) <= 0:
            raise ImageError(
                "has no usable PixelSpacing (0028,0030)", where=path, expected="two positive numbers in mm"
            )
        # PixelSpacing states the distance of rows first.
        yield _Slice(path, frame, shape, row, column, np.array(corner), (spacing[1], spacing[0]))


def _is_right_angle(row: Array, column: Array) -> bool:
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    return bool(np.allclose(lengths, 1.0, atol=1e-2) and abs(row @ column) < 1e-2)


def _in_order(path: Path, slices: Sequence[_Slice]) -> list[_Slice]:
    """Return planes in the order in which they follow each other, evenly and parallel.

    Raises:
        ImageError: they do not.
    """
    if len(slices) < 2:
        raise ImageError(
            "is a single slice",
            where=path,
            expected="all slices of a series, or a file with several frames",
            fix="put the files of the series into one folder",
        )
    first = slices[0]
    for other in slices:
        if other.shape != first.shape or not np.allclose(other.pixel, first.pixel, rtol=1e-3):
            raise _unlike(other, first, "of the same size and PixelSpacing", "differ in size or spacing")
        if min(other.row @ first.row, other.column @ first.column) < _SAME_DIRECTION:
            raise _unlike(other, first, "parallel slices", "are not parallel")
    along = first.normal
    ordered = sorted(slices, key=lambda one: float(one.corner @ along))
    gaps = np.diff([float(one.corner @ along) for one in ordered])
    usual = float(np.median(gaps))
    for (upper, lower), gap in zip(pairwise(ordered), gaps, strict=True):
        if gap < 1e-3 or gap < 0.5 * usual:
            raise _unlike(
                lower,
                upper,
                "one slice at a place",
                "lie at the same place",
                "leave one echo, time point or reconstruction of each slice in the folder",
            )
        if abs(gap - usual) > _EVEN * usual:
            raise _unlike(
                lower,
                upper,
                f"neighbours {usual:.2f} mm apart, as the others are",
                f"lie {gap:.2f} mm apart",
                "copy the whole series again; slices seem to be missing",
            )
    return ordered


def _unlike(one: _Slice, other: _Slice, expected: str, problem: str, fix: str = "") -> ImageError:
    names = f"{_name(other)} and {_name(one)}"
    return ImageError(
        f"the slices {names} {problem}",
        where=one.path.parent,
        expected=expected,
        fix=fix or "leave the files of one series in the folder",
    )


def _name(one: _Slice) -> str:
    return f"{one.path.name}, frame {one.frame}" if one.frame else one.path.name


def _values(slices: Sequence[_Slice]) -> Iterator[NDArray[Any]]:
    """Yield the measured values ``(H, W)`` of each plane; a file with several frames is opened once."""
    opened: tuple[Path, Dataset] | None = None
    for one in slices:
        if opened is None or opened[0] != one.path:
            opened = one.path, read_dataset(one.path, pixels=True)
        dataset = opened[1]
        values = signal_values(one.path, dataset, one.frame, decode(one.path, dataset, one.frame))
        if values.shape != one.shape:
            raise ImageError("the pixels do not have the size that the header gives", where=one.path)
        yield values
