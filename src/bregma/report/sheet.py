"""Many pictures on one sheet, and pictures on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from bregma.errors import ImageError
from bregma.files import atomic_path
from bregma.report.canvas import INK, PAPER, Rgb, font
from bregma.report.legend import shorten


def contact_sheet(
    tiles: Sequence[tuple[Rgb, str]], columns: int = 4, *, cell: tuple[int, int] = (360, 360), gap: int = 12
) -> Rgb:
    """Lay pictures out in rows, each fitted into a cell above its caption.

    Args:
        tiles: pictures ``(H, W, 3)`` uint8 with captions.
        columns: pictures a row.
        cell: height and width that a picture is fitted into, keeping its proportions.
        gap: pixels between cells and around the sheet.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: no tiles, fewer than one column, or a tile that is not RGB.
    """
    if not tiles or columns < 1:
        raise ImageError("a contact sheet needs tiles and columns", got=f"{len(tiles)} tiles, {columns} columns")
    columns = min(columns, len(tiles))
    text_px = max(11, cell[1] // 26)
    height, width = cell[0] + 2 * text_px + gap, cell[1] + gap
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(tiles):
        x, y = gap + (index % columns) * width, gap + (index // columns) * height
        fitted = _fit(picture, cell, caption)
        sheet.paste(
            Image.fromarray(fitted), (x + (cell[1] - fitted.shape[1]) // 2, y + (cell[0] - fitted.shape[0]) // 2)
        )
        face = font(text_px, bold=True)
        pen.text((x, y + cell[0] + text_px), shorten(caption, cell[1], text_px), INK, face, anchor="lm")
    return np.asarray(sheet, dtype=np.uint8)


def grouped_sheet(
    groups: Mapping[str, Sequence[tuple[Rgb, str]]], *, cell: tuple[int, int] = (300, 300), gap: int = 12
) -> Rgb:
    """Lay pictures out in rows, one a group, below the group's name.

    Args:
        groups: heading to pictures with captions; the rest as of :func:`contact_sheet`.
        cell: height and width that a picture is fitted into.
        gap: pixels between cells and around the sheet.

    Raises:
        ImageError: no groups, or one without tiles.
    """
    if not groups:
        raise ImageError("a sheet needs groups")
    strips = []
    for heading, tiles in groups.items():
        strip = contact_sheet(tiles, columns=len(tiles), cell=cell, gap=gap)
        text_px = max(13, cell[1] // 18)
        title = Image.new("RGB", (strip.shape[1], 2 * text_px), PAPER)
        words = shorten(heading, strip.shape[1] - 2 * gap, text_px)
        ImageDraw.Draw(title).text((gap, 1.3 * text_px), words, INK, font(text_px, bold=True), anchor="lm")
        strips.append(np.vstack([np.asarray(title), strip]))
    width = max(strip.shape[1] for strip in strips)
    sheet = np.full((sum(len(strip) for strip in strips), width, 3), PAPER, dtype=np.uint8)
    top = 0
    for strip in strips:
        sheet[top : top + len(strip), : strip.shape[1]] = strip
        top += len(strip)
    return sheet


def save_png(path: str | Path, picture: Rgb) -> Path:
    """Write a picture ``(H, W, 3)`` or ``(H, W)`` uint8 as PNG, all or nothing; return its path.

    Raises:
        RunError: the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(np.asarray(picture, dtype=np.uint8)).save(temporary, format="PNG")
    return Path(path)


def _fit(picture: Rgb, cell: tuple[int, int], caption: str) -> Rgb:
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ImageError("a tile is not RGB", where=caption, expected="(H, W, 3)", got=str(picture.shape))
    factor = min(cell[0] / picture.shape[0], cell[1] / picture.shape[1])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=method), dtype=np.uint8)
