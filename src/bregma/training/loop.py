"""The training loop: short, over Lightning Fabric, exact to resume.

A checkpoint is written at the end of an epoch. Samples depend only on seed, epoch and case, and torch's generator is
part of the checkpoint, so that replaying an interrupted epoch gives the weights of a training never interrupted.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bregma.bundle import build_model
from bregma.data.loader import Batch, SampleSource, batches, drawn_order, draws_of
from bregma.errors import RunError
from bregma.geometry import Array
from bregma.inference import memory_format
from bregma.schema import LandmarkSchema
from bregma.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    plan_hash,
    prefixed,
    read_checkpoint,
    unprefixed,
    write_checkpoint,
)
from bregma.training.checks import batches_per_epoch, steps_per_epoch
from bregma.training.devices import repeatable_operations, start_devices
from bregma.training.ema import Averaged
from bregma.training.history import TensorBoardLog, write_history
from bregma.training.monitoring import MRE, cost, metric_names
from bregma.training.objective import Objective
from bregma.training.optimizer import build_optimizer
from bregma.training.phases import Parts, check_phases, learning_rates, parameter_groups
from bregma.training.progress import Best, Observer, Progress, Silent
from bregma.training.schedule import Schedule
from bregma.training.settings import PhaseConfig, Plan
from bregma.training.validation import Scores, validate
from bregma.types import Case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        weights: to deploy.
        epoch: at the end of which the network had them, counted from 1.
        best: the best value of every metric of the validations, and its epoch; empty without validation.
        history: one row a validation.
        images: views trained on.
        seconds: time in training steps.
    """

    weights: dict[str, Tensor]
    epoch: int
    best: Mapping[str, Best]
    history: list[dict[str, float]]
    images: int
    seconds: float

    @property
    def best_mre_px(self) -> float | None:
        """Least validation error, or None without validation."""
        return self.best[MRE].value if MRE in self.best else None


class Trainer:
    """Trains one plan on given cases, in a folder that holds its checkpoints.

    Args:
        plan: every setting.
        schema: the anatomy.
        train_cases: labelled cases to learn from.
        val_cases: labelled cases that choose the best weights; empty to keep the last ones.
        folder: where ``checkpoint/``, ``history.csv`` and ``tensorboard/`` go.
        observer: hears of progress.
        trust: case id to ``(N,)``, the share of its views in which a doubted label is seen; missing cases are trusted.

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
        trust: Mapping[str, Array] | None = None,
    ) -> None:
        self.plan, self.schema, self.folder = plan, schema, folder
        settings = plan.train
        self.fabric = start_devices(settings, len(train_cases))
        self.observer = observer if observer is not None and self.fabric.is_global_zero else Silent()
        torch.manual_seed(settings.seed)
        network, self.codec = build_model(plan.model, schema)
        self.objective = Objective(plan, self.codec, schema)
        check_phases(settings, network)
        network.to(memory_format=memory_format(self.fabric.device))  # type: ignore[call-overload]
        self.average = Averaged(network, settings.ema)
        self.average.network.to(self.fabric.device)
        self.parts = Parts(network)
        self.source = SampleSource(
            train_cases,
            schema,
            plan.model.preprocess,
            plan.augment,
            seed=settings.seed,
            cache_mb=settings.cache_mb,
            trust=trust,
        )
        self.draws = draws_of(self.source.cases, by_subject=settings.draw == "subject")
        self.validation = SampleSource(val_cases, schema, plan.model.preprocess, cache_mb=settings.cache_mb)
        self.progress = Progress()
        self._begin_phase()
        self.schedule = self._new_schedule()

    def fit(self, *, resume: bool = False) -> Trained:
        """Train to the end, from the last checkpoint when ``resume``.

        Raises:
            RunError: the checkpoint is of another plan, or the loss is no longer a finite number.
            ConfigError: the network has an operation that ``train.deterministic`` excludes.
        """
        if resume and self._checkpoint.is_file():
            self._restore()
        board = TensorBoardLog(self.folder / "tensorboard") if self.fabric.is_global_zero else None
        self.observer.started(self.progress.epoch, self.plan.train.epochs, self._steps_per_epoch)
        with repeatable_operations(self.plan.train.deterministic):
            self._train(board)
        if board is not None:
            board.close()
        self.fabric.barrier()
        return self._result()

    def untrained(self) -> Trained:
        """Return the weights that a training would start from."""
        return self._result()

    def _train(self, board: TensorBoardLog | None) -> None:
        settings, progress = self.plan.train, self.progress
        saved = time.monotonic()
        while not self._over:
            start = time.monotonic()
            losses = self._epoch(progress.epoch)
            progress.epoch += 1
            progress.seconds += time.monotonic() - start
            if progress.epoch % settings.validate_every == 0 or self._phase_over:
                self._validate(losses, board)
            if self._phase_over and not self._over:
                self._next_phase()
            if self._over or time.monotonic() - saved >= settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()

    def step(self, *group: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one optimisation step over some batches; returns the mean of their losses and terms, detached."""
        # Before the forward pass, so that its activations take over the gradients' memory.
        self.optimizer.zero_grad(set_to_none=True)
        total, means = torch.zeros((), device=self.fabric.device), dict[str, Tensor]()
        for number, batch in enumerate(group, 1):
            with self.fabric.no_backward_sync(self.network, enabled=number < len(group)):
                loss, terms = self.loss(batch)
                self.fabric.backward(loss / len(group))
            total = total + loss.detach() / len(group)
            means = {name: means.get(name, 0.0) + term / len(group) for name, term in terms.items()}
        clip = self.plan.train.optimizer.clip_norm
        if clip:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=clip, error_if_nonfinite=False)
        factor = self.schedule.factor(self.progress.step - self.progress.schedule_step)
        for weights in self.optimizer.param_groups:
            weights["lr"] = weights["peak"] * factor
        self.optimizer.step()
        self.average.update(self.network.module)
        self.progress.step += 1
        return total, means

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, with its graph, and its terms, detached."""
        device = self.fabric.device
        images = batch.images.to(device, memory_format=memory_format(device))
        return self.objective(self.network(images), batch)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "last.safetensors"

    @property
    def _best(self) -> Path:
        return self.folder / "checkpoint" / "best.safetensors"

    @property
    def _phase(self) -> PhaseConfig:
        return self.plan.train.stages[self.progress.phase]

    @property
    def _phase_over(self) -> bool:
        patience, progress = self.plan.train.early_stop, self.progress
        stopped = bool(patience) and progress.validations_since_best >= patience
        return stopped or progress.epoch >= progress.phase_epoch + self._phase.epochs

    @property
    def _over(self) -> bool:
        return self._phase_over and self.progress.phase == len(self.plan.train.stages) - 1

    @property
    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(self.plan.train, len(self.draws))

    @property
    def _images(self) -> int:
        settings, count = self.plan.train, len(self.draws)
        return self.progress.epoch * batches_per_epoch(settings, count) * min(settings.batch_size, count)

    def _next_phase(self) -> None:
        progress = self.progress
        progress.phase, progress.phase_epoch, progress.validations_since_best = progress.phase + 1, progress.epoch, 0
        self._begin_phase()
        if self._phase.restart:
            progress.schedule_step = progress.step
            self.schedule = self._new_schedule()

    def _begin_phase(self) -> None:
        """Freeze what the phase freezes, and set up a fresh optimizer for the rest."""
        settings, network = self.plan.train, self.parts.network
        self.parts.freeze(self._phase.freeze)
        self.rates = learning_rates(settings.optimizer, self._phase, network.part_parameters())
        groups = parameter_groups(network, self.rates)
        optimizer = build_optimizer(settings.optimizer, groups, self.fabric.device, settings.precision)
        # Anew in every phase, because several devices exchange only what was trainable when they were set up.
        self.network, self.optimizer = self.fabric.setup(network, optimizer)

    def _new_schedule(self) -> Schedule:
        settings, steps = self.plan.train, self._steps_per_epoch
        return Schedule(settings.schedule, steps * settings.scheduled_epochs(self.progress.phase), steps)

    def _epoch(self, epoch: int) -> dict[str, float]:
        self.parts.train()
        rank, world, settings = self.fabric.global_rank, self.fabric.world_size, self.plan.train
        order = [
            indices[rank::world]
            for indices in drawn_order(self.draws, settings.batch_size, seed=settings.seed, epoch=epoch)
        ]
        total: dict[str, float] = {}
        stream = batches(self.source, order, epoch=epoch, workers=settings.workers)
        for group in _in_groups(stream, settings.accumulate):
            loss, terms = self.step(*group)
            value = float(loss)
            if not math.isfinite(value):
                raise self._diverged("loss")
            for name, term in {"loss": loss, **terms}.items():
                total[name] = total.get(name, 0.0) + float(term) * len(group) / len(order)
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

    def _validate(self, losses: dict[str, float], board: TensorBoardLog | None) -> None:
        progress, settings = self.progress, self.plan.train
        row = {
            "epoch": float(progress.epoch),
            "step": float(progress.step),
            **self._rates_now(),
            "train_loss": losses.pop("loss"),
            **{f"train_{name}": value for name, value in losses.items()},
            "images": float(self._images),
            "seconds": round(progress.seconds, 3),
        }
        if len(self.validation):
            row |= self._scores().row(settings.sdr_px)
        best = settings.monitor in progress.note(row, metric_names(settings.sdr_px))
        if len(self.validation):
            watched = settings.plateau_metric
            self.schedule.validated(cost(watched, row[watched]) if watched in row else math.inf)
            progress.validations_since_best = 0 if best else progress.validations_since_best + 1
        if self.fabric.is_global_zero:
            if best:
                write_checkpoint(self._best, self._deployable(), {"epoch": progress.epoch})
            write_history(self.folder / "history.csv", progress.history)
            if board is not None:
                board.add(row)
        self.observer.validated(row, best)

    def _rates_now(self) -> dict[str, float]:
        """Return the learning rate of the last step, the highest one and, where they differ, each part's."""
        factor = self.schedule.factor(self.progress.step - 1 - self.progress.schedule_step)
        rates = {part: rate * factor for part, rate in self.rates.items()}
        several = len(set(rates.values())) > 1
        return {"lr": max(rates.values()), **({f"lr_{part}": rate for part, rate in rates.items()} if several else {})}

    def _scores(self) -> Scores:
        network = self.average.network if self.plan.train.ema else self.network.module
        scores = validate(network, self.objective, self.validation, self.plan.train, self.fabric.device)
        # Counters of batch normalisation differ a little between devices; all of them must decide alike.
        return self.fabric.broadcast(scores)

    def _deployable(self) -> dict[str, Tensor]:
        network = self.average.network if self.plan.train.ema else self.network.module
        return dict(network.state_dict())

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
        self.progress = Progress.from_dict(state["progress"])
        self._begin_phase()
        self.schedule = self._new_schedule()
        self.network.module.load_state_dict(unprefixed("network", tensors))
        self.average.network.load_state_dict(unprefixed("average", tensors))
        load_optimizer(self.optimizer, unprefixed("optimizer", tensors))
        torch.set_rng_state(tensors["rng"])
        self.average.updates = state["averaged"]
        self.schedule.restore(state["schedule"])
        if self._scaler:
            self._scaler.load_state_dict(state["scaler"])
        log.info("resumed at epoch %d of %d", self.progress.epoch + 1, self.plan.train.epochs)

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What keeps float16 gradients in range; None for every other precision."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def _result(self) -> Trained:
        progress, settings = self.progress, self.plan.train
        best = progress.best.get(settings.monitor) if settings.select == "best" else None
        return Trained(
            weights=self._deployable() if best is None else read_checkpoint(self._best)[0],
            epoch=progress.epoch if best is None else best.epoch,
            best=progress.best,
            history=progress.history,
            images=self._images,
            seconds=progress.seconds,
        )


def _in_groups(stream: Iterator[Batch], size: int) -> Iterator[tuple[Batch, ...]]:
    """Yield the batches of one step after the other; the last ones may be fewer."""
    while group := tuple(itertools.islice(stream, size)):
        yield group
