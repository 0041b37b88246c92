"""The table of measurement primitives."""

from __future__ import annotations

from bregma.measurement.primitives import PRIMITIVES as PLAIN
from bregma.measurement.primitives import Primitive
from bregma.measurement.shapes import SHAPES

PRIMITIVES: dict[str, Primitive] = PLAIN | SHAPES
"""Every measurement primitive by the name that schemas use."""
