"""The frontal chest as borders in millimetres: lungs, mediastinum with heart, diaphragm; and the points that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from bregma.geometry import Array
from bregma.phantoms.base import Rng
from bregma.phantoms.drawing import Image
from bregma.phantoms.sampling import TruncatedNormal

Shape = tuple[tuple[float, float], ...]
"""Points of a border: share of the lung's height, mm from the axis."""
LEVELS = {"upper": 0.25, "middle": 0.5, "lower": 0.75}
"""Levels of the published points between apices and costophrenic angles."""


@dataclass(frozen=True)
class Lung:
    """One side's borders, mm: ``x`` is the distance from the axis, ``y`` counts down from about the apices."""

    apex: tuple[float, float]
    base: tuple[float, float]
    """The costophrenic angle."""
    width: float
    """The thorax's greatest inner width on this side."""
    widest: float
    """Where along the height it is reached, 0 to 1."""
    dome: float
    """Height of the diaphragm above the costophrenic angle."""
    heart: float = 0.0
    """The heart's greatest width on this side."""
    heart_level: float = 0.7
    """Where along the height it is reached."""
    border: Shape = ()
    """Further points of the border of mediastinum and heart."""

    def height_share(self, y: ArrayLike) -> Array:
        """Return 0 at the apex, 1 at the costophrenic angle."""
        return np.asarray((np.asarray(y, dtype=np.float64) - self.apex[1]) / (self.base[1] - self.apex[1]))

    def outer(self, y: ArrayLike) -> Array:
        """Return the inner border of the rib cage; greatest, and level, at ``widest``."""
        t = self.height_share(y)
        above = np.clip(1 - t / self.widest, 0, 1)
        below = np.clip((t - self.widest) / (1 - self.widest), 0, 1.6)
        rise = self.apex[0] + (self.width - self.apex[0]) * np.sqrt(1 - above**2.4)
        return np.asarray(rise - (self.width - self.base[0]) * below**2)

    def inner(self, y: ArrayLike) -> Array:
        """Return the border of mediastinum and heart; greatest, and level, at ``heart_level``."""
        share, x = zip(*sorted((*self.border, (self.heart_level, self.heart))), strict=True)
        t = self.height_share(y)
        border = PchipInterpolator(share, x)(np.clip(t, share[0], share[-1]))
        cupola = 1 - np.sqrt(1 - np.clip(1 - t / 0.13, 0, 1) ** 2)
        return np.asarray(border + (self.apex[0] - border) * cupola)

    def diaphragm(self, x: ArrayLike) -> Array:
        """Return the level of the dome at the distance ``x`` from the axis."""
        s = np.asarray(x, dtype=np.float64) / self.base[0]
        lateral = 1 - np.clip((s - 0.42) / 0.58, 0, 1) ** 2.2
        medial = 1 - 0.22 * np.clip((0.42 - s) / 0.42, 0, 1) ** 2
        return np.asarray(self.base[1] - self.dome * lateral * medial)


@dataclass(frozen=True)
class Chest:
    """A person: two lungs and the depth of the body, mm."""

    right: Lung
    left: Lung
    depth: float
    wall: float
    """Thickness of the chest wall at the sides."""

    @property
    def apex_level(self) -> float:
        """Mean level of the apices, mm."""
        return (self.right.apex[1] + self.left.apex[1]) / 2

    @property
    def base_level(self) -> float:
        """Mean level of the costophrenic angles, mm."""
        return (self.right.base[1] + self.left.base[1]) / 2

    @property
    def ratio(self) -> float:
        """The cardiothoracic ratio."""
        return (self.right.heart + self.left.heart) / (self.right.width + self.left.width)


@dataclass(frozen=True)
class ChestView:
    """Where the chest lies on the image: the axis and the level of y = 0 in px, and mm per px."""

    shape: tuple[int, int]
    spacing: float
    axis: float
    top: float

    def place(self, x_mm: float, y_mm: float) -> tuple[float, float]:
        """Return pixel coordinates; ``x_mm`` is positive to the patient's left."""
        return self.axis + x_mm / self.spacing, self.top + y_mm / self.spacing

    def grid(self) -> tuple[Image, Image]:
        """Return mm coordinates ``x`` ``(1, W)`` and ``y`` ``(H, 1)`` of the pixels."""
        x = (np.arange(self.shape[1]) - self.axis) * self.spacing
        y = (np.arange(self.shape[0]) - self.top) * self.spacing
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def sample_chest(ratio: TruncatedNormal, width_mm: TruncatedNormal, rng: Rng) -> Chest:
    """Draw a person.

    Args:
        ratio: distribution of the cardiothoracic ratio.
        width_mm: distribution of the greatest inner thoracic width.
        rng: the subject's.
    """
    width = width_mm.draw(rng)
    heart = ratio.draw(rng) * width
    height = width * float(rng.uniform(0.86, 1.06))
    share, heart_share = float(rng.uniform(0.485, 0.515)), float(rng.uniform(0.28, 0.36))
    right = _sample_lung(share * width, height, (0.19, 0.25), rng)
    left = _sample_lung((1 - share) * width, height, (0.16, 0.22), rng)
    return Chest(
        right=_with_heart(right, heart_share * heart, float(rng.uniform(0.08, 0.16)), _right_border),
        left=_with_heart(left, (1 - heart_share) * heart, float(rng.uniform(0.04, 0.08)), _left_border),
        depth=width * float(rng.uniform(0.68, 0.8)),
        wall=float(rng.uniform(14, 34)),
    )


def _sample_lung(width: float, height: float, dome: tuple[float, float], rng: Rng) -> Lung:
    return Lung(
        apex=(width * float(rng.uniform(0.38, 0.46)), float(rng.normal(0, 0.01)) * height),
        base=(width * float(rng.uniform(0.95, 0.985)), height * (1 + float(rng.normal(0, 0.012)))),
        width=width,
        widest=float(rng.uniform(0.78, 0.88)),
        dome=height * float(rng.uniform(*dome)),
    )


def _with_heart(lung: Lung, heart: float, above_dome: float, border: Callable[[float], Shape]) -> Lung:
    """Add the heart, widest a little above the diaphragm, where its border is seen against the lung."""
    level = 1 - lung.dome / (lung.base[1] - lung.apex[1]) - above_dome
    return replace(lung, heart=heart, heart_level=level, border=border(heart))


def _right_border(heart: float) -> Shape:
    """Superior vena cava, then the right atrium."""
    cava = min(27.0, 0.8 * heart)
    upper = ((0.0, cava), (0.12, cava), (0.36, 0.9 * cava + 0.1 * heart), (0.5, 0.38 * cava + 0.62 * heart))
    return (*upper, (0.88, 0.86 * heart), (1.1, 0.62 * heart))


def _left_border(heart: float) -> Shape:
    """Subclavian artery, aortic knob, pulmonary trunk, then the left ventricle."""
    knob = min(37.0, 0.6 * heart)
    upper = ((0.0, 0.72 * knob), (0.14, 0.76 * knob), (0.24, knob), (0.31, 0.86 * knob))
    return (*upper, (0.41, 0.55 * knob + 0.3 * heart), (0.56, 0.72 * heart), (0.92, 0.84 * heart), (1.1, 0.6 * heart))


def chest_points(chest: Chest, view: ChestView) -> dict[str, tuple[float, float]]:
    """Return the points of schema ``chest_ctr`` in px."""
    top, bottom = chest.apex_level, chest.base_level
    points = {"axis_top": view.place(0, top), "axis_bottom": view.place(0, bottom)}
    points |= {f"axis_{name}": view.place(0, top + share * (bottom - top)) for name, share in LEVELS.items()}
    for side, lung, sign in (("right", chest.right, -1), ("left", chest.left, 1)):
        for name, share in LEVELS.items():
            y = top + share * (bottom - top)
            points[f"lung_{side}_{name}"] = view.place(sign * float(lung.outer(y)), y)
        span = lung.base[1] - lung.apex[1]
        points[f"apex_{side}"] = view.place(sign * lung.apex[0], lung.apex[1])
        points[f"costophrenic_{side}"] = view.place(sign * lung.base[0], lung.base[1])
        points[f"heart_{side}"] = view.place(sign * lung.heart, lung.apex[1] + lung.heart_level * span)
        points[f"thorax_inner_{side}"] = view.place(sign * lung.width, lung.apex[1] + lung.widest * span)
    return points
