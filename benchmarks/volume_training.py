"""What training on volumes costs: peak memory, what the second epoch still reads, and a step against the bare network.

Run: python benchmarks/volume_training.py PHANTOMS [--recipe bmd/cnn] [--steps 30] [--json]

PHANTOMS is a folder of ``bregma phantom lumbar_mri --volumes``, with its ``schema.yaml`` and ``columns.yaml``. All
volumes are read in a first pass over the training batches and seen again in a second one; then training steps on 32 of
them and bare steps alternate as in ``step_time.py``. Peak memory is that of the whole process, libraries included.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from step_time import measure

from bregma.data.fingerprint import fingerprint
from bregma.data.loader import SampleSource, batches, epoch_order
from bregma.recipe import load_recipe
from bregma.training.plan import make_plan, with_standards
from bregma.training.settings import Plan
from bregma.types import Dataset
from bregma.workflows.loading import DataOptions, load_data
from bregma.workflows.training import as_trained


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of phantom volumes")
    parser.add_argument("--recipe", default="bmd/cnn")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    options = DataOptions(schema=str(args.data / "schema.yaml"), columns=args.data / "columns.yaml")
    loaded = load_recipe(args.recipe)
    data = as_trained(load_data(args.data, options), loaded.recipe)
    planned = make_plan(
        fingerprint(data, sample=0), data.schema, len(data), recipe=loaded.recipe.plan_part(), where=loaded.where
    )
    plan = with_standards(planned, data.schema, data.cases).plan
    first, second = passes(plan, data)
    steps = measure(plan, replace(data, cases=data.cases[:32]), args.steps)
    result = {
        "volumes": len(data),
        "first_pass_s": round(first, 2),
        "second_pass_s": round(second, 2),
        "bare_s": round(steps["bare_s"], 4),
        "train_s": round(steps["train_s"], 4),
        "overhead_ratio": round(steps["train_s"] / steps["bare_s"], 3),
        "peak_memory_gb": round(peak_bytes() / 1e9, 2),
    }
    print(json.dumps(result) if args.json else "\n".join(f"{name:16}{value}" for name, value in result.items()))


def passes(plan: Plan, data: Dataset) -> tuple[float, float]:
    """Return the seconds of two passes over all batches, without a network."""
    source = SampleSource(data.cases, data.schema, plan.model.preprocess, plan.augment, cache_mb=plan.train.cache_mb)
    found = []
    for epoch in range(2):
        start = time.monotonic()
        order = epoch_order(len(data), plan.train.batch_size, seed=0, epoch=epoch)
        for _ in batches(source, order, epoch=epoch, workers=plan.train.workers):
            pass
        found.append(time.monotonic() - start)
    return found[0], found[1]


def peak_bytes() -> int:
    """Return the most memory that the process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
