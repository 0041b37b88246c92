"""The commands as functions: each takes paths or values of the core types, and writes files that the next one reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

if TYPE_CHECKING:
    from bregma.workflows.data import Inspection, convert, inspect, phantom
    from bregma.workflows.demonstration import demo
    from bregma.workflows.evaluation import compare, evaluate
    from bregma.workflows.loading import DataOptions
    from bregma.workflows.prediction import PredictResult, measure, predict
    from bregma.workflows.runs import RunRow, list_runs, prune_runs, show_run
    from bregma.workflows.stored_features import FeaturesResult, FitComparison, features, fit
    from bregma.workflows.studies import StudyResult, study
    from bregma.workflows.training import TrainResult, train

_HOMES = {
    "DataOptions": "loading",
    "FeaturesResult": "stored_features",
    "FitComparison": "stored_features",
    "Inspection": "data",
    "PredictResult": "prediction",
    "RunRow": "runs",
    "StudyResult": "studies",
    "TrainResult": "training",
    "compare": "evaluation",
    "convert": "data",
    "demo": "demonstration",
    "evaluate": "evaluation",
    "features": "stored_features",
    "fit": "stored_features",
    "inspect": "data",
    "list_runs": "runs",
    "measure": "prediction",
    "phantom": "data",
    "predict": "prediction",
    "prune_runs": "runs",
    "show_run": "runs",
    "study": "studies",
    "train": "training",
}

__all__ = [
    "DataOptions",
    "FeaturesResult",
    "FitComparison",
    "Inspection",
    "PredictResult",
    "RunRow",
    "StudyResult",
    "TrainResult",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "features",
    "fit",
    "inspect",
    "list_runs",
    "measure",
    "phantom",
    "predict",
    "prune_runs",
    "show_run",
    "study",
    "train",
]


__getattr__ = lazy_names(__name__, _HOMES)
