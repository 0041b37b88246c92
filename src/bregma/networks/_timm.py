"""Import timm, also beside a torchvision whose compiled part does not fit the installed torch.

torchvision without its compiled operators fails on import because ``torchvision::nms`` was never declared. Declaring
the two schemas that its Python part registers kernels for lets the rest (which is all that timm uses) import.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import Any

_fragments: list[Any] = []  # A library's declarations vanish when it is collected.


@cache
def import_timm() -> ModuleType:
    """Return the ``timm`` module."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
    except ImportError:
        pass  # timm itself says what is missing.
    return importlib.import_module("timm")


def _declare_operators() -> None:
    from torch.library import Library

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    fragment = Library("torchvision", "FRAGMENT")
    fragment.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    fragment.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _fragments.append(fragment)
    importlib.import_module("torchvision")
