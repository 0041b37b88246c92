"""Learned heatmap widths: targets, decoding at each landmark's own width, and where the widths go."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from bregma.codecs import Labels, build_codec
from bregma.codecs.heatmap import LEAST_CELLS, HeatmapCodecConfig
from bregma.errors import ConfigError
from bregma.losses import HeatmapWidthConfig, MSEConfig, WingConfig, check_terms, total_loss
from bregma.schema import load_schema
from loss_inputs import loss_input

SHAPE = (64, 96)
GAMMA, ALPHA = 100.0, 20.0
REFINING = ("dark", "local_soft_argmax", "soft_argmax")


def labels_of(points, shape=SHAPE):
    p = torch.as_tensor(points, dtype=torch.float32)
    p = p if p.ndim == 3 else p[None]
    ones = torch.ones(p.shape[:2])
    return Labels(p, ones, ones, ones, shape)


def codec_of(landmarks, stride=1, **settings):
    config = HeatmapCodecConfig(activation="linear", learn_sigma=True, **settings)
    return build_codec(config, landmarks, stride)


def raw_for(sigma_cells, start_cells):
    """The output that stands for a width; 0 is the start."""
    return math.log((sigma_cells - LEAST_CELLS) / (start_cells - LEAST_CELLS))


def test_the_width_is_asked_for_as_a_constant():
    assert codec_of(3).outputs.constants == {"sigma": 3}
    assert codec_of(3, spread=True).outputs.names == ("maps", "spread", "sigma")
    assert build_codec(HeatmapCodecConfig(), 3, 1).outputs.constants == {}


def test_a_target_has_the_sum_100_whatever_its_width():
    codec = codec_of(2, stride=2, sigma_px=3.0)
    # Cell 10 of stride 2 is centred at pixel 20.5, cell 5 at 10.5; the start is 1.5 cells.
    labels = labels_of([(20.5, 10.5), (40.5, 30.5)])
    wide = {"sigma": torch.tensor([[0.0, raw_for(2.5, 1.5)]])}
    target = codec.encode(labels, wide)
    np.testing.assert_allclose(target.sigma.numpy(), [[1.5, 2.5]], rtol=1e-6)
    assert target.maps.sum((2, 3)).tolist()[0] == pytest.approx([100.0, 100.0], abs=0.02)
    peak = 100 / (2 * math.pi * 1.5**2)
    assert target.maps[0, 0, 5, 10] == pytest.approx(peak, rel=1e-5)
    assert target.maps[0, 0, 5, 12] == pytest.approx(peak * math.exp(-4 / (2 * 1.5**2)), rel=1e-5)
    first = codec.encode(labels)
    assert torch.equal(first.maps[0, 0], target.maps[0, 0])
    assert first.sigma.tolist() == [[1.5, 1.5]]


@pytest.mark.parametrize("decoder", REFINING)
@pytest.mark.parametrize("stride", [1, 2])
def test_points_come_back_at_every_width(decoder, stride):
    """As near as with fixed widths, from just above the least width to 2.5 times the start, borders included."""
    rng = np.random.default_rng(0)
    rim = [(-0.5, 20.2), (95.5, 63.5), (30.7, -0.5), (0.3, 63.0)]
    points = np.concatenate([rng.uniform((0, 0), (95, 63), (36, 2)), rim])
    codec = codec_of(len(points), stride, sigma_px=2.0, decoder=decoder, spread=True)
    widths = np.linspace(LEAST_CELLS + 0.01, 2.5 * 2.0 / stride, len(points))
    outputs = {"sigma": torch.tensor([[raw_for(w, 2.0 / stride) for w in rng.permutation(widths)]])}
    outputs["maps"] = codec.encode(labels_of(points), outputs).maps
    outputs["spread"] = torch.zeros(1, 2 * len(points))
    outputs["spread"][0, 6] = 0.1
    decoded = codec.decode(outputs, SHAPE)
    assert np.linalg.norm(decoded.mean_in[0].numpy() - points, axis=1).max() <= 0.05
    # 0.02 of the longer side, and e^0.1 times that along x of the fourth point.
    sigma = decoded.cov_in[0].diagonal(dim1=-2, dim2=-1).sqrt().numpy()
    assert sigma[3] == pytest.approx([1.92 * math.exp(0.1), 1.92], rel=1e-3)
    assert sigma[2] == pytest.approx([1.92, 1.92], rel=1e-5)


def test_the_covariance_is_what_a_map_is_wider_than_its_own_target():
    codec = codec_of(2, sigma_px=2.0)
    labels = labels_of([(30.2, 20.6), (60.4, 40.9)])
    narrow = {"sigma": torch.tensor([[raw_for(1.0, 2.0), 0.0]])}
    maps = codec.encode(labels, {"sigma": torch.tensor([[0.0, 0.0]])}).maps
    cov = codec.decode({"maps": maps, **narrow}, SHAPE).cov_in[0].numpy()
    # 2² - 1² and, where the map is as wide as its target, a pixel's own quantisation; the tails' cut costs a little.
    np.testing.assert_allclose(cov[0], 3 * np.eye(2), atol=0.3)
    np.testing.assert_allclose(cov[1], np.eye(2) / 12, atol=0.01)


def test_presence_is_read_beside_learned_widths():
    codec = codec_of(2, sigma_px=2.0, presence=True)
    outputs = {"sigma": torch.zeros(1, 2), "maps": codec.encode(labels_of([(30.0, 20.0), (60.0, 40.0)])).maps}
    decoded = codec.decode(outputs | {"presence": torch.tensor([[0.0, math.log(3.0)]])}, SHAPE)
    np.testing.assert_allclose(decoded.presence.numpy(), [[0.5, 0.75]], atol=1e-6)


def test_a_start_without_room_to_learn_is_refused():
    with pytest.raises(ConfigError, match="no room") as caught:
        codec_of(1, stride=4, sigma_px=2.0)
    assert caught.value.where == "codec.sigma_px"
    assert caught.value.expected.startswith("at least 3,")


def test_the_price_is_the_mean_square_over_the_cells():
    x = loss_input(
        sigma=torch.tensor([[2.0, 5.0], [4.0, 3.0]]),
        target_maps=torch.zeros(2, 2, 5, 10),
        placed=torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
    )
    total, values = total_loss([HeatmapWidthConfig()], x)
    assert values["heatmap_width"].item() == pytest.approx((4 + 16 + 9) / 3 / 50)
    assert total.item() == pytest.approx(20 * (4 + 16 + 9) / 3 / 50)


def test_a_price_without_a_learned_width_is_refused():
    with pytest.raises(ConfigError, match="learns no width") as caught:
        total_loss([HeatmapWidthConfig()], loss_input())
    assert caught.value.fix == "set codec.learn_sigma=true"
    fixed = build_codec(HeatmapCodecConfig(activation="linear"), 2, 1).outputs
    with pytest.raises(ConfigError, match="'heatmap_width' needs the output 'sigma'"):
        check_terms([MSEConfig(), HeatmapWidthConfig()], fixed, "linear", load_schema("hand"))


def test_a_learned_width_is_refused_without_its_price_or_with_another_loss():
    outputs, schema = codec_of(2).outputs, load_schema("hand")
    check_terms([WingConfig(), MSEConfig(), HeatmapWidthConfig()], outputs, "linear", schema)
    with pytest.raises(ConfigError, match="grows without end"):
        check_terms([MSEConfig()], outputs, "linear", schema)
    with pytest.raises(ConfigError, match="squared error of maps alone") as caught:
        check_terms([WingConfig(), HeatmapWidthConfig()], outputs, "linear", schema)
    assert caught.value.got == "none"


def learned_widths(points, maps_of, steps=250):
    """Widths in cells after some steps on them, with maps that follow from the targets as they are at each."""
    shape = (40, 40)
    labels = labels_of(points, shape)
    codec = codec_of(labels.points_in.shape[1], sigma_px=2.0)
    raw = torch.zeros(1, labels.points_in.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    terms = [MSEConfig(), HeatmapWidthConfig()]
    for _ in range(steps):
        target = codec.encode(labels, {"sigma": raw.expand(len(labels.points_in), -1)})
        maps = maps_of(target.maps.detach()).expand_as(target.maps)
        x = loss_input(maps=maps, target_maps=target.maps, sigma=target.sigma, placed=labels.placed)
        optimizer.zero_grad()
        total_loss(terms, x)[0].backward()
        optimizer.step()
    return target.sigma[0].detach().numpy()


def published_optimum(distance):
    """The width at which ``Σ (h - g)² + α σ²`` is least for a map h that is the mean of two targets g so far apart.

    ``Σ g²`` is γ² / 4πσ², and of two targets ``Σ g g'`` that times exp(-d² / 4σ²).
    """

    def price(sigma):
        energy = GAMMA**2 / (4 * math.pi * sigma**2)
        return 0.5 * energy * (1 - math.exp(-(distance**2) / (4 * sigma**2))) + ALPHA * sigma**2

    return minimize_scalar(price, bounds=(0.3, 10), method="bounded").x


def test_a_landmark_whose_labels_scatter_gets_a_wider_target():
    """Maps that have learned all there is to learn, the mean of the targets: certain labels narrow, scattered widen."""
    off = np.array([0.0, 1.0, 2.0, 6.0])
    middle = np.array([20.0, 20.0]) + np.zeros((4, 2))
    apart = np.stack([off / 2, np.zeros(4)], -1)
    found = learned_widths(np.stack([middle + apart, middle - apart]), lambda maps: maps.mean(0, keepdim=True))
    assert LEAST_CELLS < found[0] < 0.5
    assert (np.diff(found) > 0.2).all()
    np.testing.assert_allclose(found[1:], [published_optimum(d) for d in off[1:]], rtol=0.02)


def test_an_untrained_network_keeps_the_first_width_of_the_authors():
    """Against maps of zeros the least of γ² / 4πσ² + α σ² is at 2.51, where their code begins with 2.5."""
    found = learned_widths([(20.0, 20.0)], torch.zeros_like)
    assert found[0] == pytest.approx((GAMMA**2 / (4 * math.pi * ALPHA)) ** 0.25, rel=1e-3)
    assert found[0] == pytest.approx(2.51, abs=0.01)
