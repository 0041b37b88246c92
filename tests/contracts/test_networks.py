"""Every network: sizes, gradients, determinism, and settings that cannot work are refused before any training."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from bregma.errors import ConfigError
from bregma.networks import NETWORKS, build_network
from bregma.networks.timm_unet import TimmUNetConfig
from bregma.networks.unet import UNetConfig
from bregma.types import OutputSpec

TINY = {
    "unet": {"base_channels": 4, "levels": 4},
    "timm_unet": {"encoder": "test_resnet", "decoder_channels": (8, 8, 8, 8, 8)},
    "scn": {"channels": 4},
    "simple_baseline": {"encoder": "test_resnet", "decoder_channels": 8},
    "hrnet": {"encoder": "hrnet_w18_small"},
    "maht": {"encoder": "test_resnet", "width": 16, "heads": 2, "decoder_channels": (8, 8, 8, 8, 8), "dropout": 0.0},
    "resnet_attention": {"encoder": "test_resnet", "decoder_channels": (8, 8, 8, 8, 8)},
    "coordinate_net": {"encoder": "test_resnet", "attention": "coordinate"},
    "light": {"encoder": "test_resnet", "decoder_channels": 8},
    "simple_cnn": {"channels": (4, 8), "dropout": 0.0},
}
BOTH = OutputSpec(3, {"presence": 3})
MAP_NETWORKS = [name for name in NETWORKS if name not in ("coordinate_net", "simple_cnn")]


def spec_for(name):
    """All kinds of output that a network gives."""
    return BOTH if name in MAP_NETWORKS else OutputSpec(0, {"points": 6, "presence": 3})


def tiny(name, **settings):
    """The smallest config of a network; None where it does not offer the settings."""
    config, _ = NETWORKS[name]
    try:
        return config(**{**TINY[name], **settings})
    except ValidationError:
        return None


def strides_of(name):
    return [stride for stride in (1, 2, 4) if tiny(name, map_stride=stride)]


CASES = [(name, stride) for name in NETWORKS for stride in strides_of(name)]
VECTOR_NETWORKS = [name for name in NETWORKS if name not in ("scn", "maht")]


def image_for(network, rows=2, columns=3, batch=2, channels=1):
    shape = (batch, channels, rows * network.stride, columns * network.stride)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_every_network_is_tried():
    assert set(TINY) == set(NETWORKS)
    assert all(strides_of(name) for name in NETWORKS)


@pytest.mark.parametrize(("name", "map_stride"), CASES)
def test_outputs_have_the_size_that_the_codec_was_promised(name, map_stride):
    network = build_network(tiny(name, map_stride=map_stride), spec_for(name))
    assert (network.map_stride, network.outputs) == (map_stride, spec_for(name))
    image = image_for(network)
    out = network(image)
    rows, columns = image.shape[2] // map_stride, image.shape[3] // map_stride
    maps = {"maps": (2, 3, rows, columns)} if name in MAP_NETWORKS else {"points": (2, 6)}
    assert {key: tuple(value.shape) for key, value in out.items()} == {**maps, "presence": (2, 3)}


@pytest.mark.parametrize(("name", "map_stride"), CASES)
def test_gradients_reach_every_parameter(name, map_stride):
    torch.manual_seed(0)
    network = build_network(tiny(name, map_stride=map_stride), spec_for(name))
    for parameter in network.parameters():
        if not parameter.any():  # Some encoders start their residual branches at zero, which would hide their insides.
            torch.nn.init.constant_(parameter, 0.1)
    out = network(image_for(network))
    sum((value**2).sum() for value in out.values()).backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", NETWORKS)
def test_constants_are_weights_of_their_own_part_that_no_image_changes(name):
    spec = replace(spec_for(name), constants={"sigma": 3})
    network = build_network(tiny(name), spec)
    (weight,) = network.part_parameters()["constants"]
    with torch.no_grad():
        weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
    out = network(image_for(network))
    assert out["sigma"].tolist() == [[0.5, -1.0, 2.0]] * 2
    out["sigma"].sum().backward()
    assert weight.grad.tolist() == [2.0] * 3
    assert sum(key.endswith("constants.sigma") for key in network.state_dict()) == 1
    assert "constants" not in build_network(tiny(name), spec_for(name)).part_parameters()


@pytest.mark.parametrize("name", MAP_NETWORKS)
def test_an_input_changes_the_map_near_it(name):
    """Maps lie over the image: a change at one place moves the map most around that place, rows being rows."""
    torch.manual_seed(1)
    network = build_network(tiny(name), OutputSpec(1)).eval()
    image = image_for(network, 8, 12, batch=1)
    other = image.clone()
    row, column = 3 * network.stride, 9 * network.stride
    other[..., row : row + 4, column : column + 4] += 3.0
    with torch.no_grad():
        change = (network(other)["maps"] - network(image)["maps"]).abs()[0, 0]
    at = divmod(int(change.argmax()), change.shape[1])
    assert abs(at[0] * network.map_stride - row) <= network.stride
    assert abs(at[1] * network.map_stride - column) <= network.stride


@pytest.mark.parametrize("name", VECTOR_NETWORKS)
def test_a_network_without_maps_has_no_decoder(name):
    spec = OutputSpec(0, {"points": 6, "cholesky": 9})
    network = build_network(tiny(name), spec)
    out = network(image_for(network))
    assert {key: tuple(value.shape) for key, value in out.items()} == {"points": (2, 6), "cholesky": (2, 9)}
    sum(value.sum() for value in out.values()).backward()
    assert all(p.grad is not None for p in network.parameters())
    if name not in MAP_NETWORKS:
        return
    with_maps = build_network(tiny(name), BOTH)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in with_maps.parameters())


@pytest.mark.parametrize("name", ["scn", "maht"])
def test_networks_of_maps_refuse_to_give_vectors_only(name):
    with pytest.raises(ConfigError, match="heatmap codec"):
        build_network(tiny(name), OutputSpec(0, {"points": 6}))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_size_that_does_not_halve_is_refused_and_the_right_one_named(name):
    network = build_network(tiny(name), spec_for(name))
    stride = network.stride
    with pytest.raises(ConfigError) as caught:
        network(torch.zeros(1, 1, 5 * stride + 1, 3 * stride - 1))
    assert f"{5 * stride} x {3 * stride}" in str(caught.value)
    assert f"{5 * stride + 1} x {3 * stride - 1}" in str(caught.value)
    assert caught.value.where == "preprocess.size"
    network.check_size((5 * stride, 3 * stride))


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_is_deterministic_and_does_not_mix_the_batch(name):
    torch.manual_seed(0)
    network = build_network(tiny(name), spec_for(name))
    network(image_for(network))  # A step in training mode, so that batch statistics are not those of the start.
    network.eval()
    image = image_for(network)
    with torch.no_grad():
        first, again, alone = network(image), network(image), network(image[1:])
    for key in spec_for(name).names:
        assert torch.equal(first[key], again[key])
        torch.testing.assert_close(first[key][1:], alone[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_fixes_the_initial_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        return build_network(tiny(name), spec_for(name)).state_dict()

    first, again, other = weights(5), weights(5), weights(6)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MAP_NETWORKS)
def test_networks_take_more_channels_where_asked(name):
    network = build_network(tiny(name), OutputSpec(2), in_channels=3)
    assert network(image_for(network, channels=3))["maps"].shape[:2] == (2, 2)


def test_unet_without_the_resolution_of_its_maps_is_refused():
    with pytest.raises(ConfigError, match="1/4") as caught:
        build_network(UNetConfig(base_channels=4, levels=2, map_stride=4), OutputSpec(2))
    assert caught.value.expected == "3 or more"
    assert caught.value.where == "network.levels"


@pytest.mark.parametrize(
    ("setting", "rates"),
    [("dropout_down", (0.2, 0.2)), ("dropout_up", (0.3, 0.2, 0.1, 0.0)), ("dropout_up", (0.3, 1.0, 0.1))],
)
def test_unet_refuses_dropout_that_does_not_fit_its_levels(setting, rates):
    with pytest.raises(ConfigError, match="3 steps") as caught:
        build_network(tiny("unet", **{setting: rates}), OutputSpec(2))
    assert caught.value.where == f"network.{setting}"
    assert caught.value.got == ", ".join(map(str, rates))


def test_unet_drops_channels_where_asked_and_in_training_only():
    settings = {"dropout_down": (0.2, 0.0, 0.4), "dropout_up": (0.3, 0.1, 0.0), "decoder": "halved", "bias": True}
    network = build_network(tiny("unet", map_stride=1, **settings), OutputSpec(2))
    rates = {key: m.p for key, m in network.named_modules() if isinstance(m, torch.nn.Dropout2d)}
    assert rates == {"down.1.6": 0.2, "down.3.6": 0.4, "up.0.6": 0.3, "up.1.6": 0.1}
    image = image_for(network)
    assert not torch.equal(network(image)["maps"], network(image)["maps"])
    network.eval()
    assert torch.equal(network(image)["maps"], network(image)["maps"])


@pytest.mark.parametrize("map_stride", [1, 2, 4])
def test_halved_unet_gives_maps_at_every_stride(map_stride):
    network = build_network(tiny("unet", map_stride=map_stride, decoder="halved"), BOTH)
    image = image_for(network)
    out = network(image)
    assert out["maps"].shape[2:] == (image.shape[2] // map_stride, image.shape[3] // map_stride)
    sum((value**2).sum() for value in out.values()).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_hrnet_takes_no_other_encoder():
    assert tiny("hrnet", encoder="resnet18") is None
    with pytest.raises(ConfigError, match="no encoder 'hrnet_w17'"):
        build_network(tiny("hrnet", encoder="hrnet_w17"), OutputSpec(2))


ENCODERS = {
    "resnet18": 32,
    "convnext_atto": 32,  # First features at 1/4: finer skips come from a stem of its own.
    "mobilenetv3_small_050": 32,
    "test_efficientnet": 32,
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("map_stride", [1, 2, 4])
def test_timm_encoders_give_maps_at_every_stride(encoder, map_stride):
    config = TimmUNetConfig(encoder=encoder, map_stride=map_stride, decoder_channels=(8, 8, 8, 8, 8))
    network = build_network(config, OutputSpec(2)).eval()
    assert network.stride == ENCODERS[encoder]
    with torch.no_grad():
        out = network(image_for(network, 1, 2, batch=1))
    assert out["maps"].shape == (1, 2, 32 // map_stride, 64 // map_stride)


@pytest.mark.parametrize("map_stride", [1, 2, 4])
def test_gradients_reach_every_parameter_beside_a_coarse_stem(map_stride):
    config = TimmUNetConfig(encoder="test_convnext", map_stride=map_stride, decoder_channels=(8, 8, 8, 8, 8))
    network = build_network(config, OutputSpec(2))
    (network(image_for(network))["maps"] ** 2).sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("unet", {"backbone", "decoder", "head"}),
        ("simple_baseline", {"backbone", "decoder", "head"}),
        ("hrnet", {"backbone", "head"}),
        ("maht", {"backbone", "bridge", "decoder", "head"}),
        ("resnet_attention", {"backbone", "decoder", "head"}),
        ("coordinate_net", {"backbone", "head"}),
        ("light", {"backbone", "decoder", "head"}),
        ("simple_cnn", {"backbone", "head"}),
    ],
)
def test_every_parameter_is_in_a_named_part(name, parts):
    network = build_network(tiny(name), spec_for(name))
    found = network.part_parameters()
    assert set(found) == parts
    assert sum(map(len, found.values())) == len(list(network.parameters()))


def test_unknown_encoder_names_near_ones():
    with pytest.raises(ConfigError, match="resnet17") as caught:
        build_network(TimmUNetConfig(encoder="resnet17"), OutputSpec(2))
    assert caught.value.where == "network.encoder"
    assert "resnet" in (caught.value.expected or "")


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        ("test_vit", "1/16, 1/16, 1/16"),  # Features of one size only.
        ("swin_tiny_patch4_window7_224", "64 x 96"),  # Built for one input size.
    ],
)
def test_encoder_without_a_pyramid_is_refused_at_once(encoder, why):
    with pytest.raises(ConfigError, match="no feature pyramid") as caught:
        build_network(TimmUNetConfig(encoder=encoder), OutputSpec(2))
    assert why in str(caught.value)
    assert caught.value.fix is not None


def test_too_few_decoder_channels_are_refused():
    with pytest.raises(ConfigError, match="5 steps up") as caught:
        build_network(TimmUNetConfig(encoder="test_resnet", map_stride=1, decoder_channels=(8, 8)), OutputSpec(2))
    assert caught.value.where == "network.decoder_channels"
    assert caught.value.got == "2"


BROKEN_TORCHVISION = """
import torch

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets

WORKS = True
"""


def test_timm_imports_beside_a_torchvision_without_its_compiled_part(tmp_path):
    """A process of its own: what was imported cannot be imported anew."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN_TORCHVISION)
    (tmp_path / "timm.py").write_text("import torchvision\nfound = torchvision.WORKS\n")
    program = textwrap.dedent("""
        try:
            import torchvision
        except RuntimeError as error:
            print("broken:", error)
        from bregma.networks._timm import import_timm
        print("found:", import_timm().found)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "broken: operator torchvision::nms does not exist" in done.stdout
    assert "found: True" in done.stdout, done.stderr
