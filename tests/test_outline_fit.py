"""Points put where their outline was seen: exact maps, gaps, blobs, stretched pixels, outlines not to be trusted."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from bregma import geometry
from bregma.ellipse import Ellipse
from bregma.geometry import Frame
from bregma.outlines import place_on_outline, seen_of
from bregma.types import Prediction

SHAPE = (128, 192)
SIGMA = 2.0
ENDS = (0, 1, 2, 3)
SKULL = Ellipse([95.3, 62.1], [57.0, 19.0], [-14.0, 42.0])
"""Semi-axes √3610 = 60.08 and √1960 = 44.27, at right angles."""


def ridge(ellipse, shape=SHAPE, sigma=SIGMA, stride=1):
    """A Gaussian of the distance to the nearest of many points of the outline: not the codec's way to draw one."""
    rows, columns = np.mgrid[: shape[0] // stride, : shape[1] // stride]
    cells = np.stack([columns.ravel(), rows.ravel()], axis=1)
    outline = ellipse.points(np.linspace(0, 2 * np.pi, 20_000, endpoint=False))
    away = cKDTree(outline).query((cells + 0.5) * stride - 0.5)[0]
    p = np.exp(-0.5 * (away / sigma) ** 2).reshape(rows.shape)
    return p / p.sum()


def prediction(points, sd=2.0, shape=SHAPE, spacing=None):
    frame = Frame(shape) if spacing is None else Frame(shape, spacing, "user")
    return Prediction("a", np.array(points), np.stack([np.eye(2) * sd**2] * 4), np.ones(4), frame)


def placed(given, p, matrix=None, stride=1):
    matrix = geometry.identity() if matrix is None else matrix
    return place_on_outline(given, seen_of(ENDS, p, matrix, stride, SIGMA / stride))


def off(sd, seed=0):
    return SKULL.ends + np.random.default_rng(seed).normal(0, sd, (4, 2))


def errors(found, truth=SKULL):
    return np.linalg.norm(found.mean - truth.ends, axis=1)


@pytest.mark.parametrize("stride", [1, 2])
def test_points_come_to_a_twentieth_of_a_pixel_where_all_is_seen(stride):
    found = placed(prediction(off(2.0), sd=20.0), ridge(SKULL, stride=stride), stride=stride)
    assert errors(found).max() < 0.05
    assert found.flags is None


def test_four_sure_points_and_a_perfect_outline_agree():
    assert errors(placed(prediction(SKULL.ends, sd=0.5), ridge(SKULL))).max() < 0.05


def test_a_point_far_from_the_others_comes_back():
    points = SKULL.ends
    points[1] += [25.0, 6.0]
    points[3] += [3.0, -14.0]
    assert errors(placed(prediction(points), ridge(SKULL))).max() < 0.6


@pytest.mark.parametrize("start", [0.0, 2.0, 4.5])
def test_gap_of_two_fifths_of_the_ring(start):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = np.arctan2(rows - SKULL.centre[1], columns - SKULL.centre[0])
    p = ridge(SKULL) * (np.mod(angle - start, 2 * np.pi) > 0.4 * 2 * np.pi)
    found = placed(prediction(off(1.0), sd=20.0), p / p.sum())
    # The gap is cut askew to the outline, so that a profile at its edge is off.
    assert errors(found).max() < 0.75
    assert found.flags is None


def test_gap_makes_the_ends_within_it_less_sure():
    whole = placed(prediction(off(1.0), sd=20.0), ridge(SKULL))
    p = ridge(SKULL) * (np.arange(SHAPE[1]) < SKULL.centre[0] + 30)
    cut = placed(prediction(off(1.0), sd=20.0), p / p.sum())
    sizes = np.trace(cut.cov, axis1=1, axis2=2) / np.trace(whole.cov, axis1=1, axis2=2)
    assert sizes.argmax() == 0  # The end of the first axis on the right.


@pytest.mark.parametrize("at", [(95.0, 62.0), (110.0, 20.0), (150.0, 95.0)])
def test_blob_beside_the_outline_with_a_fifth_of_the_mass(at):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    blob = np.exp(-0.5 * ((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / 4.0**2)
    p = 0.8 * ridge(SKULL) + 0.2 * blob / blob.sum()
    assert errors(placed(prediction(off(1.0), sd=20.0), p)).max() < 0.5


def test_points_that_show_no_ellipse_start_from_the_map():
    """The ends of one axis on one spot, as when one of two blobs is missing."""
    points = SKULL.ends
    points[1] = points[0]
    assert errors(placed(prediction(points, sd=30.0), ridge(SKULL))).max() < 0.3


def test_axes_are_at_right_angles_in_millimetres_and_not_in_pixels():
    """Pixels of 1 x 0.5 mm: the ellipse with axes in mm is drawn by its conjugate diameters in pixels."""
    in_mm = Ellipse([90.0, 31.0], [57.0, 9.5], [-4.0, 24.0])
    to_px = geometry.scale(1.0, 2.0)
    in_px = in_mm.under(to_px)
    given = prediction(in_px.ends + np.random.default_rng(1).normal(0, 1.0, (4, 2)), sd=20.0, spacing=(1.0, 0.5))
    found = placed(given, ridge(in_px))
    np.testing.assert_allclose(found.mean, in_px.ends, atol=0.05)
    first, second = ((found.mean[i] - found.mean[i + 1]) * (1.0, 0.5) for i in (0, 2))
    assert abs(first @ second) < 1e-9


def test_seen_through_a_turned_zoomed_and_stretched_input():
    matrix = geometry.compose(geometry.scale(0.8, 0.6), geometry.rotate(20, about=(60, 40)), geometry.translate(20, 15))
    found = placed(prediction(off(1.0), sd=20.0), ridge(SKULL.under(matrix)), matrix)
    assert errors(found).max() < 0.05


def test_outline_that_leaves_the_image():
    beyond = Ellipse([140.0, 62.1], [57.0, 19.0], [-14.0, 42.0])
    given = prediction(beyond.ends + np.random.default_rng(2).normal(0, 1.0, (4, 2)), sd=5.0)
    assert errors(placed(given, ridge(beyond)), beyond).max() < 0.5


def test_order_and_handedness_of_the_points_stay():
    mirrored = prediction(SKULL.ends[[1, 0, 2, 3]], sd=5.0)
    np.testing.assert_allclose(placed(mirrored, ridge(SKULL)).mean, SKULL.ends[[1, 0, 2, 3]], atol=0.05)


def test_first_axis_may_be_the_shorter():
    swapped = prediction(SKULL.ends[[2, 3, 0, 1]], sd=5.0)
    np.testing.assert_allclose(placed(swapped, ridge(SKULL)).mean, SKULL.ends[[2, 3, 0, 1]], atol=0.05)


@pytest.mark.parametrize("p", [np.zeros(SHAPE), np.full(SHAPE, 1 / (128 * 192))])
def test_points_stay_and_say_so_where_nothing_is_seen(p):
    given = prediction(off(2.0))
    found = placed(given, p)
    np.testing.assert_array_equal(found.mean, given.mean)
    np.testing.assert_array_equal(found.cov, given.cov)
    assert found.flags is not None
    assert all("outline" in flag for flag in found.flags)


def test_points_stay_where_the_outline_is_elsewhere():
    small = Ellipse([30.0, 30.0], [20.0, 0.0], [0.0, 15.0])
    given = prediction(off(1.0))
    found = placed(given, ridge(small))
    np.testing.assert_array_equal(found.mean, given.mean)
    assert found.flags == ("most points are far from the outline that was seen",) * 4


def test_reason_that_was_there_before_stays():
    given = replace(prediction(off(2.0)), flags=("far away", "", "", ""))
    flags = placed(given, np.zeros(SHAPE)).flags
    assert flags is not None
    assert flags[0] == "far away"
    assert "outline" in flags[1]


def test_wider_map_is_less_sure():
    narrow, wide = (placed(prediction(SKULL.ends, sd=20.0), ridge(SKULL, sigma=s)) for s in (2.0, 5.0))
    assert (np.trace(wide.cov, axis1=1, axis2=2) > 4 * np.trace(narrow.cov, axis1=1, axis2=2)).all()
    assert errors(wide).max() < 0.2
