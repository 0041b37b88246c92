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


def test_moves_in_each_of_the_first_four_steps_and_then_every_fourth_by_four_decays() -> None:
    # Decays 1 / 10, 2 / 11, 3 / 12 and 4 / 13 at first; step 8 (t = 7) has 8 / 17, to the fourth power.
    expected = 0.0
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 4 / 13), start=1):
        expected = decay * expected + (1 - decay) * step
        assert moved(step, 0.9) == pytest.approx((expected, float(step)))
    assert moved(7, 0.9) == pytest.approx((expected, 4.0))
    assert moved(8, 0.9) == pytest.approx((8.0 + (expected - 8.0) * (8 / 17) ** 4, 8.0))


def test_a_long_average_trails_by_its_decay() -> None:
    # A weight that rises by 1 a step is followed at a distance of 4 d / (1 - d), d the decay of four steps.
    d = 0.9**4
    assert moved(400, 0.9)[0] == pytest.approx(400 - 4 * d / (1 - d), abs=1e-3)


def test_without_averaging_the_copy_is_the_network() -> None:
    assert moved(1, 0.0) == (1.0, 1.0)
    assert moved(8, 0.0) == (8.0, 8.0)


def test_the_copy_is_not_trained() -> None:
    assert not any(weight.requires_grad for weight in Averaged(nn.Linear(2, 2), 0.9).network.parameters())
