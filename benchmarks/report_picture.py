"""Make a picture of a report's first page, as the documentation shows it.

    python benchmarks/report_picture.py runs/hand/report.html docs/images/report.png

Needs Chromium or Chrome on the PATH.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bregma.report import screenshot


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="an HTML report")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1280, help="of the page in pixels")
    parser.add_argument("--height", type=int, default=1800, help="of the page in pixels")
    options = parser.parse_args()
    print(screenshot(options.report, options.picture, width=options.width, height=options.height))


if __name__ == "__main__":
    main()
