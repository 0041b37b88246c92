"""Figures of a report, as SVG or PNG bytes. They draw the values that they are given and score nothing.

Figures are built on ``matplotlib.figure.Figure`` without pyplot, so they leave no global state behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from bregma.geometry import Array
from bregma.report.style import BLUE, CYCLE, GREEN, GREY, RED, SMALL, Format, finish, to_bytes
from bregma.results import Agreement, Estimate, LandmarkResult

Row = Mapping[str, Any]

_DASHED = (0, (4, 3))
_DOTTED = (0, (1, 2))


def learning_curves(history: Sequence[Row], *, format: Format = "svg") -> bytes:
    """Draw losses and validation errors by epoch, and mark where the validation loss and the mean error are least.

    Args:
        history: one row an epoch; ``train_loss``, ``val_loss``, ``val_mre_px``, ``val_median_px`` (or ``val_mae_sd``)
            are drawn where they are given.
        format: of the bytes.
    """
    figure = Figure(figsize=(7.2, 2.7))
    left, right = figure.subplots(1, 2)
    _curves(left, history, {"train_loss": "training", "val_loss": "validation"}, "loss")
    if any("val_mae_sd" in row for row in history):
        _curves(right, history, {"val_mae_sd": "mean absolute"}, "validation error / subjects' SD")
    else:
        _curves(right, history, {"val_mre_px": "mean (MRE)", "val_median_px": "median"}, "validation error / px")
    _mark_best({"val_loss": left, "val_mre_px": right, "val_mae_sd": right}, history)
    return to_bytes(figure, format)


def cumulative_errors(
    errors: Mapping[str, ArrayLike], unit: str, *, thresholds: Sequence[float] = (), format: Format = "svg"
) -> bytes:
    """Draw the share of points within a distance, one curve a series.

    Args:
        errors: series name to radial errors of any shape, NaN where not scored.
        unit: of the errors.
        thresholds: distances to mark.
        format: of the bytes.
    """
    figure = Figure(figsize=(3.9, 2.9))
    axes = figure.subplots()
    top = 0.0
    for colour, (name, values) in zip(CYCLE, errors.items()):
        known = np.sort(_finite(values))
        if known.size:
            share = 100.0 * np.arange(1, known.size + 1) / known.size
            axes.step(np.r_[0.0, known], np.r_[0.0, share], where="post", color=colour, lw=1.6, label=name)
            top = max(top, 1.25 * float(np.quantile(known, 0.98)))
    for threshold in thresholds:
        axes.axvline(threshold, color=GREY, lw=0.7, ls=(0, (3, 3)))
    axes.set(xlim=(0, top or 1.0), ylim=(0, 101), xlabel=f"radial error / {unit}", ylabel="points within / %")
    finish(axes, legend=len(errors) > 1)
    return to_bytes(figure, format)


def error_histogram(errors: ArrayLike, unit: str, *, format: Format = "svg") -> bytes:
    """Draw how often which radial error occurs; the last bar holds all larger errors."""
    figure = Figure(figsize=(3.9, 2.9))
    axes = figure.subplots()
    known = _finite(errors)
    if known.size:
        limit = max(float(np.quantile(known, 0.99)), 1e-9)
        counts, edges = np.histogram(np.minimum(known, limit), bins=30, range=(0.0, limit))
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
        beyond = int((known > limit).sum())
        if beyond:
            note = f"{beyond} beyond {limit:.3g} {unit}\nin the last bar"
            axes.annotate(
                note, (0.97, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=SMALL, color=GREY
            )
    axes.set(xlabel=f"radial error / {unit}", ylabel="points")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes)
    return to_bytes(figure, format)


def landmark_errors(
    landmarks: Sequence[LandmarkResult], *, labels: Sequence[str] | None = None, format: Format = "svg"
) -> bytes:
    """Draw each landmark's MRE with its 95 % interval, median and 95th percentile, one row a landmark.

    Args:
        landmarks: those without a figure are left out.
        labels: words for the rows, one a landmark; the landmarks' labels when left out.
        format: of the bytes.
    """
    words = [mark.label for mark in landmarks] if labels is None else labels
    shown = [(mark, text) for mark, text in zip(landmarks, words, strict=True) if mark.mre.value is not None]
    columns = 1 if len(shown) <= 24 else 2
    rows = -(-len(shown) // columns) if shown else 1
    figure = Figure(figsize=(7.2 if columns == 1 else 10.5, 0.9 + 0.19 * rows))
    for column, axes in enumerate(figure.subplots(1, columns, sharex=True, squeeze=False)[0]):
        _forest(axes, shown[column * rows : (column + 1) * rows])
    unit = shown[0][0].mre.unit if shown else "px"
    figure.supxlabel(f"radial error / {unit}", fontsize=SMALL + 1)
    return to_bytes(figure, format)


def bland_altman(
    predicted: ArrayLike,
    true: ArrayLike,
    unit: str,
    title: str,
    *,
    agreement: Agreement | None = None,
    human: Agreement | None = None,
    format: Format = "svg",
) -> bytes:
    """Draw differences against means of paired measurements, with bias and 95 % limits of agreement.

    Bands are the intervals of bias and limits (Bland and Altman, Lancet 1986; 327:307-310).

    Args:
        predicted: ``(K,)`` values.
        true: ``(K,)`` values of the same places.
        unit: of both.
        title: the measurement in words.
        agreement: bias and limits as they were evaluated; only the points are drawn when left out.
        human: those of a second observer, to be drawn for comparison.
        format: of the bytes.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    figure = Figure(figsize=(3.9, 2.9))
    axes = figure.subplots()
    axes.axhline(0, color=GREY, lw=0.6)
    axes.scatter((p + t) / 2, p - t, s=11, color=BLUE, alpha=0.6, linewidths=0)
    if human is not None:
        _observer_lines(axes, human)
    if agreement is not None:
        _limit_lines(axes, agreement)
    axes.set(xlabel=f"mean of both / {unit}", ylabel=f"predicted − true / {unit}")
    axes.set_title(title, fontsize=SMALL + 1, loc="left")
    axes.margins(y=0.08)
    finish(axes)
    return to_bytes(figure, format)


def predicted_against_true(
    predicted: ArrayLike,
    true: ArrayLike,
    unit: str,
    title: str,
    *,
    r2: Estimate | None = None,
    slope: Estimate | None = None,
    intercept: Estimate | None = None,
    format: Format = "svg",
) -> bytes:
    """Draw true against predicted values, the line of equal ones, and the line of true on predicted ones.

    Args:
        predicted: ``(K,)`` values.
        true: ``(K,)`` values.
        unit: of both.
        title: the quantity in words.
        r2: coefficient of determination, to be written.
        slope: of the line of true on predicted values; not drawn without it.
        intercept: of that line.
        format: of the bytes.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    figure = Figure(figsize=(3.9, 2.9))
    axes = figure.subplots()
    ends = np.array([min(p.min(), t.min()), max(p.max(), t.max())])
    axes.plot(ends, ends, color=GREY, lw=0.8)
    axes.scatter(p, t, s=11, color=BLUE, alpha=0.6, linewidths=0)
    if slope is not None and intercept is not None and slope.value is not None and intercept.value is not None:
        span = np.array([p.min(), p.max()])
        axes.plot(span, slope.value * span + intercept.value, color=RED, lw=1.2)
    if r2 is not None and r2.value is not None:
        around = "" if r2.low is None or r2.high is None else f" [{r2.low:.2f}, {r2.high:.2f}]"
        text = f"R² = {r2.value:.2f}{around}"
        axes.annotate(text, (0.03, 0.95), xycoords="axes fraction", va="top", fontsize=SMALL, color=GREY)
    axes.set(xlabel=f"predicted / {unit}", ylabel=f"true / {unit}")
    axes.set_title(title, fontsize=SMALL + 1, loc="left")
    finish(axes)
    return to_bytes(figure, format)


def residuals(predicted: ArrayLike, true: ArrayLike, unit: str, title: str, *, format: Format = "svg") -> bytes:
    """Draw predicted minus true values against predicted ones: a slope is a bias that grows with the value."""
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    figure = Figure(figsize=(3.9, 2.9))
    axes = figure.subplots()
    axes.axhline(0, color=GREY, lw=0.8)
    axes.scatter(p, p - t, s=11, color=BLUE, alpha=0.6, linewidths=0)
    axes.set(xlabel=f"predicted / {unit}", ylabel=f"predicted − true / {unit}")
    axes.set_title(title, fontsize=SMALL + 1, loc="left")
    finish(axes)
    return to_bytes(figure, format)


def difference_histogram(
    predicted: ArrayLike, true: ArrayLike, unit: str, title: str, *, format: Format = "svg"
) -> bytes:
    """Draw how often which signed error occurs."""
    away = np.asarray(predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64)
    figure = Figure(figsize=(3.9, 2.9))
    axes = figure.subplots()
    axes.hist(away, bins=min(30, max(6, len(away) // 4)), color=BLUE, edgecolor="white", linewidth=0.4)
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set(xlabel=f"predicted − true / {unit}", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, fontsize=SMALL + 1, loc="left")
    finish(axes)
    return to_bytes(figure, format)


def roc_curve(
    false_rate: ArrayLike,
    true_rate: ArrayLike,
    title: str,
    *,
    auc: Estimate | None = None,
    decision: tuple[float, float] | None = None,
    wanted: float | None = None,
    format: Format = "svg",
) -> bytes:
    """Draw sensitivity against the false positive rate as the cut-off moves.

    Args:
        false_rate: ``(U,)`` from 0 to 1.
        true_rate: ``(U,)`` likewise.
        title: what is looked for.
        auc: area under the curve, to be written.
        decision: false and true positive rate of a threshold, to be marked.
        wanted: a sensitivity to be marked.
        format: of the bytes.
    """
    figure = Figure(figsize=(3.4, 2.9))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8)
    axes.plot(np.asarray(false_rate), np.asarray(true_rate), color=BLUE, lw=1.5)
    if wanted is not None:
        axes.axhline(wanted, color=GREY, lw=0.8, ls=_DASHED)
    if decision is not None:
        axes.plot(*decision, "o", color=RED, ms=5)
    if auc is not None and auc.value is not None:
        around = "" if auc.low is None or auc.high is None else f" [{auc.low:.2f}, {auc.high:.2f}]"
        text = f"AUC = {auc.value:.2f}{around}"
        axes.annotate(text, (0.97, 0.06), xycoords="axes fraction", ha="right", fontsize=SMALL, color=GREY)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(title, fontsize=SMALL + 1, loc="left")
    finish(axes)
    return to_bytes(figure, format)


def agreement_by_level(rows: Sequence[Agreement], *, format: Format = "svg") -> bytes:
    """Draw bias and 95 % limits of agreement of a measurement at each level of a chain, one row a level.

    Args:
        rows: of one measurement and in one unit; a row without a level stands for all places.
        format: of the bytes.
    """
    figure = Figure(figsize=(3.9, 1.2 + 0.2 * len(rows)))
    axes = figure.subplots()
    axes.axvline(0, color=GREY, lw=0.6)
    for y, row in enumerate(rows):
        low, high = row.loa_low, row.loa_high
        if low is not None and high is not None and low.value is not None and high.value is not None:
            axes.plot([low.value, high.value], [y, y], color=RED, lw=1.0, marker="|", ms=6)
        for limit, colour in ((low, RED), (high, RED), (row.bias, BLUE)):
            if limit is not None and limit.low is not None and limit.high is not None:
                axes.plot([limit.low, limit.high], [y, y], color=colour, lw=4.0, alpha=0.3, solid_capstyle="butt")
    biases = [row.bias.value for row in rows]
    axes.plot([], [], color=RED, lw=1.0, marker="|", ms=6, label="95 % limits of agreement")
    _column_of_marks(axes, biases, "o", BLUE, 4.2, "bias")
    axes.set_yticks(range(len(rows)), [row.level or "all" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"predicted − true / {rows[0].unit}")
    finish(axes)
    axes.legend(fontsize=SMALL - 0.5, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    axes.set_title(rows[0].label, fontsize=SMALL + 1, loc="left", pad=20)
    return to_bytes(figure, format)


def confusion(counts: ArrayLike, labels: Sequence[str], title: str, *, format: Format = "svg") -> bytes:
    """Draw a table of counts ``(G, G)``: true grades down, predicted grades across."""
    table = np.asarray(counts, dtype=np.int64)
    side = 1.5 + 0.42 * len(labels)
    figure = Figure(figsize=(side + 0.5, side))
    axes = figure.subplots()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(table):
        colour = "white" if share[i, j] > 0.55 else "#1f2937"
        axes.text(j, i, str(count), ha="center", va="center", fontsize=SMALL, color=colour)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=45 if max(map(len, labels)) > 4 else 0)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=SMALL + 1, loc="left")
    finish(axes, grid=False)
    return to_bytes(figure, format)


def _limit_lines(axes: Axes, agreement: Agreement) -> None:
    """Draw bias and limits across the plot, with their intervals as bands and their values at the right edge."""
    for limit, dashes in ((agreement.bias, "-"), (agreement.loa_low, _DASHED), (agreement.loa_high, _DASHED)):
        if limit is None or limit.value is None:
            continue
        axes.axhline(limit.value, color=RED, lw=1.1, ls=dashes)
        if limit.low is not None and limit.high is not None:
            axes.axhspan(limit.low, limit.high, color=RED, alpha=0.13, lw=0)
        axes.annotate(
            f"{limit.value:+.2f}",
            (1.01, limit.value),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=SMALL - 0.5,
            color=RED,
        )


def _observer_lines(axes: Axes, human: Agreement) -> None:
    limits = [limit.value for limit in (human.loa_low, human.loa_high) if limit is not None and limit.value is not None]
    for limit in limits:
        axes.axhline(limit, color=GREEN, lw=1.3, ls=_DOTTED)
    if limits:
        axes.plot([], [], color=RED, lw=1.1, ls=_DASHED, label="limits of the model")
        axes.plot([], [], color=GREEN, lw=1.3, ls=_DOTTED, label="of the second observer")
        axes.legend(fontsize=SMALL - 0.5, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def _curves(axes: Axes, history: Sequence[Row], names: Mapping[str, str], label: str) -> None:
    drawn = 0
    for colour, (key, words) in zip(CYCLE, names.items()):
        points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
        if points:
            epochs, values = np.array(points, dtype=np.float64).T
            axes.plot(epochs, values, color=colour, lw=1.5, label=words, marker="o" if len(points) < 3 else None, ms=3)
            drawn += 1
            if label == "loss" and values.min() > 0:
                axes.set_yscale("log")
                axes.tick_params(which="minor", labelsize=SMALL - 1.0, colors="#374151")
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes, legend=drawn > 0)


def _mark_best(panels: Mapping[str, Axes], history: Sequence[Row]) -> None:
    """Mark the epoch of each metric's least value in its own panel, and with dots in the others."""
    for key, own in panels.items():
        scored = [row for row in history if row.get(key) is not None]
        if not scored:
            continue
        epoch = min(scored, key=lambda row: float(row[key]))["epoch"]
        for axes in panels.values():
            axes.axvline(epoch, color=GREY, lw=0.8, ls=(0, (3, 3) if axes is own else (1, 3)))
        own.set_title(f"least at epoch {epoch:g}", fontsize=SMALL, color=GREY, loc="right")


def _forest(axes: Axes, rows: Sequence[tuple[LandmarkResult, str]]) -> None:
    part = [mark for mark, _ in rows]
    for row, mark in enumerate(part):
        if mark.mre.low is not None and mark.mre.high is not None:
            axes.plot([mark.mre.low, mark.mre.high], [row, row], color=BLUE, lw=3.2, alpha=0.35, solid_capstyle="butt")
    _column_of_marks(axes, [mark.mre.value for mark in part], "o", BLUE, 4.2, "MRE, 95 % interval")
    _column_of_marks(axes, [mark.median.value for mark in part], "|", GREEN, 8.0, "median")
    _column_of_marks(axes, [mark.p95.value for mark in part], "D", RED, 3.0, "95th percentile")
    axes.set_yticks(range(len(part)), [text for _, text in rows])
    axes.set_ylim(len(part) - 0.4, -0.6)
    axes.set_xlim(left=0)
    finish(axes)
    axes.legend(fontsize=SMALL - 0.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))


def _column_of_marks(
    axes: Axes, values: Sequence[float | None], marker: str, colour: str, size: float, label: str
) -> None:
    known = [(value, row) for row, value in enumerate(values) if value is not None]
    if known:
        x, y = np.array(known, dtype=np.float64).T
        axes.plot(x, y, marker, color=colour, ms=size, mew=1.8 if marker == "|" else 0.5, label=label)


def _finite(values: ArrayLike) -> Array:
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]
