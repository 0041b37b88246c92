"""Elements of a chain that every image shows whole: chosen and named together, by their number.

Where nothing else names the levels, their number does: seventeen vertebrae are to be found, no more and no fewer. One
that is hardly seen is then more probable than none, and one too many is the one that fits its neighbours least.

A *way* takes some of the nodes in their order along the chain and gives each a rising rank. Its weight is the product
of the odds of the nodes taken, of how well every step fits the links of its two ends, and of :data:`MISSED` for every
level passed over, before the first node, between two or after the last. Where it is known how the levels usually lie,
how well a node's place fits its rank comes in too. Shape suffixes: N nodes, R ranks, K levels that a step leads on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bregma.codecs.chain_naming import Named, Node, direction_of
from bregma.geometry import Array

MISSED = 0.02
"""Weight of a level that no node shows."""
_LONGEST = 3
"""Levels that one step may lead on."""
_ALONG, _ASIDE = 0.2, 0.25
"""Standard deviations of a step, in links, along these and aside."""
_ALIKE = 0.5
"""Links differ by less than this share of the upper one's length where both ends of a step tell its way."""
LEAST_NAMING = 0.51
"""A name that is less probable is not given; two that are equally likely are none."""


def name_whole(nodes: Sequence[Node], *, levels: int, misfit_NR: Array | None = None) -> list[Named]:
    """Return the nodes of the most probable way, from the first level on.

    The probability of a name is the share of the weight of all ways on which its node has that rank; one that is
    improbable is not given.

    Args:
        nodes: in any order; their scores are probabilities.
        levels: number of levels of the chain.
        misfit_NR: what each rank costs each node for its place on the image, as the logarithm of a probability ratio.
    """
    if len(nodes) < 2:
        return [Named(node.index, None, 0.0) for node in nodes]
    sure = [node for node in nodes if node.score >= 0.5]
    direction = direction_of(sure if len(sure) > 2 else nodes)
    order = sorted(range(len(nodes)), key=lambda i: float(nodes[i].centre @ direction))
    ordered = [nodes[i] for i in order]
    p_N = np.clip([node.score for node in ordered], 1e-3, 1 - 1e-3)
    odds_NR = np.repeat((p_N / (1 - p_N))[:, None], levels, axis=1)
    if misfit_NR is not None:
        odds_NR = odds_NR * _likelihood(misfit_NR[order])
    fit_KNN = _fits(ordered)
    share_NR = _shares(odds_NR, fit_KNN, levels)
    named = []
    for i, rank in _best_way(odds_NR, fit_KNN, levels):
        right, there = float(share_NR[i, rank]), min(float(share_NR[i].sum()), 1.0)
        given = right >= LEAST_NAMING
        probability = min(right, 1.0) if given else 0.0
        named.append(Named(ordered[i].index, rank if given else None, probability, there, _of_one(share_NR[i])))
    return named


def _fits(ordered: Sequence[Node]) -> Array:
    """Return how well each step between two nodes leads on by 1 … K levels, ``(K, N, N)``; 0 against the order."""
    centres = np.array([node.centre for node in ordered])
    links = np.array([node.link for node in ordered])
    way = centres[None] - centres[:, None]
    upper, lower = links[:, None], links[None]
    # Nothing is learned of where a level after the last one would be, so that its link may be anything.
    alike = np.linalg.norm(lower - upper, axis=-1) < _ALIKE * np.linalg.norm(upper, axis=-1)
    link = np.where(alike[..., None], (upper + lower) / 2, upper)
    squared = np.maximum((link**2).sum(-1), 1e-6)
    along = (way * link).sum(-1) / squared
    aside = np.linalg.norm(way - along[..., None] * link, axis=-1) / np.sqrt(squared)
    levels = np.arange(1, _LONGEST + 1)[:, None, None]
    # Deviations add up over the levels that a step leads on.
    misfit = ((along - levels) ** 2 / _ALONG**2 + aside**2 / _ASIDE**2) / levels
    forward = np.triu(np.ones(along.shape), 1)
    return np.asarray(np.exp(-0.5 * misfit) * MISSED ** (levels - 1) * forward)


def _of_one(share_R: Array) -> tuple[float, ...]:
    """Return the shares of one node's ranks as probabilities, given that it is there."""
    return tuple((share_R / max(float(share_R.sum()), 1e-12)).tolist())


def _likelihood(misfit_NR: Array) -> Array:
    """Return how well each rank of a node fits, 1 for the best: that a node fits none speaks against none of them."""
    return np.asarray(np.exp(misfit_NR.min(axis=1, keepdims=True) - misfit_NR))


def _shares(odds_NR: Array, fit_KNN: Array, levels: int) -> Array:
    """Return the share ``(N, R)`` of all ways on which a node has a rank."""
    n, ranks = len(odds_NR), np.arange(levels)
    before, after = MISSED ** ranks.astype(float), MISSED ** (levels - 1.0 - ranks)
    to_NR, from_NR = np.zeros((n, levels)), np.zeros((n, levels))
    for j in range(n):
        to_NR[j] = odds_NR[j] * (before + _led(to_NR, fit_KNN[:, :, j], back=True))
    for i in reversed(range(n)):
        from_NR[i] = after + _led(odds_NR * from_NR, fit_KNN[:, i], back=False)
    return np.asarray(to_NR * from_NR / (to_NR * after).sum())


def _led(weight_NR: Array, fit_KN: Array, *, back: bool) -> Array:
    """Return the sum ``(R,)`` over nodes and steps of the weights at the ranks from, or to, which these steps lead."""
    total = np.zeros(weight_NR.shape[1])
    for k, fit_N in enumerate(fit_KN, 1):
        sums = fit_N @ weight_NR
        if back:
            total[k:] += sums[:-k]
        else:
            total[:-k] += sums[k:]
    return total


def _best_way(odds_NR: Array, fit_KNN: Array, levels: int) -> list[tuple[int, int]]:
    """Return nodes and ranks of the way of most weight."""
    n, ranks = len(odds_NR), np.arange(levels)
    best_NR = np.zeros((n, levels))
    came: dict[tuple[int, int], tuple[int, int]] = {}
    for j in range(n):
        best_NR[j] = MISSED ** ranks.astype(float)
        for k in range(1, min(_LONGEST, levels - 1) + 1):
            reached = best_NR[:j, : levels - k] * fit_KNN[k - 1, :j, j, None]
            for rank in range(k, levels) if j else ():
                i = int(reached[:, rank - k].argmax())
                if reached[i, rank - k] > best_NR[j, rank]:
                    best_NR[j, rank] = reached[i, rank - k]
                    came[j, rank] = (i, rank - k)
        best_NR[j] *= odds_NR[j]
    last = best_NR * MISSED ** (levels - 1.0 - ranks)
    at: tuple[int, int] | None = divmod(int(last.argmax()), levels)
    way = []
    while at is not None:
        way.append(at)
        at = came.get(at)
    return way[::-1]
