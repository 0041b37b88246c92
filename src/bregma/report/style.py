"""What all figures share: colours, axes without clutter, and bytes that do not change from run to run."""

from __future__ import annotations

import io
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Format = Literal["svg", "png"]

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
"""Okabe and Ito's, told apart with any common colour vision."""
CYCLE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
SMALL = 8.0
"""Points of the text in figures."""


def finish(axes: Axes, *, legend: bool = False, grid: bool = True) -> None:
    """Give axes the look that all share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, colors="#374151", length=2.5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(SMALL + 0.5)
    if grid:
        axes.grid(color="#e5e7eb", lw=0.6)
        axes.set_axisbelow(True)
    if legend:
        axes.legend(fontsize=SMALL, frameon=False)


def to_bytes(figure: Figure, format: Format) -> bytes:
    """Return a figure as an SVG or PNG file."""
    figure.set_layout_engine("constrained")
    out = io.BytesIO()
    if format == "svg":
        # A fixed salt and no date: the same evaluation gives the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": "bregma"}):
            figure.savefig(out, format="svg", metadata={"Date": None})
    else:
        figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()
