"""Chains that every image shows whole: what is chosen and named, against all ways counted one by one."""

import itertools

import numpy as np
import pytest

from bregma.codecs.chain_naming import Node
from bregma.codecs.chain_whole import LEAST_NAMING, MISSED, name_whole


def column(heights, scores, aside=()):
    """Nodes of a chain straight down with links of 50, in any order."""
    x = dict(aside)
    nodes = [
        Node(i, np.array([100.0 + x.get(i, 0.0), y]), np.array([0.0, 50.0]), score)
        for i, (y, score) in enumerate(zip(heights, scores, strict=True))
    ]
    np.random.default_rng(0).shuffle(nodes)
    return nodes


def ranks(named):
    return [(one.index, one.rank) for one in named]


def by_counting(nodes, levels):
    """The weight of every way, as {((node, rank), ...): weight}."""
    ordered = sorted(nodes, key=lambda node: node.centre[1])
    ways = {}
    for count in range(1, min(len(ordered), levels) + 1):
        for some in itertools.combinations(ordered, count):
            for places in itertools.combinations(range(levels), count):
                weight = MISSED ** (levels - count)
                for node in some:
                    weight *= node.score / (1 - node.score)
                for (a, r), (b, s) in itertools.pairwise(zip(some, places, strict=True)):
                    way, steps = (b.centre - a.centre) / 50, s - r
                    if steps > 3:
                        weight = 0.0
                    weight *= np.exp(-0.5 * ((way[1] - steps) ** 2 / 0.2**2 + way[0] ** 2 / 0.25**2) / steps)
                ways[tuple((node.index, rank) for node, rank in zip(some, places, strict=True))] = weight
    return ways


@pytest.mark.parametrize("seed", range(12))
def test_the_best_way_and_the_shares_are_those_of_all_ways(seed):
    rng = np.random.default_rng(seed)
    count, levels = int(rng.integers(2, 7)), int(rng.integers(2, 6))
    heights = np.sort(rng.uniform(0, 50 * levels, count))
    nodes = column(heights, rng.uniform(0.05, 0.95, count), [(0, 8.0)])
    ways = by_counting(nodes, levels)
    total = sum(ways.values())
    best = max(ways, key=ways.__getitem__)
    named = name_whole(nodes, levels=levels)
    assert [one.index for one in named] == [node for node, _ in best]
    for one, (node, rank) in zip(named, best, strict=True):
        right = sum(weight for way, weight in ways.items() if (node, rank) in way) / total
        there = sum(weight for way, weight in ways.items() if node in dict(way)) / total
        assert one.there == pytest.approx(there, rel=1e-6)
        assert one.rank == (rank if right >= LEAST_NAMING else None)
        assert one.probability == pytest.approx(right if right >= LEAST_NAMING else 0.0, rel=1e-6)


def test_the_least_sure_end_is_beyond_the_chain():
    named = name_whole(column([50, 100, 150, 200], [0.2, 0.8, 0.9, 0.7]), levels=3)
    assert ranks(named) == [(1, 0), (2, 1), (3, 2)]


def test_two_ends_that_are_alike_leave_no_name():
    named = name_whole(column([50, 100, 150, 200], [0.5, 0.8, 0.9, 0.5]), levels=3)
    assert len(named) == 3
    assert [one.rank for one in named] == [None] * 3


def test_one_that_is_hardly_seen_is_taken_where_the_number_asks_for_it():
    nodes = column([50, 100, 150, 200], [0.9, 0.9, 0.1, 0.9])
    assert ranks(name_whole(nodes, levels=4)) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    named = name_whole(nodes, levels=4)
    assert named[2].there > 0.8


def test_one_between_two_neighbours_or_aside_of_them_is_none():
    nodes = column([50, 100, 125, 150, 152, 200], [0.9, 0.9, 0.6, 0.9, 0.8, 0.9], [(4, 60.0)])
    assert ranks(name_whole(nodes, levels=4)) == [(0, 0), (1, 1), (3, 2), (5, 3)]


def test_a_level_that_nothing_shows_is_passed_over():
    nodes = column([50, 100, 200, 250], [0.9, 0.8, 0.9, 0.9])
    assert ranks(name_whole(nodes, levels=5)) == [(0, 0), (1, 1), (2, 3), (3, 4)]


def test_a_curved_chain_is_followed():
    angles = np.radians(np.linspace(-50, 50, 9))
    step = np.stack([np.sin(angles), np.cos(angles)], 1) * 40
    centres = np.cumsum(step, axis=0)
    nodes = [Node(i, centre, way, 0.8) for i, (centre, way) in enumerate(zip(centres, np.roll(step, -1, 0)))]
    assert ranks(name_whole(nodes, levels=9)) == [(i, i) for i in range(9)]


@pytest.mark.parametrize("count", [0, 1])
def test_one_alone_has_no_name(count):
    assert ranks(name_whole(column([50][:count], [0.9][:count]), levels=4)) == [(0, None)][:count]
