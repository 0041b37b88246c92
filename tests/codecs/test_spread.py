"""Predicted standard deviations beside heatmaps: what they mean, their bounds, and that likelihood finds residuals."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bregma.codecs import Labels, build_codec
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.errors import ConfigError
from bregma.losses import LOSSES, GaussianNLLConfig, check_terms
from bregma.schema import load_schema

SHAPE = (64, 100)
FIRST_PX = 0.02 * 100


def labels_of(points):
    p = torch.tensor(points, dtype=torch.float32)[None]
    ones = torch.ones(p.shape[:2])
    return Labels(p, ones, ones, ones, SHAPE)


def codec_of(landmarks, **settings):
    return build_codec(HeatmapCodecConfig(**settings), landmarks, 2)


def sharp_maps(codec, points):
    return codec.encode(labels_of(points)).maps.clamp(min=1e-30).log()


def test_spread_is_asked_for_beside_the_maps():
    assert codec_of(3, spread=True).outputs.vectors == {"spread": 6}
    assert codec_of(3, spread=True, presence=True).outputs.vectors == {"presence": 3, "spread": 6}
    assert codec_of(3).outputs.vectors == {}


@pytest.mark.parametrize("decoder", ["argmax", "dark", "local_soft_argmax", "soft_argmax"])
def test_covariance_is_the_predicted_one_in_input_pixels(decoder):
    points = [(40.3, 30.1), (70.2, 20.7)]
    plain, spread = codec_of(2, decoder=decoder), codec_of(2, decoder=decoder, spread=True)
    # x and y of the first point, then of the second; the logarithm is all but linear this near to 0.
    outputs = {"maps": sharp_maps(plain, points), "spread": torch.tensor([[0.0, 0.1, -0.2, 0.2]])}
    decoded = spread.decode(outputs, SHAPE)
    sigma = FIRST_PX * np.exp([[0.0, 0.1], [-0.2, 0.2]])
    np.testing.assert_allclose(decoded.cov_in[0].numpy(), [np.diag(row**2) for row in sigma], rtol=1e-3)
    np.testing.assert_allclose(spread.cholesky(outputs, SHAPE)[0].numpy(), [np.diag(row) for row in sigma], rtol=5e-4)
    assert torch.equal(decoded.mean_in, plain.decode(outputs, SHAPE).mean_in)


@pytest.mark.parametrize("raw", [1e4, -1e4])
def test_wild_outputs_stay_within_a_factor_of_four_hundred(raw):
    outputs = {"spread": torch.full((1, 2), raw, requires_grad=True)}
    factor = codec_of(1, spread=True).cholesky(outputs, SHAPE)
    expected = FIRST_PX * math.exp(math.copysign(6.0, raw))
    np.testing.assert_allclose(factor.detach().numpy()[0, 0], np.eye(2) * expected, rtol=1e-5)
    factor.sum().backward()
    assert outputs["spread"].grad.isfinite().all()


def test_a_covariance_that_nobody_asked_for_is_refused_with_the_setting_that_does():
    with pytest.raises(ConfigError, match="no covariance") as caught:
        codec_of(1).cholesky({}, SHAPE)
    assert caught.value.fix == "set codec.spread=true"
    with pytest.raises(ConfigError, match="no covariance") as caught:
        build_codec(CoordinateCodecConfig(), 1, 1).cholesky({}, SHAPE)
    assert caught.value.fix == "set codec.covariance=true"


def test_likelihood_is_refused_where_no_covariance_is_predicted():
    schema = load_schema("fetal_head")
    check_terms([GaussianNLLConfig()], codec_of(4, spread=True).outputs, "softmax", schema)
    with pytest.raises(ConfigError, match="'cholesky' or 'spread'"):
        check_terms([GaussianNLLConfig()], codec_of(4).outputs, "softmax", schema)


def test_likelihood_finds_the_residual_of_every_axis():
    """Points are off by the same amounts in either direction, so that the best σ is that amount."""
    codec = codec_of(2, spread=True)
    off = torch.tensor([[3.0, 0.5], [1.0, 6.0]])
    maps = sharp_maps(codec, [(40.0, 30.0), (70.0, 20.0)]).expand(2, -1, -1, -1)
    raw = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.1)
    seen = codec.points({"maps": maps}, SHAPE)
    target = seen + torch.stack([off, -off])
    for _ in range(150):
        factor = codec.cholesky({"spread": raw.expand(2, -1)}, SHAPE)
        x = SimpleNamespace(
            points=lambda: seen, target_points=target, cholesky=lambda factor=factor: factor, placed=torch.ones(2, 2)
        )
        optimizer.zero_grad()
        LOSSES["gaussian_nll"](GaussianNLLConfig(), x).backward()
        optimizer.step()
    found = codec.cholesky({"spread": raw.detach()}, SHAPE)[0].diagonal(dim1=-2, dim2=-1)
    np.testing.assert_allclose(found.numpy(), off.numpy(), rtol=0.02)
