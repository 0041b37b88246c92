"""Coordinates: the one place where they are changed, against hand-worked values, samples and rendered blobs."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bregma import geometry
from bregma.errors import ImageError
from bregma.geometry import Frame

PROPERTY = settings(max_examples=50, deadline=None, derandomize=True)

degrees = st.floats(-180, 180)
factors = st.floats(0.1, 8.0)
shifts = st.floats(-500, 500)
sides = st.integers(1, 2000)
points = st.lists(st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)), min_size=1, max_size=8).map(np.array)


@st.composite
def maps(draw):
    """Any map of a sample: rotation, unequal scales, shift and perhaps a flip."""
    steps = [
        geometry.rotate(draw(degrees), about=(draw(shifts), draw(shifts))),
        geometry.scale(draw(factors), draw(factors), about=(draw(shifts), draw(shifts))),
        geometry.translate(draw(shifts), draw(shifts)),
        geometry.flip_horizontal(draw(sides)) if draw(st.booleans()) else geometry.identity(),
    ]
    return geometry.compose(*draw(st.permutations(steps)))


@PROPERTY
@given(maps(), points)
def test_map_and_inverse_return_the_points(matrix, p):
    np.testing.assert_allclose(geometry.apply(geometry.invert(matrix), geometry.apply(matrix, p)), p, atol=1e-3)


@PROPERTY
@given(maps(), maps(), points)
def test_compose_applies_the_first_map_first(first, second, p):
    both = geometry.apply(geometry.compose(first, second), p)
    np.testing.assert_allclose(both, geometry.apply(second, geometry.apply(first, p)), rtol=1e-9, atol=1e-6)


@PROPERTY
@given(maps(), maps())
def test_inverse_of_a_chain_is_the_chain_of_inverses_backwards(first, second):
    whole = geometry.invert(geometry.compose(first, second))
    parts = geometry.compose(geometry.invert(second), geometry.invert(first))
    np.testing.assert_allclose(whole, parts, rtol=1e-6, atol=1e-5)


def test_compose_of_nothing_is_the_identity():
    np.testing.assert_array_equal(geometry.compose(), geometry.identity())


def test_invert_refuses_a_map_that_squashes():
    with pytest.raises(ImageError, match="squashes"):
        geometry.invert(geometry.scale(1.0, 0.0))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e7])
def test_invert_takes_any_honest_scale(scale):
    matrix = geometry.scale(scale)
    np.testing.assert_allclose(geometry.compose(matrix, geometry.invert(matrix)), np.eye(3), atol=1e-12)


def test_rotation_turns_x_towards_y():
    np.testing.assert_allclose(geometry.apply(geometry.rotate(90), [[1.0, 0.0]]), [[0.0, 1.0]], atol=1e-12)
    np.testing.assert_allclose(geometry.apply(geometry.rotate(30, about=(5, 7)), [[5.0, 7.0]]), [[5.0, 7.0]])


@PROPERTY
@given(degrees, points)
def test_rotation_keeps_distances(angle, p):
    turned = geometry.apply(geometry.rotate(angle, about=(3, -4)), p)
    np.testing.assert_allclose(np.linalg.norm(turned - (3, -4), axis=1), np.linalg.norm(p - (3, -4), axis=1), atol=1e-6)


def test_scale_about_a_point_keeps_it():
    np.testing.assert_allclose(
        geometry.apply(geometry.scale(3, 0.5, about=(2, 9)), [[2, 9], [3, 11]]), [[2, 9], [5, 10]]
    )


def test_resize_aligns_pixel_edges():
    # Four columns become two: centres 0 and 1 merge into the new 0, so 0.5 -> 0; edges -0.5 and 3.5 -> -0.5 and 1.5.
    matrix = geometry.resize((4, 4), (2, 2))
    np.testing.assert_allclose(
        geometry.apply(matrix, [[0.5, 2.5], [-0.5, 3.5], [0, 3]]), [[0, 1], [-0.5, 1.5], [-0.25, 1.25]]
    )
    # Tripled: the centre of pixel 0 becomes the centre of the first three.
    np.testing.assert_allclose(geometry.apply(geometry.resize((5, 7), (15, 21)), [[0, 0], [6, 4]]), [[1, 1], [19, 13]])


def test_resize_takes_rows_and_columns_apart():
    np.testing.assert_allclose(geometry.apply(geometry.resize((10, 20), (20, 20)), [[3.0, 3.0]]), [[3.0, 6.5]])


@PROPERTY
@given(sides, sides, sides, sides)
def test_resize_maps_corners_onto_corners(h, w, new_h, new_w):
    matrix = geometry.resize((h, w), (new_h, new_w))
    corners = geometry.apply(matrix, [[-0.5, -0.5], [w - 0.5, h - 0.5]])
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [new_w - 0.5, new_h - 0.5]], atol=1e-6)


def test_resize_agrees_with_opencv():
    rng = np.random.default_rng(0)
    image = rng.random((40, 60), dtype=np.float32)
    ours = geometry.warp(image, geometry.resize((40, 60), (80, 120)), (80, 120))
    theirs = cv2.resize(image, (120, 80), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours[4:-4, 4:-4], theirs[4:-4, 4:-4], atol=0.02)


def test_flip_maps_outer_columns_onto_each_other():
    np.testing.assert_array_equal(
        geometry.apply(geometry.flip_horizontal(5), [[0, 1], [4, 1], [2, 3]]), [[4, 1], [0, 1], [2, 3]]
    )


def test_letterbox_of_a_wide_image_by_hand():
    # 100 x 400 into 256 x 256: s = 0.64, 64 rows of content, 96 rows of margin above and below.
    corners = geometry.apply(geometry.letterbox((100, 400), (256, 256)), [[-0.5, -0.5], [399.5, 99.5]])
    np.testing.assert_allclose(corners, [[-0.5, 95.5], [255.5, 159.5]])


def test_letterbox_of_a_tall_image_into_a_wide_frame_by_hand():
    # 300 x 100 into 150 x 200: s = 0.5, 50 columns of content, 75 columns of margin at either side.
    corners = geometry.apply(geometry.letterbox((300, 100), (150, 200)), [[-0.5, -0.5], [99.5, 299.5]])
    np.testing.assert_allclose(corners, [[74.5, -0.5], [124.5, 149.5]])


@PROPERTY
@given(sides, sides, sides, sides)
def test_letterbox_keeps_the_shape_centres_and_fills(h, w, new_h, new_w):
    matrix = geometry.letterbox((h, w), (new_h, new_w))
    assert matrix[0, 0] == matrix[1, 1] > 0
    assert matrix[0, 1] == matrix[1, 0] == 0
    low, high = geometry.apply(matrix, [[-0.5, -0.5], [w - 0.5, h - 0.5]]) + 0.5
    np.testing.assert_allclose(low + high, [new_w, new_h], atol=1e-6)
    assert min(low) == pytest.approx(0, abs=1e-6)
    assert (low >= -1e-6).all()


@PROPERTY
@given(maps())
def test_covariance_is_pushed_through_as_its_matrix_product(matrix):
    cov = np.array([[4.0, 1.5], [1.5, 2.0]])
    a = matrix[:2, :2]
    np.testing.assert_allclose(geometry.apply_cov(matrix, cov), a @ cov @ a.T, rtol=1e-12, atol=1e-12)


def test_covariance_agrees_with_mapped_samples():
    rng = np.random.default_rng(0)
    covs = np.array([[[4.0, 1.5], [1.5, 2.0]], [[0.5, -0.3], [-0.3, 9.0]]])
    matrix = geometry.compose(geometry.scale(2.0, 0.5), geometry.rotate(35), geometry.flip_horizontal(50))
    pushed = geometry.apply_cov(matrix, covs)
    assert pushed.shape == (2, 2, 2)
    for cov, out in zip(covs, pushed, strict=True):
        samples = rng.multivariate_normal([3.0, -2.0], cov, 200_000)
        np.testing.assert_allclose(np.cov(geometry.apply(matrix, samples).T), out, rtol=0.02, atol=0.05)


def test_apply_takes_any_leading_shape():
    p = np.arange(24.0).reshape(2, 3, 2, 2)
    out = geometry.apply(geometry.translate(1, -1), p)
    np.testing.assert_array_equal(out, p + np.array([1, -1]))


def test_mean_scale_is_the_root_of_the_area_factor():
    assert geometry.mean_scale(geometry.compose(geometry.scale(8, 2), geometry.rotate(20))) == pytest.approx(4.0)
    assert geometry.mean_scale(geometry.flip_horizontal(9)) == pytest.approx(1.0)


def blob(shape, centre, sigma):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2)).astype(np.float32)


WARPS = {
    "shift": (geometry.translate(10.3, -7.6), (200, 240)),
    "rotate": (geometry.rotate(33, about=(110, 90)), (200, 240)),
    "enlarge": (geometry.scale(1.7, about=(-0.5, -0.5)), (340, 408)),
    "shrink": (geometry.resize((200, 240), (50, 60)), (50, 60)),
    "shrink a lot": (geometry.resize((200, 240), (20, 24)), (20, 24)),
    "shrink one axis": (geometry.resize((200, 240), (200, 60)), (200, 60)),
    "letterbox": (geometry.letterbox((200, 240), (64, 128)), (64, 128)),
    "flip": (geometry.flip_horizontal(240), (200, 240)),
    "all": (
        geometry.compose(geometry.rotate(-20, about=(110, 90)), geometry.flip_horizontal(240), geometry.scale(0.4)),
        (80, 96),
    ),
}


@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("centre", [(110.4, 90.7), (140.0, 70.25)])
def test_warp_moves_a_blob_to_where_apply_says(name, centre):
    matrix, shape = WARPS[name]
    out = geometry.warp(blob((200, 240), centre, 9.0), matrix, shape)
    assert out.shape == shape
    assert out.dtype == np.float32
    y, x = ndimage.center_of_mass(out)
    np.testing.assert_allclose((x, y), geometry.apply(matrix, centre), atol=0.05)


@pytest.mark.parametrize("size", [(50, 60), (25, 240), (200, 30)])
def test_shrinking_does_not_alias(size):
    """A grating finer than the new pixels must turn grey, whichever axis is shrunk."""
    y, x = np.mgrid[:200, :240]
    axis, step = (x, 240 / size[1]) if size[1] < 240 else (y, 200 / size[0])
    grating = 0.5 + 0.5 * np.cos(2 * np.pi * axis / (0.9 * step))
    out = geometry.warp(grating, geometry.resize((200, 240), size), size)
    inner = out[2:-2, 2:-2]
    assert np.ptp(inner) < 0.25
    assert inner.mean() == pytest.approx(0.5, abs=0.05)


def test_shrinking_one_axis_keeps_the_detail_of_the_other():
    y = np.mgrid[:200, :240][0]
    stripes = 0.5 + 0.5 * np.cos(2 * np.pi * y / 8)
    out = geometry.warp(stripes, geometry.resize((200, 240), (200, 30)), (200, 30))
    assert np.ptp(out[20:-20, 5:-5]) > 0.9


def test_warp_keeps_grey_and_fills_outside():
    image = np.full((20, 30), 7, dtype=np.uint8)
    out = geometry.warp(image, geometry.letterbox((20, 30), (30, 30)), (30, 30), fill=-1.0)
    assert (out[:4] == -1).all()
    np.testing.assert_allclose(out[6:24], 7, atol=1e-4)


def test_warp_by_identity_changes_nothing():
    image = np.random.default_rng(0).random((17, 23), dtype=np.float32)
    np.testing.assert_allclose(geometry.warp(image, geometry.identity(), (17, 23)), image, atol=1e-6)


def test_frame_contains_up_to_the_outer_pixel_edges():
    frame = Frame((10, 20))
    inside = frame.contains([[-0.5, -0.5], [19.5, 9.5], [19.6, 5], [5, 9.6], [-0.6, 5]])
    assert inside.tolist() == [True, True, False, False, False]


def test_frame_millimetres_are_taken_per_axis():
    frame = Frame((10, 20), (0.5, 2.0), "user")
    np.testing.assert_array_equal(frame.to_mm([[4.0, 3.0]]), [[2.0, 6.0]])
    with pytest.raises(ImageError, match="no trusted spacing"):
        Frame((10, 20)).to_mm([[1.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (((0, 5),), "rows and columns"),
        (((5,),), "rows and columns"),
        (((5, 5), (0.1, 0.1), "guess"), "unknown spacing source"),
        (((5, 5), (0.1, 0.1)), "go together"),
        (((5, 5), None, "user"), "go together"),
        (((5, 5), (0.1, 0.0), "user"), "positive and finite"),
        (((5, 5), (math.nan, 0.1), "user"), "positive and finite"),
        (((5, 5), (0.1, math.inf), "user"), "positive and finite"),
    ],
)
def test_frame_refuses_what_cannot_be(arguments, word):
    with pytest.raises(ImageError, match=word):
        Frame(*arguments)


@pytest.mark.parametrize(
    "frame", [Frame((10, 20)), Frame((7, 9), (0.1, 0.3), "dicom_imager_pixel_spacing", "at the detector")]
)
def test_frame_survives_json(frame):
    assert Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame
