"""Ellipses: outline, distance, affine images and fits, against hand-worked values and ``scipy``."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from bregma import geometry
from bregma.ellipse import Ellipse, fit_conic, fit_ellipse, through_diameters, tukey, unit_normals
from bregma.errors import InputError

TILTED = Ellipse([30.0, 20.0], [16.0, 12.0], [-7.2, 9.6])
"""Semi-axes 20 and 12, the longer one along (4, 3) / 5."""
ANGLES = np.linspace(0, 2 * np.pi, 90, endpoint=False)


def _same(a: Ellipse, b: Ellipse, atol: float) -> None:
    np.testing.assert_allclose(a.centre, b.centre, atol=atol)
    np.testing.assert_allclose(a.matrix @ a.matrix.T, b.matrix @ b.matrix.T, atol=40 * atol)


def test_diameters_and_their_ends() -> None:
    ellipse = through_diameters([[5, 2], [1, 2]], [[3, 3], [3, 1]])
    np.testing.assert_array_equal(ellipse.centre, [3, 2])
    np.testing.assert_array_equal(ellipse.ends, [[5, 2], [1, 2], [3, 3], [3, 1]])
    assert ellipse.semi_axes == (2.0, 1.0)


def test_outline_has_the_sum_of_focal_distances_of_its_longer_axis() -> None:
    """The gardener's ellipse: both foci lie √(a² - b²) from the centre along the longer axis."""
    focus = np.sqrt(20**2 - 12**2) * np.array([0.8, 0.6])
    points = TILTED.points(ANGLES) - TILTED.centre
    total = np.linalg.norm(points - focus, axis=1) + np.linalg.norm(points + focus, axis=1)
    np.testing.assert_allclose(total, 40.0)


def test_normals_of_a_circle_are_its_radii() -> None:
    circle = Ellipse([0, 0], [3, 0], [0, 3])
    np.testing.assert_allclose(unit_normals(circle.tangents(ANGLES)), circle.points(ANGLES) / 3, atol=1e-12)


def test_distance_of_a_circle_and_along_the_axes_is_exact() -> None:
    circle = Ellipse([1, 1], [0, 4], [4, 0])
    np.testing.assert_allclose(circle.distance([[1, 8], [4, 5], [1, 1]]), [3, 1, -4])
    np.testing.assert_allclose(TILTED.distance([[30 + 24, 20 + 18], [30 - 3.6, 20 + 4.8]]), [10, -6])


def test_distance_near_the_outline_agrees_with_the_nearest_point_found_by_search() -> None:
    for angle in ANGLES[::7]:
        point = TILTED.points([angle])[0] + 0.5 * unit_normals(TILTED.tangents([angle]))[0]

        def gap(t: float, point: np.ndarray = point) -> float:
            return float(np.linalg.norm(TILTED.points([t])[0] - point))

        nearest = minimize_scalar(gap, bounds=(angle - 0.5, angle + 0.5), method="bounded", options={"xatol": 1e-9})
        assert TILTED.distance([point])[0] == pytest.approx(nearest.fun, abs=0.01)


def test_sheared_diameters_are_conjugate_and_the_axes_are_found_again() -> None:
    """The unit circle under x' = x + y has semi-axes (√5 ± 1) / 2, the golden ratio and its inverse."""
    shear = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    image = Ellipse([0, 0], [1, 0], [0, 1]).under(shear)
    assert image.semi_axes == pytest.approx(((np.sqrt(5) + 1) / 2, (np.sqrt(5) - 1) / 2))
    axes = image.on_axes()
    assert axes.u @ axes.v == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(image.distance(axes.points(ANGLES)), 0, atol=1e-12)


def test_image_of_the_outline_is_the_outline_of_the_image() -> None:
    matrix = geometry.compose(geometry.scale(1.3, 0.7), geometry.rotate(25, about=(3, 4)), geometry.translate(5, -2))
    moved = geometry.apply(matrix, TILTED.points(ANGLES))
    np.testing.assert_allclose(TILTED.under(matrix).points(ANGLES), moved)


@pytest.mark.parametrize("fit", [fit_conic, fit_ellipse])
def test_fits_find_the_ellipse_of_exact_points(fit: object) -> None:
    assert callable(fit)
    _same(fit(TILTED.points(ANGLES)), TILTED, 1e-7)
    _same(fit(TILTED.points(np.arange(5.0))), TILTED, 1e-6)


def test_weights_count_points_as_often() -> None:
    rng = np.random.default_rng(1)
    points = TILTED.points(ANGLES) + rng.normal(0, 0.5, (90, 2))
    often = rng.integers(0, 4, 90)
    _same(fit_conic(points, often), fit_conic(np.repeat(points, often, axis=0)), 1e-8)


def test_gap_of_two_fifths_does_not_matter() -> None:
    _same(fit_ellipse(TILTED.points(ANGLES[: int(0.6 * 90)])), TILTED, 1e-6)


def test_robust_fit_leaves_a_blob_of_other_points_out_where_the_direct_one_does_not() -> None:
    rng = np.random.default_rng(2)
    blob = rng.normal((33.0, 22.0), 1, (20, 2))
    points = np.concatenate([TILTED.points(ANGLES), blob])
    _same(fit_ellipse(points, start=TILTED), TILTED, 1e-6)
    _same(fit_ellipse(points), TILTED, 1e-6)
    assert abs(fit_conic(points).semi_axes[1] - 12) > 0.5


def test_errors_of_points_are_averaged() -> None:
    """With n points of error s, a semi-axis is known to about 2 s / √n in each of five freedoms."""
    rng = np.random.default_rng(3)
    fits = [fit_ellipse(TILTED.points(ANGLES) + rng.normal(0, 0.5, (90, 2))) for _ in range(20)]
    axes = np.array([fit.semi_axes for fit in fits])
    assert np.sqrt(np.mean((axes - [20, 12]) ** 2)) < 0.15


def test_biweights_of_known_errors() -> None:
    """At half the cut-off ``(1 - 1/4)²``."""
    np.testing.assert_allclose(tukey(np.array([0.0, 4.685 / 2, 4.685, -9.0])), [1, 0.5625, 0, 0])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 2)), "five points"),
        (np.ones((6, 2)), "all the same"),
        (np.stack([np.arange(6.0), 2 * np.arange(6.0)], 1), "on a line"),
        (np.full((6, 2), np.nan), "finite"),
        (np.zeros(6), "do not fit"),
    ],
)
def test_points_without_an_ellipse_are_refused(points: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_conic(points)


def test_lines_are_no_ellipses() -> None:
    with pytest.raises(InputError, match="a line"):
        through_diameters([[0, 0], [2, 0]], [[1, 0], [3, 0]])
    with pytest.raises(InputError, match="finite"):
        Ellipse([0, 0], [np.inf, 0], [0, 1])


def test_a_small_step_moves_points_as_their_derivatives_say() -> None:
    one = Ellipse(np.array([3.0, 5.0]), np.array([4.0, 3.0]), np.array([1.5, -2.0]))
    angles = np.linspace(0, 6, 9)
    for number in range(5):
        step = np.zeros(5)
        step[number] = 1e-6
        moved = (one.moved(step).points(angles) - one.points(angles)) / 1e-6
        np.testing.assert_allclose(moved, one.moves(angles)[:, :, number], atol=1e-5)
        nearer = (one.distance(one.points(angles)) - one.moved(step).distance(one.points(angles))) / 1e-6
        np.testing.assert_allclose(nearer, one.across(one.points(angles))[:, number], atol=1e-4)


def test_normals_point_outward_on_either_side() -> None:
    for v in ([1.5, -2.0], [-1.5, 2.0]):
        one = Ellipse(np.array([3.0, 5.0]), np.array([4.0, 3.0]), np.array(v))
        angles = np.linspace(0, 6, 9)
        assert (one.distance(one.points(angles) + 0.1 * one.normals(angles)) > 0).all()
        np.testing.assert_allclose(np.linalg.norm(one.normals(angles), axis=1), 1)
