"""Volumes of any make, turned to one orientation: NIfTI files, DICOM series and multi-frame DICOM objects."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from bregma.errors import ImageError
from bregma.geometry import Array, SpacingSource
from bregma.io.shared import finite
from bregma.io.source import format_of


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume in canonical orientation.

    Attributes:
        array: ``(X, Y, Z)``, voxel axes nearest to right, anterior and superior.
        affine: ``(4, 4)`` voxel indices to world coordinates in mm, RAS+.
        spacing: voxel size along the three axes in mm.
        source: where the spacing comes from.
        note: what to bear in mind about the spacing; empty where there is nothing.
    """

    array: NDArray[Any]
    affine: Array
    spacing: tuple[float, float, float]
    source: SpacingSource
    note: str = ""

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.array.shape)
        return f"Volume({size}, {self.array.dtype}, spacing={self.spacing})"


def read_volume(path: str | Path) -> Volume:
    """Read a volume and turn it to canonical orientation.

    Args:
        path: a NIfTI file, a multi-frame DICOM file, a folder with the files of one DICOM series, or one of the files
            of a series that lie in one folder.

    Raises:
        ImageError: damaged, no volume, of unknown orientation, or a series that is not complete.
    """
    place = Path(path)
    kind = "dicom" if place.is_dir() else format_of(place)
    if kind == "raster":
        raise ImageError("is no volume", where=place, expected="NIfTI, or the DICOM files of one series")
    home = "nifti" if kind == "nifti" else "dicom_series"
    volume: Volume = import_module(f"bregma.io.{home}").volume_of(place)
    return volume


def canonical(stored: NDArray[Any], affine: Array, source: SpacingSource, note: str) -> Volume:
    """Turn stored voxels so that their axes run to the subject's right, front and head.

    Args:
        stored: three axes in any order and direction.
        affine: ``(4, 4)`` stored voxel indices to mm, RAS+.
        source: see :class:`Volume`, as for ``note``.
        note: see there.
    """
    orientation = io_orientation(affine)
    turned = affine @ inv_ornt_aff(orientation, stored.shape)
    sizes = np.linalg.norm(turned[:3, :3], axis=0)
    array = finite(np.ascontiguousarray(apply_orientation(stored, orientation)))
    return Volume(array, turned, (float(sizes[0]), float(sizes[1]), float(sizes[2])), source, note)


def oblique_note(affine: Array) -> str:
    """Say how far the voxel axes lie from the body's; empty within a degree."""
    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).max(axis=0)
    tilt = float(np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0))).max())
    return f"oblique by up to {tilt:.0f} degrees; slices follow the voxel grid" if tilt > 1.0 else ""
