"""Slices of a volume as channels: all under one geometry and one intensity map, jittered in training alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bregma.data.augment import AugmentConfig
from bregma.data.loader import SampleSource, collate
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import ConfigError, ImageError
from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, ArraySlab, Case, LandmarkSet, Status

SCHEMA = schema_from_dict(
    {"name": "spot", "title": "Spot", "flip": "keep", "landmarks": [{"name": "spot", "label": "Spot"}]}, where="tests"
)
STILL = {
    "rotation_deg": 0,
    "scale": 0,
    "anisotropy": 0,
    "shift": 0,
    "gamma": 0,
    "contrast": 0,
    "brightness": 0,
    "noise": 0,
}


def volume(side: int = 64, slices: int = 9) -> Case:
    """Slices with one spot at one place, each as bright as its number."""
    y, x = np.mgrid[:side, :side] / side
    spot = np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.005)
    pixels = np.stack([(100 * (i + 1) * spot).astype(np.int16) for i in range(slices)])
    point = np.array([[0.4 * side - 0.5, 0.6 * side - 0.5]]) + 0.5
    marks = LandmarkSet(point, np.array([Status.VISIBLE]))
    return Case("v", "v", ArraySlab(pixels), Frame((side, side), (1.0, 1.0), "phantom"), marks)


def source(case: Case, slices: int = 3, size: int = 32, **augment: Any) -> SampleSource:
    config = PreprocessConfig(size=(size, size), slices=slices, percentiles=(0, 100))
    return SampleSource((case,), SCHEMA, config, AugmentConfig(**{**STILL, **augment}) if augment else None)


def peaks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image.max(axis=(1, 2))


def test_channels_are_neighbours_of_the_middle_one_on_one_scale() -> None:
    sample = source(volume()).sample(0)
    assert sample.image.shape == (3, 32, 32)
    # The slices are the 4th to the 6th; the brightest of the three is white.
    np.testing.assert_allclose(peaks(sample.image) / peaks(sample.image)[2], [4 / 6, 5 / 6, 1], atol=0.01)
    assert collate([sample, sample], (0, 0)).images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("side", [64, 65, 131, 200, 512])
def test_points_lie_where_the_slices_show_them_however_these_are_kept(side: int) -> None:
    case = volume(side)
    sample = source(case).sample(0)
    for channel in sample.image:
        weight = np.where(channel > 0.3 * channel.max(), channel, 0)
        y, x = np.mgrid[: channel.shape[0], : channel.shape[1]]
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert np.linalg.norm(centre - sample.points_in[0]) < 0.1


def test_one_geometry_for_all_slices() -> None:
    samples = source(volume(), rotation_deg=30, scale=0.2, shift=0.1, flip=0.5)
    for epoch in range(6):
        image = samples.sample(0, epoch).image
        np.testing.assert_allclose(image[0] / peaks(image)[0], image[2] / peaks(image)[2], atol=0.02)


def test_the_middle_moves_in_training_and_stays_in_prediction() -> None:
    jittered = source(volume(), slice_shift=3, gamma=0.0)
    first = {round(6 * float(peaks(jittered.sample(0, epoch).image)[0])) for epoch in range(60)}
    # The scale is that of the three in the middle, as in prediction, of which the 6th slice is the brightest.
    assert first == set(range(1, 7))
    still = source(volume())
    assert len({float(peaks(still.sample(0, epoch).image)[1]) for epoch in range(5)}) == 1


def test_the_same_epoch_shows_the_same_slices() -> None:
    one, other = source(volume(), slice_shift=3), source(volume(), slice_shift=3)
    for epoch in range(4):
        np.testing.assert_array_equal(one.sample(0, epoch).image, other.sample(0, epoch).image)


def test_what_is_kept_is_hardly_more_than_what_is_seen() -> None:
    large = source(volume(512, slices=5))
    large.sample(0)
    kept = large._cache.get(0)
    assert kept is not None
    assert kept.slices.nbytes <= 3 * 64 * 64 * 4


def test_steps_change_each_slice() -> None:
    config = PreprocessConfig.model_validate({"size": (32, 32), "slices": 3, "steps": [{"name": "clahe"}]})
    image = SampleSource((volume(),), SCHEMA, config).sample(0).image
    assert image.shape == (3, 32, 32)
    assert (image.max(axis=(1, 2)) > 0.2).all()


def test_one_image_has_no_neighbours() -> None:
    case = replace(volume(), image=ArrayImage(np.zeros((64, 64), np.uint8)))
    with pytest.raises(ImageError, match=r"is one image, not the slices.*preprocess\.slices=1"):
        source(case).sample(0)


def test_too_few_slices() -> None:
    with pytest.raises(ImageError, match="too few slices"):
        source(volume(slices=3), slices=5).sample(0)


def test_an_even_number_has_no_middle() -> None:
    with pytest.raises((ConfigError, ValueError), match="odd number"):
        PreprocessConfig(slices=4)
