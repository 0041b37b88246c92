"""What the general formats share: a schema from bare names, and JSON checked entry by entry."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bregma.errors import LabelError
from bregma.files import read_json
from bregma.schema import LandmarkSchema, schema_from_dict

T = TypeVar("T")


def schema_from_names(
    names: Sequence[str], *, name: str, where: Path, edges: Iterable[tuple[str, str]] = ()
) -> LandmarkSchema:
    """Make a bare schema from landmark names: no measurements, never flipped, because nothing says that it may be.

    Raises:
        LabelError: a name that cannot name a landmark.
    """
    for text in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text):
            raise LabelError(
                f"'{text}' cannot name a landmark",
                where=where,
                expected="letters, digits and underscores, a letter first",
                fix="rename it, or give a schema (schema=...)",
            )
    identifier = re.sub(r"\W", "_", name)
    return schema_from_dict(
        {
            "name": identifier if identifier[:1].isalpha() else f"labels_{identifier}",
            "title": name,
            "landmarks": [{"name": text, "label": text.replace("_", " ")} for text in names],
            "edges": [list(edge) for edge in edges],
        },
        where=str(where),
    )


def entry(data: Any, key: str, kind: type[T], *, where: str) -> T:
    """Return ``data[key]`` if it is of the kind wanted.

    Raises:
        LabelError: ``data`` is no mapping, the entry is missing, or of another kind.
    """
    if not isinstance(data, Mapping):
        raise LabelError("is not a JSON object", where=where, got=type(data).__name__)
    if key not in data:
        raise LabelError(f"the entry '{key}' is missing", where=where)
    value = data[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise LabelError(
            f"the entry '{key}' is of the wrong kind", where=where, expected=kind.__name__, got=type(value).__name__
        )
    return value


def finite(value: Any, *, where: str, what: str) -> float:
    """Return a JSON number as a finite float.

    Raises:
        LabelError: anything else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise LabelError(f"{what} is not a finite number", where=where, got=repr(value))


def json_in(root: Path, keys: set[str], kind: str) -> Path:
    """Return the JSON file with the given entries: ``root`` itself, or the only such file in it or its ``annotations``.

    Raises:
        LabelError: there is none, or more than one.
        InputError: ``root`` is a file that is not JSON.
    """
    if root.is_file():
        found = [root] if keys <= _top_level(root) else []
    else:
        paths = [*sorted(root.glob("*.json")), *sorted(root.glob("annotations/*.json"))]
        found = [path for path in paths if keys <= _top_level(path)]
    if len(found) == 1:
        return found[0]
    raise LabelError(
        f"does not hold one {kind} file",
        where=root,
        expected=f"a JSON file with {', '.join(sorted(keys))}",
        got=", ".join(path.name for path in found) or "none",
        fix="name the file itself, or choose it (labels=...)",
    )


def _top_level(path: Path) -> set[str]:
    if path.suffix.lower() != ".json":
        return set()
    data = read_json(path)
    return set(data) if isinstance(data, dict) else set()
