"""Losses: named terms, each masked to landmarks that have a position, combined by weight.

Terms on maps compare outputs with Gaussian targets; terms on points compare points in input pixels, read from any
codec's outputs differentiably; terms on the anatomy read the schema. A landmark without a known position adds nothing
to any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from bregma.errors import ConfigError
from bregma.losses.anatomy import (
    AnatomicalConfig,
    DistanceConfig,
    SymmetryConfig,
    anatomical,
    check_anatomy,
    distance,
    symmetry,
)
from bregma.losses.base import LossInput, LossTerm
from bregma.losses.fields import OffsetConfig, offset
from bregma.losses.maps import (
    AdaptiveWingConfig,
    CrossEntropyConfig,
    FocalConfig,
    KLConfig,
    MSEConfig,
    PeakConfig,
    WeightedMSEConfig,
    adaptive_wing,
    cross_entropy,
    focal,
    kl,
    mse,
    peak,
    weighted_mse,
)
from bregma.losses.points import (
    EuclideanConfig,
    GaussianNLLConfig,
    HuberConfig,
    L1Config,
    L2Config,
    PresenceConfig,
    SmoothL1Config,
    WingConfig,
    euclidean,
    gaussian_nll,
    huber,
    l1,
    l2,
    presence,
    smooth_l1,
    wing,
)
from bregma.losses.values import (
    ValueHuberConfig,
    ValueMSEConfig,
    ValueNLLConfig,
    value_huber,
    value_mse,
    value_nll,
)
from bregma.losses.width import HeatmapWidthConfig, check_width, heatmap_width
from bregma.schema import LandmarkSchema
from bregma.types import OutputSpec

AnyLossConfig = Annotated[
    MSEConfig
    | WeightedMSEConfig
    | PeakConfig
    | AdaptiveWingConfig
    | FocalConfig
    | CrossEntropyConfig
    | KLConfig
    | HeatmapWidthConfig
    | OffsetConfig
    | WingConfig
    | SmoothL1Config
    | HuberConfig
    | EuclideanConfig
    | L1Config
    | L2Config
    | GaussianNLLConfig
    | PresenceConfig
    | SymmetryConfig
    | DistanceConfig
    | AnatomicalConfig
    | ValueHuberConfig
    | ValueMSEConfig
    | ValueNLLConfig,
    Field(discriminator="name"),
]

LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": mse,
    "weighted_mse": weighted_mse,
    "peak": peak,
    "adaptive_wing": adaptive_wing,
    "focal": focal,
    "cross_entropy": cross_entropy,
    "kl": kl,
    "heatmap_width": heatmap_width,
    "offset": offset,
    "wing": wing,
    "smooth_l1": smooth_l1,
    "huber": huber,
    "euclidean": euclidean,
    "l1": l1,
    "l2": l2,
    "gaussian_nll": gaussian_nll,
    "presence": presence,
    "symmetry": symmetry,
    "distance": distance,
    "anatomical": anatomical,
    "value_huber": value_huber,
    "value_mse": value_mse,
    "value_nll": value_nll,
}

ACTIVATIONS: dict[str, str] = {
    "mse": "linear",
    "weighted_mse": "linear",
    "peak": "linear",
    "adaptive_wing": "linear",
    "focal": "sigmoid",
    "cross_entropy": "softmax",
    "kl": "softmax",
}
"""The loss on maps to the codec's activation that reads what it trains."""

_NEEDS = {
    **dict.fromkeys(ACTIVATIONS, ("maps",)),
    "gaussian_nll": ("cholesky", "spread"),
    "presence": ("presence",),
    "heatmap_width": ("sigma",),
    "value_huber": ("quantities",),
    "value_mse": ("quantities",),
    "value_nll": ("log_variance",),
}
"""The loss to the outputs of which it needs one."""

_WITHOUT_POINTS = {*_NEEDS, "offset"} - {"gaussian_nll"}
"""Losses that need no points, which a codec with fields, or with landmarks that share a map, cannot give."""

_OF_LANDMARKS = {"symmetry", "distance", "anatomical"}
"""Losses that ask for the schema's landmarks by name."""


def check_terms(terms: Sequence[LossTerm], outputs: OutputSpec, activation: str | None, schema: LandmarkSchema) -> None:
    """Refuse terms that the codec or the anatomy cannot feed, before any training.

    Raises:
        ConfigError: no terms, a term whose output the codec does not give, maps of the wrong kind for it, a schema that
            declares nothing that it could act on, a learned width with nothing to hold it, or an output that says
            which elements of a chain there are and is not trained.
    """
    if not terms:
        raise ConfigError("there is no loss", where="loss", expected="at least one term")
    for index, term in enumerate(terms):
        where = f"loss.{index}"
        _check_outputs(_name(term), outputs, activation, where)
        check_anatomy(term, schema, where)
    names = [_name(term) for term in terms]
    check_width(names, [name for name in names if name in ACTIVATIONS], outputs)
    _check_elements(names, outputs)


def total_loss(terms: Sequence[LossTerm], x: LossInput) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum and each term's unweighted value; a name that comes again is numbered (``wing_2``)."""
    values: dict[str, Tensor] = {}
    total = x.target_points.new_zeros(())
    for index, term in enumerate(terms):
        name = _name(term)
        value = LOSSES[name](term, x)
        before = sum(_name(other) == name for other in terms[:index])
        values[f"{name}_{before + 1}" if before else name] = value.detach()
        total = total + term.weight * value
    return total, values


def _name(term: LossTerm) -> str:
    name: str = term.name  # type: ignore[attr-defined]
    return name


def _check_outputs(name: str, outputs: OutputSpec, activation: str | None, where: str) -> None:
    _check_fields(name, outputs, where)
    needs = _NEEDS.get(name, ())
    if needs and not set(needs) & set(outputs.names):
        wanted_outputs = "' or '".join(needs)
        raise ConfigError(
            f"the loss '{name}' needs the output '{wanted_outputs}'",
            where=where,
            got=f"a codec that gives {', '.join(outputs.names)}",
            fix="choose a codec that gives it, or another loss",
        )
    wanted = ACTIVATIONS.get(name)
    if wanted and activation != wanted:
        raise ConfigError(
            f"the loss '{name}' trains maps with codec.activation={wanted}",
            where=where,
            got=f"codec.activation={activation}",
            fix=f"set codec.activation={wanted}, or choose another loss",
        )


def _check_fields(name: str, outputs: OutputSpec, where: str) -> None:
    if name == "offset" and not outputs.fields:
        raise ConfigError(
            "the loss 'offset' needs a codec that gives fields",
            where=where,
            fix="set model.codec.name=chain, or choose another loss",
        )
    if outputs.shared and name not in _WITHOUT_POINTS:
        raise ConfigError(
            f"the loss '{name}' needs points in an order, and exchangeable points that share a map have none",
            where=where,
            fix="choose losses on maps, or set model.codec.exchangeable=separate",
        )
    if outputs.fields and name not in _WITHOUT_POINTS:
        raise ConfigError(
            f"the loss '{name}' needs points, which are not known before elements of a chain are told apart",
            where=where,
            fix="train the chain codec with a loss on maps and 'offset'",
        )
    if outputs.renumbered and name in _OF_LANDMARKS:
        raise ConfigError(
            f"the loss '{name}' needs the landmarks of the schema, and slots may show any level",
            where=where,
            fix="choose another loss, or the codec 'heatmap'",
        )


def _check_elements(names: Sequence[str], outputs: OutputSpec) -> None:
    if not outputs.renumbered:
        return
    codec, needed = ("chain", "offset") if outputs.fields else ("slots", "presence")
    why = {"offset": "the ways from centres to parts", "presence": "which slots are filled"}[needed]
    if needed not in names:
        raise ConfigError(
            f"nothing trains {why}", where="loss", expected=f"the term '{needed}'", fix=f"add {{name: {needed}}}"
        )
    if not set(names) & {*ACTIVATIONS}:
        raise ConfigError(
            f"nothing trains the maps that the {codec} codec reads",
            where="loss",
            expected="a loss on maps",
            fix=f"add {{name: {'focal' if outputs.fields else 'cross_entropy'}}}",
        )


__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "AdaptiveWingConfig",
    "AnatomicalConfig",
    "AnyLossConfig",
    "CrossEntropyConfig",
    "DistanceConfig",
    "EuclideanConfig",
    "FocalConfig",
    "GaussianNLLConfig",
    "HeatmapWidthConfig",
    "HuberConfig",
    "KLConfig",
    "L1Config",
    "L2Config",
    "LossInput",
    "LossTerm",
    "MSEConfig",
    "OffsetConfig",
    "PeakConfig",
    "PresenceConfig",
    "SmoothL1Config",
    "SymmetryConfig",
    "ValueHuberConfig",
    "ValueMSEConfig",
    "ValueNLLConfig",
    "WeightedMSEConfig",
    "WingConfig",
    "check_terms",
    "total_loss",
]
