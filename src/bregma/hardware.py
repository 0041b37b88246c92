"""What the machine can do, as far as training and prediction care."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


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
    """Look at this machine; ``accelerator`` other than ``auto`` is taken as told."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if accelerator == "auto":
        mps = torch.backends.mps.is_available()
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if accelerator == "cuda":
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    else:
        fast = accelerator == "cpu" and _cpu_has_bf16()
    return Hardware(accelerator, cores, fast)


def autocast_dtype(hardware: Hardware) -> torch.dtype | None:
    """Return the type for mixed-precision prediction, or None where full precision is as fast."""
    return torch.bfloat16 if hardware.fast_bf16 else None


def _cpu_has_bf16() -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
