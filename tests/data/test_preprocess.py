"""From an image to the network's input: intensities by percentiles, and one affine map worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blob_images import centroid, render
from bregma import geometry
from bregma.data.preprocess import PreprocessConfig, input_matrix, intensity_map
from bregma.errors import ImageError
from bregma.geometry import Frame

PLAIN = PreprocessConfig(percentiles=(0, 100))


def test_percentiles_become_0_and_1():
    image = np.arange(101, dtype=np.int16).reshape(1, -1) * 10 - 300
    scaled = intensity_map(image, PreprocessConfig(percentiles=(10, 90)))(image)
    # -200 and 600 are the 10th and the 90th percentile; what lies beyond is clipped.
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0, [0, 10, 50, 90, 100]], [0, 0, 0.5, 1, 1], atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32", "float64", "bool"])
def test_every_number_type_fills_0_to_1(kind):
    image = (np.indices((20, 30)).sum(0) % 2).astype(kind)
    scaled = intensity_map(image, PLAIN)(image)
    assert (scaled.min(), scaled.max()) == (0.0, 1.0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(1.0, 1e4), st.floats(-1e4, 1e4))
def test_gain_and_offset_of_the_device_do_not_matter(gain, offset):
    image = np.random.default_rng(0).random((40, 50))
    plain = intensity_map(image, PreprocessConfig())(image)
    other = image * gain + offset
    np.testing.assert_allclose(intensity_map(other, PreprocessConfig())(other), plain, atol=2e-3)


def test_a_few_burnt_in_pixels_do_not_darken_the_image():
    image = np.random.default_rng(0).uniform(100, 200, (100, 100))
    image[:2, :10] = 60000
    scaled = intensity_map(image, PreprocessConfig())(image)
    assert np.median(scaled) == pytest.approx(0.5, abs=0.03)
    assert scaled.max() == 1.0


def test_large_images_are_sampled_without_harm():
    image = np.random.default_rng(0).normal(1000, 100, (1500, 1200))
    scaling = intensity_map(image, PreprocessConfig())
    low, high = np.percentile(image, (0.5, 99.5))
    assert scaling.offset == pytest.approx(low, abs=0.02 * (high - low))
    assert 1 / scaling.gain == pytest.approx(high - low, rel=0.02)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_image_becomes_black(value):
    image = np.full((20, 30), value, np.uint16)
    assert (intensity_map(image, PreprocessConfig())(image) == 0).all()


def test_an_image_that_is_constant_but_for_a_spot_keeps_the_spot():
    image = np.zeros((100, 100))
    image[50, 50] = 5.0
    assert intensity_map(image, PreprocessConfig())(image)[50, 50] == 1.0


def test_colours_are_refused():
    with pytest.raises(ImageError, match="one channel") as caught:
        intensity_map(np.zeros((20, 30, 3)), PreprocessConfig(), where="a.png")
    assert caught.value.where == "a.png"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused_wherever_they_are(bad):
    # Large enough for its percentiles to be taken on a grid, which does not hold this pixel.
    image = np.zeros((800, 800), np.float32)
    image[401, 403] = bad
    with pytest.raises(ImageError, match="not finite"):
        intensity_map(image, PreprocessConfig())


def test_letterbox_by_hand():
    # 200 x 100 into 64 x 64: scale 0.32, columns 32 wide with 16 black ones at either side.
    matrix = input_matrix(Frame((200, 100)), PreprocessConfig(size=(64, 64)))
    got = geometry.apply(matrix, [(-0.5, -0.5), (99.5, 199.5), (49.5, 99.5)])
    np.testing.assert_allclose(got, [(15.5, -0.5), (47.5, 63.5), (31.5, 31.5)], atol=1e-9)


def test_stretch_by_hand():
    matrix = input_matrix(Frame((200, 100), (0.1, 0.9), "user"), PreprocessConfig(size=(64, 96), fit="stretch"))
    got = geometry.apply(matrix, [(-0.5, -0.5), (99.5, 199.5), (24.5, 149.5)])
    np.testing.assert_allclose(got, [(-0.5, -0.5), (95.5, 63.5), (23.5, 47.5)], atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "spacing", "content"),
    [
        # mm 100 x 100: fills the square.
        ((100, 200), (0.5, 1.0), (64, 64)),
        # mm 50 x 200 (rows x columns): a quarter as high as wide.
        ((100, 200), (1.0, 0.5), (16, 64)),
        ((200, 100), (0.5, 1.0), (64, 16)),
        # Square pixels of whatever size, or none known: the image's own proportions.
        ((100, 200), (0.3, 0.3), (32, 64)),
        ((100, 200), None, (32, 64)),
    ],
)
def test_letterbox_keeps_proportions_in_millimetres(shape, spacing, content):
    frame = Frame(shape, spacing, "none" if spacing is None else "user")
    matrix = input_matrix(frame, PreprocessConfig(size=(64, 64)))
    low, high = geometry.apply(matrix, [(-0.5, -0.5), (shape[1] - 0.5, shape[0] - 0.5)])
    np.testing.assert_allclose(high - low, content[::-1], atol=1e-9)
    np.testing.assert_allclose(low + high, [63, 63], atol=1e-9)  # Centred.
    if spacing is not None:
        per_mm = np.diag(matrix)[:2] / spacing
        assert per_mm[0] == pytest.approx(per_mm[1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(16, 3000), st.integers(16, 3000)),
    st.tuples(st.floats(0.05, 2.0), st.floats(0.05, 2.0)),
    st.sampled_from(["letterbox", "stretch"]),
)
def test_the_whole_image_fits_and_can_be_found_again(shape, spacing, fit):
    config = PreprocessConfig(size=(96, 160), fit=fit)
    matrix = input_matrix(Frame(shape, spacing, "user"), config)
    corners = np.array([(-0.5, -0.5), (shape[1] - 0.5, shape[0] - 0.5)])
    inside = geometry.apply(matrix, corners)
    assert (inside[0] >= -0.5 - 1e-6).all()
    assert (inside[1] <= np.array([159.5, 95.5]) + 1e-6).all()
    points = np.random.default_rng(0).uniform(corners[0], corners[1], (10, 2))
    np.testing.assert_allclose(
        geometry.apply(geometry.invert(matrix), geometry.apply(matrix, points)), points, atol=1e-3
    )


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("spacing", [None, (0.4, 0.8), (0.8, 0.4)])
def test_blobs_of_the_resampled_image_lie_where_the_map_says(fit, spacing):
    shape, points = (150, 220), np.array([(60.0, 40.0), (150.0, 60.0), (80.0, 100.0), (160.0, 110.0)])
    config = PreprocessConfig(size=(128, 192), fit=fit)
    matrix = input_matrix(Frame(shape, spacing, "none" if spacing is None else "user"), config)
    # Round on the input, so that a round window finds their centres.
    image = render(points, shape, 3.0 / np.diag(matrix)[:2])
    out = geometry.warp(image, matrix, config.size)
    for point in geometry.apply(matrix, points):
        assert np.linalg.norm(centroid(out, point) - point) <= 0.05


@pytest.mark.parametrize(
    "settings", [{"percentiles": (99, 1)}, {"percentiles": (-1, 99)}, {"size": (8, 64)}, {"fit": "crop"}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        PreprocessConfig(**settings)
