"""What the machine can do, as far as training and prediction care."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from bregma.errors import ConfigError


@dataclass(frozen=True)
class Hardware:
    """What the training will run on.

    Attributes:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        cores: processor cores that may be used.
        fast_bf16: whether bfloat16 arithmetic is done in hardware.
    """

    accelerator: str
    cores: int
    fast_bf16: bool


def detect_hardware(accelerator: str = "auto") -> Hardware:
    """Look at this machine.

    Raises:
        ConfigError: ``accelerator`` is not ``auto`` and not there.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, found in there.items() if found)
    if not there.get(accelerator):
        found = ", ".join(name for name, found in there.items() if found)
        raise ConfigError(f"there is no '{accelerator}' here", where="accelerator", expected=f"auto or one of {found}")
    fast = torch.cuda.is_bf16_supported() if accelerator == "cuda" else accelerator == "cpu" and _cpu_has_bf16()
    return Hardware(accelerator, cores, fast)


def autocast_dtype(hardware: Hardware) -> torch.dtype | None:
    """Return the type for mixed-precision prediction, or None where full precision is as fast."""
    return torch.bfloat16 if hardware.fast_bf16 else None


def is_helper() -> bool:
    """Tell whether this process was started by a training on several devices, to train beside it and write nothing."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def _cpu_has_bf16() -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
