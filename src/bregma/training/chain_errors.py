"""Elements of a chain that are found but not named, given to the labels that they lie nearest to.

Which weights are the best must not hang on names: where the anchor is out of view no element has one, and every
landmark would count as missed in every epoch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bregma.geometry import Array
from bregma.instances import Instance
from bregma.schema import Chain, LandmarkSchema
from bregma.types import Case, Prediction


def with_nameless(prediction: Prediction, case: Case, schema: LandmarkSchema) -> Prediction:
    """Return a prediction whose nameless elements stand for the labelled levels that it lacks, one for one."""
    if prediction.instances is None or case.landmarks is None:
        return prediction
    mean = prediction.mean.copy()
    for chain in schema.chains:
        nameless = [one for one in prediction.instances if one.chain == chain.name and one.level is None]
        lacking = _lacking(chain, prediction, case.landmarks.labelled, schema)
        if not chain.named or not nameless or not lacking:
            continue
        cost = np.array([[_distance(own, one, case.landmarks.points) for one in nameless] for own in lacking])
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            for part, index in lacking[row].items():
                if part in nameless[column].parts:
                    mean[index] = nameless[column].points[nameless[column].parts.index(part)]
    return replace(prediction, mean=mean)


def _lacking(
    chain: Chain, prediction: Prediction, labelled: NDArray[np.bool_], schema: LandmarkSchema
) -> list[dict[str, int]]:
    """Return, of each level that is labelled and not given, the labelled landmark of each part."""
    found = []
    for level in chain.levels:
        own = {part: schema.index(chain.landmark_name(level, part)) for part in chain.parts_of(level)}
        if not prediction.presence[[*own.values()]].any():
            found.append({part: index for part, index in own.items() if labelled[index]})
    return [own for own in found if own]


def _distance(own: dict[str, int], one: Instance, points: Array) -> float:
    """Return the distance of the centres of the parts that both have; of all parts where they share none."""
    both = [part for part in own if part in one.parts]
    its = one.points[[one.parts.index(part) for part in both]] if both else one.points
    return float(np.hypot(*(points[[own[part] for part in both or own]].mean(axis=0) - its.mean(axis=0))))
