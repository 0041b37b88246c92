"""Neighbouring slices of a volume, as an image source: what a 2.5-D network sees.

The slices are those of :func:`~bregma.io.read_volume`, NIfTI and DICOM alike, chosen by anatomical orientation and
shown as radiology shows them: sagittal with anterior on the left and superior up, coronal and axial with the subject's
right on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bregma.errors import ImageError
from bregma.geometry import Frame
from bregma.io.options import ImageOptions, Plane
from bregma.io.shared import windowed
from bregma.io.volume import Volume, read_volume

_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class VolumeImage:
    """The slices about the middle of a volume on disk; an :class:`~bregma.types.ImageSource` of its middle slice.

    Attributes:
        path: a NIfTI or multi-frame DICOM file, or the folder of a DICOM series.
        plane: in which the slices lie.
        position: of the middle slice, from 0 at the subject's left, back or foot end, or ``"middle"``.
    """

    path: Path
    plane: Plane = "sagittal"
    position: int | Literal["middle"] = "middle"

    def load(self) -> NDArray[Any]:
        """Return the middle slice ``(H, W)``.

        Raises:
            ImageError: the volume cannot be read.
        """
        return np.asarray(self.load_slab(0)[0])

    def load_slab(self, reach: int) -> NDArray[Any]:
        """Return the middle slice with ``reach`` neighbours either side, ``(2 * reach + 1, H, W)``.

        They come from the subject's left, back or foot on.

        Raises:
            ImageError: the volume cannot be read, or has fewer slices there.
        """
        volume = read_volume(self.path)
        axis = _AXIS[self.plane]
        middle, count = self._middle(volume), volume.array.shape[axis]
        if not reach <= middle < count - reach:
            raise ImageError(
                f"has too few {self.plane} slices",
                where=self.path,
                expected=f"{2 * reach + 1} about slice {middle}",
                got=f"{count} slices, counted from 0",
                fix="lower model.preprocess.slices, augment.slice_shift or crop.slices",
            )
        cut = np.moveaxis(volume.array, axis, 0)[middle - reach : middle + reach + 1]
        # The two axes left run to right, front or head; columns are the first of them, and radiology turns both.
        return np.ascontiguousarray(cut.transpose(0, 2, 1)[:, ::-1, ::-1])

    def read_frame(self) -> Frame:
        """Return the pixel grid of a slice and its spacing.

        Raises:
            ImageError: the volume cannot be read.
        """
        volume = read_volume(self.path)
        x, y = (axis for axis in range(3) if axis != _AXIS[self.plane])
        shape = (volume.array.shape[y], volume.array.shape[x])
        return Frame(shape, (volume.spacing[x], volume.spacing[y]), volume.source, volume.note)

    def _middle(self, volume: Volume) -> int:
        axis = _AXIS[self.plane]
        return volume.array.shape[axis] // 2 if self.position == "middle" else self.position


def frame_of(path: Path, options: ImageOptions) -> Frame:
    """Return grid and spacing of the chosen slice of a DICOM series in a folder."""
    frame = _chosen(path, options).read_frame()
    return frame if options.spacing is None else Frame(frame.shape, options.spacing, "user")


def pixels_of(path: Path, options: ImageOptions) -> NDArray[Any]:
    """Return the pixels ``(H, W)`` of the chosen slice of a DICOM series in a folder."""
    return windowed(path, _chosen(path, options).load(), options)


def _chosen(path: Path, options: ImageOptions) -> VolumeImage:
    if options.plane is None:
        raise ImageError(
            "is a folder, to be read as the DICOM series of a volume, and no plane was chosen",
            where=path,
            fix=f"set plane to one of {', '.join(_AXIS)}",
        )
    return VolumeImage(path, options.plane, options.position)
