"""MAHT-Net: its queries follow the anatomy's graph, its spread learns the residual, and its settings fit together."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bregma.codecs import build_codec
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.errors import ConfigError
from bregma.losses import LOSSES, GaussianNLLConfig
from bregma.networks import build_network
from bregma.networks.maht import LandmarkQueries, MAHTConfig
from bregma.schema import load_schema, schema_from_dict
from bregma.types import OutputSpec

LUMBAR = load_schema("lumbar_lateral")
HAND = load_schema("hand")
SMALL = {"encoder": "test_resnet", "width": 16, "heads": 2, "decoder_channels": (8, 8, 8, 8, 8)}


def small(maps=3, schema=None, vectors=None, **settings):
    torch.manual_seed(0)
    return build_network(MAHTConfig(**{**SMALL, **settings}), OutputSpec(maps, vectors or {}), schema=schema)


def image(network, rows=2, columns=3, batch=2):
    shape = (batch, 1, rows * network.stride, columns * network.stride)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def three_points(*edges):
    landmarks = [{"name": name, "label": name} for name in "abc"]
    return schema_from_dict({"name": "three", "title": "Three", "landmarks": landmarks, "edges": edges}, where="test")


def queries_of(schema, layers=1):
    torch.manual_seed(0)
    return LandmarkQueries(len(schema), 16, 4, layers, 0.0, schema)


def test_biases_start_high_for_the_same_part_and_low_for_distant_ones():
    bias = queries_of(LUMBAR).bias(0)
    assert bias.shape == (4, 26, 26)
    at = [LUMBAR.index(name) for name in ("L2_sup_ant", "L2_inf_post", "L3_sup_ant", "L5_sup_ant")]
    np.testing.assert_allclose(bias[:, at[0], at].detach().numpy(), np.tile([0.5, 0.5, 0.2, -0.1], (4, 1)))


def test_every_head_and_layer_learns_a_bias_of_its_own():
    queries = queries_of(LUMBAR, layers=2)
    memory = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(1))
    queries(memory).square()[..., :3].sum().backward()
    gradients = torch.stack([bias.grad for bias in queries.relation_bias])
    assert gradients.shape == (2, 4, 3)
    assert (gradients.abs() > 0).all()
    assert len(torch.unique(gradients)) == gradients.numel()


def test_landmarks_start_with_queries_of_their_own():
    """Were all alike at first, all maps would be, and telling them apart would have to be learned."""
    refined = queries_of(LUMBAR, layers=3)(torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(1)))[0]
    cosines = torch.nn.functional.cosine_similarity(refined[:, None], refined[None], dim=-1)
    assert cosines.fill_diagonal_(0.0).abs().mean() < 0.4


def test_a_shut_bias_keeps_vertebrae_from_hearing_each_other():
    """With the same part open and the rest shut, a corner hears of its own vertebra only."""
    queries = queries_of(LUMBAR)
    memory = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        queries.relation_bias[0].copy_(torch.tensor([0.0, -1e4, -1e4]))
        before = queries(memory)
        queries.start[LUMBAR.index("L3_sup_ant")] += torch.linspace(-2.0, 2.0, 16)
        moved = (queries(memory) - before).abs().amax((0, 2)) > 1e-6
    assert {name for name, change in zip(LUMBAR.names, moved.tolist(), strict=True) if change} == {
        "L3_sup_ant",
        "L3_sup_post",
        "L3_inf_ant",
        "L3_inf_post",
    }


def test_another_graph_over_the_same_weights_gives_other_maps():
    first, second = three_points(("a", "b")), three_points(("b", "c"))
    network, other, unrelated = small(schema=first).eval(), small(schema=second).eval(), small().eval()
    other.load_state_dict(network.state_dict())  # The graph is not among the weights.
    unrelated.load_state_dict({key: value for key, value in network.state_dict().items() if "relation_bias" not in key})
    with torch.no_grad():
        for each in (network, other, unrelated):
            torch.nn.init.normal_(each.embed[-1].weight, generator=torch.Generator().manual_seed(2))
        maps = [each(image(network))["maps"] for each in (network, other, unrelated)]
    assert all((maps[0] - changed).abs().max() > 1e-4 for changed in maps[1:])


def test_without_a_schema_there_is_no_bias():
    network = small()
    assert network.queries.bias(0) is None
    assert not any("relation" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize("schema", [LUMBAR, HAND], ids=["chain", "edges"])
def test_any_anatomy_and_any_input_size_that_halves(schema):
    network = small(len(schema), schema, {"spread": 2 * len(schema), "score": 5}).eval()
    for rows, columns in ((1, 1), (3, 2)):
        with torch.no_grad():
            out = network(image(network, rows, columns, batch=1))
        assert out["maps"].shape == (1, len(schema), rows * network.stride // 2, columns * network.stride // 2)
        # Two numbers a landmark come from its query; five numbers are of no landmark and come from the image.
        assert (out["spread"].shape, out["score"].shape) == ((1, 2 * len(schema)), (1, 5))


@pytest.mark.parametrize("map_stride", [1, 2, 4])
def test_an_encoder_that_starts_at_a_quarter_lends_the_skips_it_has(map_stride):
    network = small(encoder="test_convnext", map_stride=map_stride)
    out = network(image(network))["maps"]
    assert out.shape == (2, 3, 2 * network.stride // map_stride, 3 * network.stride // map_stride)
    (out**2).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_mixed_precision_gives_finite_maps():
    network = small(len(LUMBAR), LUMBAR)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(image(network))["maps"]
    assert out.isfinite().all()
    out.float().square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_spread_learns_the_residual_of_every_landmark():
    """Only the spread's own layer learns; the points stay where they are, off by known amounts."""
    codec = build_codec(HeatmapCodecConfig(spread=True), 2, 2)
    network = small(2, vectors=codec.outputs.vectors).eval()
    images, shape = image(network, 2, 2), (2 * network.stride, 2 * network.stride)
    off = torch.tensor([[4.0, 0.5], [1.0, 2.5]])
    head = network.landmark_heads["spread"]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    queries = []
    with torch.no_grad(), head.register_forward_hook(lambda _, given, __: queries.append(given[0])):
        outputs = network(images)
    seen = codec.points(outputs, shape)
    target = seen + torch.stack([off, -off])
    for _ in range(120):
        factor = codec.cholesky({**outputs, "spread": head(queries[0]).flatten(1)}, shape)
        x = SimpleNamespace(
            points=lambda: seen, target_points=target, cholesky=lambda factor=factor: factor, placed=torch.ones(2, 2)
        )
        optimizer.zero_grad()
        LOSSES["gaussian_nll"](GaussianNLLConfig(), x).backward()
        optimizer.step()
    with torch.no_grad():
        cov = codec.decode(network(images), shape).cov_in
    np.testing.assert_allclose(cov.diagonal(dim1=-2, dim2=-1).sqrt().numpy(), np.stack([off, off]), rtol=0.05)


def test_size_sets_what_is_not_given():
    assert (MAHTConfig().size, MAHTConfig().bridge_layers, MAHTConfig().query_layers) == ("small", 4, 3)
    base = MAHTConfig(size="base", query_layers=2)
    assert (base.encoder, base.bridge_layers, base.query_layers) == ("convnext_small", 6, 2)
    stored = MAHTConfig(size="tiny", encoder="resnet18")
    assert MAHTConfig(**stored.to_dict()) == stored
    with pytest.raises(ValidationError, match="tiny"):
        MAHTConfig(size="huge")


@pytest.mark.parametrize(
    ("settings", "where", "got"),
    [
        ({"width": 18}, "network.width", "18"),
        ({"width": 16, "heads": 3}, "network.width", "16"),
        ({"decoder_channels": (8, 8)}, "network.decoder_channels", "2"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings, where, got):
    with pytest.raises(ConfigError) as caught:
        small(**settings)
    assert (caught.value.where, caught.value.got) == (where, got)


def test_maps_that_are_not_the_landmarks_of_the_schema_are_refused():
    with pytest.raises(ConfigError, match="26 landmarks of 'lumbar_lateral'") as caught:
        small(25, LUMBAR)
    assert caught.value.got == "a codec with 25 maps"
