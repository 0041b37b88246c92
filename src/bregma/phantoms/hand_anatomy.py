"""The bones of a hand and wrist as shapes in millimetres, and the landmarks that follow.

The hand's frame has its origin between the metaphyses of radius and ulna, x towards the thumb and y towards the elbow,
as a left hand lies on a posteroanterior radiograph. Lengths are of an adult (rounded from Buryanov and Kotiuk, Clin
Anat 2010; 23:297-305) and are scaled down to the age.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bregma.geometry import Array
from bregma.phantoms.base import Rng
from bregma.phantoms.sampling import TruncatedNormal

FINGERS = ("thumb", "index", "middle", "ring", "little")
_METACARPALS = {
    "thumb": ((31.0, -32.0), 36.0, 45.0, (7.3, 4.6, 7.0)),
    "index": ((18.5, -39.0), 9.0, 64.0, (7.6, 4.2, 7.2)),
    "middle": ((7.0, -41.0), 1.0, 62.0, (6.8, 4.2, 7.2)),
    "ring": ((-3.5, -40.0), -8.0, 55.0, (5.6, 3.6, 6.4)),
    "little": ((-12.5, -37.5), -18.0, 51.0, (6.0, 3.6, 6.0)),
}
"""Base in mm, direction in degrees from straight up, length, half-widths at base, shaft and head."""
_DIRECTIONS = {"thumb": 27.0, "index": 8.0, "middle": 0.5, "ring": -5.0, "little": -17.0}
_PHALANGES = {
    "thumb": ((31.0, (7.4, 4.5, 5.6)), (22.0, (6.4, 3.0, 4.0))),
    "index": ((40.0, (7.2, 4.4, 5.2)), (23.5, (6.4, 3.7, 4.6)), (16.5, (5.0, 2.1, 3.4))),
    "middle": ((44.5, (7.4, 4.6, 5.4)), (28.0, (6.6, 3.9, 4.8)), (18.0, (5.2, 2.2, 3.6))),
    "ring": ((41.5, (7.0, 4.3, 5.1)), (26.5, (6.2, 3.6, 4.5)), (18.0, (5.0, 2.1, 3.5))),
    "little": ((33.0, (6.2, 3.6, 4.3)), (18.5, (5.2, 3.0, 3.8)), (16.0, (4.4, 1.8, 3.0))),
}
"""From proximal to distal: length, half-widths at base, shaft and head."""
_CARPALS = {
    "lunate": ((0.5, -15.0), (8.4, 6.6), -15.0),
    "scaphoid": ((13.5, -18.5), (11.1, 6.6), -50.0),
    "triquetrum": ((-11.0, -20.5), (7.7, 6.4), 50.0),
    "pisiform": ((-13.5, -20.0), (4.6, 4.0), 70.0),
    "hamate": ((-6.0, -30.0), (10.0, 7.6), 62.0),
    "capitate": ((6.5, -29.0), (12.8, 7.8), 84.0),
    "trapezoid": ((18.5, -32.5), (6.3, 5.7), 80.0),
    "trapezium": ((27.0, -27.5), (7.7, 6.6), 50.0),
}
"""Centre in mm, semi-axes, degrees of the first axis from x towards y."""
_JOINT_NAMES = {3: ("mcp", "pip", "dip"), 2: ("mcp", "ip")}
JOINT_MM = 1.6
"""Width of a finger's joint space."""


@dataclass(frozen=True)
class TubularBone:
    """A metacarpal or phalanx.

    Attributes:
        base: middle of its proximal end, mm.
        degrees: direction, from straight up towards the thumb.
        length: mm.
        widths: half-widths at base, shaft and head, mm.
        plate: the end that carries the growth plate.
        tuft: whether its head is the tip of a finger.
    """

    base: tuple[float, float]
    degrees: float
    length: float
    widths: tuple[float, float, float]
    plate: Literal["base", "head"]
    tuft: bool = False

    @property
    def axis(self) -> tuple[float, float]:
        """Unit vector from base to head."""
        return math.sin(math.radians(self.degrees)), -math.cos(math.radians(self.degrees))

    def along(self, mm: float) -> tuple[float, float]:
        """Return the point on the axis at a distance from the base."""
        return self.base[0] + mm * self.axis[0], self.base[1] + mm * self.axis[1]

    @property
    def head(self) -> tuple[float, float]:
        """Middle of the distal end."""
        return self.along(self.length)


@dataclass(frozen=True)
class Carpal:
    """A carpal bone, seen as an ellipse: centre and semi-axes in mm, direction of the first axis."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    degrees: float

    @property
    def proximal(self) -> tuple[float, float]:
        """The point nearest the elbow: ``c + S d / sqrt(d' S d)``, the support point of the ellipse in direction y."""
        c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        a2, b2 = self.axes[0] ** 2, self.axes[1] ** 2
        reach = math.sqrt(s * s * a2 + c * c * b2)
        return self.centre[0] + c * s * (a2 - b2) / reach, self.centre[1] + reach


@dataclass(frozen=True)
class ForearmBone:
    """The distal end of radius or ulna; it runs straight down the image.

    Attributes:
        edges: x of the ulnar and the radial border at the metaphysis, where the bone is widest, mm.
        level: y of the metaphysis, mm.
        shaft: half-width of the shaft, mm.
        surface: height of the articular surface above the metaphysis at the ulnar border, in the middle and at the
            radial border, mm.
        styloid: x and height of the ulna's styloid process, or None.
    """

    edges: tuple[float, float]
    level: float
    shaft: float
    surface: tuple[float, float, float]
    styloid: tuple[float, float] | None = None


@dataclass(frozen=True)
class Hand:
    """A hand in its frame, mm.

    Attributes:
        age: years.
        scale: size relative to an adult's.
        plates: width of the growth plates, mm; 0 when they are closed.
        metacarpals: finger to bone.
        phalanges: finger to bones, proximal to distal.
        carpals: name to bone.
        radius: distal end.
        ulna: distal end.
    """

    age: float
    scale: float
    plates: float
    metacarpals: dict[str, TubularBone]
    phalanges: dict[str, tuple[TubularBone, ...]]
    carpals: dict[str, Carpal]
    radius: ForearmBone
    ulna: ForearmBone

    @property
    def tubular(self) -> tuple[TubularBone, ...]:
        """Metacarpals and phalanges."""
        return (*self.metacarpals.values(), *(bone for finger in self.phalanges.values() for bone in finger))

    @property
    def wrist_width(self) -> float:
        """Distance between the outer borders of the two metaphyses, mm."""
        return math.dist((self.ulna.edges[0], self.ulna.level), (self.radius.edges[1], self.radius.level))


@dataclass(frozen=True)
class Build:
    """What is constant in a person: size, proportions and age."""

    age: float
    scale: float
    plates: float
    carpal_scale: float
    girth: float
    lengths: dict[str, float]
    carpal_shifts: Array
    """``(8, 2)`` mm."""
    radial_height: float
    """Height of the radial styloid above the metaphysis in mm."""


def sample_build(age: float, rng: Rng) -> Build:
    """Draw a person of the given age in years."""
    grown = float(np.clip((age - 5) / 12, 0, 1))
    scale = (0.68 + 0.32 * grown) * TruncatedNormal(mean=1.0, sd=0.05, low=0.88, high=1.12).draw(rng)
    return Build(
        age=age,
        scale=scale,
        plates=float(np.clip((17.5 - age) / 9, 0, 1)) * 1.3,
        carpal_scale=0.74 + 0.26 * grown,
        girth=float(rng.uniform(0.92, 1.08)),
        lengths={finger: 1 + 0.025 * float(np.clip(rng.standard_normal(), -2, 2)) for finger in FINGERS},
        carpal_shifts=rng.normal(0, 0.25, (len(_CARPALS), 2)),
        radial_height=12.5 + float(rng.normal(0, 0.8)),
    )


def pose_hand(build: Build, spread_deg: float, rng: Rng) -> Hand:
    """Lay the hand down: ``spread_deg`` is the deviation of the fingers' directions."""
    fan = float(rng.normal(0, 0.04 * spread_deg))
    metacarpals, phalanges = {}, {}
    for finger in FINGERS:
        metacarpals[finger] = _metacarpal(build, finger, float(rng.normal(0, 0.12 * spread_deg)))
        turn = fan * _DIRECTIONS[finger] + float(rng.normal(0, 0.5 * spread_deg))
        phalanges[finger] = _phalanges(build, finger, metacarpals[finger], turn, rng.normal(0, 0.35 * spread_deg, 3))
    s = build.scale
    carpals = {name: _carpal(build, *row, shift) for (name, row), shift in zip(_CARPALS.items(), build.carpal_shifts)}
    return Hand(
        age=build.age,
        scale=s,
        plates=build.plates * s,
        metacarpals=metacarpals,
        phalanges=phalanges,
        carpals=carpals,
        radius=ForearmBone((-4.5 * s, 21.5 * s), 1.0 * s, 7.6 * s, (6.0 * s, 5.6 * s, build.radial_height * s)),
        ulna=ForearmBone((-21.0 * s, -7.5 * s), -0.5 * s, 5.2 * s, (3.2 * s, 3.2 * s, 3.2 * s), (-17.8 * s, 5.0 * s)),
    )


def _metacarpal(build: Build, finger: str, turn: float) -> TubularBone:
    (x, y), degrees, length, widths = _METACARPALS[finger]
    s, w = build.scale, build.scale * build.girth
    plate: Literal["base", "head"] = "base" if finger == "thumb" else "head"
    size = (w * widths[0], w * widths[1], w * widths[2])
    return TubularBone((s * x, s * y), degrees + turn, s * length * build.lengths[finger], size, plate)


def _phalanges(
    build: Build, finger: str, metacarpal: TubularBone, turn: float, bends: Array
) -> tuple[TubularBone, ...]:
    base = metacarpal.along(metacarpal.length + JOINT_MM * build.scale)
    w, degrees, bones = build.scale * build.girth, _DIRECTIONS[finger] + turn, []
    rows = _PHALANGES[finger]
    for index, (length, widths) in enumerate(rows):
        degrees += float(bends[index])
        size = (w * widths[0], w * widths[1], w * widths[2])
        tuft = index == len(rows) - 1
        bone = TubularBone(base, degrees, build.scale * length * build.lengths[finger], size, "base", tuft)
        base = bone.along(bone.length + JOINT_MM * build.scale)
        bones.append(bone)
    return tuple(bones)


def _carpal(
    build: Build, centre: tuple[float, float], axes: tuple[float, float], degrees: float, shift: Array
) -> Carpal:
    s, k = build.scale, build.scale * build.carpal_scale
    place = (s * (centre[0] + float(shift[0])), s * (centre[1] + float(shift[1])))
    return Carpal(place, (k * axes[0], k * axes[1]), degrees)


def hand_points(hand: Hand) -> dict[str, tuple[float, float]]:
    """Return the 37 points of schema ``hand`` in mm in the hand's frame."""
    points: dict[str, tuple[float, float]] = {}
    for name, bone in (("ulna", hand.ulna), ("radius", hand.radius)):
        points[f"{name}_metaphysis_ulnar"] = (bone.edges[0], bone.level)
        points[f"{name}_metaphysis_radial"] = (bone.edges[1], bone.level)
    points["radius_styloid"] = (hand.radius.edges[1], hand.radius.level - hand.radius.surface[2])
    if hand.ulna.styloid is not None:
        x, height = hand.ulna.styloid
        points["ulna_styloid"] = (x, hand.ulna.level - hand.ulna.surface[0] - height)
    points |= {f"{name}_proximal": bone.proximal for name, bone in hand.carpals.items() if name != "pisiform"}
    for number, finger in enumerate(FINGERS, start=1):
        points[f"mc{number}_base"] = hand.metacarpals[finger].base
        bones = hand.phalanges[finger]
        names = _JOINT_NAMES[len(bones)]
        points |= {f"{finger}_{name}": bone.base for name, bone in zip(names, bones, strict=True)}
        points[f"{finger}_tip"] = bones[-1].head
    return points
