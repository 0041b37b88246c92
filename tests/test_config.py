from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bregma.config import Config, laid_over, parse_yaml, read_yaml, save_yaml, validate, where_line, with_overrides
from bregma.errors import ConfigError, SchemaError


class Optimiser(Config):
    rate: float = 0.1
    steps: tuple[int, ...] = (1, 2)


class Train(Config):
    epochs: int = 10
    optimiser: Optimiser = Optimiser()
    stages: tuple[Optimiser, ...] = ()
    extra: Optimiser | None = None
    label: str = ""


class TestYaml:
    def test_lines_of_every_entry(self) -> None:
        data, lines = parse_yaml("# note\na: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", where="f")
        assert data == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
        assert lines[("a",)] == 2
        assert lines[("b",)] == 3
        assert lines[("b", 0)] == 4
        assert lines[("b", 1, "d")] == 6

    @pytest.mark.parametrize("text", ["", "# only a comment\n"])
    def test_nothing_is_none(self, text: str) -> None:
        assert parse_yaml(text, where="f")[0] is None

    @pytest.mark.parametrize(
        ("text", "where", "message"),
        [
            ("a: 1\nb: [1, 2\n", "f, line 3", "is not valid YAML"),
            ("a: 1\n\tb: 2\n", "f, line 2", "is not valid YAML"),
            ("a: 1\n---\nb: 2\n", "f, line 2", "is not valid YAML"),
            ("a:\n  b: 1\n  c: 2\n  b: 3\n", "f, line 4", "the key 'b' occurs twice"),
            ("a: &x\n  b: *x\n", "f, line 1", "an entry holds itself"),
            ("? [1, 2]\n: 3\n", "f, line 1", "is not valid YAML"),
            ("a: !!python/name:os.system\n", "f, line 1", "is not valid YAML"),
            ("a: 2020-02-31\n", "f", "holds a value that cannot be read"),
            ("a: !!int twelve\n", "f", "holds a value that cannot be read"),
            ("[" * 5000, "f", "is nested too deeply"),
            ("a: \x00\n", "f", "is not valid YAML"),
        ],
    )
    def test_broken_text_names_the_line(self, text: str, where: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_yaml(text, where="f")
        assert caught.value.where == where
        assert message in str(caught.value)

    def test_an_anchor_may_be_used_twice(self) -> None:
        data, lines = parse_yaml("a: &x {k: 1}\nb: *x\n", where="f")
        assert data == {"a": {"k": 1}, "b": {"k": 1}}
        assert lines[("b",)] == 2

    def test_a_missing_file_and_a_binary_one(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            read_yaml(tmp_path / "none.yaml")
        (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="not UTF-8"):
            read_yaml(tmp_path / "b.yaml")

    def test_what_is_saved_is_read_again_in_the_same_order(self, tmp_path: Path) -> None:
        data = {"z": 1, "a": ["ü", 2.5, None, True], "m": {"k": []}}
        save_yaml(tmp_path / "f.yaml", data)
        again, _ = read_yaml(tmp_path / "f.yaml")
        assert again == data
        assert list(again) == list(data)


class TestValidate:
    def test_values_are_typed_and_frozen(self) -> None:
        train = validate(Train, {"epochs": 3, "optimiser": {"rate": 1}}, where="f")
        assert train == Train(epochs=3, optimiser=Optimiser(rate=1.0))
        with pytest.raises(ValueError, match="frozen"):
            train.epochs = 4  # type: ignore[misc]
        assert validate(Train, train.to_dict(), where="f") == train

    @pytest.mark.parametrize(
        ("text", "where", "message"),
        [
            (
                "epochs: 3\nepoch: 4\n",
                "f, line 2",
                "unknown setting 'epoch' (known here: epochs, extra, label, optimiser,",
            ),
            ("optimiser:\n  rat: 4\n", "f, line 2", "unknown setting 'optimiser.rat' (known here: rate, steps)"),
            (
                "stages:\n  - rate: 1\n  - rat: 4\n",
                "f, line 3",
                "unknown setting 'stages.1.rat' (known here: rate, steps)",
            ),
            ("extra:\n  rat: 4\n", "f, line 2", "unknown setting 'extra.rat' (known here: rate, steps)"),
            ("epochs: many\n", "f, line 1", "setting 'epochs': Input should be a valid integer"),
            ("label: x\noptimiser:\n  steps: [1, x]\n", "f, line 3", "setting 'optimiser.steps.1'"),
        ],
    )
    def test_a_fault_names_its_setting_and_line(self, text: str, where: str, message: str) -> None:
        data, lines = parse_yaml(text, where="f")
        with pytest.raises(ConfigError) as caught:
            validate(Train, data, where="f", lines=lines)
        assert caught.value.where == where
        assert message in str(caught.value)

    def test_what_came_is_told(self) -> None:
        with pytest.raises(ConfigError) as caught:
            validate(Train, {"epochs": "many"}, where="f")
        assert caught.value.got == "'many'"

    def test_the_caller_chooses_the_kind_of_error(self) -> None:
        with pytest.raises(SchemaError, match=r"^f: unknown setting 'x'"):
            validate(Train, {"x": 1}, where="f", error=SchemaError)

    @pytest.mark.parametrize("data", [None, [], "words", 3])
    def test_anything_but_a_mapping_is_refused(self, data: Any) -> None:
        with pytest.raises(ConfigError, match="Input should be"):
            validate(Train, data, where="f")

    def test_the_nearest_line_that_is_known(self) -> None:
        lines = {(): 1, ("a",): 4}
        assert where_line("f", ("a", "b", 3), lines) == "f, line 4"
        assert where_line("f", ("z",), lines) == "f, line 1"
        assert where_line("f", ("z",), {}) == "f"


class TestOverrides:
    @pytest.mark.parametrize(
        ("item", "expected"),
        [
            ("epochs=5", {"epochs": 5, "o": {"rate": 1}}),
            ("o.rate=2.5", {"epochs": 1, "o": {"rate": 2.5}}),
            ("o.steps=[1, 2]", {"epochs": 1, "o": {"rate": 1, "steps": [1, 2]}}),
            ("new.deep.name=yes", {"epochs": 1, "o": {"rate": 1}, "new": {"deep": {"name": True}}}),
            ("label=a=b", {"epochs": 1, "o": {"rate": 1}, "label": "a=b"}),
            ("label=", {"epochs": 1, "o": {"rate": 1}, "label": None}),
        ],
    )
    def test_one_setting(self, item: str, expected: dict[str, Any]) -> None:
        data = {"epochs": 1, "o": {"rate": 1}}
        assert with_overrides(data, [item]) == expected
        assert data == {"epochs": 1, "o": {"rate": 1}}

    def test_later_ones_win(self) -> None:
        assert with_overrides({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ("epochs", "cannot be understood"),
            ("=5", "cannot be understood"),
            (" =5", "cannot be understood"),
            ("epochs.x=5", "'epochs' holds no settings of its own"),
            ("a=[1, 2", "is not valid YAML"),
        ],
    )
    def test_what_cannot_be_set(self, item: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            with_overrides({"epochs": 1}, [item])
        assert f"--set {item}" in str(caught.value)

    def test_merge_goes_mapping_by_mapping(self) -> None:
        base = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
        assert laid_over(base, {"a": {"y": 5}, "b": [9], "d": {"e": 1}}) == {
            "a": {"x": 1, "y": 5},
            "b": [9],
            "c": 3,
            "d": {"e": 1},
        }
        assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
        assert laid_over({"a": {"x": 1}}, {"a": 4}) == {"a": 4}
