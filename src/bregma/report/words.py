"""Numbers, units and metric names as a reader sees them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bregma.results import Estimate
from bregma.schema import Chain, LandmarkSchema

NOTHING = "–"

_LONGEST_LABEL = 26
_LONGEST_LIST = 40

_SPACE = r"(?P<space>mm_ref|mm|px_at_\d+|px)"
_METRICS: tuple[tuple[str, str], ...] = (
    (rf"mre_sd_{_SPACE}", "Standard deviation of radial errors"),
    (rf"mre_as_labelled_{_SPACE}", "MRE with exchangeable points in the order of the labels"),
    (rf"mre_{_SPACE}", "Mean radial error (MRE)"),
    (rf"median_{_SPACE}", "Median radial error"),
    (rf"p95_{_SPACE}", "95th percentile of radial errors"),
    (rf"max_{_SPACE}", "Largest radial error"),
    (rf"ipe_median_{_SPACE}", "Median error of an image (IPE)"),
    (rf"ipe_{_SPACE}", "Mean error of an image (IPE)"),
    (rf"sdr_(?P<radius>[\d.]+){_SPACE}", "Points within {radius} {unit} (SDR)"),
    (r"outliers_per_image(?P<space>_at_\d+)?", "Outliers per image"),
    (r"outliers(?P<space>_at_\d+)?", "Outliers"),
    (r"nme", "Error relative to the extent of the labels (NME)"),
    (r"missed_rate", "Labelled points not given"),
    (r"false_rate", "Points off the image that were given"),
)
_MEASURED: dict[str, str] = {
    "worst_grade_accuracy": "images with the right highest grade",
    "grade_accuracy": "places with the right grade",
    "mae": "mean absolute difference",
    "bias": "mean difference, predicted minus true",
    "difference_sd": "standard deviation of the differences",
    "loa_low": "lower 95 % limit of agreement",
    "loa_high": "upper 95 % limit of agreement",
    "icc": "intraclass correlation, ICC(2,1)",
    "kappa": "quadratically weighted kappa of the grades",
    "kappa_linear": "linearly weighted kappa of the grades",
    "rmse": "root mean square error (RMSE)",
    "r2": "coefficient of determination (R²)",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's rank correlation",
    "mape": "mean absolute percentage error (MAPE)",
    "slope": "slope of true on predicted values",
    "intercept": "intercept of true on predicted values",
}

_DECIDED: dict[str, str] = {
    "auc": "area under the ROC curve (AUC)",
    "sensitivity": "sensitivity of the threshold on predicted values",
    "specificity": "specificity of the threshold on predicted values",
    "cutoff": "predicted value at which the sensitivity is {wanted} %",
    "specificity_at_cutoff": "specificity at a sensitivity of {wanted} %",
}

_CHAIN: tuple[tuple[str, str], ...] = (
    (r"recall", "labelled ones found (recall)"),
    (r"precision", "given ones that are there (precision)"),
    (r"f1", "found and there (F1)"),
    (r"invented_images", "images with an invented one"),
    (r"missed_images", "images with a missed one"),
    (r"level_right", "found ones with the right level"),
    (r"level_wrong", "found ones with a wrong level"),
    (r"level_unnamed", "found ones without a level"),
    (r"shifted_images", "images with a shifted level"),
    (rf"mre_{_SPACE}", "mean radial error of found ones, whatever their level"),
    (rf"slots_mre_{_SPACE}", "mean radial error of all, slot by slot"),
)


def is_chain_metric(name: str, chain: Chain) -> bool:
    """Tell whether a metric's plain name is one of a chain's."""
    kind = name.removeprefix(f"{chain.name}_")
    return kind != name and any(re.fullmatch(pattern, kind) for pattern, _ in _CHAIN)


def metric_words(name: str, schema: LandmarkSchema | None = None) -> str:
    """Return a metric's plain name in words, or the name itself where it is not known here."""
    for pattern, words in _METRICS:
        match = re.fullmatch(pattern, name)
        if match:
            return _in_space(words, match.groupdict())
    for quantity in schema.quantities if schema else ():
        rest = name.removeprefix(f"{quantity.name}_")
        if rest != name and rest in _MEASURED:
            return f"{quantity.label}: {_MEASURED[rest]}"
        for threshold in quantity.thresholds:
            kind = rest.removeprefix(f"{threshold.name}_")
            if rest != name and kind != rest and kind in _DECIDED:
                wanted = f"{100 * threshold.sensitivity:g}"
                return f"{quantity.label}, {threshold.label}: {_DECIDED[kind].format(wanted=wanted)}"
    for spec in schema.measurements if schema else ():
        if spec.group and name == f"{spec.group}_smape":
            return f"SMAPE of the group {spec.group}, symmetric mean absolute percentage error"
        rest = name.removeprefix(f"{spec.name}_")
        if rest != name and rest in _MEASURED:
            return f"{spec.label}: {_MEASURED[rest]}"
    for chain in schema.chains if schema else ():
        for pattern, words in _CHAIN:
            match = re.fullmatch(f"{chain.name}_{pattern}", name)
            if match:
                return f"{chain.name}: {_in_space(words, match.groupdict())}"
    return name


def main_metrics(metrics: Mapping[str, Estimate]) -> list[str]:
    """Return the names to show at once: those of the first unit in which errors are given, and those of none."""
    spaces = {name: _space_of(name) for name in metrics}
    known = {name: space for name, space in spaces.items() if space is not None}
    if not known:
        return list(metrics)
    first = next((space for space in known.values() if space), "")
    return [name for name, space in known.items() if space in {first, ""}]


def headline_metrics(metrics: Mapping[str, Estimate]) -> list[str]:
    """Return names for the top of the page: MRE, median, p95, first SDR, outliers, and SMAPE and grades where given.

    Where errors at a published protocol's size were asked for, those come here.
    """
    names = [name for name in metrics if re.search(r"_at_\d+$", name)] or main_metrics(metrics)
    values = [name for name in metrics if re.search(r"_(r2|mae|rmse|pearson|auc)$", name)]
    if values and not any(name.startswith("mre_") for name in metrics):
        return values
    wanted = ("mre_(?!sd|as_labelled)", "median_", "p95_", "sdr_", "outliers_per_image")
    found = [next((name for name in names if re.match(pattern, name)), None) for pattern in wanted]
    grades = [
        name for kind in ("_smape", "(?<!worst)_grade_accuracy") for name in metrics if re.search(f"{kind}$", name)
    ]
    return [*([name for name in found if name] or names[:5]), *grades]


def number(value: float | None, unit: str = "") -> str:
    """Return a number for reading: whole counts whole, percentages from 1 on to one place, others to two."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if (unit == "%" and (abs(value) >= 1 or value == 0)) or abs(value) >= 1000:
        return f"{value:.1f}"
    if unit in {"", "1"} and float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if unit == "1" and abs(value) < 1 else f"{value:.2f}"


def unit_suffix(unit: str) -> str:
    """Return a unit as it is printed behind a number, with the space that belongs before it."""
    known = {"": "", "1": "", "deg": "°", "mm2": "\u00a0mm²", "px2": "\u00a0px²"}
    return known.get(unit, f"\u00a0{unit}")


def short_labels(schema: LandmarkSchema) -> tuple[str, ...]:
    """Return a short name of each landmark, each different.

    It is the label up to its first comma, where a definition usually begins, or the landmark's name where that is long
    or not the only one of its kind.
    """
    heads = [landmark.label.partition(",")[0].strip() for landmark in schema.landmarks]
    count = Counter(heads)
    return tuple(
        head if count[head] == 1 and 0 < len(head) <= _LONGEST_LABEL else name.replace("_", " ")
        for head, name in zip(heads, schema.names)
    )


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Return ``[low, high]``, or nothing where there is no interval."""
    return "" if low is None or high is None else f"[{number(low, unit)}, {number(high, unit)}]"


def p_value(p: float | None) -> str:
    """Return ``p = 0.012`` or ``p < 0.001``; nothing where there is no test."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as ``(dotted name, text)``, in their order."""
    rows: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", plain(value)))
    return rows


def plain(value: Any) -> str:
    """Return any setting's value as text."""
    if isinstance(value, str):
        return value
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(part)}" for name, part in value.items())
    if isinstance(value, Sequence):
        shown = [plain(part) for part in value]
        return ", ".join(shown) if len(shown) <= _LONGEST_LIST else f"{len(shown)} values, {shown[0]} to {shown[-1]}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plural(count: int, word: str) -> str:
    """Return ``1 image`` or ``3 images``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _in_space(words: str, found: Mapping[str, str | None]) -> str:
    space = found.get("space") or ""
    text = words.format(radius=found.get("radius"), unit="mm" if space.startswith("mm") else "px")
    if space == "mm_ref":
        return f"{text}, mm by reference length"
    size = space.rpartition("_at_")[2] if "_at_" in space else ""
    return f"{text}, images at {size} px" if size else text


def _space_of(name: str) -> str | None:
    """Return the space a point metric is given in, "" for none, and None for what is no point metric."""
    for pattern, _ in _METRICS:
        match = re.fullmatch(pattern, name)
        if match:
            return match.groupdict().get("space") or ""
    return None
