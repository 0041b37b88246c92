"""Datasets seen as quantities of whole images: what a table says of a case, or what its landmarks measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bregma.errors import ConfigError, LabelError
from bregma.measurement import measure_landmarks
from bregma.schema import LandmarkSchema, MeasurementSpec, Quantity
from bregma.types import Case, Dataset

_DIMENSION = {"mm": "length", "mm2": "area"}


def in_quantities(dataset: Dataset, names: Sequence[str] = ()) -> Dataset:
    """Return a dataset whose schema has quantities and no landmarks, and whose cases have them as targets.

    A quantity is one that the schema declares, or one of its measurements that is taken once an image; cases without a
    target of that name then have what their labelled landmarks measure. Without spacing a length cannot be known in
    millimetres, and is left out.

    Args:
        dataset: with landmarks or without.
        names: of the quantities; all that the schema declares if empty.

    Raises:
        ConfigError: the schema has nothing of such a name.
    """
    quantities = quantities_of(dataset.schema, names)
    wanted = {quantity.name: quantity for quantity in quantities}
    schema = dataset.schema.model_copy(
        update={
            "quantities": quantities,
            "landmarks": (),
            "mirror_pairs": (),
            "exchangeable": (),
            "chains": (),
            "edges": (),
            "outlines": (),
            "measurements": (),
            "formulas": (),
            "charts": (),
            "reference_length": None,
            "flip": "never" if dataset.schema.flip == "never" else "keep",
        }
    )
    cases = tuple(_case(dataset.schema, case, wanted) for case in dataset)
    return replace(dataset, schema=schema, cases=cases)


def check_shared(schema: LandmarkSchema, cases: Sequence[Case]) -> None:
    """Refuse a subject whose images have different values of a quantity that belongs to the subject.

    A schema with landmarks is none of quantities, whatever else it declares.

    Raises:
        LabelError: names the subject, its images and their values.
    """
    for quantity in schema.quantities if not len(schema) else ():
        if quantity.per != "subject":
            continue
        known: dict[str, Case] = {}
        for case in cases:
            first = known.setdefault(case.subject, case) if quantity.name in case.targets else case
            if first is not case and first.targets[quantity.name] != case.targets[quantity.name]:
                values = (f"{one.targets[quantity.name]:g} ({one.id})" for one in (first, case))
                raise LabelError(
                    f"two images of subject '{case.subject}' have different values of {quantity.name}",
                    where=case.id,
                    expected="one value, since the schema says that it belongs to the subject (per: subject)",
                    got=" and ".join(values),
                    fix="mend the table, or declare the quantity with per: image",
                )


def quantities_of(schema: LandmarkSchema, names: Sequence[str] = ()) -> tuple[Quantity, ...]:
    """Return the quantities of these names, made of measurements where need be; all declared ones without names.

    Raises:
        ConfigError: there is nothing of such a name, or nothing at all.
    """
    declared = {quantity.name: quantity for quantity in schema.quantities}
    measured = {spec.name: spec for spec in schema.measurements if not spec.is_repeated}
    chosen = names or tuple(declared)
    if not chosen:
        raise ConfigError(
            f"the schema '{schema.name}' declares no quantities",
            where="model.codec.quantities",
            expected=f"the names of measurements: {', '.join(measured)}" if measured else "quantities in the schema",
        )
    found = []
    for name in chosen:
        if name in declared:
            found.append(declared[name])
        elif name in measured:
            found.append(_quantity(measured[name]))
        else:
            raise ConfigError(
                f"there is no quantity or measurement '{name}' that an image has once",
                where="model.codec.quantities",
                expected=f"one of {', '.join([*declared, *measured])}",
                got=f"the schema '{schema.name}'",
            )
    return tuple(found)


def _quantity(spec: MeasurementSpec) -> Quantity:
    return Quantity(
        name=spec.name,
        label=spec.label,
        short=spec.short,
        unit=spec.unit,
        dimension=_DIMENSION.get(spec.unit, "none"),
        grade=spec.grade,
        code=spec.code,
        source=spec.source,
    )


def _case(schema: LandmarkSchema, case: Case, wanted: dict[str, Quantity]) -> Case:
    targets = dict(case.targets)
    lacking = wanted.keys() - targets.keys()
    if lacking and case.landmarks is not None and len(schema):
        for one in measure_landmarks(schema, case.landmarks, case.frame, given=case.targets):
            if one.name in lacking and one.value is not None and one.unit == wanted[one.name].unit:
                targets[one.name] = one.value
    return replace(case, landmarks=None, observers={}, targets=targets)
