"""What a training makes small: the weighted losses of a batch."""

from __future__ import annotations

import functools

from torch import Tensor

from bregma.codecs import Codec, Labels, Target
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.data.loader import Batch
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
        activation = None if isinstance(settings, CoordinateCodecConfig) else settings.activation
        check_terms(plan.loss, codec.outputs, activation, schema)
        self.terms, self.codec, self.schema = plan.loss, codec, schema
        self.shape = plan.model.preprocess.size

    def __call__(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, with its graph, and its terms, detached."""
        device = next(iter(outputs.values())).device
        labels = Labels(batch.points_in, batch.placed, batch.placed, batch.known, self.shape).to(device)
        return total_loss(self.terms, self._input(outputs, self.codec.encode(labels, outputs)))

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
        )


def _split(maps: Tensor | None, fields: int) -> tuple[Tensor | None, Tensor | None]:
    """Tell an output's maps from the fields that follow them."""
    if maps is None or not fields:
        return maps, None
    return maps[:, :-fields], maps[:, -fields:]
