"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

_EVERY = 4
"""Steps between updates: the copy is memory traffic, and what four steps change at once is as good an average."""


class Averaged:
    """Keeps a copy of ``network`` whose weights trail it; early on the average is short, so that it is never stale.

    The decay of step ``t`` is ``min(decay, (1 + t) / (10 + t))``. The copy moves in each of the first four steps, so
    that the shortest training has an average, and from then on every fourth step by four decays.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Count a step and, if it is time, move the copy; counters and other whole numbers are taken over."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if self.updates > _EVERY:
            if self.updates % _EVERY:
                return
            decay **= _EVERY
        mine: list[Tensor] = [*self.network.parameters()]
        theirs: list[Tensor] = [*network.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
            if own.is_floating_point():
                own.lerp_(other, 1 - decay)
            else:
                own.copy_(other)
