"""Learning curves of several recipes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from bregma.report.style import CYCLE, SMALL, Format, finish, to_bytes

Row = Mapping[str, Any]

METRICS = {"val_mre_px": "validation MRE / px", "val_mae_sd": "validation error / SD of the targets"}
"""What validations of landmarks and of quantities give, and how it is called."""
_DASHES = ("-", "--", ":")
_PANELS = (("images", 1e-3, "thousand images"), ("seconds", 1 / 60, "minutes of training"))


def arms_together(arms: Mapping[str, Sequence[Sequence[Row]]], *, format: Format = "svg") -> bytes | None:
    """Draw the validation errors of several recipes, by images seen and by minutes of training.

    Args:
        arms: name to the histories of its trainings; rows have one of :data:`METRICS`, ``images`` and ``seconds``. A
            dot marks where a training's error was least.
        format: of the bytes.

    Returns:
        the picture, with a row of panels a metric; None where no training has any.
    """
    metrics = [metric for metric in METRICS if any(_known(one, metric) for each in arms.values() for one in each)]
    if not metrics:
        return None
    drawn = [
        (number, name)
        for number, (name, each) in enumerate(arms.items())
        if any(_known(one, metric) for one in each for metric in metrics)
    ]
    columns = min(len(drawn), 3)
    figure = Figure(figsize=(9.6, 3.4 * len(metrics) + 0.2 * -(-len(drawn) // columns)))
    rows = figure.subplots(len(metrics), len(_PANELS), sharey="row", squeeze=False)
    for metric, panels in zip(metrics, rows, strict=True):
        for panel, (key, scale, label) in zip(panels, _PANELS, strict=True):
            for number, histories in enumerate(arms.values()):
                for history in histories:
                    _curve(panel, _known(history, metric), metric, key, scale, number)
            panel.set_xlabel(label)
            finish(panel)
        _logarithmic(panels[0])
        panels[0].set_ylabel(METRICS[metric])
    lines = [rows[0, 0].plot([], [], color=_colour(number), ls=_dashes(number))[0] for number, _ in drawn]
    names = [name for _, name in drawn]
    figure.legend(lines, names, loc="outside upper left", ncols=columns, fontsize=SMALL, frameon=False)
    return to_bytes(figure, format)


def _known(history: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in history if row.get(metric) is not None]


def _curve(axes: Axes, rows: Sequence[Row], metric: str, key: str, scale: float, number: int) -> None:
    points = [(float(row[key]) * scale, float(row[metric])) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), color=_colour(number), ls=_dashes(number), lw=1.2, alpha=0.85)
        axes.plot(*min(points, key=lambda point: point[1]), "o", ms=3.5, color=_colour(number))


def _colour(number: int) -> str:
    return CYCLE[number % len(CYCLE)]


def _dashes(number: int) -> str:
    return _DASHES[number // len(CYCLE) % len(_DASHES)]


def _logarithmic(axes: Axes) -> None:
    """Give the y axis a logarithmic scale with plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
