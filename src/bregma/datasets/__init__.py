"""Label formats, published ones and general ones: ``read_dataset(folder) -> Dataset``.

One format a file; the tables in :mod:`bregma.datasets.formats` list them. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bregma.lazy import lazy_names

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

_HOMES = {
    "Columns": "columns",
    "DATASETS": "formats",
    "EXPORTERS": "formats",
    "Exporter": "formats",
    "Format": "formats",
    "columns_of": "csv_labels",
    "detect_format": "formats",
    "guess_columns": "columns",
    "load_columns": "columns",
    "read_dataset": "formats",
    "write_dataset": "formats",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
