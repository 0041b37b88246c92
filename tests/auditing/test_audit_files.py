"""The table of suspects goes round, and a person's own table is read or refused with its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bregma.auditing.audit import Suspect
from bregma.auditing.files import read_label_weights, write_suspects
from bregma.errors import LabelError
from bregma.schema import load_schema

SCHEMA = load_schema("fetal_head")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    suspects = (
        Suspect("a,b", "ofd_2", 0.75, "far, and away", (1.5, 2.0)),
        Suspect("c", "bpd_1", 0.25, "x", None),
    )
    weights = read_label_weights(write_suspects(tmp_path / "audit.csv", suspects), SCHEMA, {"a,b", "c", "d"})
    assert set(weights) == {"a,b", "c"}
    np.testing.assert_allclose(weights["a,b"], [1, 0.25, 1, 1])
    np.testing.assert_allclose(weights["c"], [1, 1, 0.75, 1])


def test_a_list_of_cases_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("case,landmark,weight\nx,,\nx,ofd_1,0.5\ny,ofd_1,0.5\ny,ofd_1,0.75\n")
    weights = read_label_weights(path, SCHEMA, {"x", "y"})
    assert weights["x"].tolist() == [0, 0, 0, 0]
    assert weights["y"].tolist() == [0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,score\nx,1\n", "lacks the column 'landmark'"),
        ("case,landmark,weight\nx,nose,0\n", "row 2"),
        ("case,landmark,weight\nx,ofd_1,0\n,ofd_1,0\n", "row 3"),
        ("case,landmark,weight\nx,ofd_1,0\nz,ofd_1,0\n", "row 3: names an image that the data do not have"),
        ("case,landmark,weight\nz,ofd_1,0\nw,ofd_1,0\n", "is about other images"),
        ("", "lacks the column 'case'"),
        ("case,landmark,weight\nx,ofd_1,2\n", "a number from 0 to 1"),
        ("case,landmark,weight\nx,ofd_1,much\n", "'much'"),
        ("case,landmark,weight\nx,ofd_1,nan\n", "'nan'"),
    ],
)
def test_a_wrong_table_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(LabelError, match=words):
        read_label_weights(path, SCHEMA, {"x", "y"})


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        read_label_weights(tmp_path / "none.csv", SCHEMA, {"x", "y"})
