"""Settings of a training: everything that a recipe may set and a plan resolves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bregma.bundle import ModelConfig
from bregma.config import Config
from bregma.data.augment import AugmentConfig
from bregma.losses import AnyLossConfig, CrossEntropyConfig
from bregma.training.monitoring import MRE, metric_names

Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


def _refuse_unused(config: Config, settings: set[str], kind: str) -> None:
    """Refuse settings that this kind of ``config`` would not honour, unless they are left at their default."""
    for setting in sorted(settings):
        if getattr(config, setting) != type(config).model_fields[setting].default:
            raise ValueError(f"{setting} is no setting of {kind}")


def share_epochs(epochs: int, lengths: Sequence[int]) -> list[int]:
    """Divide epochs in proportion to ``lengths``, at least one each; there must be as many epochs as lengths."""
    ends, end = [], 0
    for number, total in enumerate(itertools.accumulate(lengths), 1):
        least, most = end + 1, epochs - (len(lengths) - number)
        end = min(max(round(epochs * total / sum(lengths)), least), most)
        ends.append(end)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


class OptimizerConfig(Config):
    """Gradient descent."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Which optimizer."""
    lr: float = Field(default=1.5e-3, gt=0)
    """Peak learning rate."""
    part_lr: dict[str, Rate] = Field(default_factory=dict)
    """Peak learning rate of single parts of the network, e.g. ``{backbone: 2e-5}``, instead of ``lr``."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Pull of the weights towards 0; apart from the gradient in ``adamw``, added to it in the others."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD: share of the last step that is taken again."""
    nesterov: bool = False
    """SGD: look ahead by the momentum before the gradient is taken."""
    clip_norm: float = Field(default=5.0, ge=0)
    """Largest norm of the whole gradient; 0 leaves it alone."""

    @model_validator(mode="after")
    def _check(self) -> OptimizerConfig:
        if self.name != "sgd":
            _refuse_unused(self, {"momentum", "nesterov"}, self.name)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


_USED: Mapping[str, set[str]] = {
    "cosine": {"final"},
    "linear": {"final"},
    "exponential": {"final"},
    "restarts": {"final", "cycle_epochs", "cycle_growth"},
    "step": {"factor", "milestones"},
    "plateau": {"final", "factor", "patience", "metric"},
    "constant": set(),
}
"""What each kind of schedule honours, beside the warm-up."""
_SCHEDULE_SETTINGS = {setting for used in _USED.values() for setting in used}


class ScheduleConfig(Config):
    """How the learning rate goes from its peak to its end."""

    name: Literal["cosine", "linear", "exponential", "restarts", "step", "plateau", "constant"] = "cosine"
    """``restarts`` is the cosine begun again and again (SGDR: Loshchilov and Hutter, ICLR 2017)."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the rate rises linearly from nothing."""
    final: float = Field(default=0.02, ge=0, le=1)
    """Cosine, linear, exponential: the rate at the end, as a share of the peak. Restarts: at the end of a cycle.
    Plateau: the lowest share."""
    factor: float = Field(default=0.5, gt=0, lt=1)
    """Plateau: what the rate is multiplied by when the metric stops improving. Step: at every milestone."""
    patience: int = Field(default=5, ge=1)
    """Plateau: validations without a new best before that."""
    metric: str | None = None
    """Plateau: the column of ``history.csv`` that it watches; None is ``train.monitor``."""
    milestones: tuple[Share, ...] = ()
    """Step: where in the training the rate falls, as shares of its length, so that they hold for any length."""
    cycle_epochs: int = Field(default=10, ge=1)
    """Restarts: length of the first cycle."""
    cycle_growth: int = Field(default=2, ge=1)
    """Restarts: how many times as long as the last one each further cycle is."""

    @model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        _refuse_unused(self, _SCHEDULE_SETTINGS - _USED[self.name], self.name)
        if self.name == "step" and not self.milestones:
            raise ValueError("a step schedule needs milestones, e.g. [0.8, 0.95]")
        if self.name == "exponential" and not self.final:
            raise ValueError("an exponential schedule never reaches 0: final must be above it")
        return self


def _rate(value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ValueError(f"expected a number above 0, or one a part such as {{head: 2e-4}}, got {value!r}")
    return rate


class PhaseConfig(Config):
    """A stretch of a training with its own trained parts and learning rates; it begins with a fresh optimizer."""

    epochs: int = Field(ge=1)
    freeze: tuple[str, ...] = ()
    """Parts of the network that stay as they are: no gradient, no dropout, and batch normalisation keeps its
    statistics."""
    lr: float | dict[str, float] | None = None
    """Peak learning rate: one number for all that is trained, or one a part; a part that is not named has that of
    ``train.optimizer``."""
    restart: bool = True
    """Whether the schedule, warm-up included, begins anew and runs to its end over this phase (and those after it that
    do not restart); otherwise it goes on."""

    @field_validator("lr", mode="plain")
    @classmethod
    def _rates(cls, lr: Any) -> float | dict[str, float] | None:
        if isinstance(lr, dict):
            return {str(part): _rate(value) for part, value in lr.items()}
        return None if lr is None else _rate(lr)


class TrainConfig(Config):
    """The loop."""

    epochs: int = Field(default=100, ge=1)
    """With ``phases`` the sum of theirs; if it is given too, it stretches or shrinks them in proportion."""
    phases: tuple[PhaseConfig, ...] = ()
    """Stretches of the training, one after the other, e.g. a new head alone before the whole network."""
    batch_size: int = Field(default=8, ge=1)
    """Images whose gradient is computed at once, over all devices; a multiple of ``devices``."""
    draw: Literal["image", "subject"] = "image"
    """What an epoch shows once: every image, or every subject by one of its images, drawn anew each time."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are averaged into one step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay a step of the averaged weights that are validated and kept; 0 keeps the last weights."""
    validate_every: int = Field(default=1, ge=1)
    """Epochs between validations; the last epoch, of every phase too, is always validated."""
    sdr_px: tuple[Rate, ...] = (2.0, 4.0, 6.0, 10.0)
    """Radii in pixels of the original image for the successful detection rates of a validation."""
    monitor: str = MRE
    """The metric by which the best weights are selected, training stops early and a plateau is seen: ``val_mre_px``,
    ``val_median_px``, ``val_loss`` or a detection rate such as ``val_sdr_2px``."""
    select: Literal["best", "last"] = "best"
    """Which weights to deploy: those of the best ``monitor`` on the validation part, or the last ones. Choose ``last``
    where the validation part is also the part that is reported, so that it stays unseen."""
    early_stop: int = Field(default=0, ge=0)
    """Validations without a new best ``monitor`` before training stops, or its next phase begins; 0 never stops
    early."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Of the forward and backward pass; weights and their updates stay in 32 bits."""
    deterministic: bool = False
    """Use only operations that repeat to the last bit (``torch.use_deterministic_algorithms``): slower on a GPU, and
    refused where the network has an operation of which there is none."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device; ``auto`` takes a GPU where there is one."""
    devices: int = Field(default=1, ge=1)
    """Devices (or processes on the CPU) to train on."""
    workers: int = Field(default=1, ge=0)
    """Threads that prepare batches."""
    cache_mb: int = Field(default=2048, ge=0)
    """Memory for decoded images."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Least time between checkpoints; they are written at the end of an epoch."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights, the order of the images and the augmentation."""

    @property
    def stages(self) -> tuple[PhaseConfig, ...]:
        """The phases, or one that is the whole training."""
        return self.phases or (PhaseConfig(epochs=self.epochs),)

    def scheduled_epochs(self, phase: int) -> int:
        """Return over how many epochs the schedule runs of which a phase, counted from 0, is a part."""
        stages = self.stages
        first = max(i for i in range(phase + 1) if i == 0 or stages[i].restart)
        last = next((i for i in range(phase + 1, len(stages)) if stages[i].restart), len(stages))
        return sum(stage.epochs for stage in stages[first:last])

    @property
    def plateau_metric(self) -> str:
        """What a plateau schedule watches."""
        return self.schedule.metric or self.monitor

    @model_validator(mode="before")
    @classmethod
    def _fit_phases(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("phases"), list | tuple):
            return data
        phases = [phase.to_dict() if isinstance(phase, PhaseConfig) else phase for phase in data["phases"]]
        lengths: list[Any] = [phase.get("epochs") for phase in phases if isinstance(phase, dict)]
        if not lengths or len(lengths) < len(phases) or not all(isinstance(n, int) and n > 0 for n in lengths):
            return data  # Whatever is not valid here is refused where it stands.
        epochs = data.get("epochs", sum(lengths))
        if isinstance(epochs, int) and epochs >= len(phases):
            lengths = share_epochs(epochs, lengths)
        fitted = [{**phase, "epochs": length} for phase, length in zip(phases, lengths, strict=True)]
        return {**data, "phases": fitted, "epochs": epochs}

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.phases and sum(phase.epochs for phase in self.phases) != self.epochs:
            raise ValueError(f"epochs={self.epochs} is too few for {len(self.phases)} phases")
        known = metric_names(self.sdr_px)
        for setting, metric in (("monitor", self.monitor), ("schedule.metric", self.plateau_metric)):
            if metric not in known:
                raise ValueError(f"{setting}={metric} is not logged; expected one of {', '.join(known)}")
        return self


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
