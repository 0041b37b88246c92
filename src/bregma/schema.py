"""The declaration of an anatomy, from which everything else is derived.

A schema is one YAML file in ``anatomies/`` (or anywhere): landmarks, mirror pairs, exchangeable points, repeated
structures (chains), edges to draw, measurements and grades. A new anatomy needs no Python.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from bregma.config import Config, Loc, read_yaml, validate, where_line
from bregma.curves import Chart, Formula
from bregma.errors import ConfigError, SchemaError

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Code(Config):
    """A coded concept, e.g. SNOMED CT 14806007."""

    scheme: Literal["SCT", "RADLEX", "DCM", "LN", "UCUM", "FMA", "99BREGMA"]
    """SNOMED CT, RadLex, DICOM, LOINC, UCUM, Foundational Model of Anatomy; Bregma's own where none has a code."""
    value: str
    meaning: str


class Landmark(Config):
    """A named anatomical point."""

    name: Name
    label: str
    """The words a clinician would read."""
    code: Code | None = None


class Chain(Config):
    """A repeated structure, such as a spine: the same parts at every level, listed cranial to caudal."""

    name: Name
    levels: tuple[Name, ...] = Field(min_length=1)
    """Level names, cranial to caudal."""
    parts: dict[Name, str] = Field(min_length=1)
    """Part name to label; the landmark of a part is called ``<level>_<part>``."""
    partial: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    """Levels that have only some of the parts, e.g. the sacrum's endplate."""
    optional: tuple[Name, ...] = ()
    """Levels that may lie outside the field of view."""
    anchor: Name | None = None
    """The level from which the others are named when the chain is decoded."""
    named: bool = True
    """False where levels cannot be named and only their order is known."""
    codes: dict[Name, Code] = Field(default_factory=dict)
    """The anatomical structure of a level."""

    @property
    def is_whole(self) -> bool:
        """Whether every image shows all levels, so that their number names them."""
        return self.named and self.anchor is None and not self.optional

    def landmark_name(self, level: str, part: str) -> str:
        """Return the landmark name of ``part`` at ``level``."""
        return f"{level}_{part}"

    def parts_of(self, level: str) -> tuple[str, ...]:
        """Return the parts that ``level`` has."""
        return self.partial.get(level, tuple(self.parts))


class Outline(Config):
    """A closed curve that landmarks draw: so that a network can learn from four points where all of it runs."""

    name: Name
    ellipse: tuple[tuple[Name, Name], tuple[Name, Name]]
    """The ends of both axes of the ellipse."""

    @property
    def ends(self) -> tuple[str, str, str, str]:
        """The landmarks at the ends of the first axis and of the second."""
        return (*self.ellipse[0], *self.ellipse[1])


class GradeScale(Config):
    """Declared thresholds that turn a value into a grade.

    ``labels[i]`` holds from ``edges[i-1]`` up to, and without, ``edges[i]``.
    """

    name: Name
    label: str = ""
    edges: tuple[FiniteFloat, ...] = Field(min_length=1)
    """Ascending thresholds; a value equal to an edge falls into the upper grade."""
    labels: tuple[str, ...]
    absolute: bool = False
    """Grade the magnitude, not the signed value."""
    source: str
    """Where the thresholds come from."""


class MeasurementSpec(Config):
    """A measurement as a row over a primitive of ``bregma.measurement``."""

    name: Name
    label: str
    short: str = ""
    """What it is called on a picture, e.g. ``BPD``; reports draw the measurements that have a short name."""
    primitive: Name
    points: dict[Name, str]
    """Role to landmark name; ``{level}``, ``{upper}`` and ``{lower}`` stand for levels of ``along``."""
    along: Name | None = None
    """Repeat over a chain: once per level (``{level}``) or per pair of neighbours (``{upper}``, ``{lower}``)."""
    between: Name | None = None
    """Take it once, between the two levels of ``along`` that this way of looking finds on the image, e.g. the end
    vertebrae of the main curve; ``{upper}`` and ``{lower}`` stand for them."""
    group: Name | None = None
    """Measurements of one group are scored together, by the figure ``<group>_smape`` of an evaluation."""
    unit: Literal["mm", "mm2", "%", "deg", "1", "wk", "d"]
    """Lengths fall back to pixels, with the reason, when there is no trusted spacing."""
    formula: Name | None = None
    """Read off the length by one of ``formulas``, e.g. gestational age off a head circumference."""
    chart: Name | None = None
    """Give the length's centile on one of ``charts``."""
    convention: str = ""
    """How the landmarks bound the structure, where measures of one name differ in it, e.g. ``outer to outer``."""
    grade: Name | None = None
    code: Code | None = None
    source: str = ""
    """Where the definition comes from (paper, textbook)."""

    @property
    def is_repeated(self) -> bool:
        """Whether one image has a value of it at every level."""
        return self.along is not None and self.between is None


DIMENSIONS = {"none": 0, "length": 1, "area": 2}
"""How a quantity grows with a length."""


class Population(Config):
    """The people from whom the scores of a quantity are counted."""

    name: str
    """Who they are, e.g. ``women of 20 to 29 years, NHANES III``."""
    mean: FiniteFloat
    sd: Annotated[FiniteFloat, Field(gt=0)]
    source: str


class Threshold(Config):
    """A value of a quantity at which something is decided."""

    name: Name
    label: str
    """What lies on the side that is looked for, e.g. ``T-score of -2.5 or less``."""
    at_most: FiniteFloat | None = None
    """Looked for are values up to this one."""
    at_least: FiniteFloat | None = None
    """Looked for are values from this one on; either this or ``at_most`` is given."""
    of: Literal["value", "t_score"] = "value"
    """What it is a threshold of: the quantity itself, or its T-score."""
    sensitivity: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 0.9
    """For which share of those looked for a cut-off on the predictions is given, with the specificity that is left."""
    source: str = ""

    @property
    def is_upper(self) -> bool:
        """Whether values up to the threshold are looked for."""
        return self.at_most is not None

    def value(self, quantity: Quantity) -> float:
        """Return the threshold as a value of its quantity."""
        given = self.at_most if self.at_most is not None else self.at_least
        if given is None or (self.of == "t_score" and quantity.t_score is None):
            raise SchemaError("is not declared in full", where=f"threshold '{self.name}'")
        people = quantity.t_score
        return given if self.of == "value" or people is None else people.mean + given * people.sd


class Quantity(Config):
    """A clinical quantity that belongs to a whole image or volume, and that a network reads from it directly."""

    name: Name
    """Cases have it as the target of this name."""
    label: str
    short: str = ""
    unit: str = Field(min_length=1)
    dimension: Literal["none", "length", "area"] = "none"
    """How the number of pixels that it spans gives it: a ``length`` (in mm) or an ``area`` (in mm2) is learned in
    pixels, and becomes millimetres by the image's own spacing alone; ``none`` is learned as it is."""
    per: Literal["image", "subject"] = "image"
    """Whether every image has a value of its own, or all images of a subject have the same: then an epoch shows one
    image of each subject, and what is predicted on a subject's images is averaged before it is scored."""
    grade: Name | None = None
    t_score: Population | None = None
    """Young adults: the T-score is how many of their standard deviations a value lies above their mean."""
    thresholds: tuple[Threshold, ...] = ()
    """Where an evaluation asks how well predictions tell the two sides apart."""
    code: Code | None = None
    source: str = ""


class LandmarkSchema(Config):
    """One anatomy: its landmarks and all that is derived from them."""

    name: Name
    title: str
    version: int = Field(default=1, ge=1)
    description: str = ""
    view: str = ""
    """Modality and projection, e.g. ``radiograph, lateral``."""
    landmarks: tuple[Landmark, ...] = ()
    """In YAML, landmarks of chains need not be listed: they are derived and follow the ones listed."""
    mirror_pairs: tuple[tuple[Name, Name], ...] = ()
    """Left/right partners, swapped whenever the image is flipped."""
    flip: Literal["swap", "keep", "never"] = "never"
    """What a horizontal flip does to names: ``swap`` the mirror pairs; ``keep`` them (a profile seen from the other
    side); ``never`` flip, because the mirrored image would be another anatomy."""
    exchangeable: tuple[tuple[Name, ...], ...] = ()
    """Sets of points that cannot be told apart, e.g. the two ends of a diameter."""
    chains: tuple[Chain, ...] = ()
    edges: tuple[tuple[Name, Name], ...] = ()
    """Lines to draw."""
    outlines: tuple[Outline, ...] = ()
    """Curves that landmarks draw, such as the ellipse of which they are the ends of the axes."""
    measurements: tuple[MeasurementSpec, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    """What is known of an image as a number, such as a bone mineral density from another examination."""
    grades: tuple[GradeScale, ...] = ()
    formulas: tuple[Formula, ...] = ()
    """Published equations that measurements are read off by."""
    charts: tuple[Chart, ...] = ()
    """Published charts that give a measurement's centile."""
    reference_length: tuple[Name, Name, Annotated[FiniteFloat, Field(gt=0)]] | None = None
    """Two landmarks and the millimetres the literature takes their distance to be; used only when asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        """Landmark names in array order."""
        return tuple(landmark.name for landmark in self.landmarks)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def __bool__(self) -> bool:
        """True: a schema without landmarks, which has length 0, is one all the same."""
        return True

    def __len__(self) -> int:
        return len(self.landmarks)

    def __repr__(self) -> str:
        return f"LandmarkSchema({self.name!r}, {len(self)} landmarks)"

    __str__ = __repr__

    def index(self, name: str) -> int:
        """Return the position of a landmark in point arrays.

        Raises:
            SchemaError: no landmark of that name.
        """
        try:
            return self._positions[name]
        except KeyError:
            raise SchemaError(f"has no landmark '{name}'", where=f"schema '{self.name}'") from None

    @cached_property
    def flip_permutation(self) -> tuple[int, ...]:
        """Index array ``p`` such that after a horizontal flip landmark ``i`` is where landmark ``p[i]`` was."""
        order = list(range(len(self)))
        if self.flip == "swap":
            for left, right in self.mirror_pairs:
                i, j = self.index(left), self.index(right)
                order[i], order[j] = j, i
        return tuple(order)

    def chain(self, name: str) -> Chain:
        """Return the chain of that name."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        raise SchemaError(f"has no chain '{name}'", where=f"schema '{self.name}'")

    def quantity(self, name: str) -> Quantity:
        """Return the quantity of that name."""
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        raise SchemaError(f"has no quantity '{name}'", where=f"schema '{self.name}'")

    @property
    def grades_of(self) -> dict[str, str]:
        """The grade scale of each measurement and quantity that has one, by name."""
        specs: tuple[MeasurementSpec | Quantity, ...] = (*self.measurements, *self.quantities)
        return {spec.name: spec.grade for spec in specs if spec.grade is not None}

    def grade(self, name: str) -> GradeScale:
        """Return the grade scale of that name."""
        for scale in self.grades:
            if scale.name == name:
                return scale
        raise SchemaError(f"has no grade scale '{name}'", where=f"schema '{self.name}'")

    def formula(self, name: str) -> Formula:
        """Return the published equation of that name."""
        for formula in self.formulas:
            if formula.name == name:
                return formula
        raise SchemaError(f"has no formula '{name}'", where=f"schema '{self.name}'")

    def chart(self, name: str) -> Chart:
        """Return the published chart of that name."""
        for chart in self.charts:
            if chart.name == name:
                return chart
        raise SchemaError(f"has no chart '{name}'", where=f"schema '{self.name}'")


def builtin_schemas() -> tuple[str, ...]:
    """Names of the anatomies shipped with Bregma."""
    folder = resources.files("bregma") / "anatomies"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_schema(source: str | Path) -> LandmarkSchema:
    """Load a schema by the name of a built-in anatomy or from a YAML file.

    Raises:
        SchemaError: unknown name, a file that cannot be read, or a declaration that contradicts itself; names the file
            and line.
    """
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"}:
        if str(source) not in builtin_schemas():
            known = ", ".join(builtin_schemas())
            raise SchemaError(f"there is no built-in anatomy '{source}'", expected=f"one of {known}, or a .yaml file")
        path = Path(str(resources.files("bregma") / "anatomies" / f"{source}.yaml"))
    try:
        data, lines = read_yaml(path)
    except ConfigError as error:
        raise SchemaError(error.problem, where=error.where, expected=error.expected) from error
    return schema_from_dict(data, where=str(path), lines=lines)


def schema_from_dict(data: Any, *, where: str, lines: dict[Loc, int] | None = None) -> LandmarkSchema:
    """Build a schema from plain data: derive the chains' landmarks and check every cross-reference.

    Raises:
        SchemaError: names ``where``, with the line when ``lines`` are given.
    """
    if not isinstance(data, dict):
        raise SchemaError("holds no settings", where=where, expected="a mapping with name, title and landmarks")
    schema = validate(LandmarkSchema, data, where=where, lines=lines, error=SchemaError)
    declared = set(schema.names)
    derived = [point for chain in schema.chains for point in _chain_landmarks(chain) if point.name not in declared]
    if derived:
        schema = schema.model_copy(update={"landmarks": (*schema.landmarks, *derived)})
    for loc, problem in _faults(schema):
        raise SchemaError(problem, where=where_line(where, loc, lines or {}))
    return schema


def _chain_landmarks(chain: Chain) -> Iterator[Landmark]:
    for level in chain.levels:
        for part in chain.parts_of(level):
            label = chain.parts.get(part, part)
            yield Landmark(name=chain.landmark_name(level, part), label=f"{level} {label}", code=chain.codes.get(level))


def _faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    yield from _repeated_names(schema)
    yield from _chain_faults(schema)
    yield from _landmark_faults(schema)
    yield from _pair_faults(schema)
    yield from _outline_faults(schema)
    yield from _grade_faults(schema)
    yield from _measurement_faults(schema)
    yield from _quantity_faults(schema)
    yield from _reading_faults(schema)


def _repeated_names(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    kinds = {"chains": "chain", "measurements": "measurement", "grades": "grade scale", "outlines": "outline"}
    kinds["quantities"] = "quantity"
    for field, what in (kinds | {"formulas": "formula", "charts": "chart"}).items():
        seen: set[str] = set()
        for index, entry in enumerate(getattr(schema, field)):
            if entry.name in seen:
                yield (field, index, "name"), f"there is another {what} '{entry.name}'"
            seen.add(entry.name)


def _landmark_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    if not schema.landmarks and not schema.quantities:
        yield (), "declares no landmarks, no chains and no quantities"
    for name, count in Counter(schema.names).items():
        if count > 1:
            last = max(i for i, known in enumerate(schema.names) if known == name)
            yield ("landmarks", last), f"the landmark '{name}' is declared {count} times"
    groups: list[tuple[str, tuple[tuple[Any, ...], ...]]] = [
        ("mirror_pairs", schema.mirror_pairs),
        ("exchangeable", schema.exchangeable),
        ("edges", schema.edges),
    ]
    if schema.reference_length:
        groups.append(("reference_length", (schema.reference_length[:2],)))
        if schema.reference_length[0] == schema.reference_length[1]:
            yield ("reference_length",), "reference_length needs two different landmarks"
    known = set(schema.names)
    for field, members in groups:
        for index, member in enumerate(members):
            for name in member:
                if name not in known:
                    yield (field, index), f"'{name}' in {field} is not a landmark of this schema"


def _pair_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    for field in ("mirror_pairs", "exchangeable"):
        seen: set[str] = set()
        for index, member in enumerate(getattr(schema, field)):
            if len(set(member)) < max(2, len(member)):
                yield (field, index), f"{list(member)} in {field} needs at least two different landmarks"
            for name in member:
                if name in seen:
                    yield (field, index), f"'{name}' occurs in {field} twice; a point has one partner"
                seen.add(name)
    if schema.flip == "swap" and not schema.mirror_pairs:
        yield ("flip",), "flip is 'swap' but no mirror_pairs are declared"


def _outline_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    known = set(schema.names)
    for index, outline in enumerate(schema.outlines):
        loc: Loc = ("outlines", index, "ellipse")
        for name, count in Counter(outline.ends).items():
            if name not in known:
                yield loc, f"the outline '{outline.name}' needs '{name}', which is not a landmark"
            if count > 1:
                yield loc, f"the outline '{outline.name}' needs '{name}' {count} times; axes have four different ends"


def _chain_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    owners: dict[str, str] = {}
    for index, chain in enumerate(schema.chains):
        loc: Loc = ("chains", index)
        for level, count in Counter(chain.levels).items():
            if count > 1:
                yield (*loc, "levels"), f"the level '{level}' of chain '{chain.name}' is listed {count} times"
        for point in _chain_landmarks(chain):
            if owners.setdefault(point.name, chain.name) != chain.name:
                yield loc, f"'{point.name}' belongs to the chains '{owners[point.name]}' and '{chain.name}'"
        named = {"partial": chain.partial, "optional": chain.optional, "codes": chain.codes}
        for field, levels in named.items():
            for level in levels:
                if level not in chain.levels:
                    yield (*loc, field), f"'{level}' is not a level of chain '{chain.name}'"
        for level, parts in chain.partial.items():
            if not parts:
                yield (*loc, "partial", level), f"the level '{level}' of chain '{chain.name}' has no parts"
            for part in set(parts) - set(chain.parts):
                yield (*loc, "partial", level), f"'{part}' is not a part of chain '{chain.name}'"
        if chain.anchor and chain.anchor not in chain.levels:
            yield (*loc, "anchor"), f"the anchor '{chain.anchor}' is not a level of chain '{chain.name}'"


def _grade_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    for index, scale in enumerate(schema.grades):
        if len(scale.labels) != len(scale.edges) + 1:
            yield ("grades", index), f"grade '{scale.name}' needs one label more than it has edges"
        if list(scale.edges) != sorted(set(scale.edges)):
            yield ("grades", index, "edges"), f"the edges of grade '{scale.name}' must ascend"
        if scale.absolute and scale.edges[0] <= 0:
            yield ("grades", index, "edges"), f"grade '{scale.name}' grades magnitudes, so its edges must be positive"


def _measurement_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    chains = {chain.name: chain for chain in schema.chains}
    grades = {scale.name for scale in schema.grades}
    for index, spec in enumerate(schema.measurements):
        loc: Loc = ("measurements", index)
        if spec.along is not None and spec.along not in chains:
            yield (*loc, "along"), f"measurement '{spec.name}' goes along '{spec.along}', which is not a chain"
            continue
        if spec.grade is not None and spec.grade not in grades:
            yield (*loc, "grade"), f"measurement '{spec.name}' uses the grade '{spec.grade}', which is not declared"
        if spec.between is not None and spec.along is None:
            yield (*loc, "between"), f"measurement '{spec.name}' lies between levels but goes along no chain"
            continue
        if spec.along is not None and not any("{" in text for text in spec.points.values()):
            yield (*loc, "points"), f"measurement '{spec.name}' goes along a chain but names no {{level}}"
        if not any(True for _ in expand(schema, spec)):
            yield loc, f"measurement '{spec.name}' fits no landmarks of this schema"
        if spec.along is None:
            for role, name in spec.points.items():
                if name not in schema.names:
                    yield (*loc, "points", role), f"measurement '{spec.name}' needs '{name}', which is not a landmark"


def _quantity_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    grades, measured = {scale.name for scale in schema.grades}, {spec.name for spec in schema.measurements}
    for index, quantity in enumerate(schema.quantities):
        loc: Loc = ("quantities", index)
        if quantity.grade is not None and quantity.grade not in grades:
            yield (
                (*loc, "grade"),
                f"quantity '{quantity.name}' uses the grade '{quantity.grade}', which is not declared",
            )
        if quantity.name in measured:
            yield (*loc, "name"), f"'{quantity.name}' is a measurement too; one value cannot have two sources"
        wanted = {"length": "mm", "area": "mm2"}.get(quantity.dimension)
        if wanted is not None and quantity.unit != wanted:
            yield (*loc, "unit"), f"quantity '{quantity.name}' is a {quantity.dimension}, so its unit is {wanted}"
        yield from _threshold_faults(quantity, (*loc, "thresholds"))


def _threshold_faults(quantity: Quantity, loc: Loc) -> Iterator[tuple[Loc, str]]:
    seen: set[str] = set()
    for index, threshold in enumerate(quantity.thresholds):
        own = (*loc, index)
        if threshold.name in seen:
            yield (*own, "name"), f"two thresholds of '{quantity.name}' are called '{threshold.name}'"
        seen.add(threshold.name)
        if (threshold.at_most is None) == (threshold.at_least is None):
            yield own, f"threshold '{threshold.name}' needs one of at_most and at_least"
        if threshold.of == "t_score" and quantity.t_score is None:
            yield (
                (*own, "of"),
                f"threshold '{threshold.name}' is one of a T-score, and '{quantity.name}' declares no population",
            )


def _reading_faults(schema: LandmarkSchema) -> Iterator[tuple[Loc, str]]:
    known: dict[str, dict[str, Formula | Chart]] = {
        "formula": {formula.name: formula for formula in schema.formulas},
        "chart": {chart.name: chart for chart in schema.charts},
    }
    for index, spec in enumerate(schema.measurements):
        loc: Loc = ("measurements", index)
        if spec.formula and spec.chart:
            yield loc, f"measurement '{spec.name}' names a formula and a chart; it can be read off one of them"
        for field, name in (("formula", spec.formula), ("chart", spec.chart)):
            if name is None:
                continue
            if name not in known[field]:
                yield (*loc, field), f"measurement '{spec.name}' uses the {field} '{name}', which is not declared"
            elif known[field][name].convention != spec.convention:
                needed = known[field][name].convention or "none"
                problem = f"measurement '{spec.name}' has the convention '{spec.convention or 'none'}'"
                yield (*loc, "convention"), f"{problem}, and its {field} '{name}' needs '{needed}'"


def expand(schema: LandmarkSchema, spec: MeasurementSpec) -> Iterator[tuple[str | None, dict[str, str]]]:
    """Yield ``(level, role -> landmark name)`` for every place where a measurement applies.

    A measurement along a chain is repeated per level or, where its points name ``{upper}`` and ``{lower}``, per pair of
    neighbours (``level`` is then ``"L4-L5"``); places where a level lacks a part are left out. One that lies
    ``between`` levels can apply to any two of them, or to one twice.
    """
    known = set(schema.names)
    for level, names in _places(schema, spec):
        if spec.along is None or all(name in known for name in names.values()):
            yield level, names


def _places(schema: LandmarkSchema, spec: MeasurementSpec) -> Iterator[tuple[str | None, dict[str, str]]]:
    if spec.along is None:
        yield None, dict(spec.points)
        return
    levels = schema.chain(spec.along).levels
    if any("{upper}" in text or "{lower}" in text for text in spec.points.values()):
        pairs = pairwise(levels) if spec.between is None else combinations_with_replacement(levels, 2)
        for upper, lower in pairs:
            names = {role: t.replace("{upper}", upper).replace("{lower}", lower) for role, t in spec.points.items()}
            yield f"{upper}-{lower}", names
    else:
        for level in levels:
            yield level, {role: text.replace("{level}", level) for role, text in spec.points.items()}
