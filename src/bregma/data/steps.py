"""Steps that change an image's grey values before a network sees it: CLAHE, and histogram matching.

Each works on the whole image as it was stored, scaled to 0..1, and gives 0..1 again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, field_validator

from bregma.config import Config
from bregma.errors import ConfigError, ImageError
from bregma.geometry import Array

Image = NDArray[np.float32]

CURVE = 256
"""Numbers of a stored quantile curve."""
_FEWEST = 16
"""Pixels of a foreground from which quantiles are taken; below, there is nothing to match."""


class ClaheConfig(Config):
    """Contrast-limited adaptive histogram equalisation, on 256 grey levels.

    K. Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994; OpenCV's.
    """

    name: Literal["clahe"] = "clahe"
    clip_limit: float = Field(default=2.0, gt=0, le=256)
    """A grey level counts at most this many times its share of an even histogram; 1 hardly changes a tile, 2 to 4 are
    usual."""
    tiles: tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]] = (8, 8)
    """Rows and columns of tiles, each with a histogram of its own."""


class HistogramMatchConfig(Config):
    """Grey values of the foreground brought to a reference's, by one rising tone curve.

    The foreground is what is brighter than the threshold of N. Otsu (IEEE Trans. Syst. Man Cybern. 9, 1979); its
    quantiles take the reference's values, and what is darker is stretched or squeezed below, in its own order.
    """

    name: Literal["histogram_match"] = "histogram_match"
    reference: tuple[Annotated[FiniteFloat, Field(ge=0, le=1)], ...] | None = None
    """The reference's quantiles, evenly spaced from 0 to 1. None is the median over the foregrounds of training
    images, which the plan notes here."""

    @field_validator("reference")
    @classmethod
    def _rising(cls, reference: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if reference is not None and (len(reference) < 2 or (np.diff(reference) < 0).any()):
            raise ValueError("a reference is two numbers or more that do not fall")
        return reference


AnyStepConfig = Annotated[ClaheConfig | HistogramMatchConfig, Field(discriminator="name")]


def apply_step(image: Image, step: ClaheConfig | HistogramMatchConfig) -> Image:
    """Return an image ``(H, W)`` in 0..1 after a step, in 0..1.

    Raises:
        ConfigError: a histogram is to be matched and there is no reference.
    """
    return _clahe(image, step) if isinstance(step, ClaheConfig) else _match(image, step)


def foreground_curve(image: Image) -> Array | None:
    """Return the quantiles ``(CURVE,)`` of an image's foreground; None where it has none."""
    values = foreground(image)
    return None if values.size < _FEWEST else np.quantile(values, np.linspace(0, 1, CURVE))


def foreground(image: Image) -> Array:
    """Return the values of the pixels brighter than Otsu's threshold, from a regular sample of an image in 0..1."""
    sample = thinned(image)
    threshold, _ = cv2.threshold(_grey(sample), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # A grey level g holds what is nearer to it than half a level, so that 8 and 16 bits part at the same value.
    return np.asarray(sample[sample > (threshold + 0.5) / 255], dtype=np.float64)


def median_curve(curves: Iterable[Array | None]) -> tuple[float, ...]:
    """Return the reference of a set of images: the median of their quantile curves, quantile by quantile.

    Raises:
        ImageError: none of the images has a foreground.
    """
    known = [curve for curve in curves if curve is not None]
    if not known:
        raise ImageError("none of the images has a foreground to take a reference histogram from")
    # Medians of curves that do not fall do not fall either; rounding keeps that too.
    return tuple(np.round(np.median(known, axis=0), 5).tolist())


def thinned(image: NDArray[Any]) -> NDArray[Any]:
    """Return a grid of about 2^16 pixels: the same quantiles to well under one grey level, many times faster."""
    step = max(1, int(np.sqrt(image.size / 65536)))
    return image[::step, ::step]


def _grey(image: Image) -> NDArray[np.uint8]:
    return np.asarray(np.rint(image * np.float32(255)), dtype=np.uint8)


def _clahe(image: Image, step: ClaheConfig) -> Image:
    equalise = cv2.createCLAHE(step.clip_limit, (step.tiles[1], step.tiles[0]))
    return np.asarray(equalise.apply(_grey(image)), dtype=np.float32) / np.float32(255)


def _match(image: Image, step: HistogramMatchConfig) -> Image:
    if step.reference is None:
        raise ConfigError(
            "there is no reference to match histograms to",
            where="model.preprocess.steps",
            fix="give a reference, or let `bregma train` take it from the training images",
        )
    values = foreground(image)
    if values.size < _FEWEST:
        return image
    at = np.quantile(values, np.linspace(0, 1, len(step.reference)))
    x, y = _without_ties(at, np.asarray(step.reference))
    # Darker than the foreground: from black up to where the foreground begins.
    return np.interp(image, np.r_[0.0, x], np.r_[0.0, y]).astype(np.float32)


def _without_ties(x: Array, y: Array) -> tuple[Array, Array]:
    """Give each value its mean over the places where it occurs, as ranks do."""
    values, which, count = np.unique(x, return_inverse=True, return_counts=True)
    return values, np.bincount(which, weights=y) / count
