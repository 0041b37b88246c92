"""Landmarks that share a map because nothing tells them apart: targets, distinct peaks, presence, flips, refusals."""

import math

import numpy as np
import pytest
import torch

from bregma import geometry
from bregma.codecs import Labels, build_codec
from bregma.codecs.exchangeable import distinct_peaks, sharing_of
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.errors import ConfigError
from bregma.losses import CrossEntropyConfig, L1Config, MSEConfig, check_terms, total_loss
from bregma.schema import load_schema, schema_from_dict
from loss_inputs import loss_input

SHAPE = (128, 192)
SCHEMA = load_schema("fetal_head")
POINTS = np.array([[30.3, 60.0], [150.0, 70.7], [90.2, 20.4], [95.0, 110.0]])
SIGMA = 2.0


def anatomy(**changes):
    names = ("a", "b", "c", "d")
    data = {"name": "x", "title": "X", "landmarks": [{"name": n, "label": n} for n in names], "flip": "keep"}
    return schema_from_dict(data | changes, where="test")


def codec_of(schema=SCHEMA, stride=2, **settings):
    config = HeatmapCodecConfig(**({"sigma_px": 3.0, "outline": False} | settings))
    return build_codec(config, len(schema), stride, schema)


def labels_of(points=POINTS, placed=(1, 1, 1, 1), known=(1, 1, 1, 1)):
    p = torch.tensor(np.asarray(points), dtype=torch.float32)[None]
    there, said = (torch.tensor([row], dtype=torch.float32) for row in (placed, known))
    return Labels(p, there, there, said, SHAPE)


def outputs_for(target, activation):
    """What a perfect network would answer: the target, as it is before the codec's activation."""
    if activation == "sigmoid":
        return {"maps": torch.logit(target.clamp(1e-30, 1 - 1e-6)) + math.log(9)}
    return {"maps": target if activation == "linear" else target.clamp(min=1e-30).log() + 3.0}


def blobs(*places, size=(48, 64), sigma=SIGMA):
    """A map that sums to one of Gaussians ``(x, y, height)``."""
    y, x = np.mgrid[: size[0], : size[1]]
    drawn = sum(h * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / sigma**2) for cx, cy, h in places)
    return torch.tensor(drawn / drawn.sum(), dtype=torch.float32)[None]


def peaks_of(p, count):
    """Means and masses of the peaks that are there."""
    found = distinct_peaks(p, count, SIGMA, 4 * SIGMA)
    own = found.own[0].numpy().astype(float)
    mass = found.mass[0].numpy()
    y, x = np.mgrid[: p.shape[1], : p.shape[2]]
    there = mass > 0
    return np.array([[(o * x).sum() / o.sum(), (o * y).sum() / o.sum()] for o in own[there]]), mass[there]


class TestDistinctPeaks:
    def test_two_of_unequal_height_come_with_their_share_of_the_mass(self):
        means, mass = peaks_of(blobs((10.3, 12.0, 1.0), (40.2, 30.7, 0.4)), 2)
        np.testing.assert_allclose(means, [[10.3, 12.0], [40.2, 30.7]], atol=0.01)
        np.testing.assert_allclose(mass, [1 / 1.4, 0.4 / 1.4], atol=1e-3)

    @pytest.mark.parametrize(("apart", "height"), [(6.0, 0.8), (5.2, 0.99)])
    def test_blobs_that_overlap_are_told_apart_without_pushing_each_other(self, apart, height):
        means, mass = peaks_of(blobs((20.0, 20.0, 1.0), (20.0 + apart, 20.0, height)), 2)
        np.testing.assert_allclose(means, [[20.0, 20.0], [20.0 + apart, 20.0]], atol=0.02)
        assert mass[0] / mass[1] == pytest.approx(1 / height, rel=0.03)

    def test_a_blob_with_two_equal_highest_cells_is_one(self):
        means, mass = peaks_of(blobs((20.5, 20.0, 1.0)), 4)
        np.testing.assert_allclose(means, [[20.5, 20.0]], atol=0.01)
        assert mass.sum() == pytest.approx(1.0, abs=1e-3)

    def test_the_ragged_top_of_a_wide_blob_is_one(self):
        wide = blobs((30.0, 24.0, 1.0), sigma=6.0)
        ragged = wide * (1 + 0.05 * torch.rand(wide.shape, generator=torch.Generator().manual_seed(0)))
        means, _ = peaks_of(ragged / ragged.sum() + blobs((10.0, 10.0, 1.0)) * 0.2, 2)
        assert len(means) == 2
        assert np.linalg.norm(means - [10.0, 10.0], axis=1).min() < 0.5

    def test_a_third_peak_is_the_last_candidate(self):
        means, _ = peaks_of(blobs((10, 10, 1.0), (50, 12, 0.3), (30, 40, 0.8)), 3)
        np.testing.assert_allclose(means, [[10, 10], [30, 40], [50, 12]], atol=0.01)

    @pytest.mark.parametrize("value", [0.0, 1e-4])
    def test_a_map_that_says_nothing_has_finite_peaks(self, value):
        found = distinct_peaks(torch.full((1, 48, 64), value), 4, SIGMA, 4 * SIGMA)
        assert torch.isfinite(found.own).all()
        assert torch.isfinite(found.mass).all()


class TestTarget:
    def test_a_probability_is_the_mixture_with_equal_shares_even_where_the_border_cuts(self):
        points = POINTS.copy()
        points[0] = (-0.5, 60.0)
        maps = codec_of(activation="softmax").encode(labels_of(points)).maps[0]
        assert maps.shape == (2, 64, 96)
        left, right = maps[0, :, :48].sum(), maps[0, :, 48:].sum()
        assert float(left / right) == pytest.approx(1.0, abs=1e-4)

    def test_values_are_the_highest_of_the_members(self):
        codec, alone = codec_of(activation="linear"), codec_of(activation="linear", exchangeable="separate")
        close = POINTS.copy()
        close[1] = close[0] + (4.0, 0.0)
        shared, separate = (c.encode(labels_of(close)).maps[0] for c in (codec, alone))
        assert separate.shape[0] == 4
        torch.testing.assert_close(shared[0], torch.maximum(separate[0], separate[1]))

    def test_the_order_of_the_labels_does_not_matter(self):
        codec = codec_of()
        swapped = POINTS[[1, 0, 3, 2]]
        torch.testing.assert_close(codec.encode(labels_of()).maps, codec.encode(labels_of(swapped)).maps)

    def test_a_flip_of_points_is_the_flip_of_the_target(self):
        mirrored = geometry.apply(geometry.flip_horizontal(SHAPE[1]), POINTS)[list(SCHEMA.flip_permutation)]
        codec = codec_of()
        torch.testing.assert_close(
            codec.encode(labels_of(mirrored)).maps, codec.encode(labels_of()).maps.flip(-1), atol=1e-5, rtol=0
        )

    def test_a_mirror_pair_that_is_exchangeable_is_one_map(self):
        schema = anatomy(flip="swap", mirror_pairs=[["a", "b"]], exchangeable=[["a", "b"]])
        assert sharing_of(schema, 4).members == ((0, 1), (2,), (3,))

    def test_mirror_pairs_between_sets_swap_whole_sets(self):
        pairs = [["a", "c"], ["b", "d"]]
        schema = anatomy(flip="swap", mirror_pairs=pairs, exchangeable=[["a", "b"], ["c", "d"]])
        assert sharing_of(schema, 4).members == ((0, 1), (2, 3))
        with pytest.raises(ConfigError, match="contradict"):
            sharing_of(anatomy(flip="swap", mirror_pairs=[["a", "c"]], exchangeable=[["a", "b"]]), 4)

    def test_a_map_counts_unless_a_member_may_be_anywhere(self):
        codec = codec_of()
        # An end known to be outside the image leaves the other to be learned; one that nobody labelled hides the map.
        assert codec.encode(labels_of(placed=(1, 0, 1, 1))).counts.tolist() == [[1.0, 1.0]]
        assert codec.encode(labels_of(placed=(1, 0, 1, 1), known=(1, 0, 1, 1))).counts.tolist() == [[0.0, 1.0]]
        assert codec.encode(labels_of(placed=(0, 0, 1, 1))).counts.tolist() == [[0.0, 1.0]]

    def test_presence_says_how_many_there_are(self):
        present = codec_of(presence=True).encode(labels_of(placed=(0, 1, 1, 1))).labels.present
        assert present.tolist() == [[1.0, 0.0, 1.0, 1.0]]

    def test_one_that_is_there_beside_one_that_nobody_labelled_teaches_that_there_is_one(self):
        labels = codec_of(presence=True).encode(labels_of(placed=(0, 1, 0, 0), known=(0, 1, 1, 0))).labels
        # There is one of the first set, and perhaps another; of the second set at most one, perhaps none.
        assert labels.known.tolist() == [[1.0, 0.0, 0.0, 1.0]]
        assert [labels.present[0, 0].item(), labels.present[0, 3].item()] == [1.0, 0.0]

    def test_gradient_of_the_cross_entropy_is_probability_less_mixture(self):
        target = codec_of().encode(labels_of())
        maps = torch.randn(target.maps.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        x = loss_input(maps=maps, target_maps=target.maps, placed=torch.ones(1, 4), counts=target.counts)
        total_loss([CrossEntropyConfig()], x)[0].backward()
        q = target.maps / target.maps.sum((2, 3), keepdim=True)
        p = maps.detach().flatten(2).softmax(-1).view_as(maps)
        torch.testing.assert_close(maps.grad, (p - q) / 2, atol=1e-6, rtol=1e-4)

    def test_a_map_that_does_not_count_has_no_gradient(self):
        target = codec_of(activation="linear").encode(labels_of(placed=(1, 0, 1, 1), known=(1, 0, 1, 1)))
        maps = torch.ones(target.maps.shape, requires_grad=True)
        x = loss_input(maps=maps, target_maps=target.maps, placed=target.labels.placed, counts=target.counts)
        total_loss([MSEConfig()], x)[0].backward()
        assert (maps.grad[0, 0] == 0).all()
        assert (maps.grad[0, 1] != 0).any()


@pytest.mark.parametrize("decoder", ["dark", "local_soft_argmax"])
@pytest.mark.parametrize("activation", ["softmax", "linear", "sigmoid"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_points_come_back_from_left_to_right(decoder, activation, stride):
    codec = codec_of(stride=stride, decoder=decoder, activation=activation)
    points = np.array([[191.5, 60.0], [-0.5, 70.7], [95.0, 110.1], [90.2, -0.5]])
    decoded = codec.decode(outputs_for(codec.encode(labels_of(points)).maps, activation), SHAPE)
    np.testing.assert_allclose(decoded.mean_in[0].numpy(), points[[1, 0, 3, 2]], atol=0.05)
    # Values that the border cuts are half a peak, 2/3 of an equal share; probabilities have an equal one.
    half = 1.0 if activation == "softmax" else 1.125 * (2 / 3) / (2 / 3 + 0.125)
    np.testing.assert_allclose(decoded.presence.numpy(), [[1.0, 1.0, half, 1.0]], atol=0.05)
    # Only a cell's own quantisation is left: the other end is no doubt about this one.
    expected = np.broadcast_to(np.eye(2) * stride**2 / 12, (4, 2, 2))
    np.testing.assert_allclose(decoded.cov_in[0].numpy(), expected, atol=0.15 * stride**2)


def test_learned_widths_are_one_a_map():
    codec = codec_of(activation="linear", learn_sigma=True)
    assert codec.outputs.constants == {"sigma": 2}
    sigma = {"sigma": torch.tensor([[0.0, 0.5]])}
    decoded = codec.decode({"maps": codec.encode(labels_of(), sigma).maps} | sigma, SHAPE)
    np.testing.assert_allclose(decoded.mean_in[0].numpy(), POINTS, atol=0.05)


def test_a_predicted_spread_is_that_of_all_members():
    codec = codec_of(spread=True)
    assert codec.outputs.vectors == {"spread": 4}
    outputs = outputs_for(codec.encode(labels_of()).maps, "softmax") | {"spread": torch.tensor([[0.0, 0.0, 0.5, 0.5]])}
    cov = codec.decode(outputs, SHAPE).cov_in[0]
    assert torch.equal(cov[0], cov[1])
    assert float(cov[2, 0, 0] / cov[0, 0, 0]) == pytest.approx(math.exp(2 * 6 * math.tanh(0.5 / 6)), rel=1e-4)


def test_one_blob_is_one_point_and_the_other_is_not_there():
    codec = codec_of(activation="linear")
    only = codec.encode(labels_of(placed=(1, 0, 1, 1))).maps
    decoded = codec.decode({"maps": only}, SHAPE)
    present = decoded.presence[0].numpy()
    assert sorted(present[:2].tolist()) == [0.0, 1.0]
    shown = int(present[:2].argmax())
    np.testing.assert_allclose(decoded.mean_in[0, shown].numpy(), POINTS[0], atol=0.05)
    # The other may be anywhere: the middle of the input, with the variance of a uniform distribution over it.
    np.testing.assert_allclose(decoded.mean_in[0, 1 - shown].numpy(), [95.5, 63.5])
    np.testing.assert_allclose(decoded.cov_in[0, 1 - shown].numpy(), np.diag([192**2 / 12, 128**2 / 12]), rtol=1e-5)


def test_a_tenth_of_an_equal_share_is_as_likely_a_point_as_none():
    codec = codec_of(activation="linear", sigma_px=2.0, stride=1)
    maps = codec.encode(labels_of()).maps
    weak = codec.encode(labels_of(placed=(0, 1, 1, 1))).maps
    strong = codec.encode(labels_of(placed=(1, 0, 1, 1))).maps
    # Masses 1 and 1/19, of which an equal share is 10/19. What a regressed map's floor cuts off is little.
    maps[:, 0] = (strong + weak / 19)[:, 0]
    presence = codec.decode({"maps": maps}, SHAPE).presence[0]
    assert float(presence[0]) == 1.0
    assert float(presence[1]) == pytest.approx(0.5, abs=0.06)


def test_presence_that_was_learned_goes_to_the_stronger_peak_first():
    codec = codec_of(presence=True)
    target = codec.encode(labels_of()).maps
    first = codec.encode(labels_of(placed=(0, 1, 1, 1))).maps
    logits = torch.tensor([[math.log(9), -math.log(9), 0.0, 0.0]])
    decoded = codec.decode(outputs_for(target + first, "softmax") | {"presence": logits}, SHAPE)
    np.testing.assert_allclose(decoded.presence.numpy(), [[0.1, 0.9, 0.5, 0.5]], atol=1e-6)


def test_smoothing_takes_away_spikes_and_leaves_the_points():
    target = codec_of(activation="linear").encode(labels_of()).maps.clone()
    target[0, 0, 5, [40, 60]] = 3.0
    spikes = np.array([[80.5, 10.5], [120.5, 10.5]])
    plain, smooth = (
        codec_of(activation="linear", smooth_px=value).decode({"maps": target}, SHAPE) for value in (0.0, 3.0)
    )
    assert plain.candidates[0].mass.shape == smooth.candidates[0].mass.shape
    np.testing.assert_allclose(smooth.mean_in[0].numpy(), POINTS, atol=0.1)
    left_over = smooth.candidates[0].mean_in[0, 2:4].numpy()
    np.testing.assert_allclose(left_over[left_over[:, 0].argsort()], spikes, atol=0.5)


def test_separate_maps_are_as_without_a_schema():
    settings = HeatmapCodecConfig(exchangeable="separate", outline=False)
    maps = torch.randn((1, 4, 32, 48), generator=torch.Generator().manual_seed(0))
    with_schema, without = (
        build_codec(settings, 4, 4, schema).decode({"maps": maps}, SHAPE) for schema in (SCHEMA, None)
    )
    assert torch.equal(with_schema.mean_in, without.mean_in)
    assert with_schema.candidates == ()


def test_what_needs_points_in_an_order_is_refused():
    codec = codec_of()
    with pytest.raises(ConfigError, match="share a map"):
        check_terms([CrossEntropyConfig(), L1Config()], codec.outputs, "softmax", SCHEMA)
    with pytest.raises(ConfigError, match="share a map"):
        codec.points({"maps": torch.zeros(1, 2, 64, 96)}, SHAPE)
    with pytest.raises(ConfigError, match=r"codec\.decoder"):
        codec_of(decoder="soft_argmax")
