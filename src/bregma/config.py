"""Typed settings: a frozen base that refuses unknown names, and YAML with line numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

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
    """Parse YAML text safely; return its data and the line of every entry.

    Raises:
        ConfigError: broken, nested without end, or a key that occurs twice; names the line.
    """
    lines: dict[Loc, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _collect_lines(node, (), lines, where, ())
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"is not valid YAML ({reason})", where=f"{where}{line}") from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", where=where) from error
    except ValueError as error:
        # PyYAML lets the faults of dates and numbers through, such as the 13th month.
        raise ConfigError(f"holds a value that cannot be read ({error})", where=where) from error


def _collect_lines(
    node: yaml.Node, loc: Loc, lines: dict[Loc, int], where: str, parents: tuple[yaml.Node, ...]
) -> None:
    """Note the line of every entry below ``node``; refuse keys that occur twice and entries that hold themselves."""
    lines.setdefault(loc, node.start_mark.line + 1)
    if any(node is parent for parent in parents):
        raise ConfigError("an entry holds itself", where=f"{where}, line {node.start_mark.line + 1}")
    parents = (*parents, node)
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node, where)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                lines[(*loc, key.value)] = key.start_mark.line + 1
                _collect_lines(value, (*loc, key.value), lines, where, parents)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*loc, index), lines, where, parents)


def _refuse_repeated_keys(node: yaml.MappingNode, where: str) -> None:
    seen: set[str] = set()
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        if key.value in seen:
            raise ConfigError(f"the key '{key.value}' occurs twice", where=f"{where}, line {key.start_mark.line + 1}")
        seen.add(key.value)


def validate(
    cls: type[T],
    data: Any,
    *,
    where: str,
    lines: Mapping[Loc, int | str] | None = None,
    error: type[BregmaError] = ConfigError,
) -> T:
    """Check ``data`` against a settings class; the first fault is reported with its line and setting."""
    try:
        return cls.model_validate(data)
    except ValidationError as failure:
        # A mistyped name explains the name that is missing, so it goes first.
        first = min(failure.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        loc = _without_tags(tuple(first["loc"]), data)
        given = first["input"] if first["type"] != "extra_forbidden" else None
        got = repr(given) if isinstance(given, str | int | float) else None
        raise error(_problem(cls, first, loc), where=where_line(where, loc, lines or {}), got=got) from failure


def where_line(where: str, loc: Loc, lines: Mapping[Loc, int | str]) -> str:
    """Return ``where`` with the line of ``loc``, or of its nearest enclosing entry that has one.

    An entry that does not come from the file has a text instead of a line, which says where it comes from.
    """
    for end in range(len(loc), -1, -1):
        if loc[:end] in lines:
            line = lines[loc[:end]]
            return line if isinstance(line, str) else f"{where}, line {line}"
    return where


def _without_tags(loc: Loc, data: Any) -> Loc:
    """Leave out what pydantic adds to a place: the ``name`` that chose one of several kinds."""
    kept: list[int | str] = []
    for part in loc:
        if isinstance(data, Mapping) and part not in data and part == data.get("name"):
            continue
        kept.append(part)
        data = _entry(data, part)
    return tuple(kept)


def _entry(data: Any, part: int | str) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


_YAML_WORDS = {"a valid tuple": "a list", "a valid list": "a list", "a valid dictionary": "a mapping"}
"""What pydantic calls the kinds of value that YAML has."""


def _problem(cls: type[Config], first: Mapping[str, Any], loc: Loc) -> str:
    setting = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        known = _known_names(cls, tuple(first["loc"])[:-1])
        return f"unknown setting '{setting}'" + (f" (known here: {', '.join(known)})" if known else "")
    message = _in_words(first)
    return f"setting '{setting}': {message}" if setting else message


def _in_words(fault: Mapping[str, Any]) -> str:
    """Return what pydantic says, in the words of somebody who writes YAML."""
    kinds = str(fault.get("ctx", {}).get("expected_tags", "")).replace("'", "")
    if fault["type"] == "union_tag_invalid":
        return f"there is no '{fault['ctx']['tag']}'; known are {kinds}"
    if fault["type"] == "union_tag_not_found":
        return "has no name that says which kind is meant, such as {name: ...}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    for theirs, ours in _YAML_WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _known_names(cls: type[Config], loc: Loc) -> list[str]:
    """Return the settings at a place as pydantic names it, in which the ``name`` of one of several kinds is a step."""
    kinds = [cls]
    for part in loc:
        if isinstance(part, int):
            continue
        field = kinds[0].model_fields.get(part) if len(kinds) == 1 else None
        kinds = _settings_classes(field.annotation) if field else [kind for kind in kinds if _name_of(kind) == part]
    return sorted(kinds[0].model_fields) if len(kinds) == 1 else []


def _settings_classes(annotation: Any) -> list[type[Config]]:
    """Return the settings classes in an annotation such as ``tuple[Landmark, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in _settings_classes(argument)]


def _name_of(cls: type[Config]) -> Any:
    return cls.model_fields["name"].default if "name" in cls.model_fields else None


def with_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``data`` with ``a.b=value`` settings applied; values are read as YAML scalars or lists.

    Raises:
        ConfigError: an override without ``=``, or a path through something that holds no settings.
    """
    result = _deep_copy(data)
    for item in overrides:
        path, sign, text = item.partition("=")
        if not sign or not path.strip():
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


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it; a part of another kind (its ``name`` differs) replaces the whole
    part, because the settings of one kind mean nothing to another.
    """
    result = _deep_copy(base)
    for key, value in changes.items():
        old = result.get(key)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping):
            result[key] = value
        elif "name" in value and "name" in old and value["name"] != old["name"]:
            result[key] = dict(value)
        else:
            result[key] = laid_over(old, value)
    return result


def save_yaml(path: str | Path, data: Any) -> None:
    """Write plain data as YAML in its given order, all or nothing."""
    write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))


def _deep_copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}
