"""A schema's measurements as rows that can be computed: each place where one applies, with its primitive and unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bregma.errors import SchemaError
from bregma.geometry import Array
from bregma.measurement.primitives import PRIMITIVES, Kind, Primitive
from bregma.schema import GradeScale, LandmarkSchema, MeasurementSpec, expand

UNIT_FACTORS: dict[tuple[Kind, str], float] = {
    ("length", "mm"): 1.0,
    ("area", "mm2"): 1.0,
    ("ratio", "1"): 1.0,
    ("ratio", "%"): 100.0,
    ("angle", "deg"): 1.0,
}
"""Units in which a kind of primitive can be given, and the factor from what the function returns."""

PIXEL_UNITS: dict[Kind, str] = {"length": "px", "area": "px2"}
"""What remains of a unit where there is no trusted spacing; other kinds do not need one."""


@dataclass(frozen=True)
class Row:
    """One measurement at one place.

    Attributes:
        spec: the declaration.
        primitive: the function behind it.
        level: where along a chain, or None.
        uses: landmark names in the order of the primitive's roles.
        columns: their positions in point arrays.
    """

    spec: MeasurementSpec
    primitive: Primitive
    level: str | None
    uses: tuple[str, ...]
    columns: tuple[int, ...]

    def compute(self, points: Array) -> Array:
        """Return the values ``(...)`` of points ``(..., N, 2)`` in the declared unit, NaN where degenerate."""
        roles = {role: points[..., column, :] for role, column in zip(self.primitive.roles, self.columns)}
        return np.asarray(UNIT_FACTORS[self.primitive.kind, self.spec.unit] * self.primitive.function(**roles))

    def unit(self, *, has_spacing: bool) -> str:
        """Return the unit: the declared one, or pixels for a length or area without a trusted spacing."""
        return self.spec.unit if has_spacing else PIXEL_UNITS.get(self.primitive.kind, self.spec.unit)

    def scale(self, schema: LandmarkSchema, *, has_spacing: bool) -> GradeScale | None:
        """Return the grade scale, if any; one that is declared in mm says nothing about pixels."""
        comparable = has_spacing or self.primitive.kind not in PIXEL_UNITS
        return schema.grade(self.spec.grade) if self.spec.grade and comparable else None


def rows(schema: LandmarkSchema) -> Iterator[Row]:
    """Yield every place where a measurement of the schema applies, in the order of the schema.

    Raises:
        SchemaError: a measurement that its primitive cannot make.
    """
    for spec in schema.measurements:
        primitive = _primitive_of(schema, spec)
        for level, names in expand(schema, spec):
            uses = tuple(names[role] for role in primitive.roles)
            yield Row(spec, primitive, level, uses, tuple(schema.index(name) for name in uses))


def check_measurements(schema: LandmarkSchema) -> None:
    """Check that every measurement names a primitive, exactly its roles, and a unit that it can have.

    Raises:
        SchemaError: names the schema and the measurement.
    """
    for spec in schema.measurements:
        _primitive_of(schema, spec)


def _primitive_of(schema: LandmarkSchema, spec: MeasurementSpec) -> Primitive:
    where = f"schema '{schema.name}', measurement '{spec.name}'"
    primitive = PRIMITIVES.get(spec.primitive)
    if primitive is None:
        known = ", ".join(sorted(PRIMITIVES))
        raise SchemaError(f"there is no primitive '{spec.primitive}'", where=where, expected=f"one of {known}")
    if set(spec.points) != set(primitive.roles):
        raise SchemaError(
            f"the points do not fit the primitive '{spec.primitive}'",
            where=where,
            expected=", ".join(primitive.roles),
            got=", ".join(spec.points) or "none",
        )
    if (primitive.kind, spec.unit) not in UNIT_FACTORS:
        units = ", ".join(f"'{unit}'" for kind, unit in UNIT_FACTORS if kind == primitive.kind)
        problem = f"the primitive '{spec.primitive}' gives a {primitive.kind}"
        raise SchemaError(problem, where=where, expected=f"a unit of {units}", got=f"'{spec.unit}'")
    return primitive
