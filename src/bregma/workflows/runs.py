"""``runs``: what lies in a folder of experiments; finding, showing and pruning them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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


@dataclass(frozen=True)
class RunRow:
    """One run in a folder of experiments.

    Attributes:
        path: of the run.
        state: ``finished`` (evaluated), ``unfinished`` (can be resumed) or ``broken`` (its files cannot be read).
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
        path: of the folder.
        why: in words.
        bytes: that it takes.
    """

    path: str
    why: str
    bytes: int


def list_runs(root: str | Path) -> tuple[RunRow, ...]:
    """Return every run below a folder, best first where they can be ranked, then unfinished ones.

    Raises:
        InputError: there is no such folder.
    """
    rows = [show_run(folder) for folder in _folders(Path(root))]
    return tuple(sorted(rows, key=lambda row: (row.data, row.metric, _value(row), row.path)))


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

    Checkpoints and TensorBoard logs of finished runs go; bundles, evaluations, reports and histories always stay.

    Args:
        root: folder of experiments.
        unfinished: also remove runs that never came to an evaluation.
        older_than_days: leave alone what was started later than this many days ago.
        dry: only tell what would go.

    Raises:
        InputError: there is no such folder.
        RunError: something cannot be removed.
    """
    limit = None if older_than_days is None else datetime.now(UTC) - timedelta(days=older_than_days)
    found: list[Pruned] = []
    for row in list_runs(root):
        if limit is not None and not _before(row, limit):
            continue
        folder = Path(row.path)
        if row.state == "finished":
            scratch = [folder / name for name in _SCRATCH if (folder / name).is_dir()]
            found += [Pruned(str(part), f"{part.name} of a finished run", _size(part)) for part in scratch]
        elif row.state == "unfinished" and unfinished:
            found.append(Pruned(row.path, f"stopped at epoch {row.epoch} of {row.epochs}", row.bytes))
    if not dry:
        for item in found:
            _remove(Path(item.path))
    return tuple(found)


def _row(run: RunFolder, size: int) -> RunRow:
    plan, about = run.read_plan().plan, read_json(run.root / "provenance.json")
    history = read_history(run.history)
    last = history[-1] if history else {}
    part = next((name for name in ("test", "val") if (run.evaluation(name) / "metrics.json").is_file()), None)
    metrics = {} if part is None else load_metrics(run.evaluation(part))
    metric = next((name for name in metrics if name.startswith("mre_") and not name.startswith("mre_sd_")), "")
    return RunRow(
        path=str(run.root),
        state="unfinished" if part is None else "finished",
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
        if (plan.parent / "recipe.yaml").is_file():
            yield plan.parent


def _value(row: RunRow) -> float:
    return float("inf") if row.figure is None or row.figure.value is None else row.figure.value


def _before(row: RunRow, limit: datetime) -> bool:
    try:
        return datetime.fromisoformat(row.started) < limit
    except ValueError:
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"cannot be removed ({error.strerror})", where=folder) from error
