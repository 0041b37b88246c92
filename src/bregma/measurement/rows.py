"""A schema's measurements as rows that can be computed: each place where one applies, with its primitive and unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bregma.curves import Chart, Formula
from bregma.errors import SchemaError
from bregma.geometry import Array
from bregma.measurement.primitives import Kind, Primitive
from bregma.measurement.reading import centile, read_off
from bregma.measurement.spinal_curves import CURVES
from bregma.measurement.table import PRIMITIVES
from bregma.schema import Chain, GradeScale, LandmarkSchema, MeasurementSpec, expand

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

READ_UNITS: dict[str, tuple[str, ...]] = {"formula": ("wk", "d"), "chart": ("%",)}
"""Units of what is read off a length."""


@dataclass(frozen=True)
class Row:
    """One measurement at one place.

    Attributes:
        spec: the declaration.
        primitive: the function behind it.
        level: where along a chain, or None.
        uses: landmark names in the order of the primitive's roles.
        columns: their positions in point arrays.
        formula: the published equation that reads the value off the primitive's length, if any.
        chart: the published chart that gives its centile, if any.
        ends: the levels between which it was found to lie on the image, or None where its place is always the same.
    """

    spec: MeasurementSpec
    primitive: Primitive
    level: str | None
    uses: tuple[str, ...]
    columns: tuple[int, ...]
    formula: Formula | None = None
    chart: Chart | None = None
    ends: tuple[str, str] | None = None

    @property
    def is_read(self) -> bool:
        """Whether the value is read off a length, which then must be in mm."""
        return self.formula is not None or self.chart is not None

    def quantity(self, points: Array) -> Array:
        """Return what the primitive gives ``(...)`` for points ``(..., N, 2)``, NaN where degenerate."""
        roles = {role: points[..., column, :] for role, column in zip(self.primitive.roles, self.columns)}
        return np.asarray(self.primitive.function(**roles))

    def compute(self, points: Array, given: Mapping[str, float]) -> Array:
        """Return the values ``(...)`` of points ``(..., N, 2)`` in the declared unit, NaN where degenerate.

        Args:
            points: in mm where there is a spacing.
            given: what is known of the case from elsewhere, by name, which a chart may need.
        """
        quantity = self.quantity(points)
        if self.formula is not None:
            return read_off(self.formula, quantity, self.spec.unit)
        if self.chart is not None:
            return centile(self.chart, quantity, given[self.chart.by])
        return np.asarray(UNIT_FACTORS[self.primitive.kind, self.spec.unit] * quantity)

    def unit(self, *, has_spacing: bool) -> str:
        """Return the unit: the declared one, or pixels for a length or area without a trusted spacing."""
        if has_spacing or self.is_read:
            return self.spec.unit
        return PIXEL_UNITS.get(self.primitive.kind, self.spec.unit)

    def scale(self, schema: LandmarkSchema, *, has_spacing: bool) -> GradeScale | None:
        """Return the grade scale, if any; one that is declared in mm says nothing about pixels."""
        comparable = has_spacing or self.primitive.kind not in PIXEL_UNITS
        return schema.grade(self.spec.grade) if self.spec.grade and comparable else None


def rows(schema: LandmarkSchema, spec: MeasurementSpec) -> Iterator[Row]:
    """Yield every place where a measurement of the schema applies; for one ``between`` levels, where it could.

    Raises:
        SchemaError: a measurement that its primitive cannot make.
    """
    for level, names in expand(schema, spec):
        yield row_at(schema, spec, level, names)


def row_at(schema: LandmarkSchema, spec: MeasurementSpec, level: str | None, names: Mapping[str, str]) -> Row:
    """Return a measurement at one place, given the landmark of each role.

    Raises:
        SchemaError: a measurement that its primitive cannot make.
    """
    primitive = _primitive_of(schema, spec)
    uses = tuple(names[role] for role in primitive.roles)
    return Row(
        spec=spec,
        primitive=primitive,
        level=level,
        uses=uses,
        columns=tuple(schema.index(name) for name in uses),
        formula=None if spec.formula is None else schema.formula(spec.formula),
        chart=None if spec.chart is None else schema.chart(spec.chart),
    )


def check_measurements(schema: LandmarkSchema) -> None:
    """Check that every measurement names a primitive, exactly its roles, and a unit that it can have.

    Raises:
        SchemaError: names the schema and the measurement.
    """
    for spec in schema.measurements:
        _primitive_of(schema, spec)
        if spec.between is not None and spec.along is not None:
            _check_between(schema, spec, schema.chain(spec.along))


def _check_between(schema: LandmarkSchema, spec: MeasurementSpec, chain: Chain) -> None:
    where = f"schema '{schema.name}', measurement '{spec.name}'"
    if spec.between not in CURVES:
        known = ", ".join(CURVES)
        problem = f"there is no way '{spec.between}' to find two levels"
        raise SchemaError(problem, where=where, expected=f"one of {known}")
    if len(chain.levels) < 2 or any(len(chain.parts_of(level)) != 4 for level in chain.levels):
        problem = f"the chain '{chain.name}' does not show curves"
        raise SchemaError(problem, where=where, expected="two levels or more, each with four corners")


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
    read = "formula" if spec.formula else "chart" if spec.chart else None
    if read and primitive.kind != "length":
        problem = f"a {read} reads off lengths, but the primitive '{spec.primitive}' gives a {primitive.kind}"
        raise SchemaError(problem, where=where, expected="a primitive that gives a length")
    units = READ_UNITS[read] if read else tuple(unit for kind, unit in UNIT_FACTORS if kind == primitive.kind)
    if spec.unit not in units:
        gives = _READ_GIVES[read] if read else f"the primitive '{spec.primitive}' gives a {primitive.kind}"
        expected = "a unit of " + ", ".join(f"'{unit}'" for unit in units)
        raise SchemaError(gives, where=where, expected=expected, got=f"'{spec.unit}'")
    return primitive


_READ_GIVES = {"formula": "a formula gives a time", "chart": "a chart gives a centile"}
