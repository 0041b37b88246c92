"""From labels through a perfect outline and poor points to a head's circumference, in every view of the input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bregma.bundle import PredictConfig
from bregma.codecs import Labels, build_codec
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.data.loader import SampleSource, batches
from bregma.data.preprocess import PreprocessConfig
from bregma.inference import predictions_of
from bregma.measurement.primitives import ellipse_perimeter
from bregma.phantoms import make_phantoms
from bregma.prediction.predictor import mixture, unflip
from bregma.prediction.predictor import test_views as views_of
from bregma.types import Prediction

SIZE = (128, 192)


@pytest.fixture(scope="module")
def heads() -> tuple[list[Prediction], list[float]]:
    """Averages over the views of three phantoms, whose points were seen 1 px off on every view; and the true HC."""
    dataset = make_phantoms("fetal_head", 3, seed=5)
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.5), 4, 2, dataset.schema)
    source = SampleSource(dataset.cases, dataset.schema, PreprocessConfig(size=SIZE))
    rng = np.random.default_rng(0)
    seen = []
    for view in views_of(PredictConfig(flip=True, rotations_deg=(10.0,)), dataset.schema, SIZE):
        batch = next(batches(source.seen_through(view), [(0, 1, 2)], workers=0))
        labels = Labels(batch.points_in, batch.placed, batch.placed, batch.known, SIZE)
        off = torch.from_numpy(rng.normal(0, 1.0, (3, 4, 2)).astype(np.float32))
        points, ridge = (codec.encode(one).maps for one in (replace(labels, points_in=labels.points_in + off), labels))
        assert points is not None
        assert ridge is not None
        maps = torch.cat([points[:, :2], ridge[:, 2:]], 1).clamp(min=1e-30).log()
        found = predictions_of(source, batch, codec.decode({"maps": maps}, SIZE))
        seen.append([unflip(one, dataset.schema) if view.flip else one for one in found])
    averaged = [mixture(parts, ((0, 1), (2, 3))) for parts in zip(*seen, strict=True)]
    return averaged, [case.targets["hc_mm"] for case in dataset.cases]


def test_circumference_comes_from_the_outline(heads: tuple[list[Prediction], list[float]]) -> None:
    for prediction, true_mm in zip(*heads, strict=True):
        ends = prediction.frame.to_mm(prediction.mean)
        assert ellipse_perimeter(*ends) == pytest.approx(true_mm, rel=0.01)


def test_views_agree_and_nothing_is_flagged(heads: tuple[list[Prediction], list[float]]) -> None:
    for prediction in heads[0]:
        assert prediction.view_spread is not None
        # A pixel of the input is three of the original image.
        assert prediction.view_spread.max() < 4
        assert not any(prediction.flags or ())


def test_axes_are_at_right_angles(heads: tuple[list[Prediction], list[float]]) -> None:
    for prediction in heads[0]:
        first, second = (prediction.mean[i] - prediction.mean[i + 1] for i in (0, 2))
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert abs(cosine) < np.sin(np.radians(1.0))
