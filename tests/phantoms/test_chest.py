"""The frontal chest: its points against the rendered air, its ratio against its points."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from bregma.phantoms import make_phantoms
from bregma.phantoms.base import phantom_rngs
from bregma.phantoms.chest import CTR_POINTS, ChestNuisance, ChestSettings, _lung_air, draw_chest_ctr
from bregma.phantoms.chest_anatomy import ChestView, chest_points, sample_chest
from bregma.phantoms.sampling import TruncatedNormal

SETTINGS = ChestSettings()
SIDES = {"right": -1, "left": 1}


def chest(number):
    rng = np.random.default_rng(number)
    return sample_chest(SETTINGS.cardiothoracic_ratio, SETTINGS.thoracic_width_mm, rng)


def air(person, lung, view, sign):
    """The rendered path through one lung, (H, W), as the image shows it."""
    x, y = view.grid()
    rendered = _lung_air(person, lung, np.abs(x), y, view.spacing)
    return np.where(sign * x > 0, rendered, 0)


@pytest.fixture(params=range(4))
def scene(request):
    person = chest(request.param)
    return person, ChestView((1200, 1300), 0.3, 650.3, 160.7)


@pytest.mark.parametrize("side", SIDES)
def test_borders_of_the_rendered_lung(scene, side):
    person, view = scene
    lung = getattr(person, side)
    points = chest_points(person, view)
    rows, columns = np.nonzero(air(person, lung, view, SIDES[side]) > 0.01)
    outermost = columns.max() if side == "left" else columns.min()
    assert abs(outermost - points[f"thorax_inner_{side}"][0]) < 1.0
    at_level = columns[rows == round(points[f"thorax_inner_{side}"][1])]
    assert (at_level.max() if side == "left" else at_level.min()) == outermost
    assert abs(rows.min() - points[f"apex_{side}"][1]) < 1.0
    assert abs(rows.max() - points[f"costophrenic_{side}"][1]) < 3.0
    top, bottom = points["axis_top"][1], points["axis_bottom"][1]
    for name, share in (("upper", 0.25), ("middle", 0.5), ("lower", 0.75)):
        x, y = points[f"lung_{side}_{name}"]
        assert y == pytest.approx(top + share * (bottom - top))
        found = columns[rows == round(y)]
        edge = found.max() if side == "left" else found.min()
        assert abs(edge - x) < 1.0


@pytest.mark.parametrize("side", SIDES)
def test_apex_is_the_highest_air(scene, side):
    person, view = scene
    lung = getattr(person, side)
    rows, columns = np.nonzero(air(person, lung, view, SIDES[side]) > 0.01)
    x, _ = chest_points(person, view)[f"apex_{side}"]
    assert abs(columns[rows == rows.min()].mean() - x) < 12.0


@pytest.mark.parametrize("side", SIDES)
def test_heart_point_is_the_outermost_shadow_of_the_heart(scene, side):
    """The heart is where air is missing that a narrow mediastinum would leave."""
    person, view = scene
    lung = getattr(person, side)
    slim = replace(lung, heart=1.0, border=tuple((share, 1.0) for share, _ in lung.border))
    with_heart, without = air(person, lung, view, SIDES[side]), air(person, slim, view, SIDES[side])
    x, y = chest_points(person, view)[f"heart_{side}"]
    # Below the apex, where the cupola is not yet part of the picture, and above the diaphragm.
    band = slice(round(y) - 200, round(y) + 12)
    rows, columns = np.nonzero((without - with_heart)[band] > 0.5)
    outermost = columns.max() if side == "left" else columns.min()
    assert abs(outermost - x) < 1.0
    assert abs(rows[columns == outermost].mean() + band.start - y) < 12.0


def test_ratio_by_hand_from_the_points():
    for case in make_phantoms("chest_ctr", 6, seed=4, size=160):
        x = dict(zip(ORDER, case.landmarks.points[:, 0], strict=True))
        ratio = (x["heart_left"] - x["heart_right"]) / (x["thorax_inner_left"] - x["thorax_inner_right"])
        assert ratio == pytest.approx(case.targets["cardiothoracic_ratio"], abs=1e-9)
        width = (x["heart_left"] - x["heart_right"]) * case.frame.spacing[0]
        assert width == pytest.approx(case.targets["cardiac_width_mm"], abs=1e-6)


ORDER = (
    *("axis_top", "axis_bottom", "lung_right_upper", "lung_left_upper", "lung_right_middle", "lung_left_middle"),
    *("lung_right_lower", "lung_left_lower", "axis_upper", "axis_middle", "axis_lower", "apex_right", "apex_left"),
    *("costophrenic_right", "costophrenic_left", "heart_right", "heart_left"),
    *("thorax_inner_right", "thorax_inner_left"),
)


def test_all_points_lie_on_the_image_in_reading_order():
    for level in ("easy", "medium", "hard"):
        for case in make_phantoms("chest_ctr", 4, seed=8, size=128, difficulty=level):
            assert case.landmarks.labelled.all()
            y = dict(zip(ORDER, case.landmarks.points[:, 1], strict=True))
            assert y["axis_top"] < y["axis_upper"] < y["axis_middle"] < y["axis_lower"] < y["axis_bottom"]


def test_ratio_follows_its_declared_distribution():
    wanted = SETTINGS.cardiothoracic_ratio
    drawn = np.array([chest(number).ratio for number in range(300)])
    assert wanted.low <= drawn.min()
    assert drawn.max() <= wanted.high
    low, high = (wanted.low - wanted.mean) / wanted.sd, (wanted.high - wanted.mean) / wanted.sd
    assert stats.kstest(drawn, stats.truncnorm(low, high, wanted.mean, wanted.sd).cdf).pvalue > 0.001


def test_ratio_can_be_fixed_and_bounds_are_checked():
    narrow = TruncatedNormal(mean=0.6, sd=0.01, low=0.6, high=0.61)
    case = make_phantoms("chest_ctr", 1, size=96, settings=ChestSettings(cardiothoracic_ratio=narrow)).cases[0]
    assert 0.6 <= case.targets["cardiothoracic_ratio"] <= 0.61
    with pytest.raises(ValidationError, match="must be below"):
        TruncatedNormal(mean=0.5, sd=0.1, low=0.6, high=0.5)
    with pytest.raises(ValidationError, match="five standard deviations"):
        TruncatedNormal(mean=0.5, sd=0.01, low=0.6, high=0.7)


def test_heart_is_denser_than_lung_and_the_abdomen_denser_still():
    clean = ChestNuisance(photons=1e9, scatter=0.0, opacity=0.0, offset=0.0, exposure=0.0)
    phantom = draw_chest_ctr(ChestSettings(nuisance=clean), *phantom_rngs("chest_ctr", 0, 0))
    points = phantom.points
    heart_x = (points["heart_left"][0] + points["axis_lower"][0]) / 2
    lung_x = (points["heart_right"][0] + points["lung_right_middle"][0]) / 2
    level = round(points["heart_right"][1])
    half = 6

    def mean(x, y):
        return phantom.pixels[round(y) - half : round(y) + half, round(x) - half : round(x) + half].mean()

    assert mean(heart_x, level) > mean(lung_x, level) + 30
    assert mean(points["axis_bottom"][0] - 60, points["axis_bottom"][1]) > mean(lung_x, level) + 60


def test_fifteen_points_are_the_same_image_without_the_four():
    settings = ChestSettings(size=(128, 128))
    rngs = phantom_rngs("chest", 3, 1)
    full = draw_chest_ctr(settings, *rngs)
    short = make_phantoms("chest", 2, seed=3, size=128).cases[1]
    assert len(short.landmarks) == 15
    assert np.array_equal(short.image.load(), full.pixels)
    kept = [point for name, point in full.points.items() if name not in CTR_POINTS]
    assert sorted(map(tuple, short.landmarks.points)) == sorted(kept)


def test_subject_keeps_its_ratio_and_moves():
    first, second = make_phantoms("chest_ctr", 2, size=128, images_per_subject=2).cases
    assert first.subject == second.subject
    assert first.targets == second.targets
    assert not np.allclose(first.landmarks.points, second.landmarks.points)
