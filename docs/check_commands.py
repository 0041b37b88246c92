"""Run the commands of README.md and docs/: every block that is marked ``bash run``, page by page.

The blocks of a page share one empty folder and run in their order, so that a page can build on what it made before.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 300
_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the file.
        line: of its first line of text.
        info: what follows the fence, e.g. ``bash run``.
        text: what it holds.
    """

    page: Path
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(page, line, match["info"].strip(), match["text"])


def run_page(page: Path) -> list[str]:
    """Run a page's marked blocks; return what went wrong, which ends the page."""
    marked = [block for block in blocks(page) if block.info == "bash run"]
    with tempfile.TemporaryDirectory() as folder:
        for block in marked:
            fault = _run(block, Path(folder))
            if fault:
                return [fault]
    return []


def _run(block: Block, folder: Path) -> str | None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    start = time.monotonic()
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{block.place}: not done after {TIMEOUT_S} s\n{block.text}"
    print(f"{block.place}: {time.monotonic() - start:.1f} s", flush=True)
    if done.returncode:
        return (
            f"{block.place}: ended with {done.returncode}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return None


def main() -> int:
    """Run all pages; 1 where a command failed."""
    faults = [fault for page in pages() for fault in run_page(page)]
    for fault in faults:
        print(f"\n{fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
