"""Alignment by similarity against known transforms."""

from __future__ import annotations

import numpy as np
import pytest

from bregma.data.shapes import align, residuals, unusual_points

SHAPE = np.array([0 + 0j, 4 + 0j, 4 + 3j, 0 + 3j, 2 + 5j])


def test_a_similarity_is_undone_exactly() -> None:
    moved = SHAPE * 2.5 * np.exp(0.7j) + (10 - 3j)
    np.testing.assert_allclose(align(moved[None], SHAPE)[0], SHAPE, atol=1e-9)


def test_a_mirror_image_is_not_a_similarity() -> None:
    assert np.abs(align(SHAPE.conj()[None], SHAPE)[0] - SHAPE).max() > 0.5


def test_one_bad_point_does_not_pull_the_others() -> None:
    moved = SHAPE * 2.0 * np.exp(0.3j) + 5
    moved[1] += 40
    laid = align(moved[None], SHAPE)[0]
    np.testing.assert_allclose(laid[[0, 2, 3, 4]], SHAPE[[0, 2, 3, 4]], atol=0.05)
    # 40 in the moved shape is 20 in the reference.
    assert abs(laid[1] - SHAPE[1]) == pytest.approx(20.0, rel=0.02)


def test_residuals_are_shares_of_the_shape_s_size() -> None:
    shapes = np.repeat(SHAPE[None], 11, axis=0)
    shapes[0, 4] += 1.5
    size = np.sqrt((np.abs(SHAPE - SHAPE.mean()) ** 2).mean())
    left = residuals(shapes)
    assert left[0, 4] == pytest.approx(1.5 / size, rel=0.02)
    assert left[1:].max() < 1e-6


def test_missing_points_stay_missing() -> None:
    shapes = np.repeat(SHAPE[None], 12, axis=0)
    shapes[3, 2] = np.nan
    shapes[:, 4] = np.nan
    left = residuals(shapes)
    assert np.isnan(left[3, 2])
    assert np.isnan(left[:, 4]).all()
    assert np.nanmax(left) < 1e-9


def test_too_few_shapes_say_nothing() -> None:
    points = np.stack([SHAPE.real, SHAPE.imag], axis=1)
    shapes = np.repeat(points[None], 9, axis=0)
    shapes[0, 0] += 100
    assert list(unusual_points(shapes)) == []
