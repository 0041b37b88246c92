"""How many images a second each network reads, beside the default one.

Run: python benchmarks/inference_speed.py [NETWORK ...] [--size 256] [--threads 1] [--rounds 12] [--json]

Networks with their default settings, one grey image at a time. They take turns within one run, so that a busy machine
slows all of them; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from bregma.bundle import ModelConfig
from bregma.inference import memory_format
from bregma.networks import NETWORKS, Network, build_network
from bregma.types import OutputSpec

LANDMARKS = 19
DEFAULT = ModelConfig().network.name


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["light"], help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of the image")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure([DEFAULT, *options.networks], options.size, options.rounds)
    print(json.dumps(rows, indent=2) if options.json else "\n".join(_line(name, row) for name, row in rows.items()))


def measure(names: list[str], size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return parameters, images a second and their ratio to the first network's, by network."""
    networks = {name: _build(name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    image = torch.rand(1, 1, size, size)
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, network in networks.items():
                start = time.perf_counter()
                network(image)
                seconds[name].append(time.perf_counter() - start)
    speed = {name: 1 / statistics.median(times[1:]) for name, times in seconds.items()}
    return {
        name: {
            "parameters": sum(p.numel() for p in network.parameters()),
            "images_per_second": round(speed[name], 2),
            "times_the_default": round(speed[name] / speed[names[0]], 2),
        }
        for name, network in networks.items()
    }


def _build(name: str) -> Network:
    config = NETWORKS[name][0]()
    spec = OutputSpec(LANDMARKS) if config.usual_codec == "heatmap" else OutputSpec(0, {"points": 2 * LANDMARKS})
    return build_network(config, spec).eval().to(memory_format=memory_format(torch.device("cpu")))


def _line(name: str, row: dict[str, float]) -> str:
    return (
        f"{name:18s} {row['parameters'] / 1e6:7.2f} M  {row['images_per_second']:7.1f} images/s"
        f"  {row['times_the_default']:6.2f} times the default"
    )


if __name__ == "__main__":
    main()
