"""Typed settings: a frozen base that refuses unknown names, and YAML with line numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bregma.errors import BregmaError, ConfigError
from bregma.files import write_text

Loc = tuple[int | str, ...]
T = TypeVar("T", bound="Config")


class Config(BaseModel):
    """Base of every settings class: immutable, and an unknown setting is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that YAML and JSON can hold."""
        return self.model_dump(mode="json")


def read_yaml(path: str | Path) -> tuple[Any, dict[Loc, int]]:
    """Read a YAML file safely; return its data and the line of every entry.

    Raises:
        ConfigError: missing, unreadable, broken, or a key that occurs twice; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=path, expected="a YAML file") from error
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> tuple[Any, dict[Loc, int]]:
    """Parse YAML text safely; return its data and the line of every entry."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"is not valid YAML ({reason})", where=f"{where}{line}") from error
    lines: dict[Loc, int] = {}
    if node is not None:
        _collect_lines(node, (), lines, where)
    return data, lines


def _collect_lines(node: yaml.Node, loc: Loc, lines: dict[Loc, int], where: str) -> None:
    lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"the key '{key.value}' occurs twice", where=f"{where}, line {line}")
            seen.add(key.value)
            lines[(*loc, key.value)] = key.start_mark.line + 1
            _collect_lines(value, (*loc, key.value), lines, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*loc, index), lines, where)


def validate(
    cls: type[T],
    data: Any,
    *,
    where: str,
    lines: Mapping[Loc, int] | None = None,
    error: type[BregmaError] = ConfigError,
) -> T:
    """Check ``data`` against a settings class; the first fault is reported with its line and setting."""
    try:
        return cls.model_validate(data)
    except ValidationError as failure:
        first = failure.errors()[0]
        loc = tuple(first["loc"])
        raise error(_problem(cls, first, loc), where=where_line(where, loc, lines or {})) from failure


def where_line(where: str, loc: Loc, lines: Mapping[Loc, int]) -> str:
    """Return ``where`` with the line of ``loc``, or of its nearest enclosing entry that has one."""
    for end in range(len(loc), -1, -1):
        if loc[:end] in lines:
            return f"{where}, line {lines[loc[:end]]}"
    return where


def _problem(cls: type[Config], first: Mapping[str, Any], loc: Loc) -> str:
    setting = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        known = _known_names(cls, loc[:-1])
        return f"unknown setting '{setting}'" + (f" (known here: {', '.join(known)})" if known else "")
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"setting '{setting}': {message}" if setting else message


def _known_names(cls: type[Config], loc: Loc) -> list[str]:
    current: Any = cls
    for part in loc:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return sorted(getattr(current, "model_fields", {}))


def with_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``data`` with ``a.b=value`` settings applied; values are read as YAML scalars or lists.

    Raises:
        ConfigError: an override without ``=``, or a path through something that holds no settings.
    """
    result = _deep_copy(data)
    for item in overrides:
        path, sign, text = item.partition("=")
        if not sign or not path:
            raise ConfigError(
                "cannot be understood", where=f"--set {item}", expected="name=value, e.g. train.epochs=50"
            )
        value, _ = parse_yaml(text, where=f"--set {item}")
        *parents, last = path.strip().split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"'{parent}' holds no settings of its own", where=f"--set {item}")
        target[last] = value
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mapping by mapping."""
    result = _deep_copy(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def save_yaml(path: str | Path, data: Any) -> None:
    """Write plain data as YAML in its given order, all or nothing."""
    write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))


def _deep_copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}
