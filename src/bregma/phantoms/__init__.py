"""Simulated images with exact truth, one anatomy a file: the data that Bregma carries with it.

A new phantom is one file with a settings class and a generator, and one row in ``PHANTOMS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bregma.errors import ConfigError

if TYPE_CHECKING:
    from bregma.phantoms.base import Difficulty, Generator, PhantomSettings
    from bregma.types import Case, Dataset

__all__ = ["PHANTOMS", "PhantomInfo", "iter_phantoms", "make_phantoms", "phantom_settings", "volume_maker"]


@dataclass(frozen=True)
class PhantomInfo:
    """A row of the table of phantoms.

    Attributes:
        schema: the anatomy whose landmarks it draws.
        summary: one line for a reader.
        module: the module that holds its generator and settings, imported on first use.
        draw: name of the generator in that module.
        settings: name of the settings class in that module.
        volume: name of the function that draws the whole stack of slices, for anatomies that have one.
    """

    schema: str
    summary: str
    module: str
    draw: str
    settings: str
    volume: str | None = None

    def generator(self) -> Generator[Any]:
        """Import and return the function that draws one phantom."""
        generator: Generator[Any] = getattr(import_module(self.module), self.draw)
        return generator

    def settings_class(self) -> type[PhantomSettings]:
        """Import and return the settings class."""
        cls: type[PhantomSettings] = getattr(import_module(self.module), self.settings)
        return cls


PHANTOMS: Mapping[str, PhantomInfo] = MappingProxyType(
    {
        "chest": PhantomInfo(
            schema="chest",
            summary="frontal chest radiograph with the fifteen published points",
            module="bregma.phantoms.chest",
            draw="draw_chest",
            settings="ChestSettings",
        ),
        "chest_ctr": PhantomInfo(
            schema="chest_ctr",
            summary="frontal chest radiograph of a known cardiothoracic ratio",
            module="bregma.phantoms.chest",
            draw="draw_chest_ctr",
            settings="ChestSettings",
        ),
        "fetal_head": PhantomInfo(
            schema="fetal_head",
            summary="fetal-head ultrasound of known BPD, OFD and head circumference",
            module="bregma.phantoms.fetal_head",
            draw="draw_fetal_head",
            settings="FetalHeadSettings",
        ),
        "hand": PhantomInfo(
            schema="hand",
            summary="hand radiograph of a known age, with growth plates",
            module="bregma.phantoms.hand",
            draw="draw_hand",
            settings="HandSettings",
        ),
        "lumbar_lateral": PhantomInfo(
            schema="lumbar_lateral",
            summary="lateral lumbar radiograph with a vertebral slip of known size",
            module="bregma.phantoms.lumbar_lateral",
            draw="draw_lumbar_lateral",
            settings="LumbarLateralSettings",
        ),
        "lumbar_mri": PhantomInfo(
            schema="lumbar_mri",
            summary="mid-sagittal T1 lumbar MRI whose marrow signal follows a known bone mineral density",
            module="bregma.phantoms.lumbar_mri",
            draw="draw_lumbar_mri",
            settings="LumbarMRISettings",
            volume="make_volume",
        ),
    }
)
"""Name to phantom."""


def volume_maker(name: str) -> Any:
    """Return the function that draws whole volumes of the phantom ``name``; None where there is none.

    Raises:
        ConfigError: an unknown phantom.
    """
    info = _info(name)
    return None if info.volume is None else getattr(import_module(info.module), info.volume)


def phantom_settings(
    name: str,
    settings: PhantomSettings | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    difficulty: Difficulty | None = None,
    spacing: float | None = None,
) -> PhantomSettings:
    """Return checked settings of the phantom ``name``; the arguments that are given win over ``settings``.

    Raises:
        ConfigError: an unknown phantom, another phantom's settings, or a value that is not valid.
    """
    from bregma.config import validate

    cls = _info(name).settings_class()
    if settings is not None and not isinstance(settings, cls):
        got = type(settings).__name__
        raise ConfigError("these settings belong to another phantom", where=name, expected=cls.__name__, got=got)
    given = {"size": size, "difficulty": difficulty, "spacing": spacing}
    changes = {key: value for key, value in given.items() if value is not None}
    return validate(cls, {**(settings.to_dict() if settings else {}), **changes}, where=f"phantom '{name}'")


def iter_phantoms(
    name: str,
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    images_per_subject: int = 1,
    size: int | tuple[int, int] | None = None,
    difficulty: Difficulty | None = None,
    spacing: float | None = None,
    settings: PhantomSettings | None = None,
) -> Iterator[Case]:
    """Yield ``count`` phantoms one by one, without holding them.

    A case depends on the name, the seed, its subject, its number within the subject and the settings, and on nothing
    else: not on ``count``, and not on what was drawn before it.

    Args:
        name: a row of ``PHANTOMS``.
        count: number of images.
        seed: any non-negative number; different seeds share no subject.
        start: number of the first subject, so that one seed can serve disjoint parts.
        images_per_subject: successive images that show one subject, each with its own pose, exposure and noise.
        size: rows and columns, or one number for a square.
        difficulty: easy, medium or hard.
        spacing: millimetres per pixel.
        settings: the anatomy's own settings; ``size``, ``difficulty`` and ``spacing`` win over them.

    Raises:
        ConfigError: an unknown phantom or a setting that is not valid.
    """
    for label, value, low in (("count", count, 0), ("seed", seed, 0), ("start", start, 0)):
        _at_least(label, value, low)
    _at_least("images_per_subject", images_per_subject, 1)
    resolved = phantom_settings(name, settings, size=size, difficulty=difficulty, spacing=spacing)
    places = ((start + index // images_per_subject, index % images_per_subject) for index in range(count))
    return _draw(name, places, seed, resolved)


def _draw(name: str, places: Iterator[tuple[int, int]], seed: int, settings: PhantomSettings) -> Iterator[Case]:
    from bregma.phantoms.base import phantom_case, phantom_rngs
    from bregma.schema import load_schema

    schema, draw = load_schema(_info(name).schema), _info(name).generator()
    for number, image in places:
        subject = f"{name}-{seed}-{number:05d}"
        phantom = draw(settings, *phantom_rngs(name, seed, number, image))
        yield phantom_case(schema, phantom, subject=subject, case_id=f"{subject}-{image}")


def make_phantoms(
    name: str,
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    images_per_subject: int = 1,
    size: int | tuple[int, int] | None = None,
    difficulty: Difficulty | None = None,
    spacing: float | None = None,
    settings: PhantomSettings | None = None,
) -> Dataset:
    """Draw ``count`` phantoms and return them as a dataset; the arguments are those of :func:`iter_phantoms`."""
    from bregma.schema import load_schema
    from bregma.types import Dataset

    cases = iter_phantoms(
        name,
        count,
        seed=seed,
        start=start,
        images_per_subject=images_per_subject,
        size=size,
        difficulty=difficulty,
        spacing=spacing,
        settings=settings,
    )
    return Dataset(
        name=f"phantom-{name}",
        schema=load_schema(_info(name).schema),
        cases=tuple(cases),
        license="CC0-1.0",
        citation="Bregma, simulated images",
    )


def _info(name: str) -> PhantomInfo:
    if name not in PHANTOMS:
        raise ConfigError(f"there is no phantom '{name}'", expected=f"one of {', '.join(PHANTOMS)}")
    return PHANTOMS[name]


def _at_least(label: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"'{label}' is too small", expected=f"{low} or more", got=str(value))
