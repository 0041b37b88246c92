"""``bregma study`` and ``bregma runs``: exit codes, JSON, what is resumed and what is removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

import tiny
from bregma import workflows
from bregma.datasets import write_dataset
from command_line import bregma

SET = [item for item in tiny.OVERRIDES if not item.startswith("train.epochs")]
SOUND = [{"name": "usual"}, {"name": "slow", "set": ["train.optimizer.lr=1e-6"]}]
LATE = {"name": "late", "set": ["train.schedule.warmup_steps=999"]}
RUNAWAY = {"name": "runaway", "set": ["train.optimizer.lr=1e38", "train.schedule.warmup_steps=0"]}


class Place:
    """A folder with labelled images and a study, one arm of which cannot be trained to its end."""

    def __init__(self, root: Path) -> None:
        self.out = root / "out"
        self.file = root / "mine.yaml"
        self.data = write_dataset(tiny.dataset(test=4), root / "data", "bregma_json")
        self.write([*SOUND, RUNAWAY])

    def write(self, arms: list[dict[str, Any]]) -> None:
        settings = {"title": "Two rates", "seeds": [0], "set": [*SET, "train.epochs=1"], "evaluate": {"draws": 100}}
        self.file.write_text(yaml.safe_dump({**settings, "arms": arms}))

    def study(self, *more: str) -> Result:
        return bregma("study", self.file, self.data, "--out", self.out, *more)

    def weights(self) -> dict[str, int]:
        """Return when each bundle's weights were written."""
        found = self.out.rglob("weights.safetensors")
        return {path.relative_to(self.out).as_posix(): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Result]:
    place = Place(tmp_path_factory.mktemp("study"))
    return place, place.study("--json")


class TestStudy:
    def test_an_arm_that_fails_is_told_and_the_others_are_compared(self, done: tuple[Place, Result]) -> None:
        place, result = done
        assert result.exit_code == 3, result.output
        told = json.loads(result.stdout)
        assert list(told["failures"]) == ["runaway, seed 0"]
        assert told["report"] == str(place.out / "study.html")
        assert [arm["name"] for arm in told["study"]["arms"]] == ["usual", "slow"]
        assert "3 of 3: runaway, seed 0" in result.stderr
        assert "failed: " in result.stderr

    def test_the_same_command_keeps_what_is_done(self, done: tuple[Place, Result]) -> None:
        place, _ = done
        before = place.weights()
        place.write(SOUND)
        result = place.study()
        assert result.exit_code == 0, result.output
        assert "Two rates" in result.stdout
        assert "reference" in result.stdout
        assert "One seed an arm" in result.stderr + result.stdout
        assert place.weights() == before
        assert sorted(before) == [f"runs/{arm}/seed-0/bundle/weights.safetensors" for arm in ("slow", "usual")]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--seeds", "0,one"], ["--seeds", "expected e.g. 0,1,2", "got 0,one"]),
            (["--set", "tires=[5]"], ["--set tires=[5]", "unknown setting 'tires'", "tiers"]),
            (["--set", "set=[train.epoch=3]"], ["--set train.epoch=3", "unknown setting 'train.epoch'"]),
            (["--set", f"arms={json.dumps([*SOUND, LATE])}"], ["warmup_steps=999", "longer than the training"]),
            (["--minutes", "0"], ["minutes", "greater than 0"]),
        ],
    )
    def test_wrong_settings_are_refused_before_any_training(
        self, tmp_path: Path, options: list[str], words: list[str]
    ) -> None:
        place = Place(tmp_path)
        result = place.study(*options)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert [word for word in words if word not in line] == []
        assert not place.out.exists()

    def test_options_reach_the_workflow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told: dict[str, Any] = {}

        def keep(*args: Any, **options: Any) -> Any:
            told.update(options, args=args)
            raise KeyboardInterrupt

        monkeypatch.setattr(workflows, "study", keep, raising=False)
        result = bregma(
            "study", "hand/scn", "hands", "--out", "out", "--seeds", "3,4", "--minutes", "2.5", "--set", "tiers=[5]"
        )
        assert told["args"] == ("hand/scn", Path("hands"), Path("out"))
        assert (told["seeds"], told["minutes"], list(told["overrides"])) == ([3, 4], 2.5, ["tiers=[5]"])
        assert result.exit_code == 130
        assert "runs that are done are kept. To go on: bregma study hand/scn hands --out out" in result.stderr


class TestRuns:
    def test_list_and_show(self, done: tuple[Place, Result]) -> None:
        place, _ = done
        rows = json.loads(bregma("runs", "list", place.out, "--json").stdout)
        assert {Path(row["path"]).parent.name: row["state"] for row in rows if row["state"] == "finished"} == {
            "usual": "finished",
            "slow": "finished",
        }
        figures = [row["figure"]["value"] for row in rows if row["figure"]]
        assert figures == sorted(figures)
        shown = json.loads(bregma("runs", "show", place.out / "runs" / "usual" / "seed-0", "--json").stdout)
        assert shown in rows
        assert (shown["epoch"], shown["epochs"], shown["data"]) == (1, 1, "spots")

    def test_in_words(self, done: tuple[Place, Result], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "300")
        place, _ = done
        assert "spots" in bregma("runs", "list", place.out).stdout
        assert "finished" in bregma("runs", "show", place.out / "runs" / "slow" / "seed-0").stdout

    def test_prune_tells_first_and_removes_with_yes(self, done: tuple[Place, Result]) -> None:
        place, _ = done
        before = sorted(place.out.rglob("*"))
        told = json.loads(bregma("runs", "prune", place.out, "--json").stdout)
        parts = [Path(item["path"]).relative_to(place.out / "runs").as_posix() for item in told]
        assert {"usual/seed-0/checkpoint", "slow/seed-0/checkpoint"} <= {*parts}
        assert {part.rpartition("/")[2] for part in parts} <= {"checkpoint", "tensorboard"}
        assert "--yes removes them" in "".join(bregma("runs", "prune", place.out).output.split("\n"))
        assert sorted(place.out.rglob("*")) == before
        result = bregma("runs", "prune", place.out, "--yes")
        assert result.exit_code == 0, result.output
        assert not any(Path(item["path"]).exists() for item in told)
        assert len(place.weights()) == 2
        assert json.loads(bregma("runs", "prune", place.out, "--json").stdout) == []

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("tidy", "."), "cannot 'tidy' runs; expected list, show or prune"),
            (("list", "nowhere"), "nowhere"),
            (("show", "."), "holds no run; expected a folder with plan.json"),
            (("prune", ".", "--older-than", "-1"), "--older-than"),
        ],
    )
    def test_what_cannot_be_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = bregma("runs", *arguments)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert words in line
