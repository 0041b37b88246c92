"""What stands in the place of a prediction that could not be made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A case that could not be predicted."""

    case_id: str
    reason: str
