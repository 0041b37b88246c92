"""The figures of an evaluation, by plain and stable names.

Names end in the space of their errors: ``px`` (original image), ``px_at_256`` (image resized to that long side), ``mm``
and ``mm_ref`` (the literature's convention).

    mre_ mre_sd_ median_ p95_ max_   radial errors over all points
    ipe_ ipe_median_                 mean error of an image (IPE), over images
    sdr_2                            labelled points found within 2 of the space's unit, in %
    outliers_per_image, outliers     points beyond the outlier threshold, or not given
    nme                              radial error in % of the diagonal of the box around the true points
    missed_rate, false_rate          labelled points not given; points known to be off the image that were given, in %
    <measurement>_mae, _bias         predicted against true values
    <measurement>_difference_sd      standard deviation of the differences, predicted minus true
    <measurement>_loa_low, _loa_high 95 % limits of agreement: bias ± 1.96 of these standard deviations
    <measurement>_icc                ICC(2,1), two-way random effects, absolute agreement, single measures
    <measurement>_kappa              quadratically weighted kappa of the grades; _kappa_linear: linearly weighted
    <measurement>_grade_accuracy     places with the true grade, in %; a place without a predicted grade is wrong
    <measurement>_worst_grade_accuracy   images whose highest grade along the chain is right, in %
    <quantity>_<threshold>_auc       area under the ROC curve of predicted values for what lies beyond a threshold
    <quantity>_<threshold>_sensitivity, _specificity   of the threshold put on the predicted values, in %
    <quantity>_<threshold>_cutoff, _specificity_at_cutoff   for the threshold's wanted sensitivity
    <group>_smape                    symmetric mean absolute percentage error of a group of measurements, over images
    <chain>_recall, _precision, _f1  labelled elements found, given elements that are labelled ones, and both, in %
    <chain>_invented_images, _missed_images   images with an element too many, or one too few, in %
    <chain>_level_right, _level_wrong, _level_unnamed   what found elements are called, in %
    <chain>_shifted_images           images on which a found element has a wrong level, in %
    <chain>_mre_                     mean radial error of the parts of found elements, whatever they are called
    <chain>_slots_mre_               the same of all labelled elements, slot by slot as systems with fixed slots count
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from bregma import metrics
from bregma.evaluation.settings import EvaluationSettings
from bregma.evaluation.tables import PointTable
from bregma.geometry import Array
from bregma.metrics import Interval, Statistic
from bregma.results import Estimate

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Figure:
    """A figure that can be computed for any resample of subjects.

    Attributes:
        statistic: from subject counts to the figure.
        n: how many things it rests on.
        unit: of the figure.
        has_interval: False for extremes, for which resampling gives none.
        tested: whether a comparison of runs tests it; the main figures only, so that the correction for many tests
            does not drown them.
        lower_is_better: None where neither is.
    """

    statistic: Statistic
    n: int
    unit: str
    has_interval: bool = True
    tested: bool = False
    lower_is_better: bool | None = True


@dataclass(frozen=True)
class Space:
    """A unit in which errors are scored; ``name`` ends the names of its figures."""

    name: str
    unit: str
    errors: Array
    sdr: tuple[float, ...]
    outlier: float | None
    main: bool


def point_figures(table: PointTable, settings: EvaluationSettings) -> dict[str, Figure]:
    """Return every figure over points and images, in the order in which to show them."""
    figures: dict[str, Figure] = {}
    for space in spaces_of(table, settings):
        figures |= _error_figures(table, space) | _detection_figures(table, space)
    return figures | _shape_figures(table) | _presence_figures(table, settings)


def spaces_of(table: PointTable, settings: EvaluationSettings) -> list[Space]:
    """Return the units in which the errors of a table are scored; the one to compare by comes first."""
    spaces = []
    if table.errors_mm is not None:
        spaces.append(Space("mm", "mm", table.errors_mm, settings.sdr_mm, None, main=True))
    if table.errors_mm_ref is not None:
        spaces.append(Space("mm_ref", "mm", table.errors_mm_ref, settings.sdr_mm, None, main=False))
    in_mm = table.errors_mm is not None
    spaces.append(Space("px", "px", table.errors_px, settings.sdr_px, settings.outlier_px, main=not in_mm))
    if settings.at_size is not None:
        errors = table.errors_px * (settings.at_size / table.long_side)[:, None]
        name = f"px_at_{settings.at_size}"
        spaces.append(Space(name, "px", errors, settings.sdr_px, settings.outlier_px, main=False))
    return spaces


def _error_figures(table: PointTable, space: Space) -> dict[str, Figure]:
    subjects, subject = table.subjects, table.subject
    points = np.repeat(subject, space.errors.shape[1])
    ipe = metrics.image_errors(space.errors)
    n, images = int(np.isfinite(space.errors).sum()), int(np.isfinite(ipe).sum())

    def over_points(make: Callable[..., Statistic], *extra: float, tested: bool = False) -> Figure:
        return Figure(make(space.errors, points, subjects, *extra), n, space.unit, tested=tested)

    largest = Figure(metrics.max_statistic(space.errors, points, subjects), n, space.unit, has_interval=False)
    ipe_mean = metrics.mean_statistic(ipe, subject, subjects)
    ipe_median = metrics.quantile_statistic(ipe, subject, subjects, 0.5)
    return {
        f"mre_{space.name}": over_points(metrics.mean_statistic, tested=space.main),
        f"mre_sd_{space.name}": over_points(metrics.sd_statistic),
        f"median_{space.name}": over_points(metrics.quantile_statistic, 0.5),
        f"p95_{space.name}": over_points(metrics.quantile_statistic, 0.95),
        f"max_{space.name}": largest,
        f"ipe_{space.name}": Figure(ipe_mean, images, space.unit),
        f"ipe_median_{space.name}": Figure(ipe_median, images, space.unit),
    }


def _detection_figures(table: PointTable, space: Space) -> dict[str, Figure]:
    figures = {}
    for radius in space.sdr:
        found = (np.nan_to_num(space.errors, nan=np.inf) <= radius) & table.given
        # A point outside the convention's reach (no reference length) is unknown, not a failure.
        known = table.labelled & (np.isfinite(space.errors) | ~table.given)
        rate = _share(found, known, table)
        figures[f"sdr_{radius:g}{space.name}"] = Figure(
            rate, int(known.sum()), "%", tested=space.main, lower_is_better=False
        )
    if space.outlier is not None:
        suffix = space.name.removeprefix("px")
        bad = metrics.outliers(space.errors, space.outlier)
        missed = table.labelled & ~table.given & ~(np.nan_to_num(space.errors) > space.outlier)
        counts = (bad + missed.sum(axis=1)).astype(np.float64)
        each = metrics.mean_statistic(counts, table.subject, table.subjects)
        total = metrics.mean_statistic(counts * len(counts), table.subject, table.subjects)
        figures[f"outliers_per_image{suffix}"] = Figure(each, len(counts), "1", tested=space.main or not suffix)
        figures[f"outliers{suffix}"] = Figure(total, len(counts), "1")
    return figures


def _shape_figures(table: PointTable) -> dict[str, Figure]:
    errors = metrics.normalised_errors(table.errors_px, table.extent)
    if not np.isfinite(errors).any():
        return {}
    points = np.repeat(table.subject, errors.shape[1])
    mean = metrics.mean_statistic(errors, points, table.subjects)
    return {"nme": Figure(mean, int(np.isfinite(errors).sum()), "%")}


def _presence_figures(table: PointTable, settings: EvaluationSettings) -> dict[str, Figure]:
    figures = {}
    if settings.presence_threshold is not None or not table.given.any(axis=1).all():
        missed = _share(~table.given, table.labelled, table)
        figures["missed_rate"] = Figure(missed, int(table.labelled.sum()), "%")
    if settings.presence_threshold is not None and table.outside.any():
        false = _share(table.given, table.outside, table)
        figures["false_rate"] = Figure(false, int(table.outside.sum()), "%")
    return figures


def _share(hit: ArrayLike, among: ArrayLike, table: PointTable) -> Statistic:
    values = np.where(among, np.where(hit, 100.0, 0.0), np.nan)
    return metrics.mean_statistic(values, np.repeat(table.subject, values.shape[1]), table.subjects)


def estimates(figures: Mapping[K, Figure], subjects: int, settings: EvaluationSettings) -> dict[K, Estimate]:
    """Compute figures and, from the same resamples of subjects, their intervals."""
    with_interval = [key for key, figure in figures.items() if figure.has_interval]
    found = metrics.bootstrap(
        [figures[key].statistic for key in with_interval],
        subjects,
        draws=settings.draws,
        seed=settings.seed,
        level=settings.level,
    )
    intervals = dict(zip(with_interval, found))
    return {key: _estimate(figure, subjects, intervals.get(key)) for key, figure in figures.items()}


def _estimate(figure: Figure, subjects: int, interval: Interval | None) -> Estimate:
    value = metrics.figure_of(figure.statistic, subjects)
    low, high = interval if interval is not None and value is not None else (None, None)
    return Estimate(value, low, high, figure.n, figure.unit)
