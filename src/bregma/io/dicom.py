"""DICOM images of every common kind and transfer syntax.

Pixels come as float32 from 0 to 1, as a viewer would show and export them: modality LUT or rescale, then VOI LUT or
window, then inversion for MONOCHROME1. In a radiograph bright is therefore dense, and a model trained on exported PNGs
sees the same picture. Colours become luminance. Padding is darkest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bregma.errors import ImageError
from bregma.geometry import Frame
from bregma.io.dicom_decode import decode
from bregma.io.dicom_grey import grey_levels
from bregma.io.dicom_header import frame_count, integer, quiet, read_dataset
from bregma.io.dicom_spacing import header_spacing
from bregma.io.options import ImageOptions
from bregma.io.shared import build_frame, check_shape, check_size, choose_frame


def frame_of(path: Path, options: ImageOptions) -> Frame:
    """Return grid and spacing from the header; decodes no pixels."""
    with quiet():
        return _frame(path, read_dataset(path, pixels=False), options)[0]


def pixels_of(path: Path, options: ImageOptions) -> NDArray[Any]:
    """Return the pixels ``(H, W)``, float32 from 0 to 1."""
    with quiet():
        dataset = read_dataset(path, pixels=True)
        frame, index = _frame(path, dataset, options)
        stored = decode(path, dataset, index)
        check_shape(path, stored[..., 0] if stored.ndim == 3 else stored, frame)
        return np.ascontiguousarray(grey_levels(path, dataset, index, stored, options.window))


def _frame(path: Path, dataset: Dataset, options: ImageOptions) -> tuple[Frame, int]:
    width, height = integer(dataset, "Columns"), integer(dataset, "Rows")
    if width is None or height is None:
        raise ImageError("has no Rows and Columns", where=path)
    check_size(path, width, height, options)
    index = choose_frame(path, frame_count(dataset, path), options)
    return build_frame(path, (height, width), options, header_spacing(dataset, index)), index
