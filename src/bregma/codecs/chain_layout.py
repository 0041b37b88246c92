"""Which map shows what, for a schema with a chain.

Channels of the output: one map a part, one map of centres, one map for each *single* (a part of the anchor, and every
landmark that belongs to no chain), then two fields a part (from a cell near a centre to the part) and two more (to the
centre of the next level).
"""

from __future__ import annotations

from dataclasses import dataclass

from bregma.errors import ConfigError
from bregma.schema import Chain, LandmarkSchema


@dataclass(frozen=True)
class Layout:
    """A schema as the chain codec sees it.

    Attributes:
        chain: the repeated structure.
        names: all landmarks of the schema.
        parts: names of the chain's P parts.
        ranks: positions in ``chain.levels`` of the L levels that share maps: all but the anchor.
        columns: ``(L, P)`` the landmark of each part of these levels; -1 where a level lacks the part.
        anchor: position of the anchor in ``chain.levels``; None without one, or where levels have no names.
        anchor_parts: names of the anchor's parts; empty without one.
        singles: landmarks with a map of their own; those of the anchor come first.
    """

    chain: Chain
    names: tuple[str, ...]
    parts: tuple[str, ...]
    ranks: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]
    anchor: int | None
    anchor_parts: tuple[str, ...]
    singles: tuple[int, ...]

    @property
    def maps(self) -> int:
        """Number of maps: parts, centres and singles."""
        return len(self.parts) + 1 + len(self.singles)

    @property
    def fields(self) -> int:
        """Number of fields: x and y of every way."""
        return 2 * self.ways

    @property
    def ways(self) -> int:
        """Number of ways from a centre: to every part and to the next level."""
        return len(self.parts) + 1

    def columns_at(self, rank: int) -> tuple[int, ...]:
        """Return the landmark of each of the chain's P parts at a level; -1 where the level lacks it."""
        if rank != self.anchor:
            return self.columns[self.ranks.index(rank)]
        own = dict(zip(self.anchor_parts, self.singles, strict=False))
        return tuple(own.get(part, -1) for part in self.parts)

    def least_parts(self, row: int) -> int:
        """Return how many parts of a level must be seen for it to count: half of those that it has."""
        return (sum(column >= 0 for column in self.columns[row]) + 1) // 2


def layout_of(schema: LandmarkSchema, name: str | None) -> Layout:
    """Lay out the chain called ``name``, or the only one.

    Args:
        schema: with the chain.
        name: of the chain.

    Raises:
        ConfigError: no chain, several and no name, or none of that name.
    """
    chain = _chain(schema, name)
    # Levels without names need none to be named from.
    anchor = chain.levels.index(chain.anchor) if chain.anchor is not None and chain.named else None
    ranks = tuple(rank for rank in range(len(chain.levels)) if rank != anchor)
    if not ranks:
        raise _unfit(schema, f"the chain '{chain.name}' has no level but its anchor")
    parts = tuple(chain.parts)
    columns = tuple(_columns(schema, chain, chain.levels[rank], parts) for rank in ranks)
    shared = {column for row in columns for column in row}
    anchor_parts = () if anchor is None else tuple(chain.parts_of(chain.levels[anchor]))
    first = () if anchor is None else _columns(schema, chain, chain.levels[anchor], anchor_parts)
    others = [index for index in range(len(schema)) if index not in shared and index not in first]
    singles = (*first, *others)
    return Layout(chain, schema.names, parts, ranks, columns, anchor, anchor_parts, singles)


def _columns(schema: LandmarkSchema, chain: Chain, level: str, parts: tuple[str, ...]) -> tuple[int, ...]:
    own = chain.parts_of(level)
    return tuple(schema.index(chain.landmark_name(level, part)) if part in own else -1 for part in parts)


def _chain(schema: LandmarkSchema, name: str | None) -> Chain:
    found = [chain for chain in schema.chains if name is None or chain.name == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(chain.name for chain in schema.chains)
    if not schema.chains:
        raise _unfit(schema, "the chain codec is for anatomies with a repeated structure")
    raise ConfigError(
        f"the schema '{schema.name}' has no chain '{name}'" if name else "the schema has several chains",
        where="model.codec.chain",
        expected=f"one of {known}",
        got=name or "none",
    )


def _unfit(schema: LandmarkSchema, problem: str) -> ConfigError:
    return ConfigError(
        problem,
        where="model.codec.name",
        got=f"the schema '{schema.name}'",
        fix="choose the codec 'heatmap', or declare a chain in the schema",
    )
