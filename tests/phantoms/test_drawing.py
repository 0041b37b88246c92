"""Drawing tools against hand-worked coverage, areas and moments."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as PolygonPath

from bregma.phantoms import drawing


def shoelace(p):
    x, y = np.asarray(p, float).T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def test_polygon_covers_pixels_by_their_share():
    # Pixel centres are whole numbers: this box covers x from 1.25 to 3.0, so a quarter of pixel 1, pixel 2, half of 3.
    box = [(1.25, 0.5), (3.0, 0.5), (3.0, 1.75), (1.25, 1.75)]
    expected = np.zeros((4, 5))
    expected[1, 1:4] = 0.25, 1.0, 0.5
    expected[2, 1:4] = 0.0625, 0.25, 0.125
    np.testing.assert_allclose(drawing.polygon((4, 5), box), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(4, 26), st.floats(0.5, 10)), min_size=3, max_size=9),
    st.floats(0, 6.28),
    st.booleans(),
)
def test_polygon_area_and_centroid_are_exact(corners, turn, backwards):
    angles = turn + np.linspace(0, 2 * math.pi, len(corners), endpoint=False)
    points = np.array([15 + r * np.array([np.cos(a), np.sin(a)]) for (_, r), a in zip(corners, angles, strict=True)])
    cover = drawing.polygon((32, 34), points[::-1] if backwards else points).astype(float)
    assert cover.sum() == pytest.approx(shoelace(points), abs=1e-3)


def test_polygon_beyond_the_image_matches_fine_sampling():
    points = np.array([(-30.0, 5.2), (12.3, -20.0), (50.0, 14.7), (9.0, 60.0)])
    y, x = (np.mgrid[0:480, 0:400] + 0.5) / 20 - 0.5
    inside = PolygonPath(points).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(24, 20, 20, 20)
    np.testing.assert_allclose(drawing.polygon((24, 20), points), inside.mean(axis=(1, 3)), atol=0.02)


def test_polygon_wholly_outside_is_empty():
    assert not drawing.polygon((20, 20), [(30, 30), (40, 30), (35, 50)]).any()
    assert not drawing.polygon((20, 20), [(-9, -9), (-2, -9), (-5, -3)]).any()


def test_window_holds_points_and_margin():
    assert drawing.window((50, 40), [(10.2, 20.0), (12.0, 22.7)], 2) == (slice(18, 26), slice(8, 15))
    rows, columns = drawing.window((50, 40), [(60.0, 5.0)], 1)
    assert (rows, columns.start, columns.stop) == (slice(4, 7), 40, 40)


def test_ramp_is_half_on_the_edge():
    assert drawing.ramp(np.array([-2.0, -0.5, 0.0, 0.25, 0.5, 9.0])).tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_outline_passes_through_its_points():
    points = np.array([(0.0, 0.0), (10.0, 1.0), (8.0, 9.0), (-2.0, 7.0)])
    curve = drawing.smooth_outline(points, per_segment=6)
    assert curve.shape == (24, 2)
    np.testing.assert_allclose(curve[::6], points, atol=1e-12)


def test_chord_of_a_circle():
    # At 0.6 of the radius half the chord is 0.8 of the radius.
    np.testing.assert_allclose(
        drawing.ellipse_chord(np.array([-6.0, 0.0, 8.0, 10.0, 11.0]), 10.0), [0.8, 1, 0.6, 0, 0], atol=1e-6
    )


def test_ellipsoid_has_the_volume_of_an_ellipsoid():
    # The relative path integrates to 2/3 pi a b.
    image = drawing.ellipsoid_thickness((90, 100), (48.3, 44.6), (30.0, 18.0), 25.0)
    assert image.sum() == pytest.approx(2 / 3 * math.pi * 30 * 18, rel=2e-3)
    x = np.arange(100)
    assert (image * x).sum() / image.sum() == pytest.approx(48.3, abs=0.02)


@pytest.mark.parametrize("sigma", [0.8, 3.0, 20.0])
def test_blur_keeps_the_mean_and_widens_by_sigma(sigma):
    image = np.zeros((201, 201), np.float32)
    image[100, 100] = 1000.0
    out = drawing.blur(image, sigma).astype(float)
    x = np.arange(201)
    assert out.sum() == pytest.approx(1000, rel=0.01)
    variance = (out.sum(axis=0) * (x - 100) ** 2).sum() / out.sum()
    assert math.sqrt(variance) == pytest.approx(sigma, rel=0.06)


def test_no_blur_changes_nothing():
    image = np.random.default_rng(0).random((9, 9), dtype=np.float32)
    assert np.array_equal(drawing.blur(image, 0.0), image)


def test_quantum_noise_has_poisson_moments():
    counts = 400.0 * drawing.quantum_noise(np.random.default_rng(1), np.full((400, 400), 0.5), 400.0).astype(float)
    assert counts.mean() == pytest.approx(200, abs=0.2)
    assert counts.var() == pytest.approx(200, rel=0.02)


def test_correlated_noise_is_smooth_and_of_about_unit_deviation():
    noise = drawing.correlated_noise(np.random.default_rng(2), (512, 512), 16.0)
    assert noise.std() == pytest.approx(1.0, abs=0.12)
    near = np.corrcoef(noise[:, :-2].ravel(), noise[:, 2:].ravel())[0, 1]
    far = np.corrcoef(noise[:, :-64].ravel(), noise[:, 64:].ravel())[0, 1]
    assert near > 0.9
    assert abs(far) < 0.1


def test_scatter_keeps_the_energy_and_lowers_contrast():
    image = np.ones((128, 128), np.float32)
    image[:, 64:] = 3.0
    out = drawing.add_scatter(image, 0.4, 12.0)
    assert out.mean() == pytest.approx(2.0, rel=0.01)
    assert out[64, 69] / out[64, 58] < 2.4
    assert out[64, 124] / out[64, 3] == pytest.approx(3.0, rel=1e-3)


def test_collimation_dims_outside_only():
    out = drawing.collimate(np.full((10, 10), 8.0, np.float32), [(1.5, -1), (6.5, -1), (6.5, 11), (1.5, 11)], 0.25)
    np.testing.assert_allclose(out[4], [2, 2, 8, 8, 8, 8, 8, 2, 2, 2], atol=1e-5)


def test_grid_lines_repeat_with_their_period():
    out = drawing.grid_lines(np.ones((8, 240), np.float32), 6.0, 0.0, 0.1)
    power = np.abs(np.fft.rfft(out[3].astype(float) - out[3].mean()))
    assert power.argmax() == 40
    assert out.max() == pytest.approx(1.1, abs=0.015)


def test_marker_leaves_the_rest_alone():
    out = drawing.write_marker(np.zeros((60, 60), np.float32), "L", (10, 30), 15.0, 2.0)
    assert out.max() == 2.0
    assert out[12:32, 8:26].any()
    assert not out[34:].any()
    assert not out[:, 30:].any()


def test_display_maps_the_window():
    image = np.array([[-1.0, 0.0, 1.0, 4.0, 9.0]])
    assert drawing.to_display(image, 0.0, 4.0).tolist() == [[0, 0, 64, 255, 255]]
    assert drawing.to_display(image, 0.0, 4.0, gamma=0.5).tolist() == [[0, 0, 128, 255, 255]]
