"""``demo``: it replaces what a demo left behind, and nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import tiny
from bregma.errors import RunError
from bregma.phantoms import make_phantoms
from bregma.types import Dataset
from bregma.workflows import demonstration, train
from bregma.workflows.demonstration import demo
from tiny_training import Stopper


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo's phantoms and network small."""

    def data(seed: int, track: object = None) -> Dataset:
        made = make_phantoms("lumbar_lateral", 8, seed=seed, size=96)
        ids = [case.id for case in made]
        return Dataset(demonstration.NAME, made.schema, made.cases, {"train": ids[:4], "test": ids[4:]})

    def quick(*args: object, overrides: list[str], **changes: object) -> object:
        short = [*tiny.OVERRIDES, "model.preprocess.size=[64, 64]", "train.schedule.warmup_steps=1"]
        return train(*args, overrides=[*overrides, *short], **changes)

    monkeypatch.setattr(demonstration, "demo_data", data)
    monkeypatch.setattr(demonstration, "train", quick)


@pytest.mark.usefixtures("small")
def test_measures_slip_and_replaces_an_unfinished_one(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt):
        demo(out, observer=Stopper(step=1))
    result = demo(out, seed=1)
    assert result.report.is_file()
    with (out / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {one.case.id for one in result.evaluation.cases}
    assert {"slip_percent", "slip_mm"} <= {row["measurement"] for row in rows}
    # A network of two epochs finds hardly anything; the labels carry the grades that it is scored against.
    true = [found for one in result.evaluation.cases for found in one.true_measured if found.name == "slip_percent"]
    assert {found.grade for found in true} - {None}


@pytest.mark.usefixtures("small")
def test_leaves_everything_else_alone(tmp_path: Path, run: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"exists already.*another --out"):
        demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(RunError, match="exists already"):
        demo(run)
    assert (run / "bundle" / "bundle.json").is_file()
