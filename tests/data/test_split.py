"""No subject is ever divided, and what is not a valid split is refused by name."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bregma.config import validate
from bregma.data.split import Split, check_split, make_split
from bregma.errors import SplitError
from bregma.geometry import Frame
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.types import ArrayImage, Case, Dataset

SCHEMA: LandmarkSchema = schema_from_dict(
    {"name": "dot", "title": "Dot", "landmarks": [{"name": "a", "label": "A"}]}, where="test"
)


def _dataset(images: list[int], *, splits: dict[str, tuple[str, ...]] | None = None, tags: list[str] | None = None):
    """``images[i]`` cases of subject ``s<i>``, named ``s<i>_<k>``; every subject with its tag."""
    cases = tuple(
        Case(
            id=f"s{i:02d}_{k}",
            subject=f"s{i:02d}",
            image=ArrayImage(np.zeros((4, 4))),
            frame=Frame((4, 4)),
            tags={} if tags is None else {"site": tags[i]},
        )
        for i, count in enumerate(images)
        for k in range(count)
    )
    return Dataset("dots", SCHEMA, cases, splits=splits or {})


def _subjects(dataset: Dataset, split: Split) -> dict[str, set[str]]:
    return {part: {case.subject for case in split.cases(dataset, part)} for part in split.parts}


@given(images=st.lists(st.integers(1, 4), min_size=3, max_size=25), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_random_split_divides_subjects_and_loses_nobody(images: list[int], seed: int) -> None:
    dataset = _dataset(images)
    split = make_split(dataset, seed=seed)
    parts = list(_subjects(dataset, split).values())
    assert sum(map(len, parts)) == len(images)
    assert set.union(*parts) == set(dataset.subjects)
    assert Counter(case for ids in split.parts.values() for case in ids) == Counter(case.id for case in dataset)


@given(images=st.lists(st.integers(1, 3), min_size=5, max_size=23), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_every_subject_is_held_out_by_exactly_one_fold(images: list[int], seed: int) -> None:
    dataset = _dataset(images)
    held: Counter[str] = Counter()
    for fold in range(5):
        parts = _subjects(dataset, make_split(dataset, method="kfold", folds=5, fold=fold, seed=seed))
        assert parts["train"].isdisjoint(parts["val"])
        assert parts["train"] | parts["val"] == set(dataset.subjects)
        assert len(images) // 5 <= len(parts["val"]) <= len(images) // 5 + 1
        held.update(parts["val"])
    assert held == Counter(dataset.subjects)


def test_a_fold_held_out_for_testing_leaves_validation_to_the_others() -> None:
    dataset = _dataset([1, 3, 2] * 10)
    held: Counter[str] = Counter()
    for fold in range(3):
        parts = _subjects(dataset, make_split(dataset, method="kfold", folds=3, fold=fold, val_share=0.1, seed=4))
        assert {name: len(subjects) for name, subjects in parts.items()} == {"train": 18, "val": 2, "test": 10}
        assert set.union(*parts.values()) == set(dataset.subjects)
        whole = _subjects(dataset, make_split(dataset, method="kfold", folds=3, fold=fold, seed=4))
        assert parts["test"] == whole["val"]
        held.update(parts["test"])
    assert held == Counter(dataset.subjects)


def test_fractions_count_subjects() -> None:
    dataset = _dataset([1] * 20)
    split = make_split(dataset, fractions={"train": 0.6, "val": 0.25, "test": 0.15})
    assert [len(ids) for ids in split.parts.values()] == [12, 5, 3]


def test_largest_remainders_and_at_least_one_subject_a_part() -> None:
    # 0.7, 0.15 and 0.15 of 9 are 6.3, 1.35 and 1.35: the odd subject goes to a part with 0.35.
    assert [len(p) for p in make_split(_dataset([1] * 9)).parts.values()] == [6, 2, 1]
    split = make_split(_dataset([1] * 4), fractions={"train": 0.9, "val": 0.05, "test": 0.05})
    assert [len(p) for p in split.parts.values()] == [2, 1, 1]


def test_the_split_does_not_depend_on_the_order_of_cases_but_on_the_seed() -> None:
    dataset = _dataset([2] * 30)
    turned = Dataset("dots", SCHEMA, dataset.cases[::-1])
    first = _subjects(dataset, make_split(dataset, seed=1))
    assert _subjects(turned, make_split(turned, seed=1)) == first
    assert _subjects(dataset, make_split(dataset, seed=2)) != first


def test_strata_are_spread_evenly() -> None:
    tags = ["rare"] * 10 + ["common"] * 30
    dataset = _dataset([1] * 40, tags=tags)
    value_of = {case.id: case.tags["site"] for case in dataset}
    for seed in range(10):
        split = make_split(dataset, fractions={"train": 0.5, "val": 0.3, "test": 0.2}, seed=seed, stratify="site")
        rare = [sum(value_of[case] == "rare" for case in ids) for ids in split.parts.values()]
        assert np.abs(np.array(rare) - [5, 3, 2]).max() <= 1
        for fold in range(5):
            held = make_split(dataset, method="kfold", fold=fold, seed=seed, stratify="site").val
            assert abs(sum(value_of[case] == "rare" for case in held) - 2) <= 1


def test_a_subject_belongs_to_the_stratum_of_most_of_its_images() -> None:
    dataset = _dataset([3, 3, 3, 3])
    tags = ["x", "x", "y"] * 2 + ["y", "y", "x"] * 2
    cases = [Case(c.id, c.subject, c.image, c.frame, tags={"t": tag}) for c, tag in zip(dataset, tags)]
    mixed = Dataset("dots", SCHEMA, tuple(cases))
    for seed in range(8):
        split = make_split(mixed, fractions={"train": 0.5, "val": 0.5}, seed=seed, stratify="t")
        assert sorted(len(subjects & {"s00", "s01"}) for subjects in _subjects(mixed, split).values()) == [1, 1]


def test_a_given_split_keeps_its_parts_and_common_names() -> None:
    dataset = _dataset([1, 1, 1], splits={"train": ("s00_0",), "valid": ("s01_0", "s02_0")})
    split = make_split(dataset, method="given")
    assert split.train == ("s00_0",)
    assert split.val == ("s01_0", "s02_0")
    assert split.test == ()
    assert (split.method, split.seed) == ("given", None)


def test_a_subject_in_two_parts_is_refused_by_name() -> None:
    dataset = _dataset([2, 1, 2])
    with pytest.raises(SplitError) as caught:
        make_split(dataset, method="given", given={"train": ["s00_0", "s02_0"], "test": ["s00_1", "s01_0", "s02_1"]})
    assert "s00 (test and train)" in str(caught.value)
    assert "s02" in str(caught.value)
    assert "s01" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no split"),
        ({"train": ["s00_0"], "val": []}, "'val' is empty"),
        ({"train": ["s00_0", "nobody"]}, "nobody"),
        ({"train": ["s00_0", "s00_0"]}, "more than once"),
        ({"val": ["s00_0"], "valid": ["s01_0"]}, "two parts mean 'val'"),
    ],
)
def test_a_given_split_that_is_not_valid(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make_split(_dataset([1, 1]), method="given", given=given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "kfold", "folds": 4}, "fewer subjects than folds"),
        ({"method": "kfold", "folds": 1}, "no such fold"),
        ({"method": "kfold", "folds": 3, "fold": 3}, "no such fold"),
        ({"fractions": {"train": 0.5, "val": 0.4}}, "not valid"),
        ({"fractions": {"train": 1.2, "val": -0.2}}, "not valid"),
        ({"fractions": {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}}, "fewer subjects than parts"),
        ({"stratify": "site"}, "no case has the tag 'site'"),
    ],
)
def test_settings_that_cannot_be_met(arguments: dict, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make_split(_dataset([5, 1, 1]), **arguments)


def test_json_round_trip_and_unknown_part() -> None:
    dataset = _dataset([1] * 10)
    split = make_split(dataset, method="kfold", folds=5, fold=2, seed=7)
    assert validate(Split, split.to_dict(), where="split.json") == split
    assert (split.seed, split.folds, split.fold) == (7, 5, 2)
    with pytest.raises(SplitError, match="no part 'test'"):
        split.cases(dataset, "test")


def test_a_stored_split_is_checked_against_the_dataset() -> None:
    split = make_split(_dataset([1] * 10))
    with pytest.raises(SplitError, match="not in the dataset"):
        check_split(_dataset([1] * 5), split.parts)
