"""Clinical covariates (age, sex) as columns beside features of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bregma.errors import LabelError
from bregma.geometry import Array
from bregma.types import Case, Tag


@dataclass(frozen=True)
class Covariates:
    """How tags of cases become columns.

    Attributes:
        words: tag to the words it may hold, each with a column of its own; none where it is a number.
    """

    words: Mapping[str, tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(
            column for tag, known in self.words.items() for column in (tuple(f"{tag}={w}" for w in known) or (tag,))
        )

    def of(self, case: Case) -> Array:
        """Return the columns of a case.

        Raises:
            LabelError: a tag that it lacks, or that holds something never seen.
        """
        row: list[float] = []
        for tag, known in self.words.items():
            value = case.tags.get(tag)
            if known:
                word = "" if value is None else str(value)
                if word not in known:
                    raise LabelError(f"its '{tag}' is not known", where=case.id, expected=_either(known), got=word)
                row += [float(word == one) for one in known]
            else:
                row.append(_number(case, tag, value))
        return np.array(row)


def learn_covariates(cases: Sequence[Case], tags: Sequence[str]) -> Covariates:
    """Settle from the training cases which tags are numbers, and which words the others hold.

    Raises:
        LabelError: a tag that no case has, or that holds numbers in some and words in others.
    """
    words: dict[str, tuple[str, ...]] = {}
    for tag in tags:
        values = [case.tags[tag] for case in cases if case.tags.get(tag) not in (None, "")]
        if not values:
            known = sorted({name for case in cases for name in case.tags})
            raise LabelError(
                f"no training case has the covariate '{tag}'",
                where="fit.covariates",
                expected=f"tags of the cases: {', '.join(known)}" if known else "tags in the table of labels",
            )
        numeric = [_is_number(value) for value in values]
        if any(numeric) and not all(numeric):
            example = next(str(value) for value, number in zip(values, numeric) if not number)
            raise LabelError(f"the covariate '{tag}' is a number in some cases, but not in all", got=example)
        words[tag] = () if all(numeric) else tuple(sorted({str(value) for value in values}))
    return Covariates(words)


def has_all(case: Case, tags: Sequence[str]) -> bool:
    """Tell whether a case has every one of some tags."""
    return all(case.tags.get(tag) not in (None, "") for tag in tags)


def _number(case: Case, tag: str, value: Tag | None) -> float:
    if not _is_number(value):
        got = "none" if value in (None, "") else str(value)
        raise LabelError(
            f"its '{tag}' is not a number",
            where=case.id,
            got=got,
            fix="give it as a tag of the case, or as a column of `predict --subjects`",
        )
    return float(str(value))


def _is_number(value: Tag | None) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    try:
        return bool(np.isfinite(float(value)))
    except ValueError:
        return False


def _either(words: Sequence[str]) -> str:
    return f"one of {', '.join(words)}"
