"""``runs``: what lies in a folder of experiments; finding, showing and pruning them."""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from bregma.errors import BregmaError, InputError, RunError
from bregma.evaluation.files import load_metrics
from bregma.files import read_json
from bregma.results import Estimate
from bregma.training.history import read_history
from bregma.workflows.run_folder import RunFolder

State = Literal["finished", "unfinished", "broken"]

_SCRATCH = ("checkpoint", "tensorboard")
"""What a finished run no longer needs: its bundle holds the weights and history.csv the curves."""
_SETTINGS = (
    "suspects.csv",
    "crops.json",
    "roi",
    "provenance.json",
    "split.json",
    "schema.json",
    "recipe.yaml",
    "plan.json",
)
_UNFINISHED = (*_SCRATCH, "close_up", "members", "history.csv", "curves.png", *_SETTINGS)
"""What a run consists of before its bundle is there; the plan goes last, so that a run half removed is still seen."""
_IDLE = timedelta(hours=1)
"""A training writes its checkpoint and history far more often; a run that is younger may be in progress."""


@dataclass(frozen=True)
class RunRow:
    """One run in a folder of experiments.

    Attributes:
        path: of the run.
        state: ``finished`` (evaluated, or with a bundle and nothing to evaluate it on), ``unfinished`` (can be
            resumed) or ``broken`` (its files cannot be read).
        title: of its recipe, or empty.
        data: name of its dataset.
        started: ISO time.
        seed: of the training.
        epoch: validated last.
        epochs: planned.
        minutes: in training steps.
        metric: name of the main figure.
        figure: mean radial error of its own evaluation, or None.
        bytes: on disk.
        problem: why it is broken.
    """

    path: str
    state: State
    title: str = ""
    data: str = ""
    started: str = ""
    seed: int = 0
    epoch: int = 0
    epochs: int = 0
    minutes: float = 0.0
    metric: str = ""
    figure: Estimate | None = None
    bytes: int = 0
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Pruned:
    """A folder that pruning removes.

    Attributes:
        path: of the folder; of an unfinished run's, what a training writes goes, and all else stays.
        why: in words.
        bytes: that go.
    """

    path: str
    why: str
    bytes: int


def list_runs(root: str | Path) -> tuple[RunRow, ...]:
    """Return every run below a folder: by dataset and metric the best first, then those without a figure.

    Raises:
        InputError: there is no such folder.
    """
    rows = [show_run(folder) for folder in _folders(Path(root))]
    return tuple(
        sorted(rows, key=lambda row: (_value(row) is None, row.data, row.metric, _value(row) or 0.0, row.path))
    )


def show_run(folder: str | Path) -> RunRow:
    """Return what one run says of itself; a run whose files cannot be read is ``broken``.

    Raises:
        RunError: the folder holds no run.
    """
    run = RunFolder(Path(folder))
    if not run.exists():
        raise RunError("holds no run", where=folder, expected="a folder with plan.json")
    size = _size(run.root)
    try:
        return _row(run, size)
    except (BregmaError, KeyError, TypeError, AttributeError) as error:
        return RunRow(str(run.root), "broken", bytes=size, problem=str(error))


def prune_runs(
    root: str | Path, *, unfinished: bool = False, older_than_days: float | None = None, dry: bool = True
) -> tuple[Pruned, ...]:
    """Remove what finished runs no longer need, and on request whole unfinished runs.

    Checkpoints and TensorBoard logs of finished runs go; bundles, evaluations, reports and histories always stay. So do
    unfinished runs that have a bundle, or in which something was written within the last hour. Links are not followed.

    Args:
        root: folder of experiments.
        unfinished: also remove runs that never came to a bundle.
        older_than_days: leave alone what was started later than this many days ago.
        dry: only tell what would go.

    Raises:
        InputError: there is no such folder, or the days are not a number of days.
        RunError: something cannot be removed.
    """
    if older_than_days is not None and not (math.isfinite(older_than_days) and older_than_days >= 0):
        raise InputError("cannot be understood", where="--older-than", expected="days", got=str(older_than_days))
    found: list[tuple[Pruned, list[Path]]] = []
    for row in list_runs(root):
        folder = Path(row.path)
        if older_than_days is not None and not _older(row, older_than_days):
            continue
        if row.state == "finished":
            parts = [part for part in _own(folder, _SCRATCH) if part.is_dir()]
            parts += [part for one in RunFolder(folder).within for part in _own(one.root, _SCRATCH) if part.is_dir()]
            found += [(Pruned(str(part), f"{part.name} of a finished run", _size(part)), [part]) for part in parts]
        elif row.state == "unfinished" and unfinished and not RunFolder(folder).bundle.exists() and _idle(folder):
            parts = _own(folder, _UNFINISHED)
            why = f"stopped at epoch {row.epoch} of {row.epochs}"
            found.append((Pruned(row.path, why, sum(map(_size, parts))), parts))
    if not dry:
        for item, parts in found:
            _remove(Path(item.path), parts)
    return tuple(item for item, _ in found)


def _row(run: RunFolder, size: int) -> RunRow:
    plan, about = run.read_plan().plan, read_json(run.root / "provenance.json")
    history = read_history(run.history)
    last = history[-1] if history else {}
    part = next((name for name in ("test", "val") if (run.evaluation(name) / "metrics.json").is_file()), None)
    metrics = {} if part is None else load_metrics(run.evaluation(part))
    metric = next((name for name in metrics if name.startswith("mre_") and not name.startswith("mre_sd_")), "")
    nothing_to_score = run.bundle.is_dir() and not {"test", "val"} & run.read_split().parts.keys()
    return RunRow(
        path=str(run.root),
        state="finished" if part is not None or nothing_to_score else "unfinished",
        title=run.read_recipe().title,
        data=str(about["data"]["name"]),
        started=str(about["started"]),
        seed=plan.train.seed,
        epoch=int(last.get("epoch", 0)),
        epochs=plan.train.epochs,
        minutes=round(float(last.get("seconds", 0.0)) / 60, 2),
        metric=f"{metric} ({part})" if metric else "",
        figure=metrics.get(metric),
        bytes=size,
    )


def _folders(root: Path) -> Iterator[Path]:
    """Yield the run folders below ``root``, which may be one itself, without looking into them further."""
    if not root.is_dir():
        raise InputError("there is no such folder", where=root, expected="a folder of runs")
    for plan in sorted(root.rglob("plan.json")):
        # A report or an export may hold a copy; a run's plan lies beside the recipe that it came from.
        if _is_run(plan.parent) and not _is_part(plan.parent):
            yield plan.parent


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("plan.json", "recipe.yaml"))


def _is_part(folder: Path) -> bool:
    """Tell whether a run is that of a further network of another run."""
    above = next((one for one in (folder.parent, folder.parent.parent) if _is_run(one)), None)
    return above is not None and folder in (one.root for one in RunFolder(above).within)


def _value(row: RunRow) -> float | None:
    return None if row.figure is None else row.figure.value


def _older(row: RunRow, days: float) -> bool:
    try:
        started = datetime.fromisoformat(row.started)
    except ValueError:
        return False
    age = datetime.now(UTC) - (started if started.tzinfo else started.replace(tzinfo=UTC))
    return age.total_seconds() > days * 86_400


def _idle(folder: Path) -> bool:
    """Tell whether nothing below a folder was written lately."""
    newest = max((found.st_mtime for found in _files(folder)), default=0.0)
    return datetime.now(UTC) - datetime.fromtimestamp(newest, UTC) > _IDLE


def _own(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return those entries of a run that are there and are no links to something elsewhere."""
    return [folder / name for name in names if (folder / name).exists() and not (folder / name).is_symlink()]


def _size(path: Path) -> int:
    return sum(found.st_size for found in _files(path))


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield what is known of a file, or of all files below a folder; one that goes away meanwhile is passed over."""
    names = [path] if path.is_file() else [Path(root, name) for root, _, files in os.walk(path) for name in files]
    for name in names:
        with suppress(FileNotFoundError):
            found = name.lstat()
            if stat.S_ISREG(found.st_mode):
                yield found


def _remove(folder: Path, parts: list[Path]) -> None:
    """Remove parts of a folder, and the folder where nothing else is left in it."""
    try:
        for part in parts:
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise RunError(f"cannot be removed ({error.strerror or error})", where=folder) from error
