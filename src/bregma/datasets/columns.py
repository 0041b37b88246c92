"""How a CSV table holds landmarks: a declaration, and a guess at one that can be shown and corrected."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bregma.config import Config, read_yaml, validate
from bregma.datasets.tables import Row
from bregma.errors import LabelError
from bregma.io import Plane
from bregma.schema import LandmarkSchema

log = logging.getLogger(__name__)

_IMAGE = ("image", "image_name", "image_path", "image_file", "imagename", "file", "filename", "file_name", "file_path")
_IMAGE_LAST = ("path", "img", "name", "id")
_SUBJECT = ("subject", "subject_id", "patient", "patient_id", "participant", "participant_id")
_LANDMARK = ("landmark", "landmark_name", "point", "keypoint", "label")
_SPACING = (("spacing_x", "spacing_y"), ("spacing", "spacing"), ("pixel_spacing", "pixel_spacing"))
_ROLES = {"case": ("case", "case_id"), "split": ("split",), "frame": ("frame", "frame_number"), "status": ("status",)}
_UNIT = re.compile(r".*[_ ](mm2?|cm[23]?|ml|deg|percent|ratio)$")
_AXIS = re.compile(r"(?P<stem>.*?)(?P<join>[_ .\-]?)(?P<axis>[xX])(?P<number>\d*)$")


class Columns(Config):
    """Which column of a table holds what.

    A wide table has one row an image and two columns a landmark; a long one has a row for each landmark of each image.
    """

    layout: Literal["wide", "long"] = "wide"
    image: str
    """File name, or path from the images' folder."""
    points: dict[str, tuple[str, str] | tuple[str, str, str]] = Field(default_factory=dict)
    """Wide: landmark to its x and y columns and, if there is one, its status column."""
    landmark: str | None = None
    """Long: the column with the landmark's name."""
    x: str = "x"
    y: str = "y"
    status: str | None = None
    """Long: visible, occluded, outside or unlabelled."""
    case: str | None = None
    """The case's id; without it the image's name serves."""
    subject: str | None = None
    """The person; without it every image counts as another one."""
    split: str | None = None
    """The published split to which a row belongs."""
    spacing: tuple[str, str] | None = None
    """Millimetres per pixel along x and y; one column may be named twice."""
    frame: str | None = None
    """Which frame of a multi-frame file, from 0."""
    plane: Plane | None = None
    """Of volumes: the plane in which their slices lie."""
    targets: tuple[str, ...] = ()
    """Columns with clinical quantities."""
    tags: tuple[str, ...] = ()
    """Columns with other facts."""
    units: Literal["pixels", "fractions"] = "pixels"
    """Whether coordinates are pixels or fractions of the image's width and height."""
    origin: float = 0.0
    """What the table calls the centre of the top-left pixel: 0, 1 (MATLAB) or 0.5 (pixel edges at whole numbers)."""
    delimiter: str | None = None
    """One character; None finds it out."""
    decimal: Literal[".", ","] = "."

    @model_validator(mode="after")
    def _complete(self) -> Columns:
        if self.layout == "wide" and not self.points and not self.targets:
            raise ValueError("a wide table needs 'points': landmark -> [x column, y column], or 'targets'")
        if self.layout == "long" and self.landmark is None:
            raise ValueError("a long table needs 'landmark', the column with the landmark's name")
        return self

    def used(self) -> list[str]:
        """Return every column that the declaration names."""
        single = (self.image, self.case, self.subject, self.split, self.frame)
        names = [name for name in single if name is not None]
        names += [*(self.spacing or ()), *self.targets, *self.tags]
        if self.layout == "wide":
            return names + [column for columns in self.points.values() for column in columns]
        return names + [name for name in (self.landmark, self.x, self.y, self.status) if name is not None]

    def describe(self) -> str:
        """Return the declaration in a few readable lines."""
        lines = [f"{self.layout} table, {self.units}", f"image: {self.image}"]
        roles = ("case", "subject", "split", "frame", "landmark", "status")
        lines += [f"{role}: {getattr(self, role)}" for role in roles if getattr(self, role) is not None]
        if self.subject is None:
            lines.append("subject: no column, so that every image counts as another person")
        if self.plane is not None:
            lines.append(f"plane: {self.plane}")
        if self.points:
            lines.append("points: " + ", ".join(f"{name} <- {'/'.join(used)}" for name, used in self.points.items()))
        lines += [
            f"{role}: {', '.join(used)}" for role in ("spacing", "targets", "tags") if (used := getattr(self, role))
        ]
        return "\n".join(lines)


def load_columns(source: Columns | Mapping[str, Any] | str | Path) -> Columns:
    """Return a declaration given as such, as plain data, or as a YAML or JSON file.

    Raises:
        ConfigError: an unknown setting or a wrong value; names the line.
    """
    if isinstance(source, Columns):
        return source
    if isinstance(source, Mapping):
        return validate(Columns, dict(source), where="columns")
    data, lines = read_yaml(source)
    return validate(Columns, data, where=str(source), lines=lines)


def guess_columns(rows: Sequence[Row], schema: LandmarkSchema | None = None) -> Columns:
    """Guess the declaration of a table from its header, and the units from its values.

    Args:
        rows: all rows of the table, with a header.
        schema: the anatomy whose landmarks are looked for; None takes whatever landmarks there are.

    Raises:
        LabelError: no column for the image, no landmarks, or landmarks that are not the schema's.
    """
    header, where = rows[0].header, rows[0].path
    image = _pick(header, _IMAGE) or _pick(header, _IMAGE_LAST)
    if image is None:
        raise LabelError(
            "no column seems to name the image",
            where=where,
            expected=f"one of {', '.join(_IMAGE[:6])}",
            got=f"the columns {', '.join(header[:8])}",
            fix="rename the column, or declare the columns (columns=...)",
        )
    landmark = _pick(header, _LANDMARK)
    long = landmark is not None and {"x", "y"} <= {name.lower() for name in header}
    quantities = _quantities(header, where, schema)
    marks = _long(header, landmark) if long and not quantities else _wide(header, where, schema)
    roles = {role: _pick(header, names) for role, names in _ROLES.items() if long or role != "status"}
    spacing = next((pair for pair in _SPACING if set(pair) <= set(header)), None)
    data = {"image": image, "subject": _pick(header, _SUBJECT), "spacing": spacing, "targets": quantities}
    data |= {**roles, **marks}
    columns = Columns.model_validate(data)
    used = set(columns.used())
    rest = [name for name in header if name and name not in used]
    targets = (*quantities, *(name for name in rest if _UNIT.match(name)))
    tags = tuple(name for name in rest if name not in targets)
    return columns.model_copy(update={"targets": targets, "tags": tags, "units": _units(rows, columns)})


def subject_columns(header: Sequence[str], *, where: str | Path) -> tuple[str, str]:
    """Return the columns of a table that name the image and its subject.

    Raises:
        LabelError: there is none; names the columns that are there.
    """
    image, subject = _pick(header, (*_IMAGE, *_ROLES["case"])), _pick(header, _SUBJECT)
    if image is not None and subject is not None:
        return image, subject
    role, names = ("image", _IMAGE) if image is None else ("subject", _SUBJECT)
    raise LabelError(
        f"no column seems to name the {role}",
        where=where,
        expected=f"one of {', '.join(names[:4])}",
        got=f"the columns {', '.join(header[:8])}",
    )


def _pick(header: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {column.lower(): column for column in header}
    return next((lower[name] for name in names if name in lower), None)


def _long(header: Sequence[str], landmark: str | None) -> dict[str, Any]:
    return {"layout": "long", "landmark": landmark, "x": _pick(header, ("x",)), "y": _pick(header, ("y",))}


def _wide(header: Sequence[str], where: Path, schema: LandmarkSchema | None) -> dict[str, Any]:
    if schema is not None and not len(schema):
        return {"layout": "wide", "points": {}}
    pairs = _pairs(header)
    if not pairs:
        raise LabelError(
            "no pairs of x and y columns are found",
            where=where,
            expected="columns such as nasion_x, nasion_y",
            got=f"the columns {', '.join(header[:8])}",
            fix="rename the columns, or declare them (columns=...)",
        )
    return {"layout": "wide", "points": pairs if schema is None else _fit(pairs, schema, where)}


def _quantities(header: Sequence[str], where: Path, schema: LandmarkSchema | None) -> tuple[str, ...]:
    """Return the columns of the schema's quantities; one that has no landmarks needs at least one of them."""
    names = () if schema is None else tuple(quantity.name for quantity in schema.quantities)
    found = tuple(name for name in names if name in header)
    if schema is not None and not len(schema) and not found:
        raise LabelError(
            f"no column has a quantity of the schema '{schema.name}'",
            where=where,
            expected=f"columns called {', '.join(names)}",
            got=f"the columns {', '.join(header[:8])}",
            fix="rename the column, or the quantity in the schema",
        )
    return found


def _pairs(header: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Find ``name_x``/``name_y``, ``nameX``/``nameY`` and ``x1``/``y1``; a ``name_status`` beside them counts too."""
    known = set(header)
    pairs: dict[str, tuple[str, ...]] = {}
    for column in header:
        match = _AXIS.fullmatch(column)
        if match is None or (match["stem"] and match["number"]):
            continue
        start = match.start("axis")
        partner = column[:start] + ("y" if column[start] == "x" else "Y") + column[start + 1 :]
        name = match["stem"] or match["number"]
        if partner in known and name and name != "spacing":
            status = f"{name}_status"
            pairs[name] = (column, partner, status) if status in known else (column, partner)
    return pairs


def _fit(pairs: Mapping[str, tuple[str, ...]], schema: LandmarkSchema, where: Path) -> dict[str, tuple[str, ...]]:
    """Match the pairs to the schema's landmarks by name or, where they are only numbered, by order."""
    lower = {name.lower(): columns for name, columns in pairs.items()}
    found = {name: lower[name.lower()] for name in schema.names if name.lower() in lower}
    if len(found) == len(schema) == len(pairs):
        return found
    numbered = all(re.search(r"\d+$", name) for name in pairs)
    if not found and numbered and len(pairs) == len(schema):
        return dict(zip(schema.names, pairs.values()))
    missing = [name for name in schema.names if name not in found]
    extra = [name for name in pairs if name.lower() not in {n.lower() for n in schema.names}]
    raise LabelError(
        f"the landmarks do not fit the schema '{schema.name}'"
        + (f"; without columns: {', '.join(missing[:6])}" if missing else "")
        + (f"; unknown: {', '.join(extra[:6])}" if extra else ""),
        where=where,
        expected=f"{len(schema)} landmarks",
        got=str(len(pairs)),
        fix="choose another schema, rename the columns, or declare them (columns=...)",
    )


def _units(rows: Sequence[Row], columns: Columns) -> Literal["pixels", "fractions"]:
    """Coordinates that never leave 0 to 1 are fractions; so small an image does not exist."""
    pairs = list(columns.points.values()) if columns.layout == "wide" else [(columns.x, columns.y)]
    texts = [row.text(name) for row in rows for pair in pairs for name in pair[:2]]
    numbers = [float(text) for text in texts if re.fullmatch(r"\d+(\.\d+)?([eE][+-]?\d+)?", text)]
    filled = [text for text in texts if text]
    return "fractions" if filled and len(numbers) == len(filled) and max(numbers) <= 1.0 else "pixels"
