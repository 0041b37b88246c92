"""A sagittal T1-weighted lumbar MRI whose marrow signal follows a bone mineral density of known value.

The density, and how well anyone can read it from the image, are described in :mod:`bregma.phantoms.bone_density`;
:func:`best_r2_of` gives that ceiling for a set of settings. Receiver gain, coil shading, noise and the place of the
slice are unknown to a reader: only the contrast of marrow to fat, muscle and fluid carries the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bregma import geometry
from bregma.config import Config
from bregma.geometry import Array
from bregma.phantoms import drawing
from bregma.phantoms.base import Difficulty, Phantom, PhantomSettings, Rng, phantom_rngs
from bregma.phantoms.bone_density import LEVELS, DensitySettings, Marrow, best_r2, sample_marrow
from bregma.phantoms.slip import SlipSettings, sample_slips
from bregma.phantoms.spine import Spine, SpineSettings, build_spine, opening_deg, sample_spine
from bregma.phantoms.spine_mri import Habitus, paint_slice, sample_habitus


class MRINuisance(Config):
    """What makes the scan hard to read; the defaults are the medium difficulty."""

    noise: float = Field(default=0.02, ge=0)
    """Deviation of the noise in each of the two channels, relative to the signal of fat at the coil's centre."""
    shading: float = Field(default=0.8, ge=0)
    """Logarithm of the coil's loss of sensitivity over 150 mm to the front."""
    blur_px: float = Field(default=0.6, ge=0)
    """Deviation of the in-plane point-spread function, for 256 rows."""
    offset_mm: float = Field(default=1.5, ge=0)
    """Deviation of the middle slice from the mid-sagittal plane; at most twice this, and never 4.5 mm."""
    rotation_deg: float = Field(default=3.0, ge=0)
    """Deviation of the rotation in the image plane."""


NUISANCE: dict[Difficulty, MRINuisance] = {
    "easy": MRINuisance(noise=0.008, shading=0.4, blur_px=0.4, offset_mm=0.5, rotation_deg=2.0),
    "medium": MRINuisance(),
    "hard": MRINuisance(noise=0.045, shading=1.3, blur_px=0.8, offset_mm=2.2, rotation_deg=6.0),
}
"""Difficulty to nuisance."""
DENSITY: dict[Difficulty, DensitySettings] = {
    "easy": DensitySettings(spread=0.015),
    "medium": DensitySettings(),
    "hard": DensitySettings(spread=0.055),
}
"""Difficulty to the spread that separates marrow fat from density."""


class LumbarMRISettings(PhantomSettings):
    """Settings of the sagittal lumbar MRI."""

    size: tuple[int, int] = (256, 256)
    """Rows and columns of a slice; one number stands for a square."""
    slices: int = Field(default=15, ge=1)
    """Slices of a volume."""
    slice_mm: float = Field(default=4.0, gt=0)
    """Distance between slices."""
    slip: SlipSettings = SlipSettings(grade_weights=(0.85, 0.10, 0.05, 0.0, 0.0))
    """How slips are spread over patients."""
    spine: SpineSettings = SpineSettings()
    """How size, lordosis and disc heights are spread over patients."""
    density: DensitySettings | None = None
    """Replaces the spread that the difficulty stands for."""
    nuisance: MRINuisance | None = None
    """Replaces the nuisance that the difficulty stands for."""

    @property
    def resolved_nuisance(self) -> MRINuisance:
        """The nuisance in force."""
        return self.nuisance or NUISANCE[self.difficulty]

    @property
    def resolved_density(self) -> DensitySettings:
        """The spread of marrow fat in force."""
        return self.density or DENSITY[self.difficulty]


@dataclass(frozen=True)
class LumbarVolume:
    """A stack of sagittal slices.

    Attributes:
        array: ``(S, H, W)`` uint16, from one side of the body to the other.
        spacing: millimetres between slices, rows and columns.
        middle: index of the slice that is nearest to the mid-sagittal plane.
        phantom: the middle slice with its landmarks and targets.
    """

    array: NDArray[np.uint16]
    spacing: tuple[float, float, float]
    middle: int
    phantom: Phantom


@dataclass(frozen=True)
class _Patient:
    spine: Spine
    habitus: Habitus
    marrow: Marrow


@dataclass(frozen=True)
class _Scan:
    to_px: Array
    spacing: float
    offset_mm: float
    gain: float
    coil: tuple[float, float]
    key: int


def best_r2_of(settings: LumbarMRISettings, *, age_known: bool = False) -> float:
    """Return the best coefficient of determination of the target ``bmd`` that any reader can reach."""
    return best_r2(settings.resolved_density, age_known=age_known)


def draw_lumbar_mri(settings: LumbarMRISettings, subject_rng: Rng, image_rng: Rng) -> Phantom:
    """Draw one mid-sagittal slice.

    The landmarks are the corners of L1 to L5. Targets: ``bmd`` (mg/cm3), ``marrow_fat`` (mean fraction),
    ``lumbar_lordosis`` (degrees, L1 to S1) and ``slip_percent_<pair>``; ``age`` in years is a tag.
    """
    patient = _sample_patient(settings, subject_rng)
    scan = _sample_scan(settings, image_rng, patient.spine)
    return _phantom(settings, patient, scan)


def make_volume(
    subject: int, *, seed: int = 0, image: int = 0, settings: LumbarMRISettings | None = None
) -> LumbarVolume:
    """Draw the whole stack of the patient ``subject``; its middle slice is the image of the case of that number."""
    resolved = settings or LumbarMRISettings()
    subject_rng, image_rng = phantom_rngs("lumbar_mri", seed, subject, image)
    patient = _sample_patient(resolved, subject_rng)
    scan = _sample_scan(resolved, image_rng, patient.spine)
    middle = resolved.slices // 2
    array = np.stack([_slice(resolved, patient, scan, number - middle) for number in range(resolved.slices)])
    spacing = (resolved.slice_mm, scan.spacing, scan.spacing)
    return LumbarVolume(array, spacing, middle, _phantom(resolved, patient, scan))


def _sample_patient(settings: LumbarMRISettings, rng: Rng) -> _Patient:
    marrow = sample_marrow(rng, settings.resolved_density)
    spine = build_spine(sample_spine(rng, sample_slips(rng, settings.slip), settings.spine))
    return _Patient(spine, sample_habitus(rng), marrow)


def _sample_scan(settings: LumbarMRISettings, rng: Rng, spine: Spine) -> _Scan:
    """Draw pose and receiver; the middle of S1 lies near the lower border, the patient looks to the left."""
    n = settings.resolved_nuisance
    rows, columns = settings.size
    spacing = settings.spacing or rng.uniform(245, 285) / rows
    turn, offset = np.clip(rng.standard_normal(2), -2, 2)
    turned = geometry.compose(geometry.rotate(float(turn) * n.rotation_deg), geometry.scale(1 / spacing))
    corners = geometry.apply(turned, spine.landmarks(LEVELS)[1])
    x = columns * rng.uniform(0.48, 0.60) - (corners[:, 0].min() + corners[:, 0].max()) / 2
    y = rows * rng.uniform(0.84, 0.88)
    return _Scan(
        to_px=geometry.compose(turned, geometry.translate(x, y)),
        spacing=float(spacing),
        offset_mm=float(np.clip(offset * n.offset_mm, -4.5, 4.5)),
        gain=float(np.exp(rng.normal(np.log(1400.0), 0.3))),
        coil=(rng.uniform(40, 75), rng.uniform(-130, -70)),
        key=int(rng.integers(2**32)),
    )


def _phantom(settings: LumbarMRISettings, patient: _Patient, scan: _Scan) -> Phantom:
    names, corners = patient.spine.landmarks(LEVELS)
    placed = geometry.apply(scan.to_px, corners)
    targets = {"bmd": patient.marrow.density, "marrow_fat": float(np.mean(list(patient.marrow.fat.values())))}
    targets["lumbar_lordosis"] = opening_deg(patient.spine.bodies["L1"][:2], patient.spine.sacrum)
    slips = patient.spine.parameters.slip_percent
    return Phantom(
        pixels=_slice(settings, patient, scan, 0),
        points={name: (float(x), float(y)) for name, (x, y) in zip(names, placed, strict=True)},
        spacing=(scan.spacing, scan.spacing),
        targets=targets | {f"slip_percent_{pair}": slip for pair, slip in slips.items()},
        tags={"age": patient.marrow.age, "difficulty": settings.difficulty},
    )


def _slice(settings: LumbarMRISettings, patient: _Patient, scan: _Scan, number: int) -> NDArray[np.uint16]:
    """Receive one slice: paint, shade by the coil, blur, add noise to both channels, scale by the gain."""
    n, shape = settings.resolved_nuisance, settings.size
    rng = np.random.default_rng([scan.key, number + settings.slices])
    lateral = scan.offset_mm + number * settings.slice_mm
    tissue = paint_slice(rng, shape, patient.spine, patient.habitus, patient.marrow.fat, scan.to_px, lateral)
    received = drawing.blur(tissue * _coil(shape, scan, n.shading), n.blur_px * shape[0] / 256)
    real, imaginary = n.noise * rng.standard_normal((2, *shape), dtype=np.float32)
    magnitude = np.hypot(received + real, imaginary)
    return np.asarray(np.clip(np.round(scan.gain * magnitude), 0, 65535), dtype=np.uint16)


def _coil(shape: tuple[int, int], scan: _Scan, shading: float) -> drawing.Image:
    """Sensitivity of a surface coil behind the back: falls off to the front, and towards both ends."""
    back = geometry.invert(scan.to_px).astype(np.float32)
    x, y = drawing.pixel_grid(shape)
    x_mm = back[0, 0] * x + back[0, 1] * y + back[0, 2] - np.float32(scan.coil[0])
    y_mm = back[1, 0] * x + back[1, 1] * y + back[1, 2] - np.float32(scan.coil[1])
    return np.asarray(np.exp(shading * (np.minimum(x_mm, 20) / 150 - (y_mm / 190) ** 2)), dtype=np.float32)
