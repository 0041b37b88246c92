"""Label formats, published ones and general ones: ``read_dataset(folder) -> Dataset``.

One format a file; the tables in :mod:`bregma.datasets.formats` list them. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bregma.datasets.columns import Columns, guess_columns, load_columns
    from bregma.datasets.csv_labels import columns_of
    from bregma.datasets.formats import (
        DATASETS,
        EXPORTERS,
        Exporter,
        Format,
        detect_format,
        read_dataset,
        write_dataset,
    )

__all__ = [
    "DATASETS",
    "EXPORTERS",
    "Columns",
    "Exporter",
    "Format",
    "columns_of",
    "detect_format",
    "guess_columns",
    "load_columns",
    "read_dataset",
    "write_dataset",
]

_ELSEWHERE = {
    "Columns": "columns",
    "columns_of": "csv_labels",
    "guess_columns": "columns",
    "load_columns": "columns",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'formats')}"), name)


def __dir__() -> list[str]:
    return __all__
