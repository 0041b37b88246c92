"""How much a training step costs beyond the bare network, and how fast the default is against SCN.

Run: python benchmarks/step_time.py [--steps 30] [--rounds 3] [--size 256] [--json]

The bare step is forward, loss and backward of the same network on one fixed batch with its target ready; the training
step is what ``bregma train`` does: reading, augmentation, encoding, forward, loss, backward, clipping, optimiser and
averaging. They alternate in blocks within one run, so that a busy machine slows both. The figure is the ratio of
their medians; the median of the rounds' ratios is given, and each of them. A third step, with the mean of the outputs
in the place of the loss, tells what the loss itself costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bregma.bundle import ModelConfig
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.data.loader import Batch, batches, drawn_order
from bregma.hardware import detect_hardware
from bregma.inference import memory_format
from bregma.networks.scn import SCNConfig
from bregma.phantoms import make_phantoms
from bregma.training.loop import Trainer
from bregma.training.settings import Plan, ScheduleConfig, TrainConfig
from bregma.types import Dataset


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured anew")
    parser.add_argument("--size", type=int, default=256, help="input size")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    data = make_phantoms("hand", 32, size=2 * args.size)
    rounds = [
        {
            "default": measure(default_plan(args.size, args.batch), data, args.steps),
            "scn": measure(scn_plan(args.size, args.batch), data, max(4, args.steps // 6)),
        }
        for _ in range(args.rounds)
    ]
    overheads = [r["default"]["train_s"] / r["default"]["bare_s"] for r in rounds]
    lossless = [r["default"]["train_s"] / r["default"]["lossless_s"] for r in rounds]
    speedups = [r["default"]["images_per_s"] / r["scn"]["images_per_s"] for r in rounds]
    result = {
        "rounds": rounds,
        "overhead_ratio": round(statistics.median(overheads), 3),
        "overhead_ratios": [round(value, 3) for value in overheads],
        "lossless_ratio": round(statistics.median(lossless), 3),
        "lossless_ratios": [round(value, 3) for value in lossless],
        "default_vs_scn": round(statistics.median(speedups), 2),
        "default_vs_scn_each": [round(value, 2) for value in speedups],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result) if args.json else table(result))


def default_plan(size: int, batch: int) -> Plan:
    """The default network and settings at a given size."""
    precision = "bf16-mixed" if detect_hardware().fast_bf16 else "32-true"
    return Plan(
        model=ModelConfig.model_validate({"preprocess": {"size": (size, size)}}),
        train=TrainConfig(batch_size=batch, precision=precision, schedule=ScheduleConfig(name="constant")),
    )


def scn_plan(size: int, batch: int) -> Plan:
    """SCN with everything else the same."""
    plan = default_plan(size, batch)
    model = plan.model.model_copy(update={"network": SCNConfig(), "codec": HeatmapCodecConfig(activation="linear")})
    return Plan.model_validate({**plan.to_dict(), "model": model.to_dict(), "loss": [{"name": "mse"}]})


def measure(plan: Plan, data: Dataset, steps: int) -> dict[str, float]:
    """Return median seconds of a bare step, of one without the loss and of a training step, in alternating blocks."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(plan, data.schema, data.cases, (), Path(folder))
        trainer.network.train()
        stream = endless(trainer)
        fixed = next(stream)
        kinds: dict[str, Callable[[], object]] = {
            "bare_s": bare_step(trainer, fixed, with_loss=True),
            "lossless_s": bare_step(trainer, fixed, with_loss=False),
            "train_s": lambda: trainer.step(next(stream)),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for block in range(max(2, steps // 5) + 1):
            for name, action in kinds.items():
                taken = [timed(action) for _ in range(5)]
                if block:  # The first block warms caches and the allocator up.
                    times[name] += taken
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {**medians, "images_per_s": plan.train.batch_size / medians["train_s"]}


def bare_step(trainer: Trainer, batch: Batch, *, with_loss: bool) -> Callable[[], None]:
    """Return what does forward and backward: of the loss, or else of the mean of every output."""
    images = batch.images.to(memory_format=memory_format(trainer.fabric.device))
    target = trainer.codec.encode(trainer.objective.labels(batch))

    def step() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        outputs = trainer.network(images)
        loss = (
            trainer.objective.of_target(outputs, target)[0]
            if with_loss
            else sum(value.float().mean() for value in outputs.values())
        )
        trainer.fabric.backward(loss)

    return step


def endless(trainer: Trainer) -> Iterator[Batch]:
    """Batches as training sees them, without end."""
    settings = trainer.plan.train
    order = [
        indices
        for epoch in range(1000)
        for indices in drawn_order(trainer.draws, settings.batch_size, seed=settings.seed, epoch=epoch)
    ]
    return batches(trainer.source, order, workers=settings.workers)


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def table(result: dict[str, Any]) -> str:
    """Lay the figures out for a reader."""
    lines = [f"{'':10}{'bare s':>10}{'no loss s':>10}{'train s':>10}{'images/s':>10}"]
    for measured in result["rounds"]:
        for name, row in measured.items():
            figures = (row["bare_s"], row["lossless_s"], row["train_s"])
            lines.append(f"{name:10}" + "".join(f"{value:10.3f}" for value in figures) + f"{row['images_per_s']:10.2f}")
    lines.append(f"training step / bare step: {result['overhead_ratio']}, median of {result['overhead_ratios']}")
    lines.append(f"beside one without loss: {result['lossless_ratio']}, median of {result['lossless_ratios']}")
    lines.append(f"default / SCN, images a second: {result['default_vs_scn']}, of {result['default_vs_scn_each']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
