"""Pixels in: every reader returns a one-channel array and its :class:`~bregma.geometry.Frame`.

Raster files (PNG, JPEG, TIFF, BMP), DICOM and NIfTI are told apart by their content, never by their suffix. The readers
are imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

if TYPE_CHECKING:
    from bregma.io.dicom_series import series_among
    from bregma.io.nifti import read_slice
    from bregma.io.options import ImageOptions, Plane
    from bregma.io.slab import VolumeImage
    from bregma.io.source import IMAGE_SUFFIXES, FileImage, find_images, open_image, read_frame, read_image
    from bregma.io.volume import Volume, read_volume

__all__ = [
    "IMAGE_SUFFIXES",
    "FileImage",
    "ImageOptions",
    "Plane",
    "Volume",
    "VolumeImage",
    "find_images",
    "open_image",
    "read_frame",
    "read_image",
    "read_slice",
    "read_volume",
    "series_among",
]

_HOMES = {
    "IMAGE_SUFFIXES": "source",
    "FileImage": "source",
    "ImageOptions": "options",
    "Plane": "options",
    "Volume": "volume",
    "VolumeImage": "slab",
    "find_images": "source",
    "open_image": "source",
    "read_frame": "source",
    "read_image": "source",
    "read_slice": "nifti",
    "read_volume": "volume",
    "series_among": "dicom_series",
}


__getattr__ = lazy_names(__name__, _HOMES)
