"""How workflows tell of long iterations without knowing of any console."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iteration of known length, e.g. in a progress bar."""

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """Return the items, telling somebody how many have gone by."""
        ...


def untracked(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """Tell nobody."""
    del total, what
    return items
