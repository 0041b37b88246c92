"""From an image to what a network sees: one intensity scaling and one affine map, shared by training and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bregma import geometry
from bregma.config import Config
from bregma.errors import ImageError
from bregma.geometry import Array, Frame


class PreprocessConfig(Config):
    """How an image becomes the network's input."""

    size: tuple[int, int] = (256, 256)
    """Rows and columns of the network's input."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """``letterbox`` keeps the anatomy's proportions (in mm, where pixels are not square); ``stretch`` fills it."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Intensities at these percentiles of the image become 0 and 1; what lies beyond is clipped."""

    @model_validator(mode="after")
    def _check(self) -> PreprocessConfig:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles must ascend within 0 and 100, got {low} and {high}")
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 x 16, got {self.size[0]} x {self.size[1]}")
        return self


class Normalised(Config):
    """The linear intensity map of one image: ``(value - offset) * gain``, clipped to 0..1."""

    offset: float
    gain: float = Field(gt=0)

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Scale intensities to 0..1."""
        scaled = (np.asarray(image, dtype=np.float32) - np.float32(self.offset)) * np.float32(self.gain)
        return np.clip(scaled, 0.0, 1.0, out=scaled)


def intensity_map(image: NDArray[Any], config: PreprocessConfig, *, where: str | Path | None = None) -> Normalised:
    """Return the intensity map of an image ``(H, W)`` from its percentiles.

    Args:
        image: the pixels.
        config: which percentiles.
        where: the file or case, for errors.

    Raises:
        ImageError: not one channel, or pixels that are not finite.
    """
    if image.ndim != 2:
        raise ImageError("an image must have one channel", where=where, expected="(H, W)", got=str(image.shape))
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ImageError("the image holds pixels that are not finite numbers", where=where)
    # A grid of at most about 2^16 pixels gives the same percentiles to well under one grey level, ten times faster.
    step = max(1, int(np.sqrt(image.size / 65536)))
    values = image[::step, ::step].astype(np.float64)
    low, high = np.percentile(values, config.percentiles)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return Normalised(offset=float(low), gain=1.0 / max(float(high - low), 1e-6))


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
