"""Figures of a dataset: tags, labels, shapes and measurements. They draw the values that they are given."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from bregma.geometry import Array
from bregma.report.style import BLUE, GREY, ORANGE, RED, SMALL, Format, finish, to_bytes

_LONGEST_NAME = 24
_TITLE_CHARS = 38
_FAR_IQR = 5.0
"""Values further than so many interquartile ranges beyond the quartiles are drawn in a histogram's end bars."""
_MODES_SD = 2.0


@dataclass(frozen=True)
class Histogram:
    """How often which value of a quantity occurs.

    Attributes:
        title: the quantity in words.
        unit: of the values; empty or ``1`` for none.
        groups: name to values ``(K,)``, e.g. by grade; one of them has no name to tell.
        edges: thresholds to mark.
        counted: what a value belongs to, e.g. images.
    """

    title: str
    unit: str
    groups: Mapping[str, ArrayLike]
    edges: tuple[float, ...] = ()
    counted: str = "images"


@dataclass(frozen=True)
class Boxes:
    """Quartiles, central 90 % and what lies beyond, by place, e.g. by level of a spine; as :class:`Histogram`."""

    title: str
    unit: str
    groups: Mapping[str, ArrayLike]
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bars:
    """How many images have which value of a tag, in the order given."""

    title: str
    counts: Mapping[str, int]


Panel = Histogram | Boxes | Bars


@dataclass(frozen=True)
class ShapeStatistics:
    """Shapes laid over one another, y down.

    Attributes:
        mean: ``(N, 2)``.
        shapes: ``(M, N, 2)`` aligned to it, NaN where there is no label.
        modes: ``(K, N, 2)`` displacement by one standard deviation of the strongest modes.
        shares: ``(K,)`` of all variance that each explains.
        edges: pairs of landmarks to join.
        note: a line below the title.
    """

    mean: Array
    shapes: Array
    modes: Array
    shares: Array
    edges: tuple[tuple[int, int], ...] = ()
    note: str = ""


def panel_figure(panels: Sequence[Panel], *, columns: int = 4, format: Format = "png") -> bytes:
    """Draw distributions side by side.

    Args:
        panels: at least one.
        columns: panels a row.
        format: of the bytes.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.3 + 2.9 * columns, 2.3 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels):
        if isinstance(panel, Bars):
            _bars(axes, panel)
        elif isinstance(panel, Boxes):
            _boxes(axes, panel)
        else:
            _histogram(axes, panel)
        axes.set_title(textwrap.fill(panel.title, _TITLE_CHARS, max_lines=2), fontsize=SMALL + 1, loc="left")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return to_bytes(figure, format)


def label_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]], *, format: Format = "png") -> bytes:
    """Draw on how many images each landmark is in which state.

    Args:
        names: of the landmarks ``N``.
        counts: state to its number of images for each landmark, ``N`` each.
        format: of the bytes.
    """
    columns = 1 if len(names) <= 24 else 2
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(6.4 * columns, 1.0 + 0.19 * rows))
    colours = dict(zip(counts, (BLUE, ORANGE, GREY, "#d1d5db")))
    for column, axes in enumerate(figure.subplots(1, columns, sharex=True, squeeze=False)[0]):
        part = slice(column * rows, (column + 1) * rows)
        shown = names[part]
        left = np.zeros(len(shown))
        for state, values in counts.items():
            width = np.asarray(values[part], dtype=np.float64)
            if any(values):
                axes.barh(range(len(shown)), width, left=left, color=colours[state], height=0.78, label=state)
            left += width
        axes.set_yticks(range(len(shown)), [_short(name) for name in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("images")
        finish(axes)
        axes.grid(visible=False, axis="y")
        if column == 0:
            axes.legend(fontsize=SMALL, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    return to_bytes(figure, format)


def shape_figure(found: ShapeStatistics, *, format: Format = "png") -> bytes:
    """Draw aligned shapes about their mean, and what each of the strongest modes does to it."""
    known = found.shapes[np.isfinite(found.shapes).all(axis=-1)]
    spans = np.maximum(np.ptp(known, axis=0), 1e-9)
    width = float(np.clip(3.6 * spans[0] / spans[1], 2.0, 4.2))
    panels = 1 + len(found.modes)
    figure = Figure(figsize=(0.4 + width * panels, 0.9 + width * min(spans[1] / spans[0], 3.0)))
    first, *others = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    first.scatter(*known.T, s=3, color=BLUE, alpha=float(np.clip(40 / len(found.shapes), 0.06, 0.5)), linewidths=0)
    _joined(first, found.mean, found.edges, "#1f2937")
    first.scatter(*found.mean.T, s=9, color=RED, linewidths=0, zorder=3)
    first.set_title(f"{len(found.shapes)} shapes and their mean", fontsize=SMALL + 1, loc="left")
    for number, (axes, mode, share) in enumerate(zip(others, found.modes, found.shares), start=1):
        ends = (found.mean - _MODES_SD * mode, found.mean + _MODES_SD * mode)
        for a, b in zip(*ends):
            axes.plot(*np.stack([a, b]).T, color=GREY, lw=0.8)
        for end, colour, label in zip(ends, (ORANGE, BLUE), (f"−{_MODES_SD:g} SD", f"+{_MODES_SD:g} SD")):
            _joined(axes, end, found.edges, colour)
            axes.scatter(*end.T, s=9, color=colour, linewidths=0, label=label)
        axes.set_title(f"mode {number}: {100 * share:.0f} % of variance", fontsize=SMALL + 1, loc="left")
        axes.legend(fontsize=SMALL, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0.0))
    for axes in (first, *others):
        axes.set_aspect("equal")
        finish(axes, grid=False)
        axes.set_axis_off()
    first.invert_yaxis()
    if found.note:
        figure.supxlabel(found.note, fontsize=SMALL, color=GREY, x=0.01, ha="left")
    return to_bytes(figure, format)


def _histogram(axes: Axes, panel: Histogram) -> None:
    groups = {name: _finite(values) for name, values in panel.groups.items()}
    every = np.concatenate([*groups.values(), np.zeros(0)])
    if every.size:
        bins = _bins(every)
        axes.hist(
            [np.clip(values, bins[0], bins[-1]) for values in groups.values()],
            bins=[float(edge) for edge in bins],
            stacked=True,
            color=_shades(len(groups)),
            edgecolor="white",
            linewidth=0.3,
            label=[f"{name} ({len(values)})" for name, values in groups.items()],
        )
        beyond = int(((every < bins[0]) | (every > bins[-1])).sum())
        if beyond:
            note = f"{beyond} beyond,\nin the end bars"
            axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=SMALL - 1, color=GREY)
        for edge in panel.edges:
            if bins[0] < edge < bins[-1]:
                axes.axvline(edge, color=GREY, lw=0.8, ls=(0, (3, 3)))
    axes.set(xlabel=_unit(panel.unit), ylabel=panel.counted)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    finish(axes, legend=len(groups) > 1)


def _bins(values: Array) -> Array:
    lower, upper = np.percentile(values, (25, 75))
    reach = _FAR_IQR * float(upper - lower) or np.inf
    low, high = max(float(values.min()), lower - reach), min(float(values.max()), upper + reach)
    return np.linspace(low, high if high > low else low + 1.0, int(np.clip(1.5 * np.sqrt(values.size), 8, 30)) + 1)


def _boxes(axes: Axes, panel: Boxes) -> None:
    for place, values in enumerate(map(_finite, panel.groups.values())):
        if values.size:
            p5, q1, median, q3, p95 = np.percentile(values, (5, 25, 50, 75, 95))
            beyond = values[(values < p5) | (values > p95)]
            axes.plot([p5, p95], [place, place], color=BLUE, lw=0.9)
            axes.barh(place, q3 - q1, left=q1, height=0.62, color="#9ccbe8", edgecolor=BLUE, linewidth=0.7)
            axes.plot([median, median], [place - 0.31, place + 0.31], color="#1f2937", lw=1.4)
            axes.plot(beyond, np.full(len(beyond), place), ".", color=RED, ms=2.5, mew=0, alpha=0.6)
    low, high = axes.get_xlim()
    for edge in panel.edges:
        if low < edge < high:
            axes.axvline(edge, color=GREY, lw=0.8, ls=(0, (3, 3)))
    axes.set_yticks(range(len(panel.groups)), list(panel.groups))
    axes.set_ylim(len(panel.groups) - 0.4, -0.6)
    axes.set_xlabel(_unit(panel.unit))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    finish(axes)
    axes.tick_params(axis="y", labelsize=SMALL if len(panel.groups) <= 9 else SMALL - 2)


def _bars(axes: Axes, panel: Bars) -> None:
    total = sum(panel.counts.values())
    places = range(len(panel.counts))
    axes.barh(places, list(panel.counts.values()), color=BLUE, height=0.72)
    for place, count in enumerate(panel.counts.values()):
        axes.annotate(f" {count} ({100 * count / total:.0f} %)", (count, place), va="center", fontsize=SMALL - 1)
    axes.set_yticks(places, [_short(name) for name in panel.counts])
    axes.set_ylim(len(panel.counts) - 0.4, -0.6)
    axes.set_xlim(0, 1.35 * max(panel.counts.values()))
    axes.set_xlabel("images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    finish(axes)
    axes.grid(visible=False, axis="y")


def _joined(axes: Axes, points: Array, edges: Sequence[tuple[int, int]], colour: str) -> None:
    for edge in edges:
        axes.plot(*points[list(edge)].T, color=colour, lw=0.9, alpha=0.8)


def _shades(count: int) -> list[str]:
    """Return colours in an order that can be seen: one, two, or so many along a scale from dark to bright."""
    if count <= 2:
        return [BLUE, RED][:count] if count else []
    scale = matplotlib.colormaps["viridis"]
    return [matplotlib.colors.to_hex(scale(0.92 * i / (count - 1))) for i in range(count)]


def _unit(unit: str) -> str:
    return {"1": "", "deg": "degrees", "mm2": "mm²", "px2": "px²"}.get(unit, unit)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _finite(values: ArrayLike) -> Array:
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]
