"""Which part of every image a network looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bregma.crop import Box, CropConfig, box_about, enclosed, middle_box, middle_of, sureness
from bregma.errors import ConfigError, ImageError
from bregma.prediction.failure import Failure
from bregma.prediction.features import Locator
from bregma.types import ArraySlab, Case, Prediction, SlabSource


class Cropper:
    """Finds the part of an image that counts.

    Args:
        config: how.
        roi: finds the landmarks about which it lies; None takes the middle.
        reach: slices either side of the one that the part lies on that the network sees.

    Raises:
        ConfigError: landmarks that the model does not know, or a setting that has no effect.
    """

    def __init__(self, config: CropConfig, roi: Locator | None, reach: int = 0) -> None:
        self.config, self.roi, self.reach = config, roi, reach
        for name, given in (("landmarks", config.landmarks), ("slices", config.slices)):
            if roi is None and given:
                raise ConfigError(
                    "landmarks are found by a model of them",
                    where=f"crop.{name}",
                    fix="name its run or bundle as crop.roi",
                )
        if roi is not None and config.share < 1:
            raise ConfigError(
                "the part is about landmarks or about the middle", where="crop.share", fix="leave it or crop.roi out"
            )
        unknown = [] if roi is None else [name for name in config.landmarks if name not in roi.schema.names]
        if roi is not None and unknown:
            raise ConfigError(
                f"the model of crop.roi knows no landmark '{unknown[0]}'",
                where="crop.landmarks",
                expected=", ".join(roi.schema.names),
            )

    def __eq__(self, other: object) -> bool:
        """Tell whether another finds the same parts."""
        if not isinstance(other, Cropper):
            return False
        return (self.config, self.reach) == (other.config, other.reach) and self.roi is other.roi

    __hash__ = None  # type: ignore[assignment]

    def boxes(self, cases: Sequence[Case]) -> list[Box]:
        """Return the part of every case.

        Raises:
            ImageError: one cannot be read, or shows too few landmarks; names it.
        """
        if self.roi is None:
            return [middle_box(case.frame, self.config.share) for case in cases]
        if self.config.slices:
            return [self._on_a_slice(case, self.roi) for case in cases]
        return [self._about(case, answer) for case, answer in zip(cases, self.roi.predict(cases), strict=True)]

    def _about(self, case: Case, answer: Prediction | Failure) -> Box:
        assert self.roi is not None
        where = str(case.image.path or case.id)
        if isinstance(answer, Failure):
            raise ImageError(f"has no part to look at ({answer.reason})", where=where)
        points = enclosed(answer, self.roi.schema.names, self.config.landmarks)
        return box_about(points, case.frame, self.config.margin, where=where)

    def _on_a_slice(self, case: Case, roi: Locator) -> Box:
        """Return the part on the slice in the middle of those that show the landmarks."""
        image, beside, deep = case.image, self.config.slices, roi.slices // 2
        if not isinstance(image, SlabSource):
            where = image.path or case.id
            raise ImageError("is one image, not the slices of a volume", where=where, fix="set crop.slices to 0")
        # What the network will see about the slice farthest off is read as well: that it is missing shows here.
        reach = beside + max(deep, self.reach)
        slab = image.load_slab(reach)
        middles = range(reach - beside, reach + beside + 1)
        shown = [replace(case, image=ArraySlab(slab[m - deep : m + deep + 1], image.path)) for m in middles]
        answers = list(roi.predict(shown))
        wanted = self.config.landmarks
        seen = [0.0 if isinstance(a, Failure) else sureness(a, roi.schema.names, wanted) for a in answers]
        chosen = middle_of(seen)
        return replace(self._about(case, answers[beside + chosen]), beside=chosen)
