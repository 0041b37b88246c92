"""The light network is light, and works over encoders of any first resolution."""

import pytest
import torch
from torch import nn

from bregma.networks import build_network
from bregma.networks.light import LightConfig
from bregma.networks.timm_unet import TimmUNetConfig
from bregma.types import OutputSpec


def parameters(config, maps):
    with torch.device("meta"):
        network = build_network(config, OutputSpec(maps))
    return sum(p.numel() for p in network.parameters())


def multiplications(config):
    """Multiplications of all convolutions for a 64 x 64 image."""
    counts = []

    def count(layer, given, out):
        counts.append(layer.weight.numel() * out[0, 0].numel())

    with torch.device("meta"):
        network = build_network(config, OutputSpec(19)).eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        network(torch.zeros(1, 1, 64, 64))
    return sum(counts)


def test_it_has_at_most_one_and_a_half_million_parameters():
    assert parameters(LightConfig(), 40) <= 1_500_000


def test_it_takes_a_tenth_of_the_multiplications_of_the_default_network():
    assert multiplications(LightConfig()) * 10 < multiplications(TimmUNetConfig())


def test_maps_lie_at_a_quarter_unless_asked_otherwise():
    network = build_network(LightConfig(), OutputSpec(2)).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 64, 96))["maps"].shape == (1, 2, 16, 24)


@pytest.mark.parametrize("map_stride", [1, 2, 4])
def test_an_encoder_that_starts_at_a_quarter_serves_too(map_stride):
    config = LightConfig(encoder="test_convnext", map_stride=map_stride, decoder_channels=8)
    network = build_network(config, OutputSpec(2))
    out = network(torch.rand(2, 1, 64, 96))["maps"]
    assert out.shape == (2, 2, 64 // map_stride, 96 // map_stride)
    (out**2).sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []
