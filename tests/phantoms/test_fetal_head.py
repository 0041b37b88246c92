"""The fetal head: its diameters against the rendered skull, its circumference against its diameters."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from bregma.phantoms import make_phantoms
from bregma.phantoms.base import phantom_rngs
from bregma.phantoms.fetal_head import (
    FetalHeadSettings,
    HeadNuisance,
    _grid,
    _points,
    _sample_view,
    _skull,
    draw_fetal_head,
    ellipse_perimeter,
    sample_head,
)
from bregma.phantoms.ultrasound import SAMPLES, compress, envelope, scan_convert

CLEAN = HeadNuisance(speckle=0.0, rotation_deg=25.0, skull_loss_db_mm=0.0, gaps=0, offset=0.02, clutter=0.0)


@pytest.mark.parametrize("number", range(5))
def test_ends_lie_where_the_skull_echo_falls_to_one_half(number):
    settings, rng = FetalHeadSettings(), np.random.default_rng(number)
    head = sample_head(settings, rng)
    view = _sample_view(settings, CLEAN, head, rng)
    skull = scan_convert(_skull(_grid(head, view), head, 0, rng), view.sector, settings.size)
    steps = np.arange(-head.skull / view.sector.spacing, 5, 0.02)
    for name, end in _points(head, view, rng).items():
        outward = np.subtract(end, view.centre) / np.linalg.norm(np.subtract(end, view.centre))
        x, y = (np.array(end) + steps[:, None] * outward).T
        profile = ndimage.map_coordinates(skull, [y, x], order=1)
        peak = int(profile.argmax())
        crossing = steps[peak:][np.flatnonzero(profile[peak:] < profile[peak] / 2)[0]]
        assert abs(crossing) < 0.4, name


def test_targets_by_hand_from_the_points():
    for case in make_phantoms("fetal_head", 6, seed=2, size=128):
        p = case.landmarks.points * case.frame.spacing
        ofd, bpd = math.dist(p[0], p[1]), math.dist(p[2], p[3])
        assert ofd == pytest.approx(case.targets["ofd_mm"], abs=1e-9)
        assert bpd == pytest.approx(case.targets["bpd_mm"], abs=1e-9)
        h = ((ofd - bpd) / (ofd + bpd)) ** 2
        # Ramanujan's second approximation, good to 1e-9 for such ellipses.
        hc = math.pi / 2 * (ofd + bpd) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
        assert hc == pytest.approx(case.targets["hc_mm"], rel=1e-8)


def test_perimeter_of_a_circle_and_of_a_polygonised_ellipse():
    assert ellipse_perimeter(2.0, 2.0) == pytest.approx(4 * math.pi)
    t = np.linspace(0, 2 * math.pi, 200001)
    chords = np.hypot(np.diff(50 * np.cos(t)), np.diff(39 * np.sin(t))).sum()
    assert ellipse_perimeter(39.0, 50.0) == pytest.approx(chords, rel=1e-8)


def test_axes_are_perpendicular_and_share_their_middle():
    for case in make_phantoms("fetal_head", 4, size=128, difficulty="hard"):
        p = case.landmarks.points
        assert np.dot(p[1] - p[0], p[3] - p[2]) == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(p[0] + p[1], p[2] + p[3], atol=1e-9)


def test_ends_come_in_random_order_unless_asked():
    cases = make_phantoms("fetal_head", 30, size=64).cases
    flipped = [case.landmarks.points[0, 0] > case.landmarks.points[1, 0] for case in cases]
    assert 5 < sum(flipped) < 25
    settings = FetalHeadSettings(size=(64, 64), ordered=True)
    for case in make_phantoms("fetal_head", 12, settings=settings, difficulty="hard"):
        p = case.landmarks.points
        assert p[0, 0] < p[1, 0]
        assert p[2, 1] < p[3, 1]


def test_order_of_the_ends_leaves_the_image_alone():
    random, ordered = (
        draw_fetal_head(FetalHeadSettings(size=(96, 96), ordered=flag), *phantom_rngs("x", 0, 0))
        for flag in (False, True)
    )
    assert np.array_equal(random.pixels, ordered.pixels)


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_head_lies_on_the_image(level):
    for case in make_phantoms("fetal_head", 8, seed=6, size=(96, 128), difficulty=level):
        assert case.landmarks.labelled.all()


def test_size_follows_age_and_cephalic_index_its_declared_range():
    settings = FetalHeadSettings()
    heads = [sample_head(settings, np.random.default_rng(number)) for number in range(300)]
    index = np.array([head.b / head.a for head in heads])
    assert index.min() >= settings.cephalic_index.low
    assert index.max() <= settings.cephalic_index.high
    assert index.mean() == pytest.approx(0.78, abs=0.01)
    weeks = np.array([head.weeks for head in heads])
    assert 15 <= weeks.min() < 16
    assert 37 < weeks.max() <= 38
    hc = np.array([ellipse_perimeter(head.a, head.b) for head in heads])
    # INTERGROWTH-21st, 50th centile of head circumference: 20 weeks 175 mm, 30 weeks 279 mm.
    for age, expected in ((20, 175), (30, 279)):
        assert np.polyval(np.polyfit(weeks, hc, 3), age) == pytest.approx(expected, rel=0.03)


def test_weeks_are_checked():
    with pytest.raises(ValidationError, match="12 to 42"):
        FetalHeadSettings(gestation_weeks=(30.0, 20.0))


def test_speckle_is_rayleigh_distributed():
    rng = np.random.default_rng(0)
    flat = np.ones((SAMPLES, 256), dtype=np.float32)
    echo = envelope(flat, 0 * flat, flat, 1.0, rng)[20:-20, 20:-20]
    # sqrt(pi / (4 - pi)), the ratio of mean to deviation of a Rayleigh variable; sqrt(pi / 2) times sigma is its mean.
    assert echo.mean() / echo.std() == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), rel=0.03)
    assert echo.mean() == pytest.approx(math.sqrt(math.pi / 2), rel=0.03)


def test_speckle_is_wider_away_from_the_focus():
    rng = np.random.default_rng(1)
    flat = np.ones((SAMPLES, 256), dtype=np.float32)
    echo = envelope(flat, 0 * flat, flat, 1.0, rng)

    def lateral_correlation(rows):
        part = echo[rows] - echo[rows].mean()
        return (part[:, 2:] * part[:, :-2]).mean() / part.var()

    middle = SAMPLES // 2
    assert lateral_correlation(slice(-60, None)) > lateral_correlation(slice(middle - 30, middle + 30)) + 0.2


def test_shadow_lies_behind_bone():
    loud = HeadNuisance(speckle=0.0, rotation_deg=0.0, skull_loss_db_mm=4.0, gaps=0, offset=0.0, clutter=1.0)
    rngs = [phantom_rngs("x", 0, 3) for _ in range(2)]
    plain = draw_fetal_head(FetalHeadSettings(nuisance=loud.model_copy(update={"skull_loss_db_mm": 0.0})), *rngs[0])
    shadowed = draw_fetal_head(FetalHeadSettings(nuisance=loud), *rngs[1])
    centre = np.mean(list(plain.points.values()), axis=0)
    x, y = np.round(centre).astype(int)
    inside = (slice(y - 40, y + 40), slice(x - 40, x + 40))
    assert shadowed.pixels[inside].mean() < 0.8 * plain.pixels[inside].mean()
    above = slice(0, int(min(p[1] for p in plain.points.values())) - 15)
    assert np.array_equal(shadowed.pixels[above, x - 5 : x + 5], plain.pixels[above, x - 5 : x + 5])


def test_compression_steps_in_decibels():
    echo = np.array([[1e-9, 10 ** (-22 / 20), 1.0, 100.0]], dtype=np.float32)
    # 52 dB of the 60 lie below 1: 52/60 squared is 0.751; 22 dB down it is 30/60 squared, a quarter.
    assert compress(echo, 0.0).tolist() == [[0, 64, 192, 255]]
