"""Scalar codec: quantities that belong to the whole image, standardised on the training subjects.

A length or an area is learned in pixels of the network's input, so that it is right under every zoom of the
augmentation and every spacing; it becomes millimetres where the input's map is undone. Shape suffixes: B batch, T
quantities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, FiniteFloat
from torch import Tensor

from bregma.codecs.base import Decoded, DecodedValues, Labels, Target, no_covariance
from bregma.config import Config
from bregma.errors import ConfigError
from bregma.schema import LandmarkSchema
from bregma.types import OutputSpec

_LEAST_LOG, _MOST_LOG = math.log(1e-3), math.log(1e2)
"""Range of the logarithm of a predicted variance, in standard deviations of the training subjects, squared."""


class Standard(Config):
    """What one unit of a network's output stands for."""

    mean: FiniteFloat
    """Over the training subjects; of a length or an area, in pixels of the input."""
    sd: FiniteFloat = Field(gt=0)


class ScalarCodecConfig(Config):
    """Settings of the scalar codec."""

    name: Literal["scalar"] = "scalar"
    quantities: tuple[str, ...] = ()
    """Which of the schema's quantities; all of them if empty."""
    variance: bool = False
    """Let the network predict a variance a quantity (train it with the ``value_nll`` loss)."""
    standards: tuple[Standard, ...] = ()
    """Of each quantity; learned on the training subjects before the training, where none are given."""


class ScalarCodec:
    """One number a quantity, and its variance where it is learned.

    Raises:
        ConfigError: a schema without quantities, or without one that is asked for; standards for other ones.
    """

    def __init__(self, config: ScalarCodecConfig, schema: LandmarkSchema | None) -> None:
        self.config = config
        self.landmarks = 0 if schema is None else len(schema)
        self.columns = columns_of(config, schema)
        if config.standards and len(config.standards) != len(self.columns):
            raise ConfigError(
                "there must be one standard a quantity",
                where="codec.standards",
                expected=str(len(self.columns)),
                got=str(len(config.standards)),
            )

    @property
    def outputs(self) -> OutputSpec:
        """``quantities`` (T), with ``log_variance`` (T) where it is learned."""
        count = len(self.columns)
        return OutputSpec(0, {"quantities": count} | ({"log_variance": count} if self.config.variance else {}))

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Standardise the quantities; those that are not known are masked by the losses."""
        del outputs
        columns = list(self.columns)
        mean, sd = self._standards(labels.values)
        return Target(
            labels, values=(labels.values[:, columns] - mean) / sd, values_known=labels.values_known[:, columns]
        )

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """There are no points.

        Raises:
            ConfigError: always.
        """
        del outputs, shape
        raise ConfigError("the scalar codec gives no points", where="loss", fix="train it with a loss on values")

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """There are no covariances of points.

        Raises:
            ConfigError: always.
        """
        del outputs, shape
        raise no_covariance("choose a loss on values: the scalar codec gives no points")

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read the quantities in their units, lengths and areas in pixels of the input; no landmark is there."""
        values = outputs["quantities"].float()
        mean, sd = self._standards(values)
        size = values.new_tensor([shape[1], shape[0]])
        nowhere = ((size - 1) / 2).expand(len(values), self.landmarks, 2)
        spread = torch.diag(size**2 / 12).expand(len(values), self.landmarks, 2, 2)
        log_variance = outputs.get("log_variance")
        return Decoded(
            nowhere,
            spread,
            values.new_zeros((len(values), self.landmarks)),
            values=DecodedValues(
                self.columns,
                values * sd + mean,
                None if log_variance is None else bounded(log_variance.float()).mul(0.5).exp() * sd,
            ),
        )

    def _standards(self, like: Tensor) -> tuple[Tensor, Tensor]:
        known = self.config.standards or (Standard(mean=0.0, sd=1.0),) * len(self.columns)
        return like.new_tensor([one.mean for one in known]), like.new_tensor([one.sd for one in known])


def columns_of(config: ScalarCodecConfig, schema: LandmarkSchema | None) -> tuple[int, ...]:
    """Return the positions among the schema's quantities of those that a codec is for.

    Raises:
        ConfigError: the schema has none, or not all of them.
    """
    names = [quantity.name for quantity in schema.quantities] if schema is not None else []
    if not names:
        raise ConfigError(
            "the scalar codec is for anatomies that declare quantities",
            where="model.codec.name",
            got="a schema without any" if schema is None else f"the schema '{schema.name}', which has none",
            fix="declare them under `quantities:` in the schema",
        )
    for name in config.quantities:
        if name not in names:
            raise ConfigError(
                f"the schema has no quantity '{name}'", where="model.codec.quantities", expected=", ".join(names)
            )
    return tuple(names.index(name) for name in config.quantities or names)


def bounded(log_variance: Tensor) -> Tensor:
    """Return logarithms of variances within a range, so that no output gives a likelihood without bound."""
    middle, half = (_LEAST_LOG + _MOST_LOG) / 2, (_MOST_LOG - _LEAST_LOG) / 2
    # An output of 0 stands for a variance of 1: before any training, nothing is known but the subjects' spread.
    offset = math.atanh(-middle / half)
    return middle + half * torch.tanh(log_variance / half + offset)
