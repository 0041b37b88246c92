"""From stored values to grey levels: modality, VOI and polarity (PS3.3 C.11.1 and C.11.2, PS3.4 N.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bregma.errors import ImageError
from bregma.io.dicom_header import (
    binary_numbers,
    functional_group,
    integer,
    items,
    numbers,
    text,
    texts,
)
from bregma.io.options import Window
from bregma.io.shared import finite, linear_window, luminance

Values = NDArray[Any]
Levels = NDArray[np.float32]
Voi = Callable[[Values], Levels]


def grey_levels(path: Path, dataset: Dataset, index: int, stored: Values, window: Window) -> Levels:
    """Turn the stored values of frame ``index`` into grey levels from 0 to 1, bright = dense for radiographs.

    The polarity is that of PhotometricInterpretation alone; PresentationLUTShape only repeats it (PS3.3 C.11.6).

    Raises:
        ImageError: a broken modality transformation, or a stored window was asked for that does not exist.
    """
    if stored.ndim == 3:
        return _colour_levels(path, dataset, stored, window)
    padding = _padding(dataset, stored)
    values = finite(
        _modality_values(path, functional_group(dataset, index, "PixelValueTransformationSequence"), stored)
    )
    transformations = _stored_vois(functional_group(dataset, index, "FrameVOILUTSequence"))
    levels = _chosen_voi(path, transformations, window, padding)(values)
    if text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        levels = 1.0 - levels
    if padding is not None:
        levels[padding] = 0.0
    return levels


def signal_values(path: Path, dataset: Dataset, index: int, stored: Values) -> Values:
    """Return the values of frame ``index`` as they were measured, the same scale for all slices of a volume.

    A window, which may be another one for each slice, is not applied; MONOCHROME1 is negated, so that bright is high.

    Raises:
        ImageError: a broken modality transformation, or colours.
    """
    if stored.ndim == 3:
        raise ImageError(
            "is in colour", where=path, expected="a volume of measured values", fix="choose another series"
        )
    values = finite(
        _modality_values(path, functional_group(dataset, index, "PixelValueTransformationSequence"), stored)
    )
    return -values if text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else values


def _colour_levels(path: Path, dataset: Dataset, stored: Values, window: Window) -> Levels:
    """Return the luminance of RGB values ``(H, W, 3)`` from 0 to 1."""
    grey = luminance(stored)
    if isinstance(window, tuple | int):
        return _chosen_voi(path, [], window, None)(grey)
    palette = text(dataset, "PhotometricInterpretation") == "PALETTE COLOR"
    bits = integer(dataset, "BitsStored")
    full = np.iinfo(stored.dtype).max if palette or bits is None else 2**bits - 1
    return (grey / full).astype(np.float32)


def _padding(dataset: Dataset, stored: Values) -> NDArray[np.bool_] | None:
    """Return the mask of pixels that only fill the rectangle (PS3.3 C.7.5.1.1.2), or None."""
    limits = binary_numbers(dataset, "PixelPaddingValue")[:1] + binary_numbers(dataset, "PixelPaddingRangeLimit")[:1]
    if not limits or stored.dtype.kind not in "iu":
        return None
    wrapped = np.array(limits, dtype=np.int64).astype(stored.dtype)
    mask = (stored >= wrapped.min()) & (stored <= wrapped.max())
    return mask if mask.any() and not mask.all() else None


def _modality_values(path: Path, holder: Dataset, stored: Values) -> Values:
    """Apply the modality LUT or the rescale slope and intercept."""
    precise: type[np.floating[Any]] = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    luts = items(holder, "ModalityLUTSequence")
    if luts:
        table, first, _ = _lut(path, luts[0])
        return _looked_up(stored, table, first).astype(precise)
    if not texts(holder, "RescaleSlope"):
        return stored.astype(precise)
    slope, intercept = numbers(holder, "RescaleSlope"), numbers(holder, "RescaleIntercept") or [0.0]
    if len(slope) != 1 or slope[0] == 0 or len(intercept) != 1:
        raise ImageError(
            "the rescale cannot be used",
            where=path,
            expected="one number each in RescaleSlope (0028,1053, not 0) and RescaleIntercept (0028,1052)",
            fix="export the file again",
        )
    return (stored.astype(np.float64) * slope[0] + intercept[0]).astype(precise)


def _stored_vois(holder: Dataset) -> list[tuple[str, Dataset | tuple[float, float]]]:
    """List the usable VOI transformations of the file: LUTs first, since they carry the maker's curve, then windows."""
    found: list[tuple[str, Dataset | tuple[float, float]]] = [("LUT", lut) for lut in items(holder, "VOILUTSequence")]
    function = text(holder, "VOILUTFunction") or "LINEAR"
    smallest = 1.0 if function == "LINEAR" else np.finfo(np.float32).tiny
    windows = zip(numbers(holder, "WindowCenter"), numbers(holder, "WindowWidth"))
    return found + [(function, (centre, width)) for centre, width in windows if width >= smallest]


def _chosen_voi(
    path: Path,
    stored: list[tuple[str, Dataset | tuple[float, float]]],
    window: Window,
    padding: NDArray[np.bool_] | None,
) -> Voi:
    if isinstance(window, tuple):
        return partial(linear_window, centre=window[0], width=window[1])
    if isinstance(window, int) and window >= len(stored):
        raise ImageError(
            f"window {window} was asked for, but the file stores {len(stored)}",
            where=path,
            fix="use a smaller number, window='auto' or (centre, width)",
        )
    if window == "full" or not stored:
        return partial(_full_range, padding=padding)
    function, value = stored[window if isinstance(window, int) else 0]
    if isinstance(value, Dataset):
        return partial(_lut_levels, path=path, item=value)
    return partial(_WINDOWS.get(function, linear_window), centre=value[0], width=value[1])


def _full_range(values: Values, padding: NDArray[np.bool_] | None) -> Levels:
    seen = values if padding is None else values[~padding]
    low, high = float(seen.min()), float(seen.max())
    if high == low:
        return np.zeros(values.shape, dtype=np.float32)
    return np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _linear_exact(values: Values, centre: float, width: float) -> Levels:
    """Apply the LINEAR_EXACT function of PS3.3 C.11.2.1.3.2."""
    return np.clip((values - np.float64(centre)) / width + 0.5, 0.0, 1.0).astype(np.float32)


def _sigmoid(values: Values, centre: float, width: float) -> Levels:
    """Apply the SIGMOID function of PS3.3 C.11.2.1.3.1."""
    exponent = np.clip(-4.0 * (values - np.float64(centre)) / width, -80.0, 80.0)
    return (1.0 / (1.0 + np.exp(exponent))).astype(np.float32)


_WINDOWS: dict[str, Callable[..., Levels]] = {
    "LINEAR": linear_window,
    "LINEAR_EXACT": _linear_exact,
    "SIGMOID": _sigmoid,
}


def _lut_levels(values: Values, path: Path, item: Dataset) -> Levels:
    table, first, bits = _lut(path, item)
    levels = _looked_up(values, table, first).astype(np.float32) / (2**bits - 1)
    return np.minimum(levels, np.float32(1.0))


def _looked_up(values: Values, table: Values, first: int) -> Values:
    if first >= 2**15 and values.min() < 0:
        first -= 2**16
    position = np.rint(values).astype(np.int64) - first
    return np.asarray(table[np.clip(position, 0, len(table) - 1)])


def _lut(path: Path, item: Dataset) -> tuple[Values, int, int]:
    """Return the table, the first value mapped and the bits of an entry (PS3.3 C.11.1.1)."""
    descriptor = [int(value) for value in binary_numbers(item, "LUTDescriptor")]
    table = _lut_data(item)
    if len(descriptor) == 3:
        length, first, bits = descriptor[0] % 2**16 or 2**16, descriptor[1], descriptor[2]
        if bits == 8 and table.dtype == np.uint16 and len(table) * 2 in {length, length + 1}:
            table = table.view(np.uint8)
        if 1 <= bits <= 16 and len(table) >= length:
            return table[:length], first, bits
    raise ImageError(
        "a lookup table cannot be used",
        where=path,
        expected="LUTDescriptor (0028,3002) with three numbers and as many LUTData (0028,3006)",
        fix="choose another window, or export the file again",
    )


def _lut_data(item: Dataset) -> NDArray[np.uint16]:
    return np.array([int(value) % 2**16 for value in binary_numbers(item, "LUTData")], dtype=np.uint16)
