"""How an evaluation is scored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bregma.config import Config

Positive = Annotated[float, Field(gt=0)]


class EvaluationSettings(Config):
    """Thresholds, sizes and resampling of an evaluation."""

    sdr_px: tuple[Positive, ...] = (2.0, 4.0, 6.0, 10.0)
    """Radii in pixels for the successful detection rate; an error equal to the radius is a success."""
    sdr_mm: tuple[Positive, ...] = (2.0, 2.5, 3.0, 4.0)
    """Radii in millimetres (by default those of the ISBI 2015 challenge, Wang et al. 2016)."""
    outlier_px: Positive = 10.0
    """A point with a larger error is an outlier."""
    at_size: int | None = Field(default=None, ge=1)
    """Also score in the pixels that each image would have if its long side had this length; all pixel thresholds then
    apply there too. Errors on images of different sizes, or of published work at another size, become comparable."""
    presence_threshold: float | None = Field(default=None, gt=0, le=1)
    """A landmark whose predicted presence is below it counts as not given: a labelled one fails every SDR and is an
    outlier. Its expected position still enters the mean errors, so that declining hard points never improves them.
    None takes every landmark as given, except in measurements, which are then made as they are in use."""
    match_within: Positive = 0.25
    """How far the centre of a found element of a chain (a vertebra) may lie from that of a labelled one to be taken for
    it, in diagonals of the labelled one. Two squares a quarter of a diagonal apart overlap by about one half
    (intersection over union), the usual criterion of detection; neighbouring vertebrae are more than twice as far
    apart."""
    reference_length: bool = False
    """Also score in the literature's millimetres, for which the schema declares the distance between two landmarks
    (``_mm_ref``). They come from the labels, not from a spacing, and serve only to compare with published figures."""
    observer: str | None = None
    """The reader of the human line; by default the one who read most images and whose points are not the labels."""
    draws: int = Field(default=2000, ge=100)
    """Bootstrap resamples."""
    seed: int = Field(default=0, ge=0)
    """Of the resampling."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Coverage of the intervals."""
