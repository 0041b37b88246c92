"""The section of a report on chains: what was found of each level, and on which images it went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bregma.report.sections import metric_rows, some_ids
from bregma.report.words import is_chain_metric
from bregma.results import CaseResult, ElementResult, Evaluation
from bregma.schema import Chain, LandmarkSchema


@dataclass(frozen=True)
class LevelRow:
    """What became of one level, or of what is at no level, over all images."""

    level: str
    labelled: int
    found: int
    right: int
    wrong: str
    unnamed: int


@dataclass(frozen=True)
class ChainSection:
    """One chain on a page.

    Attributes:
        name: the chain.
        metrics: its figures, as rows of a table.
        levels: one row a level that is labelled anywhere; empty for a chain without names.
        faults: what went wrong and on which images.
    """

    name: str
    metrics: list[dict[str, Any]]
    levels: tuple[LevelRow, ...]
    faults: tuple[tuple[str, int, str], ...]


def chain_sections(evaluation: Evaluation) -> list[ChainSection]:
    """Return a section for every chain of which some image shows a part only, or that the model looks for itself.

    Where every image shows every level, and every level has its slot, there is nothing to find or to name.
    """
    return [_section(evaluation, chain) for chain in evaluation.schema.chains if _matters(evaluation, chain)]


def chain_headlines(evaluation: Evaluation, sections: Sequence[ChainSection]) -> list[str]:
    """Return the figures of chains for the top of a page: found, rightly named, and how near they lie."""
    wanted = (f"{section.name}_{kind}" for section in sections for kind in ("f1", "level_right", "mre_mm", "mre_px"))
    known = [name for name in wanted if name in evaluation.metrics]
    return [name for name in known if not (name.endswith("mre_px") and f"{name[:-2]}mm" in evaluation.metrics)]


def element_lines(schema: LandmarkSchema, result: CaseResult) -> tuple[str, ...]:
    """Return a line a chain on what was found on one image; none where a model that fills slots made no mistake."""
    lines = []
    for chain in schema.chains:
        own = _of(result, chain)
        count = {words: sum(map(is_fault, own)) for words, is_fault in _SHORT_FAULTS}
        labelled = sum(map(_is_labelled, own))
        if any(count.values()) or (own and result.prediction.instances is not None):
            found = f"{chain.name}: {sum(e.outcome == 'matched' for e in own)} of {labelled} found"
            lines.append(", ".join([found, *(f"{number} {words}" for words, number in count.items() if number)]))
    return tuple(lines)


def _matters(evaluation: Evaluation, chain: Chain) -> bool:
    if not any(is_chain_metric(name, chain) for name in evaluation.metrics):
        return False
    if any(result.prediction.instances is not None for result in evaluation.cases):
        return True
    return any(sum(_is_labelled(e) for e in _of(result, chain)) < len(chain.levels) for result in evaluation.cases)


def _section(evaluation: Evaluation, chain: Chain) -> ChainSection:
    names = [name for name in evaluation.metrics if is_chain_metric(name, chain)]
    elements = [e for result in evaluation.cases for e in _of(result, chain)]
    return ChainSection(
        name=chain.name,
        metrics=[
            {**row, "words": row["words"].removeprefix(f"{chain.name}: ")} for row in metric_rows(evaluation, names)
        ],
        levels=tuple(_level_rows(chain, elements)) if chain.named else (),
        faults=tuple(_faults(evaluation.cases, chain)),
    )


def _level_rows(chain: Chain, elements: Iterable[ElementResult]) -> Iterator[LevelRow]:
    known = [e for e in elements if e.outcome in {"matched", "missed"}]
    for level in chain.levels:
        own = [e for e in known if e.true_level == level]
        if own:
            naming = Counter(e.naming for e in own)
            taken_for = Counter(str(e.given_level) for e in own if e.naming == "wrong")
            yield LevelRow(
                level=level,
                labelled=len(own),
                found=sum(e.outcome == "matched" for e in own),
                right=naming["right"],
                wrong=", ".join(f"{other} {count}" for other, count in taken_for.most_common()),
                unnamed=naming["unnamed"],
            )


_FAULTS: tuple[tuple[str, Callable[[ElementResult], bool]], ...] = (
    ("invented: given where the labels have none", lambda e: e.outcome == "invented"),
    ("missed", lambda e: e.outcome == "missed"),
    ("given the name of another level", lambda e: e.naming == "wrong"),
    ("found but not named", lambda e: e.naming == "unnamed"),
    ("given where nobody labelled: not judged", lambda e: e.outcome == "unjudged" and e.true_level is None),
)


_SHORT_FAULTS: tuple[tuple[str, Callable[[ElementResult], bool]], ...] = (
    ("invented", lambda e: e.outcome == "invented"),
    ("named wrongly", lambda e: e.naming == "wrong"),
    ("unnamed", lambda e: e.naming == "unnamed"),
)


def _faults(results: Sequence[CaseResult], chain: Chain) -> Iterator[tuple[str, int, str]]:
    """Yield what went wrong, how many elements it concerns, and the images."""
    for words, is_fault in _FAULTS:
        count = {result.case.id: sum(map(is_fault, _of(result, chain))) for result in results}
        ids = [case for case, number in count.items() if number]
        if ids:
            yield words, sum(count.values()), some_ids(ids)


def _of(result: CaseResult, chain: Chain) -> list[ElementResult]:
    return [e for e in result.elements if e.chain == chain.name]


def _is_labelled(element: ElementResult) -> bool:
    return element.outcome in {"matched", "missed"}
