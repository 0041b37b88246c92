"""Augmentation: what is drawn can be replayed, image and points move together, and intensities stay in 0..1."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from blob_images import BRIGHTNESS, centroid, render
from bregma import geometry
from bregma.data.augment import (
    NO_CHANGE,
    AugmentConfig,
    Geometric,
    apply_geometric,
    apply_photometric,
    apply_to_points,
    displacement,
    sample_geometric,
    sample_photometric,
)

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
STILL = AugmentConfig(
    rotation_deg=0, scale=0, anisotropy=0, shift=0, gamma=0, contrast=0, brightness=0, noise=0
)  # fmt: skip
EVERYTHING = AugmentConfig(
    rotation_deg=180, scale=0.3, anisotropy=0.2, shift=0.2, flip=0.5, gamma=1.0, contrast=0.5, brightness=0.3,
    histogram=0.5, noise=0.1, blur_px=3.0, cutout=0.5,
)  # fmt: skip
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(32, 160)


def moved(points, change, shape, base=None):
    return apply_to_points(np.asarray(points, float), geometry.identity() if base is None else base, change, shape)


@PROPERTY
@given(seeds, sides, sides)
def test_affine_changes_can_be_undone(seed, rows, columns):
    shape = (rows, columns)
    change = sample_geometric(EVERYTHING, shape, np.random.default_rng(seed))
    base = geometry.letterbox((300, 200), shape)
    points = np.random.default_rng(seed).uniform((0, 0), (199, 299), (10, 2))
    back = geometry.invert(geometry.compose(base, change.matrix))
    np.testing.assert_allclose(geometry.apply(back, moved(points, change, shape, base)), points, atol=1e-3)


@PROPERTY
@given(seeds)
def test_draws_depend_on_the_generator_alone(seed):
    config = EVERYTHING.model_copy(update={"elastic": 0.05, "histogram": 1.0})
    one, two = (sample_geometric(config, (64, 96), np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    np.testing.assert_array_equal(one.control, two.control)
    assert one.flip == two.flip
    tones = [sample_photometric(config, np.random.default_rng(seed)) for _ in range(2)]
    image = np.random.default_rng(1).random((32, 48), dtype=np.float32)
    np.testing.assert_array_equal(*(apply_photometric(image, tone) for tone in tones))


def test_changes_stay_in_their_ranges_and_reach_them():
    config = AugmentConfig(rotation_deg=30, scale=0.25, anisotropy=0.1, shift=0.1)
    rng, shape, centre = np.random.default_rng(0), (100, 200), np.array([99.5, 49.5])
    draws = [sample_geometric(config, shape, rng).matrix for _ in range(2000)]
    angles, zooms, stretches, shifts = [], [], [], []
    for m in draws:
        shifts.append(geometry.apply(m, [centre])[0] - centre)
        s = np.linalg.svd(m[:2, :2], compute_uv=False)
        angles.append(np.degrees(np.arctan2(m[1, 0], m[0, 0])))
        zooms.append(np.sqrt(s.prod()))
        stretches.append(np.linalg.norm(m[:2, 0]) / np.linalg.norm(m[:2, 1]))
    assert 29 < np.abs(angles).max() <= 30 + 1e-9
    assert 1.24 < max(zooms) <= 1.25 + 1e-9
    assert 0.8 - 1e-9 <= min(zooms) < 0.81
    assert np.median(zooms) == pytest.approx(1.0, abs=0.02)  # Log-uniform: as often larger as smaller.
    assert 1.09 < max(stretches) <= 1.1 + 1e-9
    np.testing.assert_allclose(np.abs(shifts).max(0), [20, 10], rtol=0.01)
    assert np.linalg.det(draws[0][:2, :2]) > 0


def test_flips_come_as_often_as_asked():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        flips = [sample_geometric(replace_flip(share), (64, 64), rng).flip for _ in range(1000)]
        assert np.mean(flips) == pytest.approx(share, abs=0.04)


def replace_flip(share):
    return STILL.model_copy(update={"flip": share})


def test_a_flip_mirrors_columns_exactly():
    change = sample_geometric(replace_flip(1.0), (20, 30), np.random.default_rng(0))
    image = np.random.default_rng(1).random((20, 30), dtype=np.float32)
    np.testing.assert_allclose(apply_geometric(image, geometry.identity(), change, (20, 30)), image[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(moved([(0, 3), (29, 5)], change, (20, 30)), [(29, 3), (0, 5)])


def test_no_change_changes_nothing():
    image = np.random.default_rng(1).random((20, 30), dtype=np.float32)
    np.testing.assert_allclose(apply_geometric(image, geometry.identity(), NO_CHANGE, (20, 30)), image, atol=1e-6)
    still = sample_geometric(STILL, (20, 30), np.random.default_rng(0))
    np.testing.assert_allclose(still.matrix, np.eye(3), atol=1e-12)
    tone = sample_photometric(STILL, np.random.default_rng(0))
    np.testing.assert_allclose(apply_photometric(image, tone), image, atol=1e-6)


POINTS = np.array([(60.0, 50.0), (140.0, 60.0), (70.0, 110.0), (130.0, 120.0)])
SOURCE_SHAPE, INPUT_SHAPE = (170, 200), (128, 160)
SOURCE = render(POINTS, SOURCE_SHAPE, 2.0)  # Small, because a bent blob's centroid leaves its middle by its variance.


def blob_errors(config, seeds, base=None):
    """Distances in input px between mapped points and the blobs' centroids, for blobs well inside the input."""
    base = geometry.letterbox(SOURCE_SHAPE, INPUT_SHAPE) if base is None else base
    limit = np.array(INPUT_SHAPE[::-1]) - 1
    errors = []
    for seed in seeds:
        change = sample_geometric(config, INPUT_SHAPE, np.random.default_rng(seed))
        image = apply_geometric(SOURCE, base, change, INPUT_SHAPE)
        for point in apply_to_points(POINTS, base, change, INPUT_SHAPE):
            if (point > 11).all() and (point < limit - 11).all():
                errors.append(np.linalg.norm(centroid(image, point) - point))
    assert len(errors) > 2 * len(seeds)
    return np.array(errors)


def test_blobs_lie_where_the_points_are_after_affine_changes():
    config = AugmentConfig(rotation_deg=180, scale=0.2, anisotropy=0.1, shift=0.1, flip=0.5)
    assert blob_errors(config, range(15)).max() <= 0.05


@pytest.mark.parametrize("elastic", [0.02, 0.05])
def test_blobs_lie_where_the_points_are_after_elastic_changes(elastic):
    config = STILL.model_copy(update={"elastic": elastic})
    assert blob_errors(config, range(12)).max() <= 0.1


def test_blobs_lie_where_the_points_are_after_all_changes_of_geometry():
    config = AugmentConfig(rotation_deg=30, scale=0.2, anisotropy=0.1, shift=0.05, flip=0.5, elastic=0.03)
    assert blob_errors(config, range(12)).max() <= 0.15


def test_an_elastic_change_does_move_points():
    config = STILL.model_copy(update={"elastic": 0.04})
    change = sample_geometric(config, INPUT_SHAPE, np.random.default_rng(0))
    away = np.linalg.norm(moved(POINTS * 0.6, change, INPUT_SHAPE) - POINTS * 0.6, axis=1)
    assert away.max() > 1.0


@PROPERTY
@given(seeds, st.sampled_from([0.01, 0.05, 0.1]), st.sampled_from([2, 4, 16]), sides, sides)
def test_elastic_changes_never_fold_and_their_points_are_solved(seed, elastic, cells, rows, columns):
    shape = (rows, columns)
    config = STILL.model_copy(update={"elastic": elastic, "elastic_cells": cells})
    change = sample_geometric(config, shape, np.random.default_rng(seed))
    field = displacement(change.control, shape).astype(np.float64)
    along_x, along_y = np.diff(field, axis=1)[:-1], np.diff(field, axis=0)[:, :-1]
    area = (1 + along_x[..., 0]) * (1 + along_y[..., 1]) - along_x[..., 1] * along_y[..., 0]
    assert area.min() > 0.05
    # A pixel u shows the place u + d(u): the point there must come to lie on that pixel.
    at = np.random.default_rng(seed).integers((2, 2), (columns - 2, rows - 2), (20, 2))
    shown = at + field[at[:, 1], at[:, 0]]
    np.testing.assert_allclose(moved(shown, change, shape), at, atol=0.01)


@PROPERTY
@given(seeds, st.sampled_from([(50, 5), (400, 5), (30, 1), (2000, 40)]), sides, sides)
def test_smoothed_noise_never_folds_and_its_points_are_solved(seed, published, rows, columns):
    shape, (alpha, sigma) = (rows, columns), published
    config = STILL.model_copy(update={"elastic_alpha": alpha, "elastic_sigma": sigma})
    change = sample_geometric(config, shape, np.random.default_rng(seed))
    field = displacement(change.control, shape).astype(np.float64)
    along_x, along_y = np.diff(field, axis=1)[:-1], np.diff(field, axis=0)[:, :-1]
    area = (1 + along_x[..., 0]) * (1 + along_y[..., 1]) - along_x[..., 1] * along_y[..., 0]
    assert area.min() > 0
    # Neighbours anywhere in a pixel's square come no nearer than a twentieth of their distance, so no two places meet.
    along_x, along_y = np.diff(field, axis=1), np.diff(field, axis=0)
    for x in (along_x[:-1], along_x[1:]):
        for y in (along_y[:, :-1], along_y[:, 1:]):
            steepest = np.linalg.norm(np.stack([x, y], axis=-1), ord=2, axis=(-2, -1)).max()
            assert steepest <= 0.95 + 1e-5
    at = np.random.default_rng(seed).integers((2, 2), (columns - 2, rows - 2), (20, 2))
    shown = at + field[at[:, 1], at[:, 0]]
    np.testing.assert_allclose(moved(shown, change, shape), at, atol=0.01)


def test_smoothed_noise_is_as_strong_and_as_smooth_as_published():
    """Against noise drawn for every pixel and smoothed, as the paper says; nothing here is near folding."""
    alpha, sigma, shape = 20, 5, (256, 320)
    config = STILL.model_copy(update={"elastic_alpha": alpha, "elastic_sigma": sigma})
    fields = [displacement(sample_geometric(config, shape, np.random.default_rng(i)).control, shape) for i in range(6)]
    full = np.random.default_rng(0).uniform(-1, 1, (6, 2, *shape))
    published = alpha * gaussian_filter(full, (0, 0, sigma, sigma), mode="wrap")
    got = np.moveaxis(fields, -1, 1)
    assert got.std() == pytest.approx(alpha / np.sqrt(3) / (2 * sigma * np.sqrt(np.pi)), rel=0.04)
    assert got.std() == pytest.approx(published.std(), rel=0.05)
    for axis in (2, 3):
        assert np.diff(got, axis=axis).std() == pytest.approx(np.diff(published, axis=axis).std(), rel=0.05)
        # Neighbours at a distance of sigma and 2 sigma: exp(-1/4) and exp(-1).
        for distance, expected in ((sigma, np.exp(-0.25)), (2 * sigma, np.exp(-1))):
            a, b = np.moveaxis(got, axis, 0)[distance:], np.moveaxis(got, axis, 0)[:-distance]
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(expected, abs=0.06)
    border = np.concatenate([got[..., :8, :].ravel(), got[..., :8].ravel()])
    assert border.std() == pytest.approx(got.std(), rel=0.15)


def test_the_published_fetal_setting_moves_points_as_far_as_it_says():
    config = STILL.model_copy(update={"elastic_alpha": 50, "elastic_sigma": 5})
    points = np.random.default_rng(0).uniform(20, 230, (40, 2))
    away = [
        moved(points, sample_geometric(config, (256, 256), np.random.default_rng(i)), (256, 256)) - points
        for i in range(10)
    ]
    # 1.63 px along each axis, weakened by about a sixth so as not to fold.
    assert 0.75 * 1.63 < np.std(away) < 1.63


def test_blobs_lie_where_the_points_are_after_smoothed_noise():
    config = STILL.model_copy(update={"elastic_alpha": 300, "elastic_sigma": 20})
    assert blob_errors(config, range(12)).max() <= 0.1


def test_two_kinds_of_elastic_change_at_once_are_refused():
    with pytest.raises(ValidationError, match="two ways to say one thing"):
        AugmentConfig(elastic=0.02, elastic_alpha=50)


def test_the_image_is_resampled_once():
    """Base and change in one step equal one warp through their product, not two."""
    base, change = geometry.letterbox(SOURCE_SHAPE, INPUT_SHAPE), Geometric(geometry.rotate(20), False, None)
    once = apply_geometric(SOURCE, base, change, INPUT_SHAPE)
    np.testing.assert_array_equal(once, geometry.warp(SOURCE, geometry.compose(base, change.matrix), INPUT_SHAPE))


def test_a_field_of_nothing_is_the_affine_change():
    change = Geometric(geometry.rotate(20, about=(80, 60)), False, np.zeros((4, 4, 2), np.float32))
    base = geometry.letterbox(SOURCE_SHAPE, INPUT_SHAPE)
    plain = apply_geometric(SOURCE, base, replace(change, control=None), INPUT_SHAPE)
    # The two OpenCV paths round coordinates to 1/32 px apart; the steepest slope here is a fifth a pixel.
    np.testing.assert_allclose(apply_geometric(SOURCE, base, change, INPUT_SHAPE), plain, atol=0.02)


@PROPERTY
@given(seeds)
def test_intensities_stay_within_0_and_1(seed):
    rng = np.random.default_rng(seed)
    image = rng.random((40, 30), dtype=np.float32)
    out = apply_photometric(image, sample_photometric(EVERYTHING, rng))
    assert out.shape == image.shape
    assert out.dtype == np.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert np.isfinite(out).all()


def test_intensities_of_the_given_image_are_left_alone():
    image = np.random.default_rng(0).random((40, 30), dtype=np.float32)
    before = image.copy()
    for seed in range(10):
        apply_photometric(image, sample_photometric(EVERYTHING, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, before)


def photometric(**settings):
    tone = sample_photometric(STILL, np.random.default_rng(0))
    return replace(tone, **settings)


def test_tone_changes_by_hand():
    image = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    np.testing.assert_allclose(apply_photometric(image, photometric(gamma=2.0)), [[0, 0.0625], [0.25, 1]], atol=1e-6)
    # Mean 0.4375: half the contrast about it.
    halved = apply_photometric(image, photometric(contrast=0.5))
    np.testing.assert_allclose(halved, [[0.21875, 0.34375], [0.46875, 0.71875]], atol=1e-6)
    np.testing.assert_allclose(
        apply_photometric(image, photometric(brightness=0.1)), [[0.1, 0.35], [0.6, 1]], atol=1e-6
    )
    curve = np.array([0.0, 0.2, 1.0], np.float32)
    np.testing.assert_allclose(apply_photometric(image, photometric(curve=curve)), [[0, 0.1], [0.2, 1]], atol=1e-6)


def test_random_tone_curves_rise_from_0_to_1():
    config = STILL.model_copy(update={"histogram": 1.0})
    for seed in range(20):
        curve = sample_photometric(config, np.random.default_rng(seed)).curve
        assert (np.diff(curve) >= 0).all()
        assert (curve[0], curve[-1]) == (0.0, pytest.approx(1.0, abs=1e-6))


def test_cutout_covers_the_rectangle_that_was_drawn():
    image = np.zeros((100, 50), np.float32)
    out = apply_photometric(image, photometric(box=(0.2, 0.5, 0.2, 0.3, 0.7)))
    covered = np.argwhere(out > 0.5)
    assert (covered.min(0).tolist(), covered.max(0).tolist()) == ([50, 10], [79, 19])
    assert len(covered) == 300
    assert set(np.unique(out).tolist()) == {0.0, np.float32(0.7).item()}


def test_noise_has_the_deviation_asked_for_and_is_replayed():
    image = np.full((200, 200), 0.5, np.float32)
    tone = photometric(noise=0.05, seed=3)
    out = apply_photometric(image, tone)
    assert out.std() == pytest.approx(0.05, rel=0.02)
    np.testing.assert_array_equal(out, apply_photometric(image, tone))
    assert not np.array_equal(out, apply_photometric(image, replace(tone, seed=4)))


def test_blur_widens_a_blob_by_its_own_variance():
    image = render([(30.0, 30.0)], (61, 61), 3.0, BRIGHTNESS[:1])
    out = apply_photometric(image, photometric(blur_px=4.0))
    x = np.arange(61) - 30.0
    assert (out.sum(0) * x**2).sum() / out.sum() == pytest.approx(9 + 16, rel=0.02)


@pytest.mark.parametrize("settings", [{"rotation_deg": -1}, {"flip": 1.5}, {"scale": 1.0}, {"rotate": 10}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        AugmentConfig(**settings)
