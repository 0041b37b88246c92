"""What a reader of an evaluation must know besides its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bregma.evaluation.measured import common_unit, gap_notes, repeated_notes
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.tables import Reading
from bregma.results import CaseResult, Estimate
from bregma.schema import Chain, LandmarkSchema
from bregma.types import Case, Prediction

FEW_SUBJECTS = 20
"""Below it a note warns that percentile intervals are too narrow."""


def coverage_notes(
    cases: Sequence[Case], labelled: Sequence[Case], failed: Sequence[Case], given: Mapping[str, Prediction]
) -> list[str]:
    """Say which images were not scored, and how they count."""
    notes = []
    if failed:
        some = ", ".join(case.id for case in failed[:5]) + (", ..." if len(failed) > 5 else "")
        notes.append(
            f"{len(failed)} labelled images have no prediction and count as failures of all their landmarks: {some}."
        )
    if len(cases) > len(labelled):
        notes.append(f"{len(cases) - len(labelled)} images have no labels and were not scored.")
    strangers = len(given.keys() - {case.id for case in cases})
    if strangers:
        notes.append(f"{strangers} predictions belong to no image here and were left out.")
    return notes


def no_better_than_the_mean(schema: LandmarkSchema, metrics: Mapping[str, Estimate]) -> list[str]:
    """Say of which quantities the predictions are not shown to be better than always saying the mean."""
    notes = []
    for quantity in schema.quantities:
        r2 = metrics.get(f"{quantity.name}_r2")
        if r2 is not None and r2.low is not None and r2.low <= 0:
            notes.append(
                f"{quantity.label}: the interval of R² includes 0 or lies below it, so that the predictions are not "
                "shown to be better than one and the same value for everybody."
            )
    return notes


def meaning_notes(
    schema: LandmarkSchema,
    results: Sequence[CaseResult],
    rows: Sequence[Reading],
    subjects: int,
    settings: EvaluationSettings,
) -> list[str]:
    """Say how the figures are to be read."""
    notes = []
    without = sum(result.errors_mm is None for result in results)
    if without:
        notes.append(f"{without} of {len(results)} images have no trusted spacing, so no error is given in mm.")
    if settings.reference_length and schema.reference_length is not None:
        first, second, length_mm = schema.reference_length
        notes.append(f"mm_ref takes {first} to {second} as {length_mm:g} mm on each image; it is a convention.")
    if schema.exchangeable:
        notes.append(
            "Exchangeable points were matched to the labels in the order that fits best; mre_as_labelled holds them to "
            "the order of the labels."
        )
    if subjects < 2:
        notes.append("All images come from one subject, so no intervals can be given.")
    elif subjects < FEW_SUBJECTS:
        notes.append(f"The intervals rest on {subjects} subjects and may be too narrow.")
    notes += [*_doubt_notes(results), *_average_notes(schema, results)]
    chains = [note for chain in schema.chains for note in _chain_notes(chain, results)]
    return [*notes, *chains, *_unit_notes(rows), *gap_notes(rows, schema), *repeated_notes(rows)]


def _doubt_notes(results: Sequence[CaseResult]) -> list[str]:
    """Say how many points were flagged, and how far these lie from the labels."""
    flags = [(result, np.array([bool(why) for why in result.prediction.flags or ()])) for result in results]
    images = [(result, flagged) for result, flagged in flags if flagged.any()]
    if not images:
        return []
    errors = np.concatenate([result.errors_px[flagged] for result, flagged in images])
    known = errors[np.isfinite(errors)]
    count = sum(int(flagged.sum()) for _, flagged in images)
    median = f"; their median error is {np.median(known):.1f} px" if len(known) else ""
    return [f"{count} points on {len(images)} of {len(results)} images contradict the others and are flagged{median}."]


def _average_notes(schema: LandmarkSchema, results: Sequence[CaseResult]) -> list[str]:
    """Say of which quantities the values of a subject's images are averaged."""
    subjects = len({result.case.subject for result in results})
    given = {name for result in results for name in result.prediction.values}
    named = [quantity.label for quantity in schema.quantities if quantity.per == "subject" and quantity.name in given]
    if not named or len(results) == subjects:
        return []
    return [
        f"{', '.join(named)}: belongs to the subject, so that what was predicted on several images of one is averaged "
        f"({len(results)} images of {subjects} subjects)."
    ]


def _chain_notes(chain: Chain, results: Sequence[CaseResult]) -> list[str]:
    """Say where elements could not be named, and where there are more than the chain has levels."""
    given = [[e for e in r.elements if e.chain == chain.name and e.probability is not None] for r in results]
    shown = sum(bool(found) for found in given)
    unnamed = sum(bool(found) and all(e.given_level is None for e in found) for found in given)
    crowded = sum(len(found) > len(chain.levels) for found in given)
    notes = []
    if chain.named and unnamed:
        because = f": {chain.anchor} was not found" if chain.anchor else ""
        notes.append(f"On {unnamed} of {shown} images no element of '{chain.name}' could be named{because}.")
    lost = sum(
        e.outcome == "missed" or e.naming == "unnamed" for r in results for e in r.elements if e.chain == chain.name
    )
    if lost and any(r.prediction.instances is not None for r in results):
        notes.append(
            f"Errors by landmark (MRE and the like) take a level of '{chain.name}' that was not found or not named to "
            f"lie {'where the others suggest it' if chain.is_whole else 'at the middle of the image'}; "
            f"{chain.name}_mre takes found elements as they lie."
        )
    if crowded:
        levels = f"more elements of '{chain.name}' were given than it has levels ({len(chain.levels)})"
        notes.append(f"On {crowded} of {shown} images {levels}; those too many count as invented.")
    return notes


def _unit_notes(rows: Sequence[Reading]) -> list[str]:
    notes = []
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        unit = common_unit(own)
        others = sum(row.unit != unit and row.true is not None for row in own)
        if others:
            notes.append(f"{name}: {others} of {len(own)} places are not in {unit} and were left out of its MAE.")
    return notes
