"""Learning curves of several recipes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from bregma.report.style import CYCLE, SMALL, Format, finish, to_bytes

Row = Mapping[str, Any]

_DASHES = ("-", "--", ":")
_PANELS = (("images", 1e-3, "thousand images"), ("seconds", 1 / 60, "minutes of training"))


def arms_together(arms: Mapping[str, Sequence[Sequence[Row]]], *, format: Format = "svg") -> bytes:
    """Draw the validation errors of several recipes, by images seen and by minutes of training.

    Args:
        arms: name to the histories of its trainings; rows have ``val_mre_px``, ``images`` and ``seconds``. A dot marks
            where a training's error was least.
        format: of the bytes.
    """
    columns = min(len(arms), 3)
    figure = Figure(figsize=(9.6, 3.4 + 0.2 * -(-len(arms) // columns)))
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for panel, (key, scale, label) in zip(panels, _PANELS, strict=True):
        for number, histories in enumerate(arms.values()):
            for history in histories:
                _curve(panel, [row for row in history if row.get("val_mre_px") is not None], key, scale, number)
        panel.set_xlabel(label)
        finish(panel)
    _logarithmic(panels[0])
    panels[0].set_ylabel("validation MRE / px")
    lines = [panels[0].plot([], [], color=_colour(number), ls=_dashes(number))[0] for number in range(len(arms))]
    figure.legend(lines, list(arms), loc="outside upper left", ncols=columns, fontsize=SMALL, frameon=False)
    return to_bytes(figure, format)


def _curve(axes: Axes, rows: Sequence[Row], key: str, scale: float, number: int) -> None:
    points = [(float(row[key]) * scale, float(row["val_mre_px"])) for row in rows if key in row]
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
