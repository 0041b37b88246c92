"""The documentation agrees with the code: names, commands, links and examples.

Blocks marked ``bash run`` are executed by ``make docs-check``; here every other command is at least parsed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import typer

import bregma
from bregma.catalog import TABLES
from bregma.cli import COMMANDS, app
from bregma.curves import Chart, Formula
from bregma.datasets import DATASETS
from bregma.geometry import SpacingSource
from bregma.schema import Chain, GradeScale, LandmarkSchema, MeasurementSpec, Outline, builtin_schemas, load_schema

ROOT = Path(__file__).resolve().parents[2]


def _checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_commands", ROOT / "docs" / "check_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while it is made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CHECKER = _checker()
BLOCKS = [block for page in CHECKER.pages() for block in CHECKER.blocks(page)]
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in CHECKER.pages()}


def commands() -> list[tuple[str, str]]:
    """Every ``bregma ...`` in a bash block, with its place; comments, pipes and alternatives cut off."""
    found = []
    for block in BLOCKS:
        if block.info.split()[:1] == ["bash"]:
            for number, line in enumerate(block.text.splitlines()):
                place = f"{block.page.relative_to(ROOT)}:{block.line + number}"
                found += [(place, line)] if line.startswith("bregma ") else []
    return found


def test_there_are_blocks_to_run() -> None:
    assert sum(block.info == "bash run" for block in BLOCKS) >= 8
    assert len(commands()) >= 15


@pytest.mark.parametrize(("place", "line"), commands())
def test_every_command_parses(place: str, line: str) -> None:
    _, *words = shlex.split(re.split(r" \|\|? ", line)[0], comments=True)
    group = typer.main.get_command(app)
    with group.make_context("bregma", words, resilient_parsing=False) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.info == "python"], ids=lambda block: block.place)
def test_python_examples_use_names_that_exist(block: object) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bregma":
            assert node.attr in bregma.__all__, f"{block.place}: bregma.{node.attr}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", PAGES[page])
    assert [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()] == []


def _first_cells(page: str, section: str | None = None) -> list[str]:
    text = PAGES[page]
    if section is not None:
        text = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_public_names_are_documented() -> None:
    listed = _first_cells("docs/reference/python.md")
    assert sorted(listed) == sorted(bregma.__all__)
    assert [name for name in bregma.__all__ if not hasattr(bregma, name)] == []


def test_commands_are_documented() -> None:
    listed = [cell.split()[1] for cell in _first_cells("docs/reference/commands.md") if cell.startswith("bregma ")]
    assert sorted(listed) == sorted(COMMANDS)


def test_label_formats_are_documented() -> None:
    assert sorted(_first_cells("docs/reference/formats.md")) == sorted(DATASETS)


@pytest.mark.parametrize(
    ("section", "settings"),
    [("Chains", Chain), ("Outlines", Outline), ("Measurements", MeasurementSpec), (None, LandmarkSchema)],
)
def test_schema_fields_are_documented(section: str | None, settings: type[LandmarkSchema]) -> None:
    listed = _first_cells("docs/reference/schema.md", section)
    assert [name for name in settings.model_fields if name not in listed] == []


@pytest.mark.parametrize("settings", [Formula, Chart])
def test_formula_and_chart_fields_are_documented(settings: type[Formula | Chart]) -> None:
    listed = _first_cells("docs/reference/schema.md", "Formulas and charts")
    assert [name for name in settings.model_fields if name not in listed] == []


def test_measurements_are_documented() -> None:
    text = PAGES["docs/reference/measurements.md"]
    shipped = {spec.name for name in builtin_schemas() for spec in load_schema(name).measurements}
    # Fingers and their phalanges are listed once each.
    bones = {name for name in shipped if re.fullmatch(r"mc\d_length|(index|middle|ring|little)_\w+_length", name)}
    assert [name for name in sorted(shipped - bones) if f"`{name}`" not in text] == []


def test_grade_fields_are_documented() -> None:
    text = PAGES["docs/reference/schema.md"].partition("## Grades")[2]
    assert [name for name in GradeScale.model_fields if name not in {"name", "label"} and f"`{name}" not in text] == []


def test_sources_of_a_spacing_are_documented() -> None:
    text = PAGES["docs/explanation/spacing.md"]
    assert [name for name in get_args(SpacingSource) if f"`{name}`" not in text] == []


def test_tables_named_in_the_documentation_exist() -> None:
    named = {name for text in PAGES.values() for name in re.findall(r"bregma info ([a-z]+)", text)}
    assert named - {"nonsense"} <= set(TABLES)
