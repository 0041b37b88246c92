"""Draw the pictures of the documentation: phantom contact sheets, and the first page of a report.

Run: python docs/make_pictures.py [--report runs/demo/report.html]

The sheets are made anew from fixed seeds; the report's picture needs a run, such as that of ``make demo``, and
Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bregma.files import atomic_path
from bregma.phantoms import PHANTOMS, make_phantoms
from bregma.report import contact_sheet, draw_overlay, screenshot
from bregma.types import Case, Dataset

IMAGES = Path(__file__).parent / "images"
LEVELS = ("easy", "medium", "hard")


def main() -> None:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="an HTML report whose first page to picture")
    args = parser.parse_args()
    for name in sorted(PHANTOMS.keys() - {"chest"}):  # The same images as chest_ctr, with fewer points.
        save_jpeg(IMAGES / f"phantom_{name}.jpg", phantom_sheet(name))
    if args.report is not None:
        save_report(args.report)


def phantom_sheet(name: str) -> Image.Image:
    """Return a sheet with a row a difficulty: three images as they are, and one with its landmarks."""
    tiles = []
    for level in LEVELS:
        dataset = make_phantoms(name, 4, seed=7, difficulty=level)
        tiles += [(tile(dataset, case, marked=i == 3), f"{level}, {i + 1}") for i, case in enumerate(dataset)]
    return Image.fromarray(contact_sheet(tiles, columns=4, cell=(260, 260)))


def tile(dataset: Dataset, case: Case, *, marked: bool) -> NDArray[np.uint8]:
    """Draw one phantom."""
    truth = case.landmarks if marked else None
    return draw_overlay(case.image.load(), schema=dataset.schema, truth=truth, size=260, legend=False)


def save_report(report: Path) -> None:
    """Picture the first page of a report."""
    picture = IMAGES / "report.png"
    screenshot(report, picture, width=1200, height=1500)
    with Image.open(picture) as page:
        save_jpeg(IMAGES / "report.jpg", page.convert("RGB").resize((900, 1125), Image.Resampling.LANCZOS))
    picture.unlink()


def save_jpeg(path: Path, picture: Image.Image) -> None:
    """Write a JPEG, all or nothing."""
    with atomic_path(path) as temporary:
        picture.save(temporary, format="JPEG", quality=78, optimize=True)


if __name__ == "__main__":
    main()
