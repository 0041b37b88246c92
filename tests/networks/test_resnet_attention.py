"""The attention of CBAM, worked by hand, and the published number of parameters."""

import math

import pytest
import torch

from bregma.errors import ConfigError
from bregma.networks import build_network
from bregma.networks.resnet_attention import ChannelAttention, ResNetAttentionConfig, SpatialAttention
from bregma.types import OutputSpec


def on_meta(config, maps=4, in_channels=3):
    with torch.device("meta"):
        return build_network(config, OutputSpec(maps), in_channels=in_channels)


@pytest.mark.parametrize("map_stride", [1, 2, 4])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_are_as_many_as_published(map_stride, in_channels):
    network = on_meta(ResNetAttentionConfig(map_stride=map_stride), in_channels=in_channels)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(24.1e6, rel=0.01)


def test_three_skips_are_attended_by_channel_with_reduction_16_and_one_place_attention_is_7_by_7():
    network = on_meta(ResNetAttentionConfig())
    hidden = {key: tuple(m.mlp[0].weight.shape[:2]) for key, m in network.named_modules() if hasattr(m, "mlp")}
    assert hidden == {"up.0.attention": (16, 256), "up.1.attention": (8, 128), "up.2.attention": (4, 64)}
    spatial = [m.convolution for m in network.modules() if isinstance(m, SpatialAttention)]
    assert [(c.kernel_size, c.in_channels, c.bias) for c in spatial] == [((7, 7), 2, None)]


def test_channel_weights_come_from_the_mean_and_the_maximum_through_one_mlp():
    attention = ChannelAttention(1)
    torch.nn.init.zeros_(attention.mlp[0].weight)
    torch.nn.init.zeros_(attention.mlp[2].weight)
    attention.mlp[0].weight.data[0] = 2.0
    attention.mlp[2].weight.data[0, 0] = 0.5
    x = torch.tensor([[[[0.0, 1.0], [1.0, 2.0]]]])
    # The mean 1 and the maximum 2 become 0.5 * relu(2 * 1) = 1 and 0.5 * relu(2 * 2) = 2, in all 3.
    torch.testing.assert_close(attention(x), x / (1 + math.exp(-3)))


def test_place_weights_come_from_the_mean_and_the_maximum_over_channels():
    attention = SpatialAttention()
    torch.nn.init.zeros_(attention.convolution.weight)
    attention.convolution.weight.data[0, :, 3, 3] = torch.tensor([1.0, -0.5])  # The place itself only.
    x = torch.zeros(1, 2, 3, 3)
    x[0, :, 1, 2] = torch.tensor([1.0, 4.0])
    expected = torch.zeros_like(x)
    expected[0, :, 1, 2] = x[0, :, 1, 2] / (1 + math.exp(-(2.5 - 0.5 * 4)))
    torch.testing.assert_close(attention(x), expected)


def test_too_few_decoder_channels_are_refused():
    with pytest.raises(ConfigError, match="5 steps up") as caught:
        on_meta(ResNetAttentionConfig(map_stride=1, decoder_channels=(8, 8)))
    assert (caught.value.where, caught.value.got) == ("network.decoder_channels", "2")
