"""Peaks of several sets chosen together, by what the maps show and by the shapes that occur.

Chosen for itself, one diameter of a head may take an end of the other, or a bright echo beside it. Together they have
to look like the diameters of a head: how they cross, and how long one is to the other, was learned on the training
subjects (:class:`~bregma.shape_model.ShapeModel`) and speaks as a soft prior: no peak is excluded, and none is moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from bregma.exchange import geometric_order, presence_of_share
from bregma.geometry import Array
from bregma.inference import Places
from bregma.shape_model import ShapeModel, as_seen, isotropic
from bregma.types import Prediction

MOST_ARRANGEMENTS = 4000
"""Beyond so many, the sets are arranged one after another, twice."""
_DEGREES = 4.0
"""Degrees of freedom of the t distribution that shapes are taken to have: an uncommon head is not impossible."""

_Picks = list[tuple[int, ...]]


def choose_together(
    prediction: Prediction, places: Sequence[Places], model: ShapeModel, *, weight: float
) -> Prediction:
    """Return a prediction with the likeliest places of all sets.

    The score of an arrangement is the sum of the logarithms of its peaks' masses and ``weight`` times the logarithm of
    a t density of its shape, ``-(ν + d) / 2 ln(1 + D² / ν)`` with D² of :meth:`ShapeModel.distances`, d its degrees of
    freedom and ν = 4.

    Args:
        prediction: of every landmark, with sets as the codec chose them.
        places: of each set.
        model: shapes in the likeliest order of exchangeable points.
        weight: of the shape against the maps.
    """
    open_sets = [one for one in places if (one.mass > 0).sum() >= len(one.members)]
    if not open_sets or len(prediction) < 3:
        return prediction
    scene = _Scene(prediction, open_sets, model, weight)
    return scene.prediction(scene.best())


class _Scene:
    """One image: the places of its sets, and the landmarks that are where they are."""

    def __init__(self, prediction: Prediction, places: Sequence[Places], model: ShapeModel, weight: float) -> None:
        self.given, self.places, self.model, self.weight = prediction, places, model, weight
        self.factors = isotropic(prediction.frame)
        self.points, self.cov = as_seen(prediction)

    def best(self) -> _Picks:
        """Return the places of every set's members in the likeliest arrangement."""
        options = [list(permutations(np.flatnonzero(one.mass > 0).tolist(), len(one.members))) for one in self.places]
        if math.prod(map(len, options)) <= MOST_ARRANGEMENTS:
            return self._likeliest([list(picks) for picks in product(*options)])
        chosen = [each[0] for each in options]
        for _ in range(2):
            for number, each in enumerate(options):
                chosen = self._likeliest([[*chosen[:number], picks, *chosen[number + 1 :]] for picks in each])
        return chosen

    def prediction(self, chosen: _Picks) -> Prediction:
        """Return the prediction with these places, every set from left to right."""
        mean, cov, presence = (np.array(a) for a in (self.given.mean, self.given.cov, self.given.presence))
        for one, picks in zip(self.places, chosen, strict=True):
            by_mass = sorted(picks, key=lambda pick: -one.mass[pick])
            index = list(one.members)
            mean[index], cov[index], presence[index] = one.mean[by_mass], one.cov[by_mass], _presence(one, by_mass)
        order = geometric_order(mean, tuple(one.members for one in self.places))
        return replace(self.given, mean=mean[order], cov=cov[order], presence=presence[order])

    def _likeliest(self, arrangements: list[_Picks]) -> _Picks:
        return arrangements[int(self._scores(arrangements).argmax())]

    def _scores(self, arrangements: list[_Picks]) -> Array:
        count = len(arrangements)
        points, cov = np.repeat(self.points[None], count, 0), np.repeat(self.cov[None], count, 0)
        seen = np.zeros(count)
        for number, one in enumerate(self.places):
            picks: NDArray[np.int_] = np.array([arrangement[number] for arrangement in arrangements])
            index = list(one.members)
            points[:, index] = one.mean[picks] * self.factors
            cov[:, index] = one.cov[picks] * np.outer(self.factors, self.factors)
            seen += np.log(one.mass[picks]).sum(axis=1)
        freedom = 2 * len(self.model) - 4
        away = np.log1p(self.model.distances(points, cov) / _DEGREES)
        return np.asarray(seen - self.weight * 0.5 * (_DEGREES + freedom) * away)


def _presence(one: Places, by_mass: Sequence[int]) -> Array:
    if one.presence is not None:
        return one.presence
    mass = one.mass[by_mass]
    return presence_of_share(np.minimum(mass / mass.mean(), 1.0))
