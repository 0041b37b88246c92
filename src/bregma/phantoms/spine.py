"""The sagittal shape of a lumbar spine in millimetres, shared by the phantoms that show one.

Everything is drawn first (:class:`SpineParameters`) and built afterwards, deterministically (:func:`build_spine`), from
the sacrum upwards. The patient looks to the left: x runs to the back, y down, the origin is the middle of the
superior endplate of S1. Angles are those of an endplate to the horizontal; positive ones lower its anterior end.

Typical sizes: vertebral bodies after Panjabi et al., Spine 1992; 17:299-306; disc heights after Frobin et al.,
Clin Biomech 1997; 12 Suppl 1:S1-S63; lordosis and its shares after Vrtovec et al., Eur Spine J 2009; 18:593-607. They
are rounded: a phantom needs plausible anatomy, not epidemiology.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bregma.config import Config
from bregma.geometry import Array
from bregma.phantoms.base import Rng
from bregma.phantoms.sampling import TruncatedNormal
from bregma.phantoms.slip import MEYERDING_EDGES

LEVELS = ("T6", "T7", "T8", "T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
"""Vertebrae that are built, cranial to caudal; those above T12 fill the picture and carry no landmarks."""
PARTS = ("sup_ant", "sup_post", "inf_ant", "inf_post")


class _Typical(NamedTuple):
    """A vertebra and the disc below it: millimetres, and shares of the lordosis."""

    sup_depth: float
    inf_depth: float
    post_height: float
    disc: float
    body_share: float
    disc_share: float


_TYPICAL = {
    "T6": _Typical(26.5, 27.5, 19.0, 4.5, -0.07, 0.0),
    "T7": _Typical(27.5, 28.5, 20.0, 4.5, -0.07, 0.0),
    "T8": _Typical(28.0, 29.0, 20.5, 4.5, -0.07, 0.0),
    "T9": _Typical(28.5, 29.5, 21.5, 4.5, -0.06, 0.0),
    "T10": _Typical(29.0, 30.0, 22.5, 5.0, -0.06, 0.0),
    "T11": _Typical(29.5, 31.0, 24.0, 5.5, -0.06, 0.0),
    "T12": _Typical(30.5, 32.0, 25.5, 6.5, -0.04, 0.01),
    "L1": _Typical(32.0, 33.5, 27.0, 8.0, 0.0, 0.07),
    "L2": _Typical(33.5, 34.5, 27.5, 9.5, 0.02, 0.1),
    "L3": _Typical(34.5, 35.5, 27.5, 10.5, 0.05, 0.13),
    "L4": _Typical(35.5, 35.5, 26.5, 11.5, 0.09, 0.17),
    "L5": _Typical(35.5, 34.5, 24.0, 10.5, 0.18, 0.19),
}
_S1_DEPTH_MM = 34.0


class SpineSettings(Config):
    """How the shape of spines is spread over patients; all of these are independent."""

    size: TruncatedNormal = TruncatedNormal(mean=1.0, sd=0.07, low=0.84, high=1.17)
    """Scale of every length, 1 for the typical adult."""
    lordosis_deg: TruncatedNormal = TruncatedNormal(mean=50.0, sd=9.0, low=28.0, high=74.0)
    """Intended angle between the superior endplates of L1 and S1; the shares of the levels spread about it."""
    disc_height: TruncatedNormal = TruncatedNormal(mean=1.0, sd=0.12, low=0.7, high=1.25)
    """Scale of the disc heights, on top of ``size``; single discs are narrowed further by up to a quarter."""


@dataclass(frozen=True)
class SpineParameters:
    """All that is drawn for one spine.

    Attributes:
        size: scale of every length, 1 for the typical adult.
        lordosis_deg: intended angle between the superior endplates of L1 and S1.
        sacral_slope_deg: angle of the superior endplate of S1.
        wedge_deg: by level, posterior to anterior opening of the body.
        disc_deg: by level, lordotic opening of the disc below it.
        disc_mm: by level, middle height of the disc below it.
        depth_mm: by level, length of the superior and of the inferior endplate.
        height_mm: by level, posterior height.
        slip_percent: by pair (``L4-L5``), slip of the upper vertebra; positive goes forward.
    """

    size: float
    lordosis_deg: float
    sacral_slope_deg: float
    wedge_deg: Mapping[str, float]
    disc_deg: Mapping[str, float]
    disc_mm: Mapping[str, float]
    depth_mm: Mapping[str, tuple[float, float]]
    height_mm: Mapping[str, float]
    slip_percent: Mapping[str, float]


@dataclass(frozen=True)
class Spine:
    """A built spine in millimetres.

    Attributes:
        bodies: level to corners ``(4, 2)`` in the order of ``PARTS``.
        sacrum: ``(2, 2)`` anterior and posterior end of the superior endplate of S1.
        parameters: what it was built from.
    """

    bodies: Mapping[str, Array]
    sacrum: Array
    parameters: SpineParameters

    def landmarks(self, levels: tuple[str, ...]) -> tuple[list[str], Array]:
        """Return the names and positions ``(N, 2)`` of the corners of ``levels``, ``S1`` included where it is asked."""
        names = [f"{level}_{part}" for level in levels for part in (PARTS[:2] if level == "S1" else PARTS)]
        points = np.concatenate([self.sacrum if level == "S1" else self.bodies[level] for level in levels])
        return names, points


def sample_spine(rng: Rng, slips: Mapping[str, float], settings: SpineSettings | None = None) -> SpineParameters:
    """Draw the shape of one adult spine that has the given slips; a slipped level has a narrowed disc."""
    settings = settings or SpineSettings()
    size = settings.size.draw(rng)
    lordosis = settings.lordosis_deg.draw(rng)
    jitter = {level: np.exp(0.18 * rng.standard_normal(2)) for level in LEVELS}
    own = 1.0 + 0.03 * rng.standard_normal((len(LEVELS), 2))
    height = settings.disc_height.draw(rng)
    narrowed = rng.uniform(0.0, 0.5, len(LEVELS)) ** 2
    worn = {pair.split("-")[0]: _wear(rng, slip) for pair, slip in slips.items()}
    depth, disc = {}, {}
    for level, factor, loss in zip(LEVELS, own, narrowed, strict=True):
        depth[level] = (size * factor[0] * _TYPICAL[level].sup_depth, size * factor[0] * _TYPICAL[level].inf_depth)
        disc[level] = max(size * height * _TYPICAL[level].disc * (1 - loss) * worn.get(level, 1.0), 3.0)
    return SpineParameters(
        size=size,
        lordosis_deg=lordosis,
        sacral_slope_deg=0.72 * lordosis + 3.0 + 3.5 * rng.standard_normal(),
        wedge_deg={level: lordosis * _TYPICAL[level].body_share * jitter[level][0] for level in LEVELS},
        disc_deg={
            level: lordosis * _TYPICAL[level].disc_share * jitter[level][1] * worn.get(level, 1.0) for level in LEVELS
        },
        disc_mm=disc,
        depth_mm=depth,
        height_mm={level: size * f[1] * _TYPICAL[level].post_height for level, f in zip(LEVELS, own, strict=True)},
        slip_percent=dict(slips),
    )


def _wear(rng: Rng, slip_percent: float) -> float:
    """Share of the disc's height and opening that a slip leaves."""
    share = rng.uniform(0.45, 0.8)
    return float(share) if abs(slip_percent) >= MEYERDING_EDGES[0] else 1.0


def build_spine(parameters: SpineParameters) -> Spine:
    """Stack the vertebrae on the sacrum so that every slip is exactly the one asked for.

    The slip is the offset of the upper vertebra's inferior-posterior corner, projected at a right angle onto the lower
    one's superior endplate, from that endplate's posterior end, in percent of the endplate's length.
    """
    slope = parameters.sacral_slope_deg
    half = 0.5 * parameters.size * _S1_DEPTH_MM * _forward(slope)
    anterior, posterior, angle = half, -half, slope
    sacrum = np.array([anterior, posterior])
    bodies: dict[str, Array] = {}
    below = ("S1", *LEVELS[::-1])
    for level, lower in zip(LEVELS[::-1], below, strict=False):
        slip = parameters.slip_percent.get(f"{level}-{lower}", 0.0)
        bodies[level] = _stack(parameters, level, anterior, posterior, angle, slip)
        anterior, posterior = bodies[level][0], bodies[level][1]
        angle += -parameters.disc_deg[level] - parameters.wedge_deg[level]
    return Spine({level: bodies[level] for level in LEVELS}, sacrum, parameters)


def _stack(p: SpineParameters, level: str, anterior: Array, posterior: Array, angle: float, slip: float) -> Array:
    """Return the corners of ``level`` upon an endplate that is inclined by ``angle``."""
    lower = float(np.hypot(*(anterior - posterior)))
    sup_depth, inf_depth = p.depth_mm[level]
    rise = max(p.disc_mm[level] - 0.5 * inf_depth * math.sin(math.radians(p.disc_deg[level])), 2.0)
    inf_post = posterior + slip / 100 * lower * _forward(angle) + rise * _upward(angle)
    inferior = angle - p.disc_deg[level]
    inf_ant = inf_post + inf_depth * _forward(inferior)
    superior = inferior - p.wedge_deg[level]
    sup_post = inf_post + p.height_mm[level] * _upward((inferior + superior) / 2)
    sup_post = sup_post + 0.5 * (inf_depth - sup_depth) * _forward(superior)
    sup_ant = sup_post + sup_depth * _forward(superior)
    return np.array([sup_ant, sup_post, inf_ant, inf_post])


def _forward(degrees: float) -> Array:
    return np.array([-math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def _upward(degrees: float) -> Array:
    return np.array([-math.sin(math.radians(degrees)), -math.cos(math.radians(degrees))])


def opening_deg(upper: Array, lower: Array) -> float:
    """Return the lordotic angle between two endplates ``(2, 2)``, each anterior end first."""
    a, b = (np.degrees(np.arctan2(e[0, 1] - e[1, 1], e[1, 0] - e[0, 0])) for e in (upper, lower))
    return float(b - a)
