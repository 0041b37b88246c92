"""What a training shows while it runs, and where output goes."""

from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Console

from bregma.console import TrainingProgress, set_up_logging, show_error, show_json, show_table, track


def shown(*, terminal: bool = False) -> tuple[io.StringIO, Console]:
    text = io.StringIO()
    return text, Console(file=text, force_terminal=terminal, width=200, color_system=None)


def row(epoch: int, images: float, seconds: float, **errors: float) -> dict[str, float]:
    return {"epoch": float(epoch), "train_loss": 1.25, "images": images, "seconds": seconds, **errors}


def test_a_warning_is_shown_once_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("bregma.tests")
    kept = logging.getLogger("bregma").handlers[:]
    try:
        set_up_logging(0)
        for name in ("a", "a", "b"):
            log.warning("no weights of %s", name)
            log.error("broken: %s", name)
        first = capsys.readouterr().err
        set_up_logging(0)
        log.warning("no weights of %s", "a")
        second = capsys.readouterr().err
    finally:
        logging.getLogger("bregma").handlers[:] = kept
    assert first.count("no weights of a") == first.count("no weights of b") == second.count("no weights of a") == 1
    assert first.count("broken: a") == 2


def test_a_line_a_validation() -> None:
    text, console = shown()
    with TrainingProgress(console) as observer:
        observer.started(0, 3, 10)
        for _ in range(10):
            observer.stepped(1.25)
        observer.validated(row(1, 80.0, 4.0, val_mre_px=3.5), best=True)
        observer.validated(row(2, 160.0, 12.0, val_mre_px=3.75), best=False)
    assert text.getvalue().splitlines() == [
        "epoch 1/3  loss 1.25  val MRE 3.500 px  new best  20.0 images/s",
        "epoch 2/3  loss 1.25  val MRE 3.750 px  best 3.500 px  10.0 images/s",
    ]


def test_without_validation_cases() -> None:
    text, console = shown()
    with TrainingProgress(console) as observer:
        observer.started(0, 1, 1)
        observer.validated(row(1, 8.0, 0.0), best=False)
    assert text.getvalue() == "epoch 1/1  loss 1.25\n"


def test_a_resumed_training_starts_where_it_was() -> None:
    _, console = shown(terminal=True)
    with TrainingProgress(console) as observer:
        observer.started(4, 10, 5)
        observer.stepped(0.5)
        (task,) = observer.progress.tasks
    assert (task.completed, task.total) == (21, 50)


def test_tables_and_json_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Parts", ("Name", "Status"), [("torch", "ok"), ("[bold]", "fail")])
    captured = capsys.readouterr()
    assert [line.split() for line in captured.out.splitlines()[1:4]] == [
        ["Name", "Status"],
        ["torch", "ok"],
        ["[bold]", "fail"],
    ]
    show_json({"a": [1, None, "µ"]})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [1, None, "µ"]}
    assert captured.err == ""


def test_json_is_strict() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        show_json({"a": float("nan")})


def test_an_error_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("x " * 300)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_tracking_changes_nothing() -> None:
    assert list(track(iter("abc"), 3, "letters")) == ["a", "b", "c"]
