"""NIfTI volumes, read by anatomical orientation and never by axis number.

World axes are those of NIfTI: x to the subject's right, y anterior, z superior (RAS+). A slice is shown as radiology
shows it: sagittal with anterior on the left, coronal and axial with the subject's right on the left; superior (axial:
anterior) is up. Files that store the same volume with swapped or flipped axes give the same slice.
"""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from bregma.errors import ConfigError, ImageError
from bregma.geometry import Array, Frame
from bregma.io.options import ImageOptions, Plane
from bregma.io.shared import Calibration, build_frame, check_shape, check_size, finite, windowed
from bregma.io.volume import Volume, canonical, oblique_note

_NORMAL: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_MM_PER_UNIT = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)


@dataclass(frozen=True)
class _Layout:
    """How the stored axes of a file lie in the body.

    Attributes:
        shape: stored voxels along the three stored axes.
        orientation: ``(3, 2)`` nibabel orientation: for each stored axis its world axis and direction.
        affine: ``(4, 4)`` stored voxel indices to mm, RAS+.
        note: what to bear in mind about the spacing.
    """

    shape: tuple[int, int, int]
    orientation: Array
    affine: Array
    note: str

    def stored_axis(self, world_axis: int) -> int:
        """Return the stored axis nearest to a world axis."""
        return int(np.flatnonzero(self.orientation[:, 0] == world_axis)[0])

    def size(self, world_axis: int) -> int:
        """Return the number of voxels along a world axis."""
        return self.shape[self.stored_axis(world_axis)]

    def step(self, world_axis: int) -> float:
        """Return the voxel size along a world axis in mm."""
        return float(np.linalg.norm(self.affine[:3, self.stored_axis(world_axis)]))


def volume_of(path: Path) -> Volume:
    """Read a 3-D file and turn it to canonical orientation.

    Raises:
        ImageError: damaged, not 3-D, or of unknown orientation.
    """
    with _opened(path) as image:
        layout = _layout(path, image)
        stored = _plain(path, np.asanyarray(image.dataobj)).reshape(layout.shape)
    return canonical(stored, layout.affine, "nifti", layout.note)


def read_slice(
    path: str | Path,
    plane: Plane = "sagittal",
    position: int | Literal["middle"] = "middle",
    *,
    offset_mm: float = 0.0,
) -> tuple[NDArray[Any], Frame]:
    """Read one slice of a volume as ``(H, W)`` pixels and its frame.

    Args:
        path: a NIfTI file.
        plane: the anatomical plane.
        position: from 0 at the subject's left (sagittal), back (coronal) or foot (axial) end, or ``"middle"``.
        offset_mm: distance from there towards right, front or head; the nearest slice is taken.

    Raises:
        ConfigError: an unknown plane or position.
        ImageError: damaged, not 3-D, of unknown orientation, or no slice at that place.
    """
    file, options = Path(path), ImageOptions(plane=plane, position=position)
    with _opened(file) as image:
        layout = _layout(file, image)
        index = _index(file, layout, plane, options, offset_mm)
        return _slice(file, image, layout, plane, index), _frame(file, layout, plane, options)


def frame_of(path: Path, options: ImageOptions) -> Frame:
    """Return grid and spacing of the chosen slice from the header; decodes no voxels."""
    with _opened(path) as image:
        layout = _layout(path, image)
        plane = _chosen_plane(path, layout, options)
        _index(path, layout, plane, options, 0.0)
        return _frame(path, layout, plane, options)


def pixels_of(path: Path, options: ImageOptions) -> NDArray[Any]:
    """Return the pixels ``(H, W)`` of the chosen slice."""
    with _opened(path) as image:
        layout = _layout(path, image)
        plane = _chosen_plane(path, layout, options)
        index = _index(path, layout, plane, options, 0.0)
        frame = _frame(path, layout, plane, options)
        pixels = _slice(path, image, layout, plane, index)
    check_shape(path, pixels, frame)
    return windowed(path, pixels, options)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file by content (gzip or plain, version 1 or 2); every complaint becomes an ImageError."""
    try:
        with path.open("rb") as raw, warnings.catch_warnings(), LoggingOutputSuppressor():
            warnings.simplefilter("ignore")
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if zipped else raw as stream:
                size = stream.read(4)
                stream.seek(0)
                kind = (
                    nib.Nifti2Image if 540 in struct.unpack("<i", size) + struct.unpack(">i", size) else nib.Nifti1Image
                )
                yield kind.from_stream(stream)
    except FileNotFoundError as error:
        raise ImageError("does not exist", where=path, fix="check the path") from error
    except _FAULTS as error:
        raise ImageError(
            f"is not a NIfTI file that can be read ({error})",
            where=path,
            expected="a complete .nii or .nii.gz file",
            fix="copy or export the file again; it may be truncated",
        ) from error


def _layout(path: Path, image: Any) -> _Layout:
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 2 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise ImageError("is not a volume", where=path, expected="three dimensions", got=" x ".join(map(str, shape)))
    header = image.header
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        raise ImageError(
            "does not say how its axes lie in the body (qform_code and sform_code are both 0)",
            where=path,
            fix="convert it again from the scanner's files, or set the sform in a viewer after checking left and right",
        )
    unit = str(header.get_xyzt_units()[0])
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _MM_PER_UNIT[unit]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * sizes.prod() or min(sizes) <= 0:
        raise ImageError("the affine is not valid", where=path, got=str(affine[:3].tolist()), fix="export it again")
    full = (*shape[:3], 1)[:3]
    return _Layout((full[0], full[1], full[2]), io_orientation(affine), affine, _note(unit, affine))


def _note(unit: str, affine: Array) -> str:
    notes = ["the header names no unit; millimetres are assumed"] if unit == "unknown" else []
    return "; ".join([*notes, *filter(None, [oblique_note(affine)])])


def _chosen_plane(path: Path, layout: _Layout, options: ImageOptions) -> Plane:
    if options.plane is not None:
        return options.plane
    thin = [plane for plane, axis in _NORMAL.items() if layout.size(axis) == 1]
    if len(thin) == 1:
        return thin[0]
    raise ImageError(
        "is a volume and no plane was chosen", where=path, fix=f"set plane to one of {', '.join(get_args(Plane))}"
    )


def _index(path: Path, layout: _Layout, plane: Plane, options: ImageOptions, offset_mm: float) -> int:
    """Return the slice, counted from left, back or foot."""
    if not np.isfinite(offset_mm):
        raise ConfigError("is not a distance", where="offset_mm", got=str(offset_mm))
    axis = _NORMAL[plane]
    count = layout.size(axis)
    start = count // 2 if options.position == "middle" else options.position
    index = round(start + offset_mm / layout.step(axis))
    if not 0 <= index < count:
        raise ImageError(f"has no {plane} slice {index}", where=path, expected=f"0 to {count - 1}")
    return index


def _in_plane(plane: Plane) -> tuple[int, int]:
    """Return the world axes that run along the columns (x) and the rows (y) of a slice."""
    x, y = (axis for axis in range(3) if axis != _NORMAL[plane])
    return x, y


def _frame(path: Path, layout: _Layout, plane: Plane, options: ImageOptions) -> Frame:
    x, y = _in_plane(plane)
    check_size(path, layout.size(x), layout.size(y), options)
    calibration = Calibration((layout.step(x), layout.step(y)), "nifti", layout.note)
    return build_frame(path, (layout.size(y), layout.size(x)), options, calibration)


def _slice(path: Path, image: Any, layout: _Layout, plane: Plane, index: int) -> NDArray[Any]:
    """Cut a slice out of the stored array and turn it as radiology shows it."""
    normal = layout.stored_axis(_NORMAL[plane])
    flipped = layout.orientation[:, 1] < 0
    stored_index = layout.shape[normal] - 1 - index if flipped[normal] else index
    place: list[Any] = [slice(None)] * 3
    place[normal] = stored_index
    plain_3d = len(image.shape) == 3
    data = image.dataobj[tuple(place)] if plain_3d else np.asanyarray(image.dataobj).reshape(layout.shape)[tuple(place)]
    x, y = (layout.stored_axis(axis) for axis in _in_plane(plane))
    pixels = _plain(path, np.asanyarray(data)) if y < x else _plain(path, np.asanyarray(data)).T
    rows = slice(None) if flipped[y] else slice(None, None, -1)
    columns = slice(None) if flipped[x] else slice(None, None, -1)
    return finite(np.ascontiguousarray(pixels[rows, columns]))


def _plain(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    """Return one-channel numbers in the machine's byte order; scaled values as float32."""
    if data.dtype.kind not in "iuf":
        raise ImageError("does not hold plain numbers", where=path, expected="integers or floats", got=str(data.dtype))
    return data.astype(np.float32 if data.dtype == np.float64 else data.dtype.newbyteorder("="), copy=False)
