"""The values behind the figures of a dataset: its tags and targets, measurements, and shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bregma.data.shapes import align, mirrored
from bregma.geometry import Array
from bregma.measurement import measure_landmarks
from bregma.report.dataset_figures import Bars, Boxes, Histogram, Panel, ShapeStatistics
from bregma.schema import GradeScale, LandmarkSchema, MeasurementSpec, expand
from bregma.shape_model import isotropic, shape_model_of
from bregma.types import Case, Dataset, LandmarkSet, Measurement, Tag

_FEW_VALUES = 12
"""A number that takes no more values than this is drawn as a category."""
_MOST_VALUES = 20
"""A text that takes more values than this is a name rather than a category."""
_MODES = 3


@dataclass(frozen=True)
class Measured:
    """A measurement over the labelled images: each image's values, in the unit that most of them have."""

    spec: MeasurementSpec
    unit: str
    found: tuple[tuple[Case, tuple[Measurement, ...]], ...]


def tag_panels(dataset: Dataset) -> Iterator[Panel]:
    """Yield a distribution of each tag and target that differs between images and is no mere name."""
    for name, values in values_by_name(case.tags for case in dataset).items():
        yield from _tag_panel(name, values, len(dataset))
    for name, values in values_by_name(case.targets for case in dataset).items():
        yield from _tag_panel(name, values, len(dataset))


def _tag_panel(name: str, values: Sequence[Tag], images: int) -> Iterator[Panel]:
    title = in_words(name) + (f" (of {len(values)} images)" if len(values) < images else "")
    if is_category(values):
        yield Bars(title, counts_of(values))
    elif all(map(is_number, values)) and len(set(values)) > 1:
        yield Histogram(title, "", {"": [float(value) for value in values]})


def values_by_name(mappings: Iterable[Mapping[str, Tag]]) -> dict[str, list[Tag]]:
    """Return each name's values over all the mappings that have it."""
    values: dict[str, list[Tag]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            values.setdefault(name, []).append(value)
    return values


def is_category(values: Sequence[Tag]) -> bool:
    """Tell whether a tag sorts images into a few kinds."""
    most = _FEW_VALUES if all(map(is_number, values)) else _MOST_VALUES
    return 1 < len(set(map(str, values))) <= min(most, len(values) - 1)


def is_number(value: Tag) -> bool:
    """Tell whether a tag is a finite number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def counts_of(values: Sequence[Tag]) -> dict[str, int]:
    """Count values: numbers in their order, words with the most frequent first."""
    if all(map(is_number, values)):
        return {f"{value:g}": count for value, count in sorted(Counter(map(float, values)).items())}
    return dict(Counter(map(str, values)).most_common())


def shape_statistics(dataset: Dataset, unusual: Collection[str | None] = ()) -> ShapeStatistics | None:
    """Lay the labelled shapes over one another and return how they vary.

    Args:
        dataset: labelled cases.
        unusual: ids of cases to leave out.

    Returns:
        None where labels are too few, or where points that cannot be told apart leave open which point is which.
    """
    schema = dataset.schema
    usual = [case for case in dataset if case.landmarks is not None and case.id not in unusual]
    cases, turned = _facing_one_way(schema, usual)
    model = None if schema.exchangeable else shape_model_of(cases)
    if model is None:
        return None
    z = _points(cases) @ np.array([1, 1j])
    laid = align(z, model.mean @ np.array([1, 1j]))
    modes, shares = model.modes(_MODES)
    edges = tuple((schema.index(a), schema.index(b)) for a, b in schema.edges)
    notes = [f"{turned} that face the other way were mirrored"] if turned else []
    notes += [f"{len(unusual)} with an unusual point were left out"] if unusual else []
    return ShapeStatistics(
        model.mean, np.stack([laid.real, laid.imag], axis=-1), modes, shares, edges, "; ".join(notes)
    )


def _facing_one_way(schema: LandmarkSchema, cases: Sequence[Case]) -> tuple[list[Case], int]:
    """Mirror what faces the other way, where that is the same anatomy with the same names."""
    if schema.flip != "keep" or not cases:
        return list(cases), 0
    away = mirrored(_points(cases))
    # Most stay as they are.
    away = ~away if 2 * away.sum() > len(away) else away
    return [_mirror(case) if turn else case for case, turn in zip(cases, away)], int(away.sum())


def _mirror(case: Case) -> Case:
    if case.landmarks is None:
        return case
    return replace(case, landmarks=LandmarkSet(case.landmarks.points * [-1.0, 1.0], case.landmarks.status))


def _points(cases: Iterable[Case]) -> Array:
    """Return isotropic points ``(M, N, 2)``, NaN where there is no label."""
    marks = [(case.landmarks, isotropic(case.frame)) for case in cases if case.landmarks is not None]
    return np.stack([np.where(m.labelled[:, None], m.points * factors, np.nan) for m, factors in marks])


def measured_quantities(dataset: Dataset) -> Iterator[Measured]:
    """Yield the schema's measurements that have values."""
    found = [
        (case, measure_landmarks(dataset.schema, case.landmarks, case.frame, given=case.targets))
        for case in dataset
        if case.landmarks
    ]
    for spec in dataset.schema.measurements:
        known = [(case, [m for m in rows if m.name == spec.name and m.value is not None]) for case, rows in found]
        units = Counter(m.unit for _, rows in known for m in rows)
        if units:
            unit = units.most_common(1)[0][0]
            same = [(case, tuple(m for m in rows if m.unit == unit)) for case, rows in known]
            yield Measured(spec, unit, tuple((case, rows) for case, rows in same if rows))


def measurement_panels(schema: LandmarkSchema, measured: Iterable[Measured]) -> Iterator[Panel]:
    """Yield the distributions of measurements: by level along a chain, by grade where they are graded."""
    for quantity in measured:
        label, unit = quantity.spec.label, quantity.unit
        scale = None if quantity.spec.grade is None else schema.grade(quantity.spec.grade)
        if scale is not None:
            worst = worst_of_each(quantity, scale)
            title = label if quantity.spec.along is None else f"{label}: largest of each image"
            groups = {grade: _values(m for _, m in worst if m.grade == grade) for grade in scale.labels}
            yield Histogram(title, unit, {g: values for g, values in groups.items() if values}, scale.edges)
        if quantity.spec.along is not None:
            yield Boxes(label, unit, _by_level(schema, quantity), _both_ways(scale))
        elif scale is None:
            yield Histogram(label, unit, {"": _values(m for _, rows in quantity.found for m in rows)})


def worst_of_each(quantity: Measured, scale: GradeScale) -> list[tuple[Case, Measurement]]:
    """Return each image's highest value, or the largest either way where the scale has grades on both sides of 0."""
    both = scale.absolute or scale.edges[0] < 0 < scale.edges[-1]

    def height(found: Measurement) -> float:
        value = found.value or 0.0
        return abs(value) if both else value

    return [(case, max(rows, key=height)) for case, rows in quantity.found]


def _by_level(schema: LandmarkSchema, quantity: Measured) -> dict[str, list[float]]:
    levels = [level for level, _ in expand(schema, quantity.spec)]
    every = [found for _, rows in quantity.found for found in rows]
    return {level or "": _values(found for found in every if found.level == level) for level in levels}


def _values(found: Iterable[Measurement]) -> list[float]:
    return [m.value for m in found if m.value is not None]


def _both_ways(scale: GradeScale | None) -> tuple[float, ...]:
    if scale is None:
        return ()
    return (*scale.edges, *(-edge for edge in scale.edges)) if scale.absolute else scale.edges


def in_words(name: str) -> str:
    """Return a tag's name as a reader would write it."""
    return name.replace("_", " ")
