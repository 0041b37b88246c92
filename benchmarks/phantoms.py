"""How long phantoms take: milliseconds an image, at each one's own size.

Run: ``python benchmarks/phantoms.py [count]``.
"""

from __future__ import annotations

import sys
import time

from bregma.phantoms import PHANTOMS, make_phantoms


def milliseconds(name: str, count: int) -> float:
    """Return the mean time of one image, the import and the first image left out."""
    make_phantoms(name, 1)
    start = time.perf_counter()
    make_phantoms(name, count, seed=1)
    return 1000 * (time.perf_counter() - start) / count


def main() -> None:
    """Print one line a phantom."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for name in PHANTOMS:
        print(f"{name:16s} {milliseconds(name, count):7.1f} ms")


if __name__ == "__main__":
    main()
