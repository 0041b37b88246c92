"""Cobb angles measured from the published corners of AASCE 2019, against the angles published with them.

Run: ``python benchmarks/cobb_published.py <folder of spine_ap_xray>``.

The published angles were computed from the same corners, so that they check the definition of the three curves and
nothing else. Rows are left out where the corners are not a spine from top to bottom: where vertebrae or corners were
put into order on reading, the published angles are those of the row as it was; where vertebrae still lie out of order,
nothing is measured. The last line takes all rows as they were published.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bregma.datasets.spine_ap_xray import ANGLES, read
from bregma.geometry import Array
from bregma.measurement import PRIMITIVES, measure_landmarks
from bregma.measurement.spinal_curves import CURVES

WITHIN_DEG = 0.5


@dataclass(frozen=True)
class Row:
    """One image: its largest differences in degrees, and why it is left out.

    Attributes:
        difference: as Bregma measures it, or None where nothing is measured.
        as_published: with vertebrae and corners in the order of the file, right or wrong.
        left_out: empty where the corners are a spine from top to bottom.
    """

    case_id: str
    difference: float | None
    as_published: float
    left_out: str


def compare(root: Path) -> list[Row]:
    """Return a row an image of the published folder."""
    dataset, raw = read(root), published_corners(root)
    rows = []
    for case in dataset:
        if case.landmarks is None:
            continue
        found = {m.name: m for m in measure_landmarks(dataset.schema, case.landmarks, case.frame)}
        ours = [found[name.removesuffix("_deg")] for name in ANGLES]
        apart = [abs(m.value - case.targets[name]) for m, name in zip(ours, ANGLES, strict=True) if m.value is not None]
        whole = len(apart) == len(ANGLES)
        reordered = "put into order on reading" if case.tags.get("reordered") else ""
        corners = raw[case.id] * (case.frame.width, case.frame.height)
        plain = max(abs(a - case.targets[n]) for a, n in zip(three_angles(corners, case.frame.height), ANGLES))
        rows.append(Row(case.id, max(apart) if whole else None, plain, reordered or ours[0].reason))
    return rows


def published_corners(root: Path) -> dict[str, Array]:
    """Return the corners ``(17, 4, 2)`` of each image in the order of the file, in shares of width and height."""
    labels = root / "labels" / "training"
    names = (labels / "filenames.csv").read_text(encoding="utf-8").split("\n")
    values = np.loadtxt(labels / "landmarks.csv", delimiter=",")
    return {Path(name.strip()).stem: row.reshape(2, -1, 4).transpose(1, 2, 0) for name, row in zip(names, values)}


def three_angles(corners: Array, height: float) -> list[float]:
    """Return the main, proximal and distal angle of vertebrae ``(17, 4, 2)``, whatever their order."""
    angle = PRIMITIVES["axis_angle"].function
    ends = [CURVES[name](corners, height) for name in ("main_curve", "proximal_curve", "distal_curve")]
    roles = PRIMITIVES["axis_angle"].roles
    return [float(angle(**dict(zip(roles, [*corners[a], *corners[b]], strict=True)))) for a, b in ends]


def main() -> None:
    """Print how many rows agree, and why others are left out."""
    rows = compare(Path(sys.argv[1]))
    sane = [row for row in rows if not row.left_out]
    differences = np.array([row.difference for row in sane])
    print(f"{len(rows)} rows, {len(sane)} with corners in order")
    print(f"of these within {WITHIN_DEG} degrees: {int((differences <= WITHIN_DEG).sum())}")
    print(f"largest difference {differences.max():.3f} degrees, median {np.median(differences):.3f}")
    for reason, count in Counter(row.left_out for row in rows if row.left_out).most_common():
        print(f"left out: {count} rows, {reason}")
    known = [row for row in rows if row.left_out and row.difference is not None]
    agree = sum(row.difference <= WITHIN_DEG for row in known if row.difference is not None)
    print(f"of those left out, {len(known)} have angles and {agree} agree all the same")
    plain = [row.as_published for row in rows]
    agree = sum(p <= WITHIN_DEG for p in plain)
    print(f"with corners in the file's order: {agree} rows agree, at most {max(plain):.3f} off")


if __name__ == "__main__":
    main()
