"""The training loop: short, over Lightning Fabric, exact to resume.

A checkpoint is written at the end of an epoch. Samples depend only on seed, epoch and case, and torch's generator is
part of the checkpoint, so that replaying an interrupted epoch gives the weights of a training never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bregma.bundle import build_model
from bregma.codecs import Codec, Labels
from bregma.codecs.coordinate import CoordinateCodec
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.data.loader import Batch, SampleSource, batches, epoch_order
from bregma.errors import ConfigError, RunError
from bregma.inference import memory_format, predict_source, radial_errors
from bregma.losses import LossInput, check_terms, total_loss
from bregma.schema import LandmarkSchema
from bregma.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    prefixed,
    read_checkpoint,
    unprefixed,
    write_checkpoint,
)
from bregma.training.devices import check_devices, start_devices
from bregma.training.ema import Averaged
from bregma.training.history import TensorBoardLog, write_history
from bregma.training.progress import Observer, Progress, Silent
from bregma.training.schedule import Schedule
from bregma.training.settings import Plan, TrainConfig
from bregma.types import Case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        weights: to deploy.
        epoch: at the end of which the network had them, counted from 1.
        best_mre_px: least validation error, or None without validation.
        history: one row a validation.
        images: views trained on.
        seconds: time in training steps.
    """

    weights: dict[str, Tensor]
    epoch: int
    best_mre_px: float | None
    history: list[dict[str, float]]
    images: int
    seconds: float


class Trainer:
    """Trains one plan on given cases, in a folder that holds its checkpoints.

    Args:
        plan: every setting.
        schema: the anatomy.
        train_cases: labelled cases to learn from.
        val_cases: labelled cases that choose the best weights; empty to keep the last ones.
        folder: where ``checkpoint/``, ``history.csv`` and ``tensorboard/`` go.
        observer: hears of progress.

    Raises:
        ConfigError: settings that do not fit each other, before anything is trained.
    """

    def __init__(
        self,
        plan: Plan,
        schema: LandmarkSchema,
        train_cases: Sequence[Case],
        val_cases: Sequence[Case],
        folder: Path,
        observer: Observer | None = None,
    ) -> None:
        self.plan, self.schema, self.folder = plan, schema, folder
        settings = plan.train
        self.fabric = start_devices(settings, len(train_cases))
        self.observer = observer if observer is not None and self.fabric.is_global_zero else Silent()
        torch.manual_seed(settings.seed)
        network, self.codec = build_model(plan.model, schema)
        check_terms(plan.loss, self.codec.outputs, _activation(plan))
        network.to(memory_format=memory_format(self.fabric.device))  # type: ignore[call-overload]
        self.average = Averaged(network, settings.ema)
        optimizer = _optimizer(settings, network, self.fabric.device)
        self.network, self.optimizer = self.fabric.setup(network, optimizer)
        self.average.network.to(self.fabric.device)
        self.source = SampleSource(
            train_cases, schema, plan.model.preprocess, plan.augment, seed=settings.seed, cache_mb=settings.cache_mb
        )
        self.validation = SampleSource(val_cases, schema, plan.model.preprocess, cache_mb=settings.cache_mb)
        steps = len(self._order(0))
        self.schedule = Schedule(settings.schedule, steps * settings.epochs)
        self.progress = Progress()

    def fit(self, *, resume: bool = False) -> Trained:
        """Train to the end, from the last checkpoint when ``resume``.

        Raises:
            RunError: the checkpoint is of another plan, or the loss is no longer a finite number.
        """
        if resume and self._checkpoint.is_file():
            self._restore()
        settings, progress = self.plan.train, self.progress
        board = TensorBoardLog(self.folder / "tensorboard") if self.fabric.is_global_zero else None
        self.observer.started(progress.epoch, settings.epochs, len(self._order(0)))
        saved = time.monotonic()
        while progress.epoch < settings.epochs and not self._stopped_early():
            start = time.monotonic()
            losses = self._epoch(progress.epoch)
            progress.epoch += 1
            progress.seconds += time.monotonic() - start
            if progress.epoch % settings.validate_every == 0 or progress.epoch == settings.epochs:
                self._validate(losses, board)
            last = progress.epoch == settings.epochs or self._stopped_early()
            if last or time.monotonic() - saved >= settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
        if board is not None:
            board.close()
        self.fabric.barrier()
        return self._result()

    def step(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one optimisation step; returns the loss and its terms, detached."""
        # Before the forward pass, so that its activations take over the gradients' memory.
        self.optimizer.zero_grad(set_to_none=True)
        loss, terms = self.loss(batch)
        self.fabric.backward(loss)
        clip = self.plan.train.optimizer.clip_norm
        if clip:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=clip, error_if_nonfinite=False)
        factor = self.schedule.factor(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.train.optimizer.lr * factor
        self.optimizer.step()
        self.average.update(self.network.module)
        self.progress.step += 1
        return loss.detach(), terms

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "last.safetensors"

    @property
    def _best(self) -> Path:
        return self.folder / "checkpoint" / "best.safetensors"

    def _order(self, epoch: int) -> list[tuple[int, ...]]:
        settings = self.plan.train
        return epoch_order(len(self.source), settings.batch_size, seed=settings.seed, epoch=epoch)

    def _epoch(self, epoch: int) -> dict[str, float]:
        self.network.train()
        rank, world = self.fabric.global_rank, self.fabric.world_size
        order = [indices[rank::world] for indices in self._order(epoch)]
        total: dict[str, float] = {}
        for batch in batches(self.source, order, epoch=epoch, workers=self.plan.train.workers):
            loss, terms = self.step(batch)
            value = float(loss)
            if not math.isfinite(value):
                raise self._diverged("loss")
            for name, term in {"loss": loss, **terms}.items():
                total[name] = total.get(name, 0.0) + float(term) / len(order)
            self.observer.stepped(value)
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            raise self._diverged("network")
        return {name: self._mean_over_devices(value) for name, value in total.items()}

    def _diverged(self, what: str) -> RunError:
        return RunError(
            f"the {what} no longer holds finite numbers (epoch {self.progress.epoch + 1}, step {self.progress.step})",
            where=self.folder,
            fix="lower train.optimizer.lr, or set train.precision=32-true",
        )

    def _mean_over_devices(self, value: float) -> float:
        if self.fabric.world_size == 1:
            return value
        mean = self.fabric.all_reduce(torch.tensor(value, device=self.fabric.device), reduce_op="mean")
        return float(mean) if isinstance(mean, Tensor) else value

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, with its graph, and its terms, detached."""
        device = self.fabric.device
        shape = self.plan.model.preprocess.size
        labels = Labels(batch.points_in, batch.placed, batch.placed, batch.known, shape).to(device)
        target = self.codec.encode(labels)
        images = batch.images.to(device, memory_format=memory_format(device))
        outputs = self.network(images)
        return total_loss(self.plan.loss, _loss_input(self.codec, outputs, labels, target.maps))

    def _validate(self, losses: dict[str, float], board: TensorBoardLog | None) -> None:
        progress = self.progress
        row = {
            "epoch": float(progress.epoch),
            "step": float(progress.step),
            "lr": self.plan.train.optimizer.lr * self.schedule.factor(progress.step - 1),
            "train_loss": losses.pop("loss"),
            **{f"train_{name}": value for name, value in losses.items()},
            "images": float(progress.step * min(self.plan.train.batch_size, len(self.source))),
            "seconds": round(progress.seconds, 3),
        }
        best = False
        if len(self.validation):
            errors = self._validation_errors()
            row |= {"val_mre_px": float(errors.mean()), "val_median_px": float(np.median(errors))}
            best = row["val_mre_px"] < progress.best_mre_px
            self.schedule.validated(row["val_mre_px"])
            progress.validations_since_best = 0 if best else progress.validations_since_best + 1
        if best:
            progress.best_mre_px, progress.best_epoch = row["val_mre_px"], progress.epoch
        progress.history.append(row)
        if self.fabric.is_global_zero:
            if best:
                write_checkpoint(self._best, self._deployable(), {"epoch": progress.epoch})
            write_history(self.folder / "history.csv", progress.history)
            if board is not None:
                board.add(row)
        self.observer.validated(row, best)

    def _validation_errors(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        network = self.average.network if self.plan.train.ema else self.network.module
        network.eval()
        predictions = predict_source(
            network,
            self.codec,
            self.validation,
            device=self.fabric.device,
            dtype=_dtype(self.plan.train.precision),
            batch_size=self.plan.train.batch_size,
            workers=self.plan.train.workers,
        )
        errors = radial_errors(self.validation.cases, list(predictions))
        if not len(errors):
            raise ConfigError("the validation cases carry no labels", where="split 'val'")
        # Counters of batch normalisation differ a little between devices; all of them must decide alike.
        return self.fabric.broadcast(errors)

    def _deployable(self) -> dict[str, Tensor]:
        network = self.average.network if self.plan.train.ema else self.network.module
        return dict(network.state_dict())

    def _stopped_early(self) -> bool:
        patience = self.plan.train.early_stop
        return bool(patience) and self.progress.validations_since_best >= patience

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        tensors = {
            **prefixed("network", self.network.module.state_dict()),
            **prefixed("average", self.average.network.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            "rng": torch.get_rng_state(),
        }
        scaler = self._scaler
        state = {
            "plan": plan_hash(self.plan),
            "progress": self.progress.to_dict(),
            "averaged": self.average.updates,
            "schedule": self.schedule.state(),
            "scaler": scaler.state_dict() if scaler else None,
        }
        write_checkpoint(self._checkpoint, tensors, state)

    def _restore(self) -> None:
        tensors, state = read_checkpoint(self._checkpoint)
        if state.get("plan") != plan_hash(self.plan):
            raise RunError(
                "the checkpoint was made with other settings",
                where=self._checkpoint,
                fix="resume with the run's own plan, or start anew in another folder",
            )
        self.network.module.load_state_dict(unprefixed("network", tensors))
        self.average.network.load_state_dict(unprefixed("average", tensors))
        load_optimizer(self.optimizer, unprefixed("optimizer", tensors))
        torch.set_rng_state(tensors["rng"])
        self.average.updates = state["averaged"]
        self.schedule.restore(state["schedule"])
        self.progress = Progress.from_dict(state["progress"])
        if self._scaler:
            self._scaler.load_state_dict(state["scaler"])
        log.info("resumed at epoch %d of %d", self.progress.epoch + 1, self.plan.train.epochs)

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What keeps float16 gradients in range; None for every other precision."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def _result(self) -> Trained:
        progress = self.progress
        chosen = self.plan.train.select == "best" and progress.best_epoch >= 0
        return Trained(
            weights=read_checkpoint(self._best)[0] if chosen else self._deployable(),
            epoch=progress.best_epoch if chosen else progress.epoch,
            best_mre_px=progress.best_mre_px if progress.best_epoch >= 0 else None,
            history=progress.history,
            images=progress.step * min(self.plan.train.batch_size, len(self.source)),
            seconds=progress.seconds,
        )


def check_plan(plan: Plan, schema: LandmarkSchema, images: int) -> None:
    """Refuse a plan that cannot be trained, before anything is written.

    Raises:
        ConfigError: settings that do not fit each other, the anatomy or this machine.
    """
    check_devices(plan.train, images)
    _, codec = build_model(plan.model, schema)
    check_terms(plan.loss, codec.outputs, _activation(plan))


def plan_hash(plan: Plan) -> str:
    """Return a hash of every setting."""
    return hashlib.sha256(json.dumps(plan.to_dict(), sort_keys=True).encode()).hexdigest()


def _loss_input(codec: Codec, outputs: dict[str, Tensor], labels: Labels, target_maps: Tensor | None) -> LossInput:
    shape = labels.shape

    def cholesky() -> Tensor:
        if not isinstance(codec, CoordinateCodec):
            raise ConfigError("the codec predicts no covariance", where="loss 'gaussian_nll'")
        return codec.cholesky(outputs, shape)

    return LossInput(
        maps=outputs.get("maps"),
        target_maps=target_maps,
        points=lambda: codec.points(outputs, shape),
        target_points=labels.points_in,
        cholesky=cholesky,
        placed=labels.placed,
        presence=outputs.get("presence"),
        present=labels.present,
        known=labels.known,
    )


def _optimizer(settings: TrainConfig, network: torch.nn.Module, device: torch.device) -> torch.optim.Optimizer:
    config = settings.optimizer
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.name]
    # A fused optimizer would take the loss scale off gradients by itself, after they were clipped.
    fused = device.type in ("cpu", "cuda") and settings.precision != "16-mixed"
    return kind(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _activation(plan: Plan) -> str | None:
    codec = plan.model.codec
    return codec.activation if isinstance(codec, HeatmapCodecConfig) else None


def _dtype(precision: str) -> torch.dtype | None:
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
