"""Scoring predictions against labels, in figures that carry intervals over subjects; and comparing runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

if TYPE_CHECKING:
    from bregma.evaluation.compare import compare_runs
    from bregma.evaluation.files import CaseRow, load_cases, load_metrics, save_evaluation
    from bregma.evaluation.scoring import evaluate_predictions
    from bregma.evaluation.settings import EvaluationSettings

__all__ = [
    "CaseRow",
    "EvaluationSettings",
    "compare_runs",
    "evaluate_predictions",
    "load_cases",
    "load_metrics",
    "save_evaluation",
]

_HOMES = {
    "CaseRow": "files",
    "EvaluationSettings": "settings",
    "compare_runs": "compare",
    "evaluate_predictions": "scoring",
    "load_cases": "files",
    "load_metrics": "files",
    "save_evaluation": "files",
}


__getattr__ = lazy_names(__name__, _HOMES)
