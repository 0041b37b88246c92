"""What a caller may choose when an image is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bregma.errors import ConfigError

Plane = Literal["sagittal", "coronal", "axial"]
Window = Literal["auto", "full"] | int | tuple[float, float]
Spacing = tuple[float, float]

MAX_PIXELS = 100_000_000
"""Largest image that is decoded unless a caller raises the limit; four times the largest clinical detector."""


@dataclass(frozen=True)
class ImageOptions:
    """Choices for reading one image; the defaults suit a file that holds one image.

    Attributes:
        frame: which frame of a multi-frame DICOM or page of a TIFF, from 0, or ``"middle"``. None takes the only one
            and refuses a file with several, because a frame nobody chose would be measured unnoticed.
        window: ``"auto"`` for the file's first stored VOI transformation (full range where it has none), ``"full"``
            for the full range, a number for the n-th stored transformation from 0 (LUTs before windows), or
            ``(centre, width)``.
        spacing: millimetres per pixel along x and y, which overrule what the file says.
        plane: the anatomical plane to cut from a NIfTI volume; needed for those only.
        position: which slice of that plane, from 0 (leftmost, most posterior, most inferior), or ``"middle"``.
        max_pixels: refuse larger images before they are decoded.

    Raises:
        ConfigError: a value that is not one of these.
    """

    frame: int | Literal["middle"] | None = None
    window: Window = "auto"
    spacing: Spacing | None = None
    plane: Plane | None = None
    position: int | Literal["middle"] = "middle"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_index("frame", self.frame, {"middle", None})
        _check_index("position", self.position, {"middle"})
        _check_window(self.window)
        if self.spacing is not None:
            object.__setattr__(self, "spacing", checked_spacing(self.spacing))
        if self.plane is not None and self.plane not in get_args(Plane):
            raise ConfigError("unknown plane", where="plane", expected=", ".join(get_args(Plane)), got=repr(self.plane))
        if self.max_pixels < 1:
            raise ConfigError("must be positive", where="max_pixels", got=str(self.max_pixels))


def checked_spacing(spacing: Spacing) -> Spacing:
    """Return a spacing given by a person as two floats.

    Raises:
        ConfigError: not two positive finite numbers.
    """
    values = tuple(float(value) for value in spacing)
    if len(values) != 2 or not all(math.isfinite(value) and value > 0 for value in values):
        raise ConfigError(
            "is not a spacing",
            where="spacing",
            expected="two positive numbers, millimetres per pixel along x and along y",
            got=str(spacing),
        )
    return values[0], values[1]


def _check_index(name: str, value: object, words: set[object]) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ConfigError("counts from 0", where=name, got=str(value))
    elif value not in words:
        raise ConfigError("cannot be understood", where=name, expected="a number or 'middle'", got=repr(value))


def _check_window(window: Window) -> None:
    if isinstance(window, tuple):
        if len(window) != 2 or not all(math.isfinite(value) for value in window) or window[1] < 1:
            raise ConfigError(
                "is not a window", where="window", expected="(centre, width) with a width of 1 or more", got=str(window)
            )
    else:
        _check_index("window", window, {"auto", "full"})
