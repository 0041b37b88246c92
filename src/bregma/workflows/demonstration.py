"""``demo``: the main job on simulated lumbar radiographs, from nothing to a report on slip and Meyerding grade."""

from __future__ import annotations

import shutil
from pathlib import Path

from bregma.files import read_json
from bregma.phantoms import iter_phantoms, make_phantoms
from bregma.training.progress import Observer
from bregma.types import Dataset
from bregma.workflows.prediction import write_measurement_tables
from bregma.workflows.run_folder import RunFolder, refuse_used
from bregma.workflows.track import Track, untracked
from bregma.workflows.training import TrainResult, train

NAME = "lumbar phantoms"
TRAIN, VAL, TEST = 600, 20, 50
"""Subjects a part; each has one image."""


def demo(
    out: str | Path = "runs/demo",
    *,
    seed: int = 0,
    observer: Observer | None = None,
    track: Track = untracked,
) -> TrainResult:
    """Train on lumbar phantoms, evaluate on 50 unseen ones, measure slip and Meyerding grade, write a report.

    Args:
        out: the run folder; an earlier demo there, finished or not, is replaced.
        seed: of the phantoms and the training.
        observer: hears of progress.
        track: wraps long iterations.

    Raises:
        RunError: ``out`` holds something that is not an earlier demo, or cannot be written.
    """
    folder = Path(out)
    _clear(folder)
    result = train(
        demo_data(seed, track), folder, recipe="demo", overrides=[f"train.seed={seed}"], observer=observer, track=track
    )
    if result.evaluation is not None:
        cases = result.evaluation.cases
        write_measurement_tables(folder, [case.prediction for case in cases], [case.measured for case in cases])
    return result


def demo_data(seed: int, track: Track = untracked) -> Dataset:
    """Return the demo's phantoms with their split."""
    total = TRAIN + VAL + TEST
    cases = tuple(track(iter_phantoms("lumbar_lateral", total, seed=seed), total, "phantoms"))
    whole = make_phantoms("lumbar_lateral", 0, seed=seed)
    ids = [case.id for case in cases]
    splits = {"train": tuple(ids[:TRAIN]), "val": tuple(ids[TRAIN : TRAIN + VAL]), "test": tuple(ids[TRAIN + VAL :])}
    return Dataset(NAME, whole.schema, cases, splits, license=whole.license, citation=whole.citation)


def _clear(folder: Path) -> None:
    """Remove an earlier demo, but nothing else."""
    if _is_demo(RunFolder(folder)):
        shutil.rmtree(folder)
    refuse_used(folder, fix="remove it, or choose another --out")


def _is_demo(run: RunFolder) -> bool:
    if not run.exists():
        return False
    about = read_json(run.root / "provenance.json")
    return isinstance(about, dict) and about.get("data", {}).get("name") == NAME
