"""What an evaluation found, as plain values that reports and comparisons read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from bregma.geometry import Array
from bregma.schema import LandmarkSchema
from bregma.types import Case, LandmarkSet, Measurement, Prediction, Tag


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the figure, or None where nothing could be scored.
        low: lower end of the 95 % interval, or None where there are too few subjects for one.
        high: upper end.
        n: how many things (points, images, grades) the figure rests on.
        unit: ``px``, ``mm``, ``%``, ``1`` ...
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "unit": self.unit}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Estimate:
        """Rebuild from ``to_dict``."""
        return cls(data["value"], data["low"], data["high"], data["n"], data["unit"])


ElementOutcome = Literal["matched", "missed", "invented", "unjudged", "absent"]
"""``unjudged``: nobody said whether it is there, or too little of it is labelled for it to have to be found.
``absent`` is said once for an image whose labels know that the chain is not on it."""


@dataclass(frozen=True)
class ElementResult:
    """An element of a chain on one image: a labelled one, one that the model gave, or the two as one.

    Attributes:
        chain: the chain's name.
        outcome: what became of it.
        true_level: its level by the labels, or None (no such element, or a chain without names).
        given_level: the level that the model says it is, or None (nothing given, or given without a name).
        probability: of the given one, or None.
        level_probability: that ``given_level`` is right; None without a level, or where the model does not say.
        corners: labelled parts compared with the matched element's.
        error_px: mean distance of these in px of the original image, or None.
        error_mm: the same in mm, or None without a trusted spacing.
        slot_corners: labelled parts compared with what the model has in the same slot.
        slot_px: mean distance of these, or None.
        slot_mm: the same in mm.
    """

    chain: str
    outcome: ElementOutcome
    true_level: str | None = None
    given_level: str | None = None
    probability: float | None = None
    level_probability: float | None = None
    corners: int = 0
    error_px: float | None = None
    error_mm: float | None = None
    slot_corners: int = 0
    slot_px: float | None = None
    slot_mm: float | None = None

    @property
    def naming(self) -> Literal["right", "wrong", "unnamed"] | None:
        """Whether a matched element has its true level; None where there is nothing to name."""
        if self.outcome != "matched" or self.true_level is None:
            return None
        if self.given_level is None:
            return "unnamed"
        return "right" if self.given_level == self.true_level else "wrong"


@dataclass(frozen=True)
class CaseResult:
    """One image, scored.

    Attributes:
        case: the case; its image is read only when drawn.
        truth: the labels it was scored against.
        prediction: what the model said.
        errors_px: ``(N,)`` radial errors in px of the original image, NaN where not scored.
        errors_mm: the same in mm, or None without a trusted spacing.
        scored: ``(N,)`` mask of landmarks that have a true position.
        ipe_px: mean radial error of the image, or None where nothing was scored.
        outliers: number of scored points beyond the outlier threshold.
        measured: measurements from the prediction.
        true_measured: the same measurements from the labels, in the same order.
        elements: those of the schema's chains, labelled or given; empty without a chain.
    """

    case: Case
    truth: LandmarkSet
    prediction: Prediction
    errors_px: Array
    errors_mm: Array | None
    scored: NDArray[Any]
    ipe_px: float | None
    outliers: int
    measured: tuple[Measurement, ...] = ()
    true_measured: tuple[Measurement, ...] = ()
    elements: tuple[ElementResult, ...] = ()

    @property
    def tags(self) -> Mapping[str, Tag]:
        """The case's tags."""
        return self.case.tags


@dataclass(frozen=True)
class LandmarkResult:
    """One landmark over all images."""

    name: str
    label: str
    mre: Estimate
    median: Estimate
    p95: Estimate
    outliers: int


@dataclass(frozen=True)
class Agreement:
    """A measurement from predictions against the same from labels.

    Attributes:
        name: the measurement.
        level: where along a chain, or None for all places taken together.
        unit: of all figures but ``icc`` and those of grades.
        mae: mean absolute difference.
        bias: mean difference, predicted minus true.
        grade_accuracy: share of equal grades in %, or None where there is no grade scale.
        failed: places that have a true value and no predicted one.
        difference_sd: standard deviation of the differences, those of one subject taken as repeated measures.
        loa_low: lower 95 % limit of agreement.
        loa_high: upper 95 % limit of agreement.
        icc: ICC(2,1), absolute agreement of single measurements.
        kappa: quadratically weighted kappa of the grades, or None where there is no grade scale.
        kappa_linear: linearly weighted kappa.
    """

    name: str
    label: str
    level: str | None
    unit: str
    mae: Estimate
    bias: Estimate
    grade_accuracy: Estimate | None
    failed: int
    difference_sd: Estimate | None = None
    loa_low: Estimate | None = None
    loa_high: Estimate | None = None
    icc: Estimate | None = None
    kappa: Estimate | None = None
    kappa_linear: Estimate | None = None


@dataclass(frozen=True)
class Evaluation:
    """A model's performance on one set of cases.

    Attributes:
        name: run and split, for headings.
        schema: the anatomy.
        cases: scored images, worst first.
        metrics: plain metric name to figure, in the order in which to show them.
        landmarks: one row a landmark, in schema order.
        agreements: one row a measurement (and one a level along a chain).
        settings: thresholds, sizes, bootstrap draws and seed that gave the figures.
        notes: what a reader must know (images that failed, missing spacing, small n).
        human: the same metrics of a second observer against the labels; empty where there is none.
        human_agreements: the same rows as ``agreements``, of the second observer.
    """

    name: str
    schema: LandmarkSchema
    cases: tuple[CaseResult, ...]
    metrics: Mapping[str, Estimate]
    landmarks: tuple[LandmarkResult, ...]
    agreements: tuple[Agreement, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    human: Mapping[str, Estimate] = field(default_factory=dict)
    human_agreements: tuple[Agreement, ...] = ()


@dataclass(frozen=True)
class ComparisonRow:
    """One metric over several runs, on the cases that all of them scored.

    Attributes:
        metric: the metric's plain name, as in ``Evaluation.metrics``.
        unit: of ``figures`` and ``differences``.
        figures: one a run, in the order of the runs.
        differences: run minus reference run, paired by subject; None for the reference and where nothing was paired.
        p_values: two-sided, of the paired differences; None where there is none.
        lower_is_better: True for errors, False for rates of success; None where neither is better.
    """

    metric: str
    unit: str
    figures: tuple[Estimate, ...]
    differences: tuple[Estimate | None, ...]
    p_values: tuple[float | None, ...]
    lower_is_better: bool | None = True


@dataclass(frozen=True)
class ComparisonTable:
    """Runs side by side, with paired differences from the first one.

    Attributes:
        name: what was compared, for headings.
        runs: names of the runs; the first one is the reference.
        rows: one a metric, in the order in which to show them.
        cases: images that every run scored.
        subjects: subjects of these images.
        test: the paired test in words, e.g. ``"paired bootstrap over subjects, 2000 draws"``.
        notes: what a reader must know (cases left out, correction for multiple comparisons).
    """

    name: str
    runs: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    cases: int
    subjects: int
    test: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        rows = [
            {
                "metric": row.metric,
                "unit": row.unit,
                "figures": [figure.to_dict() for figure in row.figures],
                "differences": [None if d is None else d.to_dict() for d in row.differences],
                "p_values": list(row.p_values),
                "lower_is_better": row.lower_is_better,
            }
            for row in self.rows
        ]
        return {
            "name": self.name,
            "runs": list(self.runs),
            "cases": self.cases,
            "subjects": self.subjects,
            "test": self.test,
            "rows": rows,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class ArmResult:
    """How one recipe of a study did, seeds pooled.

    Attributes:
        name: of the arm.
        mre: mean radial error over points, with its interval over subjects.
        median: median radial error.
        seed_mres: the mean radial error of each seed; None where it scored no point.
        tiers: share of images below each of the study's tiers.
        difference: mean radial error minus that of the reference, paired by subject; None for the reference.
        p_value: two-sided, corrected for the number of arms; None for the reference.
    """

    name: str
    mre: Estimate
    median: Estimate
    seed_mres: tuple[float | None, ...]
    tiers: tuple[Estimate, ...]
    difference: Estimate | None
    p_value: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "name": self.name,
            "mre": self.mre.to_dict(),
            "median": self.median.to_dict(),
            "seed_mres": list(self.seed_mres),
            "tiers": [tier.to_dict() for tier in self.tiers],
            "difference": None if self.difference is None else self.difference.to_dict(),
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class Breakdown:
    """Mean radial errors by the values of something.

    Attributes:
        name: a tag, or ``landmark``.
        rows: value to one figure an arm.
    """

    name: str
    rows: Mapping[str, tuple[Estimate, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"name": self.name, "rows": {k: [f.to_dict() for f in v] for k, v in self.rows.items()}}


@dataclass(frozen=True)
class StudyTable:
    """Recipes compared on the same images.

    Attributes:
        title: of the study.
        unit: of errors and tiers, e.g. ``px at 299``.
        arms: one a recipe; the first one is the reference.
        tiers: mean errors of an image below which it counts.
        tags: errors by tag.
        landmarks: errors by landmark, the hardest of the reference first.
        comparison: every figure side by side.
        notes: what a reader must know.
        quantity: the number of whole images whose absolute errors are compared; None where they are radial errors of
            landmarks.
    """

    title: str
    unit: str
    arms: tuple[ArmResult, ...]
    tiers: tuple[float, ...]
    tags: tuple[Breakdown, ...]
    landmarks: Breakdown
    comparison: ComparisonTable
    notes: tuple[str, ...] = ()
    quantity: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "title": self.title,
            "unit": self.unit,
            "quantity": self.quantity,
            "arms": [arm.to_dict() for arm in self.arms],
            "tiers": list(self.tiers),
            "tags": [tag.to_dict() for tag in self.tags],
            "landmarks": self.landmarks.to_dict(),
            "comparison": self.comparison.to_dict(),
            "notes": list(self.notes),
        }
