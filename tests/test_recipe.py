"""Recipes: where a fault is, and what wins."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from bregma.errors import ConfigError
from bregma.recipe import Recipe, SplitConfig, builtin_recipes, load_recipe
from bregma.training.plan import check_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("title: Mine\nsplit:\n  seed: 3\ntrain:\n  epochs: 7\n  seed: 1\nloss:\n- name: mse\n")
    return path


def test_no_recipe_sets_nothing() -> None:
    assert load_recipe().recipe == Recipe()
    assert load_recipe().recipe.plan_part() == {"model": {}, "augment": {}, "train": {}}


def test_a_file(file: Path) -> None:
    loaded = load_recipe(file)
    assert loaded.recipe.split.seed == 3
    assert loaded.recipe.plan_part() == {
        "model": {},
        "augment": {},
        "train": {"epochs": 7, "seed": 1},
        "loss": [{"name": "mse"}],
    }
    assert loaded.where == str(file)
    assert loaded.lines["train", "epochs"] == 5


def test_single_settings_win(file: Path) -> None:
    loaded = load_recipe(file, ["train.epochs=9", "predict.flip=true", "evaluate.draws=100"])
    assert loaded.recipe.train == {"epochs": 9, "seed": 1}
    assert loaded.recipe.predict.flip
    assert loaded.recipe.evaluate.draws == 100
    assert loaded.lines["train", "epochs"] == "--set train.epochs=9"
    assert loaded.lines["train", "seed"] == 6


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "null\n"])
def test_an_empty_file_is_a_recipe(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yml").write_text(text)
    assert load_recipe(tmp_path / "r.yml").recipe == Recipe()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epochs: 5}\nsplitt: {}\n", [", line 2: ", "unknown setting 'splitt'", "split"]),
        ("split:\n  folds: 1\n", [", line 2: ", "'split.folds'", "greater than or equal to 2"]),
        ("split: {method: loo}\n", [", line 1: ", "'split.method'", "loo"]),
        ("minutes: -1\n", [", line 1: ", "'minutes'", "greater than 0"]),
        ("train: 5\n", [", line 1: ", "'train'"]),
        ("- 1\n", ["holds no settings", "a mapping"]),
        ("train:\n  epochs: [\n", ["is not valid YAML"]),
        ("train: {seed: 1}\ntrain: {seed: 2}\n", [", line 2: ", "'train' occurs twice"]),
        ("run: !!python/object/apply:os.system [id]\n", ["is not valid YAML"]),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("spilt.seed=1", "unknown setting 'spilt'"),
        ("split.sed=1", "unknown setting 'split.sed'"),
        ("split.seed=-1", "greater than or equal to 0"),
        ("split", "cannot be understood"),
    ],
)
def test_a_fault_of_a_single_setting_names_it(file: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, [override])
    assert str(caught.value).startswith(f"--set {override}: ")
    assert words in str(caught.value)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="there is no built-in recipe 'hands'") as caught:
        load_recipe("hands")
    for name in builtin_recipes():
        assert name in str(caught.value)
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file"):
        load_recipe("absent.yaml")


def test_the_published_split_is_taken_where_there_is_one() -> None:
    data = tiny.dataset()
    assert SplitConfig().apply(data).parts == data.splits
    assert SplitConfig(method="kfold", folds=7, fold=6).apply(data).method == "kfold"
    halves = SplitConfig(method="random", fractions={"train": 0.5, "test": 0.5}, seed=4).apply(data)
    assert {part: len(ids) for part, ids in halves.parts.items()} == {"train": 7, "test": 7}


class TestExtending:
    def test_only_what_differs_is_written(self, file: Path) -> None:
        variant = file.with_name("variant.yaml")
        variant.write_text("extends: my.yaml\ntitle: Other\ntrain: {epochs: 8}\nloss: [{name: wing}]\n")
        recipe = load_recipe(variant).recipe
        assert (recipe.title, recipe.split.seed) == ("Other", 3)
        assert recipe.train == {"epochs": 8, "seed": 1}
        assert recipe.loss == [{"name": "wing"}]

    def test_a_part_of_another_kind_replaces_the_whole_part(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text(
            "model: {network: {name: unet, base_channels: 8}, preprocess: {size: [64, 64]}}\n"
        )
        (tmp_path / "v.yaml").write_text("extends: base.yaml\nmodel: {network: {name: scn, channels: 16}}\n")
        model = load_recipe(tmp_path / "v.yaml").recipe.model
        assert model == {"network": {"name": "scn", "channels": 16}, "preprocess": {"size": [64, 64]}}

    def test_over_several_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("train: {epochs: 1, seed: 1, batch_size: 1}\n")
        (tmp_path / "b.yaml").write_text("extends: a.yaml\ntrain: {epochs: 2, seed: 2}\n")
        (tmp_path / "c.yaml").write_text("extends: b.yaml\ntrain: {epochs: 3}\n")
        assert load_recipe(tmp_path / "c.yaml").recipe.train == {"epochs": 3, "seed": 2, "batch_size": 1}

    @pytest.mark.parametrize(
        ("base", "line", "words"),
        [
            ("title: Base\n\ntrain:\n  epoch: 5\n", 4, "unknown setting 'train.epoch'"),
            ("title: Base\nloss:\n- {name: wing}\n- {name: dice}\n", 4, "'loss.1'.*dice"),
        ],
    )
    def test_a_fault_is_named_in_the_file_that_has_it(self, tmp_path: Path, base: str, line: int, words: str) -> None:
        (tmp_path / "base.yaml").write_text(base)
        (tmp_path / "mine.yaml").write_text("extends: base.yaml\ntrain:\n  seed: -1\n")
        loaded = load_recipe(tmp_path / "mine.yaml", ["minutes=3"])
        with pytest.raises(ConfigError, match=words) as caught:
            check_settings(loaded.recipe.plan_part(), where=loaded.where, lines=loaded.lines)
        assert str(caught.value).startswith(f"{tmp_path / 'base.yaml'}, line {line}: ")
        (tmp_path / "base.yaml").write_text("title: Base\n")
        loaded = load_recipe(tmp_path / "mine.yaml")
        with pytest.raises(ConfigError, match=r"mine.yaml, line 3: .*'train.seed'"):
            check_settings(loaded.recipe.plan_part(), where=loaded.where, lines=loaded.lines)

    def test_a_circle_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
        (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
        with pytest.raises(ConfigError, match="extends itself"):
            load_recipe(tmp_path / "a.yaml")

    def test_an_unknown_base_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("extends: chest/nothing\n")
        with pytest.raises(ConfigError, match="chest/nothing"):
            load_recipe(tmp_path / "a.yaml")
