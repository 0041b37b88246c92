"""What every phantom shares: its settings, the value a generator returns, and seeds that never depend on the count."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from bregma.config import Config
from bregma.errors import ConfigError
from bregma.geometry import Frame
from bregma.schema import LandmarkSchema
from bregma.types import ArrayImage, Case, LandmarkSet, Status, Tag

Difficulty = Literal["easy", "medium", "hard"]
Rng = np.random.Generator
S = TypeVar("S", bound="PhantomSettings", contravariant=True)


class PhantomSettings(Config):
    """Settings that every anatomy has; each anatomy derives its own class from it."""

    size: tuple[int, int] = (512, 512)
    """Rows and columns of the image; one number stands for a square."""
    spacing: float | None = Field(default=None, gt=0)
    """Millimetres per pixel; None lets the anatomy draw its own field of view."""
    difficulty: Difficulty = "medium"
    """Sets every nuisance (noise, contrast, artefacts, field of view) that is not set on its own."""

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("size")
    @classmethod
    def _large_enough(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 64:
            raise ValueError(f"an image needs at least 64 rows and columns, not {value[0]} x {value[1]}")
        return value


@dataclass(frozen=True)
class Phantom:
    """One simulated image with its exact truth, as a generator returns it.

    Attributes:
        pixels: ``(H, W)`` uint8 or uint16, bright = dense for radiographs.
        points: landmark name to ``(x, y)`` in pixels; points beyond the image are allowed and become ``OUTSIDE``, as do
            names of the schema that are absent here.
        spacing: millimetres per pixel along x and y, or None where the modality gives none.
        targets: the true quantities by name.
        tags: whatever else was drawn and is worth knowing.
        occluded: names of points that something covers.
    """

    pixels: NDArray[Any]
    points: Mapping[str, tuple[float, float]]
    spacing: tuple[float, float] | None
    targets: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)
    occluded: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype not in (np.uint8, np.uint16):
            got = f"{self.pixels.dtype} {self.pixels.shape}"
            raise ConfigError("a phantom's pixels are of the wrong kind", expected="(H, W) uint8 or uint16", got=got)


class Generator(Protocol[S]):
    """Draws one phantom.

    ``subject_rng`` gives all that belongs to the person (anatomy, targets), ``image_rng`` all that belongs to one
    exposure (pose, field of view, noise); the images of one subject share the former.
    """

    def __call__(self, settings: S, subject_rng: Rng, image_rng: Rng) -> Phantom:
        """Return one phantom."""
        ...


def phantom_rngs(name: str, seed: int, subject: int, image: int = 0) -> tuple[Rng, Rng]:
    """Return the generators of one subject and of one of its images.

    They depend on nothing but the arguments, so that case ``i`` is the same in a set of ten and in a set of a million.
    """
    key = (seed, zlib.crc32(name.encode()), subject)
    return np.random.default_rng([*key, 0]), np.random.default_rng([*key, 1, image])


def landmark_set(schema: LandmarkSchema, phantom: Phantom, frame: Frame) -> LandmarkSet:
    """Order a phantom's points as the schema does and give each its status.

    Raises:
        ConfigError: the phantom has a point that the schema does not declare.
    """
    unknown = set(phantom.points) - set(schema.names)
    if unknown:
        raise ConfigError(f"the phantom draws unknown landmarks {sorted(unknown)}", where=f"schema '{schema.name}'")
    points = np.zeros((len(schema), 2))
    status = np.full(len(schema), Status.OUTSIDE, dtype=np.int8)
    for name, point in phantom.points.items():
        index = schema.index(name)
        points[index] = point
        if frame.contains(point):
            status[index] = Status.OCCLUDED if name in phantom.occluded else Status.VISIBLE
    return LandmarkSet(points, status)


def phantom_case(schema: LandmarkSchema, phantom: Phantom, *, subject: str, case_id: str) -> Case:
    """Wrap a phantom as a case."""
    shape = (phantom.pixels.shape[0], phantom.pixels.shape[1])
    frame = Frame(shape) if phantom.spacing is None else Frame(shape, phantom.spacing, "phantom")
    pixels = phantom.pixels.copy()
    pixels.setflags(write=False)
    return Case(
        id=case_id,
        subject=subject,
        image=ArrayImage(pixels),
        frame=frame,
        landmarks=landmark_set(schema, phantom, frame),
        targets=dict(phantom.targets),
        tags=dict(phantom.tags),
    )
