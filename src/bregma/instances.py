"""One element of a repeated structure, such as a vertebra, as it was found on an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bregma.errors import InputError
from bregma.geometry import Array


@dataclass(frozen=True)
class Instance:
    """An element of a chain, found wherever it is; not every one can be named.

    Attributes:
        chain: the chain's name in the schema.
        parts: names of its P parts, e.g. the four corners.
        points: ``(P, 2)`` expected positions, in pixels.
        cov: ``(P, 2, 2)`` covariances in px².
        presence: ``(P,)`` probability that the part is on the image.
        probability: that there is such an element at all.
        level: its level, e.g. ``L4``; None where it cannot be named.
        level_probability: that ``level`` is right and not shifted, given that the element is there; 0 without a level.
        level_shares: probability of each level that it may be, where its number in a whole chain names it; also where
            no level is probable enough to be its name.
    """

    chain: str
    parts: tuple[str, ...]
    points: Array
    cov: Array
    presence: Array
    probability: float
    level: str | None = None
    level_probability: float = 0.0
    level_shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.parts)
        for name, shape in {"points": (n, 2), "cov": (n, 2, 2), "presence": (n,)}.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise InputError(f"instance '{name}' has the wrong shape", expected=str(shape), got=str(array.shape))
            if not np.isfinite(array).all():
                raise InputError(f"instance '{name}' is not finite", where=f"{self.chain} {self.level or ''}".strip())
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        for name in ("probability", "level_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"instance '{name}' lies outside 0 to 1", got=str(getattr(self, name)))
        if not all(0 <= share <= 1 for share in self.level_shares.values()):
            raise InputError("an instance's level shares lie outside 0 to 1", got=str(dict(self.level_shares)))
        if ((self.presence < 0) | (self.presence > 1)).any():
            raise InputError("an instance's presence lies outside 0 to 1", got=str(self.presence.tolist()))

    def __repr__(self) -> str:
        x, y = self.centre
        return f"Instance({self.level or 'unnamed'} at ({x:.0f}, {y:.0f}), probability {self.probability:.2f})"

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Instance) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def centre(self) -> Array:
        """Mean ``(2,)`` of its parts."""
        return np.asarray(self.points.mean(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "chain": self.chain,
            "parts": list(self.parts),
            "points": self.points.tolist(),
            "cov": self.cov.tolist(),
            "presence": self.presence.tolist(),
            "probability": self.probability,
            "level": self.level,
            "level_probability": self.level_probability,
            **({"level_shares": dict(self.level_shares)} if self.level_shares else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Instance:
        """Rebuild from ``to_dict``."""
        return cls(
            chain=data["chain"],
            parts=tuple(data["parts"]),
            points=np.array(data["points"], dtype=np.float64).reshape(-1, 2),
            cov=np.array(data["cov"], dtype=np.float64).reshape(-1, 2, 2),
            presence=np.array(data["presence"], dtype=np.float64),
            probability=float(data["probability"]),
            level=data["level"],
            level_probability=float(data["level_probability"]),
            level_shares={str(level): float(share) for level, share in data.get("level_shares", {}).items()},
        )
