"""Measurements whose place is found on the image: between which two levels of a chain they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bregma.errors import SchemaError
from bregma.geometry import Array
from bregma.measurement.rows import Row, check_measurements, row_at
from bregma.measurement.spinal_curves import CURVES, axes
from bregma.schema import Chain, LandmarkSchema, MeasurementSpec
from bregma.types import MeasurementStatus

Obstacle = tuple[MeasurementStatus, str]


@dataclass(frozen=True)
class Scene:
    """The landmarks of one image, in one unit for both axes.

    Attributes:
        points: ``(N, 2)``.
        present: ``(N,)`` which have a position.
        doubts: landmarks that cannot be trusted to be what they are called, with the reason.
        height: of the image.
    """

    points: Array
    present: NDArray[np.bool_]
    doubts: Mapping[str, str]
    height: float


def row_between(schema: LandmarkSchema, spec: MeasurementSpec, scene: Scene) -> Row | Obstacle:
    """Return the measurement between the levels where it lies on this image, or why it cannot be looked for.

    Every level must be there, but for those that the chain calls optional: one that is missing could have been the end.

    Raises:
        SchemaError: a measurement that does not fit its chain.
    """
    if spec.between not in CURVES or spec.along is None:
        check_measurements(schema)
        raise SchemaError(f"the measurement '{spec.name}' lies between no levels", where=f"schema '{schema.name}'")
    chain = schema.chain(spec.along)
    columns = {
        level: [schema.index(chain.landmark_name(level, p)) for p in chain.parts_of(level)] for level in chain.levels
    }
    levels = [level for level in chain.levels if level not in chain.optional or scene.present[columns[level]].any()]
    obstacle = _obstacle(chain, levels, columns, scene)
    if obstacle is not None:
        return obstacle
    corners = np.stack([scene.points[columns[level]] for level in levels])
    flat = [level for level, axis in zip(levels, axes(corners)) if not axis.any()]
    if flat:
        return "refer", f"the corners of {', '.join(flat)} lie so that it has no axis"
    first, second = CURVES[spec.between](corners, scene.height)
    upper, lower = levels[first], levels[second]
    names = {role: t.replace("{upper}", upper).replace("{lower}", lower) for role, t in spec.points.items()}
    return replace(row_at(schema, spec, None, names), ends=(upper, lower))


def _obstacle(chain: Chain, levels: list[str], columns: Mapping[str, list[int]], scene: Scene) -> Obstacle | None:
    missing = [level for level in levels if not scene.present[columns[level]].all()]
    if missing or len(levels) < 2:
        lacking = f"{', '.join(missing)} not found on the image or not labelled" if missing else "fewer than two levels"
        return "missing_landmark", f"{lacking}; a curve is looked for between {chain.levels[0]} and {chain.levels[-1]}"
    reasons = dict.fromkeys(
        scene.doubts[name]
        for level in levels
        for name in (chain.landmark_name(level, part) for part in chain.parts_of(level))
        if name in scene.doubts
    )
    return ("refer", "; ".join(reasons)) if reasons else None
