"""From an image to what a network sees: one intensity scaling and one affine map, shared by training and prediction.

Intensities: those between two percentiles of the image become 0..1 and what lies beyond is clipped; then come the
steps, if any; then the normalisation, which maps them linearly, within 0..1 again. Steps change the stored image once,
before it is resampled; the rest is linear and clipped, and is done after.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bregma import geometry
from bregma.config import Config
from bregma.data.steps import (
    AnyStepConfig,
    HistogramMatchConfig,
    apply_step,
    foreground_curve,
    median_curve,
    thinned,
)
from bregma.errors import ImageError
from bregma.geometry import Array, Frame
from bregma.types import Case

_FULL = 65535
"""Images that went through steps are kept as 16-bit numbers: as exact as any detector, half as large as floats."""
_SD_PER_IQR = 0.7413011092528009
"""Of the normal distribution: 1 / (2 Φ⁻¹(3/4))."""


class PreprocessConfig(Config):
    """How an image becomes the network's input."""

    size: tuple[int, int] = (256, 256)
    """Rows and columns of the network's input."""
    slices: int = Field(default=1, ge=1, le=31)
    """Neighbouring slices of a volume that the network sees at once, as channels; an odd number, the middle one that
    which landmarks lie on."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """``letterbox`` keeps the anatomy's proportions (in mm, where pixels are not square); ``stretch`` fills it."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Intensities at these percentiles of the image become 0 and 1; what lies beyond is clipped."""
    steps: tuple[AnyStepConfig, ...] = ()
    """Changes of the clipped intensities, in order: ``{name: clahe}``, ``{name: histogram_match}``."""
    normalise: Literal["window", "robust", "zscore"] = "window"
    """What follows: ``window`` leaves 0..1 as it is; ``zscore`` brings the image's mean to 0.5, and ``normalise_sd``
    standard deviations either side to 0 and 1; ``robust`` does so with the median and the interquartile range (over
    1.349, which is the standard deviation where values are normal). An image without spread stays as it is."""
    normalise_sd: float = Field(default=3.0, gt=0, le=100)
    """Standard deviations from the centre that become 0 and 1 with ``robust`` and ``zscore``; beyond is clipped."""

    @model_validator(mode="after")
    def _check(self) -> PreprocessConfig:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles must ascend within 0 and 100, got {low} and {high}")
        if self.slices % 2 == 0:
            raise ValueError(f"slices must be an odd number, as many either side of the middle one, got {self.slices}")
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 x 16, got {self.size[0]} x {self.size[1]}")
        if sum(isinstance(step, HistogramMatchConfig) for step in self.steps) > 1:
            raise ValueError("histograms can be matched once")
        return self


class Normalised(Config):
    """The linear intensity map of one image: ``(value - offset) * gain``, clipped to ``bounds`` within 0..1."""

    offset: float
    gain: float = Field(gt=0)
    bounds: tuple[float, float] = (0.0, 1.0)
    """What the image's percentiles become."""

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Scale intensities to 0..1."""
        scaled = (np.asarray(image, dtype=np.float32) - np.float32(self.offset)) * np.float32(self.gain)
        return np.clip(scaled, np.float32(self.bounds[0]), np.float32(self.bounds[1]), out=scaled)

    @property
    def black(self) -> float:
        """The intensity of what lies beyond the image: its own darkest."""
        return self.offset + self.bounds[0] / self.gain


_STORED = Normalised(offset=0.0, gain=1.0 / _FULL)
"""The intensity map of images that went through steps."""


def prepare(
    image: NDArray[Any], config: PreprocessConfig, *, where: str | Path | None = None
) -> tuple[NDArray[Any], Normalised]:
    """Return an image ``(H, W)`` after its steps, and the intensity map that follows.

    Without steps it is the image itself.

    Raises:
        ImageError: see :func:`intensity_map`.
        ConfigError: a histogram is to be matched and there is no reference.
    """
    if not config.steps:
        return image, intensity_map(image, config, where=where)
    stored = _stepped(_window(image, config, where)(image), config)
    return stored, _normalised(_STORED, stored, config)


def _stepped(image: NDArray[np.float32], config: PreprocessConfig) -> NDArray[np.uint16]:
    for step in config.steps:
        image = apply_step(image, step)
    return np.rint(image * np.float32(_FULL)).astype(np.uint16)


def prepare_slices(
    slices: NDArray[Any], config: PreprocessConfig, *, where: str | Path | None = None
) -> tuple[NDArray[Any], Normalised]:
    """Return slices ``(S, H, W)`` of one volume after their steps, and the intensity map that they share.

    It is that of the ``config.slices`` in the middle, so that more slices beside them change nothing.

    Raises:
        ImageError: see :func:`intensity_map`.
        ConfigError: a histogram is to be matched and there is no reference.
    """
    first = (len(slices) - config.slices) // 2
    middle = slice(first, first + config.slices)
    if not config.steps:
        return slices, intensity_map(_tall(slices[middle]), config, where=where)
    window = _window(_tall(slices[middle]), config, where)
    stored = np.stack([_stepped(window(one), config) for one in slices])
    return stored, _normalised(_STORED, _tall(stored[middle]), config)


def _tall(slices: NDArray[Any]) -> NDArray[Any]:
    """Lay slices below each other, as one image that has their quantiles."""
    return slices.reshape(-1, slices.shape[-1])


def intensity_map(image: NDArray[Any], config: PreprocessConfig, *, where: str | Path | None = None) -> Normalised:
    """Return the intensity map of an image ``(H, W)`` from its percentiles and normalisation, without steps.

    Args:
        image: the pixels.
        config: which percentiles, and what follows.
        where: the file or case, for errors.

    Raises:
        ImageError: not one channel, or pixels that are not finite.
    """
    return _normalised(_window(image, config, where), image, config)


def reference_curve(cases: Iterable[Case], config: PreprocessConfig) -> tuple[float, ...]:
    """Return what histograms are to be matched to: the median over the foregrounds of training images.

    Each is taken through the percentiles, and the steps that come before the matching.

    Raises:
        ImageError: an image cannot be read, or none has a foreground.
    """
    return median_curve(foreground_curve(_before_matching(case, config)) for case in cases)


def _before_matching(case: Case, config: PreprocessConfig) -> NDArray[np.float32]:
    image = case.image.load()
    stepped = _window(image, config, case.image.path or case.id)(image)
    for step in config.steps:
        if isinstance(step, HistogramMatchConfig):
            break
        stepped = apply_step(stepped, step)
    return stepped


def _window(image: NDArray[Any], config: PreprocessConfig, where: str | Path | None) -> Normalised:
    if image.ndim != 2:
        raise ImageError("an image must have one channel", where=where, expected="(H, W)", got=str(image.shape))
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ImageError("the image holds pixels that are not finite numbers", where=where)
    values = thinned(image).astype(np.float64)
    low, high = np.percentile(values, config.percentiles)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return Normalised(offset=float(low), gain=1.0 / max(float(high - low), 1e-6))


def _normalised(window: Normalised, image: NDArray[Any], config: PreprocessConfig) -> Normalised:
    """Follow a map onto 0..1 by the normalisation, whose centre and spread are those of the mapped image."""
    if config.normalise == "window":
        return window
    values = window(thinned(image))
    centre, spread = _centre_and_spread(values, config.normalise)
    if spread < 1e-6:
        return window
    # w = (v - offset) * gain becomes (w - black) * slope.
    slope = 0.5 / (config.normalise_sd * spread)
    black = centre - config.normalise_sd * spread
    ends = (max(0.0, -black * slope), min(1.0, (1.0 - black) * slope))
    return Normalised(offset=window.offset + black / window.gain, gain=window.gain * slope, bounds=ends)


def _centre_and_spread(values: NDArray[np.float32], how: Literal["robust", "zscore"]) -> tuple[float, float]:
    if how == "robust":
        lower, median, upper = (float(q) for q in np.percentile(values, (25, 50, 75)))
        if upper > lower:
            return median, (upper - lower) * _SD_PER_IQR
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def input_matrix(frame: Frame, config: PreprocessConfig) -> Array:
    """Return the 3 × 3 map from pixels of the original image to pixels of the network's input."""
    if config.fit == "stretch":
        return geometry.resize(frame.shape, config.size)
    aspect = 1.0 if frame.spacing is None else frame.spacing[1] / frame.spacing[0]
    if abs(aspect - 1.0) < 0.01:
        return geometry.letterbox(frame.shape, config.size)
    # Rows and columns differ in mm: make the pixels square first, then fit.
    square = (max(1, round(frame.height * aspect)), frame.width)
    return geometry.compose(geometry.resize(frame.shape, square), geometry.letterbox(square, config.size))
