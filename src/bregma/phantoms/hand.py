"""Posteroanterior radiograph of a child's or young adult's hand, as a ray-sum of hollow bones in soft tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.interpolate import PchipInterpolator

from bregma import geometry
from bregma.config import Config
from bregma.geometry import Array
from bregma.phantoms.base import Difficulty, Phantom, PhantomSettings, Rng
from bregma.phantoms.drawing import (
    Image,
    add_scatter,
    blur,
    correlated_noise,
    quantum_noise,
    ramp,
    to_display,
    write_marker,
)
from bregma.phantoms.hand_anatomy import (
    FINGERS,
    Carpal,
    ForearmBone,
    Hand,
    TubularBone,
    hand_points,
    pose_hand,
    sample_build,
)

SOFT_TISSUE = 0.022
"""Linear attenuation of soft tissue at about 50 keV, 1/mm."""
CORTEX, SPONGIOSA = 0.085, 0.032
"""Linear attenuation of compact and of cancellous bone beyond that of soft tissue, 1/mm."""


class HandNuisance(Config):
    """What makes a hand radiograph hard to read; the defaults are the medium difficulty."""

    photons: float = Field(default=9000.0, gt=0)
    """Quanta that a pixel collects beside the hand; fewer mean more noise."""
    scatter: float = Field(default=0.08, ge=0, lt=1)
    """Share of scattered radiation."""
    blur_px: float = Field(default=0.6, ge=0)
    """Deviation of the point-spread function, for 512 rows."""
    rotation_deg: float = Field(default=6.0, ge=0)
    """Deviation of the hand's rotation in the image plane; 25 degrees are never exceeded."""
    spread_deg: float = Field(default=4.0, ge=0)
    """Deviation of the fingers' directions."""
    exposure: float = Field(default=0.35, ge=0)
    """Spread of the display's window and gamma."""
    clutter: float = Field(default=0.5, ge=0, le=1)
    """How often markers and film labels show."""


NUISANCE: dict[Difficulty, HandNuisance] = {
    "easy": HandNuisance(
        photons=30000.0, scatter=0.04, blur_px=0.4, rotation_deg=3.0, spread_deg=2.0, exposure=0.1, clutter=0.0
    ),
    "medium": HandNuisance(),
    "hard": HandNuisance(
        photons=2500.0, scatter=0.2, blur_px=1.0, rotation_deg=12.0, spread_deg=7.0, exposure=0.8, clutter=1.0
    ),
}
"""Difficulty to nuisance."""


class HandSettings(PhantomSettings):
    """Settings of the hand radiograph."""

    size: tuple[int, int] = (512, 384)
    """Rows and columns of the image; one number stands for a square."""
    age_years: tuple[float, float] = (7.0, 19.0)
    """Range of age, drawn uniformly; growth plates close towards 17."""
    side: Literal["left", "right", "either"] = "left"
    """Which hand; the thumb of a left one is on the right of the image."""
    nuisance: HandNuisance | None = None
    """Replaces the nuisance that the difficulty stands for."""

    @field_validator("age_years")
    @classmethod
    def _carpals_ossified(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 7 <= value[0] <= value[1] <= 90:
            raise ValueError(f"needs two ascending ages from 7 to 90, not {value[0]} and {value[1]}")
        return value

    @property
    def resolved_nuisance(self) -> HandNuisance:
        """The nuisance in force."""
        return self.nuisance or NUISANCE[self.difficulty]


@dataclass(frozen=True)
class HandView:
    """Where the hand lies in the image: the map from its millimetres to pixels, and mm per px."""

    to_px: Array
    spacing: float
    shape: tuple[int, int]


def draw_hand(settings: HandSettings, subject_rng: Rng, image_rng: Rng) -> Phantom:
    """Draw one hand radiograph; targets are ``age_years`` and ``wrist_width_mm``."""
    nuisance = settings.resolved_nuisance
    build = sample_build(float(subject_rng.uniform(*settings.age_years)), subject_rng)
    right = settings.side == "right" or (settings.side == "either" and subject_rng.random() < 0.5)
    hand = pose_hand(build, nuisance.spread_deg, image_rng)
    view = _sample_view(settings, nuisance, hand, right, image_rng)
    points = {name: geometry.apply(view.to_px, point) for name, point in hand_points(hand).items()}
    return Phantom(
        pixels=_expose(
            _soft_tissue(hand, view) + _bones(hand, view, image_rng), view, nuisance, "R" if right else "L", image_rng
        ),
        points={name: (float(x), float(y)) for name, (x, y) in points.items()},
        spacing=(view.spacing, view.spacing),
        targets={"age_years": hand.age, "wrist_width_mm": hand.wrist_width},
        tags={"side": "right" if right else "left"},
    )


def _sample_view(settings: HandSettings, nuisance: HandNuisance, hand: Hand, right: bool, rng: Rng) -> HandView:
    """Fit the fingers into the image with a margin; the forearm leaves it below."""
    height, width = settings.size
    mirror = geometry.scale(-1.0 if right else 1.0, 1.0)
    turn = geometry.compose(mirror, geometry.rotate(float(np.clip(rng.normal(0, nuisance.rotation_deg), -25, 25))))
    margin, forearm = 14 * hand.scale, float(rng.uniform(8, 30)) * hand.scale
    box = geometry.apply(turn, [*hand_points(hand).values(), (-20 * hand.scale, forearm), (20 * hand.scale, forearm)])
    low, high = box.min(axis=0) - margin, box.max(axis=0) + np.array([margin, 0])
    room = float(rng.uniform(1.0, 1.2))
    spacing = settings.spacing or float(((high - low) / (width, height)).max()) * room
    free = np.maximum(np.array([width, height]) - (high - low) / spacing, 0)
    corner = free * (rng.uniform(0.2, 0.8), rng.uniform(0.6, 1.0)) - 0.5
    to_px = geometry.compose(turn, geometry.translate(-low[0], -low[1]), geometry.scale(1 / spacing))
    return HandView(geometry.compose(to_px, geometry.translate(*corner)), spacing, settings.size)


def _patch(view: HandView, corners: Array) -> tuple[tuple[slice, slice], Image, Image]:
    """Return the part of the image around the corners ``(N, 2)`` in mm, and the mm coordinates of its pixels."""
    px = geometry.apply(view.to_px, corners)
    limit = np.array([view.shape[1], view.shape[0]])
    low = np.clip(np.floor(px.min(axis=0)) - 1, 0, limit).astype(int)
    high = np.clip(np.ceil(px.max(axis=0)) + 2, low, limit).astype(int)
    back = geometry.invert(view.to_px)
    x, y = np.arange(low[0], high[0])[None, :], np.arange(low[1], high[1])[:, None]
    u, v = (back[row, 0] * x + back[row, 1] * y + back[row, 2] for row in (0, 1))
    return (slice(low[1], high[1]), slice(low[0], high[0])), u.astype(np.float32), v.astype(np.float32)


def _bones(hand: Hand, view: HandView, rng: Rng) -> Image:
    """Return the attenuation of all bones beyond that of the soft tissue they replace."""
    total = np.zeros(view.shape, dtype=np.float32)
    grain = 1 + np.float32(0.06) * correlated_noise(rng, view.shape, 1.6 / view.spacing, octaves=2)
    for bone in hand.tubular:
        _add_tubular(total, view, bone, hand.plates)
    for carpal in hand.carpals.values():
        _add_carpal(total, view, carpal)
    for forearm in (hand.radius, hand.ulna):
        _add_forearm(total, view, forearm, hand.plates)
    return total * grain


def _chord(offset: Image, half: Image) -> Image:
    """Return the path of a ray that passes a round section of half-width ``half`` at ``offset``."""
    return np.asarray(2 * np.sqrt(np.clip(half * half - offset * offset, 0, None)), dtype=np.float32)


def _hollow(offset: Image, half: Image, wall: Image, pith: Image) -> Image:
    """Return the attenuation of a round bone: a wall of compact bone around ``pith`` (0 marrow to 1 cancellous)."""
    outer, inner = _chord(offset, half), _chord(offset, np.maximum(half - wall, 0))
    return np.asarray(CORTEX * (outer - inner) + SPONGIOSA * pith * inner, dtype=np.float32)


def _add_tubular(total: Image, view: HandView, bone: TubularBone, plate_mm: float) -> None:
    width = max(bone.widths)
    (ax, ay), length = bone.axis, bone.length
    ends = np.array([bone.along(-1), bone.along(length + 1)])
    corners = np.concatenate([ends + np.array([ay, -ax]) * side * (width + 1) for side in (-1, 1)])
    place, x, y = _patch(view, corners)
    dx, dy = x - np.float32(bone.base[0]), y - np.float32(bone.base[1])
    u = dx * np.float32(ax) + dy * np.float32(ay)
    v = dy * np.float32(ax) - dx * np.float32(ay)
    steps, half, wall, pith = _tubular_profile(bone)
    half_u, wall_u, pith_u = (np.interp(u, steps, table, 0, 0).astype(np.float32) for table in (half, wall, pith))
    from_plate_end = np.asarray(u if bone.plate == "base" else np.float32(length) - u, dtype=np.float32)
    total[place] += _hollow(v, half_u, wall_u, pith_u) * _plate(from_plate_end, bone, plate_mm)


def _tubular_profile(bone: TubularBone) -> tuple[Array, Array, Array, Array]:
    """Return distance from the base, half-width, wall and filling, tabulated along the bone."""
    base, shaft, head = bone.widths
    share = 0.5 - 0.5 * np.cos(np.linspace(0, math.pi, 97))
    knots = (0.0, 0.10, 0.30, 0.55, 0.80, 0.92, 1.0)
    flare = (base * 0.97, base, shaft * 1.15, shaft, shaft * (1.0 if bone.tuft else 1.15), head * 0.97, head * 0.95)
    u = share * bone.length
    caps = [np.clip(1 - u / (0.22 * base), 0, 1), np.clip(1 - (bone.length - u) / (0.72 * head), 0, 1)]
    half = PchipInterpolator(knots, flare)(share) * np.sqrt((1 - caps[0] ** 2) * (1 - caps[1] ** 2))
    middle = np.exp(-(((share - 0.52) / 0.26) ** 2))
    return u, half, 0.09 * base + 0.36 * shaft * middle, 1 - 0.75 * middle


def _plate(u: Image, bone: TubularBone, plate_mm: float) -> Image:
    """Return 1, and less where the growth plate interrupts the bone; a closed one leaves a faint dense line."""
    seat = np.float32(min(0.14 * bone.length, 0.62 * bone.widths[0]))
    if plate_mm <= 0:
        return np.asarray(1 + np.float32(0.12) * np.exp(-(((u - seat) / np.float32(0.5)) ** 2)), dtype=np.float32)
    depth = np.float32(min(1.0, 0.35 + 0.5 * plate_mm))
    gap = np.exp(-(((u - seat) / np.float32(0.45 * plate_mm + 0.15)) ** 4))
    rim = np.exp(-(((u - seat - np.float32(plate_mm)) / np.float32(0.6)) ** 2))
    return np.asarray((1 - depth * gap) * (1 + np.float32(0.25) * rim), dtype=np.float32)


def _add_carpal(total: Image, view: HandView, bone: Carpal) -> None:
    c, s = math.cos(math.radians(bone.degrees)), math.sin(math.radians(bone.degrees))
    reach = max(bone.axes) + 1
    place, x, y = _patch(view, np.array(bone.centre) + reach * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))
    dx, dy = x - np.float32(bone.centre[0]), y - np.float32(bone.centre[1])
    q = np.sqrt(((c * dx + s * dy) / bone.axes[0]) ** 2 + ((c * dy - s * dx) / bone.axes[1]) ** 2).astype(np.float32)
    depth, ones = np.float32(0.95 * bone.axes[1]), np.ones_like(q)
    total[place] += depth * _hollow(q, ones, 0.15 * ones, 0.95 * ones)


def _add_forearm(total: Image, view: HandView, bone: ForearmBone, plate_mm: float) -> None:
    (left, right), reach = bone.edges, 140.0
    top = bone.level - max(bone.surface) - 8
    place, x, y = _patch(view, np.array([[left - 2, top], [right + 2, top], [right + 2, reach], [left - 2, reach]]))
    below = y - np.float32(bone.level)
    middle, half = (left + right) / 2, (right - left) / 2
    taper = np.clip(np.abs(below) / np.where(below > 0, 2.2 * half, 3.5 * half), 0, 1)
    narrow = np.where(below > 0, bone.shaft, 0.88 * half)
    width = (half + (narrow - half) * np.sin(taper * np.float32(math.pi / 2)) ** 1.5).astype(np.float32)
    share = np.clip((x - left) / (right - left), 0, 1)
    surface = _quadratic(share, bone.surface)
    if bone.styloid is not None:
        surface = surface + bone.styloid[1] * np.exp(-(((x - bone.styloid[0]) / 2.0) ** 2))
    edge = np.clip((below + surface) / np.float32(1.2), 0, 1).astype(np.float32)
    wall = (0.10 * half + 0.9 * np.clip(below / (3 * half), 0, 1)).astype(np.float32)
    solid = _hollow((x - np.float32(middle)).astype(np.float32), width, wall, np.full_like(width, 0.85))
    rim = 1 + np.float32(0.35) * np.exp(-(((below + surface - 1.2) / 0.9) ** 2)).astype(np.float32)
    seat = np.exp(-(((below + 0.9 * plate_mm + 0.3) / (0.45 * plate_mm + 0.2)) ** 4)).astype(np.float32)
    gap = 1 - np.float32(min(0.85, plate_mm)) * seat
    covered = ramp((below + surface) / np.float32(view.spacing))
    total[place] += np.float32(0.72) * solid * covered * (0.4 + 0.6 * edge) * rim * gap


def _quadratic(share: Image, heights: tuple[float, float, float]) -> Image:
    """Return the parabola through three heights at 0, 0.5 and 1."""
    a, b, c = heights
    return np.asarray(a + share * (4 * b - 3 * a - c) + share * share * 2 * (a + c - 2 * b), dtype=np.float32)


def _soft_tissue(hand: Hand, view: HandView) -> Image:
    """Return the attenuation of skin and flesh: rounded towards their outline, flat over the palm."""
    mask = np.zeros(view.shape, dtype=np.uint8)
    s = hand.scale
    for finger in FINGERS:
        bones = hand.phalanges[finger]
        spots = [hand.metacarpals[finger].along(0.7 * hand.metacarpals[finger].length)]
        spots += [bone.base for bone in bones] + [bones[-1].along(bones[-1].length - 2.5 * s)]
        radii = np.linspace(11.5 if finger == "thumb" else 10.0, 7.6 if finger != "little" else 6.6, len(spots)) * s
        _capsules(mask, view, spots, radii)
    palm = [hand.metacarpals[finger] for finger in FINGERS]
    outline = [(28 * s, 150 * s), (27 * s, 4 * s), palm[0].along(-6 * s), palm[0].along(0.8 * palm[0].length)]
    outline += [palm[1].along(0.62 * palm[1].length), *(bone.along(1.12 * bone.length) for bone in palm[1:])]
    outline += [(-27 * s, 4 * s), (-28 * s, 150 * s)]
    cv2.fillPoly(mask, [_fixed(view, np.array(outline))], 255, cv2.LINE_8, 4)
    _capsules(
        mask,
        view,
        [(27 * s, 0), palm[0].along(0.1 * palm[0].length), palm[0].along(palm[0].length)],
        np.array([4, 12, 13]) * s,
    )
    _capsules(
        mask, view, [(-22 * s, 0), palm[4].along(0), palm[4].along(1.1 * palm[4].length)], np.array([6, 10, 9]) * s
    )
    rounded = blur(mask.astype(np.float32), 2.2 * s / view.spacing) > 127
    inside = cv2.distanceTransform(rounded.astype(np.uint8), cv2.DIST_L2, 5) * np.float32(view.spacing)
    radius = np.float32(13.5 * s)
    deep = np.minimum(inside, radius)
    thickness = 2 * np.sqrt(np.clip(2 * radius * deep - deep * deep, 0, None))
    return np.float32(SOFT_TISSUE) * blur(thickness, 0.7 / view.spacing)


def _fixed(view: HandView, points: Array) -> NDArray[np.int32]:
    """Return points in 1/16 px, as OpenCV's drawing takes them."""
    return np.round(np.clip(geometry.apply(view.to_px, points), -4000, 8000) * 16).astype(np.int32)


def _capsules(mask: NDArray[np.uint8], view: HandView, points: list[tuple[float, float]], radii: Array) -> None:
    """Fill the hulls of neighbouring circles."""
    px = _fixed(view, np.array(points)) / 16
    circle = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    ring = np.stack([np.cos(circle), np.sin(circle)], axis=1) / view.spacing
    for k in range(len(px) - 1):
        both = np.concatenate([px[k] + ring * radii[k], px[k + 1] + ring * radii[k + 1]]).astype(np.float32)
        hull = cv2.convexHull(both)
        cv2.fillConvexPoly(mask, np.round(hull * 16).astype(np.int32), 255, cv2.LINE_8, 4)


def _expose(attenuation: Image, view: HandView, nuisance: HandNuisance, side: str, rng: Rng) -> NDArray[np.uint8]:
    """Return the displayed image: scatter, unsharpness, quantum noise, logarithm, window, labels."""
    intensity = add_scatter(np.exp(-attenuation), nuisance.scatter, 0.06 * view.shape[0])
    intensity = blur(intensity, nuisance.blur_px * view.shape[0] / 512)
    heel = np.linspace(1 - 0.12 * float(rng.random()), 1, view.shape[0], dtype=np.float32)[:, None]
    density = -np.log(np.maximum(quantum_noise(rng, intensity * heel, nuisance.photons), 1e-4))
    high = float(np.percentile(density[::4, ::4], 99.5))
    low = -high * float(rng.uniform(0.1, 0.1 + nuisance.exposure))
    density = _labels(density, (low, high), nuisance.clutter, side, rng)
    top = high * float(rng.uniform(1.0, 1.0 + 0.4 * nuisance.exposure))
    return to_display(density, low, top, gamma=float(rng.uniform(0.85, 1.0 + 0.5 * nuisance.exposure)))


def _labels(density: Image, window: tuple[float, float], chance: float, side: str, rng: Rng) -> Image:
    """Add a lead side marker and the dark field of a film label in the upper corners, which the fingers leave free."""
    height, width = density.shape
    if rng.random() < chance:
        density = write_marker(density, side, (round(0.82 * width), round(0.12 * height)), 0.06 * height, window[1])
    if rng.random() < chance:
        density = density.copy()
        density[: round(rng.uniform(0.03, 0.09) * height), : round(rng.uniform(0.1, 0.3) * width)] = window[0]
    return density
