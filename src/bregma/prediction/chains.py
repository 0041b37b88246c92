"""Elements of chains seen in several views, or by several networks, brought together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bregma.codecs.chain_landmarks import Landmarks, columns_of
from bregma.codecs.chain_layout import layout_of
from bregma.codecs.chain_whole import LEAST_NAMING, MISSED
from bregma.geometry import Array
from bregma.instances import Instance
from bregma.schema import LandmarkSchema
from bregma.types import Prediction

_SAME = 0.7
"""Elements whose centres are nearer than this, in mean distances of a part from its centre, are one."""
_THERE = 0.5
"""Mean probability over the views from which an element is kept, and mean probability of a name from which it is."""
_LIKELY = 0.25
"""The same from which an element is kept that a chain seen whole would else lack."""


@dataclass
class _Cluster:
    """What several views say of one element, by the number of the view."""

    seen: dict[int, Instance] = field(default_factory=dict)

    @property
    def centre(self) -> Array:
        return np.asarray(np.mean([one.centre for one in self.seen.values()], axis=0))

    def distance(self, one: Instance) -> float:
        """Return how far an element lies from this one, in units of the limit; infinity if it has other parts."""
        if one.parts != next(iter(self.seen.values())).parts:
            return np.inf
        size = float(np.linalg.norm(one.points - one.centre, axis=1).mean())
        return float(np.linalg.norm(one.centre - self.centre)) / max(_SAME * size, 1e-6)

    def merged(self, views: int) -> Instance:
        """Return the mixture; a view that does not show the element counts as one that says that it is not there."""
        own = list(self.seen.values())
        points = np.stack([one.points for one in own])
        mean = points.mean(axis=0)
        between = np.einsum("vpi,vpj->pij", points - mean, points - mean) / len(own)
        shares = self._shares()
        whole = any(one.level_shares for one in own)
        level, sure = _most_probable(shares, LEAST_NAMING if whole else _THERE)
        return replace(
            own[0],
            points=mean,
            cov=np.mean([one.cov for one in own], axis=0) + between,
            presence=np.sum([one.presence for one in own], axis=0) / views,
            probability=sum(one.probability for one in own) / views,
            level=level,
            level_probability=sure,
            level_shares=shares if whole else {},
        )

    def _shares(self) -> dict[str, float]:
        """Return the probability of each level on the average of the views that show the element."""
        shares: dict[str, float] = {}
        for one in self.seen.values():
            named = {} if one.level is None else {one.level: one.level_probability}
            for level, share in (one.level_shares or named).items():
                shares[level] = min(shares.get(level, 0.0) + share / len(self.seen), 1.0)
        return shares


def _most_probable(shares: Mapping[str, float], least: float) -> tuple[str | None, float]:
    best = max(shares, key=shares.__getitem__, default=None)
    return (None, 0.0) if best is None or shares[best] < least else (best, shares[best])


def merge_instances(views: Sequence[Sequence[Instance]], *, count: int | None = None) -> tuple[Instance, ...]:
    """Return the elements that the views show on the average, in the order of the chain.

    Elements of different views are one where they lie at one place. One is kept if its probability, averaged over the
    views, 0 where a view does not show it, is one half at least, which is what counts in a single view too; its name
    is the one that is the most probable on the average.

    Args:
        views: the elements of one chain in each of them.
        count: how many elements every image shows, where that is known. Of more the most probable are kept. Where some
            would be lacking, those that some view shows are kept too, if they are probable enough: that one is there
            which is hardly seen is then more probable than that there is none.
    """
    clusters: list[_Cluster] = []
    for number, view in enumerate(views):
        _join(clusters, number, view)
    found = sorted((cluster.merged(len(views)) for cluster in clusters), key=lambda one: -one.probability)
    kept = [one for one in found if one.probability >= _THERE][:count]
    if count is not None:
        doubtful = [one for one in found[len(kept) : count] if one.probability >= _LIKELY]
        kept += [_expected(one) for one in doubtful]
    way = _way(views)
    return _named_once(sorted(kept, key=lambda one: float(one.centre @ way)))


def _expected(one: Instance) -> Instance:
    """Return an element with its probability in the light of the chain's lacking one without it."""
    p = one.probability
    there = p / (p + (1 - p) * MISSED)
    return replace(one, probability=there, presence=np.minimum(one.presence * there / p, 1.0))


def merge_chains(mixed: Prediction, parts: Sequence[Prediction], schema: LandmarkSchema) -> Prediction:
    """Return a mixture of views with the elements that these show together, and landmarks that are theirs.

    Args:
        mixed: the mixture of all landmarks of ``parts``; a point that one view takes for another level's is no
            evidence for it, so that landmarks of chains are not averaged by name.
        parts: the views.
        schema: the anatomy.
    """
    views = [part.instances for part in parts if part.instances is not None]
    if len(parts) < 2 or len(views) < len(parts):
        return mixed
    mean, cov, presence = mixed.mean.copy(), mixed.cov.copy(), mixed.presence.copy()
    merged: list[Instance] = []
    for name in sorted({one.chain for view in views for one in view}):
        chain = schema.chain(name)
        count = len(chain.levels) if chain.is_whole else None
        elements = merge_instances([[one for one in view if one.chain == name] for view in views], count=count)
        own, filled = _landmarks_of(name, elements, mixed, schema)
        mean[own], cov[own], presence[own] = filled.mean[own], filled.cov[own], filled.presence[own]
        merged += elements
    return replace(mixed, mean=mean, cov=cov, presence=presence, instances=tuple(merged))


def _landmarks_of(
    name: str, elements: Sequence[Instance], like: Prediction, schema: LandmarkSchema
) -> tuple[list[int], Landmarks]:
    layout = layout_of(schema, name)
    filled = Landmarks(len(schema), like.frame.shape)
    filled.put_elements(elements, layout)
    columns = (layout.columns_at(rank) for rank in range(len(layout.chain.levels)))
    return [column for row in columns for column in row if column >= 0], filled


def with_elements(prediction: Prediction, elements: Sequence[Instance], schema: LandmarkSchema) -> Prediction:
    """Return a prediction with these elements in place of its own, and the landmarks that are theirs."""
    mean, cov, presence = prediction.mean.copy(), prediction.cov.copy(), prediction.presence.copy()
    for name in sorted({one.chain for one in elements}):
        own, filled = _landmarks_of(name, [one for one in elements if one.chain == name], prediction, schema)
        mean[own], cov[own], presence[own] = filled.mean[own], filled.cov[own], filled.presence[own]
    return replace(prediction, mean=mean, cov=cov, presence=presence, instances=tuple(elements))


def following(prediction: Prediction, schema: LandmarkSchema) -> Prediction:
    """Return a prediction whose named elements lie where its landmarks are, after these were moved."""
    if prediction.instances is None:
        return prediction
    moved = []
    for place, one in enumerate(prediction.instances):
        columns = columns_of(one, place, layout_of(schema, one.chain))
        rows = [row for row, column in enumerate(columns) if column >= 0]
        points = one.points.copy()
        points[rows] = prediction.mean[[columns[row] for row in rows]]
        moved.append(replace(one, points=points))
    return replace(prediction, instances=tuple(moved))


def unflip_instances(instances: Iterable[Instance], schema: LandmarkSchema) -> tuple[Instance, ...]:
    """Give the parts of elements that were seen in a mirrored image their own names back."""
    return tuple(_unflipped(one, schema) for one in instances)


def _unflipped(one: Instance, schema: LandmarkSchema) -> Instance:
    chain = schema.chain(one.chain)
    # Any level that has these parts tells which of them change places.
    level = next(level for level in chain.levels if set(one.parts) <= set(chain.parts_of(level)))
    index = [schema.index(chain.landmark_name(level, part)) for part in one.parts]
    partner = [schema.flip_permutation[i] for i in index]
    if not set(partner) <= set(index):
        return one
    order = [index.index(i) for i in partner]
    return replace(one, points=one.points[order], cov=one.cov[order], presence=one.presence[order])


def _join(clusters: list[_Cluster], number: int, view: Sequence[Instance]) -> None:
    """Add a view's elements to the nearest clusters, each to one; those that are near none begin one."""
    near = sorted(
        (cluster.distance(one), i, j)
        for i, one in enumerate(view)
        for j, cluster in enumerate(clusters)
        if cluster.distance(one) <= 1
    )
    joined: dict[int, int] = {}
    for _, i, j in near:
        if i not in joined and j not in joined.values():
            joined[i] = j
    for i, one in enumerate(view):
        if i in joined:
            clusters[joined[i]].seen[number] = one
        else:
            clusters.append(_Cluster({number: one}))


def _way(views: Sequence[Sequence[Instance]]) -> Array:
    """Return the direction ``(2,)`` of the chain: from the first to the last element of the view that shows most."""
    longest = max(views, key=len)
    return np.asarray(longest[-1].centre - longest[0].centre) if len(longest) > 1 else np.array([0.0, 1.0])


def _named_once(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Take a name from all but the surest of the elements that have it."""
    best: dict[str, Instance] = {}
    for one in instances:
        if one.level is not None and one.level_probability > getattr(best.get(one.level), "level_probability", 0.0):
            best[one.level] = one
    return tuple(
        one if one.level is None or best.get(one.level) is one else replace(one, level=None, level_probability=0.0)
        for one in instances
    )
