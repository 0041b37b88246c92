"""One door for all formats: recognise a file by its content and hand it to its reader."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from bregma.errors import ImageError
from bregma.geometry import Frame
from bregma.io.options import MAX_PIXELS, ImageOptions, Plane, Spacing, Window

Format = Literal["raster", "dicom", "nifti"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".nii", ".nii.gz")
"""Suffixes, in lower case, by which a folder is searched; what a file is, its content decides."""

_RASTER_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
_NIFTI_MAGIC = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0", b"ni2\0")}
_GZIP_MAGIC = b"\x1f\x8b"
_HEAD_BYTES = 352
_SKIPPED_NAMES = {"DICOMDIR", "__MACOSX"}


@dataclass(frozen=True)
class FileImage:
    """An image that stays on disk until it is asked for; an :class:`~bregma.types.ImageSource`.

    Attributes:
        path: the file, or the folder of a DICOM series.
        options: how to read it.
    """

    path: Path
    options: ImageOptions = field(default_factory=ImageOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def load(self) -> NDArray[Any]:
        """Return the pixels ``(H, W)``.

        Raises:
            ImageError: the file cannot be used; names it and how to mend it.
        """
        pixels: NDArray[Any] = _reader(self.path, "pixels_of")(self.path, self.options)
        return pixels

    def load_slab(self, reach: int) -> NDArray[Any]:
        """Return the slice with ``reach`` neighbours either side, ``(2 * reach + 1, H, W)``; see :class:`VolumeImage`.

        Raises:
            ImageError: no volume, or one with fewer slices there.
        """
        from bregma.io.slab import VolumeImage

        return VolumeImage(self.path, self.options.plane or "sagittal", self.options.position).load_slab(reach)

    def read_frame(self) -> Frame:
        """Return the pixel grid and spacing; decodes no pixels."""
        frame: Frame = _reader(self.path, "frame_of")(self.path, self.options)
        return frame


def open_image(
    path: str | Path,
    *,
    frame: int | Literal["middle"] | None = None,
    window: Window = "auto",
    spacing: Spacing | None = None,
    plane: Plane | None = None,
    position: int | Literal["middle"] = "middle",
    max_pixels: int = MAX_PIXELS,
) -> tuple[FileImage, Frame]:
    """Return an image that is read later, and its frame from the header; the choices are :class:`ImageOptions`.

    Raises:
        ImageError: the header cannot be used; names the file and how to mend it.
    """
    options = ImageOptions(frame, window, spacing, plane, position, max_pixels)
    image = FileImage(Path(path), options)
    return image, image.read_frame()


def read_frame(
    path: str | Path,
    *,
    frame: int | Literal["middle"] | None = None,
    spacing: Spacing | None = None,
    plane: Plane | None = None,
    position: int | Literal["middle"] = "middle",
    max_pixels: int = MAX_PIXELS,
) -> Frame:
    """Return pixel grid and spacing from the header alone; the choices are those of :class:`ImageOptions`.

    Raises:
        ImageError: the header cannot be used; names the file and how to mend it.
    """
    return open_image(path, frame=frame, spacing=spacing, plane=plane, position=position, max_pixels=max_pixels)[1]


def read_image(
    path: str | Path,
    *,
    frame: int | Literal["middle"] | None = None,
    window: Window = "auto",
    spacing: Spacing | None = None,
    plane: Plane | None = None,
    position: int | Literal["middle"] = "middle",
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[Any], Frame]:
    """Read an image as ``(H, W)`` pixels and its frame; the choices are those of :class:`ImageOptions`.

    Raster and NIfTI files keep their number type. DICOM comes as float32 from 0 to 1 after modality and VOI
    transformation, inverted for MONOCHROME1, as a viewer would show (and export) it.

    Raises:
        ImageError: the file cannot be used; names it and how to mend it.
    """
    image, grid = open_image(
        path, frame=frame, window=window, spacing=spacing, plane=plane, position=position, max_pixels=max_pixels
    )
    return image.load(), grid


def find_images(path: str | Path) -> list[Path]:
    """Return the image file at ``path``, or all image files in the folder and below, sorted.

    Hidden files are left out. Files without a suffix (or named by a UID) count where they carry the DICOM mark.

    Raises:
        ImageError: nothing is there.
    """
    start = Path(path)
    if start.is_file():
        return [start]
    if not start.is_dir():
        raise ImageError("does not exist", where=start, fix="check the path")
    found = []
    for folder, folders, names in os.walk(start):
        folders[:] = [name for name in folders if _is_wanted(name)]
        found += [Path(folder) / name for name in names if _is_wanted(name)]
    return sorted(file for file in found if _looks_like_image(file))


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name not in _SKIPPED_NAMES


def _looks_like_image(path: Path) -> bool:
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return True
    bare = not path.suffix or path.suffix[1:].isdigit()
    return bare and _head(path)[128:132] == b"DICM"


def _reader(path: Path, function: Literal["frame_of", "pixels_of"]) -> Callable[[Path, ImageOptions], Any]:
    module = import_module("bregma.io.slab" if path.is_dir() else f"bregma.io.{format_of(path)}")
    reader: Callable[[Path, ImageOptions], Any] = getattr(module, function)
    return reader


def format_of(path: Path) -> Format:
    """Tell the format of a file by its content.

    Raises:
        ImageError: missing, empty, or none of the formats.
    """
    head = _head(path)
    if not head:
        raise ImageError("is empty", where=path, fix="copy or export the file again")
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_RASTER_MAGIC):
        return "raster"
    if _is_nifti(_unzipped_head(path) if head.startswith(_GZIP_MAGIC) else head):
        return "nifti"
    if path.suffix.lower() in {".dcm", ".dicom"}:
        return "dicom"
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return "nifti"
    raise ImageError(
        "is not an image that can be read", where=path, expected="PNG, JPEG, TIFF, BMP, DICOM or NIfTI (.nii, .nii.gz)"
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise ImageError("does not exist", where=path, fix="check the path") from error
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})", where=path) from error


def _unzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError("is a broken gzip file", where=path, fix="copy or export the file again") from error


def _is_nifti(head: bytes) -> bool:
    return any(head[start : start + 4] in marks for start, marks in _NIFTI_MAGIC.items())
