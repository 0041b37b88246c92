"""How good a network is on the validation part, without augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bregma.codecs.base import EXTENT
from bregma.data.loader import SampleSource, batches
from bregma.errors import ConfigError
from bregma.exchange import sets_of
from bregma.geometry import Array
from bregma.inference import extent_of, in_order, predictions_of, radial_errors, run_network
from bregma.metrics import detection_rate
from bregma.training.chain_errors import with_nameless
from bregma.training.monitoring import LOSS, MEDIAN, MRE, VALUES, sdr_name
from bregma.training.objective import Objective
from bregma.training.settings import TrainConfig
from bregma.types import Prediction


@dataclass(frozen=True)
class Scores:
    """What a validation found.

    Attributes:
        errors_px: distances of all labelled points of all cases, on the original images.
        loss: mean loss of the batches, each counted by its landmarks that have a position, or quantities known.
        errors_sd: absolute errors of all known quantities, in standard deviations of the training subjects.
    """

    errors_px: Array
    loss: float
    errors_sd: Array | None = None

    def row(self, sdr_px: Sequence[float]) -> dict[str, float]:
        """Return the figures by name; a loss that is no finite number is left out."""
        row = {LOSS: self.loss} if np.isfinite(self.loss) else {}
        if self.errors_sd is not None:
            return {VALUES: float(self.errors_sd.mean()), **row}
        row |= {MRE: float(self.errors_px.mean()), MEDIAN: float(np.median(self.errors_px))}
        return row | {sdr_name(radius): detection_rate(self.errors_px, radius) or 0.0 for radius in sdr_px}


@torch.no_grad()
def validate(
    network: nn.Module, objective: Objective, source: SampleSource, settings: TrainConfig, device: torch.device
) -> Scores:
    """Predict every case and compare it with its labels, in one pass.

    Elements of a chain that have no name count for the labels that they lie nearest to.

    Raises:
        ConfigError: no case has a label.
    """
    network.eval()
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(settings.precision)
    predictions: list[Prediction] = []
    losses, weights = [], []
    away: list[Array] = []
    for batch in batches(source, in_order(len(source), settings.batch_size), workers=settings.workers):
        outputs = run_network(network, batch.images, device=device, dtype=dtype)
        losses.append(float(objective(outputs, batch)[0]))
        if objective.of_values:
            weights.append(float(batch.values_known.sum()))
            away.append(objective.value_errors(outputs, batch))
            continue
        seen = {**outputs, EXTENT: extent_of(source, batch)}
        predictions += predictions_of(source, batch, objective.codec.decode(seen, objective.shape))
        weights.append(float(batch.placed.sum()))
    loss = float(np.dot(losses, weights)) / max(1.0, sum(weights))
    if objective.of_values:
        if not sum(map(len, away)):
            raise ConfigError("the validation cases know none of the quantities", where="split 'val'")
        return Scores(np.zeros(0), loss, np.concatenate(away))
    schema = objective.schema
    found = [with_nameless(one, case, schema) for one, case in zip(predictions, source.cases, strict=True)]
    errors_px = radial_errors(source.cases, found, sets_of(schema))
    if not len(errors_px):
        raise ConfigError("the validation cases carry no labels", where="split 'val'")
    return Scores(errors_px, loss)
