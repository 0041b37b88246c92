"""What a training makes small: the weighted losses of a batch."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bregma.codecs import Codec, Labels, Target
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.codecs.scalar import bounded
from bregma.data.loader import Batch
from bregma.exchange import Sets, matching_order, sets_of
from bregma.geometry import Array
from bregma.losses import LossInput, check_terms, total_loss
from bregma.schema import LandmarkSchema
from bregma.training.settings import Plan


class Objective:
    """The losses of a plan.

    Raises:
        ConfigError: a loss needs what the codec or the anatomy does not give.
    """

    def __init__(self, plan: Plan, codec: Codec, schema: LandmarkSchema) -> None:
        settings = plan.model.codec
        activation = getattr(settings, "activation", None)
        check_terms(plan.loss, codec.outputs, activation, schema)
        self.terms, self.codec, self.schema = plan.loss, codec, schema
        self.shape = plan.model.preprocess.size
        # Points that are regressed have no place of their own that would tell them apart, so that any order is right.
        self.sets = sets_of(schema) if isinstance(settings, CoordinateCodecConfig) else ()

    def __call__(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, with its graph, and its terms, detached."""
        device = next(iter(outputs.values())).device
        labels = self.labels(batch).to(device)
        if self.sets:
            labels = in_nearest_order(labels, self.codec.points(outputs, self.shape), self.sets)
        return self.of_target(outputs, self.codec.encode(labels, outputs))

    def labels(self, batch: Batch) -> Labels:
        """Return what codecs learn of a batch."""
        return Labels(
            batch.points_in, batch.placed, batch.placed, batch.known, self.shape, batch.values, batch.values_known
        )

    def of_target(self, outputs: dict[str, Tensor], target: Target) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss against a target that is ready, with its graph, and its terms, detached."""
        return total_loss(self.terms, self._input(outputs, target))

    @property
    def of_values(self) -> bool:
        """Whether quantities of whole images are trained, and no landmarks."""
        return "quantities" in self.codec.outputs.vectors

    def value_errors(self, outputs: dict[str, Tensor], batch: Batch) -> Array:
        """Return the absolute errors ``(K,)`` of all known quantities of a batch, standardised."""
        target = self.codec.encode(self.labels(batch))
        if target.values is None or target.values_known is None:
            raise ValueError("the codec gives no values")
        away = (outputs["quantities"].float().cpu() - target.values).abs()
        return np.asarray(away[target.values_known > 0].double().numpy())

    def _input(self, outputs: dict[str, Tensor], target: Target) -> LossInput:
        codec, labels = self.codec, target.labels
        shape = labels.shape
        maps, fields = _split(outputs.get("maps"), codec.outputs.fields)
        return LossInput(
            maps=maps,
            target_maps=target.maps,
            # Several terms on points share one pass over the maps.
            points=functools.cache(lambda: codec.points(outputs, shape)),
            target_points=labels.points_in,
            cholesky=lambda: codec.cholesky(outputs, shape),
            placed=labels.placed,
            presence=outputs.get("presence"),
            present=labels.present,
            known=labels.known,
            schema=self.schema,
            sigma=target.sigma,
            cells=target.cells,
            peaks=target.peaks,
            fields=fields,
            target_fields=target.fields,
            field_cells=target.field_cells,
            counts=target.counts,
            values=outputs.get("quantities"),
            log_variance=bounded(outputs["log_variance"]) if "log_variance" in outputs else None,
            target_values=target.values,
            values_known=target.values_known,
        )


def in_nearest_order(labels: Labels, points_in: Tensor, sets: Sets) -> Labels:
    """Return labels with the members of each exchangeable set in the order that is nearest to predicted points.

    A loss of the best order is what it is without an order; held to that of the labels, points of a set are drawn
    towards each other's place and end in their middle.
    """
    # An assignment needs numbers; a loss that is none is dealt with where it is computed.
    seen, true = (t.detach().cpu().double().nan_to_num().numpy() for t in (points_in, labels.points_in))
    placed = labels.placed.cpu().numpy() > 0
    # Rows are the labels to be put in order, columns the points that they are put beside.
    orders = [
        matching_order(points, reference, sets, np.broadcast_to(there[:, None], (len(there), len(there))))
        for points, reference, there in zip(true, seen, placed, strict=True)
    ]
    order = torch.as_tensor(np.stack(orders), device=labels.points_in.device)
    placed_BN, present, known = (t.gather(1, order) for t in (labels.placed, labels.present, labels.known))
    points = labels.points_in.gather(1, order[..., None].expand_as(labels.points_in))
    return replace(labels, points_in=points, placed=placed_BN, present=present, known=known)


def _split(maps: Tensor | None, fields: int) -> tuple[Tensor | None, Tensor | None]:
    """Tell an output's maps from the fields that follow them."""
    if maps is None or not fields:
        return maps, None
    return maps[:, :-fields], maps[:, -fields:]
