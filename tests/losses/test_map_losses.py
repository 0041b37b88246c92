"""Terms on maps against hand-worked values."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bregma.codecs import Labels, build_codec
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.losses import (
    LOSSES,
    AdaptiveWingConfig,
    CrossEntropyConfig,
    FocalConfig,
    KLConfig,
    MSEConfig,
    PeakConfig,
    WeightedMSEConfig,
)
from loss_inputs import loss_input, maps_input, value


def test_mse_by_hand():
    # Errors 1, -2, 0, 0.5: squares 1 + 4 + 0 + 0.25 over four cells.
    assert value(MSEConfig(), maps_input([[1.0, -2.0], [0.3, 1.0]], [[0.0, 0.0], [0.3, 0.5]])) == pytest.approx(
        5.25 / 4
    )


def test_weighted_mse_by_hand():
    x = maps_input([[1.0, 0.5], [0.0, 0.0]], [[0.0, 1.0], [0.4, 0.39]])
    config = WeightedMSEConfig(threshold=0.4, background=0.5, key=2.0)
    # Background 0.5 (1 + 0.39²), key 2 (0.5² + 0.4²), over four cells.
    assert value(config, x) == pytest.approx((0.5 * (1 + 0.1521) + 2 * (0.25 + 0.16)) / 4)


def test_adaptive_wing_by_hand():
    # Wang et al. 2019, equation 3 with the paper's ω = 14, θ = 0.5, ε = 1, α = 2.1.
    # Target 0, error 0.2: 14 ln(1 + 0.2^2.1) = 14 ln(1.034053...) = 0.468806.
    near = 14 * math.log(1 + 0.2**2.1)
    assert value(AdaptiveWingConfig(), maps_input([[0.2]], [[0.0]])) == pytest.approx(near, rel=1e-5)
    # Target 1, error 1.5: the power is 1.1; A = 14 * 1.1 * 0.5^0.1 / (1 + 0.5^1.1); C = A/2 - 14 ln(1 + 0.5^1.1).
    slope = 14 / (1 + 0.5**1.1) * 1.1 * 0.5**0.1
    far = slope * 1.5 - (0.5 * slope - 14 * math.log(1 + 0.5**1.1))
    assert value(AdaptiveWingConfig(), maps_input([[-0.5]], [[1.0]])) == pytest.approx(far, rel=1e-5)


@pytest.mark.parametrize("target", [0.0, 0.6, 1.0])
def test_adaptive_wing_is_smooth_where_its_halves_meet(target):
    error = torch.tensor([0.5 - 1e-6, 0.5 + 1e-6], dtype=torch.float64, requires_grad=True)
    maps, goal = (target + error)[:, None, None, None], torch.full((2, 1, 1, 1), target, dtype=torch.float64)
    x = loss_input(maps=maps, target_maps=goal, placed=torch.ones(2, 1))
    LOSSES["adaptive_wing"](AdaptiveWingConfig(), x).backward()
    assert error.grad[0].item() == pytest.approx(error.grad[1].item(), rel=1e-4)
    both = [
        LOSSES["adaptive_wing"](AdaptiveWingConfig(), loss_input(maps=maps[i : i + 1], target_maps=goal[i : i + 1]))
        for i in (0, 1)
    ]
    assert both[0].item() == pytest.approx(both[1].item(), rel=1e-4)


def test_adaptive_wing_has_a_gradient_where_there_is_no_error():
    maps = torch.tensor([[[[1.0, 0.0, 0.4]]]], requires_grad=True)
    LOSSES["adaptive_wing"](AdaptiveWingConfig(), loss_input(maps=maps, target_maps=maps.detach().clone())).backward()
    assert (maps.grad == 0).all()
    with pytest.raises(ValidationError, match="alpha"):
        AdaptiveWingConfig(alpha=1.5)


def test_cross_entropy_by_hand():
    # Target 1 and 3 of 4; softmax of (0, ln 3) is the same quarter and three quarters, of equal logits a half each.
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert value(CrossEntropyConfig(), maps_input([[0.0, math.log(3)]], [[0.25, 0.75]])) == pytest.approx(entropy)
    assert value(CrossEntropyConfig(), maps_input([[5.0, 5.0]], [[1.0, 3.0]])) == pytest.approx(math.log(2))


def test_kl_by_hand():
    # A quarter and three quarters against halves: ¼ ln ½ + ¾ ln 3/2; nothing against itself, whatever the scale.
    apart = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert value(KLConfig(), maps_input([[5.0, 5.0]], [[1.0, 3.0]])) == pytest.approx(apart)
    assert value(KLConfig(), maps_input([[0.0, math.log(3)]], [[0.25, 0.75]])) == pytest.approx(0.0, abs=1e-6)


def test_kl_of_a_target_with_empty_cells_is_finite():
    # All of the target in one cell, which the softmax gives a half: ln 2.
    assert value(KLConfig(), maps_input([[2.0, 2.0]], [[1.0, 0.0]])) == pytest.approx(math.log(2))


def test_peak_by_hand():
    # Highest target 0.8: cells from 0.4 on count, which are the first two, with errors 0.2 and -0.5.
    x = maps_input([[1.0, -0.1], [9.0, -9.0]], [[0.8, 0.4], [0.39, 0.0]])
    assert value(PeakConfig(), x) == pytest.approx((0.04 + 0.25) / 2)
    # From 0.9 of the highest on, the first cell alone.
    assert value(PeakConfig(share=0.9), x) == pytest.approx(0.04)


def focal_input(logits, target):
    """Maps whose sigmoid has these logits: an output of 0 stands for a probability of 1/10."""
    return maps_input((np.array(logits) + math.log(9)).tolist(), target)


def test_focal_by_hand():
    # Logits ln 3, 0, -ln 3: p = 3/4, 1/2, 1/4. The second cell has the highest target and is the positive one.
    x = focal_input([[math.log(3.0), 0.0, -math.log(3.0)]], [[0.5, 0.9, 0.1]])
    first = 0.5**4 * 0.75**2 * math.log(4)
    centre = 0.5**2 * math.log(2)
    last = 0.9**4 * 0.25**2 * math.log(4 / 3)
    assert value(FocalConfig(), x) == pytest.approx(first + centre + last)
    # Without either power it is the binary cross-entropy, the target a 1 in the positive cell.
    plain = focal_input([[math.log(3.0), 0.0]], [[0.0, 1.0]])
    assert value(FocalConfig(alpha=1.0, beta=0.0), plain) == pytest.approx(0.75 * math.log(4) + 0.5 * math.log(2))


def test_focal_without_neighbours_is_the_focal_loss():
    """Far from any landmark's Gaussian it is Lin's, -(1 - q)² ln q with q what the right answer gets."""
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.zeros_like(logits)
    target[..., 2, 3] = 1.0
    expected = 0.0
    for place in np.ndindex(logits.shape):
        p = 1 / (1 + 9 * math.exp(-logits[place]))
        q = p if target[place] else 1 - p
        expected -= (1 - q) ** 2 * math.log(q) / 6
    x = loss_input(maps=logits, target_maps=target, placed=torch.ones(2, 3))
    assert value(FocalConfig(), x) == pytest.approx(expected, rel=1e-5)


def test_focal_has_one_positive_cell_where_a_landmark_lies_between_two():
    # Both cells have the same target; the first is positive (ln 2 / 4), the other costs nothing as its weight is 0.
    assert value(FocalConfig(), focal_input([[0.0, 0.0]], [[1.0, 1.0]])) == pytest.approx(0.25 * math.log(2))


def test_focal_stays_finite_for_logits_without_bound():
    maps = torch.tensor([[[[-300.0, 300.0]]]], requires_grad=True)
    loss = LOSSES["focal"](FocalConfig(), loss_input(maps=maps, target_maps=torch.tensor([[[[1.0, 0.0]]]])))
    loss.backward()
    # The first cell lacks 300 + ln 9, the second has 300 - ln 9 too much.
    assert loss.item() == pytest.approx(600.0)
    assert maps.grad.flatten().tolist() == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_trained_by_the_focal_loss_are_read_where_the_landmark_is(stride):
    """Gradient descent on one image's logits brings the decoded point to within half a cell of the label."""
    points = torch.tensor([[[20.3, 15.8], [40.1, 9.6]]])
    ones = torch.ones(1, 2)
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0 * stride, activation="sigmoid"), 2, stride)
    target = codec.encode(Labels(points, ones, ones, ones, (32, 64))).maps
    logits = torch.zeros_like(target, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    x = loss_input(maps=logits, target_maps=target, placed=ones)
    for _ in range(100):
        optimizer.zero_grad()
        LOSSES["focal"](FocalConfig(), x).backward()
        optimizer.step()
    decoded = codec.decode({"maps": logits.detach()}, (32, 64)).mean_in
    assert (decoded - points).abs().max() < 0.5 * stride


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_maps_in_half_precision_are_compared_in_full(kind):
    maps, target = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)).to(kind), torch.rand(1, 1, 6, 6)
    for config in (MSEConfig(), CrossEntropyConfig(), AdaptiveWingConfig(), FocalConfig(), KLConfig(), PeakConfig()):
        half = LOSSES[config.name](config, loss_input(maps=maps, target_maps=target))
        full = LOSSES[config.name](config, loss_input(maps=maps.float(), target_maps=target))
        assert half.dtype == torch.float32
        assert torch.equal(half, full)
