"""The average of a network's weights."""

from __future__ import annotations

import pytest
from torch import nn

from bregma.training.ema import Averaged


def moved(steps: int, decay: float) -> tuple[float, float]:
    """Return the averaged weight and counter after a weight was set to 1, 2, … one a step, from 0."""
    network = nn.BatchNorm1d(1)
    nn.init.zeros_(network.weight)
    average = Averaged(network, decay)
    for step in range(1, steps + 1):
        nn.init.constant_(network.weight, float(step))
        network.num_batches_tracked += 1
        average.update(network)
    return float(average.network.weight), float(average.network.num_batches_tracked)


def test_moves_every_fourth_step_by_four_decays() -> None:
    # Step 4 (t = 3): decay 4 / 13; step 8 (t = 7): 8 / 17, both below the given one, to the fourth power.
    first = 4.0 * (1 - (4 / 13) ** 4)
    second = 8.0 + (first - 8.0) * (8 / 17) ** 4
    assert moved(3, 0.9) == (0.0, 0.0)
    assert moved(7, 0.9) == pytest.approx((first, 4.0))
    assert moved(8, 0.9) == pytest.approx((second, 8.0))


def test_a_long_average_trails_by_its_decay() -> None:
    # A weight that rises by 1 a step is followed at a distance of 4 d / (1 - d), d the decay of four steps.
    d = 0.9**4
    assert moved(400, 0.9)[0] == pytest.approx(400 - 4 * d / (1 - d), abs=1e-3)


def test_without_averaging_the_copy_is_the_network() -> None:
    assert moved(4, 0.0) == (4.0, 4.0)


def test_the_copy_is_not_trained() -> None:
    assert not any(weight.requires_grad for weight in Averaged(nn.Linear(2, 2), 0.9).network.parameters())
