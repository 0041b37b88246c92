"""From a batch of inputs to predictions on the original images: the one place where the input's map is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bregma import geometry
from bregma.codecs import Codec, Decoded
from bregma.codecs.base import EXTENT, Candidates, DecodedValues
from bregma.data.loader import Batch, SampleSource, batches, input_factor
from bregma.exchange import Sets, matching_order
from bregma.geometry import Array, Frame
from bregma.instances import Instance
from bregma.outlines import place_on_outline, seen_of
from bregma.schema import Quantity
from bregma.types import Case, Prediction, Value


def in_order(count: int, batch_size: int) -> list[tuple[int, ...]]:
    """Return the batches that visit every case once, in order."""
    return [tuple(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels-last is the faster layout for convolutions on CPUs and on CUDA."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


@torch.no_grad()
def forward(
    network: nn.Module,
    codec: Codec,
    images: Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    extent: Tensor | None = None,
) -> Decoded:
    """Run the network on ``(B, 1, H, W)`` and decode.

    Args:
        network: it.
        codec: what reads its outputs.
        images: ``(B, 1, H, W)``.
        device: where the network is.
        dtype: switches mixed precision on.
        extent: ``(B, 4)`` where the images lie in the input, from :func:`extent_of`; None if they fill it.
    """
    shape = (int(images.shape[2]), int(images.shape[3]))
    outputs = run_network(network, images, device=device, dtype=dtype)
    return codec.decode(outputs if extent is None else {**outputs, EXTENT: extent}, shape)


def extent_of(source: SampleSource, batch: Batch) -> Tensor:
    """Return the left, upper, right and lower edge ``(B, 4)`` of the images of a batch in input pixels."""
    edges = [
        _edges(source.cases[index].frame.shape, matrix)
        for index, matrix in zip(batch.indices, batch.matrices, strict=True)
    ]
    return torch.from_numpy(np.stack(edges))


def _edges(shape: tuple[int, int], matrix: Array) -> Array:
    height, width = shape
    x, y = (width - 1) / 2, (height - 1) / 2
    # The middles of the four sides, so that a view that is turned a little keeps its own height.
    middles = geometry.apply(matrix, np.array([(-0.5, y), (x, -0.5), (width - 0.5, y), (x, height - 0.5)]))
    across, down = np.sort(middles[[0, 2], 0]), np.sort(middles[[1, 3], 1])
    return np.array([across[0], down[0], across[1], down[1]])


@torch.no_grad()
def run_network(
    network: nn.Module, images: Tensor, *, device: torch.device, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Return the network's outputs for ``(B, 1, H, W)`` as float32; ``dtype`` switches mixed precision on."""
    x = images.to(device, memory_format=memory_format(device))
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        outputs = network(x)
    return {name: value.float() for name, value in outputs.items()}


@dataclass(frozen=True)
class Places:
    """Where the points of an exchangeable set may be on the original image, those with most mass first.

    Attributes:
        members: positions of the set's n landmarks.
        mean: ``(C, 2)`` in pixels.
        cov: ``(C, 2, 2)`` in px².
        mass: ``(C,)`` share of the map's mass; 0 where there is no such place.
        presence: ``(n,)`` learned probability that there are at least 1, 2, … n of them; None where their mass tells.
    """

    members: tuple[int, ...]
    mean: Array
    cov: Array
    mass: Array
    presence: Array | None = None


Chooser = Callable[[Prediction, Sequence[Places]], Prediction]
"""Chooses among the places of all sets of an image, given what the codec chose for each set alone."""


def predict_source(
    network: nn.Module,
    codec: Codec,
    source: SampleSource,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    batch_size: int = 8,
    workers: int = 1,
    model: str = "",
    choose: Chooser | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction a case, in order."""
    order = in_order(len(source), batch_size)
    for batch in batches(source, order, workers=workers):
        extent = extent_of(source, batch)
        decoded = forward(network, codec, batch.images, device=device, dtype=dtype, extent=extent)
        yield from predictions_of(source, batch, decoded, model, choose)


def predictions_of(
    source: SampleSource, batch: Batch, decoded: Decoded, model: str = "", choose: Chooser | None = None
) -> Iterator[Prediction]:
    """Yield the predictions of one batch of a source."""
    # Doubles are made on the CPU, because some accelerators have none.
    mean, cov, presence = (t.cpu().double().numpy() for t in (decoded.mean_in, decoded.cov_in, decoded.presence))
    for row, index in enumerate(batch.indices):
        found = None if decoded.instances is None else decoded.instances[row]
        matrix = batch.matrices[row]
        prediction = to_original(source.cases[index], matrix, mean[row], cov[row], presence[row], model, found)
        if choose is not None and decoded.candidates:
            prediction = choose(prediction, [_places(one, row, matrix) for one in decoded.candidates])
        for one in decoded.outlines:
            p = one.p[row].cpu().numpy()
            prediction = place_on_outline(prediction, seen_of(one.ends, p, matrix, one.stride, one.sigma_cells))
        if decoded.values is not None:
            prediction = replace(prediction, values=_values(decoded.values, row, source, index, matrix))
        yield prediction


def _values(decoded: DecodedValues, row: int, source: SampleSource, index: int, matrix: Array) -> dict[str, Value]:
    """Return quantities in their units; a length or an area without a spacing in pixels of the original image."""
    frame, found = source.cases[index].frame, {}
    for column, position in enumerate(decoded.columns):
        quantity = source.schema.quantities[position]
        sd = None if decoded.sd is None else float(decoded.sd[row, column])
        found[quantity.name] = value_in_units(quantity, float(decoded.mean[row, column]), sd, frame, matrix)
    return found


def value_in_units(quantity: Quantity, mean: float, sd: float | None, frame: Frame, matrix: Array) -> Value:
    """Return a quantity of the input in its unit.

    A length or an area without a spacing is given in pixels of the original image.

    Args:
        quantity: its declaration.
        mean: as the input shows it; a length or an area in its pixels.
        sd: likewise; None where it is not known.
        frame: of the original image.
        matrix: from pixels of the original image to those of the input.
    """
    factor, unit = input_factor(quantity.dimension, frame, matrix), quantity.unit
    if factor is None:
        # As if a pixel of the original image were a millimetre.
        factor = input_factor(quantity.dimension, replace(frame, spacing=(1.0, 1.0), spacing_source="user"), matrix)
        unit = {"length": "px", "area": "px2"}[quantity.dimension]
    factor = 1.0 if factor is None else factor
    return Value(mean / factor, None if sd is None else sd / factor, unit)


def _places(candidates: Candidates, row: int, matrix: Array) -> Places:
    back = geometry.invert(matrix)
    mean, cov, mass = (t[row].cpu().double().numpy() for t in (candidates.mean_in, candidates.cov_in, candidates.mass))
    learned = None if candidates.presence is None else candidates.presence[row].cpu().double().numpy()
    return Places(candidates.members, geometry.apply(back, mean), geometry.apply_cov(back, cov), mass, learned)


def to_original(
    case: Case,
    matrix: Array,
    mean_in: Array,
    cov_in: Array,
    presence: Array,
    model: str,
    instances: Sequence[Instance] | None = None,
) -> Prediction:
    """Undo the input's map once, for means and covariances."""
    back = geometry.invert(matrix)
    return Prediction(
        case_id=case.id,
        mean=geometry.apply(back, mean_in),
        cov=geometry.apply_cov(back, cov_in),
        presence=np.clip(presence, 0.0, 1.0),
        frame=case.frame,
        model=model,
        instances=None if instances is None else tuple(_placed_back(one, back) for one in instances),
    )


def _placed_back(one: Instance, back: Array) -> Instance:
    return replace(one, points=geometry.apply(back, one.points), cov=geometry.apply_cov(back, one.cov))


def radial_errors(cases: Sequence[Case], predictions: Sequence[Prediction], sets: Sets = ()) -> Array:
    """Return the distances in px of all labelled points of all cases, in one array.

    Exchangeable points, whose positions ``sets`` gives, count in the order that fits best.
    """
    errors = []
    for case, prediction in zip(cases, predictions, strict=True):
        if case.landmarks is not None:
            labelled = case.landmarks.labelled
            usable = np.broadcast_to(labelled, (len(labelled), len(labelled)))
            order = matching_order(prediction.mean, case.landmarks.points, sets, usable)
            away = prediction.mean[order] - case.landmarks.points
            errors.append(np.linalg.norm(away, axis=1)[labelled])
    return np.concatenate(errors) if errors else np.zeros(0)
