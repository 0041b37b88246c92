"""CLAHE and histogram matching: hand-worked values, what is promised of order and range, and images with nothing in."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blob_images import blob_case, blob_schema
from bregma.data.augment import AugmentConfig
from bregma.data.loader import SampleSource
from bregma.data.preprocess import PreprocessConfig, intensity_map, prepare, reference_curve
from bregma.data.steps import (
    ClaheConfig,
    HistogramMatchConfig,
    apply_step,
    foreground,
    foreground_curve,
    median_curve,
)
from bregma.errors import ConfigError, ImageError
from bregma.types import ArrayImage

LEVELS = np.linspace(0, 1, 256)
CURVE = tuple(0.4 + 0.5 * LEVELS**2)
MATCH = HistogramMatchConfig(reference=CURVE)
WHOLE = {"percentiles": (0, 100)}


def scene(seed=0, shape=(120, 100), *, foreground=(0.4, 0.8)):
    """Dark ground 0..0.1 with a bright square; continuous values, 0 and 1 included so that windows leave it alone."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 0.1, shape)
    image[30:90, 20:80] = rng.uniform(*foreground, (60, 60))
    image[0, 0], image[60, 50] = 0, 1
    return image.astype(np.float32)


def output(image, config):
    pixels, scaling = prepare(image, config)
    return scaling(pixels)


def test_the_foreground_is_what_otsu_parts_from_the_ground():
    image = scene()
    values = foreground(image)
    assert len(values) == 3600
    np.testing.assert_array_equal(np.sort(values), np.sort(image[30:90, 20:80].ravel()))


def test_matching_maps_the_foreground_onto_the_reference():
    out = apply_step(scene(), MATCH)
    got = np.quantile(out[30:90, 20:80], LEVELS)
    np.testing.assert_allclose(got, CURVE, atol=2e-3)


def test_two_images_of_one_scene_become_one_whatever_their_tone():
    image = scene()
    other = np.where(image > 0.2, 0.3 + 0.7 * image**2, image).astype(np.float32)
    np.testing.assert_allclose(apply_step(other, MATCH), apply_step(image, MATCH), atol=0.02)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.lists(st.floats(0, 1), min_size=2, max_size=300))
def test_matching_never_turns_the_order_of_grey_values(seed, curve):
    image = scene(seed)
    out = apply_step(image, HistogramMatchConfig(reference=tuple(sorted(curve))))
    order = np.argsort(image, axis=None)
    assert (np.diff(out.ravel()[order]) >= 0).all()
    assert 0 <= out.min() <= out.max() <= 1


def test_the_ground_keeps_its_order_and_stays_below_the_foreground():
    image = scene()
    out = apply_step(image, MATCH)
    ground = np.ones(image.shape, bool)
    ground[30:90, 20:80] = False
    first = image[30:90, 20:80].min()
    # Squeezed in proportion from below the foreground's first value to below the reference's.
    np.testing.assert_allclose(out[ground], image[ground] * CURVE[0] / first, atol=1e-6)


def test_matching_with_ties_by_hand():
    """Half of the foreground is 0.5 and half 1, so they take the means of the curve's lower and upper half."""
    image = np.zeros((20, 20), np.float32)
    image[5:15, 5:10], image[5:15, 10:15] = 0.5, 1.0
    out = apply_step(image, HistogramMatchConfig(reference=(0.2, 0.4, 0.6, 0.8)))
    assert out[7, 7] == pytest.approx(0.3)
    assert out[7, 12] == pytest.approx(0.7)
    assert out[0, 0] == 0


def test_clahe_of_an_even_tile_by_hand():
    """One tile whose 256 grey levels all occur alike: no clipping, and each becomes (g + 1) / 256 × 255."""
    image = np.arange(256, dtype=np.float32).reshape(16, 16) / 255
    out = apply_step(image, ClaheConfig(tiles=(1, 1), clip_limit=2.0))
    expected = np.rint((np.arange(256) + 1) * 255 / 256).reshape(16, 16) / 255
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_clahe_brings_out_a_faint_edge_and_its_limit_tames_it():
    image = np.full((64, 64), 0.5, np.float32) + np.random.default_rng(0).normal(0, 0.004, (64, 64)).astype(np.float32)
    image[:, 32:] += 0.03
    image[0, 0], image[-1, -1] = 0, 1

    def step_height(limit):
        out = apply_step(image, ClaheConfig(clip_limit=limit, tiles=(2, 2)))
        return float(out[20:44, 36:44].mean() - out[20:44, 20:28].mean())

    assert step_height(16.0) > 2 * step_height(2.0) > 2 * 0.03


def test_clahe_is_opencvs_with_rows_before_columns():
    image = np.random.default_rng(0).random((48, 96)).astype(np.float32)
    expected = cv2.createCLAHE(3.0, tileGridSize=(4, 2)).apply(np.rint(image * 255).astype(np.uint8))
    np.testing.assert_allclose(apply_step(image, ClaheConfig(clip_limit=3.0, tiles=(2, 4))), expected / 255, atol=1e-6)


ALL_STEPS = PreprocessConfig(size=(64, 64), steps=(ClaheConfig(), MATCH), normalise="robust")
SETTINGS = [
    PreprocessConfig(**WHOLE, steps=(MATCH,)),
    PreprocessConfig(**WHOLE, steps=(ClaheConfig(),)),
    ALL_STEPS,
    PreprocessConfig(steps=(MATCH, ClaheConfig()), normalise="zscore"),
]


@pytest.mark.parametrize("config", SETTINGS)
@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_image_becomes_one_finite_grey(config, value):
    out = output(np.full((40, 30), value, np.uint16), config)
    assert out.shape == (40, 30)
    assert np.isfinite(out).all()
    assert np.ptp(out) == 0


@pytest.mark.parametrize("config", SETTINGS)
@pytest.mark.parametrize("bright", [1, 5, 40])
def test_an_image_that_is_all_ground_but_for_a_few_pixels_stays_finite_and_in_range(config, bright):
    image = np.zeros((50, 40), np.uint8)
    image.ravel()[:bright] = 200
    out = output(image, config)
    assert np.isfinite(out).all()
    assert 0 <= out.min() <= out.max() <= 1
    assert out.ravel()[0] >= out.ravel()[-1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (3, 3), (17, 5)])
def test_images_smaller_than_the_tiles_are_fine(shape):
    out = output(np.random.default_rng(0).random(shape), ALL_STEPS)
    assert out.shape == shape
    assert np.isfinite(out).all()


@pytest.mark.parametrize("config", SETTINGS)
def test_8_and_16_bits_of_one_image_are_one_image(config):
    bits8 = np.rint(scene() * 255).astype(np.uint8)
    bits16 = bits8.astype(np.uint16) * 250 + 40
    np.testing.assert_allclose(output(bits16, config), output(bits8, config), atol=3e-3)


def test_matching_comes_after_the_percentiles():
    """A burnt-in mark far above the image does not move the foreground."""
    image = scene(foreground=(0.4, 0.6))
    marked = image.copy()
    marked[0, :20] = 50.0
    config = PreprocessConfig(steps=(MATCH,), percentiles=(0.5, 99.5))
    inside = (slice(30, 90), slice(20, 80))
    np.testing.assert_allclose(output(marked, config)[inside], output(image, config)[inside], atol=0.02)


def case_of(image, name):
    return replace(blob_case([(20, 30)] * 4, image.shape, name=name), image=ArrayImage(image))


def test_the_reference_is_the_median_of_the_foregrounds():
    images = [scene(i, foreground=(low, low + 0.3)) for i, low in enumerate((0.3, 0.4, 0.6))]
    curve = reference_curve([case_of(image, str(i)) for i, image in enumerate(images)], PreprocessConfig(**WHOLE))
    assert len(curve) == 256
    np.testing.assert_allclose(curve[10:-10], np.quantile(images[1][30:90, 20:80], LEVELS)[10:-10], atol=0.01)
    assert HistogramMatchConfig(reference=curve)


def test_the_reference_is_taken_after_the_steps_before_the_matching():
    case, clahe = case_of(scene(), "a"), ClaheConfig(clip_limit=8.0)
    before = reference_curve([case], PreprocessConfig(**WHOLE, steps=(HistogramMatchConfig(), clahe)))
    after = reference_curve([case], PreprocessConfig(**WHOLE, steps=(clahe, HistogramMatchConfig())))
    np.testing.assert_allclose(before, foreground_curve(scene()), atol=1e-5)
    np.testing.assert_allclose(after, foreground_curve(apply_step(scene(), clahe)), atol=1e-5)
    assert np.abs(np.subtract(before, after)).max() > 0.05


def test_an_image_without_a_foreground_has_no_say_in_the_reference():
    empty = case_of(np.full((30, 30), 5, np.uint8), "empty")
    with_empty = reference_curve([case_of(scene(), "a"), empty], PreprocessConfig(**WHOLE))
    assert with_empty == median_curve([foreground_curve(scene())])
    with pytest.raises(ImageError, match="none of the images has a foreground"):
        reference_curve([empty], PreprocessConfig())


def test_an_image_that_the_reference_cannot_use_is_named():
    image = scene()
    image[3, 3] = np.nan
    with pytest.raises(ImageError, match="not finite") as caught:
        reference_curve([case_of(image, "c7")], PreprocessConfig())
    assert caught.value.where == "c7"


def test_matching_without_a_reference_says_what_is_missing():
    with pytest.raises(ConfigError, match="no reference") as caught:
        prepare(scene(), PreprocessConfig(steps=(HistogramMatchConfig(),)))
    assert caught.value.where == "model.preprocess.steps"


def test_steps_are_applied_once_however_many_epochs():
    loads = []

    class Counted(ArrayImage):
        def load(self):
            loads.append(1)
            return self.array

    case = replace(case_of(scene(), "a"), image=Counted(scene()))
    source = SampleSource((case,), blob_schema(), ALL_STEPS, AugmentConfig())
    for epoch in range(3):
        source.sample(0, epoch)
    assert len(loads) == 1
    assert source._pixels(0).slices.dtype == np.uint16


def test_training_without_changes_sees_what_prediction_sees():
    case = case_of(scene(), "a")
    still = AugmentConfig(rotation_deg=0, scale=0, anisotropy=0, shift=0, gamma=0, contrast=0, brightness=0, noise=0)
    config = ALL_STEPS.model_copy(update={"fit": "stretch", "size": (120, 100)})
    train = SampleSource((case,), blob_schema(), config, still).sample(0).image[0]
    predict = SampleSource((replace(case, landmarks=None),), blob_schema(), config).sample(0).image[0]
    np.testing.assert_allclose(train, predict, atol=1e-6)
    np.testing.assert_allclose(predict, output(scene(), config), atol=1e-6)


@pytest.mark.parametrize("how", ["window", "robust", "zscore"])
def test_the_margin_is_as_black_as_the_darkest_of_the_image(how):
    config = PreprocessConfig(size=(60, 100), normalise=how, normalise_sd=2.0)
    image = np.random.default_rng(0).normal(900, 30, (60, 40)).astype(np.float32)
    sample = SampleSource((case_of(image, "a"),), blob_schema(), config).sample(0).image[0]
    assert np.ptp(sample[:, :29]) == 0
    assert sample[0, 0] == pytest.approx(sample.min(), abs=1e-6)
    assert 0 <= sample[0, 0] < 0.1


class TestNormalisation:
    IMAGE = np.r_[np.zeros(1), np.full(49, 40.0), np.full(49, 60.0), np.full(1, 100.0)].reshape(10, 10)

    def scaled(self, image=IMAGE, **changes):
        config = PreprocessConfig(**{**WHOLE, **changes})
        return intensity_map(image, config)(image).ravel()

    def test_z_score_by_hand(self):
        # Mean 50; variance (2500 + 49 × 100 + 49 × 100 + 2500) / 100 = 148.
        sd = np.sqrt(148)
        got = self.scaled(normalise="zscore", normalise_sd=3.0)
        expected = 0.5 + np.array([-50, -10, 10, 50]) / (6 * sd)
        np.testing.assert_allclose(got[[0, 1, 50, 99]], np.clip(expected, 0, 1), atol=1e-5)
        assert (got[0], got[99]) == (0.0, 1.0)

    def test_robust_by_hand(self):
        # Median 50, quartiles 40 and 60: a standard deviation of 20 / 1.34898 = 14.826.
        got = self.scaled(normalise="robust", normalise_sd=5.0)
        np.testing.assert_allclose(got[[0, 1, 50, 99]], 0.5 + np.array([-50, -10, 10, 50]) / 148.26, atol=1e-4)

    def test_an_outlier_moves_the_z_score_and_not_the_robust_one(self):
        marked = self.IMAGE.copy()
        marked[9, 9] = 5000.0
        for how, moved in (("zscore", True), ("robust", False)):
            change = np.abs(self.scaled(marked, normalise=how) - self.scaled(normalise=how))[:99].max()
            assert (change > 0.1) == moved

    def test_percentiles_clip_before(self):
        image = np.linspace(0, 100, 101).reshape(1, -1)
        got = self.scaled(image, percentiles=(10, 90), normalise="zscore", normalise_sd=3.0)
        clipped = np.clip(image, 10, 90)
        np.testing.assert_allclose(got, 0.5 + (clipped - 50).ravel() / (6 * clipped.std()), atol=1e-5)

    def test_more_than_half_of_one_grey_falls_back_on_the_standard_deviation(self):
        image = np.zeros((20, 20))
        image[:4] = np.random.default_rng(0).uniform(50, 100, (4, 20))
        np.testing.assert_array_equal(self.scaled(image, normalise="robust"), self.scaled(image, normalise="zscore"))

    @pytest.mark.parametrize("how", ["robust", "zscore"])
    @pytest.mark.parametrize("value", [0, 7, 65535])
    def test_a_constant_image_stays_black(self, how, value):
        assert (self.scaled(np.full((9, 9), value, np.uint16), normalise=how) == 0).all()

    @pytest.mark.parametrize("how", ["robust", "zscore"])
    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(gain=st.floats(1.0, 1e4), offset=st.floats(-1e4, 1e4))
    def test_gain_and_offset_of_the_device_do_not_matter(self, how, gain, offset):
        image = np.random.default_rng(0).random((40, 50))
        plain, other = (self.scaled(x, normalise=how) for x in (image, image * gain + offset))
        np.testing.assert_allclose(other, plain, atol=3e-3)


@pytest.mark.parametrize("side", [256, 1024])
def test_sizes_of_published_systems_are_allowed(side):
    config = PreprocessConfig(size=(side, side))
    assert SampleSource((case_of(scene(), "a"),), blob_schema(), config).sample(0).image[0].shape == (side, side)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": [{"name": "sharpen"}]},
        {"steps": [{"name": "clahe", "clip_limit": 0}]},
        {"steps": [{"name": "clahe", "tiles": [0, 8]}]},
        {"steps": [{"name": "histogram_match", "reference": [0.5]}]},
        {"steps": [{"name": "histogram_match", "reference": [0.5, 0.4]}]},
        {"steps": [{"name": "histogram_match", "reference": [0.5, 1.4]}]},
        {"steps": [{"name": "histogram_match"}, {"name": "histogram_match"}]},
        {"normalise": "minmax"},
        {"normalise_sd": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        PreprocessConfig.model_validate(settings)


def test_settings_survive_json():
    assert PreprocessConfig.model_validate(ALL_STEPS.to_dict()) == ALL_STEPS
    assert PreprocessConfig.model_validate({"size": [64, 64], "percentiles": [1, 99]}).steps == ()
