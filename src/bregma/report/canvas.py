"""A drawing surface for overlays: smooth sub-pixel shapes over a grey image, and text that stays legible on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from bregma.errors import ImageError
from bregma.geometry import Array, resize

Colour = tuple[int, int, int]
Rgb = NDArray[np.uint8]

# Okabe and Ito's palette (Color Universal Design, 2008), told apart with any common colour vision.
TRUTH: Colour = (86, 180, 233)
PREDICTION: Colour = (230, 159, 0)
MEASURE: Colour = (240, 228, 66)
ERROR: Colour = (255, 255, 255)
DOUBT: Colour = (255, 64, 64)
SHADE: Colour = (0, 0, 0)
PAPER: Colour = (22, 25, 30)
INK: Colour = (232, 234, 237)
FAINT_INK: Colour = (168, 175, 184)

_SUPERSAMPLE = 2
_SHIFT = 6
_MOST_DASHES = 500


@lru_cache(maxsize=64)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which every Matplotlib carries, at ``size`` pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def text_size(text: str, size: int, *, bold: bool = False) -> tuple[int, int]:
    """Return width and height in pixels of one line of text."""
    box = font(size, bold=bold).getbbox(text, anchor="lt")
    return int(np.ceil(box[2])), int(np.ceil(box[3]))


def window(image: ArrayLike, *, low: float = 0.5, high: float = 99.5) -> Rgb:
    """Map an image ``(H, W)`` of any number type to grey 0 to 255 between two percentiles.

    Raises:
        ImageError: the image is not two-dimensional or is empty.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 2 or pixels.size == 0 or not np.issubdtype(pixels.dtype, np.number) | (pixels.dtype == bool):
        raise ImageError("cannot be drawn", expected="numbers (H, W)", got=f"{pixels.dtype} {pixels.shape}")
    grey = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    black, white = np.percentile(grey, (low, high))
    if white <= black:
        black, white = float(grey.min()), float(grey.max())
    span = max(float(white - black), 1e-12)
    return np.asarray(np.clip((grey - black) / span, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def drawn_shape(shape: tuple[int, int], size: int, spacing: tuple[float, float] | None = None) -> tuple[int, int]:
    """Return rows and columns of the picture whose long side is ``size``, with square pixels in the patient."""
    sx, sy = spacing or (1.0, 1.0)
    height, width = shape[0] * sy, shape[1] * sx
    factor = size / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


@dataclass(frozen=True)
class _Text:
    at: tuple[float, float]
    text: str
    colour: Colour
    size: int
    bold: bool


class Canvas:
    """A grey image, enlarged, on which shapes are drawn in the picture's own pixels.

    Shapes are drawn at twice the size and averaged down, so that lines of fractional width stay smooth. Coordinates
    follow the convention of the library: the centre of the top-left pixel of the picture is ``(0, 0)``.
    """

    def __init__(self, grey: Rgb, shape: tuple[int, int], *, margin: int = 0) -> None:
        self.shape = (shape[0], shape[1] + margin)
        big = (shape[0] * _SUPERSAMPLE, shape[1] * _SUPERSAMPLE)
        shrinks = big[0] < grey.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        enlarged = cv2.resize(grey, (big[1], big[0]), interpolation=method)
        self._big = np.full((big[0], big[1] + margin * _SUPERSAMPLE, 3), PAPER, dtype=np.uint8)
        self._big[:, : big[1]] = enlarged[..., None]
        self._to_big = resize(shape, big)
        self._texts: list[_Text] = []

    def line(
        self, points: ArrayLike, colour: Colour, width: float, *, alpha: float = 1.0, closed: bool = False
    ) -> None:
        """Draw a polyline ``(P, 2)``."""
        path = [self._fixed(points)]

        def draw(target: NDArray[Any]) -> None:
            cv2.polylines(target, path, closed, colour, self._width(width), cv2.LINE_AA, _SHIFT)

        self._blend(draw, alpha)

    def dashes(self, start: Array, end: Array, colour: Colour, width: float, *, dash: float) -> None:
        """Draw a dashed line between two points; longer dashes where it leads far off the picture."""
        length = float(np.hypot(*(end - start)))
        count = max(1, round(min(length / (2 * dash), _MOST_DASHES)))
        stops = np.linspace(0.0, 1.0, 2 * count)
        for a, b in zip(stops[::2], stops[1::2]):
            self.line([start + a * (end - start), start + b * (end - start)], colour, width)

    def polygon(self, points: ArrayLike, colour: Colour, *, alpha: float) -> None:
        """Fill a polygon ``(P, 2)``."""
        path = [self._fixed(points)]
        self._blend(lambda target: cv2.fillPoly(target, path, colour, cv2.LINE_AA, _SHIFT), alpha)

    def disc(self, centre: Array, radius: float, colour: Colour) -> None:
        """Draw a filled disc."""
        x, y = self._fixed(centre[None])[0]
        r = round(radius * _SUPERSAMPLE * 2**_SHIFT)
        cv2.circle(self._big, (int(x), int(y)), r, colour, -1, cv2.LINE_AA, _SHIFT)

    def ring(self, centre: Array, radius: float, colour: Colour, width: float) -> None:
        """Draw a circle."""
        x, y = self._fixed(centre[None])[0]
        r = round(radius * _SUPERSAMPLE * 2**_SHIFT)
        cv2.circle(self._big, (int(x), int(y)), r, colour, self._width(width), cv2.LINE_AA, _SHIFT)

    def text(self, at: tuple[float, float], text: str, colour: Colour, size: int, *, bold: bool = False) -> None:
        """Write one line with its top-left corner at ``at``; texts lie above all shapes."""
        self._texts.append(_Text(at, text, colour, size, bold))

    def finish(self) -> Rgb:
        """Return the picture ``(H, W, 3)``."""
        small = cv2.resize(self._big, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_AREA)
        picture = Image.fromarray(small)
        pen = ImageDraw.Draw(picture)
        for item in self._texts:
            stroke = max(1, round(item.size / 7))
            face = font(item.size, bold=item.bold)
            pen.text(item.at, item.text, item.colour, face, anchor="lt", stroke_width=stroke, stroke_fill=SHADE)
        return np.asarray(picture, dtype=np.uint8)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        big = np.asarray(points, dtype=np.float64) @ self._to_big[:2, :2].T + self._to_big[:2, 2]
        # OpenCV takes fixed-point integers; a wild prediction must not overflow them.
        return np.asarray(np.rint(np.clip(big, -1e5, 1e5) * 2**_SHIFT), dtype=np.int32)

    def _width(self, width: float) -> int:
        return max(1, round(width * _SUPERSAMPLE))

    def _blend(self, draw: Any, alpha: float) -> None:
        if alpha >= 1.0:
            draw(self._big)
            return
        layer = self._big.copy()
        draw(layer)
        cv2.addWeighted(layer, alpha, self._big, 1.0 - alpha, 0.0, dst=self._big)


class LabelPlacer:
    """Finds room for labels near their points, inside the picture and clear of one another."""

    def __init__(self, shape: tuple[int, int], obstacles: Sequence[Array] = (), radius: float = 0.0) -> None:
        self._height, self._width = shape
        self._taken = [(float(x) - radius, float(y) - radius, 2 * radius, 2 * radius) for x, y in obstacles]

    def avoid(self, start: Array, end: Array, thickness: float) -> None:
        """Keep labels off a line."""
        steps = max(2, int(np.hypot(*(end - start)) / max(thickness, 1.0)) + 1)
        for x, y in np.linspace(start, end, min(steps, 64)):
            self._taken.append((float(x) - thickness / 2, float(y) - thickness / 2, thickness, thickness))

    def place(self, anchor: Array, size: tuple[int, int], gap: float) -> tuple[float, float]:
        """Return the top-left corner for a label of ``size`` near ``anchor`` and keep that room."""
        width, height = size
        best, best_cost = (0.0, 0.0), float("inf")
        for rank, (dx, dy) in enumerate(_directions(gap, width, height)):
            x = min(max(float(anchor[0]) + dx, 2.0), max(2.0, self._width - width - 2.0))
            y = min(max(float(anchor[1]) + dy, 2.0), max(2.0, self._height - height - 2.0))
            cost = sum(_overlap((x, y, width, height), box) for box in self._taken) + 0.01 * rank
            if cost < best_cost:
                best, best_cost = (x, y), cost
        self._taken.append((best[0] - 2, best[1] - 2, width + 4, height + 4))
        return best


def _directions(gap: float, width: int, height: int) -> list[tuple[float, float]]:
    near = [
        (gap, -height / 2),
        (-gap - width, -height / 2),
        (-width / 2, -gap - height),
        (-width / 2, gap),
        (gap, -gap - height),
        (gap, gap),
        (-gap - width, -gap - height),
        (-gap - width, gap),
    ]
    return [*near, *((dx * 1.0, dy + s * 2.2 * height) for s in (-1, 1) for dx, dy in near)]


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0.0, w) * max(0.0, h)
