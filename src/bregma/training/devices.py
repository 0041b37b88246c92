"""The devices that a training runs on."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric

from bregma.errors import ConfigError
from bregma.hardware import detect_hardware
from bregma.training.settings import TrainConfig


def start_devices(settings: TrainConfig, images: int) -> Fabric:
    """Set up the devices; with more than one, start the other processes, which run this program once more.

    Raises:
        ConfigError: a device that is not there, or a setting that it cannot honour.
    """
    accelerator = check_devices(settings, images)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # It announces settings that the plan names.
    fabric = Fabric(
        accelerator=accelerator,
        devices=settings.devices,
        precision=settings.precision,
        strategy="auto" if settings.devices == 1 else "ddp",
    )
    if settings.devices > 1:
        fabric.launch()
    return fabric


def check_devices(settings: TrainConfig, images: int) -> str:
    """Return the accelerator by name.

    Raises:
        ConfigError: a device that is not there, or a setting that it cannot honour.
    """
    accelerator = detect_hardware(settings.accelerator).accelerator
    if settings.precision == "16-mixed" and accelerator == "cpu":
        raise ConfigError(
            "processors have no fast float16", where="train.precision", fix="set it to 32-true or bf16-mixed"
        )
    if settings.batch_size % settings.devices:
        raise ConfigError(
            "does not divide evenly among the devices",
            where="train.batch_size",
            expected=f"a multiple of train.devices={settings.devices}",
            got=str(settings.batch_size),
        )
    if settings.devices > images:
        raise ConfigError(
            "there are more devices than training images", where="train.devices", expected=f"{images} at most"
        )
    return accelerator


@contextlib.contextmanager
def repeatable_operations(wanted: bool) -> Iterator[None]:
    """Let torch use only operations that repeat to the last bit, and restore its mode afterwards.

    Raises:
        ConfigError: one of which there is no such form was used.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's matrix products ask for it.
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise ConfigError(
            f"the training has an operation that does not repeat exactly ({str(error).splitlines()[0]})",
            where="train.deterministic",
            fix="set it to false, or train on the CPU",
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
