"""What people see: overlays, figures, self-contained HTML reports, and tables of predictions and measurements.

Nothing is scored here: reports show the figures they are given. Parts are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

if TYPE_CHECKING:
    from bregma.report.browser import screenshot
    from bregma.report.html import PredictedCase, write_comparison_html, write_prediction_report, write_report
    from bregma.report.measure_marks import drawn_measurements
    from bregma.report.overlay import draw_overlay, overlay_matrix
    from bregma.report.sheet import contact_sheet, save_png
    from bregma.report.tables import (
        SubjectValue,
        iter_predictions,
        read_predictions,
        write_elements_csv,
        write_measurements_csv,
        write_measurements_json,
        write_predictions,
        write_predictions_csv,
        write_subjects_csv,
    )

_HOMES = {
    "contact_sheet": "sheet",
    "save_png": "sheet",
    "PredictedCase": "html",
    "write_comparison_html": "html",
    "write_prediction_report": "html",
    "write_report": "html",
    "draw_overlay": "overlay",
    "drawn_measurements": "measure_marks",
    "overlay_matrix": "overlay",
    "screenshot": "browser",
    "iter_predictions": "tables",
    "read_predictions": "tables",
    "write_elements_csv": "tables",
    "write_measurements_csv": "tables",
    "write_measurements_json": "tables",
    "write_predictions": "tables",
    "write_predictions_csv": "tables",
    "write_subjects_csv": "tables",
    "SubjectValue": "tables",
}

__all__ = [
    "PredictedCase",
    "SubjectValue",
    "contact_sheet",
    "draw_overlay",
    "drawn_measurements",
    "iter_predictions",
    "overlay_matrix",
    "read_predictions",
    "save_png",
    "screenshot",
    "write_comparison_html",
    "write_elements_csv",
    "write_measurements_csv",
    "write_measurements_json",
    "write_prediction_report",
    "write_predictions",
    "write_predictions_csv",
    "write_report",
    "write_subjects_csv",
]


__getattr__ = lazy_names(__name__, _HOMES)
