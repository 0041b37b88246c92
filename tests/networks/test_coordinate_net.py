"""The coordinate regressor: the published head, and coordinate attention worked by hand."""

import math

import pytest
import torch
from torch import nn

from bregma.bundle import ModelConfig, build_model
from bregma.errors import ConfigError
from bregma.networks import build_network
from bregma.networks.coordinate_net import CoordinateAttention, CoordinateNetConfig
from bregma.schema import load_schema
from bregma.types import OutputSpec

POINTS = OutputSpec(0, {"points": 12})


def on_meta(config=CoordinateNetConfig(), outputs=POINTS, in_channels=3):  # noqa: B008
    with torch.device("meta"):
        return build_network(config, outputs, in_channels=in_channels)


def test_the_head_is_as_published():
    network = on_meta()
    linear = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    assert linear == [(512, 512), (512, 256), (256, 12)]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.25, 0.125]
    # ResNet-18 without its classification layer has 11,176,512 parameters.
    head = 512 * 512 + 512 + 512 * 256 + 256 + 256 * 12 + 12
    assert sum(p.numel() for p in network.parameters()) == 11_176_512 + head


def test_covariances_and_presence_share_the_hidden_layers():
    more = on_meta(outputs=OutputSpec(0, {"points": 12, "cholesky": 18, "presence": 6}))
    extra = sum(p.numel() for p in more.parameters()) - sum(p.numel() for p in on_meta().parameters())
    assert extra == (256 + 1) * (18 + 6)


def test_any_encoder_enters_the_head_with_its_own_width():
    network = on_meta(CoordinateNetConfig(encoder="resnet50"))
    assert network.trunk[1].in_features == 2048


def test_attention_belongs_to_the_head_and_the_encoder_to_the_backbone():
    network = on_meta(CoordinateNetConfig(attention="coordinate"))
    parts = network.part_parameters()
    assert {id(p) for p in parts["backbone"]} == {id(p) for p in network.encoder.parameters()}
    assert {id(p) for p in network.attention.parameters()} < {id(p) for p in parts["head"]}


def test_attention_weighs_rows_by_row_means_and_columns_by_column_means():
    attention = CoordinateAttention(1).eval()
    for parameter in attention.parameters():
        nn.init.zeros_(parameter)
    attention.shared[0].weight.data[0] = 1.0
    attention.shared[1].weight.data[:] = math.sqrt(1 + attention.shared[1].eps)  # Undoes the epsilon: the identity.
    attention.rows.weight.data[0, 0] = 1.0
    attention.columns.weight.data[0, 0] = -1.0
    x = torch.tensor([[[[6.0, 2.0, 4.0], [3.0, 7.0, 8.0]]]])

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    # Row means 4 and 6, column means 4.5, 4.5 and 6: hard-swish leaves numbers above 3 as they are.
    rows, columns = [sigmoid(4), sigmoid(6)], [sigmoid(-4.5), sigmoid(-4.5), sigmoid(-6)]
    expected = torch.tensor([[[[x[0, 0, r, c] * rows[r] * columns[c] for c in range(3)] for r in range(2)]]])
    torch.testing.assert_close(attention(x), expected)


def test_three_channels_and_any_size_are_taken():
    network = build_network(CoordinateNetConfig(encoder="test_resnet"), POINTS, in_channels=3).eval()
    assert network(torch.zeros(2, 3, 32, 64))["points"].shape == (2, 12)
    assert network(torch.zeros(1, 3, 96, 32))["points"].shape == (1, 12)


def test_a_heatmap_codec_is_refused():
    config = ModelConfig.model_validate({"network": {"name": "coordinate_net"}, "codec": {"name": "heatmap"}})
    with pytest.raises(ConfigError, match=r"'coordinate_net'.*heatmap") as caught:
        build_model(config, load_schema("fetal_head"))
    assert caught.value.where == "network.name"
    assert "model.codec.name=coordinate" in (caught.value.fix or "")
