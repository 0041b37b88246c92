"""Faults of single settings, said with the line of the recipe that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bregma.bundle import ModelConfig
from bregma.config import Loc
from bregma.errors import ConfigError
from bregma.recipe import LoadedRecipe, Recipe


@contextmanager
def settings_of(loaded: LoadedRecipe) -> Iterator[None]:
    """Let errors that name a setting say its full name, and where the recipe gives it.

    What checks a setting against the data or the network knows neither the recipe's file nor, in a network or codec,
    that its settings are part of ``model``.

    Raises:
        ConfigError: the one that came, with a fuller place.
    """
    try:
        yield
    except ConfigError as error:
        place = _full_name(error.where or "")
        if place is None:
            raise
        raise ConfigError(
            error.problem,
            where=_where(loaded, place),
            expected=error.expected,
            got=error.got,
            fix=error.fix,
        ) from error


def _full_name(where: str) -> Loc | None:
    first, *rest = where.split(".")
    outer = ("model",) if first in ModelConfig.model_fields else ()
    if not outer and first not in Recipe.model_fields:
        return None
    return (*outer, first, *(int(step) if step.isdecimal() else step for step in rest))


def _where(loaded: LoadedRecipe, place: Loc) -> str:
    setting = ".".join(map(str, place))
    # A list that was given as a whole stands for its entries; the group that a setting is in says nothing about it.
    within = next((place[:i] for i, step in enumerate(place) if isinstance(step, int)), place)
    line = loaded.lines.get(place, loaded.lines.get(within))
    if line is None:
        return setting
    return f"{line}, {setting}" if isinstance(line, str) else f"{loaded.where}, line {line}, {setting}"
