"""Published networks are settings of ours: their parameters are as many as published."""

import pytest
import torch

from bregma.networks import build_network
from bregma.networks.hrnet import HRNetConfig
from bregma.networks.maht import MAHTConfig
from bregma.networks.simple_baseline import SimpleBaselineConfig
from bregma.networks.unet import UNetConfig
from bregma.types import OutputSpec

DROPOUT_UNET = UNetConfig(
    base_channels=64,
    max_channels=1024,
    decoder="halved",
    map_stride=1,
    dropout_down=(0.2, 0.2, 0.3, 0.4),
    dropout_up=(0.3, 0.2, 0.1, 0.0),
)
SMALL_UNET = UNetConfig(base_channels=64, levels=4, bias=True, map_stride=1)
RESNET50_CLASSIFIER = 2048 * 1000 + 1000


def parameters(config, maps, in_channels=3):
    with torch.device("meta"):
        network = build_network(config, OutputSpec(maps), in_channels=in_channels)
    return sum(parameter.numel() for parameter in network.parameters())


def test_unet_of_four_blocks_has_exactly_the_published_parameters():
    assert parameters(SMALL_UNET, 4) == 7_788_740
    assert parameters(SMALL_UNET, 4, in_channels=1) == 7_788_740 - 2 * 9 * 64


@pytest.mark.parametrize(
    ("config", "maps", "published"),
    [
        (DROPOUT_UNET, 40, 17.27e6),
        # Xiao, Wu, Wei 2018, table 2: ResNet-50, 101 and 152 with three steps up, for the 17 points of COCO.
        (SimpleBaselineConfig(encoder="resnet50"), 17, 34.0e6),
        (SimpleBaselineConfig(encoder="resnet101"), 17, 53.0e6),
        (SimpleBaselineConfig(encoder="resnet152"), 17, 68.6e6),
        # Open Model Zoo's facial-landmarks-98-detection-0001; its authors' HRNet-Semantic-Segmentation, Cityscapes.
        (HRNetConfig(encoder="hrnet_w18"), 98, 9.66e6),
        (HRNetConfig(encoder="hrnet_w48"), 19, 65.8e6),
    ],
)
def test_parameters_are_as_many_as_published(config, maps, published):
    assert parameters(config, maps) == pytest.approx(published, rel=0.005)


def test_simple_baseline_at_full_size_lacks_only_the_unused_classifier():
    without = parameters(SimpleBaselineConfig(encoder="resnet50", map_stride=1), 40)
    assert without + RESNET50_CLASSIFIER == pytest.approx(38.15e6, abs=5e3)


WIDTH = 256
LINEAR, KEY, NORM = WIDTH**2 + WIDTH, WIDTH**2, 2 * WIDTH
ATTENTION = 3 * LINEAR + KEY
FEED_FORWARD = 8 * WIDTH**2 + 5 * WIDTH
# Published with their classifiers: torchvision's EfficientNetV2-S less its last convolution, normalisation and layer;
# ConvNeXt-S (Liu et al. 2022) less its last normalisation and layer.
EFFICIENTNET_V2_S = 21_458_488 - (256 * 1280 + 2 * 1280) - (1280 * 1000 + 1000)
CONVNEXT_S = 50_223_688 - 2 * 768 - (768 * 1000 + 1000)


@pytest.mark.parametrize(
    ("size", "backbone", "deep", "bridge_layers", "query_layers", "about"),
    [
        ("tiny", EFFICIENTNET_V2_S, 256, 2, 2, 25e6),
        ("small", EFFICIENTNET_V2_S, 256, 4, 3, 35e6),
        ("base", CONVNEXT_S, 768, 6, 4, 55e6),
    ],
)
def test_maht_has_the_parameters_of_its_published_parts(size, backbone, deep, bridge_layers, query_layers, about):
    with torch.device("meta"):
        network = build_network(MAHTConfig(size=size, map_stride=1), OutputSpec(22), in_channels=3)
    parts = {name: sum(p.numel() for p in found) for name, found in network.part_parameters().items()}
    assert parts["backbone"] == backbone
    project = deep * WIDTH + WIDTH
    assert parts["bridge"] == project + bridge_layers * (ATTENTION + FEED_FORWARD + 2 * NORM) + NORM
    queries = 22 * WIDTH + query_layers * (2 * ATTENTION + FEED_FORWARD + 3 * NORM) + NORM
    assert parts["head"] == queries + LINEAR + (WIDTH * 32 + 32) + 22
    # Their authors' round estimates for the three sizes; the small one's is out by most.
    assert sum(parts.values()) == pytest.approx(about, rel=0.2)
