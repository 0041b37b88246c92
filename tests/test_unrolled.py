"""The band about an ellipse as a picture: what it shows where, and the ellipse that is read from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bregma import geometry
from bregma.ellipse import Ellipse
from bregma.errors import InputError
from bregma.geometry import Array
from bregma.unrolled import (
    BAND,
    OFFSETS,
    ROWS,
    SAMPLES,
    WRAP,
    Start,
    direction_sd,
    ellipse_along,
    moved,
    start_of,
    views_of,
)

ENDS = np.array([[60.0, 100.0], [180.0, 100.0], [120.0, 52.0], [120.0, 148.0]])
"""A head of 120 by 96 px that lies across."""
SQUARE = np.ones(2)


def turned(degrees: float) -> Array:
    return geometry.apply(geometry.rotate(degrees, about=(120.0, 100.0)), ENDS)


def start(ends: Array = ENDS) -> Start:
    found = start_of(ends, SQUARE)
    assert found is not None
    return found


def read(
    views: tuple[Start, ...], true: Ellipse, *, variance: float = 1.0, turn_sd: float = 10.0
) -> tuple[Ellipse, Array]:
    lines = [view.line(true)[:, 0] for view in views]
    return ellipse_along(views, lines, [np.full(SAMPLES, variance)] * len(views), turn_sd=turn_sd)


class TestStart:
    @pytest.mark.parametrize("turn", [0.0, 35.0, -80.0, 150.0])
    def test_the_ends_of_axes_are_those_of_the_ellipse(self, turn: float) -> None:
        np.testing.assert_allclose(start(turned(turn)).ellipse.ends, turned(turn), atol=1e-9)
        # Seen from the other side, the second axis points the other way.
        mirrored = geometry.apply(geometry.flip_horizontal(300), turned(turn))
        np.testing.assert_allclose(start(mirrored).ellipse.ends, mirrored, atol=1e-9)

    def test_diameters_that_are_not_at_right_angles_meet_in_the_middle(self) -> None:
        skewed = np.concatenate([turned(10)[:2], ENDS[2:]])
        found = start(skewed).ellipse
        assert found.u @ found.v == pytest.approx(0, abs=1e-9)
        angle = np.degrees(np.arctan2(*found.u[::-1]))
        assert min(abs(angle), 180 - abs(angle)) == pytest.approx(5, abs=1)

    def test_a_diameter_of_length_zero_has_none(self) -> None:
        assert start_of(np.concatenate([ENDS[:2], ENDS[[2, 2]]]), SQUARE) is None


class TestPicture:
    @pytest.mark.parametrize(("first", "backwards"), [(0.0, False), (2.0, True)])
    def test_a_ring_is_a_line_down_the_middle(self, first: float, backwards: bool) -> None:
        y, x = np.mgrid[:200, :240].astype(np.float64)
        one = replace(start(turned(20)), first=first, backwards=backwards)
        away = one.ellipse.distance(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
        ring = np.exp(-0.5 * (away / 2) ** 2).astype(np.float32)
        picture = one.picture(ring)
        assert picture.shape == (ROWS, OFFSETS)
        middle = (picture * np.arange(OFFSETS)).sum(axis=1) / picture.sum(axis=1)
        np.testing.assert_allclose(middle, (OFFSETS - 1) / 2, atol=0.1)

    def test_the_left_is_inside_and_both_ends_show_the_same(self) -> None:
        y, x = np.mgrid[:200, :240].astype(np.float64)
        one = start(turned(-30))
        inside = one.ellipse.distance(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape) < 0
        for view in views_of(one):
            picture = view.picture((inside * (1 + x / 240)).astype(np.float32))
            assert picture[:, :16].min() > 0.9
            assert picture[:, -16:].max() < 0.1
            np.testing.assert_allclose(picture[:WRAP], picture[-2 * WRAP : -WRAP], atol=1e-5)
            np.testing.assert_allclose(picture[WRAP : 2 * WRAP], picture[-WRAP:], atol=1e-5)

    def test_pixels_that_are_not_square_are_made_so(self) -> None:
        y, x = np.mgrid[:200, :240].astype(np.float32)
        image = np.asarray(0.5 + 0.5 * np.sin(x / 9) * np.sin(y / 7), dtype=np.float32)
        tall = start_of(ENDS * [1.0, 0.5], np.array([np.sqrt(0.5), np.sqrt(2.0)]))
        assert tall is not None
        squeezed = image.reshape(100, 2, 240).mean(axis=1)
        away = np.abs(tall.picture(squeezed) - start().picture(image))
        # Rows of the squeezed image are averages of two, half a pixel lower.
        assert np.quantile(away, 0.95) < 0.08

    def test_beside_the_image_there_is_nothing(self) -> None:
        assert not start(ENDS + 1000.0).picture(np.ones((200, 240), dtype=np.float32)).any()


class TestLine:
    def test_the_ellipse_itself_is_the_middle(self) -> None:
        line = start().line(start().ellipse)
        np.testing.assert_allclose(line[:, 0], (OFFSETS - 1) / 2, atol=1e-9)
        assert line[0, 1] == 1.5
        assert line[-1, 1] == ROWS - 2.5

    def test_a_larger_one_lies_outside_by_as_much(self) -> None:
        one = start().ellipse
        # A tenth of the shorter semi-axis more on all sides, which is hardly an ellipse any more but nearly one.
        larger = Ellipse(one.centre, one.u * (1 + 4.8 / 60), one.v * 1.1)
        line = start().line(larger)
        per_column = 2 * BAND / (OFFSETS - 1)
        np.testing.assert_allclose((line[:, 0] - 23.5) * per_column, 0.1, atol=0.002)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6))
    def test_what_is_encoded_is_read_again(self, seed: int) -> None:
        true = start(turned(seed % 360))
        off = moved(true, np.random.default_rng(seed))
        # A few starts are so far off that the outline leaves the band about them.
        columns = np.concatenate([view.line(true.ellipse)[:, 0] for view in views_of(off)])
        assume(columns.min() >= 1)
        assume(columns.max() <= OFFSETS - 2)
        found, _ = read(views_of(off), true.ellipse)
        order = [0, 1, 2, 3] if np.linalg.norm(found.ends[0] - true.ellipse.ends[0]) < 30 else [1, 0, 3, 2]
        np.testing.assert_allclose(found.ends, true.ellipse.ends[order], atol=1e-3)

    def test_ends_keep_their_names(self) -> None:
        true = start()
        off = Start(Ellipse(true.ellipse.centre + 2, true.ellipse.u * 1.03, true.ellipse.v * 0.96), SQUARE)
        found, _ = read(views_of(off), true.ellipse)
        np.testing.assert_allclose(found.ends, ENDS, atol=1e-3)

    def test_a_nearly_round_one_keeps_its_first_axis_first(self) -> None:
        """Of a circle no fit can tell which axis is the longer one."""
        for ratio in (0.97, 1.0, 1.03):
            ends = np.concatenate([ENDS[:2], [[120.0, 100 - 60 * ratio], [120.0, 100 + 60 * ratio]]])
            off = Start(Ellipse(np.array([121.0, 100.0]), np.array([-60.0, 0.0]), np.array([0.0, -60.0])), SQUARE)
            found, _ = read(views_of(off), start(ends).ellipse)
            lengths = np.linalg.norm(found.ends[[0, 2]] - found.ends[[1, 3]], axis=1)
            assert lengths[1] / lengths[0] == pytest.approx(ratio, abs=0.002)

    def test_a_few_samples_of_something_else_do_not_count(self) -> None:
        true, views = start(), views_of(start())
        lines = [view.line(true.ellipse)[:, 0] for view in views]
        for view, line in zip(views, lines, strict=True):
            angles = np.interp(np.arange(SAMPLES) * 4 + 1.5, np.arange(ROWS), view.angles)
            line[np.cos(angles - 1.0) > 0.95] += 12
        found, vague = ellipse_along(views, lines, [np.ones(SAMPLES)] * 4, turn_sd=10.0)
        np.testing.assert_allclose(found.ends, ENDS, atol=0.3)
        # What was left out does not count as having been seen.
        assert np.linalg.det(vague[0]) > 1.2 * np.linalg.det(read(views, true.ellipse)[1][0])

    def test_samples_on_no_ellipse_say_nothing(self) -> None:
        lines = [np.where(np.arange(SAMPLES) % 2, 8.0, 40.0)] * 4
        with pytest.raises(InputError, match="on no ellipse"):
            ellipse_along(views_of(start()), lines, [np.full(SAMPLES, 0.1)] * 4, turn_sd=10.0)

    def test_views_that_contradict_each_other_are_less_sure(self) -> None:
        true, views = start(), views_of(start())
        lines = [view.line(true.ellipse)[:, 0] + add for view, add in zip(views, (-4, -4, 4, 4), strict=True)]
        found, cov = ellipse_along(views, lines, [np.ones(SAMPLES)] * 4, turn_sd=10.0)
        np.testing.assert_allclose(found.ends, ENDS, atol=0.3)
        assert (np.linalg.det(cov) > 4 * np.linalg.det(read(views, true.ellipse)[1])).all()

    @pytest.mark.parametrize("ratio", [0.95, 1.0])
    def test_the_direction_of_a_round_head_is_that_of_the_first_look(self, ratio: float) -> None:
        ends = np.concatenate([ENDS[:2], [[120.0, 100 - 60 * ratio], [120.0, 100 + 60 * ratio]]])
        true, views = start(ends), views_of(start(ends))
        rng = np.random.default_rng(0)
        lines = [view.line(true.ellipse)[:, 0] + rng.standard_normal(SAMPLES) for view in views]
        found, cov = ellipse_along(views, lines, [np.ones(SAMPLES)] * 4, turn_sd=0.05)
        np.testing.assert_allclose(found.ends, ends, atol=3.0)
        sd = np.sqrt(np.linalg.eigvalsh(cov)[:, 1])
        assert (sd < 1.1 * 0.05 * 60).all()
        assert (sd > 1.0).all()

    def test_a_line_that_leaves_the_band_says_nothing(self) -> None:
        true = start().ellipse
        far = Ellipse(true.centre, true.u * 1.5, true.v * 1.5)
        with pytest.raises(InputError, match="leaves the band"):
            read(views_of(start()), far)

    def test_what_is_less_sure_has_a_wider_covariance(self) -> None:
        _, sure = read(views_of(start()), start().ellipse, variance=1.0)
        _, vague = read(views_of(start()), start().ellipse, variance=9.0)
        assert sure.shape == (4, 2, 2)
        ratio = np.linalg.det(vague) / np.linalg.det(sure)
        assert (ratio > 20).all()
        # Views of one image do not know it better than one of them.
        one, two = views_of(start())[:1], views_of(start())
        np.testing.assert_allclose(read(one, start().ellipse)[1], read(two, start().ellipse)[1], rtol=0.05, atol=1e-9)

    def test_errors_are_about_as_large_as_they_are_said_to_be(self) -> None:
        rng, true, lengths, said = np.random.default_rng(0), start(), [], []
        views = views_of(true)[:1]
        for _ in range(60):
            # Errors that go on for thirty degrees.
            coarse = np.repeat(rng.standard_normal(12), 11)[: 4 * SAMPLES]
            wrapped = np.resize(coarse[:128], ROWS)
            line = views[0].line(true.ellipse)[:, 0] + 1.5 * wrapped[np.arange(SAMPLES) * 4]
            found, cov = ellipse_along(views, [line], [np.full(SAMPLES, 1.5**2)], turn_sd=10.0)
            lengths.append(found.ends[0] - ENDS[0])
            said.append(np.trace(cov[0]))
        seen = np.mean(np.sum(np.square(lengths), axis=1))
        assert 0.4 < seen / np.mean(said) < 2.5


def test_how_surely_the_direction_was_known() -> None:
    one = start(turned(30))
    # Both ends of a half axis of 60 px off by 2 px each: 2 / sqrt(2) / 60; of 48 px likewise; together, times three.
    expected = 3 * (2 * 60**2 / 4 + 2 * 48**2 / 4) ** -0.5
    assert direction_sd(one, np.tile(4 * np.eye(2), (4, 1, 1))) == pytest.approx(expected)


def test_starts_are_off_as_said_and_from_anywhere() -> None:
    true = start()
    offs = [moved(true, np.random.default_rng(seed)) for seed in range(400)]
    away = np.array([np.linalg.norm(one.ellipse.centre - true.ellipse.centre) for one in offs])
    assert 0.02 * 48 < np.median(away) < 0.04 * 48
    assert {one.backwards for one in offs} == {True, False}
    assert np.histogram([one.first for one in offs], bins=4, range=(0, 2 * np.pi))[0].min() > 60
    inside = [(np.abs(one.line(true.ellipse)[:, 0] - 23.5) < 23).all() for one in offs]
    assert np.mean(inside) > 0.95
