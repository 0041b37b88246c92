"""Which part of every image a network looks at."""

from __future__ import annotations

from collections.abc import Sequence

from bregma.crop import Box, CropConfig, box_about, enclosed, middle_box
from bregma.errors import ConfigError, ImageError
from bregma.prediction.failure import Failure
from bregma.prediction.features import Locator
from bregma.types import Case


class Cropper:
    """Finds the part of an image that counts.

    Args:
        config: how.
        roi: finds the landmarks about which it lies; None takes the middle.

    Raises:
        ConfigError: landmarks that the model does not know, or a setting that has no effect.
    """

    def __init__(self, config: CropConfig, roi: Locator | None) -> None:
        self.config, self.roi = config, roi
        if roi is None and config.landmarks:
            raise ConfigError(
                "landmarks are found by a model of them",
                where="crop.landmarks",
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
        return isinstance(other, Cropper) and self.config == other.config and self.roi is other.roi

    __hash__ = None  # type: ignore[assignment]

    def boxes(self, cases: Sequence[Case]) -> list[Box]:
        """Return the part of every case.

        Raises:
            ImageError: one cannot be read, or shows too few landmarks; names it.
        """
        if self.roi is None:
            return [middle_box(case.frame, self.config.share) for case in cases]
        boxes = []
        for case, answer in zip(cases, self.roi.predict(cases), strict=True):
            where = str(case.image.path or case.id)
            if isinstance(answer, Failure):
                raise ImageError(f"has no part to look at ({answer.reason})", where=where)
            points = enclosed(answer, self.roi.schema.names, self.config.landmarks)
            boxes.append(box_about(points, case.frame, self.config.margin, where=where))
        return boxes
