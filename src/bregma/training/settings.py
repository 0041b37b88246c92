"""Settings of a training: everything that a recipe may set and a plan resolves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bregma.bundle import ModelConfig
from bregma.config import Config
from bregma.data.augment import AugmentConfig
from bregma.losses import AnyLossConfig, CrossEntropyConfig


class OptimizerConfig(Config):
    """Gradient descent."""

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(default=1.5e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=1e-2, ge=0)
    clip_norm: float = Field(default=5.0, ge=0)
    """Largest norm of the whole gradient; 0 leaves it alone."""


class ScheduleConfig(Config):
    """How the learning rate goes from its peak to its end."""

    name: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the rate rises linearly from nothing."""
    final: float = Field(default=0.02, ge=0, le=1)
    """Cosine: the rate at the end, as a share of the peak. Plateau: the lowest share."""
    factor: float = Field(default=0.5, gt=0, lt=1)
    """Plateau: what the rate is multiplied by when the validation error stops falling."""
    patience: int = Field(default=5, ge=1)
    """Plateau: validations without a new best before that."""


class TrainConfig(Config):
    """The loop."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=8, ge=1)
    """Images a step, over all devices; a multiple of ``devices``."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay a step of the averaged weights that are validated and kept; 0 keeps the last weights."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    select: Literal["best", "last"] = "best"
    """Which weights to deploy: those of the least validation MRE, or the last ones. Choose ``last`` where the
    validation part is also the part that is reported, so that it stays unseen."""
    early_stop: int = Field(default=0, ge=0)
    """Validations without a new best MRE before training stops; 0 never stops early."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1)
    """Devices (or processes on the CPU) to train on."""
    workers: int = Field(default=1, ge=0)
    """Threads that prepare batches."""
    cache_mb: int = Field(default=2048, ge=0)
    """Memory for decoded images."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Least time between checkpoints; they are written at the end of an epoch."""
    seed: int = Field(default=0, ge=0)


class Plan(Config):
    """Every resolved setting of a run."""

    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: tuple[AnyLossConfig, ...] = Field(default=(CrossEntropyConfig(),), min_length=1)
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _check(self) -> Plan:
        stride = self.model.network.map_stride
        if any(side % stride for side in self.model.preprocess.size):
            raise ValueError(f"model.preprocess.size must be a multiple of model.network.map_stride={stride}")
        return self
