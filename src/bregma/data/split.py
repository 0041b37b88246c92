"""Division of a dataset into training, validation and test cases, always by subject."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from bregma.config import Config
from bregma.errors import SplitError
from bregma.types import Case, Dataset

Method = Literal["random", "kfold", "given"]

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}

_SAME_AS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}

_log = logging.getLogger(__name__)


class Split(Config):
    """Case ids by part, and how they were chosen."""

    parts: dict[str, tuple[str, ...]]
    """Part (``train``, ``val``, ``test``) to case ids."""
    method: Method
    seed: int | None = None
    """Of the shuffle; None for a given split."""
    folds: int | None = None
    fold: int | None = None
    stratify: str | None = None
    """The tag whose values are spread evenly over the parts."""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(ids)}" for name, ids in self.parts.items())
        return f"Split({self.method}: {sizes})"

    @property
    def train(self) -> tuple[str, ...]:
        """Ids to learn from; empty where there is no such part."""
        return self.parts.get("train", ())

    @property
    def val(self) -> tuple[str, ...]:
        """Ids to choose and calibrate on; empty where there is no such part."""
        return self.parts.get("val", ())

    @property
    def test(self) -> tuple[str, ...]:
        """Ids for the final measurement; empty where there is no such part."""
        return self.parts.get("test", ())

    def cases(self, dataset: Dataset, part: str) -> tuple[Case, ...]:
        """Return the cases of a part.

        Raises:
            SplitError: no such part, or a case that is not in the dataset.
        """
        if part not in self.parts:
            raise SplitError(f"has no part '{part}'", where="split", expected=f"one of {', '.join(self.parts)}")
        return dataset.select(self.parts[part])


def make_split(
    dataset: Dataset,
    *,
    method: Method = "random",
    fractions: Mapping[str, float] | None = None,
    folds: int = 5,
    fold: int = 0,
    val_share: float = 0.0,
    seed: int = 0,
    stratify: str | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """Divide a dataset so that all images of a subject lie in one part.

    The result depends on the subjects' names, the settings and the seed, not on the order of the cases.

    Args:
        dataset: cases with subjects.
        method: ``random`` by fractions, ``kfold`` (one fold is held out, the others are ``train``) or ``given``.
        fractions: part to share of the subjects, summing to 1; for ``random``.
        folds: number of folds; for ``kfold``.
        fold: which fold is held out, from 0; for ``kfold``.
        val_share: for ``kfold``: 0 calls the fold that is held out ``val``. Above 0 that fold is ``test``, which no
            choice is made on, and this share of the other subjects is ``val``.
        seed: of the shuffle.
        stratify: a tag whose values are spread evenly over the parts; a subject has its most frequent value.
        given: part to case ids; for ``given``, by default the split published with the dataset.

    Raises:
        SplitError: a subject in two parts, an empty part, unknown ids, too few subjects or a setting that is not valid.
    """
    if method == "given":
        return _given(dataset, dataset.splits if given is None else given)
    order = _dealing_order(dataset, seed, stratify)
    if method == "kfold":
        members = _folded(order, folds, fold, val_share)
        split = Split(parts={}, method=method, seed=seed, folds=folds, fold=fold, stratify=stratify)
    else:
        members = _shares(order, DEFAULT_FRACTIONS if fractions is None else fractions)
        split = Split(parts={}, method=method, seed=seed, stratify=stratify)
    parts = {name: tuple(case.id for case in dataset if case.subject in subjects) for name, subjects in members.items()}
    split = split.model_copy(update={"parts": parts})
    check_split(dataset, split.parts)
    return split


def check_split(dataset: Dataset, parts: Mapping[str, Sequence[str]]) -> None:
    """Check that parts are not empty, name cases of the dataset, and share no subject.

    Raises:
        SplitError: says which of it fails, with the cases or subjects.
    """
    if not parts:
        raise SplitError("there is no split", where=dataset.name, fix="choose method random or kfold")
    subject_of = {case.id: case.subject for case in dataset}
    home: dict[str, str] = {}
    shared: dict[str, set[str]] = {}
    for name, ids in parts.items():
        if not ids:
            raise SplitError(f"the part '{name}' is empty", where=dataset.name, fix="leave it out, or add cases to it")
        unknown = [case for case in ids if case not in subject_of]
        if unknown:
            problem = f"the part '{name}' names {len(unknown)} cases that are not in the dataset"
            raise SplitError(problem, where=dataset.name, got=_some(unknown))
        twice = [case for case, count in Counter(ids).items() if count > 1]
        if twice:
            raise SplitError(f"the part '{name}' names cases more than once", where=dataset.name, got=_some(twice))
        for subject in dict.fromkeys(subject_of[case] for case in ids):
            if home.setdefault(subject, name) != name:
                shared.setdefault(subject, {home[subject]}).add(name)
    if shared:
        raise SplitError(
            f"{len(shared)} subjects lie in more than one part, so the test would know them from training",
            where=dataset.name,
            got=_some([f"{subject} ({' and '.join(sorted(names))})" for subject, names in shared.items()]),
            fix="move all images of a subject into one part",
        )


def _given(dataset: Dataset, given: Mapping[str, Sequence[str]]) -> Split:
    parts: dict[str, tuple[str, ...]] = {}
    for name, ids in given.items():
        part = _SAME_AS.get(name.lower(), name)
        if part in parts:
            raise SplitError(f"two parts mean '{part}'", where=dataset.name, got=", ".join(given))
        parts[part] = tuple(ids)
    check_split(dataset, parts)
    left = len(dataset) - sum(len(ids) for ids in parts.values())
    if left:
        _log.warning("%d of %d cases of %s are in no part of the given split", left, len(dataset), dataset.name)
    return Split(parts=parts, method="given")


def _dealing_order(dataset: Dataset, seed: int, stratify: str | None) -> tuple[str, ...]:
    """Shuffle subjects so that any stretch of the order holds every stratum in proportion.

    Within its stratum of n, the i-th subject sits at (i + u) / n with one random u: systematic sampling.
    """
    generator = np.random.default_rng(seed)
    strata: dict[str, list[str]] = {}
    for subject, value in sorted(_strata(dataset, stratify).items()):
        strata.setdefault(value, []).append(subject)
    placed: list[tuple[float, str]] = []
    for value in sorted(strata):
        shuffled = generator.permutation(len(strata[value]))
        positions = (np.arange(len(shuffled)) + generator.random()) / len(shuffled)
        placed += [(float(at), strata[value][index]) for at, index in zip(positions, shuffled)]
    return tuple(subject for _, subject in sorted(placed))


def _strata(dataset: Dataset, tag: str | None) -> dict[str, str]:
    if tag is None:
        return dict.fromkeys(dataset.subjects, "")
    values: dict[str, Counter[str]] = {subject: Counter() for subject in dataset.subjects}
    for case in dataset:
        if tag in case.tags:
            values[case.subject][str(case.tags[tag])] += 1
    if not any(values.values()):
        known = sorted({name for case in dataset for name in case.tags})
        expected = f"one of {', '.join(known)}" if known else "a dataset with tags"
        raise SplitError(f"no case has the tag '{tag}' to stratify by", where=dataset.name, expected=expected)
    return {
        subject: min(count, key=lambda value: (-count[value], value)) if count else ""
        for subject, count in values.items()
    }


def _folded(order: Sequence[str], folds: int, fold: int, val_share: float) -> dict[str, set[str]]:
    if folds < 2 or not 0 <= fold < folds:
        raise SplitError("there is no such fold", expected="2 folds or more, counted from 0", got=f"{fold} of {folds}")
    if len(order) < folds:
        raise SplitError("there are fewer subjects than folds", got=f"{len(order)} subjects, {folds} folds")
    held = {subject for index, subject in enumerate(order) if index * folds // len(order) == fold}
    others = [subject for subject in order if subject not in held]
    if val_share == 0.0:
        return {"train": set(others), "val": held}
    # Evenly spaced along the order, so that validation, too, holds every stratum in proportion.
    count = max(1, round(val_share * len(others)))
    val = {others[(2 * index + 1) * len(others) // (2 * count)] for index in range(min(count, len(others)))}
    return {"train": set(others) - val, "val": val, "test": held}


def _shares(order: Sequence[str], fractions: Mapping[str, float]) -> dict[str, set[str]]:
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1.0) > 1e-6:
        raise SplitError(
            "the fractions are not valid", expected="positive shares that sum to 1", got=str(dict(fractions))
        )
    if len(order) < len(fractions):
        raise SplitError("there are fewer subjects than parts", got=f"{len(order)} subjects, {len(fractions)} parts")
    counts = _apportion(len(order), list(fractions.values()))
    ends = np.cumsum(counts)
    return {name: set(order[end - count : end]) for name, count, end in zip(fractions, counts, ends)}


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Give each share its whole number by largest remainders, and at least one."""
    exact = [share * total for share in shares]
    counts = [int(value) for value in exact]
    for index in sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])[: total - sum(counts)]:
        counts[index] += 1
    while min(counts) == 0:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
