"""Label formats, published ones and general ones: ``read_dataset(folder) -> Dataset``.

One format a file; the tables in :mod:`bregma.datasets.formats` list them. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bregma.datasets.formats import (
        DATASETS,
        Format,
        detect_format,
        read_dataset,
    )

__all__ = ["DATASETS", "Format", "detect_format", "read_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bregma.datasets' has no attribute '{name}'")
    from bregma.datasets import formats

    return getattr(formats, name)


def __dir__() -> list[str]:
    return __all__
