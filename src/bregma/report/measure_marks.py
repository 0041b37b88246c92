"""Which measurements a picture shows, and in which words and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bregma.geometry import Array
from bregma.measurement import PRIMITIVES
from bregma.report.canvas import MEASURE, Colour
from bregma.report.drawings import DRAWINGS
from bregma.report.measure_pen import MeasurePen
from bregma.report.words import unit_suffix
from bregma.schema import LandmarkSchema, MeasurementSpec
from bregma.types import Measurement

# None of them is the colour of labels, predictions or errors; all are light enough for dark images.
COLOURS: tuple[Colour, ...] = (
    MEASURE,
    (64, 210, 160),
    (236, 150, 200),
    (255, 120, 60),
    (150, 200, 255),
    (190, 230, 110),
    (205, 170, 255),
    (255, 205, 150),
)
"""One a measurement, in the order of the schema; taken again where there are more."""


def draw_measurements(
    pen: MeasurePen, schema: LandmarkSchema, measurements: Sequence[Measurement], points: Mapping[str, Array]
) -> None:
    """Draw every measurement that has a value and all of its landmarks among ``points``.

    Measurements of one geometry (a circumference and the age read off it) are drawn once and written side by side.
    """
    specs = {spec.name: spec for spec in schema.measurements}
    together: dict[tuple[str, tuple[str, ...]], list[Measurement]] = {}
    for found in measurements:
        spec = specs.get(found.name)
        if spec is not None and _is_drawn(found) and all(name in points for name in found.uses):
            together.setdefault((DRAWINGS[spec.primitive].__name__, found.uses), []).append(found)
    names = list(dict.fromkeys(group[0].name for group in together.values()))
    for group in together.values():
        spec = specs[group[0].name]
        placed = {
            role: points[name] for role, name in zip(PRIMITIVES[spec.primitive].roles, group[0].uses, strict=True)
        }
        coloured = replace(pen, colour=COLOURS[names.index(spec.name) % len(COLOURS)])
        words = ", ".join(measurement_text(found, specs[found.name]) for found in group)
        DRAWINGS[spec.primitive](coloured, placed, words)
    pen.finish()


def measurement_text(measurement: Measurement, spec: MeasurementSpec | None = None) -> str:
    """Return name, place, value, unit and grade in a few words, e.g. ``slip L4-L5 31.2 % (II)``."""
    value = f"{measurement.value:.{2 if measurement.unit == '1' else 1}f}{unit_suffix(measurement.unit)}"
    name = spec.short if spec else ""
    grade = f"({measurement.grade})" if measurement.grade else ""
    doubt = "– refer" if measurement.status == "refer" else ""
    return " ".join(part for part in (name, measurement.place, value, grade, doubt) if part)


def _is_drawn(measurement: Measurement) -> bool:
    """Tell whether there is something to draw: a value, and not of a curve that begins and ends at one vertebra."""
    return measurement.value is not None and (measurement.ends is None or measurement.ends[0] != measurement.ends[1])


def drawn_measurements(schema: LandmarkSchema, measurements: Sequence[Measurement], most: int) -> list[Measurement]:
    """Return those to draw: the ones that the schema gives a short name, else the first of the whole image."""
    short = {spec.name for spec in schema.measurements if spec.short}
    known = [found for found in measurements if _is_drawn(found)]
    chosen = [found for found in known if found.name in short]
    if not short:
        chosen = [found for found in known if found.level is None] or known
    return chosen[:most]
