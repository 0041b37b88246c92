"""Features of images for classical regressors: what a network's encoder sees, and statistics of the grey values.

Both may be pooled over a region of interest: what the landmarks of a second model enclose. Shape suffixes: B images, S
slices, C channels, H and W rows and columns, F columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bregma import geometry
from bregma.data.loader import SampleSource, batches
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import BregmaError, ConfigError, ImageError
from bregma.geometry import Array
from bregma.hardware import detect_hardware
from bregma.inference import in_order, memory_format
from bregma.prediction.failure import Failure
from bregma.schema import LandmarkSchema
from bregma.types import Case, Prediction

_PERCENTILES = (10, 25, 50, 75, 90)
_COARSEST_LOCAL = 16
"""Largest stride of features that are pooled over the region of interest; coarser ones see more than it."""
_SURROUNDINGS = 0.5
"""Width of what is taken as the surroundings of a region, in square roots of the mean area of its pieces."""
_RIM = 0.06
"""Width at the border of a region that is left out, in the same unit: bone's own rim is no marrow."""
_PRESENT = 0.5
_NOTHING = LandmarkSchema(name="nothing", title="Nothing")
"""Features are not told what is labelled."""
SPACING = "mm_per_px"
"""The column that tells how large a pixel of the input is; 0 where the image has no spacing."""
ROI_SIDE = "roi_side_mm"
"""The column with the side of a square as large as a piece of the region of interest on average; 0 likewise."""


class Region(NamedTuple):
    """What landmarks enclose on the network's input.

    Attributes:
        core: ``(H, W)`` of 0 and 1, without its rim.
        around: ``(H, W)`` likewise, what surrounds it.
        side: square root of the mean area of its pieces, in pixels of the input.
    """

    core: NDArray[np.float32]
    around: NDArray[np.float32]
    side: float


class Locator(Protocol):
    """Finds the landmarks that enclose a region of interest."""

    schema: LandmarkSchema

    @property
    def slices(self) -> int:
        """Neighbouring slices of a volume that it looks at."""
        ...

    def predict(self, cases: Iterable[Case]) -> Iterator[Prediction | Failure]:
        """Yield a prediction, or the reason why there is none, for every case in order."""
        ...


@dataclass(frozen=True)
class Features:
    """Features of one case.

    Attributes:
        case: whose they are.
        slices: ``(S, F)``, slice by slice.
    """

    case: Case
    slices: Array

    @property
    def pooled(self) -> Array:
        """Their mean ``(F,)`` over the slices."""
        return np.asarray(self.slices.mean(axis=0))


class FeatureExtractor:
    """Turns cases into columns of numbers.

    Args:
        network: built over a timm encoder, whose feature pyramid is taken.
        preprocess: of its input; where it has several ``slices`` and the network takes one, they are seen one by one.
        pyramid: whether the encoder's features are wanted.
        intensities: whether statistics of grey values are wanted.
        roi: finds the landmarks that enclose the region of interest; None takes the whole image.
        accelerator: where the network runs.

    Raises:
        ConfigError: a network without such an encoder, or a model of another number of slices.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: PreprocessConfig,
        *,
        pyramid: bool = True,
        intensities: bool = True,
        roi: Locator | None = None,
        accelerator: str = "auto",
    ) -> None:
        encoder: Any = getattr(network, "encoder", None)
        if pyramid and not hasattr(encoder, "feature_info"):
            raise ConfigError(
                "features come from a network over a timm encoder",
                where="model.network.name",
                expected="coordinate_net or timm_unet, for example",
                got=type(network).__name__,
            )
        if pyramid and _channels(encoder) not in (1, preprocess.slices):
            raise ConfigError(
                "the network sees another number of slices",
                where="slices",
                expected=f"{_channels(encoder)}, or a network that sees one",
                got=str(preprocess.slices),
            )
        self.encoder: Any = encoder if pyramid else None
        self.preprocess, self.intensities, self.roi = preprocess, intensities, roi
        self.device = torch.device(detect_hardware(accelerator).accelerator)
        self.singly = preprocess.slices > 1 and (not pyramid or _channels(encoder) == 1)
        self._strides = [int(r) for r in encoder.feature_info.reduction()] if pyramid else []
        self._widths = [int(c) for c in encoder.feature_info.channels()] if pyramid else []
        if self.encoder is not None:
            self.encoder.to(self.device, memory_format=memory_format(self.device)).eval()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the F columns."""
        names = [SPACING] if self.roi is None else [SPACING, ROI_SIDE]
        for stride, width, local in self._levels():
            names += [f"{'roi_' if local else ''}stride{stride}_{channel}" for channel in range(width)]
        if self.intensities:
            areas = ("image",) if self.roi is None else ("image", "roi", "around")
            kinds = ("mean", "sd", *(f"p{p}" for p in _PERCENTILES))
            names += [f"{area}_{kind}" for area in areas for kind in kinds]
            names += [] if self.roi is None else ["roi_to_around", "roi_to_image"]
        return tuple(names)

    def extract(self, cases: Iterable[Case]) -> Iterator[Features | Failure]:
        """Yield the features of every case in order, or why it has none."""
        for case in cases:
            try:
                yield self.of(case)
            except BregmaError as error:
                yield Failure(case.id, str(error))

    @torch.no_grad()
    def of(self, case: Case) -> Features:
        """Return the features of a case.

        Raises:
            ImageError: it cannot be read, or has no region of interest.
        """
        source = SampleSource([case], _NOTHING, self.preprocess)
        (batch,) = batches(source, in_order(1, 1), workers=0)
        matrix = batch.matrices[0]
        region = None if self.roi is None else self._region(case, matrix)
        images = batch.images[0][:, None] if self.singly else batch.images
        spacing = case.frame.spacing
        scale = geometry.mean_scale(matrix)
        mm_per_px = 0.0 if spacing is None else float(np.sqrt(spacing[0] * spacing[1])) / scale
        sizes = [mm_per_px] if region is None else [mm_per_px, mm_per_px * region.side]
        parts = [np.tile(sizes, (len(images), 1))]
        if self.encoder is not None:
            parts.append(self._pyramid(images, region))
        if self.intensities:
            grey = images[:, images.shape[1] // 2].numpy()
            parts.append(np.array([_statistics(one, region) for one in grey]))
        return Features(case, np.concatenate(parts, axis=1))

    def _levels(self) -> list[tuple[int, int, bool]]:
        """Return stride, channels and whether it is pooled over the region of each set of features."""
        if not self._strides:
            return []
        last = (self._strides[-1], self._widths[-1], False)
        if self.roi is None:
            return [last]
        fine = [(s, w, True) for s, w in zip(self._strides, self._widths, strict=True) if s <= _COARSEST_LOCAL]
        return [*fine, last]

    def _pyramid(self, images: Tensor, region: Region | None) -> Array:
        maps = self.encoder(images.to(self.device, memory_format=memory_format(self.device)))
        wanted = {stride: local for stride, _, local in self._levels()}
        found = []
        for stride, features_BCHW in zip(self._strides, maps, strict=True):
            if stride not in wanted:
                continue
            if wanted[stride] and region is not None:
                mask = torch.from_numpy(region.core)[None, None].to(features_BCHW)
                share = nn.functional.interpolate(mask, size=features_BCHW.shape[-2:], mode="area")
                found.append((features_BCHW * share).sum(dim=(2, 3)) / share.sum().clamp(min=1e-6))
            else:
                found.append(features_BCHW.mean(dim=(2, 3)))
        return torch.cat(found, dim=1).float().cpu().double().numpy()

    def _region(self, case: Case, matrix: Array) -> Region:
        assert self.roi is not None
        (answer,) = self.roi.predict([case])
        if isinstance(answer, Failure):
            raise ImageError(f"has no region of interest ({answer.reason})", where=case.id)
        return region_of(answer, self.roi.schema, matrix, self.preprocess.size, where=case.id)


def region_of(
    prediction: Prediction, schema: LandmarkSchema, matrix: Array, size: tuple[int, int], *, where: str
) -> Region:
    """Return what landmarks enclose.

    The elements of a chain are a piece each; without a chain all landmarks together are one.

    Args:
        prediction: landmarks on the original image.
        schema: theirs.
        matrix: from the original image to the input.
        size: rows and columns of the input.
        where: for messages.

    Raises:
        ImageError: fewer than three landmarks of any piece were found.
    """
    pieces = [
        cv2.convexHull(geometry.apply(matrix, points).astype(np.float32))
        for points in _pieces(prediction, schema)
        if len(points) >= 3
    ]
    inside = np.zeros(size, dtype=np.uint8)
    for hull in pieces:
        cv2.fillConvexPoly(inside, np.round(hull * 16).astype(np.int32), 1, shift=4)
    if not inside.any():
        raise ImageError("no region of interest was found on it", where=where, expected="three landmarks or more")
    side = float(np.sqrt(inside.sum() / max(len(pieces), 1)))
    without_rim = cv2.erode(inside, _disc(_RIM * side), borderValue=0)
    core = without_rim if without_rim.any() else inside
    around = cv2.dilate(inside, _disc(_SURROUNDINGS * side), borderValue=0) - inside
    return Region(core.astype(np.float32), around.astype(np.float32), side)


def _pieces(prediction: Prediction, schema: LandmarkSchema) -> Iterator[Array]:
    present = prediction.presence >= _PRESENT
    chained = False
    for chain in schema.chains:
        chained = True
        own = [one for one in prediction.instances or () if one.chain == chain.name]
        if prediction.instances is not None:
            yield from (one.points[one.presence >= _PRESENT] for one in own)
            continue
        for level in chain.levels:
            columns = [schema.index(chain.landmark_name(level, part)) for part in chain.parts_of(level)]
            yield prediction.mean[[c for c in columns if present[c]]]
    if not chained:
        yield prediction.mean[present]


def _disc(radius: float) -> NDArray[np.uint8]:
    reach = max(1, round(radius))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)), dtype=np.uint8)


def _statistics(grey: NDArray[np.float32], region: Region | None) -> Array:
    if region is None:
        return _of_area(grey.ravel())
    rows = [_of_area(area) for area in (grey.ravel(), grey[region.core > 0], grey[region.around > 0])]
    image, inside, around = (row[0] for row in rows)
    ratios = [inside / max(around, 1e-3), inside / max(image, 1e-3)]
    return np.concatenate([*rows, ratios])


def _of_area(values: NDArray[np.float32]) -> Array:
    if not values.size:
        return np.full(2 + len(_PERCENTILES), np.nan)
    return np.array([values.mean(), values.std(), *np.percentile(values, _PERCENTILES)], dtype=np.float64)


def _channels(encoder: nn.Module) -> int:
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    return first.in_channels
