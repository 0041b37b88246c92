"""Bregma: medical images to anatomical landmarks, landmarks to measurements with their uncertainty.

The commands of ``bregma`` are functions here: ``bregma.train(...)`` does what ``bregma train`` does. Names are loaded
when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

if TYPE_CHECKING:
    from bregma.bundle import Bundle, load_bundle
    from bregma.datasets import read_dataset, write_dataset
    from bregma.errors import BregmaError
    from bregma.geometry import Frame
    from bregma.io import open_image, read_image
    from bregma.phantoms import make_phantoms
    from bregma.results import Evaluation
    from bregma.schema import LandmarkSchema, load_schema
    from bregma.types import Case, Dataset, LandmarkSet, Measurement, Prediction, Status
    from bregma.workflows import (
        compare,
        convert,
        demo,
        evaluate,
        features,
        fit,
        inspect,
        measure,
        phantom,
        predict,
        study,
        train,
    )

__version__ = "0.1.0"

_HOMES = {
    "BregmaError": "errors",
    "Bundle": "bundle",
    "Case": "types",
    "Dataset": "types",
    "Evaluation": "results",
    "Frame": "geometry",
    "LandmarkSchema": "schema",
    "LandmarkSet": "types",
    "Measurement": "types",
    "Prediction": "types",
    "Status": "types",
    "compare": "workflows",
    "convert": "workflows",
    "demo": "workflows",
    "evaluate": "workflows",
    "features": "workflows",
    "fit": "workflows",
    "inspect": "workflows",
    "load_bundle": "bundle",
    "load_schema": "schema",
    "make_phantoms": "phantoms",
    "measure": "workflows",
    "open_image": "io",
    "phantom": "workflows",
    "predict": "workflows",
    "read_dataset": "datasets",
    "read_image": "io",
    "study": "workflows",
    "train": "workflows",
    "write_dataset": "datasets",
}

__all__ = [
    "BregmaError",
    "Bundle",
    "Case",
    "Dataset",
    "Evaluation",
    "Frame",
    "LandmarkSchema",
    "LandmarkSet",
    "Measurement",
    "Prediction",
    "Status",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "features",
    "fit",
    "inspect",
    "load_bundle",
    "load_schema",
    "make_phantoms",
    "measure",
    "open_image",
    "phantom",
    "predict",
    "read_dataset",
    "read_image",
    "study",
    "train",
    "write_dataset",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
