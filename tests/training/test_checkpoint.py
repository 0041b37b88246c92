"""What is written as a checkpoint comes back, and what is broken is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

import bregma.bundle
from bregma.errors import RunError
from bregma.training.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    prefixed,
    read_checkpoint,
    unprefixed,
    write_checkpoint,
)


def test_tensors_and_state_come_back(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "b": torch.tensor(7),
        "c": torch.tensor([1.5, float("inf")], dtype=torch.float64)[::1],
        "d": torch.arange(6).reshape(2, 3).t(),
    }
    state = {"epoch": 3, "history": [{"loss": 0.1 + 0.2}], "best": None}
    write_checkpoint(tmp_path / "new" / "x.safetensors", tensors, state)
    back, told = read_checkpoint(tmp_path / "new" / "x.safetensors")
    assert told == state
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_prefixes() -> None:
    one = torch.ones(1)
    both = {**prefixed("net", {"a.b": one, "netto": one}), **prefixed("network", {"c": one})}
    assert set(both) == {"net.a.b", "net.netto", "network.c"}
    assert set(unprefixed("net", both)) == {"a.b", "netto"}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path: Path, kind: Any, fused: bool) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=torch.channels_last)
        momentum = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return network, kind(network.parameters(), lr=0.1, fused=fused, **momentum)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        torch.manual_seed(seed)
        network(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()

    whole, one = build()
    for seed in range(4):
        step(whole, one, seed)
    halved, two = build()
    for seed in range(2):
        step(halved, two, seed)
    write_checkpoint(
        tmp_path / "x", {**prefixed("n", halved.state_dict()), **prefixed("o", optimizer_tensors(two))}, {}
    )
    tensors, _ = read_checkpoint(tmp_path / "x")
    other, three = build()
    other.load_state_dict(unprefixed("n", tensors))
    load_optimizer(three, unprefixed("o", tensors))
    for seed in range(2, 4):
        step(other, three, seed)
    for a, b in zip(whole.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_an_optimizer_without_state_comes_back(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))], lr=0.1)
    assert optimizer_tensors(optimizer) == {}
    load_optimizer(optimizer, {})


@pytest.mark.parametrize("spoil", ["empty", "cut", "header", "absent", "folder", "no state", "state no JSON"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, {"a": torch.ones(100)}, {"epoch": 1})
    whole = path.read_bytes()
    from safetensors.torch import save_file

    match spoil:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[:-10])
        case "header":
            path.write_bytes(b"\xff" * 16 + whole[16:])
        case "absent":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case "no state":
            save_file({"a": torch.ones(1)}, path)
        case "state no JSON":
            save_file({"a": torch.ones(1)}, path, metadata={"state": "{"})
    with pytest.raises(RunError, match=r"is not a checkpoint.*start the training anew") as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("os error 28")])
def test_a_full_disk_leaves_the_last_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, {"a": torch.ones(3)}, {"epoch": 1})

    def full(tensors: Any, target: Path, metadata: Any) -> None:
        Path(target).write_bytes(b"half")
        raise error

    monkeypatch.setattr(bregma.bundle, "save_file", full)
    with pytest.raises(RunError, match=r"cannot be written.*space"):
        write_checkpoint(path, {"a": torch.zeros(3)}, {"epoch": 2})
    assert read_checkpoint(path)[1] == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]
