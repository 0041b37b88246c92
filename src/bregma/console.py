"""What the command line shows: tables on standard output; progress, messages and errors on standard error."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

COLOURS = {"ok": "green", "note": "cyan", "warn": "yellow", "warning": "yellow", "fail": "red", "error": "red"}


PIPED_WIDTH = 200
"""Columns of a table that goes to a file or a pipe, where no terminal says how wide it is."""


def out() -> Console:
    """Return the console of results; made anew, because tests and pipes exchange the stream."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def err() -> Console:
    """Return the console of messages, progress and errors."""
    return Console(stderr=True)


def set_up_logging(verbose: int) -> None:
    """Send log records to standard error: warnings, with 1 also what is going on, with 2 all details.

    A warning that every run of a study would repeat is shown once.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    handler = RichHandler(console=err(), show_path=verbose > 1, show_time=verbose > 0, rich_tracebacks=False)
    logger = logging.getLogger("bregma")
    handler.addFilter(_Once())
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    # Fabric announces its precision on a stream of its own; the plan says it already.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(max(level, logging.WARNING))


class _Once(logging.Filter):
    """Lets a warning pass when it is heard for the first time, and everything else always."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        text = record.getMessage()
        if record.levelno != logging.WARNING:
            return True
        known = text in self._heard
        self._heard.add(text)
        return not known


def show_json(data: Any) -> None:
    """Write strict JSON to standard output, and nothing else."""
    out().print_json(json.dumps(data, ensure_ascii=False, allow_nan=False), highlight=False)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table; a cell that names a status is coloured."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    out().print(table)
    out().print()


def show_facts(facts: Mapping[str, object]) -> None:
    """Write names and values, one a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))
    out().print(table)


def say(message: str) -> None:
    """Write a message to standard error."""
    err().print(Text(message), soft_wrap=True)


def show_error(message: str) -> None:
    """Write one error to standard error, in red where that can be seen."""
    err().print(Text.assemble(("error: ", "bold red"), (message, "red")), soft_wrap=True)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items under a progress bar that goes away at the end; a ``bregma.workflows.track.Track``."""
    with _progress() as progress:
        yield from progress.track(items, total=total, description=what)


class TrainingProgress:
    """Shows a training while it runs; an ``Observer`` of ``bregma.training.progress`` and a context manager.

    A line per validation stays; below it, where standard error is a terminal, a bar shows the steps and the time left.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or err()
        self.progress = _progress(self.console)
        self.task: TaskID | None = None
        self.epochs = 0
        self.best: float | None = None
        self._last = (0.0, 0.0)

    def __enter__(self) -> TrainingProgress:
        """Nothing is shown before training starts."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away, whatever happened."""
        self.progress.stop()

    def started(self, epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Show the bar, at the step where training starts or resumes; that of a training before goes away."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.epochs, self.best, self._last = epochs, None, (0.0, 0.0)
        total, completed = epochs * steps_per_epoch, epoch * steps_per_epoch
        self.task = self.progress.add_task("train", total=total, completed=completed)
        self.progress.start()

    def say(self, message: str) -> None:
        """Write a line above the bar."""
        self.console.print(Text(message), soft_wrap=True)

    def stepped(self, loss: float) -> None:
        """Move the bar by one step."""
        if self.task is not None:
            self.progress.update(self.task, advance=1, description=f"train, loss {loss:.4g}")

    def validated(self, row: Mapping[str, float], best: bool) -> None:
        """Write a line: epoch, loss, validation error, the best so far, and the speed since the last line."""
        self.console.print(Text(self._line(row, best)), soft_wrap=True)

    def _line(self, row: Mapping[str, float], best: bool) -> str:
        parts = [f"epoch {int(row['epoch'])}/{self.epochs}", f"loss {row['train_loss']:.4g}"]
        if "val_mre_px" in row:
            self.best = row["val_mre_px"] if best else self.best
            parts.append(f"val MRE {row['val_mre_px']:.3f} px")
            parts.append("new best" if best else f"best {self.best:.3f} px" if self.best is not None else "")
        images, seconds = row["images"] - self._last[0], row["seconds"] - self._last[1]
        self._last = (row["images"], row["seconds"])
        parts.append(f"{images / seconds:.1f} images/s" if images > 0 and seconds > 0 else "")
        return "  ".join(part for part in parts if part)


def _progress(console: Console | None = None) -> Progress:
    shown = console or err()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    )
