"""The record of a training comes back to the last digit, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bregma.errors import RunError
from bregma.training.history import read_history, write_history


def test_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "train_loss": 0.1 + 0.2}, {"epoch": 2.0, "train_loss": 1e-17, "val_mre_px": 1 / 3}]
    write_history(tmp_path / "h.csv", rows)
    assert read_history(tmp_path / "h.csv") == rows
    assert (tmp_path / "h.csv").read_text().splitlines()[0] == "epoch,train_loss,val_mre_px"


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "absent.csv") == []


@pytest.mark.parametrize("content", [b"epoch,loss\n1,high\n", b"epoch\n1,2,3\n", b"\xff\xfe\x00", b"epoch\n1\x00\n"])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "h.csv").write_bytes(content)
    with pytest.raises(RunError, match=r"h\.csv: is not the record of a training"):
        read_history(tmp_path / "h.csv")
