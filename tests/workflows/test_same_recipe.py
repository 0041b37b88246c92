"""Which settings a run may be resumed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bregma.errors import RunError
from bregma.recipe import Recipe, SplitConfig
from bregma.workflows.run_folder import RunFolder, check_same_recipe

STORED = {"split": {"method": "given"}, "train": {"epochs": 3, "seed": 0}, "evaluate": {"draws": 200}}


def check(root: Path, asked: dict[str, Any], **options: Any) -> None:
    stored = Recipe.model_validate(STORED)
    check_same_recipe(RunFolder(root), stored, Recipe.model_validate(asked), **options)


def test_a_default_that_is_spelled_out_is_no_other_setting(tmp_path: Path) -> None:
    check(tmp_path, {**STORED, "split": SplitConfig(method="given").to_dict()})


def test_no_settings_at_all_keep_those_of_the_run(tmp_path: Path) -> None:
    check(tmp_path, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": {"method": "given", "seed": 4}}, "split.seed=4 instead of 0"),
        ({"train": {"epochs": 3}}, "train.seed=None instead of 0"),
        ({"evaluate": {"draws": 300}}, "evaluate.draws=300 instead of 200"),
        ({"minutes": 2}, "minutes=2.0 instead of None"),
    ],
)
def test_other_settings_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        check(tmp_path, {**STORED, **changes})


def test_one_part_may_be_left_to_differ(tmp_path: Path) -> None:
    check(tmp_path, {**STORED, "evaluate": {"draws": 300}}, besides="evaluate")
    with pytest.raises(RunError, match="epochs=9 instead of 3"):
        check(tmp_path, {**STORED, "train": {"epochs": 9, "seed": 0}}, besides="evaluate")
