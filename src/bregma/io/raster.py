"""PNG, JPEG, TIFF and BMP.

Grey images keep their number type (uint8, uint16, int32, float32); colours become luminance; transparent pixels lie on
black. An EXIF orientation is applied, because every viewer in which a person places landmarks applies it too. A DPI in
the header is that of a printer or scanner, so it never becomes a spacing.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from bregma.errors import ImageError
from bregma.geometry import Frame
from bregma.io.options import ImageOptions
from bregma.io.shared import (
    build_frame,
    check_shape,
    check_size,
    choose_frame,
    finite,
    luminance,
    none_because,
    windowed,
)

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_GREY_MODES = {"L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_TIFF_PHOTOMETRIC, _TIFF_BITS, _TIFF_WHITE_IS_ZERO = 262, 258, 0
_FAULTS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, MemoryError)
_NO_SPACING = none_because(
    "a raster file carries no trusted spacing (a DPI is that of a printer or scanner); give a spacing or a sidecar"
)


def frame_of(path: Path, options: ImageOptions) -> Frame:
    """Return grid and spacing from the header; decodes no pixels."""
    with _opened(path, options) as image:
        return _frame(path, image, options)


def pixels_of(path: Path, options: ImageOptions) -> NDArray[Any]:
    """Return the pixels ``(H, W)``."""
    with _opened(path, options) as image:
        frame, turn = _frame(path, image, options), _orientation(image)
        white_is_zero = _is_inverted_16_bit(image)
        opencv_needed, page = _is_beyond_pillow(path, image), image.tell()
        image.load()
        grey = _grey_by_opencv(path, page) if opencv_needed else _grey(image)
    grey = _turned(np.iinfo(grey.dtype).max - grey if white_is_zero else grey, turn)
    check_shape(path, grey, frame)
    return windowed(path, finite(np.ascontiguousarray(grey)), options)


@contextmanager
def _opened(path: Path, options: ImageOptions) -> Iterator[Image.Image]:
    """Open a file at the chosen page; every complaint of the decoder becomes an ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                page = _page(path, image, options)
                if page:
                    image.seek(page)
                yield image
    except UnidentifiedImageError as error:
        raise ImageError(
            "is damaged or of a kind that cannot be read",
            where=path,
            fix="export the file again, as 8- or 16-bit PNG",
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            "the image is too large for Pillow",
            where=path,
            got=str(error),
            fix="if the file is right, raise PIL.Image.MAX_IMAGE_PIXELS as well as max_pixels",
        ) from error
    except _FAULTS as error:
        raise ImageError(
            f"is damaged or truncated ({error})", where=path, fix="copy or export the file again"
        ) from error


def _page(path: Path, image: Image.Image, options: ImageOptions) -> int:
    count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    return choose_frame(path, count, options, "page")


def _frame(path: Path, image: Image.Image, options: ImageOptions) -> Frame:
    width, height = image.size
    check_size(path, width, height, options)
    shape = (width, height) if _orientation(image) >= 5 else (height, width)
    return build_frame(path, shape, options, _NO_SPACING)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation (1 to 8) still to be applied; TIFFs are turned by their decoders.

    Only what stands before the pixels of a PNG is looked at: Pillow would decode it whole to find the rest.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (CIPA DC-008, tag 274)."""
    if orientation in {5, 6, 7, 8}:
        array = array.T
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    return array


def _grey(image: Image.Image) -> NDArray[Any]:
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in _GREY_MODES:
        array = np.asarray(image)
        return array.astype(array.dtype.newbyteorder("="))
    if image.has_transparency_data:
        return _on_black(np.asarray(image.convert("RGBA")))
    return luminance(np.asarray(image.convert("RGB")))


def _on_black(rgba: NDArray[Any]) -> NDArray[Any]:
    """Return the luminance of colours with alpha ``(H, W, 4)`` laid over black."""
    full = np.iinfo(rgba.dtype).max
    alpha = rgba[..., 3].astype(np.float64) / full
    return np.rint(luminance(rgba[..., :3]) * alpha).astype(rgba.dtype)


def _is_inverted_16_bit(image: Image.Image) -> bool:
    """Tell a 16-bit TIFF whose 0 is white: Pillow inverts these at 8 bits but not at 16."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO


def _is_beyond_pillow(path: Path, image: Image.Image) -> bool:
    """Tell what Pillow gets wrong: it reduces 16-bit colour to 8 bits and misreads TIFFs that lie on their side."""
    if image.format == "PNG":
        with path.open("rb") as file:
            depth, colour_type = file.read(26)[24:26]
        return depth == 16 and colour_type != 0
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (8,))
    return (len(bits) > 1 and max(bits) == 16) or tags.get(ExifTags.Base.Orientation, 1) in {5, 6, 7, 8}


def _grey_by_opencv(path: Path, page: int) -> NDArray[Any]:
    """Decode with OpenCV, which turns TIFFs itself; only after Pillow found no damage, since OpenCV is lenient."""
    ok, pages = cv2.imdecodemulti(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    if not ok:
        raise ImageError("is of a kind that cannot be decoded", where=path, fix="export it as 16-bit grey PNG")
    bgr: NDArray[Any] = np.asarray(pages[0])
    if bgr.ndim == 2:
        return bgr
    rgb = bgr[..., 2::-1]
    return _on_black(np.dstack([rgb, bgr[..., 3]])) if bgr.shape[-1] == 4 else luminance(rgb)
