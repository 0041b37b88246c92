"""The strip below an overlay that carries its title and explains its marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from bregma.report.canvas import DOUBT, ERROR, FAINT_INK, INK, MEASURE, PAPER, PREDICTION, TRUTH, Rgb, font, text_size

Mark = Literal["ring", "dot", "doubt", "region", "error", "measure"]


@dataclass(frozen=True)
class Entry:
    """One mark and what it stands for."""

    mark: Mark
    text: str


def legend_strip(width: int, title: str, entries: list[Entry], text_px: int) -> Rgb | None:
    """Return a strip ``(h, width, 3)`` with title and legend, or None where there is nothing to say."""
    lines: list[list[Entry]] = _wrap(entries, width, text_px)
    rows = len(lines) + bool(title)
    if not rows:
        return None
    pitch = round(1.7 * text_px)
    big = Image.new("RGB", (width, rows * pitch + text_px // 2), PAPER)
    pen = ImageDraw.Draw(big)
    y = text_px // 4 + pitch / 2
    if title:
        pen.text(
            (text_px * 0.6, y), shorten(title, width - text_px, text_px), INK, font(text_px, bold=True), anchor="lm"
        )
        y += pitch
    for line in lines:
        x = text_px * 0.6
        for entry in line:
            _draw_mark(pen, entry.mark, x, y, text_px)
            pen.text((x + 1.7 * text_px, y), entry.text, FAINT_INK, font(text_px), anchor="lm")
            x += _entry_width(entry, text_px)
        y += pitch
    return np.asarray(big, dtype=np.uint8)


def shorten(text: str, width: int, text_px: int) -> str:
    """Return ``text``, cut with an ellipsis where it is wider than ``width`` pixels in bold."""
    if text_size(text, text_px, bold=True)[0] <= width:
        return text
    while text and text_size(text + "…", text_px, bold=True)[0] > width:
        text = text[:-1]
    return text + "…"


def _entry_width(entry: Entry, text_px: int) -> int:
    return round(3.0 * text_px) + text_size(entry.text, text_px)[0]


def _wrap(entries: list[Entry], width: int, text_px: int) -> list[list[Entry]]:
    lines: list[list[Entry]] = []
    used = width
    for entry in entries:
        need = _entry_width(entry, text_px)
        if used + need > width:
            lines.append([])
            used = round(0.6 * text_px)
        lines[-1].append(entry)
        used += need
    return lines


def _draw_mark(pen: ImageDraw.ImageDraw, mark: Mark, x: float, y: float, text_px: int) -> None:
    r = text_px * 0.38
    cx, stroke = x + text_px * 0.7, max(1, round(text_px / 9))
    box = (cx - r, y - r, cx + r, y + r)
    if mark == "ring":
        pen.ellipse(box, outline=TRUTH, width=stroke)
    elif mark == "doubt":
        pen.rectangle(box, outline=DOUBT, width=stroke)
    elif mark == "dot":
        pen.ellipse(tuple(c + s * r * 0.3 for c, s in zip(box, (1, 1, -1, -1))), fill=PREDICTION)
    elif mark == "region":
        faint = tuple((3 * p + c) // 4 for p, c in zip(PAPER, PREDICTION))
        pen.ellipse((cx - 1.5 * r, y - r, cx + 1.5 * r, y + r), fill=faint, outline=PREDICTION, width=stroke)
    else:
        colour = ERROR if mark == "error" else MEASURE
        pen.line((cx - 1.5 * r, y, cx + 1.5 * r, y), fill=colour, width=stroke)
