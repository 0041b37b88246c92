"""Where the levels of a chain usually lie: what that says of the names, and when it says nothing."""

import numpy as np
import pytest
from pydantic import ValidationError

from bregma.codecs.chain_naming import Node
from bregma.codecs.chain_whole import name_whole
from bregma.codecs.places import Places, usual_places

PLACES = Places(axis="y", mean=(0.1, 0.2, 0.3, 0.4, 0.5), sd=(0.02, 0.03, 0.05, 0.03, 0.02))
LENGTH = 500.0
HEIGHTS, SCORES = np.arange(50, 350, 50), [0.5, 0.8, 0.9, 0.9, 0.8, 0.5]


def column(heights, scores):
    pairs = zip(heights, scores, strict=True)
    return [Node(i, np.array([100.0, y]), np.array([0.0, 50.0]), score) for i, (y, score) in enumerate(pairs)]


def ranks(named):
    return [(one.index, one.rank) for one in named]


def named(heights, scores, places=PLACES):
    nodes = column(heights, scores)
    misfit = places.misfit(np.array([node.centre[1] for node in nodes]) / LENGTH)
    return name_whole(nodes, levels=5, misfit_NR=misfit)


def test_a_whole_chain_off_by_a_level_costs_what_its_most_telling_level_does():
    at = np.array(PLACES.mean) + 0.1
    cost = PLACES.misfit(at)[range(5), range(5)].sum()
    assert cost == pytest.approx(0.5 * (0.1 / 0.02) ** 2 * 9 / 25)  # 5 standard deviations count as 3
    wider = Places(axis="y", mean=PLACES.mean, sd=tuple(2 * sd for sd in PLACES.sd))
    assert wider.misfit(at)[range(5), range(5)].sum() == pytest.approx(0.5 * (0.1 / 0.04) ** 2)
    assert np.allclose(PLACES.misfit(at + 2), PLACES.misfit(at + 4))


@pytest.mark.parametrize("first", [0, 1])
def test_where_the_ends_are_alike_the_place_tells(first):
    got = named(HEIGHTS - 50 * first, SCORES)
    assert ranks(got) == [(i + first, i) for i in range(5)]
    assert min(one.probability for one in got) > 0.9
    assert [one.rank for one in name_whole(column(HEIGHTS, SCORES), levels=5)] == [None] * 5


@pytest.mark.parametrize("lacking", [0, 4])
def test_it_tells_at_which_end_one_was_missed(lacking):
    heights = [50 * (i + 1) for i in range(5) if i != lacking]
    got = named(heights, [0.9] * 4)
    assert [one.rank for one in got] == [i for i in range(5) if i != lacking]
    assert [one.rank for one in name_whole(column(heights, [0.9] * 4), levels=5)] == [None] * 4


@pytest.mark.parametrize("cut", [-0.5, -0.15, 0.15, 0.5])
def test_a_whole_chain_keeps_its_names_on_an_image_that_is_cut_in_another_way(cut):
    got = named(HEIGHTS[:5] + cut * LENGTH, [0.9] * 5)
    assert ranks(got) == [(i, i) for i in range(5)]
    assert min(one.probability for one in got) > 0.9


def test_far_off_it_says_nothing():
    six = named(HEIGHTS + 2 * LENGTH, SCORES)
    assert [one.rank for one in six] == [None] * 5


def test_the_usual_places_stand_out_against_a_label_turned_round():
    rng = np.random.default_rng(0)
    usual = np.stack([np.full(17, 0.5), np.linspace(0.05, 0.9, 17)], 1)
    centres = [usual + rng.normal(0, (0.1, 0.02), (1, 2)) for _ in range(200)]
    odd = [np.roll(own, 1, axis=0) for own in centres[:20]]
    places = usual_places([*centres, *odd], "y")
    assert np.abs(np.array(places.mean) - usual[:, 1]).max() < 0.006
    assert np.abs(np.array(places.sd) - 0.02).max() < 0.006
    assert usual_places(centres, "x").mean == pytest.approx([0.5] * 17, abs=0.03)


def test_images_that_are_all_cut_alike_do_not_make_it_certain():
    places = usual_places([np.array([[0.5, 0.1], [0.5, 0.9]])] * 30, "y")
    assert min(places.sd) == 0.01


def test_as_many_spreads_as_places():
    with pytest.raises(ValidationError, match="3 means and 2 standard deviations"):
        Places(axis="x", mean=(0.1, 0.2, 0.3), sd=(0.1, 0.1))
