"""The command line: fast help, errors in one line, exit codes, and JSON that a program can read."""

from __future__ import annotations

import csv
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bregma import __version__, workflows
from bregma.cli import COMMANDS
from bregma.errors import BregmaError, RunError
from command_line import bregma

HEAVY = ("torch", "timm", "cv2", "matplotlib", "pandas", "scipy", "numpy", "pydicom", "nibabel", "pydantic")


def python(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "heads"
    result = bregma("phantom", "fetal_head", "--out", folder, "--count", "2", "--size", "96", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"written": str(folder), "anatomy": "fetal_head", "images": 2, "subjects": 2}
    return folder


class TestHelp:
    def test_imports_nothing_heavy(self) -> None:
        script = (
            "import sys\n"
            "from bregma.cli import main\n"
            "try:\n    main()\n"
            "except SystemExit as end:\n    assert end.code == 0, end.code\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules])"
        )
        done = python(script, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"

    def test_lists_every_command(self) -> None:
        result = bregma("--help")
        assert result.exit_code == 0
        assert [name for name in COMMANDS if f" {name} " not in result.stdout] == []

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_ends_with_an_example_that_parses(self, name: str) -> None:
        result = bregma(name, "--help")
        assert result.exit_code == 0
        assert "Example: bregma" in result.stdout
        assert COMMANDS[name].example.split()[:2] == ["bregma", name]

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_option_of_the_example_exists(self, name: str) -> None:
        used = {word for word in COMMANDS[name].example.split() if word.startswith("--")}
        shown = bregma(name, "--help").stdout
        assert [option for option in used if option not in shown] == []

    def test_version(self) -> None:
        result = bregma("--version")
        assert (result.exit_code, result.stdout) == (0, f"bregma {__version__}\n")


class TestErrors:
    def test_one_line_on_standard_error_and_its_exit_code(self, tmp_path: Path) -> None:
        result = bregma("inspect", tmp_path / "nowhere")
        assert result.exit_code == BregmaError.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            f"error: {tmp_path / 'nowhere'}: is not there; expected a dataset's folder or label file"
        ]

    def test_debug_shows_where_it_comes_from(self, tmp_path: Path) -> None:
        result = bregma("--debug", "inspect", tmp_path / "nowhere")
        assert result.exit_code == 2
        assert "Traceback" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("error: ")

    def test_markup_in_a_message_is_shown_as_it_stands(self) -> None:
        assert "'[red]nope[/red]'" in bregma("info", "[red]nope[/red]").stderr

    def test_unknown_option(self) -> None:
        result = bregma("info", "--colour")
        assert result.exit_code == 2
        assert "--colour" in result.stderr

    def test_interrupted_training_says_how_to_go_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workflows, "train", _interrupt, raising=False)
        result = bregma("train", "my images", "--out", "runs/a")
        assert result.exit_code == 130
        assert "bregma train 'my images' --out runs/a --resume" in result.stderr

    def test_interrupted_resumption_names_the_option_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workflows, "train", _interrupt, raising=False)
        assert bregma("train", "x", "--resume", "--out", "a").stderr.count("--resume") == 1

    def test_unexpected_fault(self) -> None:
        done = python(
            "import bregma.workflows as w\n"
            "def broken(*a, **k): raise ZeroDivisionError('division by zero')\n"
            "w.convert = broken\n"
            "from bregma.cli import main; main()",
            *("convert", "a", "--out", "b", "--to", "csv"),
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[0] == "error: ZeroDivisionError: division by zero"
        assert "bregma --debug convert a --out b --to csv" in done.stderr
        assert "Traceback" not in done.stderr

    def test_unexpected_fault_with_debug(self) -> None:
        done = python(
            "import bregma.workflows as w\n"
            "def broken(*a, **k): raise ZeroDivisionError('division by zero')\n"
            "w.convert = broken\n"
            "from bregma.cli import main; main()",
            *("--debug", "convert", "a", "--out", "b", "--to", "csv"),
        )
        assert done.returncode == 1
        assert "Traceback" in done.stderr


def _interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


class TestOptionsReachTheWorkflow:
    """Every option of a command is handed on; an option that is accepted and not honoured is a lie."""

    def called(self, monkeypatch: pytest.MonkeyPatch, *args: str) -> dict[str, Any]:
        """Return the arguments by name with which a command calls its workflow, checked against its signature."""
        caught: dict[str, Any] = {}
        signature = inspect.signature(getattr(workflows, args[0]))

        def catch(*given: Any, **named: Any) -> None:
            caught.update(signature.bind(*given, **named).arguments)
            raise RunError("caught")

        monkeypatch.setattr(workflows, args[0], catch, raising=False)
        result = bregma(*args)
        assert "error: caught" in result.stderr, result.output
        return caught

    def test_train(self, monkeypatch: pytest.MonkeyPatch) -> None:
        labels = ("--format", "csv", "--schema", "hand", "--images", "i", "--labels", "junior", "--columns", "c.yaml")
        got = self.called(
            monkeypatch,
            *("train", "d", "--out", "o", "--recipe", "r", "--set", "train.epochs=3", "--set", "train.seed=1"),
            *("--minutes", "2.5", "--resume", "--strict", *labels),
        )
        assert (got["data"], got["out"], got["recipe"]) == (Path("d"), Path("o"), "r")
        assert list(got["overrides"]) == ["train.epochs=3", "train.seed=1"]
        assert (got["minutes"], got["resume"]) == (2.5, True)
        options = got["options"]
        assert (options.format, options.schema, options.images) == ("csv", "hand", Path("i"))
        assert (options.labels, options.columns, options.strict) == ("junior", Path("c.yaml"), True)

    def test_evaluate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(
            monkeypatch,
            *("evaluate", "m", "d", "--out", "o", "--part", "val"),
            *("--set", "evaluate.sdr_px=[3]", "--set", "predict.flip=true"),
        )
        assert (got["model"], got["data"], got["out"], got["part"]) == (Path("m"), Path("d"), Path("o"), "val")
        assert got["settings"].sdr_px == (3.0,)
        assert got["predict"].flip

    def test_predict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(
            monkeypatch,
            *("predict", "m", "a.png", "b", "--with", "n", "--out", "o", "--spacing", "0.2", "0.3"),
            *("--set", "predict.batch_size=2"),
        )
        assert list(got["models"]) == [Path("m"), Path("n")]
        assert list(got["inputs"]) == [Path("a.png"), Path("b")]
        assert (got["out"], got["spacing"], got["config"].batch_size) == (Path("o"), (0.2, 0.3), 2)

    def test_measure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(monkeypatch, "measure", "p", "--schema", "hand", "--out", "o")
        assert (got["source"], got["schema"], got["out"]) == (Path("p"), "hand", Path("o"))

    def test_compare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(
            monkeypatch, *("compare", "a", "b", "--out", "o", "--part", "val", "--name", "A", "--name", "B")
        )
        assert (list(got["runs"]), got["out"], got["part"]) == ([Path("a"), Path("b")], Path("o"), "val")
        assert list(got["names"]) == ["A", "B"]

    def test_demo(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(monkeypatch, "demo", "--out", "o", "--seed", "3")
        assert (got["out"], got["seed"]) == (Path("o"), 3)

    def test_phantom(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(
            monkeypatch,
            *("phantom", "hand", "--out", "o", "--count", "5", "--seed", "2", "--size", "128", "--difficulty", "hard"),
            *("--images-per-subject", "2", "--sheet-only", "--volumes", "--set", "age_years=9"),
        )
        assert got == {
            "name": "hand",
            "out": Path("o"),
            "count": 5,
            "seed": 2,
            "size": 128,
            "difficulty": "hard",
            "images_per_subject": 2,
            "overrides": ["age_years=9"],
            "sheet_only": True,
            "volumes": True,
        }

    def test_convert(self, monkeypatch: pytest.MonkeyPatch) -> None:
        got = self.called(monkeypatch, "convert", "d", "--out", "o", "--to", "coco", "--overwrite", "--format", "csv")
        assert (got["data"], got["out"], got["format"], got["overwrite"]) == (Path("d"), Path("o"), "coco", True)
        assert got["options"].format == "csv"


class TestCommands:
    def test_info_in_words(self) -> None:
        result = bregma("info", "anatomies", "phantoms")
        assert result.exit_code == 0
        assert "lumbar_lateral" in result.stdout

    def test_info_as_json(self) -> None:
        tables = json.loads(bregma("info", "phantoms", "--json").stdout)
        assert [table["name"] for table in tables] == ["phantoms"]

    def test_info_of_one_anatomy(self) -> None:
        landmarks, _ = json.loads(bregma("info", "--anatomy", "fetal_head", "--json").stdout)
        assert [row["name"] for row in landmarks["rows"]] == ["ofd_1", "ofd_2", "bpd_1", "bpd_2"]

    def test_info_of_encoders(self) -> None:
        assert "resnet18" in bregma("info", "--encoders", "resnet18").stdout.split()
        assert "resnet18" in json.loads(bregma("info", "--encoders", "resnet18", "--json").stdout)

    def test_doctor(self, tmp_path: Path) -> None:
        result = bregma("doctor", tmp_path, "--json")
        assert result.exit_code == 0
        assert {check["name"] for check in json.loads(result.stdout)["checks"]} >= {"Python", "torch", "timm"}

    def test_doctor_fails_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        result = bregma("doctor", tmp_path / "nowhere")
        assert result.exit_code == 1
        assert "fail" in result.stdout

    def test_inspect(self, phantoms: Path, tmp_path: Path) -> None:
        result = bregma("inspect", phantoms, "--out", tmp_path / "look", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["fingerprint"]["images"] == 2
        assert (tmp_path / "look" / "contact_sheet.png").stat().st_size > 1000
        assert "2 of 2 subjects" in bregma("inspect", phantoms).stdout

    def test_convert_then_measure_gives_the_same_numbers(self, phantoms: Path, tmp_path: Path) -> None:
        result = bregma("convert", phantoms, "--to", "csv", "--out", tmp_path / "table", "--json")
        assert result.exit_code == 0, result.output
        written = Path(json.loads(result.stdout)["written"])
        assert len(written.read_text(encoding="utf-8").splitlines()) == 3
        first = json.loads(bregma("measure", phantoms, "--json").stdout)
        second = json.loads(bregma("measure", written.parent, "--schema", "fetal_head", "--json").stdout)
        assert list(first) == list(second)
        for case in first:
            values = [{row["name"]: row["value"] for row in table[case]} for table in (first, second)]
            known = [{name: value for name, value in of.items() if value is not None} for of in values]
            # Centiles need the gestational age, which simulated heads do not come with.
            assert {name.rpartition("_")[2] for name in values[0].keys() - known[0].keys()} == {"centile"}
            assert known[0] == pytest.approx(known[1], rel=1e-6)

    def test_measure_in_words_and_files(self, phantoms: Path, tmp_path: Path) -> None:
        result = bregma("measure", phantoms, "--out", tmp_path)
        assert result.exit_code == 0, result.output
        assert "2 images" in result.stdout
        rows = list(csv.DictReader((tmp_path / "measurements.csv").read_text(encoding="utf-8").splitlines()))
        assert len(rows) == sum(map(len, json.loads(bregma("measure", phantoms, "--json").stdout).values()))
