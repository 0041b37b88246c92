"""All ways of looking at labels, brought together: who is suspected of what, worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bregma.auditing.axes import axes_evidence
from bregma.auditing.disagreement import observer_evidence, prediction_evidence
from bregma.auditing.duplicates import Look, duplicate_evidence
from bregma.auditing.evidence import Evidence, Source, are_known
from bregma.auditing.geometry import geometric_evidence
from bregma.auditing.image import image_evidence
from bregma.auditing.shapes import pose
from bregma.auditing.symmetry import equivalent_orders
from bregma.errors import BregmaError
from bregma.geometry import Array
from bregma.schema import LandmarkSchema
from bregma.shape_model import isotropic
from bregma.types import Case, Dataset, Prediction

ALARM = 0.5
"""Score from which a label is a suspect."""

_WORDS: Mapping[Source, str] = {
    "geometry": "the other landmarks suggest another place",
    "exchange": "exchanged",
    "image": "the image suggests another place",
    "prediction": "models that did not learn from it predict another place",
    "observer": "another observer placed it elsewhere",
    "duplicate": "entered twice",
}


@dataclass(frozen=True)
class Suspect:
    """A label that may be wrong.

    Attributes:
        case_id: its image.
        landmark: its name.
        score: 0 to 1; 0.5 where a fault is as likely as not.
        reason: in words, the strongest first.
        expected: where it should be, in pixels of the image, or None where that is not known.
    """

    case_id: str
    landmark: str
    score: float
    reason: str
    expected: tuple[float, float] | None

    @property
    def weight(self) -> float:
        """Suggested weight of the label in training: 1 trusts it."""
        return 1.0 - self.score

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        expected = None if self.expected is None else list(self.expected)
        return {**vars(self), "expected": expected, "weight": self.weight}


@dataclass(frozen=True)
class LabelAudit:
    """What an audit found about labelled cases.

    Attributes:
        cases: the labelled cases, in the dataset's order.
        schema: the anatomy.
        evidence: one entry a way of looking that could be used.
        notes: ways of looking that could not be used, and why.
    """

    cases: tuple[Case, ...]
    schema: LandmarkSchema
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...] = ()

    def scores(self, sources: Iterable[Source] | None = None) -> Array:
        """Return scores ``(C, N)`` of labels: how likely some way of looking is right, were they independent.

        Args:
            sources: ways of looking to be used; None is all.
        """
        trusted = np.ones((len(self.cases), len(self.schema)))
        for entry in self.evidence:
            if sources is None or entry.source in sources:
                trusted *= 1 - entry.scores
        return np.asarray(1 - trusted)

    def case_scores(self, sources: Iterable[Source] | None = None) -> Array:
        """Return scores ``(C,)`` of cases: that of the worst label by each way of looking, brought together."""
        trusted = np.ones(len(self.cases))
        for entry in self.evidence:
            if sources is None or entry.source in sources:
                trusted *= 1 - entry.scores.max(axis=1, initial=0.0)
        return np.asarray(1 - trusted)

    @property
    def ranking(self) -> tuple[int, ...]:
        """Rows of the cases, worst first."""
        scores, labels = self.case_scores(), self.scores().sum(axis=1)
        return tuple(int(row) for row in np.lexsort((-labels, -scores)))

    def suspects(self, least: float = ALARM) -> tuple[Suspect, ...]:
        """Return labels whose score is at least ``least``: worst case first, and within a case the worst label."""
        scores = self.scores()
        rows = [row for row in self.ranking if scores[row].max(initial=0.0) >= least]
        return tuple(suspect for row in rows for suspect in self._suspects_of(row, scores[row], least))

    def expected(self, row: int) -> Array:
        """Return where the labels of a case should be ``(N, 2)``, by whatever suspects them most; NaN where unknown."""
        places = np.full((len(self.schema), 2), np.nan)
        strength = np.full(len(self.schema), -1.0)
        for entry in self.evidence:
            better = are_known(entry.expected[row]) & (entry.times[row] > strength)
            places[better], strength[better] = entry.expected[row, better], entry.times[row, better]
        return places

    def strongest(self, row: int) -> tuple[str, Source] | None:
        """Return the most suspicious landmark of a case and the way of looking that says so; None if none does."""
        found = [(float(entry.times[row].max(initial=0.0)), entry) for entry in self.evidence]
        times, entry = max(found, key=lambda pair: pair[0], default=(0.0, None))
        if entry is None or times <= 0:
            return None
        return self.schema.names[int(np.argmax(entry.times[row]))], entry.source

    def _suspects_of(self, row: int, scores: Array, least: float) -> Iterator[Suspect]:
        places = self.expected(row)
        for index in np.argsort(-scores, kind="stable"):
            if scores[index] >= least:
                x, y = places[index].tolist()
                expected = (x, y) if np.isfinite(places[index]).all() else None
                reason = self._reason(row, int(index))
                yield Suspect(self.cases[row].id, self.schema.names[index], float(scores[index]), reason, expected)

    def _reason(self, row: int, index: int) -> str:
        found = sorted(self.evidence, key=lambda entry: -float(entry.times[row, index]))
        strongest = found[0].times[row, index]
        said = []
        for entry in found:
            times = float(entry.times[row, index])
            if times > max(1.0, strongest / 10):
                words = entry.reasons.get((row, index))
                said.append(words or f"{_WORDS[entry.source]}, {times:.0f} times the usual distance away")
        return "; ".join(said)


def audit_labels(
    dataset: Dataset,
    *,
    predictions: Mapping[str, Sequence[Prediction]] | None = None,
    use_images: bool = True,
) -> LabelAudit:
    """Look for wrong labels by all ways that the data allow.

    Args:
        dataset: cases; those without labels are passed over.
        predictions: case id to what models predict that did not learn from the case.
        use_images: whether to read the images, for what they suggest and for duplicates among them.
    """
    schema = dataset.schema
    cases = tuple(case for case in dataset if case.landmarks is not None and case.landmarks.labelled.any())
    points = np.full((len(cases), len(schema), 2), np.nan)
    for row, case in enumerate(cases):
        if case.landmarks is not None:
            points[row][case.landmarks.labelled] = case.landmarks.points[case.landmarks.labelled]
    orders, ids = equivalent_orders(schema), [case.id for case in cases]
    factors = np.array([isotropic(case.frame) for case in cases]).reshape(-1, 2)
    images, notes = _images(cases) if use_images else ([None] * len(cases), ["the images were not read"])
    looks = [None if image is None or not image.size else Look.of(image) for image in images]
    found: list[Evidence] = [duplicate_evidence(points, ids, schema.names, orders, looks)]
    geometric, unit = geometric_evidence(points * factors[:, None], schema), factors[:, None]
    found += [Evidence(e.source, e.times, e.expected / unit, e.reasons) for e in geometric]
    axes = axes_evidence(points * factors[:, None], schema)
    if axes is not None:
        found.append(axes)
    if not geometric:
        notes.append("the shape was not judged: it takes 10 images with 4 labelled landmarks or more")
    seen = _seen(images, points, factors, schema, orders) if use_images else None
    if seen is not None:
        found.append(seen)
    elif use_images:
        notes.append("the images' content was not judged: it takes 20 images with 4 labelled landmarks or more")
    if predictions:
        found.append(prediction_evidence(points, ids, orders, predictions))
        missing = sum(case not in predictions for case in ids)
        if missing:
            notes.append(f"{missing} of {len(ids)} labelled images have no prediction")
    observed = observer_evidence(points, [case.observers for case in cases], orders)
    if observed is not None:
        found.append(observed)
    return LabelAudit(cases, schema, tuple(found), tuple(notes))


Pixels = NDArray[Any]


def _images(cases: Sequence[Case]) -> tuple[list[Pixels | None], list[str]]:
    images: list[Pixels | None] = []
    notes = []
    for case in cases:
        try:
            images.append(case.image.load())
        except BregmaError as error:
            images.append(None)
            notes.append(f"the image of {case.id} cannot be read: {error}")
    return images, notes


def _seen(
    images: Sequence[Pixels | None], points: Array, factors: Array, schema: LandmarkSchema, orders: NDArray[np.intp]
) -> Evidence | None:
    """Return what the images say; those that cannot be read say nothing."""
    rows = np.array([row for row, image in enumerate(images) if image is not None and image.size], dtype=np.intp)
    if not len(rows):
        return None
    posed = pose(points[rows] * factors[rows, None], orders, mirror=schema.flip == "keep")
    if posed is None:
        return None
    pixels = [image for image in images if image is not None and image.size]
    part = image_evidence(pixels, points[rows], factors[rows], posed, orders)
    if part is None:
        return None
    times, expected = np.zeros(points.shape[:2]), np.full(points.shape, np.nan)
    times[rows], expected[rows] = part.times, part.expected
    return Evidence("image", times, expected, {})
