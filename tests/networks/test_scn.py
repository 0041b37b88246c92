"""SpatialConfiguration-Net as it was published: its layers, their first weights, and how its two parts join."""

import math

import torch
from torch import nn

from bregma.networks import build_network
from bregma.networks.scn import SCNConfig
from bregma.types import OutputSpec

LANDMARKS, WIDTH = 37, 64


def weights(in_channels, out_channels, kernel):
    return in_channels * out_channels * kernel**2 + out_channels


def test_parameters_are_those_of_the_published_layers():
    """Four levels of three 5 x 5 convolutions and one to the maps; three 15 x 15 ones and one back to the maps."""
    local = weights(1, WIDTH, 5) + 11 * weights(WIDTH, WIDTH, 5) + weights(WIDTH, LANDMARKS, 5)
    spatial = weights(LANDMARKS, WIDTH, 15) + 2 * weights(WIDTH, WIDTH, 15) + weights(WIDTH, LANDMARKS, 15)
    with torch.device("meta"):
        network = build_network(SCNConfig(), OutputSpec(LANDMARKS))
    assert sum(p.numel() for p in network.parameters()) == local + spatial == 4_097_034


def test_layers_are_the_published_kinds():
    with torch.device("meta"):
        network = build_network(SCNConfig(), OutputSpec(LANDMARKS))
    kinds = [module for module in network.modules() if not list(module.children())]
    assert [m.p for m in kinds if isinstance(m, nn.Dropout)] == [0.5] * 4
    assert {m.negative_slope for m in kinds if isinstance(m, nn.LeakyReLU)} == {0.1}
    assert sum(isinstance(m, nn.LeakyReLU) for m in kinds) == 12 + 3
    assert sum(isinstance(m, nn.Tanh) for m in kinds) == 1
    assert not any(isinstance(m, nn.MaxPool2d | nn.BatchNorm2d) for m in kinds)


def test_weights_start_by_kaiming_and_biases_at_zero():
    torch.manual_seed(0)
    network = build_network(SCNConfig(channels=16), OutputSpec(5))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all((m.bias == 0).all() for m in convolutions)
    for m in convolutions:
        expected = math.sqrt(2 / (1.01 * m.weight[0].numel()))
        assert abs(m.weight.std().item() / expected - 1) < 4 / math.sqrt(2 * m.weight.numel())
