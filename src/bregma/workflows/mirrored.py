"""Mirrored views: a network may look at them when it predicts only if it learned from such."""

from __future__ import annotations

from bregma.errors import ConfigError
from bregma.recipe import Recipe
from bregma.schema import LandmarkSchema


def learned_flip(recipe: Recipe, share: float) -> float | None:
    """Return the share of mirrored views in training, or None where none are looked at in prediction."""
    return share if recipe.predict.flip else None


def check_flip(recipe: Recipe, schema: LandmarkSchema, share: float, *, within: str = "") -> None:
    """Refuse to look at mirrored images with a network that never saw one: it may be off by any amount.

    Args:
        recipe: how it is trained and how it predicts.
        schema: what it learns.
        share: of the views that are mirrored in training.
        within: the setting that holds these, where it is another network's; ends in a dot.

    Raises:
        ConfigError: mirrored images are to be looked at and none are learned from.
    """
    if recipe.predict.flip and schema.flip != "never" and share == 0 and recipe.trains_network:
        raise ConfigError(
            "mirrored images are to be looked at, but none are learned from",
            where=f"{within}predict.flip",
            expected="augment.flip above 0 with it",
            got="augment.flip=0",
            fix="set augment.flip=0.5, or predict.flip=false",
        )
