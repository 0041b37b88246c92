"""Doubted labels are left out of the training part, or seen less often; a table that does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from bregma.data.loader import SampleSource
from bregma.errors import ConfigError, LabelError
from bregma.recipe import DataConfig, load_recipe
from bregma.types import Dataset, Status
from bregma.workflows import train
from bregma.workflows.trusted import trusted_labels


def _table(path: Path, *rows: tuple[str, str, float]) -> str:
    lines = ["case,landmark,weight", *(f"{case},{name},{weight}" for case, name, weight in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def ids(spots: Dataset) -> list[str]:
    return [case.id for case in spots.select(spots.splits["train"])]


class TestLeavingOut:
    def test_only_labels_at_the_threshold_or_above(self, spots: Dataset, ids: list[str], tmp_path: Path) -> None:
        rows = [(ids[0], "bright", 0.5), (ids[1], "bright", 0.51), (ids[2], "", 0.0)]
        table = _table(tmp_path / "t.csv", *rows)
        cases = spots.select(ids)
        found = trusted_labels(cases, spots, DataConfig(exclude=table), table)
        assert (found.labels_left_out, found.cases_left_out, found.labels_down_weighted) == (3, 1, 0)
        assert [case.id for case in found.cases] == [ids[0], ids[1], *ids[3:]]
        first, second = (case.landmarks for case in found.cases[:2])
        assert first is not None
        assert first.status.tolist() == [Status.UNLABELLED, cases[0].landmarks.status[1]]
        assert second == cases[1].landmarks
        assert found.trust == {}
        assert "3 training labels" in found.notes[0]
        assert "1 whole images" in found.notes[0]

    def test_a_higher_threshold_trusts_more(self, spots: Dataset, ids: list[str], tmp_path: Path) -> None:
        table = _table(tmp_path / "t.csv", (ids[0], "bright", 0.3), (ids[1], "bright", 0.0))
        found = trusted_labels(spots.select(ids), spots, DataConfig(exclude=table, threshold=1.0), table)
        assert found.labels_left_out == 1

    def test_nothing_changes_without_a_table(self, spots: Dataset, ids: list[str]) -> None:
        found = trusted_labels(spots.select(ids), spots, DataConfig(), None)
        assert found.cases == spots.select(ids)
        assert (found.notes, found.threshold) == ((), None)

    def test_other_parts_may_be_named(self, spots: Dataset, ids: list[str], tmp_path: Path) -> None:
        table = _table(tmp_path / "t.csv", (spots.splits["test"][0], "bright", 0.0))
        found = trusted_labels(spots.select(ids), spots, DataConfig(exclude=table), table)
        assert found.labels_left_out == 0

    def test_something_must_be_left(self, spots: Dataset, ids: list[str], tmp_path: Path) -> None:
        table = _table(tmp_path / "t.csv", *((case, "", 0.0) for case in ids))
        with pytest.raises(LabelError, match="leaves no label to learn from"):
            trusted_labels(spots.select(ids), spots, DataConfig(exclude=table), table)


class TestDownWeighting:
    def test_a_doubted_label_is_seen_in_that_share_of_its_views(
        self, spots: Dataset, ids: list[str], tmp_path: Path
    ) -> None:
        table = _table(tmp_path / "t.csv", (ids[0], "bright", 0.7))
        found = trusted_labels(spots.select(ids), spots, DataConfig(exclude=table, down_weight=True), table)
        assert found.labels_down_weighted == 1
        source = SampleSource(found.cases[:2], spots.schema, tiny.plan().model.preprocess, trust=found.trust)
        seen = np.array([source.sample(0, epoch).placed for epoch in range(400)])
        # Binomial: the standard deviation of the share is 0.023.
        assert abs(seen[:, 0].mean() - 0.7) < 0.08
        assert seen[:, 1].all()
        assert not source.sample(0, int(np.argmin(seen[:, 0]))).known[0]
        assert all(source.sample(1, epoch).placed.all() for epoch in range(20))

    def test_the_rest_of_a_view_stays_as_it_was(self, spots: Dataset, ids: list[str]) -> None:
        cases, plan = spots.select(ids[:1]), tiny.plan()
        doubted = SampleSource(
            cases, spots.schema, plan.model.preprocess, plan.augment, trust={ids[0]: np.array([0.5, 1.0])}
        )
        plain = SampleSource(cases, spots.schema, plan.model.preprocess, plan.augment)
        for epoch in range(4):
            a, b = doubted.sample(0, epoch), plain.sample(0, epoch)
            assert (a.image == b.image).all()
            assert (a.points_in == b.points_in).all()


class TestRun:
    def test_says_what_it_left_out_and_resumes_from_its_own_copy(
        self, spots: Dataset, ids: list[str], tmp_path: Path
    ) -> None:
        table = Path(_table(tmp_path / "t.csv", (ids[0], "bright", 0.1), (ids[1], "", 0.0)))
        short = [*tiny.OVERRIDES, "train.epochs=1"]
        result = train(spots, tmp_path / "run", overrides=short, exclude=table)
        about = json.loads((result.run / "provenance.json").read_text())["labels"]
        expected = {"labels_left_out": 3, "cases_left_out": 1, "labels_down_weighted": 0, "threshold": 0.5}
        assert expected.items() <= about.items()
        assert about["table"] == str(table)
        assert result.evaluation is not None
        assert "3 training labels" in result.evaluation.notes[0]
        table.unlink()
        again = train(spots, tmp_path / "run", resume=True)
        assert json.loads((again.run / "provenance.json").read_text())["labels"] == about
        assert again.evaluation is not None
        assert again.evaluation.notes == result.evaluation.notes


class TestBadInput:
    def test_a_table_of_other_images(self, spots: Dataset, tmp_path: Path) -> None:
        table = _table(tmp_path / "t.csv", ("nobody", "bright", 0.1))
        with pytest.raises(LabelError, match="is about other images"):
            train(spots, tmp_path / "run", overrides=tiny.OVERRIDES, exclude=table)
        assert not (tmp_path / "run").exists()

    def test_no_table_there(self, spots: Dataset, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="cannot be read"):
            train(spots, tmp_path / "run", overrides=tiny.OVERRIDES, exclude=tmp_path / "absent.csv")

    @pytest.mark.parametrize("threshold", ["0", "1.5", "-1", "much"])
    def test_a_threshold_out_of_range(self, threshold: str) -> None:
        with pytest.raises(ConfigError, match=r"data\.threshold"):
            load_recipe(None, ["data.exclude=a.csv", f"data.threshold={threshold}"])

    def test_a_threshold_without_a_table(self) -> None:
        with pytest.raises(ConfigError, match="without a table of suspects"):
            load_recipe(None, ["data.threshold=0.3"])

    def test_labels_of_another_schema(self, spots: Dataset, ids: list[str], tmp_path: Path) -> None:
        table = _table(tmp_path / "t.csv", (ids[0], "nose", 0.1))
        with pytest.raises(LabelError, match="there is no landmark 'nose'"):
            trusted_labels(spots.select(ids), replace(spots), DataConfig(exclude=table), table)
