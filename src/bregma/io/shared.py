"""What all readers share: limits, grey values, windows, and where a spacing may come from besides the header."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bregma.errors import ImageError
from bregma.geometry import Frame, SpacingSource
from bregma.io.options import ImageOptions, Spacing

SIDECAR_LIMIT_BYTES = 65_536
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in luminance (ITU-R BT.601)."""


class Calibration(NamedTuple):
    """A spacing ``(x, y)`` in mm with its provenance, or the reason why there is none."""

    spacing: Spacing | None
    source: SpacingSource
    note: str


def none_because(note: str) -> Calibration:
    """Say that there is no trusted spacing, and why."""
    return Calibration(None, "none", note)


def build_frame(path: Path, shape: tuple[int, int], options: ImageOptions, header: Calibration) -> Frame:
    """Combine the grid with the most trusted spacing: the caller's, then a sidecar's, then the header's."""
    if options.spacing is not None:
        return Frame(shape, options.spacing, "user")
    sidecar = _sidecar_spacing(path)
    if sidecar is not None:
        return Frame(shape, sidecar, "sidecar")
    return Frame(shape, header.spacing, header.source, header.note)


def _sidecar_spacing(path: Path) -> Spacing | None:
    """Read ``{"spacing": [sx, sy]}`` from ``<file>.json`` or ``<stem>.json``; other JSON files are none of ours.

    Files above 64 kB are taken for label files and not read.
    """
    for sidecar in (path.with_name(f"{path.name}.json"), path.with_suffix(".json")):
        if sidecar.is_file() and sidecar.stat().st_size <= SIDECAR_LIMIT_BYTES:
            try:
                data = json.loads(sidecar.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ImageError(
                    "the JSON file beside the image cannot be read", where=sidecar, fix="mend or remove it"
                ) from error
            if isinstance(data, dict) and "spacing" in data:
                return _spacing_from_json(data["spacing"], sidecar)
    return None


def _spacing_from_json(value: Any, sidecar: Path) -> Spacing:
    if isinstance(value, list) and len(value) == 2 and all(_is_length(v) for v in value):
        return float(value[0]), float(value[1])
    raise ImageError(
        "the spacing of the sidecar cannot be used",
        where=sidecar,
        expected='{"spacing": [x, y]}, two positive numbers in millimetres',
        got=json.dumps(value)[:80],
    )


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def check_size(path: Path, width: int, height: int, options: ImageOptions) -> None:
    """Refuse an empty or oversized image before it is decoded.

    Raises:
        ImageError: no pixels, or more than ``max_pixels``.
    """
    if width < 1 or height < 1:
        raise ImageError("the header gives an image without pixels", where=path, got=f"{width} x {height}")
    if width * height > options.max_pixels:
        raise ImageError(
            "the image is too large",
            where=path,
            expected=f"at most {options.max_pixels:,} pixels",
            got=f"{width} x {height}",
            fix="check that the file is not broken; if it is right, raise max_pixels",
        )


def choose_frame(path: Path, count: int, options: ImageOptions, what: str = "frame") -> int:
    """Return the frame (or page) to read.

    Raises:
        ImageError: several frames and no choice, or a choice that does not exist.
    """
    if options.frame is None and count > 1:
        raise ImageError(
            f"holds {count} {what}s and none was chosen",
            where=path,
            fix=f"set frame to a number from 0 to {count - 1}, or to 'middle'",
        )
    chosen = count // 2 if options.frame == "middle" else options.frame or 0
    if chosen >= count:
        raise ImageError(f"has no {what} {chosen}", where=path, expected=f"0 to {count - 1}")
    return chosen


def check_shape(path: Path, array: NDArray[Any], frame: Frame) -> None:
    """Refuse pixels that do not have the size their header announced."""
    if array.shape != frame.shape:
        raise ImageError(
            "the pixels do not have the size that the header gives",
            where=path,
            expected=f"{frame.width} x {frame.height}",
            got=" x ".join(str(n) for n in reversed(array.shape)),
        )


def luminance(rgb: NDArray[Any]) -> NDArray[Any]:
    """Turn colours ``(H, W, 3)`` into luminance ``(H, W)`` of the same number type; equal channels stay exact."""
    grey = rgb[..., :3].astype(np.float64) @ LUMA
    return np.rint(grey).astype(rgb.dtype) if rgb.dtype.kind in "iu" else grey.astype(rgb.dtype)


def finite(array: NDArray[Any]) -> NDArray[Any]:
    """Replace values that are not finite, which mark background, by the smallest finite one (0 where there is none)."""
    if array.dtype.kind != "f":
        return array
    good = np.isfinite(array)
    if good.all():
        return array
    floor = array[good].min() if good.any() else 0
    return np.where(good, array, floor).astype(array.dtype)


def linear_window(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float32]:
    """Map values to 0 … 1 by the LINEAR function of DICOM PS3.3 C.11.2.1.2.1."""
    if width == 1:
        return (values > centre - 0.5).astype(np.float32)
    scaled = (values - np.float64(centre - 0.5)) / (width - 1) + 0.5
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def windowed(path: Path, values: NDArray[Any], options: ImageOptions) -> NDArray[Any]:
    """Apply the caller's window to a file that stores none; ``"auto"`` and ``"full"`` leave the values as they are.

    Raises:
        ImageError: a stored window was asked for.
    """
    if isinstance(options.window, tuple):
        return linear_window(values, *options.window)
    if isinstance(options.window, int):
        raise ImageError(
            f"window {options.window} was asked for, but this format stores no windows",
            where=path,
            fix="use window='auto' or (centre, width)",
        )
    return values
