"""Frames, affine maps and how they carry points and covariances: the one place where coordinates are changed.

Points are ``(N, 2)`` arrays in ``(x, y)`` order, x right, y down, with the centre of the top-left pixel at ``(0, 0)``.
Affine maps are 3 × 3 float64 matrices acting on column vectors ``(x, y, 1)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bregma.errors import ImageError

Array = NDArray[np.float64]

SpacingSource = Literal[
    "dicom_pixel_spacing",
    "dicom_imager_pixel_spacing",
    "dicom_imager_magnification_corrected",
    "dicom_ultrasound_region",
    "nifti",
    "sidecar",
    "dataset",
    "phantom",
    "user",
    "none",
]


@dataclass(frozen=True)
class Frame:
    """The pixel grid of an image and its physical spacing with provenance.

    Attributes:
        shape: rows and columns.
        spacing: millimetres per pixel along x and along y, or None where no trusted spacing exists.
        spacing_source: where the spacing comes from.
        spacing_note: why there is none, or what to bear in mind (e.g. measured at the detector, not in the patient).
    """

    shape: tuple[int, int]
    spacing: tuple[float, float] | None = None
    spacing_source: SpacingSource = "none"
    spacing_note: str = ""

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ImageError("a frame needs rows and columns", expected="two positive numbers", got=str(self.shape))
        if self.spacing_source not in get_args(SpacingSource):
            raise ImageError("unknown spacing source", got=repr(self.spacing_source))
        if (self.spacing is None) != (self.spacing_source == "none"):
            raise ImageError("a spacing and its source go together", got=f"{self.spacing} from {self.spacing_source!r}")
        if self.spacing is not None and not all(math.isfinite(s) and s > 0 for s in self.spacing):
            raise ImageError("a spacing must be positive and finite", got=str(self.spacing))
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        if self.spacing is not None:
            object.__setattr__(self, "spacing", (float(self.spacing[0]), float(self.spacing[1])))

    @property
    def height(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.shape[1]

    def to_mm(self, vectors: ArrayLike) -> Array:
        """Scale pixel vectors ``(..., 2)`` to millimetres, per axis.

        Raises:
            ImageError: the frame has no trusted spacing.
        """
        if self.spacing is None:
            raise ImageError("there is no trusted spacing, so nothing can be given in millimetres")
        return np.multiply(np.asarray(vectors, dtype=np.float64), self.spacing)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Tell which points ``(..., 2)`` lie on the image, borders of the outer pixels included."""
        p = np.asarray(points, dtype=np.float64)
        return np.asarray(((p >= -0.5) & (p <= np.array([self.width, self.height]) - 0.5)).all(axis=-1))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "shape": list(self.shape),
            "spacing": None if self.spacing is None else list(self.spacing),
            "spacing_source": self.spacing_source,
            "spacing_note": self.spacing_note,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Frame:
        """Rebuild a frame from ``to_dict``."""
        spacing = data.get("spacing")
        return cls(
            (data["shape"][0], data["shape"][1]),
            None if spacing is None else (spacing[0], spacing[1]),
            data.get("spacing_source", "none"),
            data.get("spacing_note", ""),
        )


def identity() -> Array:
    """The map that changes nothing."""
    return np.eye(3)


def translate(dx: float, dy: float) -> Array:
    """Shift by ``(dx, dy)`` pixels."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def scale(sx: float, sy: float | None = None, *, about: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Scale by ``sx`` and ``sy`` about a fixed point."""
    sy = sx if sy is None else sy
    x, y = about
    return np.array([[sx, 0.0, x - sx * x], [0.0, sy, y - sy * y], [0.0, 0.0, 1.0]])


def rotate(degrees: float, *, about: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Rotate about a fixed point; positive turns x towards y, clockwise as seen on a screen."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = about
    return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y], [0.0, 0.0, 1.0]])


def flip_horizontal(width: int) -> Array:
    """Mirror an image of ``width`` columns left to right."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def resize(shape: tuple[int, int], new_shape: tuple[int, int]) -> Array:
    """Map pixels of ``shape`` onto ``new_shape`` with pixel edges aligned: ``x -> (x + 0.5) * s - 0.5``."""
    sy, sx = new_shape[0] / shape[0], new_shape[1] / shape[1]
    return scale(sx, sy, about=(-0.5, -0.5))


def letterbox(shape: tuple[int, int], new_shape: tuple[int, int]) -> Array:
    """Fit an image into ``new_shape`` with one scale for both axes, centred."""
    s = min(new_shape[0] / shape[0], new_shape[1] / shape[1])
    dx = (new_shape[1] - s * shape[1]) / 2
    dy = (new_shape[0] - s * shape[0]) / 2
    return compose(scale(s, about=(-0.5, -0.5)), translate(dx, dy))


def compose(*matrices: Array) -> Array:
    """Chain maps in the order in which they are applied: ``compose(first, second, ...)``."""
    result = np.eye(3)
    for matrix in matrices:
        result = matrix @ result
    return result


def invert(matrix: Array) -> Array:
    """Return the inverse map.

    Raises:
        ImageError: the map squashes the plane and cannot be undone.
    """
    if abs(np.linalg.det(matrix[:2, :2])) < 1e-12:
        raise ImageError("a map that squashes the image cannot be undone", got=str(matrix.tolist()))
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def apply(matrix: Array, points: ArrayLike) -> Array:
    """Map points ``(..., 2)``."""
    p = np.asarray(points, dtype=np.float64)
    return np.asarray(p @ matrix[:2, :2].T + matrix[:2, 2])


def apply_cov(matrix: Array, cov: ArrayLike) -> Array:
    """Push covariances ``(..., 2, 2)`` through a map: ``A Σ Aᵀ``, symmetric to the last digit."""
    linear = matrix[:2, :2]
    pushed = linear @ np.asarray(cov, dtype=np.float64) @ linear.T
    return np.asarray(0.5 * (pushed + pushed.swapaxes(-1, -2)))


def mean_scale(matrix: Array) -> float:
    """Return the factor by which a map changes lengths on average (root of the area factor)."""
    return float(math.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def warp(image: NDArray[Any], matrix: Array, shape: tuple[int, int], *, fill: float = 0.0) -> NDArray[np.float32]:
    """Resample an image ``(H, W)`` once through ``matrix`` (source to target pixels) onto ``shape``.

    When the map shrinks the image, the source is low-pass filtered first, so that fine detail does not alias.

    Raises:
        ImageError: the map squashes the plane.
    """
    source = low_pass(image, matrix)
    out = cv2.warpAffine(
        source,
        matrix[:2].astype(np.float64),
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.asarray(out, dtype=np.float32)


def low_pass(image: NDArray[Any], matrix: Array) -> NDArray[np.float32]:
    """Return the image ``(H, W)`` as float32, smoothed along each axis as far as the map's shrinking of it requires.

    A Gaussian of variance ``(f**2 - 1) / 4`` pixels², for an axis that shrinks by ``f``, brings a pixel's own blur
    (taken as 0.5 px) to that of the coarser grid, so that sampling there does not alias (Lowe, IJCV 2004, the same
    reasoning as for scale space).

    Raises:
        ImageError: the map squashes the plane.
    """
    source = np.asarray(image, dtype=np.float32)
    factors = np.linalg.norm(invert(matrix)[:2, :2], axis=1)
    if factors.max() <= 1.2:
        return source
    # OpenCV reads a deviation of 0 as "that of the other axis"; an axis that is left alone gets next to none.
    sigma_x, sigma_y = (0.5 * math.sqrt(f**2 - 1.0) if f > 1.2 else 1e-3 for f in factors)
    out = cv2.GaussianBlur(source, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(out, dtype=np.float32)


def weighted_median(values: Array, weights: Array) -> float:
    """Return the least of ``values (K,)`` up to which they have half of all ``weights (K,)``."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
