"""Every codec: points go to a target and come back to a twentieth of a pixel, with the covariance that a map shows."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bregma import geometry
from bregma.codecs import CODECS, Labels, build_codec
from bregma.codecs.coordinate import CoordinateCodecConfig
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.data.preprocess import PreprocessConfig, input_matrix
from bregma.geometry import Frame
from bregma.inference import to_original
from bregma.types import ArrayImage, Case

SHAPE = (64, 96)
STRIDES = (1, 2, 4)
SIGMAS_PX = (1.5, 2.0, 3.0, 4.0)
ACTIVATIONS = ("softmax", "linear", "sigmoid")
REFINING = ("dark", "local_soft_argmax", "soft_argmax")
TOLERANCE_PX = 0.05
SLOTTED = ("heatmap", "coordinate")
"""Codecs with a place for every landmark; test_chain_codec.py is about the one without."""


def labels_of(points, shape=SHAPE, placed=None):
    p = torch.as_tensor(np.asarray(points), dtype=torch.float32)[None]
    ones = torch.ones(p.shape[:2])
    there = ones if placed is None else torch.tensor(placed, dtype=torch.float32)[None]
    return Labels(p, there, there, ones, shape)


def before(maps, activation):
    """What the activation turns into these maps."""
    if activation == "sigmoid":
        return torch.logit(maps.clamp(1e-30, 1 - 1e-6)) + math.log(9)
    return maps if activation == "linear" else maps.clamp(min=1e-30).log() + 3.0


def ideal_outputs(codec, labels):
    """What a perfect network would answer: the target, as it is before the codec's activation."""
    if codec.outputs.maps:
        maps = codec.encode(labels).maps
        return {"maps": before(maps, codec.config.activation)}
    width, height = labels.shape[1], labels.shape[0]
    unit = (labels.points_in.double() + 0.5) / torch.tensor([width, height])
    return {"points": torch.logit((unit + 0.05) / 1.1).flatten(1).float()}


def errors_px(codec, points, shape=SHAPE):
    labels = labels_of(points, shape)
    decoded = codec.decode(ideal_outputs(codec, labels), shape)
    assert decoded.mean_in.shape == (1, len(points), 2)
    return np.linalg.norm(decoded.mean_in[0].numpy() - points, axis=1)


def rim(shape):
    """Corners and edges of an input, to the outer edge of its outer pixels."""
    height, width = shape
    xs, ys = (-0.5, 0.0, 0.37, width - 1.2, width - 1.0, width - 0.5), (-0.5, 0.0, 0.81, height - 1.0, height - 0.5)
    corners = itertools.product(xs, ys)
    sides = [(0.0, 21.3), (width - 1.0, 30.8), (40.6, 0.0), (33.3, height - 1.0)]
    return np.array([*corners, *sides])


@pytest.fixture(scope="module")
def spread():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform((0, 0), (SHAPE[1] - 1, SHAPE[0] - 1), (200, 2)), rim(SHAPE)])


@pytest.mark.parametrize("name", SLOTTED)
def test_default_codec_of_every_kind_returns_the_points(name, spread):
    config, _ = CODECS[name]
    for stride in STRIDES:
        assert errors_px(build_codec(config(), len(spread), stride), spread).max() <= TOLERANCE_PX


@pytest.mark.parametrize("decoder", REFINING)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("sigma_px", SIGMAS_PX)
def test_refining_decoders_return_sub_pixel_points(decoder, activation, stride, sigma_px, spread):
    config = HeatmapCodecConfig(sigma_px=sigma_px, activation=activation, decoder=decoder)
    assert errors_px(build_codec(config, len(spread), stride), spread).max() <= TOLERANCE_PX


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", STRIDES)
def test_argmax_is_right_to_half_a_cell(activation, stride, spread):
    codec = build_codec(HeatmapCodecConfig(activation=activation, decoder="argmax"), len(spread), stride)
    decoded = codec.decode(ideal_outputs(codec, labels_of(spread)), SHAPE)
    away = np.abs(decoded.mean_in[0].numpy() - spread)
    assert away.max() <= stride / 2 + 1e-4
    assert away.max() > 0.4 * stride  # Otherwise these points would not tell argmax from a refining decoder.


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(5, 20),
    columns=st.integers(5, 20),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    stride=st.sampled_from(STRIDES),
    sigma_px=st.floats(1.5, 4.0),
    decoder=st.sampled_from(REFINING),
    activation=st.sampled_from(ACTIVATIONS),
)
def test_any_point_of_any_input_comes_back(rows, columns, at, stride, sigma_px, decoder, activation):
    shape = (4 * rows, 4 * columns)
    points = np.array([[at[0] * shape[1] - 0.5, at[1] * shape[0] - 0.5]])
    config = HeatmapCodecConfig(sigma_px=sigma_px, activation=activation, decoder=decoder)
    assert errors_px(build_codec(config, 1, stride), points, shape)[0] <= TOLERANCE_PX


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.tuples(st.floats(-0.5, 1999.5), st.floats(-0.5, 999.5)))
def test_coordinate_codec_returns_any_point_of_a_large_input(point):
    codec = build_codec(CoordinateCodecConfig(), 1, 1)
    assert errors_px(codec, np.array([point]), (1000, 2000))[0] <= 0.005


def test_target_is_a_gaussian_of_peak_one_at_the_point():
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0), 2, 2)
    # Cell 10 of stride 2 is centred at pixel 20.5, cell 5 at 10.5; sigma is one cell.
    maps = codec.encode(labels_of([(20.5, 10.5), (21.5, 10.5)])).maps[0]
    assert maps.shape == (2, 32, 48)
    assert maps[0, 5, 10] == pytest.approx(1.0)
    assert maps[0, 5, 11] == pytest.approx(math.exp(-0.5))
    assert maps[0, 7, 11] == pytest.approx(math.exp(-2.5))
    assert maps[1, 5, 10] == pytest.approx(math.exp(-0.125))
    assert maps[1, 5, 11] == pytest.approx(math.exp(-0.125))


def test_a_point_without_a_place_leaves_its_map_empty():
    codec = build_codec(HeatmapCodecConfig(), 2, 2)
    maps = codec.encode(labels_of([(20.0, 10.0), (20.0, 10.0)], placed=[1, 0])).maps[0]
    assert maps[0].max() > 0.9
    assert (maps[1] == 0).all()


def gaussian_maps(centre, cov_px, stride, shape=SHAPE):
    """Density of a Gaussian of any covariance (input px²) at the cells of a map, in double precision."""
    rows, columns = shape[0] // stride, shape[1] // stride
    y, x = (((np.mgrid[0:rows, 0:columns] + 0.5) * stride) - 0.5).astype(np.float64)
    away = np.stack([x - centre[0], y - centre[1]], -1)
    return np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(cov_px), away))


def as_outputs(maps, activation):
    tensor = torch.tensor(maps, dtype=torch.float32)[None, None]
    return {"maps": before(tensor, activation)}


POSTERIOR = np.array([[16.0, 5.0], [5.0, 6.0]])


@pytest.mark.parametrize("decoder", REFINING)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("sigma_px", [1.5, 3.0])
def test_covariance_of_a_wide_map_is_the_posterior_without_the_targets_width(decoder, stride, sigma_px):
    seen = gaussian_maps((45.3, 31.8), POSTERIOR + sigma_px**2 * np.eye(2), stride)
    codec = build_codec(HeatmapCodecConfig(sigma_px=sigma_px, decoder=decoder, radius_sigma=10.0), 1, stride)
    decoded = codec.decode(as_outputs(seen, "softmax"), SHAPE)
    np.testing.assert_allclose(decoded.cov_in[0, 0].numpy(), POSTERIOR, atol=0.03 * 16)
    # Decoding corrects for how few cells a narrow target covers; on a wide map that costs under a tenth of a cell.
    atol = TOLERANCE_PX if sigma_px / stride > 0.5 else 0.1 * stride
    np.testing.assert_allclose(decoded.mean_in[0, 0].numpy(), [45.3, 31.8], atol=atol)


def test_covariance_of_a_regressed_map_loses_little_with_its_floor():
    # Cutting a Gaussian at 5 % and keeping a rim of 1.5 target widths costs a few per cent of its variance.
    seen = gaussian_maps((45.3, 31.8), POSTERIOR + 4 * np.eye(2), 1)
    noise = np.random.default_rng(0).normal(0, 0.003, seen.shape)
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0, activation="linear"), 1, 1)
    cov = codec.decode(as_outputs(seen + noise, "linear"), SHAPE).cov_in[0, 0].numpy()
    np.testing.assert_allclose(cov, POSTERIOR, atol=0.1 * 16)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_covariance_of_a_certain_map_is_a_cells_own_quantisation(activation):
    for stride in STRIDES:
        codec = build_codec(HeatmapCodecConfig(sigma_px=3.0, activation=activation), 1, stride)
        decoded = codec.decode(ideal_outputs(codec, labels_of([(40.2, 30.6)])), SHAPE)
        np.testing.assert_allclose(decoded.cov_in[0, 0].numpy(), np.eye(2) * stride**2 / 12, atol=0.1 * stride**2 / 12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("decoder", ["argmax", "dark", "local_soft_argmax"])
def test_two_equal_peaks_give_one_of_them_and_a_covariance_that_reaches_the_other(activation, decoder):
    # A descending diagonal: the leftmost column with the topmost row would be a point on neither peak.
    first, second = np.array([70.0, 12.0]), np.array([20.0, 50.0])
    both = gaussian_maps(first, 4 * np.eye(2), 1) + gaussian_maps(second, 4 * np.eye(2), 1)
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0, activation=activation, decoder=decoder), 1, 1)
    decoded = codec.decode(as_outputs(both, activation), SHAPE)
    mean = decoded.mean_in[0, 0].numpy()
    other = second - first if np.linalg.norm(mean - first) < 0.1 else first - second
    assert min(np.linalg.norm(mean - first), np.linalg.norm(mean - second)) < TOLERANCE_PX
    # Half of the probability lies at the other peak: E (x - a)(x - a)' = σ² I + d d' / 2, less the target's σ² I.
    values, vectors = np.linalg.eigh(decoded.cov_in[0, 0].numpy())
    assert values[1] == pytest.approx(other @ other / 2, rel=0.01)
    assert abs(vectors[:, 1] @ other) == pytest.approx(np.linalg.norm(other), rel=1e-3)


def test_full_soft_argmax_gives_the_mean_of_two_peaks():
    both = gaussian_maps((30.0, 20.0), 4 * np.eye(2), 1) + gaussian_maps((60.0, 40.0), 4 * np.eye(2), 1)
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0, decoder="soft_argmax"), 1, 1)
    mean = codec.decode(as_outputs(both, "softmax"), SHAPE).mean_in[0, 0].numpy()
    np.testing.assert_allclose(mean, [45.0, 30.0], atol=TOLERANCE_PX)


def test_noise_on_the_floor_of_a_regressed_map_moves_its_point_little():
    points = np.random.default_rng(1).uniform((10, 10), (85, 53), (50, 2))
    codec = build_codec(HeatmapCodecConfig(sigma_px=2.0, activation="linear"), 50, 1)
    maps = codec.encode(labels_of(points)).maps
    noisy = maps + 0.01 * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0))
    away = codec.decode({"maps": noisy}, SHAPE).mean_in[0].numpy() - points
    assert np.sqrt((away**2).sum(1).mean()) < 0.15


@pytest.mark.parametrize("decoder", ["argmax", *REFINING])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("value", [0.0, -5.0, 1e4])
def test_a_map_that_says_nothing_still_gives_finite_landmarks(decoder, activation, value):
    codec = build_codec(HeatmapCodecConfig(decoder=decoder, activation=activation), 1, 4)
    decoded = codec.decode({"maps": torch.full((2, 1, 16, 24), value)}, SHAPE)
    assert torch.isfinite(decoded.mean_in).all()
    assert torch.isfinite(decoded.cov_in).all()
    assert (torch.linalg.eigvalsh(decoded.cov_in) >= 0.99 * 16 / 12).all()


@pytest.mark.parametrize("name", SLOTTED)
def test_presence_is_learned_only_where_asked(name):
    config, _ = CODECS[name]
    points = np.array([(30.0, 20.0), (40.0, 25.0), (10.0, 50.0)])
    silent, taught = build_codec(config(), 3, 2), build_codec(config(presence=True), 3, 2)
    assert "presence" not in silent.outputs.names
    assert taught.outputs.vectors["presence"] == 3
    outputs = ideal_outputs(silent, labels_of(points))
    assert silent.decode(outputs, SHAPE).presence.tolist() == [[1.0, 1.0, 1.0]]
    logits = torch.tensor([[0.0, math.log(3.0), -math.log(3.0)]])
    presence = taught.decode(outputs | {"presence": logits}, SHAPE).presence
    np.testing.assert_allclose(presence.numpy(), [[0.5, 0.75, 0.25]], atol=1e-6)


@pytest.mark.parametrize("name", SLOTTED)
@pytest.mark.parametrize("stride", STRIDES)
def test_points_for_losses_are_right_and_differentiable(name, stride):
    # The plain mean of a map is right where the target covers a few cells.
    config = HeatmapCodecConfig(sigma_px=max(2.0, stride)) if name == "heatmap" else CODECS[name][0]()
    codec = build_codec(config, 2, stride)
    points = np.array([(45.3, 30.1), (50.7, 33.9)])
    outputs = {key: value.requires_grad_() for key, value in ideal_outputs(codec, labels_of(points)).items()}
    got = codec.points(outputs, SHAPE)
    np.testing.assert_allclose(got[0].detach().numpy(), points, atol=TOLERANCE_PX)
    got.sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in outputs.values())


def test_coordinate_covariance_is_lower_times_its_transpose():
    codec = build_codec(CoordinateCodecConfig(covariance=True), 1, 1)
    outputs = {"points": torch.zeros(1, 2), "cholesky": torch.tensor([[0.0, 1.0, -2.0]])}
    # Shape (64, 100): scale 0.03 * 100 = 3 px a unit; the diagonal is softplus plus a thousandth.
    first, second = 3 * math.log(2) + 1e-3, 3 * math.log1p(math.e) + 1e-3
    decoded = codec.decode(outputs, (64, 100))
    expected = np.array([[first**2, -6 * first], [-6 * first, 36 + second**2]])
    np.testing.assert_allclose(decoded.cov_in[0, 0].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(decoded.mean_in[0, 0].numpy(), [49.5, 31.5], atol=1e-5)


@pytest.mark.parametrize("name", SLOTTED)
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize(("shape", "spacing"), [((300, 180), (0.4, 0.7)), ((120, 350), None), ((90, 90), (1.0, 0.25))])
def test_original_points_survive_the_whole_chain(name, fit, shape, spacing):
    frame = Frame(shape, spacing, "none" if spacing is None else "user")
    preprocess = PreprocessConfig(size=(160, 224), fit=fit)
    matrix = input_matrix(frame, preprocess)
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.uniform((0, 0), (shape[1] - 1, shape[0] - 1), (40, 2)), [(0, 0), shape[::-1]]])
    points[-1] -= 1
    config, _ = CODECS[name]
    codec = build_codec(config(), len(points), 2)
    labels = labels_of(geometry.apply(matrix, points), preprocess.size)
    decoded = codec.decode(ideal_outputs(codec, labels), preprocess.size)
    case = Case("a", "a", ArrayImage(np.zeros(shape)), frame)
    parts = (t[0].double().numpy() for t in (decoded.mean_in, decoded.cov_in, decoded.presence))
    prediction = to_original(case, matrix, *parts, model="m")
    in_input_px = (prediction.mean - points) * (matrix[0, 0], matrix[1, 1])
    assert np.linalg.norm(in_input_px, axis=1).max() <= TOLERANCE_PX
    # One input px² of covariance is 1 / s² original px² along each axis.
    scale = np.diag([1 / matrix[0, 0], 1 / matrix[1, 1]])
    expected = scale @ decoded.cov_in[0, 0].double().numpy() @ scale
    np.testing.assert_allclose(prediction.cov[0], expected, rtol=1e-6, atol=1e-6)
    assert prediction.frame is frame
