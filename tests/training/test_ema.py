"""The average of weights, against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bregma.training.ema import Averaged


def set_to(network: nn.Linear, value: float) -> None:
    nn.init.constant_(network.weight, value)
    nn.init.constant_(network.bias, -value)


def test_is_the_weighted_mean_that_its_decay_says() -> None:
    network = nn.Linear(2, 1)
    set_to(network, 0.0)
    average = Averaged(network, decay=0.2)
    expected = 0.0
    # The decay is 1/10 and 2/11 at first, then min(0.2, 3/12) = 0.2.
    for value, decay in [(1.0, 0.1), (2.0, 2 / 11), (3.0, 0.2), (4.0, 0.2)]:
        set_to(network, value)
        average.update(network)
        expected = decay * expected + (1 - decay) * value
        assert average.network.weight[0, 0].item() == pytest.approx(expected, rel=1e-6)
        assert average.network.bias[0].item() == pytest.approx(-expected, rel=1e-6)
    assert average.updates == 4


def test_no_decay_copies() -> None:
    network = nn.Linear(3, 2)
    average = Averaged(network, decay=0.0)
    set_to(network, 0.7)
    average.update(network)
    assert torch.equal(average.network.weight, network.weight)


def test_statistics_are_averaged_and_counters_taken_over() -> None:
    network = nn.BatchNorm1d(2)
    average = Averaged(network, decay=0.9)
    network(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))  # Running mean 0.1 x (1, 20), after one batch.
    average.update(network)
    assert average.network.running_mean.tolist() == pytest.approx([0.09, 1.8], rel=1e-6)
    assert int(average.network.num_batches_tracked) == 1


def test_the_copy_neither_trains_nor_takes_part_in_training() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = Averaged(network, decay=0.5)
    assert not any(module.training for module in average.network.modules())
    assert not any(weight.requires_grad for weight in average.network.parameters())
    assert network.training
    assert network[0].weight.requires_grad
    before = average.network[0].weight.clone()
    nn.init.constant_(network[0].weight, 9.0)
    assert torch.equal(average.network[0].weight, before)
